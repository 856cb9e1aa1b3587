"""``contimg COMMAND``: found by entry points, and all commands keep one contract."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import toys
from contimg.runtime.command import Command, command_points
from contimg.runtime.contract import run_command
from contimg.runtime.errors import BadFileError, Exit, Stopped
from contimg.runtime.options import Options, first_sentence
from contimg.runtime.stage import StageSpec, stage_specs
from waiting import wait_for

counting = sys.modules["counting"] = ModuleType("counting")
BIN = Path(sys.executable).parent
COMMANDS = command_points()
EXPECTED = {"run", "status", "demo", "catalogue", "completion", "upload", "export-ms", "import-ms"}
BAD_FILE = BadFileError("x", "expected y, found z.", "Do it.")


def contimg(*words: str) -> toys.Done:
    return toys.run(BIN / "contimg", *words)


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help_lists_every_command(words: tuple[str, ...]) -> None:
    done = contimg(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: contimg COMMAND")
    lines = done.stdout.partition("commands:\n")[2].partition("\n\n")[0].splitlines()
    listed = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines}
    assert list(listed) == sorted(listed) == list(COMMANDS)
    assert set(listed) >= EXPECTED
    for name, text in listed.items():
        assert isinstance(COMMANDS[name].load(), Command | StageSpec)
        assert text
    assert listed["catalogue"][0].startswith("Add a catalogue")
    assert listed["catalogue"][0].endswith(".")


def test_version_is_that_of_the_distribution() -> None:
    assert contimg("--version").stdout == f"contimg {version('contimg')}\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lnit", "Did you mean lint"),
        ("catalog", "Did you mean catalogue?"),
        ("--verbose", "There are beam, begin, catalogue"),
        ("", "There are beam, begin, catalogue"),
    ],
)
def test_unknown_command_suggests_names(name: str, hint: str) -> None:
    done = contimg(name)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert f"There is no command {name!r}. {hint}" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help(name: str) -> None:
    done = contimg(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lower().startswith("usage: contimg")
    assert name in done.stdout.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_option_exits_with_2(name: str) -> None:
    done = contimg(name, "--no-such-option", "1")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "usage:" in done.stderr


def test_stage_spec_runs_as_a_command(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom types import SimpleNamespace\nfrom contimg.runtime import cli\n"
        "from toy.options import STAGE\n"
        "cli.command_points = lambda: {'toy': SimpleNamespace(load=lambda: STAGE)}\n"
        "sys.argv = ['contimg', 'toy', *sys.argv[1:]]\ncli.main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(toys.PACKAGES)}
    for words, exit_code in ((["--out", str(tmp_path)], 0), (["--do", "bug"], 2)):
        done = toys.run(sys.executable, "-c", code, *words, env=env)
        assert done.returncode == exit_code, done.stderr
        assert not done.stdout or json.loads(done.stdout)["stage"] == "toy"


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "candidates"),
        [
            ("contimg cat", "catalogue"),
            ("contimg comp", "completion"),
            ("contimg --v", "--version"),
            ("contimg catalogue ", "add"),
            ("contimg catalogue add x.fits --cat", "--catalogue"),
            ("contimg catalogue add x.fits --catalogue ra", "racs"),
            ("contimg catalogue add x.fits --catalogue = ra", "racs"),
            ("contimg catalogue add x.fits --catalogue = ", "nvss first racs vlass other"),
            ("contimg catalogue add ", ""),
            ("contimg completion ", "bash zsh fish"),
            ("contimg nothing --x", ""),
            ("contimg-image --tie", "--tier"),
            ("/usr/bin/contimg-image --conf", "--config"),
            ("contimg-image --tier qu", "quicklook"),
            ("contimg-image --tier=qu", "--tier=quicklook"),
        ],
    )
    def test_candidates(self, line: str, candidates: str) -> None:
        done = contimg("__complete", *line.split(" "))
        found = (done.returncode, done.stdout.split(), done.stderr)
        assert found == (0, candidates.split(), "")

    @pytest.mark.parametrize(
        ("words", "candidates"),
        [
            (["contimg", "cat"], ["catalogue"]),
            (["contimg-image", "--tier", "qu"], ["quicklook"]),
            (["contimg-image", "--tier", "=", "qu"], ["quicklook"]),
            (["contimg-image", "--tie"], ["--tier"]),
        ],
    )
    def test_bash_completes(self, words: list[str], candidates: list[str]) -> None:
        line = " ".join(f"'{word}'" for word in words)
        script = (
            'source <(contimg completion bash) && read -ra spec <<< "$(complete -p "$1")"\n'
            f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
            '"${spec[4]}" && printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = toys.run("bash", "-c", script, "bash", words[0], env=env, check=True)
        assert done.stdout.split() == candidates, done.stderr

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_script_is_valid_and_names_every_program(self, shell: str) -> None:
        script = contimg("completion", shell).stdout
        programs = {"contimg", *(spec.program for spec in stage_specs().values())}
        assert programs <= set(script.split())
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=script, text=True, timeout=60, check=True)

    def test_unknown_shell_is_refused(self) -> None:
        assert contimg("completion", "tcsh").returncode == Exit.USAGE


class CountOptions(Options):
    """Count. And more."""

    up_to: int = 3
    """Where to end."""


def test_first_sentence_summarises_a_command() -> None:
    assert first_sentence(CountOptions) == "Count."


def run_work(work: Callable[..., dict[str, Any]], *words: str, plain: bool = False) -> int:
    """Run a function as the command ``contimg count``."""
    counting.work = work  # type: ignore[attr-defined]
    how: dict[str, Any] = {"positional": ("up_to",), "plain": plain}
    return run_command(
        Command(name="count", options=CountOptions, run="counting:work", **how), words
    )


@pytest.fixture(autouse=True)
def _signals_are_given_back() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before, hook = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class TestCommand:
    def run(self, raised: BaseException | None = None, *words: str) -> int:
        def work(options: CountOptions, console: Any, env: Any) -> dict[str, Any]:
            console.log.info("counting to %d with %d variables", options.up_to, len(env))
            if raised is not None:
                raise raised
            return {"counted": options.up_to}

        return run_work(work, *words)

    @pytest.mark.parametrize("words", [["7"], ["--up-to", "7"]])
    def test_stdout_is_one_line_of_json(
        self, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(None, *words) == 0
        out, err = capsys.readouterr()
        assert out == '{"counted": 7}\n'
        assert json.loads(err)["stage"] == "count"
        assert json.loads(err)["message"].startswith("counting to 7 with ")

    @pytest.mark.parametrize(
        ("raised", "code", "trace"),
        [
            (BAD_FILE, Exit.BAD_FILE, False),
            (OSError(28, "No space left on device"), Exit.NO_ROOM, False),
            (OSError(122, "Quota exceeded"), Exit.NO_ROOM, False),
            (OSError(13, "Permission denied"), Exit.BUG, True),
            (MemoryError("8 GB"), Exit.NO_ROOM, True),
            (ValueError("surprise"), Exit.BUG, True),
            (Stopped(), Exit.TERMINATED, False),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
    )
    def test_failures_have_codes(
        self, raised: BaseException, code: Exit, *, trace: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(raised) == code
        out, err = capsys.readouterr()
        assert out == ""
        last = json.loads(err.splitlines()[-1])
        assert (last["exit"], last["code"]) == (code, code.name)
        assert ("trace" in last) == trace

    def test_engine_gets_summary_or_failure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CONTIMG_OUTPUTS", str(tmp_path / "a/b"))
        self.run()
        (file,) = (tmp_path / "a/b").iterdir()  # no artifact was made
        assert file.name == "summary.json"
        assert json.loads(file.read_text()) == json.loads(capsys.readouterr().out)
        monkeypatch.setenv("CONTIMG_OUTPUTS", str(tmp_path / "c"))
        self.run(BAD_FILE)
        failure = json.loads((tmp_path / "c/failure.json").read_text())
        reason = "x: expected y, found z. Do it."
        assert failure == {"exit": 10, "name": "BAD_FILE", "reason": reason}

    def test_plain_command_prints_no_summary(self, capsys: pytest.CaptureFixture[str]) -> None:
        def work(options: CountOptions, console: Any, env: Any) -> dict[str, Any]:
            del console, env
            if options.up_to < 0:
                raise BAD_FILE
            print("one, two")  # noqa: T201 - what such a command is for
            return {}

        assert run_work(work, plain=True) == 0
        assert capsys.readouterr().out == "one, two\n"
        assert run_work(work, "--up-to=-1", plain=True) == Exit.BAD_FILE
        # Plain words, though this is no terminal.
        assert capsys.readouterr() == ("", "contimg-count: ERROR x: expected y, found z. Do it.\n")

    def test_wrong_line_never_starts_the_work(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(AssertionError("started"), "--up-to", "far") == Exit.USAGE
        assert "--up-to" in capsys.readouterr().err


def test_following_command_stops_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    watch, store = str(BIN / "contimg-watch"), str(tmp_path / "store")
    argv = [watch, "--store", store, "--follow", "--interval-s", "0.2"]
    env = {**os.environ, "CONTIMG_LOG_LEVEL": "DEBUG"}
    null = subprocess.DEVNULL
    with subprocess.Popen(argv, stderr=null, stdout=null, env=env) as child:
        wait_for(lambda: _handles(child.pid, signal.SIGTERM), 30)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == Exit.TERMINATED


def _handles(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal (SigCgt of its status)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigCgt:\t")[2].split()[0], 16)
    return bool(mask >> (number - 1) & 1)
