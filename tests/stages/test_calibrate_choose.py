"""Which set is taken: the ranking as a pure function, and the resolver on a store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime.errors import BadInputError, MissingError, NoCalibrationError, UsageError
from contimg.runtime.stage import StageSpec
from contimg_calibrate.options import STAGE, CalibrateOptions
from contimg_calibrate.selection import (
    SetRow,
    Target,
    find_calibrator,
    is_same_date,
    rank_sets,
    read_target,
    resolve,
)
from observed import write_artifact

if TYPE_CHECKING:
    from pathlib import Path

MJD = 61065.0922
FIELD = Target("20260125t021221", MJD - 0.002, MJD + 0.002, 33.0, 37.234, -118.283, 1188.0)
"""The field east of 3C48, an hour later: no calibrator of 5 Jy in the beam."""
TRANSIT = replace(FIELD, name="20260125t011431", mjd_start=61065.0500, mjd_end=61065.0540)
"""3C48 is in the beam."""
METRICS = {
    "group": FIELD.name,
    "mjd_start": FIELD.mjd_start,
    "mjd_end": FIELD.mjd_end,
    "pointing_dec_deg": 33.0,
    "lat_deg": 37.234,
    "lon_deg": -118.283,
    "height_m": 1188.0,
}


def options(**chosen: Any) -> CalibrateOptions:
    return CalibrateOptions(**{"ms": "somewhere", "out": "out", **chosen})


def row(
    name: str = "a", days: float = 0.04, dec: float = 33.0, anchor: str = "standard", **changes: Any
) -> SetRow:
    mjd = MJD + days
    made = SetRow(
        name,
        name,
        mjd,
        mjd - 0.5,
        mjd + 0.5,
        dec,
        "3C48",
        anchor,
        15.0,
        "PRIMARY_TRANSIT_GENERATED",
        "d",
    )  # type: ignore[arg-type]
    return replace(made, **changes)


def names(rows: list[SetRow], **chosen: Any) -> list[str]:
    return [found.artifact for found in rank_sets(rows, FIELD, options(**chosen))]


class TestLadder:
    def test_rungs_come_in_order(self) -> None:
        rows = [
            row("borrowed bright", -3, anchor="catalogue"),
            row("borrowed", -20),
            row("date bright", -0.4, anchor="catalogue"),
            row("date", 0.45),
            row("transit bright", -0.04, anchor="catalogue"),
            row("transit", -0.05),
        ]
        assert names(rows) == [
            "transit",
            "transit bright",
            "date",
            "date bright",
            "borrowed",
            "borrowed bright",
        ]

    def test_the_nearest_in_time_is_first_either_way(self) -> None:
        assert names([row("later", 3), row("before", -2), row("after", 2.5)]) == [
            "before",
            "after",
            "later",
        ]

    @pytest.mark.parametrize("days", [-0.45, 0.45])
    def test_windows_reach_both_ways(self, days: float) -> None:
        found = row(days=days)
        assert is_same_date(MJD, found.mjd, found.valid_from, found.valid_to)
        assert names([row(days=days)], borrow_days=1e-3) == ["a"]

    @pytest.mark.parametrize(
        ("days", "found"), [(29.9, True), (-29.9, True), (30.1, False), (-30.1, False)]
    )
    def test_sets_are_borrowed_within_thirty_days(self, days: float, found: bool) -> None:  # noqa: FBT001
        assert bool(names([row(days=days)])) is found

    @pytest.mark.parametrize(
        ("dec", "found"), [(37.9, True), (28.1, True), (38.1, False), (16.3, False)]
    )
    @pytest.mark.parametrize("days", [0.01, -7.0])
    def test_no_set_crosses_strips(self, dec: float, found: bool, days: float) -> None:  # noqa: FBT001
        assert bool(names([row(days=days, dec=dec)])) is found

    @given(
        st.permutations(
            [
                row("a", 1),
                row("b", -1),
                row("c", 0.01),
                row("d", 5, anchor="catalogue"),
                row("e", 0.01),
            ]
        )
    )
    def test_the_order_of_rows_does_not_matter(self, rows: list[SetRow]) -> None:
        assert names(rows) == ["c", "e", "a", "b", "d"] or names(rows) == names(
            sorted(rows, key=lambda r: r.artifact)
        )


class TestCalibrator:
    def test_three_c_48_is_solved_on(self) -> None:
        found = find_calibrator(options(), TRANSIT)
        assert found is not None
        assert found.name == "3C48"
        assert found.is_standard

    def test_a_field_without_one_is_not(self) -> None:
        assert find_calibrator(options(), FIELD) is None

    def test_thresholds_are_of_the_apparent_flux(self) -> None:
        assert find_calibrator(options(min_primary_jy=15.0), TRANSIT) is not None
        assert find_calibrator(options(min_primary_jy=17.0), TRANSIT) is None
        assert find_calibrator(options(solve="never"), TRANSIT) is None

    def test_it_can_be_named(self) -> None:
        for name in ("3C48", "J0137+3309", "24.4221,33.1598"):
            found = find_calibrator(options(calibrator=name), TRANSIT)
            assert found is not None
            assert found.name == "3C48"

    def test_one_outside_the_beam_is_refused(self) -> None:
        with pytest.raises(NoCalibrationError, match=r"no calibrator 3C286 in the beam.*3C48"):
            find_calibrator(options(calibrator="3C286"), TRANSIT)

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(UsageError, match="neither a known calibrator"):
            find_calibrator(options(calibrator="Vega"), TRANSIT)


def registered(store: Path, *rows: SetRow) -> list[CalibrateOptions]:
    """Write a convert artifact of the field, the sets and the registry; return the options that name them."""
    write_artifact(store / "products/field/convert/00", "convert", METRICS, {"ms.tar": b"x"})
    for item in rows:
        made = write_artifact(
            store / item.artifact, "calibrate", {}, {"calibration.json": item.artifact.encode()}
        )
        values = {name: getattr(item, name) for name in SetRow.__dataclass_fields__} | {
            "flag_fraction": 0.0
        }
        values["digest"] = made.digest if item.digest == "d" else item.digest
        day = store / "tables" / "caltables" / f"date=2026-01-{25 + round(item.mjd - MJD):02d}"
        day.mkdir(parents=True, exist_ok=True)
        (day / f"{item.artifact}.parquet").write_bytes(CALTABLES.to_bytes(CALTABLES.rows([values])))
    return [options(ms=str(store / "products/field/convert/00"), store=str(store))]


class TestResolver:
    def test_the_best_sets_become_inputs_with_digests(self, tmp_path: Path) -> None:
        [chosen] = registered(
            tmp_path, row("far", -3), row("near", 0.04), row("farther", -4), row("farthest", -5)
        )
        found = resolve(chosen)
        assert [item.uri.rpartition("/")[2] for item in found] == ["near", "far", "farther"]
        assert all(len(item.digest) == 64 for item in found)

    def test_a_new_set_changes_the_key(self, tmp_path: Path) -> None:
        [chosen] = registered(tmp_path, row("far", -3))
        before = STAGE.key(chosen, STAGE.inputs(chosen))
        registered(tmp_path, row("near", 0.04))
        assert STAGE.key(chosen, STAGE.inputs(chosen)) != before

    def test_the_place_of_the_store_is_not_in_the_key(self, tmp_path: Path) -> None:
        keys = []
        for place in ("one", "two"):
            [chosen] = registered(tmp_path / place, row("far", -3))
            keys.append(STAGE.key(chosen, STAGE.inputs(chosen)))
        assert keys[0] == keys[1]

    def test_sets_that_are_gone_or_replaced_are_passed_over(self, tmp_path: Path) -> None:
        [chosen] = registered(
            tmp_path, row("gone", 0.01), row("replaced", 0.02, digest="0" * 64), row("good", -3)
        )
        (tmp_path / "gone" / "manifest.json").unlink()
        assert [item.uri.rpartition("/")[2] for item in resolve(chosen)] == ["good"]

    def test_nothing_at_all_says_what_was_looked_for(self, tmp_path: Path) -> None:
        [chosen] = registered(tmp_path, row("other strip", -3, dec=54.6))
        with pytest.raises(NoCalibrationError) as caught:
            resolve(chosen)
        words = str(caught.value)
        for part in (
            FIELD.name,
            "2 Jy",
            "5 Jy",
            "30 d",
            "MJD 61065.092",
            "5 deg",
            str(tmp_path),
            "NO_VIABLE_TABLE",
        ):
            assert part in words
        assert caught.value.exit == 15

    def test_no_store_is_no_set(self, tmp_path: Path) -> None:
        [chosen] = registered(tmp_path)
        with pytest.raises(NoCalibrationError, match="not given"):
            resolve(chosen.model_copy(update={"store": None}))

    def test_other_artifacts_are_refused(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "flag", "flag", {}, {"flags.bin": b"x"})
        with pytest.raises(BadInputError, match="not a convert artifact"):
            read_target(str(tmp_path / "flag"))
        with pytest.raises(MissingError, match="no Measurement Set"):
            resolve(CalibrateOptions(plain_ms=str(tmp_path), out="x"))


class TestOptions:
    @pytest.mark.parametrize(
        "chosen",
        [
            {},
            {"ms": "a", "plain_ms": "b"},
            {"ms": "a", "model_source": "file"},
            {"ms": "a", "model_file": "m"},
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, chosen: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            CalibrateOptions(out="x", **chosen)

    def test_the_stage_is_light(self) -> None:
        assert isinstance(STAGE, StageSpec)
