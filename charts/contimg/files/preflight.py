# ruff: noqa: INP001 - a script, in no package
"""Ask the store whether bucket, keys and conditional puts are as they must be; helm runs this before each install."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from contimg.runtime.contract import command
from contimg.runtime.options import Options
from contimg.runtime.store import open_store
from contimg_watch.probe import probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg.runtime.console import Console


class PreflightOptions(Options):
    """Check a store before anything rests on it."""

    store: str
    """Root URI of the store."""


def check(options: PreflightOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Let 32 writers create one object; exactly one may win."""
    store = open_store(options.store)
    probe(store)
    console.log.info("%s: reached, and exactly one of many writers wins", store.root)
    return {"stage": "preflight", "store": store.root}


if __name__ == "__main__":
    sys.exit(command("contimg preflight", PreflightOptions, check))
