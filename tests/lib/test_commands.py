"""``contimg COMMAND``: found by entry points, and all commands keep one contract."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contimg.runtime.contract import command
from contimg.runtime.errors import BadFileError, Exit, Stopped
from contimg.runtime.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
COMMANDS = sorted(entry_points(group="contimg.commands"), key=lambda point: point.name)
EXPECTED = {"run", "status", "demo", "catalogue", "upload", "export-ms", "import-ms"}


def contimg(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "contimg", *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help_lists_every_command(words: tuple[str, ...]) -> None:
    done = contimg(*words)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("usage: contimg COMMAND")
    listed = done.stdout.partition("commands:")[2].split()
    assert listed == sorted(listed) == [point.name for point in COMMANDS]


def test_the_version_is_the_distribution_s() -> None:
    assert contimg("--version").stdout == f"contimg {version('contimg')}\n"


@pytest.mark.parametrize("name", ["launch", "Run", "--verbose", ""])
def test_an_unknown_command_is_told_the_known_ones(name: str) -> None:
    done = contimg(name)
    assert done.returncode == Exit.USAGE
    assert done.stdout == ""
    assert f"no command {name!r}" in done.stderr
    assert all(point.name in done.stderr for point in COMMANDS)


def test_the_commands_are_all_there_once() -> None:
    assert len({point.name for point in COMMANDS}) == len(COMMANDS)
    assert {point.name for point in COMMANDS} >= EXPECTED


@pytest.mark.parametrize("point", COMMANDS, ids=lambda point: point.name)
def test_a_command_can_be_loaded_and_explains_itself(point: EntryPoint) -> None:
    assert callable(point.load())
    done = contimg(point.name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage: contimg")
    assert point.name in done.stdout.splitlines()[0]
    assert done.stderr == ""


@pytest.mark.parametrize("point", COMMANDS, ids=lambda point: point.name)
def test_a_wrong_option_ends_with_2_and_nothing_on_stdout(
    point: EntryPoint, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = point.load()(["--no-such-option", "1"])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (Exit.USAGE, "")
    assert "usage:" in err


class CountOptions(Options):
    """Count."""

    up_to: int = 3
    """Where to end."""


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

        return command("contimg count", CountOptions, work, words)

    def test_stdout_is_one_line_of_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(None, "--up-to", "7") == 0
        out, err = capsys.readouterr()
        assert out == '{"counted": 7}\n'
        assert json.loads(err)["stage"] == "count"
        assert json.loads(err)["message"].startswith("counting to 7 with ")

    @pytest.mark.parametrize(
        ("raised", "code", "trace"),
        [
            (BadFileError("x", "expected y, found z.", "Do it."), Exit.BAD_FILE, False),
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

    def test_the_engine_finds_summary_or_failure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CONTIMG_OUTPUTS", str(tmp_path / "a/b"))
        self.run()
        assert {path.name for path in (tmp_path / "a/b").iterdir()} == {"summary.json"}, (
            "no artifact was made"
        )
        assert json.loads((tmp_path / "a/b/summary.json").read_text()) == json.loads(
            capsys.readouterr().out
        )
        monkeypatch.setenv("CONTIMG_OUTPUTS", str(tmp_path / "c"))
        self.run(BadFileError("x", "expected y, found z.", "Do it."))
        failure = json.loads((tmp_path / "c/failure.json").read_text())
        assert failure == {
            "exit": 10,
            "name": "BAD_FILE",
            "reason": "x: expected y, found z. Do it.",
        }

    def test_what_prints_for_people_tells_no_summary(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def work(options: CountOptions, console: Any, env: Any) -> dict[str, Any]:
            del console, env
            if options.up_to < 0:
                raise BadFileError("x", "expected y, found z.", "Do it.")
            print("one, two")  # noqa: T201 - what such a command is for
            return {}

        assert command("contimg count", CountOptions, work, [], tell=False) == 0
        assert capsys.readouterr().out == "one, two\n"
        assert (
            command("contimg count", CountOptions, work, ["--up-to=-1"], tell=False)
            == Exit.BAD_FILE
        )
        # Plain words, though this is no terminal.
        assert capsys.readouterr() == ("", "contimg-count: ERROR x: expected y, found z. Do it.\n")

    def test_a_wrong_line_never_starts_the_work(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            self.run(AssertionError("started"), "--up-to", "far")
        assert ended.value.code == Exit.USAGE
        assert "--up-to" in capsys.readouterr().err


def test_a_command_that_follows_stops_when_told(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    argv = [BIN / "contimg-watch", "--store", tmp_path / "store", "--follow", "--interval-s", "0.2"]
    ready = tmp_path / "stderr"
    with ready.open("wb") as sink:
        child = subprocess.Popen(
            argv,
            stderr=sink,
            stdout=subprocess.PIPE,
            env={**os.environ, "CONTIMG_LOG_LEVEL": "DEBUG"},
        )
        deadline = time.monotonic() + 30
        while _handles(child.pid, signal.SIGTERM) is False and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=20)
    assert child.returncode == Exit.TERMINATED


def _handles(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal (SigCgt of its status)."""
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    return bool(int(fields["SigCgt"], 16) >> (number - 1) & 1)
