"""Interference on single baselines, found by AOFlagger or CASA in the scratch copy."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from contimg.runtime.errors import UsageError
from contimg.runtime.versions import tool_version

if TYPE_CHECKING:  # not needed in the CASA child
    from contimg.runtime.context import Context
    from contimg_flag.visibilities import Visibilities

TIMEOUT_S = 900.0
"""A full-size group takes AOFlagger about 40 s on one core and CASA about 160 s."""
CHUNK_CHANNELS = 48
"""Channels that AOFlagger flags together: one subband at full size."""
MIN_INTEGRATIONS = 12
"""With fewer integrations the background cannot be told from fringes: the threshold is raised to
where fringes of 16 Jy stay."""
THRESHOLD_BASE, RAISED_THRESHOLD_BASE = 1.0, 1.4
BRIGHT = 20.0
"""Amplitude of the sky over the noise from which the threshold is raised in proportion: the fringes
of a second source stand above the noise as the first one does, and no background follows them."""
MEMORY_FACTOR = 1.6
"""Memory of AOFlagger over the bytes of DATA; 2.1 GB at full size."""


def run_aoflagger(vis: Visibilities, context: Context, brightness: float) -> None:
    """Run AOFlagger with our strategy, on one thread so that the same data give the same flags.

    `brightness` is the amplitude of the sky over the noise of a visibility.
    Raises UsageError if it is not installed; ChildFailedError, ChildTimedOutError with the end of
    its log.
    """
    if tool_version("aoflagger") == "absent":
        problem = "The program aoflagger is not on the PATH."
        remedy = "Install Debian's package aoflagger (make tools), or choose --rfi casa."
        raise UsageError("--rfi aoflagger", problem, remedy)
    context.need(0, memory=int(MEMORY_FACTOR * vis.flags.size * 8))
    few = len(vis.times_s) < MIN_INTEGRATIONS
    base = RAISED_THRESHOLD_BASE if few else THRESHOLD_BASE
    base *= max(1.0, brightness / BRIGHT)
    settings = f"base = {base:.3f}; chunk = {CHUNK_CHANNELS}"
    argv = ["aoflagger", "-j", "1", "-memory-read", "-preamble", settings, "-strategy"]
    with vis.flags_on_disk(), as_file(files("contimg_flag") / "dsa110.lua") as strategy:
        context.run([*argv, str(strategy), str(vis.path)], TIMEOUT_S)


def call_flagdata(ms: str) -> bool:
    """Flag the DATA of a Measurement Set by tfcrop, then rflag, with their defaults; in a child."""
    from casatasks import flagdata

    for mode in ("tfcrop", "rflag"):
        flagdata(vis=ms, mode=mode, datacolumn="data", action="apply", flagbackup=False, display="")
    return True
