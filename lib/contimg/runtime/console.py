"""Log and progress of a stage: plain lines and a bar on a terminal, else one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contimg.runtime.errors import Exit

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Console:
    """Writes to stderr, and progress to ``$ARGO_PROGRESS_FILE``."""

    def __init__(self, stage: str, env: Mapping[str, str], *, plain: bool = False) -> None:
        self.log = logging.getLogger("contimg")
        self._stage = stage
        self._file = Path(env["ARGO_PROGRESS_FILE"]) if env.get("ARGO_PROGRESS_FILE") else None
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._plain = plain or (sys.stderr.isatty() and not env.get("CONTIMG_LOG_JSON"))
        self._out = logging.StreamHandler(sys.stderr)
        self._out.setFormatter(logging.Formatter(f"contimg-{stage}: %(levelname)s %(message)s"))
        if not self._plain:
            self._out.setFormatter(lines := _JsonLines())
            lines.stage = stage
        self.log.handlers = [self._out]
        self.log.propagate = False
        level = (env.get("CONTIMG_LOG_LEVEL") or "INFO").upper()
        known = level in logging.getLevelNamesMapping()
        self.log.setLevel(level if known else logging.INFO)
        if not known:
            self.log.warning("CONTIMG_LOG_LEVEL=%r is not a level; using INFO", level.lower())

    def show(self, done: int, total: int) -> None:
        """Move the bar, or write a line; and write Argo's file."""
        if self._file is not None:
            self._file.write_text(f"{done}/{total}\n")
        if not self._plain:
            self.log.debug("progress %d/%d", done, total)
            return
        if self._bar is None:
            from rich.console import Console as Terminal  # slow to import
            from rich.progress import Progress as NewBar

            # stdout is the summary's.
            self._bar = NewBar(console=Terminal(stderr=True), transient=True)
            self._task = self._bar.add_task(self._stage, total=total)
            self._bar.start()
            # The bar has replaced stderr, so that log lines appear above it and not in it.
            self._out.setStream(sys.stderr)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def fail(self, code: Exit, reason: str, *, trace: bool) -> None:
        """Log why the stage failed."""
        self.close()
        self.log.error("%s", reason, exc_info=trace, extra={"exit": int(code), "code": code.name})

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._out.setStream(sys.stderr)


class _JsonLines(logging.Formatter):
    stage = ""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "stage": self.stage,
            "message": record.getMessage(),
            **{name: vars(record)[name] for name in ("exit", "code") if name in vars(record)},
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
