"""A stage that keeps the contract, and fails in every way that it knows."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadFileError
from contimg.runtime.manifest import QA
from toy.options import ToyOptions


def run(options: ToyOptions, context: Context) -> StageResult:
    with context.step("write"):
        text = options.word * options.count
        text = text.upper() if options.loud else text
        if options.source:
            text += context.fetch(options.source, "word.txt").read_text()
        context.write("word.txt", text.encode())
    context.progress(1, 2)
    _end(options, context)
    return StageResult(metrics={"letters": len(text)}, qa=QA(verdict="good"))


def _end(options: ToyOptions, context: Context) -> None:
    if options.do == "bug":
        raise ZeroDivisionError("no")
    if options.do == "data":
        raise BadFileError("x.hdf5", "expected 145 bytes, found 0 bytes.", "Send it again.")
    if options.do == "full":
        raise OSError(28, "No space left on device")
    if options.do == "sleep":
        time.sleep(60)
    if options.do == "child":
        context.run(["sleep", "61"], timeout_s=60)
    if options.do == "killed":
        context.run(["sh", "-c", "kill -9 $$"], timeout_s=60)
    if options.do == "view":
        context.write("view.png", b"png")
        context.write("view.html", b"<html>")
    if options.do in {"finaliser", "compiled", "swallowed", "tidy"}:
        _hard_to_stop(options.do, context.scratch)
    if options.do == "segfault":
        os.abort()


class _Mortal:
    """Takes long to be removed; what is raised meanwhile is lost."""

    def __del__(self) -> None:
        time.sleep(60)


def _hard_to_stop(do: str, scratch: Path) -> None:
    """Lose the exception of a signal, make another error of it, or take long to end."""
    if do == "finaliser":
        _Mortal()
        time.sleep(60)
    if do == "swallowed":
        with suppress(BaseException):
            time.sleep(60)
        time.sleep(60)
    if do == "tidy":
        try:
            time.sleep(60)
        finally:
            time.sleep(1)
            (scratch.parents[2] / "tidied").touch()
    try:
        time.sleep(60)
    except BaseException as error:
        raise SystemError("returned a result with an exception set") from error
