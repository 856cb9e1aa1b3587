"""Reading images as WSClean, CASA and we write them, and the sky coordinates of their pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from contimg.records.images import Beam, SkyImage, read_image
from contimg.runtime.errors import BadFileError, BadImageError

SHAPE = (120, 160)
CENTRE = (38.9, 32.886)
CELL = 3 / 3600
ONES = np.ones((1, 1, *SHAPE), np.float32)


def header(naxis: int = 4) -> fits.Header:
    wcs = WCS(naxis=naxis)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN", "FREQ", "STOKES"][:naxis]
    wcs.wcs.crval = [*CENTRE, 1.405e9, 1][:naxis]
    wcs.wcs.cdelt = [-CELL, CELL, 1.875e8, 1][:naxis]
    wcs.wcs.crpix = [SHAPE[1] // 2 + 1, SHAPE[0] // 2 + 1, 1, 1][:naxis]
    made = wcs.to_header()
    made.update({"BMAJ": 68 / 3600, "BMIN": 37 / 3600, "BPA": 20.0, "BUNIT": "JY/BEAM"})
    return made


def write(path: Path, pixels: np.ndarray = ONES, head: fits.Header | None = None) -> Path:
    fits.PrimaryHDU(pixels, header() if head is None else head).writeto(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> SkyImage:
    pixels = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(1, 1, *SHAPE)
    return read_image(write(tmp_path / "image.fits", pixels))


def test_read_image_drops_axes_of_length_one(image: SkyImage, tmp_path: Path) -> None:
    plain = read_image(write(tmp_path / "plain.fits", image.pixels, header(2)))
    assert image.pixels.shape == plain.pixels.shape == SHAPE
    assert np.array_equal(image.pixels, plain.pixels)
    there = np.array([38.91]), np.array([32.9])
    assert np.array(image.to_pixels(*there)) == pytest.approx(np.array(plain.to_pixels(*there)))


def test_read_image_converts_pixels_to_native_float32(image: SkyImage, tmp_path: Path) -> None:
    # FITS is big-endian, and CASA may write doubles.
    double = read_image(write(tmp_path / "double.fits", image.pixels.astype(np.float64), header(2)))
    for found in (image, double):
        assert found.pixels.dtype == np.dtype("=f4")
        assert found.pixels.flags.c_contiguous
    assert np.array_equal(image.pixels, double.pixels)


def test_image_has_centre_cell_and_beam(image: SkyImage) -> None:
    assert image.centre_deg == pytest.approx(CENTRE)
    assert image.cell_deg == pytest.approx((-CELL, CELL))
    assert image.beam == Beam(68 / 3600, 37 / 3600, 20.0)
    x, y = image.to_pixels(np.array([CENTRE[0]]), np.array([CENTRE[1]]))
    assert (x[0], y[0]) == pytest.approx((80.0, 60.0), abs=1e-6)  # CRPIX counts from 1


def test_to_pixels_inverts_wcs(image: SkyImage) -> None:
    places = np.random.default_rng(0).uniform(0, 100, (2, 50))
    assert np.array(image.to_pixels(*image.wcs.all_pix2world(*places, 0))) == pytest.approx(
        places, abs=1e-6
    )


@pytest.mark.parametrize(("angle", "expected"), [(90, (-20.0, 0.0)), (0, (0.0, 20.0))])
def test_east_is_left_and_north_is_up(
    image: SkyImage, angle: int, expected: tuple[float, float]
) -> None:
    centre = SkyCoord(*CENTRE, unit="deg")
    there = centre.directional_offset_by(angle * units.deg, 60.0 * units.arcsec)
    x, y = image.to_pixels(np.array([there.ra.deg]), np.array([there.dec.deg]))
    # 60" is 20 cells; sin is not its argument by 1e-8.
    assert (x[0] - 80, y[0] - 60) == pytest.approx(expected, abs=1e-3)


def test_sample_returns_map_at_position(image: SkyImage) -> None:
    ra, dec = image.wcs.all_pix2world([10.0, 10.5, 500.0], [7.0, 7.0, 7.0], 0)
    expected = [7 * 160 + 10, 7 * 160 + 10.5, np.nan]
    assert image.sample(ra, dec) == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_sample_behind_the_observer_is_nan(image: SkyImage) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = image.sample(np.array([CENTRE[0] + 180]), np.array([-CENTRE[1]]))
    assert np.isnan(found).all() or not np.isfinite(found).any()


@pytest.mark.parametrize(
    ("name", "value"), [("BMAJ", None), ("BMIN", None), ("BPA", None), ("BMIN", 0.0)]
)
def test_image_without_beam_is_refused_when_asked(
    tmp_path: Path, name: str, value: float | None
) -> None:
    head = header()
    del head[name]
    if value is not None:
        head[name] = value
    image = read_image(write(tmp_path / "image.fits", head=head))
    with pytest.raises(BadImageError, match="BMAJ"):
        _ = image.beam


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (np.ones((2, 1, *SHAPE), np.float32), "one plane"),
        (np.ones((1, 1, 1, 160), np.float32), "one plane"),
        (np.full((1, 1, *SHAPE), np.nan, np.float32), "finite"),
    ],
)
def test_read_image_refuses_other_than_one_finite_plane(
    tmp_path: Path, pixels: np.ndarray, match: str
) -> None:
    with pytest.raises(BadImageError, match=match):
        read_image(write(tmp_path / "image.fits", pixels))


def test_read_image_refuses_plane_without_sky(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.fits", np.ones((4, 4), np.float32), fits.Header())
    with pytest.raises(BadImageError, match="celestial"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not FITS at all" * 300, None])
def test_read_image_refuses_other_files_by_uri(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "image.fits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"s3://bucket/image\.fits"):
        read_image(path, "s3://bucket/image.fits")


def test_read_image_warns_of_no_old_keywords(tmp_path: Path) -> None:
    head = header()
    head["OBSGEO-X"], head["OBSGEO-Y"], head["OBSGEO-Z"] = -2409150.4, -4478573.1, 3838617.3
    head["DATE-OBS"] = "2026-01-25T02:12:21"
    path = write(tmp_path / "image.fits", head=head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path)


@pytest.mark.parametrize("pa", [0.0, 33.0, 90.0, 170.0])
def test_beam_area_does_not_depend_on_angle(pa: float) -> None:
    a, b, c = Beam(68 / 3600, 37 / 3600, pa).form(-CELL, CELL)
    # ∫ exp(−xᵀMx) = π/√det M, the area of a Gaussian beam, π/(4 ln 2) BMAJ BMIN, in cells.
    area = np.pi / (4 * np.log(2)) * 68 * 37 / 9
    assert np.pi / np.sqrt(a * c - b * b) == pytest.approx(area, rel=1e-12)
