"""submit, status, logs and reprocess with the local engine: real processes and stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from commands import run_here
from contimg.runtime.store import open_store
from contimg_runs.state import RunState, Status
from contimg_workflows.state import RunFolder
from waiting import wait_for

if TYPE_CHECKING:
    from tiny_bench import Bench

GROUP = "20260125t011431"
CONTIMG = Path(sys.executable).parent / "contimg"
TINY = Path(__file__).parent / "packages/tiny_bench.py"


@pytest.fixture(autouse=True)
def _no_argo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARGO_SERVER", "ARGO_NAMESPACE", "ARGO_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def contimg(*words: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [str(CONTIMG), *words], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def read_json(path: Path) -> dict[str, Any]:
    """Wait for a file, and read it."""
    wait_for(path.exists)
    return dict(json.loads(path.read_text()))


def bad_group(store: Path) -> str:
    """Write the record of a group whose subbands are not HDF5; return its id."""
    t0 = "2026-01-25T01:14:31Z"
    uris = [f"incoming/x_sb{n:02d}.hdf5" for n in range(16)]
    subbands = [{"index": n, "uri": u, "size": 8, "modified": t0} for n, u in enumerate(uris)]
    record = {"id": GROUP, "attempt": 1, "t0": t0, "duration_s": 296.0, "dec_deg": 33.0}
    opened, name = open_store(str(store)), f"groups/{GROUP}-a1.json"
    opened.put(name, json.dumps({**record, "subbands": subbands}).encode())
    for uri in uris:
        opened.put(uri, b"no HDF5 ")
        os.utime(store / uri, (datetime.fromisoformat(t0).timestamp(),) * 2)
    return GROUP


def ended(store: Path, name: str) -> RunState:
    folder = RunFolder(store / "runs" / name)
    wait_for(lambda: folder.load().ended)
    return folder.load()


# submit


def test_submitted_run_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    code, answer, said = contimg("submit", "watch", "--store", str(tmp_path), "--set", "size=0")
    assert code == 0, said
    assert answer["workflow"].startswith("contimg-watch-")
    assert answer["place"] == str(tmp_path / "runs")
    assert ended(tmp_path, answer["workflow"]).status is Status.DONE
    assert (tmp_path / "runs" / answer["workflow"] / "main.1.log").exists()


def test_simultaneous_submits_run_once_each(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    for _ in range(3):
        assert run_here("submit", "watch", "--store", str(tmp_path), "--set", "size=0") == 0
    names = sorted(path.parent.name for path in tmp_path.glob("runs/*/state.json"))
    assert len(names) == 3
    states = [ended(tmp_path, name) for name in names]
    assert {state.status for state in states} == {Status.DONE}
    assert [len(state.tasks["main"].tries) for state in states] == [1, 1, 1]


def test_submit_wait_returns_outcome(tmp_path: Path) -> None:
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
        ("mosaic", "mosaic: There is no pipeline or stage of this name; there are backfill"),
        ("process-group", "contimg-process-group: Parameter 'group' is required. Id of the group"),
        (
            "flag --set ms=x --set out=y --set clip_sigma=many",
            "--clip-sigma: Input should be a valid number",
        ),
        ("flag --set ms=x --set image.tier=x", "There is no stage 'image' in contimg"),
        (
            "backfill --set first_day=2026-01-01 --set last_day=2026-01-02",
            "starts other workflows, which the local engine does not do. Submit it to Argo.",
        ),
    ],
)
def test_wrong_request_leaves_no_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: str, found: str
) -> None:
    assert run_here("submit", *words.split(), "--store", str(tmp_path)) != 0
    said = capfd.readouterr()
    assert found in said.err
    assert said.out == ""
    assert not list(tmp_path.glob("runs/*/state.json"))


def test_submit_without_place_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_here("submit", "watch") == 2
    assert "Neither --store nor --runs is given." in capfd.readouterr().err


# status


def waiting(bench: Bench, name: str = "new") -> None:
    """Leave a workflow as submit leaves it."""
    folder = RunFolder(bench.runs / name)
    folder.path.mkdir(parents=True, exist_ok=True)
    (bench.runs / ".backlog").touch()
    made = bench.workflow(name)
    state = {"name": name, "pipeline": made.template, "arguments": made.arguments}
    state |= {"started": "2026-01-25T22:00:00Z", "status": Status.PENDING}
    folder.save(RunState.model_validate({**state, "tasks": {task: {} for task in made.tasks}}))


def test_status_shows_pending_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    waiting(bench)
    # A process that holds the lock as the one behind submit does, and never gets its turn.
    argv = ["flock", "--shared", str(bench.runs / ".backlog"), "sleep", "60"]
    holder = subprocess.Popen(argv, start_new_session=True)
    try:
        wait_for(lambda: RunFolder(bench.runs / "new").load().status is Status.PENDING)
        assert run_here("status", "--runs", str(bench.runs)) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header.split() == ["workflow", "status", "tasks", "wall", "why"]
        assert row.split() == ["new", "·", "pending", "0/4"]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_pending_run_without_engine_is_interrupted(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting(bench)
    assert run_here("status", "--runs", str(bench.runs)) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:3] == ["new", "■", "interrupted"]
    assert "no engine is left to begin it; submit it again" in row


def test_next_engine_resumes_killed_backlog(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    assert run_here("submit", "watch", "--store", str(tmp_path), "--set", "size=0") == 0
    (first,) = tmp_path.glob("runs/*/state.json")
    folder = RunFolder(tmp_path / "runs" / first.parent.name)
    for pid in wait_for(lambda: engines(tmp_path / "runs")):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: folder.load().status is Status.INTERRUPTED)
    assert run_here("submit", "watch", "--store", str(tmp_path), "--set", "size=0") == 0
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


def test_logs_are_readable_lines_per_task(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"b_do": "world", "b_times": "1", "c_nap_s": "0.3", "d_do": "data"}
    bench.engine().run([bench.workflow("one", **settings)])
    assert run_here("logs", "one", "b", "--runs", str(bench.runs)) == 0
    said = capsys.readouterr().out
    assert "error: s3://x: expected an answer, found none." in said
    assert said.count("(try 2)") == 1
    assert "{" not in said
    assert run_here("logs", "one", "--runs", str(bench.runs)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("d | ") and "x.hdf5: expected 145 bytes" in line for line in lines)
    assert {line.split(" | ")[0] for line in lines} <= {"a", "b", "c", "d"}


@pytest.mark.parametrize("words", [["one", "--follow"], ["one", "b", "--follow"]])
def test_logs_follow_running_workflow(bench: Bench, tmp_path: Path, words: list[str]) -> None:
    settings = json.dumps({"b_do": "world", "b_times": "1", "c_nap_s": "2"})
    argv = [sys.executable, str(TINY), "--folder", str(tmp_path), "--settings", settings]
    engine = subprocess.Popen(argv, stdout=subprocess.PIPE)
    folder = RunFolder(bench.runs / "one")
    wait_for(lambda: folder.exists() and folder.load().tasks["b"].tries)
    argv = [str(CONTIMG), "logs", *words, "--runs", str(bench.runs)]
    reader = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    first = reader.stdout.readline()
    seen_early = engine.poll() is None
    rest = reader.stdout.read()
    assert reader.wait(60) == 0
    assert engine.wait(60) == 0
    assert "s3://x: expected an answer, found none." in first + rest
    assert seen_early
    # It ended because the workflow had, and with all that was written.
    assert (first + rest).count("(try 2)") == 1


def test_logs_into_closed_pipe_succeed(bench: Bench) -> None:
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
def test_logs_of_unknown_run_or_task(
    bench: Bench, capfd: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    bench.engine().run([bench.workflow("one")])
    assert run_here("logs", *words, "--runs", str(bench.runs)) == 2
    assert found in capfd.readouterr().err


# reprocess


def test_reprocess_makes_next_attempt(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    for attempt in (2, 3):
        code, answer, said = contimg("reprocess", group, "--store", str(tmp_path), "--wait")
        assert code == 1, said
        assert (answer["attempt"], answer["status"]) == (attempt, "failed")
        assert answer["workflow"].startswith(f"contimg-reprocess-{group}-")
        assert "process-convert: " in answer["reason"]
        assert "sb00.hdf5" in answer["reason"]
        record = read_json(tmp_path / f"groups/{group}-a{attempt}.json")
        assert (record["attempt"], len(record["subbands"])) == (attempt, 16)
        claim = read_json(tmp_path / f"runs/{group}-a{attempt}/claim.json")
        assert claim["workflow"] == answer["workflow"]
        outcome = read_json(tmp_path / f"runs/{group}-a{attempt}/outcome.json")
        assert (outcome["phase"], outcome["exit"]) == ("failed", 10)
        assert "sb00.hdf5" in outcome["reason"]


def test_sweep_closes_reprocess_of_killed_engine(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    store = ("--store", str(tmp_path))
    code, first, said = contimg("submit", "reprocess", *store, "--set", f"group={group}")
    assert code == 0, said
    wait_for((tmp_path / f"groups/{group}-a2.json").exists)  # begun, and nothing done yet
    for pid in engines(tmp_path / "runs"):
        os.kill(pid, signal.SIGKILL)
    folder = RunFolder(tmp_path / "runs" / first["workflow"])
    wait_for(lambda: folder.load().status is Status.INTERRUPTED)
    assert not (tmp_path / f"runs/{group}-a2/outcome.json").exists()
    code, _, said = contimg("reprocess", group, *store)
    assert code == 2
    assert f"in progress: {first['workflow']} has it" in said
    code, swept, said = contimg("sweep", *store, "--workflows=none", "--days=0", "--grace-s=0")
    assert code == 0, said
    assert (swept["lost"], swept["restarted"]) == ([f"{group}-a2"], [f"{group}-a3"])
    assert swept["posted"] == []
    assert read_json(tmp_path / f"runs/{group}-a2/outcome.json")["phase"] == "lost"
    code, again, said = contimg("reprocess", group, *store, "--wait")
    assert (code, again["attempt"], again["status"]) == (1, 4, "failed"), said


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            "20990101t000000",
            f"groups/: There is no record of group 20990101t000000; there are {GROUP}.",
        ),
        (f"{GROUP} --from mosaic", "There is no step 'mosaic'; the steps are convert"),
        (
            f"{GROUP} --from image --set flag.rfi=off",
            "The setting would have no effect: --from image reuses the artifact of flag.",
        ),
        ("", "--group"),
    ],
)
def test_wrong_reprocess_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: str, found: str
) -> None:
    bad_group(tmp_path)
    assert run_here("reprocess", *words.split(), "--store", str(tmp_path)) == 2
    assert found in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "groups").iterdir()] == ["20260125t011431-a1.json"]
    assert not (tmp_path / "runs").exists()


def test_reprocess_requires_artifacts_before_first(tmp_path: Path) -> None:
    group = bad_group(tmp_path)
    code, answer, said = contimg("reprocess", group, "--from", "image", "--store", str(tmp_path))
    assert (code, answer) == (2, {})
    assert "artifacts of convert, flag, calibrate" in said
    assert not (tmp_path / f"groups/{group}-a2.json").exists()
