"""From measurements to rows: names, units, limits, errors, and what the stage says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from contimg.records.images import SkyImage
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import Manifest
from contimg_photometry.measure import Apertures, Measurements, annulus_offsets
from contimg_photometry.options import PhotometryOptions
from contimg_photometry.rows import Observation, Targets, photometry_rows, source_name
from contimg_photometry.stage import (
    choose,
    judge,
    measurable,
    observation,
    sky_offsets,
    summarise,
    within_beam,
)

OF = Observation("20260125t021221", "0123456789abcdef", 61065.0919, 33.0)


def targets(n: int = 3) -> Targets:
    return Targets(
        np.array([f"NVSS {k}" for k in range(n)]),
        38.0 + 0.1 * np.arange(n),
        33.0 - 0.1 * np.arange(n),
        np.full(n, 0.1),
        np.array([1.0, 0.5, 0.25, 0.9, 0.8, 0.7][:n]),
    )


def measurements(n: int = 3, **changed: Any) -> Measurements:
    numbers = {
        "peak": 0.1,
        "peak_noise": 1e-3,
        "fit": 0.102,
        "fit_noise": 1.2e-3,
        "background": 1e-5,
    }
    made = {name: np.full(n, value) for name, value in numbers.items()}
    nothing = {name: np.full(n, np.nan) for name in ("dx", "dy", "dx_noise", "dy_noise")}
    return replace(Measurements(**made, **nothing, blend=np.ones(n, np.int64)), **changed)


def rows(found: Measurements, scale_error: float = 0.05) -> dict[str, Any]:
    nothing = np.full(found.peak.size, np.nan)
    return photometry_rows(targets(found.peak.size), found, (nothing,) * 4, OF, 5.0, scale_error)


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (24.422083, 33.159759, "DSA J013741.2+330935"),  # 3C48, 01h37m41.2999s: cut, not rounded
        (202.784533, 30.509155, "DSA J133108.2+303032"),  # 3C286
        (0.0, 0.0, "DSA J000000.0+000000"),
        (359.99999, -0.0003, "DSA J235959.9-000001"),
        (15.0, -40.5, "DSA J010000.0-403000"),
        (187.5, 65.7, "DSA J123000.0+654200"),
    ],
)
def test_names_are_cut_not_rounded(ra: float, dec: float, name: str) -> None:
    assert source_name(ra, dec) == name


def test_fluxes_are_divided_by_the_beam_and_in_millijansky() -> None:
    made = rows(measurements())
    assert made["flux_peak"] == pytest.approx([100.0, 200.0, 400.0])
    assert made["flux_fit"] == pytest.approx([102.0, 204.0, 408.0])
    assert made["local_rms"] == pytest.approx([1.0, 2.0, 4.0])
    assert made["flux_fit_rms"] == pytest.approx([1.2, 2.4, 4.8])
    assert made["snr"] == pytest.approx([100.0] * 3)  # the beam does not change it
    assert made["flux_ratio"] == pytest.approx([1.0, 2.0, 4.0])
    assert made["compactness"] == pytest.approx([1.02] * 3)


def test_errors_hold_the_flux_scale_and_say_how_much() -> None:
    made = rows(measurements(), 0.05)
    assert made["flux_peak_err"] == pytest.approx(
        np.hypot(made["local_rms"], 0.05 * made["flux_peak"])
    )
    assert made["flux_fit_err"] == pytest.approx(
        np.hypot(made["flux_fit_rms"], 0.05 * made["flux_fit"])
    )
    assert made["flux_scale_err"] == pytest.approx([0.05] * 3)
    assert rows(measurements(), 0.0)["flux_peak_err"] == pytest.approx(made["local_rms"])


def test_what_is_not_detected_is_a_row_with_a_limit() -> None:
    made = rows(measurements(peak=np.array([0.1, 0.004, -0.002])))
    assert list(made["upper_limit"]) == [False, True, True]
    for name in (
        "flux_peak",
        "flux_peak_err",
        "flux_fit",
        "flux_fit_err",
        "compactness",
        "flux_ratio",
    ):
        assert list(np.isnan(made[name])) == [False, True, True], name
    # 8 + 3 × 2 mJy; and 0 + 3 × 4, for a negative flux says nothing below zero.
    assert made["flux_limit"] == pytest.approx([np.nan, 14.0, 12.0], nan_ok=True)
    assert made["flux_forced"] == pytest.approx([100.0, 8.0, -8.0])


def test_rows_fit_the_schema_and_keep_no_nan() -> None:
    table = PHOTOMETRY.table(rows(measurements(peak=np.array([0.1, 0.004, -0.002]))))
    assert table.num_rows == 3
    assert table["flux_peak"].null_count == 2
    assert table["ra_offset"].null_count == 3
    assert set(table["group"].to_pylist()) == {OF.group}
    assert PHOTOMETRY.read(PHOTOMETRY.to_bytes(table), "here").num_rows == 3


def test_bright_single_sources_make_the_metrics() -> None:
    made = rows(measurements(6, blend=np.array([1, 1, 1, 2, 2, 1])))
    made["snr"] = np.array([100.0, 100.0, 10.0, 100.0, 100.0, 100.0])
    made["flux_ratio"] = np.array([0.9, 1.1, 5.0, 5.0, 5.0, 1.0])
    made["ra_offset"] = np.array([0.1, 0.2, 9.0, 9.0, 9.0, 0.3])
    made["dec_offset"] = np.zeros(6)
    metrics = summarise(made, 20.0)
    assert metrics["sources"] == metrics["detected"] == 6
    assert metrics["bright"] == 3
    assert metrics["ratio_median"] == 1.0
    assert metrics["ratio_scatter"] == pytest.approx(0.14826, abs=1e-5)
    assert metrics["ra_offset_arcsec"] == 0.2
    assert metrics["rms_median_mjy"] == pytest.approx(1.0)


def test_no_bright_source_makes_no_ratio() -> None:
    metrics = summarise(rows(measurements(peak=np.full(3, 0.006))), 20.0)
    assert "ratio_median" not in metrics
    assert judge(metrics, 37.0).verdict == "warning"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"ratio_median": 0.75}, "ratio"),
        ({"ratio_median": 1.3}, "ratio"),
        ({"ra_offset_arcsec": -4.0}, "ra offset"),
        ({"dec_offset_arcsec": 5.0}, "dec offset"),
        ({"bright": 4, "ratio_median": 3.0}, "only 4"),
    ],
)
def test_qa_names_what_is_wrong(change: dict[str, float], word: str) -> None:
    good = {"bright": 30, "ratio_median": 0.97, "ra_offset_arcsec": 0.3, "dec_offset_arcsec": -0.4}
    verdict = judge(good | change, 37.0)
    assert verdict.verdict == ("warning" if word else "good")
    assert len(verdict.reasons) == (1 if word else 0)
    assert all(word in reason for reason in verdict.reasons)


def plane(values: np.ndarray) -> SkyImage:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt, wcs.wcs.crpix = (
        ["RA---SIN", "DEC--SIN"],
        [38.0, 33.0],
        [-0.01, 0.01],
        [51, 51],
    )
    return SkyImage("store/image/beam.fits", values.astype(np.float32), fits.Header(), wcs)


def test_offsets_are_east_and_north() -> None:
    found = measurements(
        2,
        dx=np.array([1.0, np.nan]),
        dy=np.array([2.0, np.nan]),
        dx_noise=np.array([0.1, np.nan]),
        dy_noise=np.array([0.2, np.nan]),
    )
    east, north, east_error, north_error = sky_offsets(plane(np.ones((101, 101))), found)
    # Cells of 36"; x grows to the west.
    assert (east[0], north[0], east_error[0], north_error[0]) == pytest.approx(
        (-36.0, 72.0, 3.6, 7.2)
    )
    assert np.isnan(east[1])


def options(**changed: Any) -> PhotometryOptions:
    return PhotometryOptions(image="i", tables="t", out="o", **changed)


def test_sources_outside_the_beam_are_left_out() -> None:
    beams = replace(targets(), beam=np.array([0.5, 0.19, np.nan]))
    kept = within_beam(beams, plane(np.ones((3, 3))), options())
    assert list(kept.name) == ["NVSS 0"]
    assert kept.ra_deg.size == kept.beam.size == 1
    with pytest.raises(NoSourcesError, match=r"beam\.fits.*at least 0\.6.*none among 3"):
        within_beam(beams, plane(np.ones((3, 3))), options(min_beam=0.6))


def test_what_cannot_be_measured_is_left_out() -> None:
    part, found = measurable(
        targets(),
        measurements(peak=np.array([0.1, np.nan, 0.1]), fit=np.array([np.nan, 0.1, 0.1])),
        "image",
    )
    assert list(part.name) == ["NVSS 2"]
    assert found.peak.size == 1
    with pytest.raises(NoSourcesError, match="image"):
        measurable(targets(), measurements(peak_noise=np.zeros(3)), "image")


def test_choosing_keeps_columns_together() -> None:
    part = choose(targets(), np.array([False, True, True]))
    assert list(part.name) == ["NVSS 1", "NVSS 2"]
    assert part.beam == pytest.approx([0.5, 0.25])


def manifest(**metrics: Any) -> Manifest:
    return Manifest.model_validate(
        {
            "stage": "image",
            "version": "0",
            "key": "k",
            "options": {},
            "inputs": (),
            "tools": {},
            "outputs": (),
            "metrics": metrics,
            "qa": {},
            "seconds": {},
            "created": "2026-01-25T00:00:00Z",
        }
    )


def test_the_strip_is_where_the_telescope_pointed() -> None:
    image = plane(np.ones((3, 3)))
    assert observation(
        manifest(group="g", mjd=61065.1, pointing_dec_deg=33.001), "u", image
    ) == Observation("g", "k", 61065.1, 33.001)
    assert (
        observation(manifest(group="g", mjd=61065.1), "u", image).strip_deg == 33.0
    )  # else the image's centre
    with pytest.raises(BadInputError, match="no group"):
        observation(manifest(mjd=61065.1), "u", image)


def test_annulus_keeps_to_its_radii_and_grid() -> None:
    x, y = annulus_offsets(20.0, 60.0, 5)
    distance = np.hypot(x, y)
    assert distance.min() >= 20
    assert distance.max() <= 60
    assert (x % 5 == 0).all()
    # The area over the cell of the grid, to the rim's share.
    assert x.size == pytest.approx(np.pi * (60**2 - 20**2) / 25, rel=0.03)
    assert (np.sort(x) == np.sort(-x)).all()


def test_apertures_and_options_have_the_same_defaults() -> None:
    plain, made = Apertures(), options()
    assert (made.aperture, made.annulus_inner, made.annulus_outer) == (
        plain.fit,
        plain.inner,
        plain.outer,
    )
    assert (made.pair_separation, made.position_snr) == (plain.pair, plain.position_snr)
