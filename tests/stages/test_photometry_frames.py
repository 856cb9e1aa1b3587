"""Images in any orientation and frame, circular beams, units of pixels, and missing pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from contimg.records.images import Beam, SkyImage, read_image
from contimg.runtime.errors import BadImageError
from contimg_photometry import kernels, stage
from contimg_photometry.measure import Measurements, measure
from contimg_photometry.noise import BeamProfile, measure_autocorrelation
from contimg_photometry.options import PhotometryOptions
from synthetic_images import add_sources, filter_noise, wrapped_lags

SIZE, CELL, RMS = 240, 6 / 3600, 1e-4
MAJOR, MINOR, ANGLE = 60 / 3600, 35 / 3600, 30.0
NORMAL, MIRRORED = np.diag([-CELL, CELL]), np.diag([CELL, CELL])
EQUATORIAL, GALACTIC = ("RA---SIN", "DEC--SIN"), ("GLON-TAN", "GLAT-TAN")
OPTIONS = PhotometryOptions(image="i", tables="t", out="o")
PLACES = np.array([[60.3, 70.6], [150.2, 81.9], [119.5, 119.5], [80.4, 170.8], [177.7, 160.1]])
FLUX = np.array([0.3, 0.5, 1.0, 0.2, 0.4])


def turned(degrees: float, matrix: np.ndarray = NORMAL) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]]) @ matrix


def header(matrix: np.ndarray, axes: tuple[str, str], form: str, **cards: Any) -> fits.Header:
    """Return a header with the matrix as PC and CDELT, or as CD."""
    made: dict[str, Any] = {"CTYPE1": axes[0], "CTYPE2": axes[1], "CRVAL1": 150.1, "CRVAL2": 34.2}
    made |= {"CRPIX1": 121.0, "CRPIX2": 120.0, "CUNIT1": "deg", "CUNIT2": "deg"}
    scale = np.array([-CELL, CELL]) if form == "PC" else np.ones(2)
    if form == "PC":
        made |= {"CDELT1": scale[0], "CDELT2": scale[1]}
    for (i, k), value in np.ndenumerate(matrix / scale[:, None]):
        made[f"{form}{i + 1}_{k + 1}"] = value
    made |= {"BMAJ": MAJOR, "BMIN": MINOR, "BPA": ANGLE} | cards
    return fits.Header({name: value for name, value in made.items() if value is not None})


def draw(folder: Path, head: fits.Header) -> tuple[SkyImage, SkyCoord]:
    """Return an image with sources drawn by their offsets on the sky in the image's own frame."""
    wcs = WCS(head)
    frame = wcs_to_celestial_frame(wcs)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    lon, lat = wcs.wcs_pix2world(columns.ravel(), rows.ravel(), 0)
    pixels = np.random.default_rng(3).normal(0, RMS, (SIZE, SIZE))
    sky = SkyCoord(*wcs.wcs_pix2world(*PLACES.T, 0), unit="deg", frame=frame)
    head = head.copy()
    grid = SkyCoord(lon, lat, unit="deg", frame=frame)
    angle = np.radians(head.get("BPA", 0.0))
    for source, flux in zip(sky, FLUX, strict=True):
        east, north = (x.deg.reshape(SIZE, SIZE) for x in source.spherical_offsets_to(grid))
        along, across = (
            east * np.sin(angle) + north * np.cos(angle),
            east * np.cos(angle) - north * np.sin(angle),
        )
        square = (along / head["BMAJ"]) ** 2 + (across / head["BMIN"]) ** 2
        pixels += flux * np.exp(-4 * np.log(2) * square)
    fits.PrimaryHDU(pixels.astype(np.float32), head).writeto(folder / "i.fits")
    return read_image(folder / "i.fits"), sky.icrs


def measured(image: SkyImage, sky: SkyCoord) -> Measurements:
    noise = np.random.default_rng(3).normal(0, RMS, (SIZE, SIZE)).astype(np.float32)
    x, y = image.to_pixels(sky.ra.deg, sky.dec.deg)
    found = measure_autocorrelation(noise, 40)
    return measure(image.pixels, x, y, BeamProfile.of(image), found, OPTIONS)


@pytest.mark.parametrize(
    ("matrix", "axes", "form", "cards"),
    [
        (NORMAL, EQUATORIAL, "PC", {}),
        (turned(10), EQUATORIAL, "PC", {}),
        (turned(45), EQUATORIAL, "CD", {}),
        (turned(90), EQUATORIAL, "PC", {}),
        (turned(90), EQUATORIAL, "CD", {}),
        (turned(200), EQUATORIAL, "CD", {}),
        (MIRRORED, EQUATORIAL, "CD", {}),
        (turned(30, MIRRORED), EQUATORIAL, "PC", {}),
        (np.diag([-CELL, -CELL]), EQUATORIAL, "PC", {}),
        (NORMAL, EQUATORIAL, "CD", {"LONPOLE": 140.0}),
        (NORMAL, EQUATORIAL, "PC", {"BMIN": MAJOR, "BPA": None}),
        (NORMAL, GALACTIC, "PC", {}),
        (turned(20), GALACTIC, "CD", {}),
        (NORMAL, EQUATORIAL, "PC", {"RADESYS": "FK4", "EQUINOX": 1950.0}),
        (NORMAL, EQUATORIAL, "PC", {"EQUINOX": 1950.0}),
        (NORMAL, EQUATORIAL, "PC", {"RADESYS": "FK5", "EQUINOX": 1975.0}),
    ],
)
def test_fluxes_in_any_orientation_and_frame(
    tmp_path: Path, matrix: np.ndarray, axes: tuple[str, str], form: str, cards: dict[str, Any]
) -> None:
    head = header(matrix, axes, form, **cards)
    image, sky = draw(tmp_path, head)
    x, y = image.to_pixels(sky.ra.deg, sky.dec.deg)
    assert np.stack([x, y], axis=1) == pytest.approx(PLACES, abs=1e-6)
    assert np.abs(image.cell_deg) == pytest.approx([CELL, CELL], rel=1e-6)
    found = measured(image, sky)
    # A noise of 1e-4 and FLUX >= 0.2: five sigma. Curvature over a beam of 1' is below 1e-4.
    for flux in (found.peak, found.fit):
        assert flux == pytest.approx(FLUX, abs=6 * RMS)
    # Positions 2" east and 3" south of the sources are off by as much.
    moved = sky.spherical_offsets_by(2 * u.arcsec, -3 * u.arcsec)
    targets = stage.Targets(np.array(["s"] * 5), moved.ra.deg, moved.dec.deg, *[FLUX] * 3, 0 * FLUX)
    off = stage.offsets_arcsec(image, targets, measured(image, moved))
    # S/N 2000 and more: errors of a beam over 4000, 0.01".
    assert off[0] == pytest.approx(-2.0, abs=0.05)
    assert off[1] == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"}, "axes are ELON-TAN"),
        ({"CTYPE1": "SLON-TAN", "CTYPE2": "SLAT-TAN"}, "axes are SLON-TAN"),
        ({"RADESYS": "GAPPT"}, "RADESYS 'GAPPT'"),
        ({"BMAJ": None}, "BMAJ"),
        ({"BMAJ": 0.0, "BMIN": 0.0}, "BMAJ"),
        ({"BMAJ": 60.0, "BMIN": 35.0}, "in degrees"),
        ({"BMAJ": "60 arcsec"}, "BMAJ"),
        ({"BUNIT": "K"}, "unit of the pixels is 'K'"),
        ({"BUNIT": "Jy/pixel"}, "unit of the pixels is 'Jy/pixel'"),
        ({"BUNIT": "MJy/beam"}, "unit of the pixels is 'MJy/beam'"),
        ({"CTYPE1": "DEC--SIN", "CTYPE2": "RA---SIN", "CRVAL2": 80.0, "CRVAL1": 1.0}, "not RA"),
        ({"CRVAL2": 134.2}, "header's coordinates are not valid: ERROR"),
        ({"CTYPE3": "STOKES", "CRVAL3": 4.0}, "not of Stokes I: its Stokes axis says 4"),
        ({"CTYPE3": "STOKES", "CRVAL3": 3.0, "CRPIX3": 2.0, "CDELT3": -1.0}, "axis says 4"),
        ({"CTYPE3": "FREQ", "CRVAL3": 2e8, "CUNIT3": "m/s"}, "unit of the frequency axis is 'm/s'"),
    ],
)
def test_image_that_is_not_understood_is_refused(
    tmp_path: Path, cards: dict[str, Any], words: str
) -> None:
    head = header(NORMAL, EQUATORIAL, "CD", **cards)
    path = tmp_path / "i.fits"
    shape = (1,) * ("CTYPE3" in cards) + (SIZE, SIZE)
    fits.PrimaryHDU(np.ones(shape, np.float32), head).writeto(path)
    with pytest.raises(BadImageError, match=words):
        image = read_image(path)
        _ = image.beam, image.jy_per_unit, image.frequency_hz


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"CRVAL3": 1.4, "CUNIT3": "GHz"}, 1.4e9),
        ({"CRVAL3": 1.38e9, "RESTFRQ": 1.420405752e9}, 1.38e9),  # as CASA has it
        ({"CRVAL3": 1.38e9, "RESTFRQ": 1.39e9, "PBMODEL": "airy"}, 1.39e9),  # ours
        ({"CTYPE3": "STOKES", "CRVAL3": 1.0, "RESTFRQ": 1.39e9}, 1.39e9),
        ({"CTYPE3": "STOKES", "CRVAL3": 1.0}, None),
    ],
)
def test_frequency_is_that_of_the_fluxes(
    tmp_path: Path, cards: dict[str, Any], expected: float | None
) -> None:
    head = header(NORMAL, EQUATORIAL, "CD", **({"CTYPE3": "FREQ"} | cards))
    fits.PrimaryHDU(np.ones((1, SIZE, SIZE), np.float32), head).writeto(tmp_path / "i.fits")
    assert read_image(tmp_path / "i.fits").frequency_hz == expected


def test_compressed_image_with_infinite_pixels_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(0, RMS, (SIZE, SIZE)).astype(np.float32)
    pixels[5, 7] = np.inf
    head = header(NORMAL, EQUATORIAL, "CD")
    fits.PrimaryHDU(pixels, head).writeto(tmp_path / "plain.fits")
    packed = fits.CompImageHDU(np.nan_to_num(pixels, posinf=np.nan), head)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "packed.fits")
    plain, whole = (read_image(tmp_path / f"{name}.fits") for name in ("plain", "packed"))
    assert np.argwhere(np.isnan(plain.pixels)).tolist() == [[5, 7]]
    assert np.nanmax(np.abs(whole.pixels - plain.pixels)) < RMS
    assert whole.beam == plain.beam


@pytest.mark.parametrize(("unit", "factor"), [("mJy/beam", 1e-3), ("JY/BEAM", 1), ("Jy beam-1", 1)])
def test_unit_of_pixels_counts(tmp_path: Path, unit: str, factor: float) -> None:
    path = tmp_path / "i.fits"
    head = header(NORMAL, EQUATORIAL, "CD", BUNIT=unit)
    fits.PrimaryHDU(np.ones((SIZE, SIZE), np.float32), head).writeto(path)
    assert read_image(path).jy_per_unit == factor


@pytest.mark.parametrize(("offset", "corner"), [(1, 0), (2, 0), (1, 1)])
def test_source_near_missing_pixels_keeps_its_row(tmp_path: Path, offset: int, corner: int) -> None:
    image, sky = draw(tmp_path, header(NORMAL, EQUATORIAL, "CD"))
    x, y = np.round(PLACES[2]).astype(int)
    last = SIZE if corner else y + offset + 1
    image.pixels[y + offset : last, x + offset : SIZE if corner else x + offset + 1] = np.nan
    found = measured(image, sky)
    assert (found.missing > 0).tolist() == [False, False, True, False, bool(corner)]
    # One pixel, or less than a quadrant, is missing: the fit has S/N 5000.
    assert 0 < found.missing[2] < (0.3 if corner else 0.05)
    assert found.fit[2] == pytest.approx(1.0, abs=10 * RMS)
    assert found.peak[2] == pytest.approx(1.0, abs=10 * RMS)
    assert RMS / 30 < found.fit_noise[2] < 2 * RMS
    assert np.isfinite(found.peak_noise[2])


def test_source_without_most_of_its_pixels_has_no_flux(tmp_path: Path) -> None:
    image, sky = draw(tmp_path, header(NORMAL, EQUATORIAL, "CD"))
    x, y = np.round(PLACES[2]).astype(int)
    image.pixels[y - 5 : y + 6, x - 5 : x + 6] = np.nan
    found = measured(image, sky)
    assert found.missing[2] > 0.8
    assert np.isnan(found.fit[2])
    assert np.isfinite(np.delete(found.fit, 2)).all()


def test_errors_with_missing_pixels_are_those_of_the_scatter() -> None:
    """100 drawings of correlated noise, with a third of the aperture missing."""
    profile = BeamProfile(Beam(36 / 3600, 21 / 3600, 25.0).form(-CELL / 2, CELL / 2), 12.0, 7.0)
    rng, size = np.random.default_rng(11), 128
    kernel = profile.at(*wrapped_lags(size))
    pulls = []
    for _ in range(100):
        pixels = filter_noise(rng, kernel)
        noise = measure_autocorrelation(pixels.astype(np.float32), 40)
        add_sources(pixels, profile, [(64.3, 63.6, 50.0)])
        pixels[66:, :] = np.nan
        at = np.array([64.3]), np.array([63.6])
        found = measure(pixels.astype(np.float32), *at, profile, noise, OPTIONS)
        pulls.append((found.fit[0] - 50.0) / found.fit_noise[0])
        assert 0.2 < found.missing[0] < 0.5
    # 100 pulls: their mean is known to 0.1, their standard deviation to 7 %. The annulus has half
    # of its samples, a background of 50 of them costs a tenth more.
    assert abs(np.mean(pulls)) < 0.35
    assert 0.75 < np.std(pulls) < 1.35


def test_source_beside_a_bright_one_is_measured_with_it() -> None:
    """A source 1.2 BMAJ from a 100 times brighter one: fitted together, right within the noise."""
    profile = BeamProfile(Beam(36 / 3600, 21 / 3600, 25.0).form(-CELL / 2, CELL / 2), 12.0, 7.0)
    rng, size = np.random.default_rng(12), 192
    kernel = profile.at(*wrapped_lags(size))
    x, y, flux = np.array([90.2, 104.6]), np.array([95.7, 95.7]), np.array([2000.0, 20.0])
    pulls, alone = [], []
    for _ in range(60):
        pixels = filter_noise(rng, kernel)
        noise = measure_autocorrelation(pixels.astype(np.float32), 50)
        add_sources(pixels, profile, np.stack([x, y, flux], axis=1))
        found = measure(pixels.astype(np.float32), x, y, profile, noise, OPTIONS)
        assert found.blend.tolist() == [2, 2]
        pulls.append((found.fit - flux) / found.fit_noise)
        image = pixels.astype(np.float32)
        alone.append(kernels.fit_beam(image, x[1], y[1], profile.form, 0.0, 12.0))
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.4  # three times its error
    assert (np.std(pulls, axis=0) < 1.3).all()
    # Without regard to the other, as forced_phot fits, the wing of 2000 adds a half.
    assert np.mean(alone) > 1.3 * flux[1]
