"""A stage that obeys the contract, and fails in every way that it knows."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from contimg.context import Context, Outcome
from contimg.errors import BadFileError
from contimg.manifest import QA

if TYPE_CHECKING:
    from toy.options import ToyOptions


def run(options: ToyOptions, context: Context) -> Outcome:
    with context.step("write"):
        text = options.word.upper() if options.loud else options.word
        if options.source:
            text += context.fetch(options.source, "word.txt").read_text()
        context.write("word.txt", text.encode())
    context.progress(1, 2)
    _end(options, context)
    return Outcome(metrics={"letters": len(text)}, qa=QA(verdict="good"))


def _end(options: ToyOptions, context: Context) -> None:
    if options.do == "bug":
        raise ZeroDivisionError("no")
    if options.do == "data":
        raise BadFileError("x.hdf5", "145 bytes", "0 bytes", "Send it again.")
    if options.do == "full":
        raise OSError(28, "No space left on device")
    if options.do == "sleep":
        time.sleep(60)
    if options.do == "child":
        context.run(["sleep", "61"], timeout_s=60)
    if options.do == "segfault":
        os.abort()
