"""What a stage says while it works: words and a bar for a person, one JSON object a line for a machine."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from contimg.runtime.context import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from contimg.runtime.errors import Exit


class Console(Progress):
    """stderr, and ``$ARGO_PROGRESS_FILE``."""

    def __init__(self, stage: str, env: Mapping[str, str], *, plain: bool = False) -> None:
        self.log = logging.getLogger("contimg")
        self._stage = stage
        self._file = Path(env["ARGO_PROGRESS_FILE"]) if env.get("ARGO_PROGRESS_FILE") else None
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._person = plain or (sys.stderr.isatty() and not env.get("CONTIMG_LOG_JSON"))
        self._out = self._handler()
        self.log.handlers = [self._out]
        self.log.propagate = False
        self._set_level(env.get("CONTIMG_LOG_LEVEL") or "INFO")

    def show(self, done: int, total: int) -> None:
        """Move the bar, or write a line; and tell Argo."""
        if self._file is not None:
            self._file.write_text(f"{done}/{total}\n")
        if self._person:
            self._move(done, total)
        else:
            self.log.debug("progress %d/%d", done, total)

    def fail(self, code: Exit, reason: str, *, trace: bool) -> None:
        """Say why the stage failed."""
        self.close()
        self.log.error("%s", reason, exc_info=trace, extra={"exit": int(code), "code": code.name})

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._out.setStream(sys.stderr)

    def _move(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console as Terminal  # only a person needs rich
            from rich.progress import Progress as NewBar

            # stdout is the summary's.
            self._bar = NewBar(console=Terminal(stderr=True), transient=True)
            self._task = self._bar.add_task(self._stage, total=total)
            self._bar.start()
            # The bar has put itself before stderr, so that words appear above it and not in it.
            self._out.setStream(sys.stderr)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def _set_level(self, name: str) -> None:
        if name.upper() in logging.getLevelNamesMapping():
            self.log.setLevel(name.upper())
        else:
            self.log.setLevel(logging.INFO)
            self.log.warning("CONTIMG_LOG_LEVEL is %r, which is no level; taking INFO", name)

    def _handler(self) -> logging.StreamHandler[TextIO]:
        handler = logging.StreamHandler(sys.stderr)
        form = "%(levelname)s %(message)s" if self._person else ""
        handler.setFormatter(
            logging.Formatter(f"contimg-{self._stage}: {form}")
            if self._person
            else _JsonLines(self._stage)
        )
        return handler


class _JsonLines(logging.Formatter):
    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "stage": self._stage,
            "message": record.getMessage(),
        }
        for name in ("exit", "code"):
            if hasattr(record, name):
                line[name] = getattr(record, name)
        if record.exc_info and record.exc_info[0] is not None:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
