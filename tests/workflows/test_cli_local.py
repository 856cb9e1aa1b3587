"""submit, status, logs and reprocess with the local engine: real processes, real stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from commands import here
from contimg.records.groups import GroupRecord, Subband
from contimg.runtime.contract import run_command
from contimg.runtime.store import open_store
from contimg_runs.state import RunState, Status
from contimg_workflows.commands import LOGS, REPROCESS, STATUS, SUBMIT
from contimg_workflows.state import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_bench import Bench

submit, reprocess = partial(run_command, SUBMIT), partial(run_command, REPROCESS)
status, logs = partial(run_command, STATUS), partial(run_command, LOGS)
CONTIMG = Path(sys.executable).parent / "contimg"
TINY = Path(__file__).parent / "packages/tiny_bench.py"
PATIENCE_S = 60
"""On a busy machine; alone it is seconds."""


@pytest.fixture(autouse=True)
def _no_argo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARGO_SERVER", "ARGO_NAMESPACE", "ARGO_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def contimg(*words: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [str(CONTIMG), *words], capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def there(path: Path) -> str:
    """Return the text of a file that comes to be."""
    wait_for(path.exists)
    return path.read_text()


def bad_group(store: Path) -> str:
    """Write the record of a group whose subbands are no HDF5; return its id."""
    name = "20260125t011431"
    record = GroupRecord.model_validate(
        {
            "id": name,
            "attempt": 1,
            "t0": "2026-01-25T01:14:31Z",
            "duration_s": 296.0,
            "dec_deg": 33.0,
            "subbands": [
                Subband(
                    index=n,
                    uri=f"incoming/x_sb{n:02d}.hdf5",
                    size=8,
                    modified="2026-01-25T01:20:00Z",
                )
                for n in range(16)
            ],
        }
    )
    for subband in record.subbands:
        open_store(str(store)).put(subband.uri, b"no HDF5 ")
    open_store(str(store)).put(f"groups/{record.name}.json", record.model_dump_json().encode())
    return name


def ended(store: Path, name: str) -> RunState:
    folder = RunFolder(store / "runs" / name)
    wait_for(lambda: folder.load().ended)
    return folder.load()


# submit


def test_what_is_submitted_runs_by_itself_and_ends(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    code, answer, said = contimg("submit", "watch", "--store", str(tmp_path), "--set", "size=0")
    assert code == 0, said
    assert answer["workflow"].startswith("contimg-watch-")
    assert answer["place"] == str(tmp_path / "runs")
    assert ended(tmp_path, answer["workflow"]).status is Status.DONE
    assert (tmp_path / "runs" / answer["workflow"] / "main.1.log").exists()


def test_many_submitted_at_once_all_run_and_none_twice(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    words = ["submit", "watch", "--store", str(tmp_path), "--set", "size=0"]
    names = []
    for _ in range(3):
        assert here(submit, *words[1:]) == 0
    names = sorted(path.parent.name for path in tmp_path.glob("runs/*/state.json"))
    assert len(names) == 3
    states = [ended(tmp_path, name) for name in names]
    assert {state.status for state in states} == {Status.DONE}
    assert [len(state.tasks["main"].tries) for state in states] == [1, 1, 1]


def test_to_wait_is_to_end_as_the_workflow_did(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    words = ("submit", "process-group", "--store", str(tmp_path), "--set", f"group={group}")
    code, answer, said = contimg(*words, "--wait")
    assert code == 1, said
    assert answer["workflow"] == f"contimg-{group}-a1"
    assert answer["status"] == "failed"
    assert "convert: " in answer["reason"]
    assert "sb00.hdf5" in answer["reason"]
    code, answer, said = contimg(*words)
    assert (code, answer) == (2, {})
    assert f"Run contimg-{group}-a1 already exists (failed)." in said


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["mosaic"], "mosaic: There is no pipeline or stage of this name; there are backfill"),
        (
            ["process-group"],
            "contimg-process-group: Parameter 'group' is required. Id of the group",
        ),
        (
            ["flag", "--set", "ms=x", "--set", "out=y", "--set", "clip_sigma=many"],
            "--clip-sigma: Input should be a valid number",
        ),
        (
            ["flag", "--set", "ms=x", "--set", "image.tier=x"],
            "There is no stage 'image' in contimg",
        ),
        (
            ["backfill", "--set", "first_day=2026-01-01", "--set", "last_day=2026-01-02"],
            "starts other workflows, which the local engine does not do. Submit it to Argo.",
        ),
    ],
)
def test_a_wrong_request_is_explained_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    assert here(submit, *words, "--store", str(tmp_path)) != 0
    said = capfd.readouterr()
    assert found in said.err
    assert said.out == ""
    assert not list(tmp_path.glob("runs/*/state.json"))


def test_without_a_place_nothing_is_submitted(capfd: pytest.CaptureFixture[str]) -> None:
    assert here(submit, "watch") == 2
    assert "Neither --store nor --runs is given." in capfd.readouterr().err


# status


def waiting(bench: Bench, name: str = "new") -> None:
    """Leave a workflow as submit leaves it."""
    folder = RunFolder(bench.runs / name)
    folder.path.mkdir(parents=True, exist_ok=True)
    (bench.runs / ".backlog").touch()
    compiled = bench.workflow(name)
    folder.save(
        RunState(
            name=name,
            pipeline=compiled.template,
            arguments=dict(compiled.arguments),
            started="2026-01-25T22:00:00Z",
            status=Status.PENDING,
            tasks={task: {} for task in compiled.tasks},
        )
    )


def test_status_shows_what_is_submitted_and_not_begun(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting(bench)
    # A process that holds the lock as the one behind submit does, and never gets its turn.
    holder = subprocess.Popen(
        ["flock", "--shared", str(bench.runs / ".backlog"), "sleep", "60"], start_new_session=True
    )
    try:
        wait_for(lambda: RunFolder(bench.runs / "new").load().status is Status.PENDING)
        assert here(status, "--runs", str(bench.runs)) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header.split() == ["workflow", "status", "tasks", "wall", "why"]
        assert row.split() == ["new", "·", "pending", "0/4"]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_status_tells_what_waits_for_no_engine(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting(bench)
    assert here(status, "--runs", str(bench.runs)) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:3] == ["new", "■", "interrupted"]
    assert "no engine is left to begin it; submit it again" in row


def test_an_engine_that_is_killed_leaves_work_that_the_next_takes_up(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    assert here(submit, "watch", "--store", str(tmp_path), "--set", "size=0") == 0
    (first,) = tmp_path.glob("runs/*/state.json")
    folder = RunFolder(tmp_path / "runs" / first.parent.name)
    for pid in wait_for(lambda: engines(tmp_path / "runs")):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: folder.load().status is Status.INTERRUPTED)
    assert here(submit, "watch", "--store", str(tmp_path), "--set", "size=0") == 0
    names = [path.parent.name for path in tmp_path.glob("runs/*/state.json")]
    assert [ended(tmp_path, name).status for name in names] == [Status.DONE, Status.DONE]


def engines(runs: Path) -> list[int]:
    """Return the processes that work off what was submitted to a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"contimg_workflows.local" in words and str(runs).encode() in words:
            found.append(int(path.parent.name))
    return found


# logs


def test_logs_are_printed_task_by_task_in_plain_words(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.engine().run(
        [bench.workflow("one", b_do="world", b_times="1", c_nap_s="0.3", d_do="data")]
    )
    assert here(logs, "one", "b", "--runs", str(bench.runs)) == 0
    said = capsys.readouterr().out
    assert "error: s3://x: expected an answer, found none." in said
    assert said.count("(try 2)") == 1
    assert "{" not in said
    assert here(logs, "one", "--runs", str(bench.runs)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("d | ") and "x.hdf5: expected 145 bytes" in line for line in lines)
    assert {line.split(" | ")[0] for line in lines} <= {"a", "b", "c", "d"}


@pytest.mark.parametrize("words", [["one", "--follow"], ["one", "b", "--follow"]])
def test_logs_are_followed_while_they_are_written(
    bench: Bench, tmp_path: Path, words: list[str]
) -> None:
    settings = json.dumps({"b_do": "world", "b_times": "1", "c_nap_s": "2"})
    engine = subprocess.Popen(
        [sys.executable, str(TINY), "--folder", str(tmp_path), "--settings", settings],
        stdout=subprocess.PIPE,
    )
    wait_for(
        lambda: (
            RunFolder(bench.runs / "one").exists()
            and RunFolder(bench.runs / "one").load().tasks["b"].tries
        )
    )
    argv = [str(CONTIMG), "logs", *words, "--runs", str(bench.runs)]
    reader = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    first = reader.stdout.readline()
    seen_early = engine.poll() is None
    rest = reader.stdout.read()
    assert reader.wait(PATIENCE_S) == 0
    assert engine.wait(PATIENCE_S) == 0
    assert "s3://x: expected an answer, found none." in first + rest
    assert seen_early
    # It ended because the workflow had, and with all that was written.
    assert (first + rest).count("(try 2)") == 1


def test_a_reader_that_leaves_is_no_error(bench: Bench) -> None:
    bench.engine().run([bench.workflow("one", b_do="bug")])
    command = f"'{CONTIMG}' logs one --runs '{bench.runs}' | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["two"], "There is no run two; there are one. Correct the name or the place"),
        (["one", "z"], "There is no task z; the tasks are a, b, c, d."),
        ([], "--name"),
    ],
)
def test_logs_of_what_is_not_there(
    bench: Bench, capfd: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    bench.engine().run([bench.workflow("one")])
    assert here(logs, *words, "--runs", str(bench.runs)) == 2
    assert found in capfd.readouterr().err


# reprocess


def test_reprocessing_is_the_next_attempt_each_time(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    for attempt in (2, 3):
        code, answer, said = contimg("reprocess", group, "--store", str(tmp_path), "--wait")
        assert code == 1, said
        assert (answer["attempt"], answer["status"]) == (attempt, "failed")
        assert answer["workflow"].startswith(f"contimg-reprocess-{group}-")
        assert "process-convert: " in answer["reason"]
        assert "sb00.hdf5" in answer["reason"]
        record = GroupRecord.model_validate_json(
            (tmp_path / f"groups/{group}-a{attempt}.json").read_bytes()
        )
        assert (record.attempt, len(record.subbands)) == (attempt, 16)
        claim = json.loads((tmp_path / f"runs/{group}-a{attempt}/claim.json").read_text())
        assert claim["workflow"] == answer["workflow"]
        outcome = json.loads(there(tmp_path / f"runs/{group}-a{attempt}/outcome.json"))
        assert (outcome["phase"], outcome["exit"]) == ("failed", 10)
        assert "sb00.hdf5" in outcome["reason"]


def test_a_reprocessing_whose_engine_was_killed_is_closed_by_the_sweep(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    code, first, said = contimg(
        "submit", "reprocess", "--store", str(tmp_path), "--set", f"group={group}"
    )
    assert code == 0, said
    there(tmp_path / f"groups/{group}-a2.json")  # begun, and nothing done yet
    for pid in engines(tmp_path / "runs"):
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: RunFolder(tmp_path / "runs" / first["workflow"]).load().status is Status.INTERRUPTED
    )
    assert not (tmp_path / f"runs/{group}-a2/outcome.json").exists()
    code, _, said = contimg("reprocess", group, "--store", str(tmp_path))
    assert code == 2
    assert f"in progress: {first['workflow']} has it" in said
    sweep = (
        "sweep",
        "--store",
        str(tmp_path),
        "--workflows",
        "none",
        "--days",
        "0",
        "--grace-s",
        "0",
    )
    code, swept, said = contimg(*sweep)
    assert code == 0, said
    assert (swept["lost"], swept["restarted"], swept["posted"]) == (
        [f"{group}-a2"],
        [f"{group}-a3"],
        [],
    )
    assert json.loads((tmp_path / f"runs/{group}-a2/outcome.json").read_text())["phase"] == "lost"
    code, again, said = contimg("reprocess", group, "--store", str(tmp_path), "--wait")
    assert (code, again["attempt"], again["status"]) == (1, 4, "failed"), said


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            ["20990101t000000"],
            "groups/: There is no record of group 20990101t000000; there are 20260125t011431.",
        ),
        (
            ["20260125t011431", "--from", "mosaic"],
            "There is no step 'mosaic'; the steps are convert",
        ),
        ([], "--group"),
    ],
)
def test_what_cannot_be_reprocessed_is_explained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    bad_group(tmp_path)
    assert here(reprocess, *words, "--store", str(tmp_path)) == 2
    assert found in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "groups").iterdir()] == ["20260125t011431-a1.json"]
    assert not (tmp_path / "runs").exists()


def test_a_setting_without_effect_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (
        bad_group(tmp_path),
        "--from",
        "image",
        "--set",
        "flag.rfi=off",
        "--store",
        str(tmp_path),
    )
    assert here(reprocess, *words) == 2
    assert (
        "The setting would have no effect: --from image reuses the artifact of flag."
        in capfd.readouterr().err
    )


def test_what_was_never_made_cannot_be_kept(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    code, answer, said = contimg("reprocess", group, "--from", "image", "--store", str(tmp_path))
    assert (code, answer) == (2, {})
    assert "artifacts of convert, flag, calibrate" in said
    assert not (tmp_path / f"groups/{group}-a2.json").exists()
