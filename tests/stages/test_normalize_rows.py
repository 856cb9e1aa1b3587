"""What normalize reads and writes, in the process: the query, fields, columns, warnings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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
from contimg_normalize.epochs import (
    UNPLACED,
    Measurements,
    describe_unplaced,
    find_photometry,
    measurements_of,
    read_photometry,
)
from contimg_normalize.options import STAGE, NormalizeOptions
from outside import outside_data
from photometry_tables import STATED, Normalized, World, normalize, steady_world


def options(root: Path | str = "t", **changed: Any) -> NormalizeOptions:
    return NormalizeOptions(tables=str(root), out="o", **({"strip": 33.0} | changed))


def photometry(mjd: float, strip: Any, flux: float = 100.0, **changed: Any) -> bytes:
    """The photometry of three sources, of one strip or of three."""
    columns: dict[str, Any] = {column.name: [None] * 3 for column in PHOTOMETRY.columns}
    constant = {"group": "g", "image": "k", "mjd": mjd, "beam": 1.0}
    constant |= {"flux_forced": flux, "local_rms": 0.5, "snr": flux / 0.5, "upper_limit": False}
    constant |= {"compactness": 1.01, "blend": 1} | STATED
    columns |= {name: [value] * 3 for name, value in constant.items()}
    columns["strip"] = strip if isinstance(strip, list) else [strip] * 3
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
    assert STAGE.key(options(tables, gradient="never"), STAGE.inputs(asked)) != before


def test_files_without_one_strip_are_named(tables: Path) -> None:
    write(tables, "2026-02-02", "e", photometry(61073.1, [None, 33.0, 33.0]))
    write(tables, "2026-02-03", "f", photometry(61074.1, [None] * 3))
    write(tables, "2026-02-04", "g", photometry(61075.1, [16.3, 16.3, 33.0]))
    found = find_photometry(options(tables))
    assert [Path(item.uri).stem for item in found] == list("acdefg")
    context = Context(str(tables / "artifact"), tables, found, {})
    assert read_photometry(context).flux.size == 9
    [reason] = describe_unplaced(context.named(UNPLACED))
    expected = "3 files do not state one strip for all of their rows and were left out (e.parquet"
    assert reason.startswith(expected)
    with pytest.raises(NoSourcesError, match=r"in the 1 files .* days; 1 files do not state one"):
        find_photometry(options(tables, first_day="2026-02-03", last_day="2026-02-03"))


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
    assert read_photometry(context).flux.size == 9
    write(tables, "2026-01-25", "a", photometry(61065.1, 33.0, flux=101.0))
    with pytest.raises(BadInputError, match=r"a\.parquet: The file was replaced.*Run the stage"):
        read_photometry(context)


def test_nulls_are_read_as_nan(tmp_path: Path) -> None:
    write(tmp_path, "2026-01-25", "a", photometry(61065.1, 33.0, compactness=[None, 1.0, 1.0]))
    found = read_photometry(resolve(tmp_path))
    assert np.isnan(found.compactness[0])
    assert found.names.tolist() == ["s00", "s01", "s02"]
    assert found.groups["group"].tolist() == ["g"]


def fluxes(field: Normalized, rows: Measurements, detection_snr: float = 5.0) -> pa.Table:
    columns = stage.flux_columns(field.field, field.curves, rows, detection_snr)
    return NORMALIZED.table(columns)


def frame(world: World, detection_snr: float = 5.0) -> pd.DataFrame:
    return fluxes(normalised(world), world.measurements(), detection_snr).to_pandas()


def normalised(world: World, **changed: Any) -> Normalized:
    (field,), _, _ = normalize(world, **changed)
    return field


def test_columns_fit_their_schemas() -> None:
    world = steady_world(25, 26)
    field = normalised(world)
    epochs = NORMALIZATION.table(stage.group_columns(field.field, 33.0)).to_pandas()
    rows = fluxes(field, world.measurements()).to_pandas()
    assert (len(epochs), len(rows)) == (26, 25 * 26)
    assert set(rows.field) == set(epochs.field) == {field.scale.cell.name}
    assert set(rows.epoch) == set(epochs.epoch)
    assert (rows.groups == 1).all()
    assert set(rows.status) == set(epochs.status) == {"good"}
    assert (epochs.references + epochs.clipped == field.scale.reference.size).all()


def test_flux_is_raw_over_factor() -> None:
    rows = frame(steady_world(25, 26))
    np.testing.assert_allclose(rows.flux, rows.flux_raw / rows.factor, rtol=1e-12)
    scale_error = rows.flux_raw * rows.factor_err / rows.factor**2
    error = np.hypot(rows.flux_raw_err / rows.factor, scale_error)
    np.testing.assert_allclose(rows.flux_err, error, rtol=1e-12)
    assert (rows.flux_raw_err >= rows.noise).all()
    # One factor an epoch for all but the references, which have their own.
    others = rows[~rows.reference].groupby("epoch").factor
    assert (others.max() - others.min()).max() < 1e-5
    assert rows[rows.reference].groupby("epoch").factor.nunique().max() > 1


def test_limits_are_marked_and_keep_their_flux() -> None:
    rows = frame(steady_world(25, 26), detection_snr=100.0)
    assert (rows.upper_limit == (rows.snr < 100)).all()
    assert 0 < rows.upper_limit.mean() < 1
    assert rows.flux.notna().all()


def test_rows_without_flux_or_error_are_left_out() -> None:
    world = steady_world(25, 26)
    world.flux[3, 5], world.noise[4, 6], world.noise[5, 7] = np.nan, 0.0, np.inf
    world.flux[6] *= -1  # negative fluxes are measurements
    rows = frame(world)
    assert len(rows) == 25 * 26 - 3
    assert (rows[rows.source == "s00006"].flux.mean()) < 0


def test_repeated_rows_count_once() -> None:
    tables = steady_world(25, 26).tables()
    once, twice = (measurements_of(t) for t in (tables, [pa.concat_tables([t, t]) for t in tables]))
    assert twice.flux.tolist() == once.flux.tolist()


def test_repeated_row_with_a_flux_counts() -> None:
    """Whichever row of a source has a flux is used, the first of several."""
    (table,) = steady_world(4, 1).tables()
    blank, other = (
        table.set_column(i, field, pa.array(values, field.type))
        for i, field in [(table.schema.get_field_index("flux_forced"), table.field("flux_forced"))]
        for values in ([None] * 4, [1.0] * 4)
    )
    rows = measurements_of([pa.concat_tables([blank, table, other])])
    assert rows.flux.tolist() == table["flux_forced"].to_pylist()
    assert rows.source.tolist() == [0, 1, 2, 3]


def test_epoch_without_references_has_nulls() -> None:
    world = steady_world(25, 26)
    world.present[1:, 25] = False
    field = normalised(world)
    table = NORMALIZATION.table(stage.group_columns(field.field, 33.0))
    assert (table["factor"].to_pylist()[-1], table["factor"].null_count) == (None, 1)
    assert table["status"].to_pylist()[-1] == "no scale"
    rows = fluxes(field, world.measurements()).to_pylist()
    (mine,) = (row for row in rows if row["epoch"] == int(field.scale.epoch[-1]))
    assert (mine["source"], mine["flux"], mine["factor"]) == ("s00000", None, None)


@pytest.mark.parametrize("spoil", [1e-9, 0.05])
def test_strip_without_references_has_no_field(spoil: float) -> None:
    world = steady_world(25, 26)
    world.flux *= spoil
    options = NormalizeOptions(tables="t", out="o", strip=33.0)
    rows, _, _ = stage.comparable_rows(world.measurements(), options)
    assert stage.normalise_strip(rows, options) == ([], 1)


BLANK = (
    r"In 20 of 26 groups fewer than 3 sources have an S/N of 20: most images are blank, or not "
    r"calibrated \(g0000, g0001, g0002, g0003, g0004 and 15 more\).*leave out their days"
)
FAINT = r"No field has 3 stable .*highest median S/N are .*Lower --reference-snr"


@pytest.mark.parametrize(("blank", "expected"), [(20, BLANK), (26, FAINT)])
def test_strip_of_blank_images_is_told_from_a_faint_one(blank: int, expected: str) -> None:
    world = steady_world(25, 26)
    world.flux[:, :blank] = 0.0
    rows = world.measurements()
    assert stage.normalise_strip(rows, options()) == ([], 1)
    assert re.search(expected, str(stage.explain_no_field(rows, options())))


def test_failed_calibration_is_marked() -> None:
    world = steady_world(25, 26, common=0.05)
    world.flux[:, 20:23] *= 0.06
    fields, reasons, _ = normalize(world)
    assert fields[0].scale.whole.status[20:23].tolist() == ["bad epoch"] * 3
    assert "g0021 (scale 0.06" in "".join(reasons)


def test_setup_that_does_not_exist_is_refused() -> None:
    options = NormalizeOptions(tables="t", out="o", strip=33.0, setup=1)
    with pytest.raises(NoSourcesError, match="no setup 1: 1 were found"):
        stage.comparable_rows(steady_world(5, 2).measurements(), options)


def test_metrics_are_those_of_the_field() -> None:
    fields, _, metrics = normalize(steady_world(40, 60, snr=(60, 400), common=0.05))
    assert [metrics[name] for name in ("epochs", "sources", "references")] == [60, 40, 20]
    assert fields[0].scale.reference.size == 20
    assert metrics["factor_scatter"] == pytest.approx(0.05, abs=0.02)
    assert metrics["scatter_over_noise"] == pytest.approx(1.0, abs=0.15)
    assert [part["snr_min"] for part in metrics["scatter_classes"]] == [30.0, 100.0]


def published_world(epochs: int) -> World:
    """Four VAST images in turn, each with its sources' fitted peak fluxes and local rms (mJy)."""
    table: dict[str, list[list[float]]] = {}
    for epoch in range(1, 5):
        path = outside_data("vast_basic") / f"data/epoch{epoch:02d}.selavy.components.txt"
        lines = path.read_text().splitlines()
        names = lines[0].lstrip("# ").split()
        for line in lines[2:]:
            row = dict(zip(names, line.split(), strict=False))
            place = f"{float(row['ra_deg_cont']):.3f} {float(row['dec_deg_cont']):.3f}"
            found = [float(row["flux_peak"]), float(row["rms_image"])]
            table.setdefault(place, []).append([epoch - 1, *found])
    places = np.array([[float(x) for x in place.split()] for place in table])
    world = steady_world(len(table), epochs)
    world.ra, world.dec = places[:, 0], places[:, 1]
    world.present[:] = False
    for k, rows in enumerate(table.values()):
        for epoch, flux, rms in rows:
            mine = np.arange(int(epoch), epochs, 4)
            world.flux[k, mine], world.noise[k, mine] = flux, rms
            world.present[k, mine] = True
    return world


def test_published_fluxes_keep_their_scale_beside_bad_epochs() -> None:
    """VAST's images are of one flux scale; a blank one, one × 0.06 and a copy do not change it."""
    world = published_world(16)
    shown = {"strip": -30.0, "reference_snr": 20.0}
    (before,), _, _ = normalize(replace(world, rng=np.random.default_rng(1)), **shown)
    world.flux[:, 5], world.flux[:, 10] = 0.0, 0.06 * world.flux[:, 10]
    world.mjd[15] = world.mjd[14] + 20 / 86400
    world.present[:, 15] = world.present[:, 14]
    (after,), reasons, metrics = normalize(replace(world, rng=np.random.default_rng(1)), **shown)
    assert (metrics["bad_groups"], metrics["duplicates"]) == (2, 1)
    assert any("g0005" in text and "g0010" in text for text in reasons)
    for field in (before, after):
        usable = field.scale.whole.usable
        error = np.sqrt(field.scale.whole.covariance[usable, 0, 0])
        assert np.abs(field.scale.whole.plane[usable, 0] - 1).max() < 5 * error.max()


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31), st.floats(0.6, 1.6))
def test_common_factor_changes_no_curve(seed: int, factor: float) -> None:
    world = steady_world(8, 14, seed=seed, snr=(100, 200))
    before = normalised(replace(world, rng=np.random.default_rng(1))).curves
    world.flux[:, 12] *= factor  # after the ten epochs that fix the scale
    world.noise[:, 12] *= factor
    after = normalised(replace(world, rng=np.random.default_rng(1))).curves
    assert after.flux == pytest.approx(before.flux, rel=1e-6)
