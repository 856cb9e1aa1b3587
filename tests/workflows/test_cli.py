"""contimg run and contimg status."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from commands import run_here
from contimg.records.groups import GroupRecord, Subband
from contimg.records.strips import strip_name, strips
from contimg.runtime.command import commands
from contimg.runtime.contract import run_command
from contimg.runtime.store import open_store
from contimg_runs.calibrators import find_calibrator_groups
from contimg_workflows.commands import RUN, STATUS
from contimg_workflows.display import Display, summary_table
from contimg_workflows.run import latest_records

if TYPE_CHECKING:
    from tiny_bench import Bench

run, status = partial(run_command, RUN), partial(run_command, STATUS)
GROUP = "20260125t011431"
CONTIMG = Path(sys.executable).parent / "contimg"


def contimg(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CONTIMG), *words], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


def record(
    day: str = "2026-01-25", attempt: int = 1, dec_deg: float | None = 33.0, hour: int = 1
) -> GroupRecord:
    t0 = datetime.fromisoformat(f"{day}T{hour:02d}:14:31+00:00")
    uris = [f"incoming/{day}/{t0:%Y-%m-%dT%H:%M:%S}_sb{n:02d}.hdf5" for n in range(16)]
    return GroupRecord(
        id=f"{t0:%Y%m%dt%H%M%S}",
        attempt=attempt,
        t0=t0,
        duration_s=296.0,
        dec_deg=dec_deg,
        subbands=tuple(Subband(index=n, uri=u, size=9, modified=t0) for n, u in enumerate(uris)),
    )


def put(store: Path, *records: GroupRecord) -> None:
    for one in records:
        open_store(str(store)).put(f"groups/{one.name}.json", one.model_dump_json().encode())


# contimg status


def status_of(bench: Bench, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_here(status, "--runs", str(bench.runs), *words) == 0
    return capsys.readouterr().out


def test_status_shows_time_and_failure_reason(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.engine().run([bench.workflow("bad", b_do="data"), bench.workflow("good")])
    said = status_of(bench, capsys)
    lines = {line.split()[0]: line for line in said[: said.index("ends:")].splitlines()[:3]}
    assert "failed" in lines["bad"]
    assert "b: x.hdf5: expected 145 bytes, found 0 bytes. Send it again." in lines["bad"]
    assert "4/4" in lines["good"]
    assert lines["good"].rstrip().endswith(" s")
    assert "b.1.log ends:" in said
    assert "error: x.hdf5: expected 145 bytes" in said
    assert "good b" not in said


def test_status_of_one_workflow_lists_tasks(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.engine().run([bench.workflow("one", a_do="world", a_times="1"), bench.workflow("two")])
    said = status_of(bench, capsys, "--name", "one")
    row = next(line for line in said.splitlines() if line.startswith("a "))
    assert row.split()[:4] == ["a", "✓", "done", "2"]
    assert "two" not in said
    bench.engine().run([bench.workflow("one", a_do="world", a_times="1")])
    assert "(4 cached)" in status_of(bench, capsys, "--name", "one")


def test_status_lines_option_limits_log(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.engine().run([bench.workflow("bad", a_do="bug")])
    said = status_of(bench, capsys, "--lines", "3")
    tail = said[said.index("ends:") :].strip().splitlines()[1:]
    assert len(tail) == 3
    assert "ZeroDivisionError: no" in tail[-1]
    assert "ends:" not in status_of(bench, capsys, "--lines", "0")


def test_status_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(status, "--store", str(tmp_path)) == 2
    assert "There is no run here." in capsys.readouterr().err
    assert run_here(status) == 2
    assert "Neither --store nor --runs is given." in capsys.readouterr().err


# What is seen meanwhile


def test_display_without_terminal_prints_changes(bench: Bench) -> None:
    bench.engine().run([bench.workflow("one", a_do="world", a_times="1")])
    lines = [line.split(" ", 1)[1] for line in bench.said.getvalue().splitlines()]
    assert lines[0] == "one a: running"
    assert lines[1].startswith("one a: waiting to try again")
    assert "s3://x: expected an answer, found none" in lines[1]
    assert lines[-1].startswith("one d: done")


def test_display_on_terminal_is_live_table(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contimg_workflows.display.REFRESH_S", 0.02)
    screen = io.StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=160))
    with display.live():
        bench.engine(display=display).run(
            [bench.workflow("one", a_nap_s="0.6"), bench.workflow("two", a_do="data")]
        )
    seen = screen.getvalue()
    assert "1/2" in seen  # the stage's own progress
    assert "two a: failed" in seen  # failures stay, the table goes
    assert "1 of 2 done, 1 failed" in seen


def test_summary_table_has_row_per_workflow(bench: Bench) -> None:
    states = bench.engine().run([bench.workflow("one"), bench.workflow("bad", a_do="data")])
    screen = io.StringIO()
    Console(file=screen, width=200).print(summary_table(states))
    _, one, bad = screen.getvalue().splitlines()
    assert all(word in one for word in ("one", "done", "4/4"))
    assert all(word in bad for word in ("bad", "failed", "0/4", "a: x.hdf5"))


# contimg run


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", "--pipeline is required"),
        ("mosaic --store X", "There is no pipeline 'mosaic'; there are process-group"),
        ("all", "--store is required"),
        ("process-group --store X", "--group is required"),
        ("all --store X --group x", "--group is an option of process-group"),
        ("all --store X --strip 3", "--strip and --epoch are options of epoch"),
        ("all --store X --jobs 0", "--jobs"),
        ("all --store X --set nonsense", "STAGE.OPTION=VALUE"),
        (
            "process-group --store X --group 20990101t000000",
            "There is no record of group 20990101t000000; there are 20260125t011431.",
        ),
        ("epoch --store X --epoch mine", "--strip is required beside it."),
    ],
)
def test_wrong_command_line_is_explained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: str, found: str
) -> None:
    put(tmp_path, record())
    assert run_here(run, *words.replace("X", str(tmp_path)).split()) == 2
    said = capfd.readouterr()
    assert found in said.err
    assert said.out == ""


PROFILES = "{deep: {image: {tier: high_precision}}, broken: {imagee: {}}}"
WRONG_OPTIONS = [
    (["--set", "image.teir=quicklook"], "image --teir: there is no such option"),
    (["--set", "image.tier=best"], "image --tier: Input should be 'quicklook', 'development'"),
    (["--set", "imagee.tier=x"], "There is no stage 'imagee' in this pipeline; its stages are"),
    (["--set", "tire=best"], "There is no parameter or shortcut 'tire'; there are"),
    (["--set", "tier=best"], "image --tier: Input should be 'quicklook'"),
    (["--set", "flag.ms=/x"], "The pipeline sets flag.ms itself"),
    (["--config", "{imagee: {tier: quicklook}}"], "There is no stage 'imagee'; there are"),
    (["--config", "{image: {teir: quicklook}}"], "image --teir: there is no such option"),
    (["--config", "{convert: {max_zeros: 2}}"], "convert --max-zeros: Input should be less than"),
    (["--config", "a: b: c"], "This is not YAML"),
    (["--config", "[1, 2]\n"], "A mapping of stages is expected"),
    (["--config", "/nowhere.yaml"], "The file cannot be read"),
    (["--profile", "deeep"], "There is no profile of this name; defined are: deep, broken."),
    (["--profile", "broken"], "There is no stage 'imagee'"),
]


@pytest.mark.parametrize(("words", "found"), WRONG_OPTIONS)
@pytest.mark.parametrize(
    "command",
    [
        f"run process-group --group {GROUP}",
        f"submit process-group --set group={GROUP}",
        f"reprocess {GROUP}",
    ],
)
def test_wrong_options_start_nothing(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    words: list[str],
    found: str,
) -> None:
    put(tmp_path, record())
    monkeypatch.setenv("CONTIMG_PROFILES", PROFILES)
    name, *rest = command.split()
    if name != "run" and "tire=best" in words:
        found = "There is no parameter 'tire'; the parameters are store, "
    elif name != "run" and "tier=best" in words:
        found = "'best' is not one of quicklook, development"
    call = partial(run_command, commands()[name])
    assert run_here(call, *rest, *words, "--store", str(tmp_path)) == 2
    said = capfd.readouterr()
    assert found in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["--set", "watch.sise=0"], ["--config", "{watch: {size: -1}}"]])
def test_wrong_watch_options_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run_here(run, "all", "--store", str(tmp_path), *words) == 2
    assert "options: watch --si" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_settings_win_over_document_over_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, record())
    monkeypatch.setenv("CONTIMG_PROFILES", "{p: {image: {tier: quicklook, size: 512, niter: 5}}}")
    (tmp_path / "o.yaml").write_text("image: {size: 1024, niter: 6}\nnormalize: {}\n")
    options = ["--profile", "p", "--config", str(tmp_path / "o.yaml"), "--set", "image.niter=7"]
    words = ["process-group", "--group", GROUP, "--store", str(tmp_path), *options]
    assert run_here(run, *words) == 1
    state = json.loads((tmp_path / "runs/contimg-20260125t011431-a1/state.json").read_text())
    assert json.loads(state["arguments"]["options"]) == {
        "image": {"tier": "quicklook", "size": 1024, "niter": "7"}
    }


def test_help_needs_no_store() -> None:
    done = contimg("run", "process-group", "--help")
    assert done.returncode == 0
    assert "--set" in done.stdout


def test_bad_data_fail_with_reason_of_stage(tmp_path: Path) -> None:
    one = record()
    put(tmp_path, one)
    for subband in one.subbands:
        open_store(str(tmp_path)).put(subband.uri, b"no HDF5 ")
    done = contimg("run", "process-group", "--store", str(tmp_path), "--group", one.id)
    assert done.returncode == 1, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert (said["workflows"], said["failed"]) == (1, 1)
    reason = said["reasons"][f"contimg-{one.name}"]
    assert reason.startswith("convert: ")
    assert "sb00.hdf5" in reason
    shown = contimg("status", "--store", str(tmp_path))
    assert reason[:60] in shown.stdout.replace("\n", "")
    assert not list(tmp_path.glob("products/*/*/*/manifest.json"))


def test_run_all_of_empty_store_succeeds(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    settings = ("--set=watch.size=0", "--set=watch.timeout_s=0")
    done = contimg("run", "all", "--store", str(tmp_path), *settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workflows"] == 1


def test_unreachable_store_ends_run(tmp_path: Path, s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    words = ("--store", "s3://contimg/x", "--group", GROUP)
    done = contimg("run", "process-group", *words, cwd=tmp_path)
    assert done.returncode == 20
    assert "AWS_ENDPOINT_URL" in done.stderr


# Which groups, in which order


def test_latest_records_are_last_attempts(tmp_path: Path) -> None:
    put(tmp_path, record(attempt=1), record(attempt=2), record(attempt=10), record("2026-01-24"))
    open_store(str(tmp_path)).put("groups/notes.json", b"{}")
    found = latest_records(str(tmp_path))
    assert [one.name for one in found] == ["20260124t011431-a1", "20260125t011431-a10"]


def test_unreadable_record_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, record())
    open_store(str(tmp_path)).put("groups/20260124t000000-a1.json", b"{}")
    assert run_here(run, "process-group", "--group", GROUP, "--store", str(tmp_path)) == 19
    assert f"{tmp_path}/groups/20260124t000000-a1.json:" in capfd.readouterr().err


def test_calibrator_groups_are_those_at_transit() -> None:
    # 3C48 (RA 01h37m41s, Dec +33.16) culminates at LST 1h38m: at longitude -118.28 on 2026-01-25
    # that is 01:14 UTC.
    transit, later, unknown = record(hour=1), record(hour=3), record(hour=1, dec_deg=None)
    assert find_calibrator_groups([transit, later], {}) == {transit.id}
    assert not find_calibrator_groups([unknown], {})
    limits = {"min_primary_jy": "1000", "min_bright_jy": 1000.0}
    assert not find_calibrator_groups([transit], {"calibrate": limits})
    assert find_calibrator_groups([transit], {"calibrate": {"beam": "gaussian:3.13@1405MHz"}})


def test_strips_merge_close_pointings() -> None:
    decs = [33.0, 33.0004, 16.3, 54.6, 32.9998, None, -5.2]
    assert strips([record(dec_deg=dec) for dec in decs]) == [-5.2, 16.3, 33.0, 54.6]
    names = [strip_name(dec) for dec in (-5.2, 33.0, 16.34)]
    assert names == ["dec-m05.2", "dec-p33.0", "dec-p16.3"]
