"""The demo's verdict: the hidden source is found, nothing else is, and failures are reported."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from commands import run_here
from contimg.records.schemas.variability import ESE_CANDIDATES
from contimg.runtime.command import commands
from contimg.runtime.contract import run_command
from contimg.runtime.errors import ChildFailedError, Exit
from contimg.runtime.options import choices
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import open_store
from contimg_simulate import sky
from contimg_simulate.options import SimulateOptions
from contimg_workflows.commands import DEMO
from contimg_workflows.demo import SAME_DEG, SETTINGS, candidates, judge, run_program
from contimg_workflows.options import DemoOptions

ARCMIN = 1 / 60


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    """The sources that the simulator varies in its demo, and a steady one beside each."""
    options = SimulateOptions(out="o", incoming="i", campaign="demo")
    made = [source.model_dump(mode="json") for source in sky.demo_variables(options)]
    steady = []
    for one in made:
        changes = {"name": f"{one['name']}-beside", "dec_deg": one["dec_deg"] + 5 * ARCMIN}
        steady.append({**one, **changes, "curve": {"kind": "steady"}})
    return {"sources": [*made, *steady]}


def kind(truth: dict[str, Any], name: str) -> dict[str, Any]:
    return dict(next(one for one in truth["sources"] if one["curve"]["kind"] == name))


def row(source: dict[str, Any], name: str = "DSA J0", **changes: float) -> dict[str, Any]:
    return {"source": name, "ra": source["ra_deg"], "dec": source["dec_deg"]} | changes


def hidden(ra: float, dec: float, name: str = "lensed") -> dict[str, Any]:
    return {"name": name, "ra_deg": ra, "dec_deg": dec, "curve": {"kind": "lens"}}


class TestJudge:
    @pytest.mark.parametrize(
        ("rows", "false"),
        [
            (["lens"], []),
            ([], []),
            (["lens", "flare"], ["DSA flare"]),
            (["lens", "steady"], ["DSA steady"]),
        ],
    )
    def test_only_hidden_lens_is_right(
        self, truth: dict[str, Any], rows: list[str], false: list[str]
    ) -> None:
        verdict = judge(truth, [row(kind(truth, name), f"DSA {name}") for name in rows])
        found = [kind(truth, "lens")["name"]] if rows else []
        words = f"{len(found)} of 1 hidden scattering events found, {len(false)} false candidates"
        right = rows == ["lens"]
        assert verdict == {"right": right, "found": found, "false": false, "words": words}

    def test_two_rows_of_source_are_one_event(self, truth: dict[str, Any]) -> None:
        lens = kind(truth, "lens")
        assert judge(truth, [row(lens), row(lens)])["found"] == [lens["name"]]

    def test_every_lens_must_be_found(self) -> None:
        both = {"sources": [hidden(10, 33, "a"), hidden(11, 33, "b")]}
        verdict = judge(both, [row(both["sources"][1])])
        assert (verdict["right"], verdict["found"]) == (False, ["b"])

    def test_any_candidate_without_hidden_source_is_wrong(self) -> None:
        assert judge({"sources": []}, [])["right"]
        assert not judge({"sources": []}, [{"source": "x", "ra": 1.0, "dec": 2.0}])["right"]

    @pytest.mark.parametrize("dec", [0.0, 33.0, -45.0, 85.0])
    @pytest.mark.parametrize(("part", "same"), [(0.98, True), (1.02, False)])
    def test_match_radius_is_half_a_beam(self, dec: float, part: float, *, same: bool) -> None:
        import numpy as np

        one = {"sources": [hidden(100.0, dec)]}
        step = part * SAME_DEG
        east = {"ra": 100.0 + step / float(np.cos(np.radians(dec)))}
        north = {"dec": dec + step}
        for there in (east, north):
            assert judge(one, [row(one["sources"][0], **there)])["right"] is same

    @pytest.mark.parametrize(
        ("there", "here"), [(359.9999, 0.0001), (0.0001, 359.9999), (360.0, 0.0)]
    )
    def test_match_wraps_right_ascension(self, there: float, here: float) -> None:
        found = [{"source": "x", "ra": here, "dec": 33.0}]
        assert judge({"sources": [hidden(there, 33.0)]}, found)["right"]


class TestCandidates:
    def rows(self, ra: float, name: str) -> dict[str, Any]:
        columns = [one.name for one in ESE_CANDIDATES.columns if str(one.type) == "double"]
        numbers = dict.fromkeys(columns, 1.0)
        return numbers | {"source": name, "field": "f", "n_epochs": 26, "ra": ra, "dec": 33.0}

    def test_rows_of_all_units_are_read(self, tmp_path: Path) -> None:
        store = open_store(str(tmp_path))
        for day, unit, ra in (("2026-05-01", "dec-p33.0", 38.9), ("2026-06-01", "dec-p16.0", 12.0)):
            data = ESE_CANDIDATES.to_bytes(ESE_CANDIDATES.rows([self.rows(ra, f"DSA {ra}")]))
            store.put(f"tables/{ESE_CANDIDATES.name}/date={day}/{unit}.parquet", data)
        found = candidates(tmp_path)
        read = [(item["source"], item["ra"]) for item in found]
        assert read == [("DSA 38.9", 38.9), ("DSA 12.0", 12.0)]
        assert judge({"sources": [hidden(38.9, 33.0), hidden(12.0, 33.0)]}, found)["right"]

    def test_empty_or_missing_table_has_no_rows(self, tmp_path: Path) -> None:
        assert candidates(tmp_path) == []
        empty = ESE_CANDIDATES.to_bytes(ESE_CANDIDATES.rows([]))
        open_store(str(tmp_path)).put("tables/ese_candidates/date=2026-05-01/a.parquet", empty)
        assert candidates(tmp_path) == []


class TestRunProgram:
    def test_summary_is_returned(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "store").mkdir()
        said = run_program(["contimg-watch", "--store", str(tmp_path / "store")], os.environ)
        out, err = capfd.readouterr()
        assert out == ""
        assert isinstance(said, dict)
        assert all(json.loads(line)["stage"] == "watch" for line in err.splitlines())

    def test_failure_names_program_and_code(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a").mkdir()
        argv = ["contimg-flag", "--ms", str(tmp_path / "a"), "--out", str(tmp_path / "o")]
        with pytest.raises(ChildFailedError, match=r"contimg-flag --ms .*: exit code 25"):
            run_program(argv, os.environ)
        assert "There is no artifact here" in json.loads(capfd.readouterr().err)["message"]

    def test_wrong_command_line_fails(self) -> None:
        with pytest.raises(ChildFailedError, match="exit code 2"):
            run_program(["contimg", "run", "everything"], os.environ)


def test_failed_simulation_ends_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    demo = partial(run_command, DEMO)
    assert run_here(demo, "--folder", str(tmp_path), "--epochs", "0") == Exit.CHILD_FAILED
    out, err = capfd.readouterr()
    assert out == ""
    assert "--epochs" in err, "the simulator's message"
    assert not list(tmp_path.rglob("*.hdf5"))


def test_settings_are_valid_options() -> None:
    for setting in SETTINGS:
        stage, _, rest = setting.partition(".")
        name, _, value = rest.partition("=")
        words = choices((stage_specs() | commands())[stage].options.model_fields[name])
        assert words is None or value in words


def test_epochs_suffice_for_verdict() -> None:
    from contimg_variability.options import VariabilityOptions

    assert DemoOptions().epochs > VariabilityOptions.model_fields["min_epochs"].default
    assert DemoOptions().epochs == SimulateOptions.model_fields["epochs"].default
