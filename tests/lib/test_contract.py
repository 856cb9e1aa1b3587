"""The contract of a stage, kept by a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime.blas_env import LINEAR_ALGEBRA
from contimg.runtime.errors import MEANING, Exit, meaning_of, retry_of
from contimg.runtime.manifest import MANIFEST, read_manifest

PACKAGES = Path(__file__).parents[1] / "support" / "packages"
# toy is no installed package.
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGES), "TMPDIR": "/tmp"}


def stage(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "toy", *words]
    return subprocess.run(
        argv,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    return answer


def test_outputs_then_manifest_then_summary(tmp_path: Path) -> None:
    said = summary(stage("--out", str(tmp_path), "--word", "abc"))
    manifest = read_manifest(said["artifact"])
    assert (Path(said["artifact"]) / "word.txt").read_text() == "abc"
    assert manifest.output("word.txt").bytes == 3
    assert manifest.metrics == {"letters": 3}
    assert manifest.options["word"] == "abc"
    assert said["key"] == manifest.key == Path(said["artifact"]).name


def test_the_same_work_again_is_cached(tmp_path: Path) -> None:
    first = summary(stage("--out", str(tmp_path)))
    written = (Path(first["artifact"]) / MANIFEST).stat().st_mtime_ns
    again = summary(stage("--out", str(tmp_path)))
    assert (first["cached"], again["cached"]) == (False, True)
    assert (Path(first["artifact"]) / MANIFEST).stat().st_mtime_ns == written


@pytest.mark.parametrize("change", [["--word", "other"], ["--loud"], ["--words", "a,b"]])
def test_other_options_are_other_work(tmp_path: Path, change: list[str]) -> None:
    keys = {summary(stage("--out", str(tmp_path), *words))["key"] for words in ([], change)}
    assert len(keys) == 2


def test_the_place_is_not_in_the_key(tmp_path: Path) -> None:
    keys = {summary(stage("--out", str(tmp_path / place)))["key"] for place in "ab"}
    assert len(keys) == 1


def test_an_input_enters_the_key_by_its_bytes(tmp_path: Path) -> None:
    sources = [
        summary(stage("--out", str(tmp_path / p), "--word", w))["artifact"]
        for p, w in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    keys = [summary(stage("--out", str(tmp_path), "--source", source))["key"] for source in sources]
    assert keys[0] == keys[1] != keys[2]


def test_a_damaged_input_is_refused(tmp_path: Path) -> None:
    source = summary(stage("--out", str(tmp_path)))["artifact"]
    (Path(source) / "word.txt").write_text("hellO")
    done = stage("--out", str(tmp_path / "b"), "--source", source)
    assert done.returncode == Exit.BAD_INPUT
    assert "damaged" in last_line(done)["message"]


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    done = stage("--out", str(tmp_path), "--source", str(tmp_path / "nothing"))
    assert done.returncode == Exit.NOT_FOUND
    assert "nothing" in last_line(done)["message"]


@pytest.mark.parametrize(
    ("do", "code", "words"),
    [
        ("data", Exit.BAD_FILE, "x.hdf5: expected 145 bytes, found 0 bytes. Send it again."),
        ("full", Exit.NO_ROOM, "No space left"),
        ("bug", Exit.BUG, "ZeroDivisionError"),
    ],
)
def test_failures_have_codes_and_reasons(tmp_path: Path, do: str, code: Exit, words: str) -> None:
    done = stage(
        "--out",
        str(tmp_path / "out"),
        "--do",
        do,
        env={"CONTIMG_OUTPUTS": str(tmp_path / "handed")},
    )
    assert done.returncode == code
    assert words in last_line(done)["message"]
    assert last_line(done)["code"] == code.name
    assert done.stdout == ""
    assert not list(tmp_path.rglob(MANIFEST))
    assert words in json.loads((tmp_path / "handed" / "failure.json").read_text())["reason"]


def test_only_bugs_show_a_trace(tmp_path: Path) -> None:
    assert "Traceback" in last_line(stage("--out", str(tmp_path), "--do", "bug"))["trace"]
    assert "trace" not in last_line(stage("--out", str(tmp_path), "--do", "data"))


@pytest.mark.parametrize(
    "words",
    [["--unknown", "1"], [], ["--out", "x", "--do", "dance"], ["--out", "x", "--loud", "perhaps"]],
)
def test_a_wrong_command_line_ends_with_2(words: list[str]) -> None:
    done = stage(*words)
    assert done.returncode == Exit.USAGE
    assert "usage:" in done.stderr


class TestConfig:
    """``--config`` on a stage: its section of a document of options."""

    def word(self, tmp_path: Path, *words: str) -> str:
        answer = summary(stage("--out", str(tmp_path / "out"), *words))
        return (Path(answer["artifact"]) / "word.txt").read_text()

    @pytest.mark.parametrize("kind", ["text", "file", "uri"])
    def test_a_section_sets_options(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "options.yaml"
        path.write_text("toy:\n  word: from\n  count: 2\nother:\n  word: no\n")
        sources = {"text": path.read_text(), "file": str(path), "uri": f"file://{path}"}
        assert self.word(tmp_path, "--config", sources[kind]) == "fromfrom"

    @pytest.mark.parametrize("text", ["{other: {word: no}}", "{}", "{toy: {word: '', count: }}"])
    def test_other_sections_and_empty_values_count_as_not_given(
        self, tmp_path: Path, text: str
    ) -> None:
        assert self.word(tmp_path, "--config", text) == "hello"
        assert self.word(tmp_path, "--config", "", "--count", "") == "hello"

    def test_flags_win_over_the_document(self, tmp_path: Path) -> None:
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
    def test_a_wrong_document_is_refused_before_anything_runs(
        self, tmp_path: Path, config: str, problem: str
    ) -> None:
        env = {"CONTIMG_OUTPUTS": str(tmp_path / "handed")}
        done = stage("--out", str(tmp_path / "out"), "--config", config, env=env)
        assert done.returncode == Exit.USAGE
        assert problem in done.stderr
        assert problem in json.loads((tmp_path / "handed" / "failure.json").read_text())["reason"]
        assert not (tmp_path / "out").exists()

    def test_help_names_the_section(self) -> None:
        assert "with a section 'toy'" in " ".join(stage("--help").stdout.split())


def test_empty_value_counts_as_not_given(tmp_path: Path) -> None:
    assert (
        summary(stage("--out", str(tmp_path), "--source", "", "--loud", "false"))["cached"] is False
    )


def test_help_is_the_docs() -> None:
    done = stage("--help")
    assert done.returncode == 0
    for words in ("Write a word", "100 % of it", "Default: hello", "bug|data"):
        assert words in done.stdout


@pytest.mark.parametrize("do", ["sleep", "child", "finaliser", "compiled", "swallowed", "tidy"])
def test_sigterm_stops_stage_and_its_child(tmp_path: Path, do: str) -> None:
    argv = [sys.executable, "-m", "toy", "--out", str(tmp_path / "out"), "--do", do]
    child = subprocess.Popen(
        argv,
        env={**ENVIRONMENT, "CONTIMG_SCRATCH": str(tmp_path / "scratch")},
        stderr=subprocess.PIPE,
    )
    word = tmp_path / "out"
    deadline = time.monotonic() + 60
    while not list(word.rglob("word.txt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == Exit.TERMINATED
    assert not list(tmp_path.rglob(MANIFEST))
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (tmp_path / "tidied").exists() == (do == "tidy")
    assert (
        "sleep 61"
        not in subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_killed_stage_leaves_no_child_and_no_artifact(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "toy",
        "--out",
        str(tmp_path / "out"),
        "--do",
        "child",
        "--word",
        "killed",
    ]
    child = subprocess.Popen(
        argv, env={**ENVIRONMENT, "CONTIMG_SCRATCH": str(tmp_path / "scratch")}
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").rglob("word.txt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    child.kill()
    child.wait(10)
    deadline = time.monotonic() + 30
    while (
        "sleep 61"
        in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    ):
        assert time.monotonic() < deadline
    assert not list(tmp_path.rglob(MANIFEST))
    assert summary(stage("--out", str(tmp_path / "out"), "--word", "killed"))["cached"] is False


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
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**ENVIRONMENT, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == f"{found} False\n"


def test_progress_for_argo(tmp_path: Path) -> None:
    summary(stage("--out", str(tmp_path), env={"ARGO_PROGRESS_FILE": str(tmp_path / "progress")}))
    assert (tmp_path / "progress").read_text() == "1/2\n"


def test_outputs_are_handed_to_the_engine(tmp_path: Path) -> None:
    said = summary(
        stage("--out", str(tmp_path / "o"), env={"CONTIMG_OUTPUTS": str(tmp_path / "h")})
    )
    assert (tmp_path / "h" / "artifact").read_text() == said["artifact"]
    assert json.loads((tmp_path / "h" / "summary.json").read_text()) == said


def test_every_exit_code_has_a_meaning_and_a_rule() -> None:
    for code in Exit:
        assert meaning_of(code)
        retried = retry_of(code).limit > 0
        assert retried == (20 <= code <= 29), code
    assert retry_of(139).limit == 1
    assert retry_of(99).limit == 0
    assert {-1, 64, 137, 143, 134, 139} < set(MEANING)
