"""What normalize reads and writes, in the process: the query, fields, rows, doubts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg_normalize.epochs import LightCurves
from contimg_normalize.inputs import photometry_objects, read_photometry
from contimg_normalize.options import STAGE, NormalizeOptions
from contimg_normalize.stage import (
    COLUMNS,
    Field,
    as_arrays,
    bright_scatter,
    epoch_rows,
    field_scale,
    flux_rows,
    judge,
    normalise_field,
    summarise,
)

SIDEREAL = 0.9972695663


def options(root: Path | str = "t", **changed: Any) -> NormalizeOptions:
    return NormalizeOptions(tables=str(root), out="o", **({"strip": 33.0} | changed))


def photometry(mjd: float, strip: float, n: int = 3, ra: float = 38.0, flux: Any = 100.0) -> bytes:
    columns: dict[str, Any] = {column.name: [None] * n for column in PHOTOMETRY.columns}
    fluxes = np.broadcast_to(flux, n)
    columns |= {
        "source": [f"s{k:02d}" for k in range(n)],
        "ra": ra + 0.1 * np.arange(n),
        "dec": 33 + 0.05 * np.arange(n),
        "group": ["g"] * n,
        "image": ["k"] * n,
        "mjd": [mjd] * n,
        "strip": [strip] * n,
        "beam": [1.0] * n,
        "flux_forced": fluxes,
        "local_rms": [0.5] * n,
        "snr": fluxes / 0.5,
        "upper_limit": [False] * n,
        "compactness": [1.01] * n,
        "blend": [1] * n,
    }
    return PHOTOMETRY.to_bytes(columns)


def write(root: Path, day: str, unit: str, content: bytes) -> Path:
    path = root / f"photometry/date={day}/{unit}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write(tmp_path, "2026-01-25", "a", photometry(61065.1, 33.0))
    write(tmp_path, "2026-01-25", "b", photometry(61065.5, 54.6))
    write(tmp_path, "2026-01-26", "c", photometry(61066.1, 33.2))
    write(tmp_path, "2026-02-01", "d", photometry(61072.1, 32.9))
    (tmp_path / "normalized/date=2026-01-25").mkdir(parents=True)
    (tmp_path / "normalized/date=2026-01-25/x.parquet").write_bytes(b"another table")
    return tmp_path


def units(found: list[Any]) -> list[str]:
    return [item.uri.rpartition("/")[2].removesuffix(".parquet") for item in found]


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
def test_the_query_finds_the_strip_and_the_days(
    tables: Path, asked: dict[str, Any], expected: str
) -> None:
    found = photometry_objects(options(tables, **asked))
    assert units(found) == list(expected)
    assert {item.name for item in found} == {"photometry"}


def test_what_was_found_is_in_the_key(tables: Path) -> None:
    asked = options(tables)
    before = STAGE.key(asked, STAGE.inputs(asked))
    assert STAGE.key(asked, STAGE.inputs(asked)) == before
    assert (
        STAGE.key(options(f"file://{tables}"), STAGE.inputs(options(f"file://{tables}"))) == before
    )  # the place does not matter
    write(tables, "2026-02-02", "e", photometry(61073.1, 33.0))
    assert STAGE.key(asked, STAGE.inputs(asked)) != before
    assert STAGE.key(options(tables, gradient=True), STAGE.inputs(asked)) != before


@pytest.mark.parametrize(
    ("asked", "count"), [({"strip": 16.3}, 4), ({"first_day": "2027-01-01"}, 0)]
)
def test_an_empty_query_says_what_was_looked_at(
    tables: Path, asked: dict[str, Any], count: int
) -> None:
    with pytest.raises(NoSourcesError, match=f"none in {count} files"):
        photometry_objects(options(tables, **asked))


@pytest.mark.parametrize("day", ["25.1.2026", "2026-1-25", "yesterday"])
def test_a_day_is_written_as_iso(day: str) -> None:
    with pytest.raises(ValidationError):
        options(first_day=day)


def test_a_file_that_changed_meanwhile_is_noticed(tables: Path, tmp_path: Path) -> None:
    found = photometry_objects(options(tables))
    context = Context(str(tmp_path / "artifact"), tmp_path, found, {})
    assert read_photometry(context).num_rows == 9
    write(tables, "2026-01-25", "a", photometry(61065.1, 33.0, flux=101.0))
    with pytest.raises(BadInputError, match=r"a\.parquet.*run again"):
        read_photometry(context)


def columns_of(
    n: int = 25, m: int = 26, *, seed: int = 0, slope: float = 0.0
) -> dict[str, np.ndarray]:
    """Photometry of one field: n sources of 50 to 250 mJy with 0.5 mJy of noise, a common 5 %, and a slope over the field."""
    rng = np.random.default_rng(seed)
    common, tilt, flux = (
        1 + 0.05 * rng.normal(size=m),
        slope * rng.normal(size=m),
        rng.uniform(50, 250, n),
    )
    i, e = (part.ravel() for part in np.meshgrid(np.arange(n), np.arange(m), indexing="ij"))
    ra, dec = 37 + 3 * rng.uniform(size=n), 32 + 2 * rng.uniform(size=n)
    east = (ra - 38.5) * np.cos(np.radians(33))
    found = flux[i] * common[e] * (1 + tilt[e] * east[i]) + 0.5 * rng.normal(size=i.size)
    return {
        "source": np.array([f"s{k:02d}" for k in i]),
        "ra": ra[i],
        "dec": dec[i],
        "mjd": 61065.1 + 6 * SIDEREAL * e,
        "flux_forced": found,
        "local_rms": np.full(i.size, 0.5),
        "compactness": np.ones(i.size),
        "blend": np.ones(i.size, int),
    }


def field(**changed: Any) -> Field:
    made = normalise_field(columns_of(**changed), options())
    assert made is not None
    return made


def test_columns_become_arrays_with_nan_for_null() -> None:
    table = PHOTOMETRY.read(photometry(61065.1, 33.0), "here")
    arrays = as_arrays(
        table.set_column(table.column_names.index("compactness"), "compactness", [[None, 1.0, 1.0]])
    )
    assert set(arrays) == set(COLUMNS)
    assert np.isnan(arrays["compactness"][0])
    assert arrays["source"].tolist() == ["s00", "s01", "s02"]


def test_rows_fit_their_schemas() -> None:
    made = field()
    epochs = NORMALIZATION.rows(epoch_rows(made, 33.0))
    rows = NORMALIZED.rows(flux_rows(made, 5.0))
    assert (epochs.num_rows, rows.num_rows) == (26, 25 * 26)
    assert set(rows["field"].to_pylist()) == set(epochs["field"].to_pylist()) == {made.name}
    assert set(rows["epoch"].to_pylist()) == set(epochs["epoch"].to_pylist())
    assert rows["groups"].to_pylist() == [1] * 650
    used = np.array(epochs["references"].to_pylist()) + np.array(epochs["clipped"].to_pylist())
    assert (used == made.reference.sum()).all()


def test_flux_is_raw_over_factor_and_its_error_follows() -> None:
    rows = NORMALIZED.rows(flux_rows(field(), 5.0)).to_pandas()
    assert rows.flux.to_numpy() == pytest.approx(
        (rows.flux_raw / rows.factor).to_numpy(), rel=1e-12
    )
    expected = np.hypot(
        rows.flux_raw_err / rows.factor, rows.flux_raw * rows.factor_err / rows.factor**2
    )
    assert rows.flux_err.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-12)
    assert (rows.flux_raw_err >= rows.noise).all()
    others = rows[~rows.reference].groupby("epoch").factor.nunique()
    assert (
        others == 1
    ).all()  # one factor an epoch for all but the references, which have their own
    assert rows[rows.reference].groupby("epoch").factor.nunique().max() > 1


def test_limits_are_marked_and_keep_their_flux() -> None:
    rows = NORMALIZED.rows(flux_rows(field(), 200.0)).to_pandas()
    assert (rows.upper_limit == (rows.snr < 200)).all()
    assert 0 < rows.upper_limit.mean() < 1
    assert rows.flux.notna().all()


def test_an_epoch_without_references_has_no_factor_and_no_normalised_flux() -> None:
    columns = columns_of()
    last = columns["mjd"] == columns["mjd"].max()
    keep = ~last | (columns["source"] == "s03")
    made = normalise_field({name: column[keep] for name, column in columns.items()}, options())
    assert made is not None
    assert epoch_rows(made, 33.0)[-1]["factor"] is None
    mine = [row for row in flux_rows(made, 5.0) if row["epoch"] == int(made.curves.epoch[-1])]
    assert [(row["source"], row["flux"], row["factor"]) for row in mine] == [("s03", None, None)]
    assert NORMALIZATION.rows(epoch_rows(made, 33.0))["factor"].null_count == 1
    assert any("too few references" in reason for reason in judge([made], 1, options()).reasons)


def test_a_gradient_takes_out_what_a_factor_cannot() -> None:
    columns = columns_of(slope=0.02, seed=3)
    plain = normalise_field(columns, options())
    tilted = normalise_field(columns, options(gradient=True))
    assert plain is not None
    assert tilted is not None
    # The slope of 2 % a degree over 2.5 degrees is 1.4 % rms; what is left is noise, 0.5 mJy of 150, and the plane's error.
    spread = [
        np.std(f.curves.flux / f.factor, axis=1, ddof=1) / np.mean(f.curves.flux / f.factor, axis=1)
        for f in (plain, tilted)
    ]
    assert np.median(spread[1]) < 0.5 * np.median(spread[0])
    assert np.median(spread[1]) < 0.006


def test_few_epochs_assume_a_systematic_term_and_say_so() -> None:
    made = field(m=3)
    assert made.systematic == 0.01
    assert any("too few epochs" in reason for reason in judge([made], 1, options()).reasons)
    assert bright_scatter(made)[0].size == 0
    assert "scatter_median" not in summarise([made])
    assert normalise_field(columns_of(m=3), options(systematic=0.002)).systematic == 0.002  # type: ignore[union-attr]


def test_one_epoch_is_a_scale_too() -> None:
    made = field(m=1)
    assert made.factor == pytest.approx(np.ones((25, 1)))  # it is its own baseline


def test_a_field_without_references_is_left_out_and_said() -> None:
    assert normalise_field(columns_of(), options(reference_snr=1e6)) is None
    nothing = {name: column[:0] for name, column in columns_of().items()}
    assert normalise_field({**nothing, "ra": np.empty(0), "dec": np.empty(0)}, options()) is None
    assert any("1 of 2 fields" in reason for reason in judge([field()], 2, options()).reasons)


def test_a_calibration_that_failed_is_said() -> None:
    columns = columns_of()
    columns["flux_forced"][columns["mjd"] > 61200] *= 0.06
    made = normalise_field(columns, options())
    assert made is not None
    assert any("off by up to 9" in reason for reason in judge([made], 1, options()).reasons)
    flux = made.curves.flux / made.factor
    assert flux.std(axis=1) / flux.mean(axis=1) == pytest.approx(
        np.zeros(25), abs=0.1
    )  # and taken out all the same


def test_metrics_are_those_of_the_field() -> None:
    made = field()
    metrics = summarise([made])
    assert metrics["epochs"] == 26
    assert metrics["sources"] == 25
    assert metrics["references"] == made.reference.sum() == 20
    assert metrics["factor_scatter"] == pytest.approx(0.05, abs=0.025)
    assert metrics["scatter_over_noise"] == pytest.approx(1.0, abs=0.15)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.2, 5))
def test_a_common_factor_changes_no_normalised_light_curve(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    flux = rng.uniform(50, 100, (8, 1)) * (1 + 0.01 * rng.normal(size=(8, 14)))
    curves = LightCurves(
        np.array([f"s{k}" for k in range(8)]),
        38 + 0.1 * np.arange(8),
        33 + 0.1 * np.arange(8),
        np.arange(14),
        np.ones((8, 14)),
        flux,
        np.full((8, 14), 0.5),
        np.ones((8, 14), np.int64),
        np.ones(8),
        np.ones(8, np.int64),
    )
    _, before, _ = field_scale(curves, np.arange(8) < 6, gradient=False)
    scaled = flux.copy()
    scaled[:, 12] *= factor  # after the ten epochs of the baseline
    object.__setattr__(curves, "flux", scaled)
    _, after, _ = field_scale(curves, np.arange(8) < 6, gradient=False)
    assert scaled / after == pytest.approx(flux / before, rel=1e-9)
