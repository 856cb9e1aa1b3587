"""The demo's verdict: what was hidden is found, nothing else is, and who fails says so."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contimg.records.schemas.variability import ESE_CANDIDATES
from contimg.runtime.command import commands
from contimg.runtime.contract import run_command
from contimg.runtime.errors import ChildFailedError, Exit
from contimg.runtime.options import choices
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import open_store
from contimg_simulate import sky
from contimg_simulate.options import SimulateOptions
from contimg_workflows import demo
from contimg_workflows.commands import DEMO
from contimg_workflows.demo import SAME_DEG, SETTINGS, candidates, judge
from contimg_workflows.options import DemoOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCMIN = 1 / 60


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    """Give the sources that the real simulator varies in its demo, as its truth.json lists them,
    and steady ones beside."""
    options = SimulateOptions(out="o", incoming="i", campaign="demo")
    made = [source.model_dump(mode="json") for source in sky.demo_variables(options)]
    steady = [
        source | {"name": f"{source['name']}-beside", "curve": {"kind": "steady"}}
        for source in made
    ]
    return {
        "sources": [
            *made,
            *(source | {"dec_deg": source["dec_deg"] + 5 * ARCMIN} for source in steady),
        ]
    }


def kind(truth: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [source for source in truth["sources"] if source["curve"]["kind"] == name]
    return dict(found)


def row(source: dict[str, Any], name: str = "DSA J0", **changes: float) -> dict[str, Any]:
    return {"source": name, "ra": source["ra_deg"], "dec": source["dec_deg"]} | changes


def hidden(ra: float, dec: float, name: str = "lensed") -> dict[str, Any]:
    return {"name": name, "ra_deg": ra, "dec_deg": dec, "curve": {"kind": "lens"}}


class TestJudge:
    def test_the_lens_alone_is_right(self, truth: dict[str, Any]) -> None:
        lens = kind(truth, "lens")
        verdict = judge(truth, [row(lens)])
        assert verdict == {
            "right": True,
            "found": [lens["name"]],
            "false": [],
            "words": "1 of 1 hidden scattering events found, 0 false candidates",
        }

    def test_nothing_is_not_enough(self, truth: dict[str, Any]) -> None:
        verdict = judge(truth, [])
        assert not verdict["right"]
        assert verdict["words"] == "0 of 1 hidden scattering events found, 0 false candidates"

    @pytest.mark.parametrize("what", ["flare", "steady"])
    def test_anything_else_is_a_false_alarm_even_beside_the_lens(
        self, truth: dict[str, Any], what: str
    ) -> None:
        other = next(source for source in truth["sources"] if source["curve"]["kind"] == what)
        verdict = judge(truth, [row(kind(truth, "lens")), row(other, "DSA J1")])
        assert not verdict["right"]
        assert verdict["false"] == ["DSA J1"]
        assert verdict["words"] == "1 of 1 hidden scattering events found, 1 false candidates"

    def test_two_rows_of_one_source_are_one_event(self, truth: dict[str, Any]) -> None:
        lens = kind(truth, "lens")
        assert judge(truth, [row(lens), row(lens)])["found"] == [lens["name"]]

    def test_every_lens_must_be_found(self) -> None:
        both = {"sources": [hidden(10, 33, "a"), hidden(11, 33, "b")]}
        verdict = judge(both, [row(both["sources"][1])])
        assert (verdict["right"], verdict["found"]) == (False, ["b"])

    def test_where_nothing_is_hidden_nothing_may_be_found(self) -> None:
        assert judge({"sources": []}, [])["right"]
        assert not judge({"sources": []}, [{"source": "x", "ra": 1.0, "dec": 2.0}])["right"]

    @pytest.mark.parametrize("dec", [0.0, 33.0, -45.0, 85.0])
    @pytest.mark.parametrize(("part", "same"), [(0.98, True), (1.02, False)])
    def test_half_a_beam_on_the_sky_decides(self, dec: float, part: float, *, same: bool) -> None:
        import numpy as np

        one = {"sources": [hidden(100.0, dec)]}
        step = part * SAME_DEG
        east = {"ra": 100.0 + step / float(np.cos(np.radians(dec)))}
        north = {"dec": dec + step}
        assert [
            judge(one, [row(one["sources"][0], **there)])["right"] for there in (east, north)
        ] == [same, same]

    @pytest.mark.parametrize(
        ("there", "here"), [(359.9999, 0.0001), (0.0001, 359.9999), (360.0, 0.0)]
    )
    def test_right_ascension_has_no_end(self, there: float, here: float) -> None:
        assert judge(
            {"sources": [hidden(there, 33.0)]}, [{"source": "x", "ra": here, "dec": 33.0}]
        )["right"]


class TestCandidates:
    def rows(self, ra: float, name: str) -> dict[str, Any]:
        numbers = {
            column.name: 1.0 for column in ESE_CANDIDATES.columns if str(column.type) == "double"
        }
        return numbers | {"source": name, "field": "f", "n_epochs": 26, "ra": ra, "dec": 33.0}

    def test_they_are_what_variability_publishes(self, tmp_path: Path) -> None:
        store = open_store(str(tmp_path))
        for day, unit, ra in (("2026-05-01", "dec-p33.0", 38.9), ("2026-06-01", "dec-p16.0", 12.0)):
            data = ESE_CANDIDATES.to_bytes(ESE_CANDIDATES.rows([self.rows(ra, f"DSA {ra}")]))
            store.put(f"tables/{ESE_CANDIDATES.name}/date={day}/{unit}.parquet", data)
        found = candidates(tmp_path)
        assert [(item["source"], item["ra"]) for item in found] == [
            ("DSA 38.9", 38.9),
            ("DSA 12.0", 12.0),
        ]
        assert judge({"sources": [hidden(38.9, 33.0), hidden(12.0, 33.0)]}, found)["right"]

    def test_an_empty_table_or_none_has_none(self, tmp_path: Path) -> None:
        assert candidates(tmp_path) == []
        empty = ESE_CANDIDATES.to_bytes(ESE_CANDIDATES.empty())
        open_store(str(tmp_path)).put("tables/ese_candidates/date=2026-05-01/a.parquet", empty)
        assert candidates(tmp_path) == []


class TestPrograms:
    """Of `_json`, which runs the executables beside this Python."""

    def test_a_summary_comes_back_and_words_go_to_stderr(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "store").mkdir()
        said = demo._json(["contimg-watch", "--store", str(tmp_path / "store")], os.environ)  # noqa: SLF001
        out, err = capfd.readouterr()
        assert out == ""
        assert isinstance(said, dict)
        assert all(json.loads(line)["stage"] == "watch" for line in err.splitlines())

    def test_one_that_fails_is_named_with_its_code(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a").mkdir()
        argv = ["contimg-flag", "--ms", str(tmp_path / "a"), "--out", str(tmp_path / "o")]
        with pytest.raises(ChildFailedError, match=r"contimg-flag --ms .*: exit code 25"):
            demo._json(argv, os.environ)  # noqa: SLF001
        assert "There is no artifact here" in json.loads(capfd.readouterr().err)["message"]

    def test_a_wrong_command_line_is_one_of_them(self) -> None:
        with pytest.raises(ChildFailedError, match="exit code 2"):
            demo._json(["contimg", "run", "everything"], os.environ)  # noqa: SLF001


@pytest.fixture
def _signals_are_given_back() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_are_given_back")
def test_a_simulation_that_cannot_be_ends_the_demo(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["--folder", str(tmp_path), "--epochs", "0"]
    assert run_command(DEMO, argv) == Exit.CHILD_FAILED
    out, err = capfd.readouterr()
    assert out == ""
    assert "--epochs" in err, "the simulator's own words"
    assert not list(tmp_path.rglob("*.hdf5"))


def test_its_settings_are_options_of_stages() -> None:
    for setting in SETTINGS:
        stage, _, rest = setting.partition(".")
        name, _, value = rest.partition("=")
        options = (stage_specs() | commands())[stage].options
        field = options.model_fields[name]
        words = choices(field)
        assert words is None or value in words


def test_its_epochs_are_enough_for_a_verdict() -> None:
    from contimg_variability.options import VariabilityOptions

    assert DemoOptions().epochs > VariabilityOptions.model_fields["min_epochs"].default
    assert DemoOptions().epochs == SimulateOptions.model_fields["epochs"].default
