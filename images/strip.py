"""Remove debug symbols from shared libraries that still load without. Standard library only.

strip.py FILE…

GNU strip misplaces segments of many libraries that auditwheel has put into wheels (the loader then
says "not page-aligned"), so each result is checked, and the original is kept if it is not sound.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

LITTLE_64 = b"\x7fELF\x02\x01"
LOAD = 1
"""Type of a segment that is mapped into memory."""


def is_loadable(elf: bytes) -> bool:
    """Say whether every segment of an ELF file can be mapped: offset and address agree in a page.

    The file is 64-bit and little-endian.
    """
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for at in range(start, start + size * count, size):
        (kind,) = struct.unpack_from("<I", elf, at)
        offset, address = struct.unpack_from("<QQ", elf, at + 8)
        (align,) = struct.unpack_from("<Q", elf, at + 48)
        if kind == LOAD and (offset - address) % max(align, 1):
            return False
    return True


def strip_file(path: Path) -> int:
    """Strip one file in place; return the bytes saved."""
    part = path.with_name(f".{path.name}.stripped")
    done = subprocess.run(  # noqa: S603
        ["strip", "--strip-unneeded", "-o", part, path],  # noqa: S607
        capture_output=True,
        check=False,
    )
    before = path.stat().st_size
    if done.returncode == 0 and part.stat().st_size < before and is_loadable(part.read_bytes()):
        part.chmod(path.stat().st_mode)
        part.replace(path)
    part.unlink(missing_ok=True)
    return before - path.stat().st_size


def main(*files: str) -> None:
    """Strip them, and say how much that saved."""
    found = [path for path in map(Path, files) if path.read_bytes()[:6] == LITTLE_64]
    print(f"symbols taken out: {sum(map(strip_file, found)) / 1e6:.0f} MB")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
