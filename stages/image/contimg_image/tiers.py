"""The settings of each tier, and how they scale to other telescopes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.telescope import NAMES
from contimg.records.ms import MSHeader
from contimg_image.frame import ARCSEC_RAD
from contimg_image.options import ImageOptions, Tier

CELLS_PER_FRINGE = 5.2
"""Cells per wavelength over the longest baseline, for other telescopes; ours would get 3 arcsec."""
FIELD_PER_LOBE = 1.72
"""Width of the field in wavelengths over the dish diameter; ours would get 4.5 deg."""
MIN_SIZE_PX = 128
ALL_BASELINES_M = 1e9


@dataclass(frozen=True)
class Settings:
    """How one image is made; the defaults are those of the tier `standard`."""

    size: int = 3600
    """Width and height, pixels."""
    cell_arcsec: float = 4.5
    robust: float = 0.5
    niter: int = 200_000
    threshold: float = 1.0
    """Multiple of the residual's noise at which cleaning ends."""
    mgain: float = 0.95
    """Fraction of the peak that is cleaned before the residual is computed again."""
    longest_m: float = ALL_BASELINES_M
    """Longer baselines are left out."""
    accuracy: float = 1e-4
    """Relative accuracy of the gridder."""
    taper_arcsec: float = 12.0
    """FWHM of a Gaussian that smooths the sky; 0 for none. 12 arcsec remove a 10 arcsec spike from
    the PSF, which the cells sample too coarsely: peaks are 0.4 % too high, not 0.8 %."""
    bright: int = 60
    """Most sources inside the image that are subtracted before imaging."""
    beyond: int = 40
    """Most sources beyond its edge: nothing else could remove their sidelobes."""
    cleanings: int = 1
    """Most cleanings; before the second the residual is searched. At full size one takes 110 s."""
    deterministic: bool = True
    """Whether the same input must give the same bytes."""

    @property
    def width_rad(self) -> float:
        """Width of the field, radians."""
        return self.size * (self.cell_arcsec * ARCSEC_RAD)


SHORT_BASELINES = Settings(1620, 9.0, longest_m=500.0, taper_arcsec=0.0)
# Without the outriggers the beam is 100" x 54": cells of 10.8" bias peaks by less than 0.4 %.
QUICK_LOOK = replace(SHORT_BASELINES, size=1350, cell_arcsec=10.8, niter=20_000, threshold=4.0)
FINE = Settings(6480, 2.5, niter=1_000_000, threshold=0.7, mgain=0.8, accuracy=1e-5)
TIERS: dict[Tier, Settings] = {
    "quicklook": replace(QUICK_LOOK, accuracy=1e-3, bright=10, beyond=30, deterministic=False),
    "development": replace(SHORT_BASELINES, niter=50_000, threshold=2.0),
    "standard": Settings(),
    "high_precision": replace(FINE, bright=100, beyond=60, cleanings=2),
}


def choose_settings(options: ImageOptions, header: MSHeader, longest_baseline_m: float) -> Settings:
    """Return the settings of a tier for a telescope; numbers among the options take precedence.

    Field and cell of another telescope follow from its longest baseline, the diameter of its dishes
    and the highest frequency. The size is even, and FFTs of it are fast.
    """
    from scipy.fft import next_fast_len

    tier = TIERS[options.tier]
    if header.telescope not in NAMES:
        wavelength_m = SPEED_OF_LIGHT_M_S / float(header.frequencies_hz[-1])
        dish_m = float(np.median(header.antennas.diameters_m))
        cell = wavelength_m / longest_baseline_m / CELLS_PER_FRINGE / ARCSEC_RAD
        cell = float(f"{cell:.2g}")
        least = max(MIN_SIZE_PX, int(FIELD_PER_LOBE * wavelength_m / dish_m / ARCSEC_RAD / cell))
        size = 2 * next_fast_len((least + 1) // 2, real=True)
        tier = replace(tier, cell_arcsec=cell, size=size, taper_arcsec=0.0)
        tier = replace(tier, longest_m=ALL_BASELINES_M)
    names = ("size", "cell_arcsec", "robust", "niter", "threshold")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.niter == 0:
        # A dirty image shows all sources as they are.
        given |= {"bright": 0, "beyond": 0}
    return replace(tier, **given)
