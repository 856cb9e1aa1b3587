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

from contimg.records.images import SkyImage, read_image
from contimg.runtime.errors import BadImageError
from contimg_photometry import stage
from contimg_photometry.measure import Measurements, measure
from contimg_photometry.noise import BeamProfile, measure_autocorrelation
from contimg_photometry.options import PhotometryOptions

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
    targets = stage.Targets(np.array(["s"] * 5), moved.ra.deg, moved.dec.deg, *[FLUX] * 3)
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
    ],
)
def test_image_that_is_not_understood_is_refused(
    tmp_path: Path, cards: dict[str, Any], words: str
) -> None:
    head = header(NORMAL, EQUATORIAL, "CD", **cards)
    path = tmp_path / "i.fits"
    fits.PrimaryHDU(np.ones((SIZE, SIZE), np.float32), head).writeto(path)
    with pytest.raises(BadImageError, match=words):
        image = read_image(path)
        _ = image.beam, image.jy_per_unit


@pytest.mark.parametrize(("unit", "factor"), [("mJy/beam", 1e-3), ("JY/BEAM", 1), ("Jy beam-1", 1)])
def test_unit_of_pixels_counts(tmp_path: Path, unit: str, factor: float) -> None:
    path = tmp_path / "i.fits"
    head = header(NORMAL, EQUATORIAL, "CD", BUNIT=unit)
    fits.PrimaryHDU(np.ones((SIZE, SIZE), np.float32), head).writeto(path)
    assert read_image(path).jy_per_unit == factor
