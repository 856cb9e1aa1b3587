"""Measure the primary beam from the fluxes of sources that drift through it in many groups.

An apparent flux is C F L: the scale of its group, the flux of its source, and the beam. Logarithms
are fitted by least squares for all scales, all fluxes, and the beam's width and offset. A catalogue
flux is a weak prior of a source's flux: in one strip a source always crosses the beam at the same
distance north, which its own flux cannot be told from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DEFAULT_SPECTRAL_INDEX
from contimg.astro.coordinates import Site, drift_offsets
from contimg.astro.primary_beam import FloatArray, PrimaryBeam
from contimg.astro.telescope import band_hz
from contimg.runtime.errors import BadInputError

IntArray = npt.NDArray[np.int64]

TIME_SAMPLES, BAND_SAMPLES = 6, 5
"""Moments of a group and frequencies of its band at which the beam is averaged."""
STEPS = {"width": 0.01, "east_deg": 0.02, "north_deg": 0.02}
"""Changes of the beam from which derivatives are taken."""
SCALE_SCATTER = 0.1
"""Prior of ln(C), 1 sigma: gains of groups agree so well."""
CATALOGUE_SCATTER = 0.2
"""Prior of ln(F) about the catalogue's flux, 1 sigma: variability, spectral index, size."""
MIN_ROW_SCATTER = 0.01
"""Error of one flux beyond its noise, at least: gains, cleaning, and the averages of the beam."""
SYSTEMATIC_ERRORS = (0.001, 0.003, 0.003)
"""1 sigma of width and offset (deg) that choosing fluxes by their own signal-to-noise ratio and the
averages of the beam leave, from simulated tables."""
BIWEIGHT_SIGMA = 4.685
"""Tukey's constant: residuals beyond so many sigma have no weight (95 % efficiency)."""
ITERATIONS = 12
MIN_ROWS, MIN_GROUPS = 50, 3
RADII_DEG = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 3.0)
"""Borders of the radii in which residuals are summed up."""


@dataclass(frozen=True, eq=False)
class DriftingFluxes:
    """Fluxes of sources, one row for each source and group, shape (R,) if not said otherwise."""

    source: IntArray
    """Index of the source, 0 to S - 1."""
    group: IntArray
    """Index of the group, 0 to G - 1."""
    log_flux: FloatArray
    """Logarithm of the flux that was corrected for the assumed beam."""
    error: FloatArray
    """1 sigma of `log_flux` by noise."""
    log_catalogue: FloatArray
    """Logarithm of the catalogue's flux, shape (S,), NaN if unknown."""
    offset: FloatArray
    """Unit vector to the source minus that of the pointing, (R, TIME_SAMPLES, 3)."""
    freq_hz: FloatArray
    """Frequencies of the group's band, (R, BAND_SAMPLES)."""
    weight: FloatArray
    """Weights of those, (R, BAND_SAMPLES), whose sum is 1."""
    log_assumed: FloatArray
    """Logarithm of the assumed beam, averaged like `log_level`."""

    def log_level(self, beam: PrimaryBeam) -> FloatArray:
        """Return the logarithm of a beam's mean over each group and its band."""
        return log_mean_level(beam, self.offset, self.freq_hz, self.weight)


class BeamFit(NamedTuple):
    """How a beam must be changed to agree with the fluxes, and how well it then does."""

    width: float
    """Factor on the width of the given beam."""
    width_error: float
    east_deg: float
    """To be added to the offset of its axis."""
    east_error_deg: float
    north_deg: float
    north_error_deg: float
    chi2: float
    """Reduced, of noise alone; variable sources and other errors of single fluxes raise it."""
    scatter: float
    """Rms of a flux beyond its noise, relative."""
    rows: int
    sources: int
    groups: int
    residuals: tuple[tuple[float, float, float, int], ...]
    """Radius (deg), mean residual (relative), its error, rows."""


def log_mean_level(
    beam: PrimaryBeam, offset: FloatArray, freq_hz: FloatArray, weight: FloatArray
) -> FloatArray:
    """Return the logarithm of a beam's mean over moments and a band; shapes of `DriftingFluxes`."""
    level = beam.level(offset[:, :, None], freq_hz[:, None]).mean(axis=1)
    return np.asarray(np.log(np.maximum(np.sum(level * weight, axis=1), 1e-6)))


def midpoints(low: float, high: float, count: int) -> FloatArray:
    """Return the middles of equal parts of an interval: a mean over them has no end effects."""
    return np.asarray(low + (high - low) * ((np.arange(count) + 0.5) / count))


def sample_times(mjd_start: float, mjd_end: float) -> FloatArray:
    """Return the midpoints of equal parts of a group, MJD."""
    return midpoints(mjd_start, mjd_end, TIME_SAMPLES)


def mean_beam(
    ra_deg: FloatArray,
    dec_deg: FloatArray,
    moments: FloatArray,
    strip_deg: float,
    site: Site,
    beam: PrimaryBeam,
) -> FloatArray:
    """Return a beam's mean over some moments (MJD) and as many frequencies of the band, (K,)."""
    place = np.radians(ra_deg), np.radians(dec_deg)
    offset = drift_offsets(*place, moments, float(np.radians(strip_deg)), site)
    band = band_hz()
    freq_hz = midpoints(band[0], band[-1], moments.size)
    return np.asarray(beam.level(offset[:, :, None], freq_hz).mean(axis=(1, 2)))


def sample_band(low_hz: float, high_hz: float, mean_hz: float) -> tuple[FloatArray, FloatArray]:
    """Return frequencies across a band, and weights whose mean frequency is that of the image."""
    freq_hz = low_hz + (high_hz - low_hz) * (np.arange(BAND_SAMPLES) + 0.5) / BAND_SAMPLES
    away = freq_hz - freq_hz.mean()
    weight = 1 + away * (mean_hz - freq_hz.mean()) / np.mean(away**2)
    weight = np.maximum(weight, 0.0) * (freq_hz / mean_hz) ** DEFAULT_SPECTRAL_INDEX
    return np.asarray(freq_hz), np.asarray(weight / weight.sum())


def log_slopes(
    beam: PrimaryBeam,
    steps: Mapping[str, float],
    log_level: Callable[[PrimaryBeam], FloatArray],
) -> FloatArray:
    """Return derivatives of the logarithm of a beam, shape (len(steps), N).

    `steps` are changes by arguments of `PrimaryBeam.changed`, made in both directions; `log_level`
    returns the logarithm of a beam at N places.
    """
    slopes = []
    for name, step in steps.items():
        centre = 1.0 if name == "width" else 0.0
        down, up = (log_level(beam.changed(**{name: centre + sign * step})) for sign in (-1, 1))
        slopes.append((up - down) / (2 * step))
    return np.array(slopes)


def fit_beam(fluxes: DriftingFluxes, beam: PrimaryBeam) -> BeamFit:
    """Fit width and offset of a beam; robust against sources that vary.

    Raises BadInputError if there are too few fluxes.
    """
    rows, groups = fluxes.log_flux.size, np.unique(fluxes.group).size
    if rows < MIN_ROWS or groups < MIN_GROUPS:
        problem = f"There are {rows} fluxes in {groups} groups."
        remedy = f"Measure at least {MIN_ROWS} in {MIN_GROUPS} groups of one strip."
        raise BadInputError("beam fit", problem, remedy)
    apparent = fluxes.log_flux + fluxes.log_assumed
    value = np.array([1.0, 0.0, 0.0])
    scatter, weight = MIN_ROW_SCATTER, np.ones(rows)
    bright = fluxes.error <= np.median(fluxes.error)
    prior_weight = np.ones(fluxes.log_catalogue.size)
    for _ in range(ITERATIONS):
        here = beam.changed(**dict(zip(STEPS, value.tolist(), strict=True)))
        level, slopes = fluxes.log_level(here), log_slopes(here, STEPS, fluxes.log_level)
        sigma = np.hypot(fluxes.error, scatter)
        solution = _solve(fluxes, apparent - level, slopes, weight / sigma**2, prior_weight)
        change, residual, prior_residual, covariance = solution
        value = np.array([value[0] * (1 + change[0]), *(value[1:] + change[1:])])
        # 0.455 is the median of chi^2 of one degree of freedom.
        excess = np.median(residual[bright] ** 2) / 0.455 - np.median(fluxes.error[bright] ** 2)
        excess *= rows / max(rows - _nuisances(fluxes), 1)
        scatter = float(np.sqrt(max(excess, MIN_ROW_SCATTER**2)))
        weight = biweight(residual / np.hypot(fluxes.error, scatter))
        prior_weight = biweight(prior_residual / CATALOGUE_SCATTER)
    free = max(weight.sum() - _nuisances(fluxes), 1)
    errors = np.sqrt(np.diag(covariance) * rows / max(weight.sum(), 1))
    errors = np.hypot(errors, SYSTEMATIC_ERRORS)
    return BeamFit(
        width=float(value[0]),
        width_error=float(value[0] * errors[0]),
        east_deg=float(value[1]),
        east_error_deg=float(errors[1]),
        north_deg=float(value[2]),
        north_error_deg=float(errors[2]),
        chi2=float(np.sum(weight * (residual / fluxes.error) ** 2) / free),
        scatter=scatter,
        rows=rows,
        sources=fluxes.log_catalogue.size,
        groups=groups,
        residuals=_by_radius(fluxes, residual, weight),
    )


def _nuisances(fluxes: DriftingFluxes) -> int:
    """Return the number of free fluxes and scales."""
    return int(np.unique(fluxes.source).size + np.unique(fluxes.group).size)


def biweight(scaled: FloatArray) -> FloatArray:
    """Return Tukey's weights of residuals in units of their errors."""
    return np.asarray(np.clip(1 - (scaled / BIWEIGHT_SIGMA) ** 2, 0, 1) ** 2)


def _solve(
    fluxes: DriftingFluxes,
    right: FloatArray,
    slopes: FloatArray,
    weight: FloatArray,
    prior_weight: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Solve for changes of the beam, scales and fluxes at once.

    The unknowns are 3 changes of the beam, the scale of the catalogue, ln(C) of the groups and
    ln(F) of the sources. Returns the changes, the residuals of the rows and of the priors of
    fluxes (0 without a prior), and the covariance of the changes.
    """
    from scipy import sparse  # slow to import
    from scipy.sparse.linalg import splu

    rows, sources = right.size, fluxes.log_catalogue.size
    groups = int(fluxes.group.max()) + 1
    first_group, first_source = 4, 4 + groups
    total = first_source + sources
    known = np.flatnonzero(np.isfinite(fluxes.log_catalogue))

    def ones_at(columns: IntArray) -> Any:  # noqa: ANN401 - scipy has no types
        """Return a matrix with a 1 in a column of each row."""
        entries = np.ones(columns.size), (np.arange(columns.size), columns)
        return sparse.csr_array(entries, shape=(columns.size, total))

    places = np.tile(np.arange(rows), 3), np.repeat(np.arange(3), rows)
    beam = sparse.csr_array((slopes.ravel(), places), shape=(rows, total))
    data = beam + ones_at(first_group + fluxes.group) + ones_at(first_source + fluxes.source)
    scales = ones_at(first_group + np.arange(groups))
    priors = ones_at(first_source + known) - ones_at(np.full(known.size, 3))
    design = sparse.vstack([data, scales, priors]).tocsc()
    target = np.concatenate([right, np.zeros(groups), fluxes.log_catalogue[known]])
    prior = prior_weight[known] / CATALOGUE_SCATTER**2
    inverse_variance = np.concatenate([weight, np.full(groups, SCALE_SCATTER**-2.0), prior])
    weighted = design.T * inverse_variance
    # A source without any weight left is held by this alone.
    normal = (weighted @ design + 1e-6 * sparse.eye_array(total)).tocsc()
    factors = splu(normal)
    solution = factors.solve(weighted @ target)
    unit = np.zeros((total, 3))
    unit[range(3), range(3)] = 1.0
    covariance = factors.solve(unit)[:3]
    left = target - design @ solution
    prior_residual = np.zeros(sources)
    prior_residual[known] = left[rows + groups :]
    return solution[:3], left[:rows], prior_residual, covariance


def combine_fits(fits: Sequence[BeamFit]) -> BeamFit:
    """Return the mean of fits of parts of the band, weighted by their errors; one fit as it is.

    Parts see the same sources, so the errors are those of one part. Sources and groups are those of
    the part with the most; residuals are left out.
    """
    if len(fits) == 1:
        return fits[0]
    found: dict[str, Any] = {}
    for name in ("width", "east", "north"):
        value_name = name if name == "width" else f"{name}_deg"
        error_name = "width_error" if name == "width" else f"{name}_error_deg"
        value, error = (np.array([getattr(f, n) for f in fits]) for n in (value_name, error_name))
        found[value_name] = float(np.average(value, weights=error**-2.0))
        found[error_name] = float(np.mean(error**-2.0) ** -0.5)
    return BeamFit(
        **found,
        chi2=float(np.mean([fit.chi2 for fit in fits])),
        scatter=float(np.mean([fit.scatter for fit in fits])),
        rows=sum(fit.rows for fit in fits),
        sources=max(fit.sources for fit in fits),
        groups=max(fit.groups for fit in fits),
        residuals=(),
    )


def _by_radius(
    fluxes: DriftingFluxes, residual: FloatArray, weight: FloatArray
) -> tuple[tuple[float, float, float, int], ...]:
    """Return mean residuals in rings, which show where the model of the beam does not fit."""
    middle = fluxes.offset.mean(axis=1)
    radius = np.degrees(np.hypot(middle[:, 0], middle[:, 1]))
    found = []
    for low, high in pairwise(RADII_DEG):
        inside = (radius >= low) & (radius < high) & (weight > 0)
        if inside.sum() > 1:
            part = residual[inside]
            error = float(part.std(ddof=1) / np.sqrt(part.size))
            mean_radius = float(radius[inside].mean())
            found.append((mean_radius, float(part.mean()), error, int(part.size)))
    return tuple(found)


def describe_fit(fit: BeamFit, beam: PrimaryBeam, freq_hz: float) -> Sequence[str]:
    """Return what was found, as lines for a person."""
    fwhm_deg, mhz = 2 * np.degrees(beam.radius_rad(0.5, freq_hz)), freq_hz / 1e6
    width, error = fwhm_deg * fit.width, fwhm_deg * fit.width_error
    east = f"{fit.east_deg:+.3f} ± {fit.east_error_deg:.3f} deg east"
    north = f"{fit.north_deg:+.3f} ± {fit.north_error_deg:.3f} deg north"
    rings = (f"{r:.1f} deg {mean:+.2%} ± {error:.2%}" for r, mean, error, _ in fit.residuals)
    return [
        f"{fit.rows} fluxes of {fit.sources} sources in {fit.groups} groups",
        f"width of {beam.name} times {fit.width:.4f} ± {fit.width_error:.4f}",
        f"FWHM {width:.3f} ± {error:.3f} deg at {mhz:.0f} MHz",
        f"axis {east}, {north} of that beam's",
        f"reduced chi^2 of noise alone {fit.chi2:.2f}, other scatter of a flux {fit.scatter:.1%}",
        f"residual by radius: {', '.join(rings)}",
    ]
