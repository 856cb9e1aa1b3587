"""Images as WSClean, CASA and we write them, and rows made of measurements in them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from contimg.astro.catalogues import nvss
from contimg.records.images import Beam, SkyImage, bilinear, read_image
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.errors import BadFileError, BadImageError, BadInputError, NoSourcesError
from contimg.runtime.manifest import Manifest
from contimg_photometry import stage
from contimg_photometry.measure import Measurements, annulus_offsets
from contimg_photometry.options import PhotometryOptions
from synthetic_images import BEAM, sky_header

SHAPE = (120, 160)
CENTRE = (38.9, 32.886)
CELL = 3 / 3600
ONES = np.ones((1, 1, *SHAPE), np.float32)


def header(naxis: int = 4) -> fits.Header:
    return sky_header(SHAPE, CENTRE, CELL, naxis)


def round_trip(
    folder: Path, pixels: np.ndarray = ONES, head: fits.Header | None = None
) -> SkyImage:
    fits.PrimaryHDU(pixels, header() if head is None else head).writeto(folder / "image.fits")
    return read_image(folder / "image.fits")


@pytest.fixture
def image(tmp_path_factory: pytest.TempPathFactory) -> SkyImage:
    pixels = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(1, 1, *SHAPE)
    return round_trip(tmp_path_factory.mktemp("image"), pixels)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_read_image_returns_native_float32_plane(
    image: SkyImage, tmp_path: Path, dtype: str
) -> None:
    # FITS is big-endian, CASA may write doubles, and axes of length one are dropped.
    plain = round_trip(tmp_path, image.pixels.astype(dtype), header(2))
    for found in (image, plain):
        assert found.pixels.shape == SHAPE
        assert found.pixels.dtype == np.dtype("=f4")
        assert found.pixels.flags.c_contiguous
    assert np.array_equal(image.pixels, plain.pixels)
    there = np.array([38.91]), np.array([32.9])
    assert np.array(image.to_pixels(*there)) == pytest.approx(np.array(plain.to_pixels(*there)))


def test_image_has_centre_cell_and_beam(image: SkyImage) -> None:
    assert image.centre_deg == pytest.approx(CENTRE)
    assert image.cell_deg == pytest.approx((-CELL, CELL))
    assert image.beam == BEAM
    x, y = image.to_pixels(np.array([CENTRE[0]]), np.array([CENTRE[1]]))
    assert (x[0], y[0]) == pytest.approx((80.0, 60.0), abs=1e-6)  # CRPIX counts from 1
    places = np.random.default_rng(0).uniform(0, 100, (2, 50))
    assert np.array(image.to_pixels(*image.wcs.all_pix2world(*places, 0))) == pytest.approx(
        places, abs=1e-6
    )


@pytest.mark.parametrize(("angle", "dx", "dy"), [(90, -20.0, 0.0), (0, 0.0, 20.0)])
def test_east_is_left_and_north_is_up(image: SkyImage, angle: int, dx: float, dy: float) -> None:
    centre = SkyCoord(*CENTRE, unit="deg")
    there = centre.directional_offset_by(angle * units.deg, 60.0 * units.arcsec)
    x, y = image.to_pixels(np.array([there.ra.deg]), np.array([there.dec.deg]))
    # 60" is 20 cells; sin is not its argument by 1e-8.
    assert (x[0] - 80, y[0] - 60) == pytest.approx((dx, dy), abs=1e-3)


def test_sample_returns_map_at_position(image: SkyImage) -> None:
    ra, dec = image.wcs.all_pix2world([10.0, 10.5, 500.0], [7.0, 7.0, 7.0], 0)
    expected = [7 * 160 + 10, 7 * 160 + 10.5, np.nan]
    assert image.sample(ra, dec) == pytest.approx(expected, rel=1e-5, nan_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        behind = image.sample(np.array([CENTRE[0] + 180]), np.array([-CENTRE[1]]))
    assert not np.isfinite(behind).any()


@pytest.mark.parametrize("name", ["BMAJ", "BMIN", "BPA", "zero BMIN"])
def test_image_without_beam_is_refused_when_asked(tmp_path: Path, name: str) -> None:
    head = header()
    if name == "zero BMIN":
        head["BMIN"] = 0.0
    else:
        del head[name]
    image = round_trip(tmp_path, head=head)
    with pytest.raises(BadImageError, match="BMAJ"):
        _ = image.beam


@pytest.mark.parametrize(
    ("pixels", "head", "match"),
    [
        (np.ones((2, 1, *SHAPE), np.float32), header(), "one plane"),
        (np.ones((1, 1, 1, 160), np.float32), header(), "one plane"),
        (np.full((1, 1, *SHAPE), np.nan, np.float32), header(), "finite"),
        (np.ones((4, 4), np.float32), fits.Header(), "celestial"),
    ],
)
def test_read_image_refuses_other_than_sky_plane(
    tmp_path: Path, pixels: np.ndarray, head: fits.Header, match: str
) -> None:
    with pytest.raises(BadImageError, match=match):
        round_trip(tmp_path, pixels, head)


@pytest.mark.parametrize("content", [b"", b"not FITS at all" * 300, None])
def test_read_image_refuses_other_files_by_uri(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "image.fits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"s3://bucket/image\.fits"):
        read_image(path, "s3://bucket/image.fits")


def test_read_image_is_silent_about_old_keywords(tmp_path: Path) -> None:
    head = header()
    head.update({"OBSGEO-X": -2409150.4, "OBSGEO-Y": -4478573.1, "OBSGEO-Z": 3838617.3})
    head["DATE-OBS"] = "2026-01-25T02:12:21"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        round_trip(tmp_path, head=head)


@pytest.mark.parametrize("pa", [0.0, 33.0, 90.0, 170.0])
def test_beam_area_does_not_depend_on_angle(pa: float) -> None:
    a, b, c = Beam(68 / 3600, 37 / 3600, pa).form(-CELL, CELL)
    # ∫ exp(−xᵀMx) = π/√det M, the area of a Gaussian beam, π/(4 ln 2) BMAJ BMIN, in cells.
    area = np.pi / (4 * np.log(2)) * 68 * 37 / 9
    assert np.pi / np.sqrt(a * c - b * b) == pytest.approx(area, rel=1e-12)


def test_bilinear_is_exact_on_plane_and_nan_outside() -> None:
    rows, columns = np.mgrid[:20, :30]
    pixels = (2.0 * columns - 3.0 * rows + 1.0).astype(np.float32)
    x, y = np.array([0.0, 29.0, 7.25, 29.5, np.nan]), np.array([0.0, 19.0, 3.5, 3.0, 1.0])
    assert bilinear(pixels, x, y) == pytest.approx([1.0, 2.0, 5.0, np.nan, np.nan], nan_ok=True)


def options(**chosen: Any) -> PhotometryOptions:
    return PhotometryOptions(image="i", tables="t", out="o", **chosen)


def targets(n: int = 3) -> stage.Targets:
    name, offset = np.array([f"NVSS {k}" for k in range(n)]), 0.1 * np.arange(n)
    beam = np.array([1.0, 0.5, 0.25, 0.9, 0.8, 0.7][:n])
    flux, error = np.full(n, 0.1), np.full(n, 0.01)
    return stage.Targets(name, 38.0 + offset, 33.0 - offset, flux, error, beam, 0 * beam)


def measurements(n: int = 3, **changed: Any) -> Measurements:
    numbers = {"peak": 0.1, "peak_noise": 1e-3, "fit": 0.102, "fit_noise": 1.2e-3}
    numbers |= {"background": 1e-5, "missing": 0.0} | dict.fromkeys(
        ("dx", "dy", "dx_noise", "dy_noise"), np.nan
    )
    made = {name: np.full(n, value) for name, value in numbers.items()}
    arrays = {name: np.array(value) for name, value in changed.items()}
    return replace(Measurements(**made, blend=np.ones(n, np.int64)), **arrays)


def rows(n: int = 3, scale_error: float = 0.05, **changed: Any) -> dict[str, Any]:
    found, errors = measurements(n, **changed), np.full(n, scale_error)
    # Cells of 36"; x grows to the west.
    offsets = 36 * np.array([-found.dx, found.dy, found.dx_noise, found.dy_noise])
    return stage.photometry_rows(targets(n), found, offsets, options().detection_snr, errors)


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (24.422083, 33.159759, "DSA J013741.2+330935"),  # 3C48, 01h37m41.2999s
        (202.784533, 30.509155, "DSA J133108.2+303032"),  # 3C286
        (0.0, 0.0, "DSA J000000.0+000000"),
        (359.99999, -0.0003, "DSA J235959.9-000001"),
        (15.0, -40.5, "DSA J010000.0-403000"),
        (187.5, 65.7, "DSA J123000.0+654200"),
    ],
)
def test_source_name_is_truncated_not_rounded(ra: float, dec: float, name: str) -> None:
    assert stage.source_name(ra, dec) == name


def test_rows_have_fluxes_over_beam_in_mjy() -> None:
    made = rows()
    expected = {"flux_peak": [100.0, 200.0, 400.0], "flux_fit": [102.0, 204.0, 408.0]}
    expected |= {"local_rms": [1.0, 2.0, 4.0], "flux_fit_rms": [1.2, 2.4, 4.8]}
    # The beam does not change the signal-to-noise ratio.
    expected |= {"snr": [100.0] * 3, "flux_ratio": [1.0, 2.0, 4.0], "compactness": [1.02] * 3}
    for name, values in expected.items():
        assert made[name] == pytest.approx(values), name


def test_errors_contain_flux_scale() -> None:
    made = rows(scale_error=0.05)
    for flux, rms in (("flux_peak", "local_rms"), ("flux_fit", "flux_fit_rms")):
        expected = np.hypot(made[rms], 0.05 * made[flux])
        assert made[f"{flux}_err"] == pytest.approx(expected)
    assert made["flux_scale_err"] == pytest.approx([0.05] * 3)
    assert rows(scale_error=0.0)["flux_peak_err"] == pytest.approx(made["local_rms"])


def test_undetected_source_has_upper_limit() -> None:
    made = rows(peak=[0.1, 0.004, -0.002])
    assert list(made["upper_limit"]) == [False, True, True]
    nulls = "flux_peak flux_peak_err flux_fit flux_fit_err compactness flux_ratio"
    for name in nulls.split():
        assert list(np.isnan(made[name])) == [False, True, True], name
    # 8 + 3 × 2 mJy; and 0 + 3 × 4, for a negative flux says nothing below zero.
    assert made["flux_limit"] == pytest.approx([np.nan, 14.0, 12.0], nan_ok=True)
    assert made["flux_forced"] == pytest.approx([100.0, 8.0, -8.0])
    shared = {"group": ["g"] * 3, "image": ["k"] * 3, "mjd": [61065.0] * 3, "strip": [33.0] * 3}
    unknown = {c.name: [None] * 3 for c in PHOTOMETRY.columns if c.nullable}
    table = PHOTOMETRY.table(unknown | made | shared)
    assert table.num_rows == 3
    assert table["flux_peak"].null_count == 2
    assert table["ra_offset"].null_count == 3
    assert set(table["group"].to_pylist()) == {"g"}
    assert PHOTOMETRY.read(PHOTOMETRY.to_bytes(table), "here").num_rows == 3


def test_rows_have_offsets_east_and_north() -> None:
    pixels = {"dx": [1.0, np.nan], "dy": [2.0, np.nan]}
    made = rows(2, **pixels, dx_noise=[0.1, np.nan], dy_noise=[0.2, np.nan])
    expected = {"ra_offset": -36.0, "dec_offset": 72.0, "ra_offset_err": 3.6, "dec_offset_err": 7.2}
    for name, value in expected.items():
        assert made[name] == pytest.approx([value, np.nan], nan_ok=True)


def test_metrics_are_of_bright_single_sources() -> None:
    made = rows(6, blend=[1, 1, 1, 2, 2, 1])
    made["snr"] = np.array([100.0, 100.0, 10.0, 100.0, 100.0, 100.0])
    made["flux_ratio"] = np.array([0.9, 1.1, 5.0, 5.0, 5.0, 1.0])
    made["ra_offset"] = np.array([0.1, 0.2, 9.0, 9.0, 9.0, 0.3])
    made["dec_offset"] = np.zeros(6)
    metrics = stage.summarise(made, 20.0)
    assert metrics["sources"] == metrics["detected"] == 6
    assert metrics["bright"] == 3
    assert metrics["ratio_median"] == 1.0
    assert metrics["ratio_scatter"] == pytest.approx(0.14826, abs=1e-5)
    assert metrics["ra_offset_arcsec"] == 0.2
    assert metrics["rms_median_mjy"] == pytest.approx(1.0)
    faint = stage.summarise(rows(peak=np.full(3, 0.006)), 20.0)
    assert "ratio_median" not in faint
    assert stage.assess_quality(faint | {"unmeasured": 0}, 37.0).verdict == "warning"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"ratio_median": 0.75}, "ratio"),
        ({"ratio_median": 1.3}, "ratio"),
        ({"ratio_median": 1.3, "ratio_error": 0.4}, "too far in frequency"),
        ({"ra_offset_arcsec": -4.0}, "ra offset"),
        ({"dec_offset_arcsec": 5.0}, "dec offset"),
        ({"bright": 4, "ratio_median": 3.0}, "only 4"),
        ({"unmeasured": 4}, ""),
        ({"unmeasured": 40}, "29% of the sources have no row"),
    ],
)
def test_assess_quality_names_defect(change: dict[str, float], word: str) -> None:
    good = {"bright": 30, "ratio_median": 0.97, "ra_offset_arcsec": 0.3, "dec_offset_arcsec": -0.4}
    good |= {"sources": 100, "unmeasured": 0}
    verdict = stage.assess_quality(good | change, 37.0)
    assert verdict.verdict == ("warning" if word else "good")
    assert len(verdict.reasons) == (1 if word else 0)
    assert all(word in reason for reason in verdict.reasons)


def plane(values: np.ndarray) -> SkyImage:
    wcs = WCS(sky_header(values.shape, (38.0, 33.0), 0.01), naxis=2)
    return SkyImage("store/image/beam.fits", values.astype(np.float32), fits.Header(), wcs)


def test_source_at_hole_of_beam_keeps_its_row() -> None:
    beam = plane(np.broadcast_to(np.linspace(0.3, 0.5, 201), (201, 201)).copy())
    whole = stage.catalogue_targets(options(), beam, beam, None)
    x, y = np.round(beam.to_pixels(whole.ra_deg, whole.dec_deg)).astype(int)
    (k, *_) = np.flatnonzero((x > 10) & (x < 190) & (y > 10) & (y < 190))
    beam.pixels[y[k], x[k]] = np.nan
    found = stage.catalogue_targets(options(), beam, beam, None)
    assert found.name.tolist() == whole.name.tolist()
    assert found.beam == pytest.approx(whole.beam, abs=6e-4)  # half a step of a pixel
    assert found.beam_missing[k] == pytest.approx(1 / 169)


def test_sources_outside_beam_are_left_out() -> None:
    beam = plane(np.broadcast_to(np.linspace(0, 0.5, 201), (201, 201)).copy())
    beam.pixels[:50] = np.nan
    kept = stage.catalogue_targets(options(min_beam=0.2), beam, beam, None)
    near = nvss().within(38.0, 33.0, 0.5 * np.hypot(2.01, 2.01))
    level = beam.sample(near.ra_deg, near.dec_deg)
    assert np.isnan(level).any()
    assert (level < 0.2).any()
    assert list(kept.name) == list(near.name[level >= 0.2])
    assert kept.ra_deg.size == kept.beam.size == np.count_nonzero(level >= 0.2)
    x, y = np.round(beam.to_pixels(near.ra_deg, near.dec_deg))
    on_image = np.count_nonzero((x >= 0) & (x <= 200) & (y >= 0) & (y <= 200))
    with pytest.raises(NoSourcesError, match=rf"beam\.fits.*below 0\.6 at all {on_image} cat"):
        stage.catalogue_targets(options(min_beam=0.6), beam, beam, None)


def test_sources_without_measurement_are_left_out() -> None:
    found = measurements(peak=[0.1, np.nan, 0.1], fit=[np.nan, 0.1, 0.1])
    part, found = stage.drop_unmeasured(targets(), found, "image")
    assert list(part.name) == ["NVSS 2"]
    assert part.beam == pytest.approx([0.25])
    assert found.peak.size == 1
    with pytest.raises(NoSourcesError, match="image"):
        stage.drop_unmeasured(targets(), measurements(peak_noise=np.zeros(3)), "image")


def test_read_epoch_has_strip_of_pointing() -> None:
    image, known = plane(np.ones((3, 3))), {"group": "g", "mjd": 61065.1}

    def read(metrics: dict[str, Any]) -> dict[str, Any]:
        manifest = Manifest.model_construct(stage="image", key="k", metrics=metrics)
        return stage.read_epoch(manifest, "u", image)

    expected = known | {"image": "k", "strip": 33.001, "primary_beam": None}
    assert read(known | {"pointing_dec_deg": 33.001}) == expected
    assert read(known) == expected | {"strip": 33.0}  # otherwise the centre of the image
    with pytest.raises(BadInputError, match="lacks the metrics of an image: group"):
        read({"mjd": 61065.1})


def test_annulus_offsets_keep_to_radii_and_grid() -> None:
    x, y = annulus_offsets(20.0, 60.0, 5)
    distance = np.hypot(x, y)
    assert distance.min() >= 20
    assert distance.max() <= 60
    assert (x % 5 == 0).all()
    # The area over the cell of the grid, to the rim's share.
    assert x.size == pytest.approx(np.pi * (60**2 - 20**2) / 25, rel=0.03)
    assert (np.sort(x) == np.sort(-x)).all()
