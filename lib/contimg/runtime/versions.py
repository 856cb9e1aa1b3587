"""What the bytes of a product depend on besides its inputs: our source and the versions of the tools."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROGRAMS = {"wsclean", "aoflagger"}


@functools.cache
def source_digest(*packages: str) -> str:
    """Return the sha256 over the source files of packages (Python, Lua and shipped data)."""
    digest = hashlib.sha256()
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(package)
        folder = Path(spec.origin).parent
        for path in sorted(
            p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts
        ):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def tool_version(tool: str) -> str:
    """Return the version of a program or a Python distribution; ``absent`` if it is not there."""
    if tool in PROGRAMS:
        return _program_version(tool)
    try:
        return version(tool)
    except PackageNotFoundError:
        return "absent"


def _program_version(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        return "absent"
    done = subprocess.run(  # noqa: S603
        [path, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    lines = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if "ersion" in line or program in line.lower()
    ]
    return lines[0].strip() if lines else "unknown"
