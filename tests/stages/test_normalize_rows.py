"""What normalize reads and writes, in the process: the query, fields, columns, warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.store import open_store
from contimg_normalize import stage
from contimg_normalize.epochs import COLUMNS, LightCurves, find_photometry, read_photometry
from contimg_normalize.options import STAGE, NormalizeOptions
from contimg_normalize.stage import NormalizedField, normalise_field, summarise

SIDEREAL_DAY = 0.9972695663


def options(root: Path | str = "t", **changed: Any) -> NormalizeOptions:
    return NormalizeOptions(tables=str(root), out="o", **({"strip": 33.0} | changed))


def photometry(mjd: float, strip: float, flux: float = 100.0, **changed: Any) -> bytes:
    """The photometry of three sources."""
    columns: dict[str, Any] = {column.name: [None] * 3 for column in PHOTOMETRY.columns}
    constant = {"group": "g", "image": "k", "mjd": mjd, "strip": strip, "beam": 1.0}
    constant |= {"flux_forced": flux, "local_rms": 0.5, "snr": flux / 0.5, "upper_limit": False}
    constant |= {"compactness": 1.01, "blend": 1}
    columns |= {name: [value] * 3 for name, value in constant.items()}
    columns |= {"source": ["s00", "s01", "s02"], "ra": [38.0, 38.1, 38.2], "dec": [33.0] * 3}
    return PHOTOMETRY.to_bytes(columns | changed)


def write(root: Path, day: str, unit: str, content: bytes, table: str = "photometry") -> None:
    open_store(str(root)).put(f"{table}/date={day}/{unit}.parquet", content)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write(tmp_path, "2026-01-25", "a", photometry(61065.1, 33.0))
    write(tmp_path, "2026-01-25", "b", photometry(61065.5, 54.6))
    write(tmp_path, "2026-01-26", "c", photometry(61066.1, 33.2))
    write(tmp_path, "2026-02-01", "d", photometry(61072.1, 32.9))
    write(tmp_path, "2026-01-25", "x", b"another table", "normalized")
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "acd"),
        ({"strip": 54.5}, "b"),
        ({"strip_tolerance": 0.15}, "ad"),
        ({"first_day": "2026-01-26"}, "cd"),
        ({"last_day": "2026-01-26"}, "ac"),
        ({"first_day": "2026-01-26", "last_day": "2026-01-26"}, "c"),
    ],
)
def test_query_finds_strip_and_days(tables: Path, asked: dict[str, Any], expected: str) -> None:
    found = find_photometry(options(tables, **asked))
    assert [Path(item.uri).stem for item in found] == list(expected)
    assert {item.name for item in found} == {"photometry"}


def test_key_depends_on_what_was_found(tables: Path) -> None:
    asked, elsewhere = options(tables), options(f"file://{tables}")
    before = STAGE.key(asked, STAGE.inputs(asked))
    assert STAGE.key(asked, STAGE.inputs(asked)) == before
    assert STAGE.key(elsewhere, STAGE.inputs(elsewhere)) == before  # the place does not matter
    write(tables, "2026-02-02", "e", photometry(61073.1, 33.0))
    assert STAGE.key(asked, STAGE.inputs(asked)) != before
    assert STAGE.key(options(tables, gradient=True), STAGE.inputs(asked)) != before


def test_empty_query_counts_files(tables: Path) -> None:
    for asked, count in (({"strip": 16.3}, 4), ({"first_day": "2027-01-01"}, 0)):
        with pytest.raises(NoSourcesError, match=f"No photometry .* in the {count} files"):
            find_photometry(options(tables, **asked))


@pytest.mark.parametrize("day", ["25.1.2026", "2026-1-25", "yesterday"])
def test_bad_day_is_refused(day: str) -> None:
    with pytest.raises(ValidationError):
        options(first_day=day)


def resolve(root: Path) -> Context:
    return Context(str(root / "artifact"), root, find_photometry(options(root)), {})


def test_replaced_file_is_refused(tables: Path) -> None:
    context = resolve(tables)
    assert read_photometry(context)["ra"].size == 9
    write(tables, "2026-01-25", "a", photometry(61065.1, 33.0, flux=101.0))
    with pytest.raises(BadInputError, match=r"a\.parquet: The file was replaced.*Run the stage"):
        read_photometry(context)


def test_nulls_are_read_as_nan(tmp_path: Path) -> None:
    write(tmp_path, "2026-01-25", "a", photometry(61065.1, 33.0, compactness=[None, 1.0, 1.0]))
    arrays = read_photometry(resolve(tmp_path))
    assert set(arrays) == set(COLUMNS)
    assert np.isnan(arrays["compactness"][0])
    assert arrays["source"].tolist() == ["s00", "s01", "s02"]


def columns_of(m: int = 26, *, seed: int = 0, slope: float = 0.0) -> dict[str, np.ndarray]:
    """Photometry of n sources of 50 to 250 mJy: 0.5 mJy of noise, a common 5 %, and a slope."""
    rng, n = np.random.default_rng(seed), 25
    common, tilt = 1 + 0.05 * rng.normal(size=m), slope * rng.normal(size=m)
    flux = rng.uniform(50, 250, n)
    i, e = (part.ravel() for part in np.meshgrid(np.arange(n), np.arange(m), indexing="ij"))
    ra, dec = 37 + 3 * rng.uniform(size=n), 32 + 2 * rng.uniform(size=n)
    east = (ra - 38.5) * np.cos(np.radians(33))
    found = flux[i] * common[e] * (1 + tilt[e] * east[i]) + 0.5 * rng.normal(size=i.size)
    columns = {"source": np.array([f"s{k:02d}" for k in i]), "ra": ra[i], "dec": dec[i]}
    columns |= {"mjd": 61065.1 + 6 * SIDEREAL_DAY * e, "flux_forced": found}
    columns |= {"local_rms": np.full(i.size, 0.5), "compactness": np.ones(i.size)}
    return columns | {"blend": np.ones(i.size, int)}


def normalised(columns: dict[str, np.ndarray], **changed: Any) -> NormalizedField:
    field = normalise_field(columns, options(**changed))
    assert field is not None
    return field


def frame(field: NormalizedField, detection_snr: float = 5.0) -> pd.DataFrame:
    return NORMALIZED.table(stage.flux_columns(field, detection_snr)).to_pandas()


def reasons(field: NormalizedField, field_count: int = 1) -> str:
    return "\n".join(stage.judge([field], field_count, options()).reasons)


def test_columns_fit_their_schemas() -> None:
    field = normalised(columns_of())
    epochs = NORMALIZATION.table(stage.epoch_columns(field, 33.0)).to_pandas()
    rows = frame(field)
    assert (len(epochs), len(rows)) == (26, 25 * 26)
    assert set(rows.field) == set(epochs.field) == {field.name}
    assert set(rows.epoch) == set(epochs.epoch)
    assert (rows.groups == 1).all()
    assert (epochs.references + epochs.clipped == field.reference.sum()).all()


def test_flux_is_raw_over_factor() -> None:
    rows = frame(normalised(columns_of()))
    np.testing.assert_allclose(rows.flux, rows.flux_raw / rows.factor, rtol=1e-12)
    scale_error = rows.flux_raw * rows.factor_err / rows.factor**2
    error = np.hypot(rows.flux_raw_err / rows.factor, scale_error)
    np.testing.assert_allclose(rows.flux_err, error, rtol=1e-12)
    assert (rows.flux_raw_err >= rows.noise).all()
    # One factor an epoch for all but the references, which have their own.
    others = rows[~rows.reference].groupby("epoch").factor.nunique()
    assert set(others) == {1}
    assert rows[rows.reference].groupby("epoch").factor.nunique().max() > 1


def test_limits_are_marked_and_keep_their_flux() -> None:
    rows = frame(normalised(columns_of()), detection_snr=200.0)
    assert (rows.upper_limit == (rows.snr < 200)).all()
    assert 0 < rows.upper_limit.mean() < 1
    assert rows.flux.notna().all()


def test_rows_without_flux_or_error_are_left_out() -> None:
    columns = columns_of()
    columns["flux_forced"][5], columns["local_rms"][30] = np.nan, 0.0
    assert len(frame(normalised(columns))) == 25 * 26 - 2


def test_epoch_without_references_has_nulls() -> None:
    columns = columns_of()
    keep = (columns["mjd"] < columns["mjd"].max()) | (columns["source"] == "s03")
    field = normalised({name: column[keep] for name, column in columns.items()})
    factor = NORMALIZATION.table(stage.epoch_columns(field, 33.0))["factor"]
    assert (factor.to_pylist()[-1], factor.null_count) == (None, 1)
    rows = NORMALIZED.table(stage.flux_columns(field, 5.0)).to_pylist()
    (mine,) = (row for row in rows if row["epoch"] == int(field.curves.epoch[-1]))
    assert (mine["source"], mine["flux"], mine["factor"]) == ("s03", None, None)
    assert "too few references" in reasons(field)


def test_gradient_removes_what_a_factor_cannot() -> None:
    columns = columns_of(slope=0.02, seed=3)
    spread = []
    for gradient in (False, True):
        field = normalised(columns, gradient=gradient)
        flux = field.curves.flux / field.factors[0]
        spread.append(np.median(np.std(flux, axis=1, ddof=1) / np.mean(flux, axis=1)))
    # The slope of 2 % a degree over 2.5 degrees is 1.4 % rms; noise, 0.5 mJy of 150, is left, and
    # the plane's error.
    assert spread[1] < 0.5 * spread[0]
    assert spread[1] < 0.006


def test_few_epochs_assume_systematic_term() -> None:
    field = normalised(columns_of(m=3))
    assert field.systematic == 0.01
    assert "too few epochs" in reasons(field)
    assert "scatter_median" not in summarise([field])
    assert normalised(columns_of(m=3), systematic=0.002).systematic == 0.002
    # A single epoch is its own baseline.
    assert normalised(columns_of(m=1)).factors[0] == pytest.approx(np.ones((25, 1)))


def test_field_without_references_is_left_out() -> None:
    assert normalise_field(columns_of(), options(reference_snr=1e6)) is None
    nothing = {name: column[:0] for name, column in columns_of().items()}
    assert normalise_field({**nothing, "ra": np.empty(0), "dec": np.empty(0)}, options()) is None
    assert "1 of 2 fields" in reasons(normalised(columns_of()), field_count=2)


def test_failed_calibration_is_reported_and_removed() -> None:
    columns = columns_of()
    columns["flux_forced"][columns["mjd"] > 61200] *= 0.06
    field = normalised(columns)
    assert "off by up to 9" in reasons(field)
    flux = field.curves.flux / field.factors[0]
    assert flux.std(axis=1) / flux.mean(axis=1) == pytest.approx(np.zeros(25), abs=0.1)


def test_metrics_are_those_of_the_field() -> None:
    field = normalised(columns_of())
    metrics = summarise([field])
    assert [metrics[name] for name in ("epochs", "sources", "references")] == [26, 25, 20]
    assert field.reference.sum() == 20
    assert metrics["factor_scatter"] == pytest.approx(0.05, abs=0.025)
    assert metrics["scatter_over_noise"] == pytest.approx(1.0, abs=0.15)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.2, 5))
def test_common_factor_changes_no_curve(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    flux = rng.uniform(50, 100, (8, 1)) * (1 + 0.01 * rng.normal(size=(8, 14)))
    k, ones = np.arange(8), np.ones((8, 14), np.int64)
    place = {"source": k.astype(str), "ra_deg": 38 + 0.1 * k, "dec_deg": 33 + 0.1 * k}
    fixed = {"epoch": np.arange(14), "mjd": 1.0 * ones, "noise": 0.5 * ones, "count": ones}
    quality = {"compactness": np.ones(8), "blend": np.ones(8, np.int64)}
    curves = LightCurves(flux=flux, **place, **fixed, **quality)
    scaled = flux.copy()
    scaled[:, 12] *= factor  # after the ten epochs of the baseline
    changed = replace(curves, flux=scaled)
    before, after = (stage.scale_field(c, k < 6, 0.0, gradient=False) for c in (curves, changed))
    assert scaled / after.factors[0] == pytest.approx(flux / before.factors[0], rel=1e-9)
