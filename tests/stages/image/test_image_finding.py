"""The finder of sources in a dirty image, on a sky with a PSF like that of a T-shaped array."""

import numpy as np

from contimg.records.images import Beam
from contimg_image import masks
from contimg_image.finding import search
from contimg_image.frame import Frame
from contimg_image.imagers import Cleaned

SIZE, COUNT, FWHM_PX, RMS_JY = 512, 60, 6.0, 1e-3


def t_shaped_response(size: int) -> np.ndarray:
    """Return the weights of a T-shaped array's uv plane, shape (size, size), of mean 1."""
    u, v = np.meshgrid(*2 * [np.fft.fftfreq(size) * size], indexing="xy")
    core = np.exp(-(u**2 + v**2) * (np.pi * FWHM_PX / size) ** 2 / (4 * np.log(2)))
    arms = np.exp(-np.minimum(np.abs(u), np.abs(v)) / 3)
    weight = core * (0.3 + arms)
    return np.asarray(weight / weight.mean())


def test_faint_sources_are_found_below_sidelobes_of_bright_ones() -> None:
    rng = np.random.default_rng(1)
    # Twice the image's width: the sidelobes of one edge must not come round to the other.
    response, middle = t_shaped_response(2 * SIZE), slice(SIZE // 2, SIZE // 2 + SIZE)
    psf = np.fft.fftshift(np.fft.ifft2(response).real)[middle, middle].astype(np.float32)
    assert np.abs(psf[SIZE // 2, SIZE // 2 + 30 :]).max() > 0.02  # of 0.5 Jy: ten times the noise
    x, y = rng.integers(20, SIZE - 20, (2, COUNT))
    flux_jy = np.geomspace(8 * RMS_JY, 0.5, COUNT)
    sky = np.zeros((2 * SIZE, 2 * SIZE))
    sky[y, x] = flux_jy
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=sky.shape)) * np.sqrt(response)).real
    dirty = np.fft.ifft2(np.fft.fft2(sky) * response).real + noise * (RMS_JY / noise.std())
    dirty = dirty[:SIZE, :SIZE].astype(np.float32)
    beam = Beam(FWHM_PX / 3600, FWHM_PX / 3600, 0.0)
    planes = Cleaned(dirty, dirty, psf, beam, 1 / 3600, (1.4e9, 1e8), {})
    nowhere = np.zeros(dirty.shape, bool)
    found = search(planes, Frame(0.0, 0.0, SIZE, 1.0), nowhere)
    px, py = found.pixels
    away = np.hypot(px[:, None] - x, py[:, None] - y)
    assert (away.min(axis=0) <= 0.5 * FWHM_PX).all(), flux_jy[away.min(axis=0) > 0.5 * FWHM_PX]
    # A clean mask may hold a little noise: 4 places in 7000 beams.
    false = away.min(axis=1) > FWHM_PX
    assert (
        len({(a // 6, b // 6) for a, b in zip(*np.round([px[false], py[false]]), strict=True)}) <= 4
    )
    # Of the restored image the brightest are sources, too, and none is a sidelobe.
    assert found.step == 1
    px, py = masks.uncatalogued_sources(found.restore(), found.rms, nowhere, FWHM_PX)
    assert px.size == masks.MAX_UNCATALOGUED_SOURCES
    away = np.hypot(px[:, None] - x, py[:, None] - y)
    assert away.min(axis=1).max() < 0.2 * FWHM_PX
