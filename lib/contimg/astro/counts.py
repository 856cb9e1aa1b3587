"""Number counts of radio sources at 1.4 GHz, and the confusion noise that follows from them.

The count is the sixth-order polynomial of Hopkins et al. 2003 (AJ 125, 465, equation 1), which fits
surveys from 0.05 mJy to 1 Jy: about 28 sources per square degree above 5 mJy, 45 above 2.5 mJy, 89
above 1 mJy and 160 above 0.5 mJy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

COEFFICIENTS = (0.859, 0.508, 0.376, -0.049, -0.121, 0.057, -0.008)
"""Of log10(dN/dS S^2.5), Jy^1.5/sr, as a polynomial in log10(S/mJy)."""
MIN_JY, MAX_JY = 5e-5, 1.0
"""Where the polynomial holds."""
DEG2_PER_SR = (180 / np.pi) ** 2
STEPS_PER_DECADE = 400
"""Of the integrals over flux density; they are right to 1e-5."""


def differential_count(flux_jy: npt.ArrayLike) -> FloatArray:
    """Return dN/dS, sources per Jy and sr, at flux densities of the same shape, Jy."""
    flux = np.asarray(flux_jy, np.float64)
    log_count = np.polynomial.polynomial.polyval(np.log10(flux * 1e3), COEFFICIENTS)
    return np.asarray(10**log_count * flux**-2.5)


def count_per_deg2(low_jy: float, high_jy: float) -> float:
    """Return the number of sources per square degree between two flux densities, Jy.

    Raises ValueError if the count does not hold there.
    """
    flux, steps = _flux_grid(low_jy, high_jy)
    return float((differential_count(flux) * flux * steps).sum() / DEG2_PER_SR)


def confusion_jy(beam_deg2: float, limit_jy: float, faintest_jy: float = MIN_JY) -> float:
    """Return the rms brightness, Jy/beam, of the sources that are too faint to be taken away.

    sigma^2 = integral of S^2 dN/dS dS times the integral of the squared beam (Condon 1974, ApJ 188,
    279), which is half of the area of a Gaussian beam. Sidelobes of the dirty beam are not in it.

    Parameters
    ----------
    beam_deg2
        Area of the restoring beam, pi / (4 ln 2) BMAJ BMIN, square degrees.
    limit_jy
        Sources above this are cleaned or fitted, Jy.
    faintest_jy
        The sky has no sources below this, as a simulated one.

    Raises
    ------
    ValueError
        If the count does not hold between the limits.
    """
    flux, steps = _flux_grid(faintest_jy, limit_jy)
    power = (flux**2 * differential_count(flux) * flux * steps).sum()
    return float(np.sqrt(power * beam_deg2 / 2 / DEG2_PER_SR))


def draw_fluxes(rng: np.random.Generator, number: int, low_jy: float, high_jy: float) -> FloatArray:
    """Draw flux densities, Jy, between two limits, shape (number,)."""
    flux, steps = _flux_grid(low_jy, high_jy)
    total = np.concatenate([[0.0], np.cumsum(differential_count(flux) * flux * steps)])
    edges = np.geomspace(low_jy, high_jy, flux.size + 1)
    return np.asarray(np.exp(np.interp(rng.uniform(0, total[-1], number), total, np.log(edges))))


def _flux_grid(low_jy: float, high_jy: float) -> tuple[FloatArray, FloatArray]:
    """Return the midpoints of even steps in log S, and the steps in ln S."""
    if not MIN_JY <= low_jy <= high_jy <= MAX_JY:
        message = f"The source count holds from {MIN_JY} to {MAX_JY} Jy, not {low_jy} to {high_jy}."
        raise ValueError(message)
    number = 1 + int(STEPS_PER_DECADE * np.log10(high_jy / low_jy))
    edges = np.linspace(np.log(low_jy), np.log(high_jy), number + 1)
    return np.exp((edges[1:] + edges[:-1]) / 2), np.diff(edges)
