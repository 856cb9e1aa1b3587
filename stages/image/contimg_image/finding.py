"""Find sources in a dirty image, for the mask of the imager's cleaning.

A catalogue is never complete, and the sidelobes of a hundred sources below its limit are louder
than the noise. This is Clark's (1980, A&A 89, 377) CLEAN on a thinned image: components are
subtracted with the middle of the PSF, and from time to time exactly, by FFT. Its model is dropped;
only the places are used. One cleaning by the imager then takes the flux of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg_image import kernels, masks
from contimg_image.frame import Floats, Frame, Mask, Singles
from contimg_image.imagers import Cleaned

SOURCE_SIGMA = 5.0
"""Peaks above this multiple of the local rms are sources: one in 3e6 beams is noise."""
KNOWN_SIGMA = 3.0
"""Known sources are cleaned down to this multiple, or their sidelobes hide others."""
SOURCE_RADIUS_BEAMS = 0.6
"""Radius of a disc of the mask about a component, in units of the beam's major axis."""
CELLS_PER_BEAM = 4.8
"""Least cells per minor axis of the thinned image."""
PATCH_PX = 150
"""Components are first subtracted out to here, in cells of the thinned image."""
LOBE_BEAMS = 1.5
"""Radius of the PSF's main lobe, beams."""
SIDELOBE_MARGIN = 1.3
"""Peaks are searched down to the sidelobes of the highest one times this: others add theirs."""
MIN_DEPTH = 0.3
"""Fraction of the highest peak at which a cycle ends, at least what sidelobes can reach."""
LOOP_GAIN = 0.3
MAX_CYCLES = 14
LITTLE_PROGRESS = 0.99
"""The search ends when a cycle leaves more than this fraction of the noise."""
MIN_CYCLES = 6
MAX_COMPONENTS = 20_000
"""Of one cycle."""


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found, on the thinned image: every `step`th pixel of the image's."""

    step: int
    model: Singles
    """Components, Jy."""
    residual: Singles
    rms: Singles
    """Local rms of the residual."""
    lobe: Singles
    """The PSF's main lobe."""

    @property
    def pixels(self) -> tuple[Floats, Floats]:
        """Places x, y of the components in the image."""
        y, x = (np.asarray(place * self.step, np.float64) for place in np.nonzero(self.model))
        return x, y

    def restore(self) -> Singles:
        """Return the thinned image without sidelobes, Jy/beam."""
        restored, half = self.residual.copy(), len(self.lobe) // 2
        padded = np.pad(restored, half)
        for row, column in np.argwhere(self.model):
            place = slice(row, row + len(self.lobe)), slice(column, column + len(self.lobe))
            padded[place] += self.model[row, column] * self.lobe
        return np.ascontiguousarray(padded[half:-half, half:-half])


def search(planes: Cleaned, frame: Frame, known: Mask) -> Search:
    """Search the residual for sources, known ones included.

    `known` is True where sources are expected, shape (n, n).
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    step = max(1, int(planes.beam.minor_deg / planes.cell_deg / CELLS_PER_BEAM))
    dirty = np.ascontiguousarray(planes.residual[::step, ::step])
    count, middle = len(dirty), planes.psf.shape[0] // 2
    psf = np.ascontiguousarray(planes.psf[middle % step :: step, middle % step :: step])
    middle //= step
    half = min(PATCH_PX, middle - 1, len(psf) - middle - 1)
    core = slice(middle - half, middle + half + 1)
    patch = np.ascontiguousarray(psf[core, core])
    # Beyond half of the image's width the PSF is not known: more padding would add nothing.
    size = next_fast_len(count + len(psf) // 2 + 1, real=True)
    kernel = np.zeros((size, size), np.float32)
    kernel[: len(psf), : len(psf)] = psf
    response = rfft2(np.roll(kernel, (-middle, -middle), (0, 1)))
    beam_px, thin = planes.beam_px / step, Frame(0.0, 0.0, count, frame.cell_arcsec * step)
    radius_px = SOURCE_RADIUS_BEAMS * planes.beam_major_px / step
    sidelobe = SIDELOBE_MARGIN * masks.highest_sidelobe(psf, LOBE_BEAMS * beam_px)
    model, padded = np.zeros_like(dirty), np.zeros((size, size), np.float32)
    residual, before = dirty.copy(), np.inf
    for cycle in range(MAX_CYCLES):
        rows, columns = (place.astype(np.float64) for place in np.nonzero(model))
        covered = known[::step, ::step] | masks.draw_discs(thin, columns, rows, radius_px)
        rms = masks.rms_map(residual, covered, beam_px)
        noise = float(np.median(rms))
        if cycle >= MIN_CYCLES and noise > LITTLE_PROGRESS * before:
            break
        before = noise
        floor = np.where(covered, KNOWN_SIGMA, SOURCE_SIGMA).astype(np.float32) * rms
        above = residual[residual > floor]
        if not above.size:
            break
        stop = max(MIN_DEPTH, sidelobe) * above.max()
        kernels.clean_patch(residual, patch, floor, stop, LOOP_GAIN, MAX_COMPONENTS, model)
        padded[:count, :count] = model
        residual = dirty - irfft2(rfft2(padded) * response, s=(size, size))[:count, :count]
    return Search(step, model, residual, rms, main_lobe(psf, LOBE_BEAMS * beam_px))


def main_lobe(psf: Singles, radius_px: float) -> Singles:
    """Return the middle of a PSF out to a radius, where it is positive; its size is odd."""
    middle, half = psf.shape[0] // 2, max(1, int(radius_px))
    core = slice(middle - half, middle + half + 1)
    away = np.hypot(*np.mgrid[-half : half + 1, -half : half + 1])
    return np.where((away <= radius_px) & (psf[core, core] > 0), psf[core, core], 0)
