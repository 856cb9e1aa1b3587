"""The toy stage as a real process, and manifests of artifacts that no stage made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contimg.runtime.manifest import QA, Manifest

PACKAGES = Path(__file__).parent / "packages"
# toy is no installed package.
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGES), "TMPDIR": "/tmp"}
TOY = (sys.executable, "-m", "toy")
Done = subprocess.CompletedProcess[str]


def run(*argv: str | Path, env: dict[str, str] | None = None, check: bool = False) -> Done:
    """Run a program; its output is text."""
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=check)


def toy(*words: str, **env: str) -> Done:
    return run(*TOY, *words, env=ENVIRONMENT | env)


def summary(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def toy_manifest(**changes: Any) -> Manifest:
    known: dict[str, Any] = {"stage": "toy", "version": "1", "key": "k", "qa": QA()}
    known |= {name: {} for name in ("options", "tools", "metrics", "seconds")}
    known |= {"inputs": (), "outputs": (), "created": datetime(2026, 1, 1, tzinfo=UTC)}
    return Manifest(**(known | changes))
