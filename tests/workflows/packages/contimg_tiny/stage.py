"""A stage that obeys the contract, and fails in every way that it knows."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadFileError, StoreError

if TYPE_CHECKING:
    from contimg_tiny.options import TinyOptions


def run(options: TinyOptions, context: Context) -> StageResult:
    before = [
        context.fetch(uri, "word.txt").read_text() for uri in (options.source, options.other) if uri
    ]
    context.progress(1, 2)
    context.write("first.txt", b"half")
    if _count(options) <= options.times:
        _end(options)
    time.sleep(options.nap_s)
    after = Path(options.after)
    while options.after and not any(after.parent.glob(after.name)):
        time.sleep(0.02)
    with context.step("write"):
        context.write("word.txt", " ".join([*before, options.word]).encode())
    return StageResult(metrics={"words": len(before) + 1})


def _count(options: TinyOptions) -> int:
    """Leave a mark for each process, and return how many this word had."""
    # Marks are files; a store in S3 keeps none.
    if not options.store or "://" in options.store:
        return 1
    folder = Path(options.store)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{options.word}.{time.time_ns()}.{os.getpid()}").touch()
    return len(list(folder.glob(f"{options.word}.*")))


def _end(options: TinyOptions) -> None:
    if options.do == "data":
        raise BadFileError("x.hdf5", "expected 145 bytes, found 0 bytes.", "Send it again.")
    if options.do == "world":
        raise StoreError("s3://x", "expected an answer, found none.", "Look at the network.")
    if options.do == "bug":
        raise ZeroDivisionError("no")
    if options.do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if options.do == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.do in {"sleep", "deaf"}:
        time.sleep(60)
