"""What this process and its children took of the machine so far."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from contimg.runtime.manifest import Usage


def usage() -> Usage:
    """Measure from the start of the process until now; children count once they have ended."""
    mine, children = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    cpu_s = mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime
    peak_kib = _peak_kib() + children.ru_maxrss
    return Usage(
        wall_s=round(_age_s(), 3), cpu_s=round(cpu_s, 3), peak_memory_bytes=peak_kib * 1024
    )


def _peak_kib() -> int:
    """Return the largest resident size of this program, KiB."""
    # Not ru_maxrss: that remembers what the process was before it became this program, such as a large parent's fork.
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0])


def _age_s() -> float:
    """Return how long ago the kernel started this process, seconds."""
    # After the name in brackets, which may hold anything; field 22 of proc(5).
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    return up_s - ticks / os.sysconf("SC_CLK_TCK")
