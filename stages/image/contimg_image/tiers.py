"""What each tier means in numbers, and how they scale to other telescopes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.telescope import NAMES

if TYPE_CHECKING:
    from contimg_image.options import ImageOptions, Tier

ARCSEC_PER_RADIAN = 206264.80624709636
CELLS_PER_FRINGE = 5.2
"""Cells in one wavelength over the longest baseline, for telescopes other than ours; for ours it gives 3 arcsec."""
FIELD_PER_LOBE = 1.72
"""Width of the field in units of wavelength over dish diameter; for ours it gives 4.5 deg."""
PREFERRED = (2, 3, 5)
"""Prime factors that FFTs like."""


@dataclass(frozen=True)
class Settings:
    """How one image is made."""

    size: int
    """Width and height, pixels."""
    cell_arcsec: float
    robust: float
    niter: int
    threshold: float
    """Multiple of the residual's noise at which cleaning ends."""
    mgain: float
    """Share of the peak that is cleaned before the residual is computed anew."""
    longest_m: float
    """Baselines beyond this are left out."""
    accuracy: float
    """Of the gridder, relative."""
    taper_arcsec: float
    """Width (FWHM) of a Gaussian that the sky is smoothed with by the weights; 0 for none."""
    bright: int
    """Most sources inside of the image that are taken out of the visibilities before imaging."""
    beyond: int
    """Most sources beyond its edge that are: nothing else could remove their sidelobes."""
    deterministic: bool = True
    """Whether the same input must give the same bytes."""

    @property
    def cell_rad(self) -> float:
        """Pixel, radians."""
        return self.cell_arcsec / ARCSEC_PER_RADIAN

    @property
    def width_rad(self) -> float:
        """Width of the field, radians."""
        return self.size * self.cell_rad


EVERYTHING_M = 1e9
TIERS: dict[Tier, Settings] = {
    # Without the outriggers the beam is 100" x 54", and 9" cells bias peaks by less than 0.4 %.
    "quicklook": Settings(
        1350, 10.8, 0.5, 20_000, 4.0, 0.95, 500.0, 1e-3, 0.0, 10, 30, deterministic=False
    ),
    "development": Settings(1620, 9.0, 0.5, 50_000, 2.0, 0.95, 500.0, 1e-4, 0.0, 60, 40),
    # The taper takes the 10" spike out of the PSF, which 3" cells sample too coarsely: + 0.8 % in peaks without, + 0.3 % with.
    "standard": Settings(5400, 3.0, 0.5, 200_000, 1.0, 0.9, EVERYTHING_M, 1e-4, 12.0, 60, 40),
    "high_precision": Settings(
        6480, 2.5, 0.5, 1_000_000, 0.7, 0.8, EVERYTHING_M, 1e-5, 12.0, 100, 60
    ),
}


def settings(
    options: ImageOptions, telescope: str, longest_baseline_m: float, dish_m: float, freq_hz: float
) -> Settings:
    """Return the settings of a tier for a telescope, with the options' own numbers in place of its.

    Parameters
    ----------
    longest_baseline_m, dish_m, freq_hz
        Longest baseline, dish diameter and highest frequency of the data: field and cell of a telescope that is not ours follow
        from them; the tiers' numbers are for ours.
    """
    chosen = TIERS[options.tier]
    if telescope not in NAMES:
        wavelength = SPEED_OF_LIGHT_M_S / freq_hz
        cell = wavelength / longest_baseline_m / CELLS_PER_FRINGE * ARCSEC_PER_RADIAN
        width = FIELD_PER_LOBE * wavelength / dish_m * ARCSEC_PER_RADIAN
        cell = float(f"{cell:.2g}")
        size = good_size(int(width / cell))
        chosen = replace(
            chosen, cell_arcsec=cell, size=size, longest_m=EVERYTHING_M, taper_arcsec=0.0
        )
    given = {
        name: getattr(options, name)
        for name in ("size", "cell_arcsec", "robust", "niter", "threshold")
        if getattr(options, name) is not None
    }
    if options.niter == 0:
        # A dirty image shows everything as it is.
        given["bright"] = given["beyond"] = 0
    return replace(chosen, **given)


def good_size(least: int) -> int:
    """Return the least even number of pixels, not below `least` and 128, that has only small prime factors."""
    size = max(least, 128)
    size += size % 2
    while not _smooth(size):
        size += 2
    return size


def _smooth(number: int) -> bool:
    for prime in PREFERRED:
        while number % prime == 0:
            number //= prime
    return number == 1
