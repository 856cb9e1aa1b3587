"""From measurements to rows: names, units, limits, errors, metrics and verdicts."""

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
from contimg_photometry.measure import Measurements, annulus_offsets
from contimg_photometry.rows import (
    ImageEpoch,
    Targets,
    photometry_rows,
    select_sources,
    source_name,
)
from contimg_photometry.stage import (
    assess_quality,
    drop_outside_beam,
    drop_unmeasured,
    read_epoch,
    summarise,
)

EPOCH = ImageEpoch(
    group="20260125t021221", image="0123456789abcdef", mjd=61065.0919, strip_deg=33.0
)
CELL_DEG = (-0.01, 0.01)


def targets(n: int = 3) -> Targets:
    return Targets(
        name=np.array([f"NVSS {k}" for k in range(n)]),
        ra_deg=38.0 + 0.1 * np.arange(n),
        dec_deg=33.0 - 0.1 * np.arange(n),
        flux_jy=np.full(n, 0.1),
        beam=np.array([1.0, 0.5, 0.25, 0.9, 0.8, 0.7][:n]),
    )


def measurements(n: int = 3, **changed: Any) -> Measurements:
    numbers = {"peak": 0.1, "peak_noise": 1e-3, "fit": 0.102, "fit_noise": 1.2e-3}
    numbers |= {"background": 1e-5} | dict.fromkeys(("dx", "dy", "dx_noise", "dy_noise"), np.nan)
    made = {name: np.full(n, value) for name, value in numbers.items()}
    return replace(Measurements(**made, blend=np.ones(n, np.int64)), **changed)


def rows(found: Measurements, scale_error: float = 0.05) -> dict[str, Any]:
    return photometry_rows(targets(found.peak.size), found, CELL_DEG, EPOCH, 5.0, scale_error)


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
    assert source_name(ra, dec) == name


def test_rows_have_fluxes_over_beam_in_mjy() -> None:
    made = rows(measurements())
    assert made["flux_peak"] == pytest.approx([100.0, 200.0, 400.0])
    assert made["flux_fit"] == pytest.approx([102.0, 204.0, 408.0])
    assert made["local_rms"] == pytest.approx([1.0, 2.0, 4.0])
    assert made["flux_fit_rms"] == pytest.approx([1.2, 2.4, 4.8])
    assert made["snr"] == pytest.approx([100.0] * 3)  # the beam does not change it
    assert made["flux_ratio"] == pytest.approx([1.0, 2.0, 4.0])
    assert made["compactness"] == pytest.approx([1.02] * 3)


def test_errors_contain_flux_scale() -> None:
    made = rows(measurements(), 0.05)
    for flux, rms in (("flux_peak", "local_rms"), ("flux_fit", "flux_fit_rms")):
        expected = np.hypot(made[rms], 0.05 * made[flux])
        assert made[f"{flux}_err"] == pytest.approx(expected)
    assert made["flux_scale_err"] == pytest.approx([0.05] * 3)
    assert rows(measurements(), 0.0)["flux_peak_err"] == pytest.approx(made["local_rms"])


def test_undetected_source_has_upper_limit() -> None:
    made = rows(measurements(peak=np.array([0.1, 0.004, -0.002])))
    assert list(made["upper_limit"]) == [False, True, True]
    nulls = "flux_peak flux_peak_err flux_fit flux_fit_err compactness flux_ratio"
    for name in nulls.split():
        assert list(np.isnan(made[name])) == [False, True, True], name
    # 8 + 3 × 2 mJy; and 0 + 3 × 4, for a negative flux says nothing below zero.
    assert made["flux_limit"] == pytest.approx([np.nan, 14.0, 12.0], nan_ok=True)
    assert made["flux_forced"] == pytest.approx([100.0, 8.0, -8.0])


def test_rows_fit_schema_with_nulls_for_nan() -> None:
    table = PHOTOMETRY.table(rows(measurements(peak=np.array([0.1, 0.004, -0.002]))))
    assert table.num_rows == 3
    assert table["flux_peak"].null_count == 2
    assert table["ra_offset"].null_count == 3
    assert set(table["group"].to_pylist()) == {EPOCH.group}
    assert PHOTOMETRY.read(PHOTOMETRY.to_bytes(table), "here").num_rows == 3


def test_metrics_are_of_bright_single_sources() -> None:
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


def test_metrics_without_bright_source_have_no_ratio() -> None:
    metrics = summarise(rows(measurements(peak=np.full(3, 0.006))), 20.0)
    assert "ratio_median" not in metrics
    assert assess_quality(metrics, 37.0).verdict == "warning"


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
def test_assess_quality_names_defect(change: dict[str, float], word: str) -> None:
    good = {"bright": 30, "ratio_median": 0.97, "ra_offset_arcsec": 0.3, "dec_offset_arcsec": -0.4}
    verdict = assess_quality(good | change, 37.0)
    assert verdict.verdict == ("warning" if word else "good")
    assert len(verdict.reasons) == (1 if word else 0)
    assert all(word in reason for reason in verdict.reasons)


def plane(values: np.ndarray) -> SkyImage:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---SIN", "DEC--SIN"], [38.0, 33.0]
    wcs.wcs.cdelt, wcs.wcs.crpix = CELL_DEG, [51, 51]
    return SkyImage("store/image/beam.fits", values.astype(np.float32), fits.Header(), wcs)


def test_rows_have_offsets_east_and_north() -> None:
    pixels = {"dx": [1.0, np.nan], "dy": [2.0, np.nan]}
    noise = {"dx_noise": [0.1, np.nan], "dy_noise": [0.2, np.nan]}
    arrays = {name: np.array(values) for name, values in (pixels | noise).items()}
    made = rows(measurements(2, **arrays))
    # Cells of 36"; x grows to the west.
    for name, expected in (("ra_offset", -36.0), ("dec_offset", 72.0)):
        assert made[name] == pytest.approx([expected, np.nan], nan_ok=True)
    for name, expected in (("ra_offset_err", 3.6), ("dec_offset_err", 7.2)):
        assert made[name] == pytest.approx([expected, np.nan], nan_ok=True)


def test_sources_outside_beam_are_left_out() -> None:
    beams = replace(targets(), beam=np.array([0.5, 0.19, np.nan]))
    kept = drop_outside_beam(beams, "beam.fits", 0.2)
    assert list(kept.name) == ["NVSS 0"]
    assert kept.ra_deg.size == kept.beam.size == 1
    with pytest.raises(NoSourcesError, match=r"beam\.fits.*below 0\.6 at all 3 catalogue sources"):
        drop_outside_beam(beams, "beam.fits", 0.6)


def test_sources_without_measurement_are_left_out() -> None:
    peak, fit = np.array([0.1, np.nan, 0.1]), np.array([np.nan, 0.1, 0.1])
    part, found = drop_unmeasured(targets(), measurements(peak=peak, fit=fit), "image")
    assert list(part.name) == ["NVSS 2"]
    assert found.peak.size == 1
    with pytest.raises(NoSourcesError, match="image"):
        drop_unmeasured(targets(), measurements(peak_noise=np.zeros(3)), "image")


def test_select_sources_keeps_columns_together() -> None:
    part = select_sources(targets(), np.array([False, True, True]))
    assert list(part.name) == ["NVSS 1", "NVSS 2"]
    assert part.beam == pytest.approx([0.5, 0.25])


def manifest(**metrics: Any) -> Manifest:
    return Manifest.model_construct(stage="image", key="k", metrics=metrics)


def test_read_epoch_has_strip_of_pointing() -> None:
    image = plane(np.ones((3, 3)))
    pointed = manifest(group="g", mjd=61065.1, pointing_dec_deg=33.001)
    expected = ImageEpoch(group="g", image="k", mjd=61065.1, strip_deg=33.001)
    assert read_epoch(pointed, "u", image) == expected
    # Otherwise the centre of the image.
    assert read_epoch(manifest(group="g", mjd=61065.1), "u", image).strip_deg == 33.0
    with pytest.raises(BadInputError, match="lacks the metrics of an image: group"):
        read_epoch(manifest(mjd=61065.1), "u", image)


def test_annulus_offsets_keep_to_radii_and_grid() -> None:
    x, y = annulus_offsets(20.0, 60.0, 5)
    distance = np.hypot(x, y)
    assert distance.min() >= 20
    assert distance.max() <= 60
    assert (x % 5 == 0).all()
    # The area over the cell of the grid, to the rim's share.
    assert x.size == pytest.approx(np.pi * (60**2 - 20**2) / 25, rel=0.03)
    assert (np.sort(x) == np.sort(-x)).all()
