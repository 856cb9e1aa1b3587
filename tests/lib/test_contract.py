"""The contract of a stage, kept by a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba
import pytest

import toys
from contimg.runtime import contract
from contimg.runtime.child import LINEAR_ALGEBRA
from contimg.runtime.compiled import compile_loops
from contimg.runtime.errors import Exit
from contimg.runtime.manifest import MANIFEST, read_manifest
from toys import summary, toy
from waiting import wait_for


def test_outputs_manifest_and_summary_agree(tmp_path: Path) -> None:
    said = summary(toy("--out", str(tmp_path), "--word", "abc"))
    manifest = read_manifest(said["artifact"])
    assert (Path(said["artifact"]) / "word.txt").read_text() == "abc"
    assert manifest.output("word.txt").bytes == 3
    assert manifest.metrics == {"letters": 3}
    assert manifest.options["word"] == "abc"
    assert said["key"] == manifest.key == Path(said["artifact"]).name


def test_same_work_is_cached(tmp_path: Path) -> None:
    first = summary(toy("--out", str(tmp_path)))
    written = (Path(first["artifact"]) / MANIFEST).stat().st_mtime_ns
    again = summary(toy("--out", str(tmp_path)))
    assert (first["cached"], again["cached"]) == (False, True)
    assert (Path(first["artifact"]) / MANIFEST).stat().st_mtime_ns == written


def test_input_enters_key_by_its_bytes(tmp_path: Path) -> None:
    made = [toy("--out", f"{tmp_path}/{place}", "--word", place[0]) for place in ("x", "x2", "y")]
    sources = [summary(done)["artifact"] for done in made]
    keys = [summary(toy("--out", str(tmp_path), "--source", source))["key"] for source in sources]
    assert keys[0] == keys[1] != keys[2]


def test_damaged_input_is_refused(tmp_path: Path) -> None:
    source = summary(toy("--out", str(tmp_path)))["artifact"]
    (Path(source) / "word.txt").write_text("hellO")
    done = toy("--out", str(tmp_path / "b"), "--source", source)
    assert done.returncode == Exit.BAD_INPUT
    assert "damaged" in json.loads(done.stderr.splitlines()[-1])["message"]


class TestConfig:
    """``--config`` on a stage: its section of a document of options."""

    def word(self, tmp_path: Path, *words: str) -> str:
        answer = summary(toy("--out", str(tmp_path / "out"), *words))
        return (Path(answer["artifact"]) / "word.txt").read_text()

    @pytest.mark.parametrize("kind", ["text", "file", "uri"])
    def test_section_sets_options(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "options.yaml"
        path.write_text("toy:\n  word: from\n  count: 2\nflag:\n  word: no\n")
        sources = {"text": path.read_text(), "file": str(path), "uri": f"file://{path}"}
        assert self.word(tmp_path, "--config", sources[kind]) == "fromfrom"

    @pytest.mark.parametrize("text", ["{flag: {word: no}}", "{}", "{toy: {word: '', count: }}"])
    def test_other_sections_and_empty_values_are_ignored(self, tmp_path: Path, text: str) -> None:
        assert self.word(tmp_path, "--config", text) == "hello"
        assert self.word(tmp_path, "--config", "", "--count", "") == "hello"

    def test_flags_win_over_document(self, tmp_path: Path) -> None:
        text = "{toy: {word: document, count: 3}}"
        assert self.word(tmp_path, "--config", text, "--word", "x") == "xxx"
        assert self.word(tmp_path, "--config", text, "--word", "", "--count=1") == "document"

    @pytest.mark.parametrize(
        ("config", "problem"),
        [
            ("{toy: {colour: red}}", "--colour: there is no such option"),
            ("{toy: [", "options: This is not YAML: "),
            ("{toy: {count: 10}}", "--count: Input should be less than or equal to 9, found 10"),
            ("{toy: loud}", "A mapping of options is expected, not 'loud'."),
            ("no/such/file.yaml", "no/such/file.yaml: The file cannot be read: "),
        ],
    )
    def test_wrong_document_is_refused(self, tmp_path: Path, config: str, problem: str) -> None:
        words = ("--out", str(tmp_path / "out"), "--config", config)
        done = toy(*words, CONTIMG_OUTPUTS=str(tmp_path / "handed"))
        assert done.returncode == Exit.USAGE
        assert problem in done.stderr
        failure = json.loads((tmp_path / "handed" / "failure.json").read_text())
        assert problem in failure["reason"]

    def test_section_of_unknown_stage_is_refused(self, tmp_path: Path) -> None:
        words = ("--ms=x", f"--out={tmp_path}", "--config={flga: {tfcrop: true}}")
        done = toys.run(sys.executable, "-m", "contimg_flag", *words)
        assert done.returncode == Exit.USAGE
        assert "There is no stage 'flga'; there are calibrate, convert, flag" in done.stderr
        assert not (tmp_path / "out").exists()


def test_empty_value_counts_as_not_given(tmp_path: Path) -> None:
    done = toy("--out", str(tmp_path), "--source", "", "--loud", "false")
    assert summary(done)["cached"] is False


def test_help_has_docstrings_defaults_and_section() -> None:
    done = toy("--help")
    assert done.returncode == 0
    for words in ("Write a word", "100 % of it", "Default: hello", "bug|data"):
        assert words in done.stdout
    assert "with a section 'toy'" in " ".join(done.stdout.split())


def started(tmp_path: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a stage and return it when its output is written."""
    child = subprocess.Popen(
        [*toys.TOY, "--out", str(tmp_path / "out"), *words],
        env=toys.ENVIRONMENT | {"CONTIMG_SCRATCH": str(tmp_path / "scratch")},
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: list((tmp_path / "out").rglob("word.txt")))
    time.sleep(0.3)
    return child


def sleeping() -> bool:
    return "sleep 61" in subprocess.check_output(["ps", "-eo", "args"], text=True)


@pytest.mark.parametrize("do", ["sleep", "child", "finaliser", "compiled", "swallowed", "tidy"])
def test_sigterm_stops_stage_and_its_child(tmp_path: Path, do: str) -> None:
    child = started(tmp_path, "--do", do)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == Exit.TERMINATED
    assert not list(tmp_path.rglob(MANIFEST))
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (tmp_path / "tidied").exists() == (do == "tidy")
    assert not sleeping()


def test_killed_stage_leaves_no_child_and_no_artifact(tmp_path: Path) -> None:
    child = started(tmp_path, "--do", "child", "--word", "killed")
    child.kill()
    child.wait(10)
    wait_for(lambda: not sleeping())
    assert not list(tmp_path.rglob(MANIFEST))
    assert summary(toy("--out", str(tmp_path / "out"), "--word", "killed"))["cached"] is False


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, LINEAR_ALGEBRA["OPENBLAS_CORETYPE"]), ({"OPENBLAS_CORETYPE": "Zen"}, "Zen")],
)
def test_blas_environment_is_set_before_imports(given: dict[str, str], found: str) -> None:
    """A library reads the variable when it is loaded; a value of the environment wins."""
    code = (
        "import atexit, os, sys\n"
        "from contimg.runtime.contract import main\nfrom toy.options import STAGE\n"
        "show = lambda: (os.environ['OPENBLAS_CORETYPE'], 'numpy' in sys.modules)\n"
        "atexit.register(lambda: print(*show(), file=sys.stderr))\nmain(STAGE, ['--help'])"
    )
    done = toys.run(sys.executable, "-c", code, env=toys.ENVIRONMENT | given, check=True)
    assert done.stderr == f"{found} False\n"


def test_argo_gets_progress(tmp_path: Path) -> None:
    summary(toy("--out", str(tmp_path), ARGO_PROGRESS_FILE=str(tmp_path / "progress")))
    assert (tmp_path / "progress").read_text() == "1/2\n"


def test_read_only_installation_without_home_gets_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that it is taken back at the end
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    contract.provide_caches()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setattr(contract, "__file__", "/proc/self/contract.py")  # read-only even for root
    contract.provide_caches()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).is_relative_to(tmp_path)
    assert not (tmp_path / f"contimg-{os.getuid()}").stat().st_mode & 0o077


def test_loops_compile_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    place: dict[str, Any] = {}
    # Beside a file of /proc not even root can write.
    exec(compile("def double(x): return 2 * x", "/proc/version", "exec"), place)  # noqa: S102
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(place["double"])
    assert compile_loops()(place["double"])(21) == 42
