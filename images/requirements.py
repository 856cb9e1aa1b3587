"""Which entries of requirements.lock a package of ours needs. Standard library only.

requirements.py direct FOLDER…   what their pyproject.toml ask for, of others
requirements.py locked LOCK      the lines of LOCK, with their hashes, for the names on stdin
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EXTRA = re.compile(r"contimg\[(\w+)\]")


def find_direct(folders: list[Path]) -> list[str]:
    """Return the dependencies of projects besides each other, including those of lib's extras."""
    projects = {
        data["name"]: data
        for data in (tomllib.loads((f / "pyproject.toml").read_text())["project"] for f in folders)
    }
    asked = [item for data in projects.values() for item in data["dependencies"]]
    extras = sorted({name for item in asked for name in EXTRA.findall(item)})
    asked += [
        item for extra in extras for item in projects["contimg"]["optional-dependencies"][extra]
    ]
    return sorted({item for item in asked if normalize_name(item) not in projects})


def find_locked(lock: str, names: set[str]) -> list[str]:
    """Return the entries of a lock file for `names`.

    Raises
    ------
    SystemExit
        If a name is not in it.
    """
    entries = re.findall(r"^\S.*(?:\n[ \t].*)*", lock, re.MULTILINE)
    missing = names - {normalize_name(entry) for entry in entries}
    if missing:
        sys.exit(f"requirements.lock lacks {', '.join(sorted(missing))}: run `make lock`.")
    return [entry for entry in entries if normalize_name(entry) in names]


def normalize_name(requirement: str) -> str:
    """Return the normalised name that a requirement begins with."""
    found = NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def main(what: str, *arguments: str) -> None:
    """Print the answer, one requirement after the other."""
    if what == "direct":
        lines = find_direct([Path(argument) for argument in arguments])
    else:
        lines = find_locked(
            Path(arguments[0]).read_text(), {normalize_name(line) for line in sys.stdin} - {""}
        )
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
