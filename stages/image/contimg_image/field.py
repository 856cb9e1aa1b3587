"""The field that is imaged: its visibilities, their weights, the pointing and the pixel grid.

Imaging weights are as WSClean defines them; the noise and the restoring beam follow from them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from contimg.astro.beam_text import NO_BEAM
from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import Site, direction_cosines, icrs_of_hadec
from contimg.astro.primary_beam import PrimaryBeam
from contimg.astro.telescope import NAMES
from contimg.records.ms import STOKES_I, Rows, create
from contimg.runtime.errors import BadImageError
from contimg_image import kernels
from contimg_image.averaging import AveragedVisibilities
from contimg_image.frame import ARCSEC_RAD, Floats, Frame, Singles
from contimg_image.imagers import PADDING
from contimg_image.tiers import Settings

ROBUST_BASE = 5.0
"""Briggs (1995), equation 3.20: natural and uniform weights part at (5 / 10^R)^2 mean weights."""
SAMPLE_COUNT = 10_000
"""Visibilities that the width of the PSF is computed from."""
ANGLE_COUNT, RADIUS_COUNT = 12, 100
"""Directions in which the half-power radius is searched, and radii in each."""


@dataclass(frozen=True, eq=False)
class ImagingWeights:
    """Briggs' weights of every averaged visibility, and what follows from them."""

    of_set: tuple[Singles, ...]
    """One array for each set, of the shape of its visibilities."""
    frequency_hz: float
    """Mean frequency with these weights."""
    natural_rms_jy: float
    """Noise of the image with natural weights; NaN if the noise is unknown."""
    thermal_rms_jy: float
    """Noise of the image with these weights; NaN if the noise is unknown."""


@dataclass(frozen=True, eq=False)
class ImagingField:
    """The visibilities of a field and how they are imaged."""

    data: AveragedVisibilities
    """Bright sources are subtracted from these visibilities in place."""
    weights: ImagingWeights
    frame: Frame
    pointing: Floats
    """Shape (T, 3): l, m, n - 1 of the dishes' pointing at each integration."""
    primary_beam: PrimaryBeam | None
    """That of our dishes; None: another telescope, whose beam is taken as 1."""

    @classmethod
    def of(
        cls,
        data: AveragedVisibilities,
        settings: Settings,
        dec_deg: float | None,
        site: Site,
        beam: PrimaryBeam,
    ) -> ImagingField:
        """Return a field about the phase centre.

        Our dishes point at the apparent declination `dec_deg` on the meridian, those of another
        telescope at the phase centre.
        """
        header, pointing = data.header, np.zeros((data.times_s.size, 3))
        primary_beam = None
        if header.telescope in NAMES and dec_deg is not None:
            primary_beam = beam
            ra, dec = icrs_of_hadec(0.0, np.radians(dec_deg), data.times_s / DAY_S, site)
            cosines = direction_cosines(ra, dec, header.ra_rad, header.dec_rad)
            pointing = np.stack(cosines, axis=1)
        taper_rad, padded_rad = settings.taper_arcsec * ARCSEC_RAD, PADDING * settings.width_rad
        weights = imaging_weights(data, settings.robust, padded_rad, taper_rad)
        centre_deg = float(np.degrees(header.ra_rad)), float(np.degrees(header.dec_rad))
        frame = Frame(*centre_deg, settings.size, settings.cell_arcsec)
        return cls(data, weights, frame, pointing, primary_beam)

    @property
    def beam_name(self) -> str:
        """Name of the primary beam."""
        return NO_BEAM if self.primary_beam is None else self.primary_beam.name

    def write_sets(self, folder: Path) -> tuple[Path, ...]:
        """Write the Stokes I visibilities as Measurement Sets, replacing earlier ones."""
        paths = []
        for part in self.data.sets:
            path, weight = folder / f"{part.name}.ms", part.weight[..., None]
            shutil.rmtree(path, ignore_errors=True)
            header = replace(
                self.data.header,
                frequencies_hz=part.frequencies_hz,
                channel_width_hz=part.width_hz * part.factor,
                correlations=(STOKES_I,),
            )
            rows = Rows(
                time_s=self.data.times_s[part.time_index],
                interval_s=part.interval_s,
                antenna1=part.antenna1.astype(np.int32),
                antenna2=part.antenna2.astype(np.int32),
                uvw_m=part.uvw_m,
                weight=weight.sum(axis=1, dtype=np.float64).astype(np.float32),
            )
            columns = {"DATA": part.vis[..., None], "WEIGHT_SPECTRUM": weight, "FLAG": weight == 0}
            with create(path, header, rows, ("DATA", "WEIGHT_SPECTRUM")) as writer:
                writer.put(0, columns)
            paths.append(path)
        return tuple(paths)


def imaging_weights(
    data: AveragedVisibilities, robust: float, width_rad: float, taper_rad: float
) -> ImagingWeights:
    """Return Briggs' weights for a field of `width_rad`, padding included.

    The density is counted in uv cells of 1 / `width_rad`; a cell and its conjugate are one. The
    weight of a visibility of natural weight W in a cell that holds D is W / (1 + D s) with
    s = (5 / 10^R)^2 / (sum D^2 / sum D). A taper multiplies it by the transform of a Gaussian of
    that FWHM, none if 0. The variance of the image is variance x sum w^2/W / (sum w)^2.
    """
    highest_hz = max(float(part.frequencies_hz[-1]) for part in data.sets)
    half = int(data.longest_m * highest_hz / SPEED_OF_LIGHT_M_S * width_rad) + 2
    density = np.zeros((half, 2 * half))
    for part in data.sets:
        kernels.grid_weights(part.samples, width_rad, density)
    squared = (ROBUST_BASE * 10.0**-robust) ** 2 * float(density.sum() / np.sum(density**2))
    # The transform of a Gaussian of unit area: exp(-taper (u^2 + v^2)), u and v in wavelengths.
    taper = float((np.pi * taper_rad) ** 2 / (4 * np.log(2)))
    weights: list[Singles] = []
    total = natural = spread = moment = 0.0
    for part in data.sets:
        weight = np.empty_like(part.weight)
        kernels.weigh_briggs(part.samples, width_rad, density, (squared, taper), weight)
        weights.append(weight)
        by_channel = weight.sum(axis=0, dtype=np.float64)
        total += float(by_channel.sum())
        moment += float(by_channel @ part.frequencies_hz)
        natural += float(part.weight.sum(dtype=np.float64))
        known = part.weight > 0
        spread += float(np.sum(weight[known].astype(np.float64) ** 2 / part.weight[known]))
    sigma = np.sqrt(data.variance_jy2)
    return ImagingWeights(
        of_set=tuple(weights),
        frequency_hz=moment / total,
        natural_rms_jy=float(sigma / np.sqrt(natural)),
        thermal_rms_jy=float(sigma * np.sqrt(spread) / total),
    )


def half_power_beam(field: ImagingField) -> tuple[float, float, float]:
    """Return the ellipse through the half-power points of the PSF: the restoring beam.

    It comes from the Fourier sum over a sample of the visibilities, before the PSF is made. A
    Gaussian fitted to a PSF with deep sidelobes is narrower than its main lobe, and components
    between pixels then lose flux.

    Returns major and minor axis (FWHM, arcsec) and position angle (deg). Raises BadImageError if
    the PSF has no main lobe.
    """
    of_set, sampled = field.weights.of_set, []
    step = max(1, sum(weight.size for weight in of_set) // SAMPLE_COUNT) | 1
    for part, weight in zip(field.data.sets, of_set, strict=True):
        row, channel = np.unravel_index(np.arange(0, weight.size, step), weight.shape)
        uv = part.uvw_m[row, :2].T * (part.frequencies_hz[channel] / SPEED_OF_LIGHT_M_S)
        sampled.append(np.stack([*uv, weight[row, channel].astype(np.float64)]))
    u, v, weight_uv = np.concatenate(sampled, axis=1)
    if np.average(u**2 + v**2, weights=weight_uv) > 0:
        angle = np.linspace(0, np.pi, ANGLE_COUNT, endpoint=False)
        sin, cos = np.sin(angle), np.cos(angle)
        directions = zip(sin, cos, strict=True)
        radius = np.array([_half_power_radius(s * u + c * v, weight_uv) for s, c in directions])
        # 1 / r^2 = a sin^2 + 2 b sin cos + c cos^2 along the position angle.
        terms = np.stack([sin**2, 2 * sin * cos, cos**2], axis=1) * radius[:, None] ** 2
        a, b, c = np.linalg.lstsq(terms, np.ones(ANGLE_COUNT))[0]
        values, vectors = np.linalg.eigh(np.array([[a, b], [b, c]]))
        if values[0] > 0:
            east, north = vectors[:, 0]
            major, minor = (float(axis) for axis in 2 / np.sqrt(values))
            angle_deg = np.degrees(np.arctan2(east, north) % np.pi)
            return major / ARCSEC_RAD, minor / ARCSEC_RAD, float(angle_deg)
    found = "The PSF has no main lobe: too few baselines are left."
    raise BadImageError("weights", found, "Look at the flags.")


def _half_power_radius(along: Floats, weight: Floats) -> float:
    """Return the radius where the PSF falls to one half in the direction of frequencies `along`."""
    spread = np.sqrt(np.average(along**2, weights=weight))
    # A Gaussian of this spread falls to one half at 0.19 / spread; a PSF with wings later.
    radius = np.linspace(0, 1.5 / spread, RADIUS_COUNT)
    before = 1.0
    for inner, outer in pairwise(radius):
        here = float(np.average(np.cos(2 * np.pi * outer * along), weights=weight))
        if here < 0.5:  # noqa: PLR2004 - one half
            return float(np.interp(0.5, [here, before], [outer, inner]))
        before = here
    return float(radius[-1])
