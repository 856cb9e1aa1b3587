"""Whether the primary beam fits the field: flux ratios to the catalogue against the place in it.

Flux ratios of one group are a scale, and what an error of the beam's width or of its pointing adds
at each place. All are fitted together, so that a wrong scale is no wrong beam, and the scatter of
the catalogue's sources (15 to 20 %: variability, spectra, sizes) is the noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from contimg.astro.beam_fit import biweight, log_slopes
from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.primary_beam import PrimaryBeam
from contimg.records.images import bilinear
from contimg_image.cleaning import ExpectedSky
from contimg_image.field import ImagingField
from contimg_image.frame import Floats, Singles

MIN_LEVEL = 0.05
"""Effective beam of the outermost sources: fluxes there tell most of the width."""
MIN_SNR = 20.0
"""Expected signal-to-noise ratio of a source."""
MAX_SCALING_ERROR = 0.3
"""Relative error of a catalogue flux from its distance in frequency."""
MIN_SOURCES = 15
PRIOR_SCATTER, PRIOR_SOURCES = 0.15, 10
"""Scatter of catalogue sources on the real sky, and the number of sources that this counts for."""
MIN_DISTANCE_BEAMS = 1.5
"""Sources nearer to another one than this, in major axes, are left out."""
REACH_BEAMS = 0.15
"""The highest pixel is looked for within this radius, in units of the beam."""
MAX_LOG_RATIO = 1.5
"""Beyond it a source has varied, or is not there."""
STEPS = {"width": 0.02, "east_deg": 0.05, "north_deg": 0.05}
"""Changes of the beam from which its derivatives are taken."""
VALUES = ("beam_width", "beam_east_deg", "beam_north_deg")
ERRORS = ("beam_width_error", "beam_east_error_deg", "beam_north_error_deg")
"""Names of the metrics."""
BAND_SAMPLES = 3
"""Frequencies at which they are averaged."""
BIWEIGHT_EFFICIENCY = 0.95
ITERATIONS = 20
MAX_SIGMA, FEW_SOURCES = 4.5, 5
"""Largest deviation that noise makes, in errors: this times 1 + FEW_SOURCES / sources, since errors
of few sources are themselves uncertain. Fewer than one of 1000 good groups has a larger one."""
MIN_DEVIATION = {"width": 0.02, "east_deg": 0.03, "north_deg": 0.03}
"""Smaller errors of the beam change no flux by 4 % inside the 20 % beam, and are not marked."""


class BeamErrors(NamedTuple):
    """How the beam differs from the assumed one, (width, east, north), and 1 sigma errors."""

    value: Floats
    """Logarithm of the width over the assumed one; offset of the axis from the assumed, degrees."""
    error: Floats
    scatter: float
    """Of the logarithms of single flux ratios."""
    sources: int

    @classmethod
    def of(cls, numbers: dict[str, float]) -> BeamErrors:
        """Return what `numbers` returned."""
        value, error = (np.array([numbers[name] for name in part]) for part in (VALUES, ERRORS))
        sources = int(np.nan_to_num(numbers["beam_sources"]))
        return cls(value, error, numbers["beam_scatter"], sources)

    def numbers(self) -> dict[str, float]:
        """Return the metrics of an image."""
        values = zip((*VALUES, *ERRORS), (*self.value, *self.error), strict=True)
        found = {name: float(value) for name, value in values}
        return found | {"beam_scatter": self.scatter, "beam_sources": float(self.sources)}

    @property
    def deviant(self) -> list[str]:
        """Names of what noise does not explain."""
        sigma = MAX_SIGMA * (1 + FEW_SOURCES / max(self.sources, 1)) * self.error
        wrong = np.abs(self.value) > np.maximum(sigma, list(MIN_DEVIATION.values()))
        return [name for name, one in zip(STEPS, wrong, strict=True) if one]


def measure_beam(
    image: Singles, local_rms: Singles, sky: ExpectedSky, field: ImagingField, beam_px: float
) -> BeamErrors:
    """Compare an image (apparent, Jy/beam) with the catalogue; NaN if too few sources tell.

    `beam_px` is the major axis of the restoring beam.
    """
    noise = bilinear(local_rms, sky.x, sky.y)
    good = (sky.level >= MIN_LEVEL) & (sky.expected_jy >= MIN_SNR * noise) & (noise > 0)
    good &= sky.scaling_error <= MAX_SCALING_ERROR
    away = np.hypot(sky.x[good, None] - sky.x, sky.y[good, None] - sky.y)
    away[np.arange(len(away)), np.flatnonzero(good)] = np.inf
    # A neighbour counts if it is not much fainter than the source.
    rival = sky.expected_jy > 0.1 * sky.expected_jy[good, None]
    alone = np.where(rival, away, np.inf).min(axis=1, initial=np.inf) > MIN_DISTANCE_BEAMS * beam_px
    chosen = np.flatnonzero(good)[alone]
    if chosen.size < MIN_SOURCES or field.primary_beam is None:
        unknown = np.full(len(STEPS), np.nan)
        return BeamErrors(unknown, unknown, float("nan"), chosen.size)
    x, y, expected = sky.x[chosen], sky.y[chosen], sky.expected_jy[chosen]
    reach = max(1, round(REACH_BEAMS * beam_px))
    shifts = [(dx, dy) for dx in range(-reach, reach + 1) for dy in range(-reach, reach + 1)]
    near = [bilinear(image, x + dx, y + dy) for dx, dy in shifts]
    found = np.nan_to_num(np.nanmax(near, axis=0))
    log_ratio = np.log(np.clip(found / expected, *np.exp([-MAX_LOG_RATIO, MAX_LOG_RATIO])))
    error = np.hypot(noise[chosen] / expected, sky.scaling_error[chosen])
    slopes = beam_slopes(field, field.primary_beam, field.frame.cosines(x, y))
    return fit_beam_errors(log_ratio, error, slopes)


def beam_slopes(field: ImagingField, beam: PrimaryBeam, directions: Floats) -> Floats:
    """Return d ln(beam) by ln(width) and by the axis's offset (1/deg), shape (3, N).

    The beam is the mean over integrations and the band that is imaged, at directions l, m, n - 1,
    shape (N, 3).
    """
    imaged = ((part.frequencies_hz, part.weight.any(axis=0)) for part in field.data.sets)
    band_hz = np.concatenate([freq_hz[used] for freq_hz, used in imaged])
    freq_hz = np.linspace(band_hz.min(), band_hz.max(), BAND_SAMPLES)
    offset = (directions - field.pointing[:, None])[:, :, None]
    return log_slopes(beam, STEPS, lambda one: np.log(one.level(offset, freq_hz).mean(axis=(0, 2))))


def fit_beam_errors(log_ratio: Floats, error: Floats, slopes: Floats) -> BeamErrors:
    """Fit a scale and the three errors of the beam to flux ratios, shape (N,), robustly.

    `error` are errors of `log_ratio` by noise, `slopes`, (3, N), those of `beam_slopes`. It is
    Tukey's biweight with the scatter of the sources added to their errors.
    """
    design = np.vstack([np.ones(log_ratio.size), slopes]).T
    scatter, weight = 0.2, np.ones(log_ratio.size)
    for _ in range(ITERATIONS):
        sigma = np.hypot(error, scatter)
        scaled = design * (np.sqrt(weight) / sigma)[:, None]
        normal = scaled.T @ scaled
        right = scaled.T @ (np.sqrt(weight) / sigma * log_ratio)
        fitted = np.linalg.lstsq(normal, right, rcond=1e-10)[0]
        residual = log_ratio - design @ fitted
        free = max(1, log_ratio.size - design.shape[1])
        total = MAD_TO_SIGMA * float(np.median(np.abs(residual)))
        squares = max(total**2 - float(np.median(error)) ** 2, 0.0) * log_ratio.size
        squares += PRIOR_SCATTER**2 * PRIOR_SOURCES
        scatter = float(np.sqrt(squares / (free + PRIOR_SOURCES)))
        weight = biweight(residual / np.hypot(error, scatter))
    # The covariance of a robust fit (Huber 1981, 7.6): of all sources, at its efficiency.
    whole = design / np.hypot(error, scatter)[:, None]
    covariance = np.linalg.pinv(whole.T @ whole) / BIWEIGHT_EFFICIENCY
    kept = float(weight.mean())
    errors = np.sqrt(np.diag(covariance)[1:] / max(kept, 0.1))
    value = fitted[1:].copy()
    # The logarithm of a beam is more nearly linear in width^-2 than in ln(width).
    value[0] = -0.5 * np.log1p(-2 * np.clip(value[0], -2.0, 0.45))
    if value[0]:
        errors[0] *= value[0] / fitted[1]
    return BeamErrors(np.asarray(value), np.asarray(errors), scatter, int(log_ratio.size))


def describe_beam(numbers: dict[str, float]) -> list[str]:
    """Return the reason of a warning if the beam does not fit, named primary_beam.

    `numbers` are those of `BeamErrors.numbers`.
    """
    errors = BeamErrors.of(numbers)
    if not errors.deviant:
        return []
    (width, east, north), (width_error, east_error, north_error) = errors.value, errors.error
    found = f"its width by {width:+.1%} ± {width_error:.1%}, its axis by {east:+.2f} ± "
    found += f"{east_error:.2f} deg to the east and {north:+.2f} ± {north_error:.2f} to the north"
    return [f"primary_beam: fluxes of {errors.sources} sources want another beam: {found}"]
