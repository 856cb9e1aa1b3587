"""Reading images as WSClean, CASA and we write them, and the sky coordinates of their pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from contimg.records.images import Beam, SkyImage, read_image
from contimg.runtime.errors import BadFileError, BadImageError

SHAPE = (120, 160)
CENTRE = (38.9, 32.886)
CELL = 3 / 3600


def header(naxis: int = 4) -> fits.Header:
    wcs = WCS(naxis=naxis)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN", "FREQ", "STOKES"][:naxis]
    wcs.wcs.crval = [*CENTRE, 1.405e9, 1][:naxis]
    wcs.wcs.cdelt = [-CELL, CELL, 1.875e8, 1][:naxis]
    wcs.wcs.crpix = [SHAPE[1] // 2 + 1, SHAPE[0] // 2 + 1, 1, 1][:naxis]
    made = wcs.to_header()
    made.update({"BMAJ": 68 / 3600, "BMIN": 37 / 3600, "BPA": 20.0, "BUNIT": "JY/BEAM"})
    return made


def write(path: Path, pixels: np.ndarray, head: fits.Header) -> Path:
    fits.PrimaryHDU(pixels, head).writeto(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> SkyImage:
    pixels = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(1, 1, *SHAPE)
    return read_image(write(tmp_path / "image.fits", pixels, header()))


def test_axes_of_length_one_are_dropped(image: SkyImage, tmp_path: Path) -> None:
    plain = read_image(write(tmp_path / "plain.fits", image.pixels, header(2)))
    assert image.pixels.shape == plain.pixels.shape == SHAPE
    assert np.array_equal(image.pixels, plain.pixels)
    there = np.array([38.91]), np.array([32.9])
    assert np.array(image.to_pixels(*there)) == pytest.approx(np.array(plain.to_pixels(*there)))


def test_pixels_are_what_kernels_take(image: SkyImage, tmp_path: Path) -> None:
    # FITS is big-endian, and CASA may write doubles.
    double = read_image(write(tmp_path / "double.fits", image.pixels.astype(np.float64), header(2)))
    for found in (image, double):
        assert found.pixels.dtype == np.dtype("=f4")
        assert found.pixels.flags.c_contiguous
    assert np.array_equal(image.pixels, double.pixels)


def test_centre_cells_and_beam(image: SkyImage) -> None:
    assert image.centre_deg == pytest.approx(CENTRE)
    assert image.cell_deg == pytest.approx((-CELL, CELL))
    assert image.beam == Beam(68 / 3600, 37 / 3600, 20.0)
    x, y = image.to_pixels(np.array([CENTRE[0]]), np.array([CENTRE[1]]))
    assert (x[0], y[0]) == pytest.approx((80.0, 60.0), abs=1e-6)  # CRPIX counts from 1


def test_pixels_and_sky_are_inverse(image: SkyImage) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 100, (2, 50))
    assert np.array(image.to_pixels(*image.to_sky(x, y))) == pytest.approx(
        np.array([x, y]), abs=1e-6
    )


def test_east_is_left_and_north_is_up(image: SkyImage) -> None:
    centre = SkyCoord(*CENTRE, unit="deg")
    for angle, expected in ((90.0, (-20.0, 0.0)), (0.0, (0.0, 20.0))):
        there = centre.directional_offset_by(angle * 1.0 * _deg(), 60.0 * _arcsec())
        x, y = image.to_pixels(np.array([there.ra.deg]), np.array([there.dec.deg]))
        # 60" is 20 cells; sin is not its argument by 1e-8.
        assert (x[0] - 80, y[0] - 60) == pytest.approx(expected, abs=1e-3)


def _deg() -> object:
    from astropy import units

    return units.deg


def _arcsec() -> object:
    from astropy import units

    return units.arcsec


def test_sample_is_the_map_there(image: SkyImage) -> None:
    ra, dec = image.to_sky(np.array([10.0, 10.5, 500.0]), np.array([7.0, 7.0, 7.0]))
    assert image.sample(ra, dec) == pytest.approx(
        [7 * 160 + 10, 7 * 160 + 10.5, np.nan], rel=1e-5, nan_ok=True
    )


def test_the_far_side_of_the_sky_has_no_pixel(image: SkyImage) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = image.sample(np.array([CENTRE[0] + 180]), np.array([-CENTRE[1]]))
    assert np.isnan(found).all() or not np.isfinite(found).any()


@pytest.mark.parametrize("missing", ["BMAJ", "BMIN", "BPA"])
def test_an_image_without_a_beam_says_so_when_asked(tmp_path: Path, missing: str) -> None:
    head = header()
    del head[missing]
    image = read_image(write(tmp_path / "image.fits", np.ones((1, 1, *SHAPE), np.float32), head))
    with pytest.raises(BadImageError, match="BMAJ"):
        _ = image.beam


def test_a_beam_of_no_size_is_none(tmp_path: Path) -> None:
    head = header()
    head["BMIN"] = 0.0
    with pytest.raises(BadImageError, match="BMAJ"):
        _ = read_image(
            write(tmp_path / "image.fits", np.ones((1, 1, *SHAPE), np.float32), head)
        ).beam


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (np.ones((2, 1, *SHAPE), np.float32), "one plane"),
        (np.ones((1, 1, 1, 160), np.float32), "one plane"),
        (np.full((1, 1, *SHAPE), np.nan, np.float32), "finite"),
    ],
)
def test_what_is_no_single_plane_is_refused(tmp_path: Path, pixels: np.ndarray, match: str) -> None:
    with pytest.raises(BadImageError, match=match):
        read_image(write(tmp_path / "image.fits", pixels, header()))


@pytest.mark.parametrize("content", [b"", b"not FITS at all" * 300, None])
def test_what_is_no_fits_is_refused_by_its_uri(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "image.fits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"s3://bucket/image\.fits"):
        read_image(path, "s3://bucket/image.fits")


def test_old_keywords_are_read_in_silence(tmp_path: Path) -> None:
    head = header()
    head["OBSGEO-X"], head["OBSGEO-Y"], head["OBSGEO-Z"] = -2409150.4, -4478573.1, 3838617.3
    head["DATE-OBS"] = "2026-01-25T02:12:21"
    path = write(tmp_path / "image.fits", np.ones((1, 1, *SHAPE), np.float32), head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path)


@pytest.mark.parametrize("pa", [0.0, 33.0, 90.0, 170.0])
def test_beam_area_does_not_depend_on_its_angle(pa: float) -> None:
    a, b, c = Beam(68 / 3600, 37 / 3600, pa).form(-CELL, CELL)
    # ∫ exp(−xᵀMx) = π/√det M, the area of a Gaussian beam, π/(4 ln 2) BMAJ BMIN, in cells.
    assert np.pi / np.sqrt(a * c - b * b) == pytest.approx(
        np.pi / (4 * np.log(2)) * 68 * 37 / 9, rel=1e-12
    )
