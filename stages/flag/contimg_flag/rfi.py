"""Interference, as AOFlagger or CASA see it in the scratch copy."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from contimg.astro.measures import call_casa
from contimg.runtime.errors import UsageError
from contimg.runtime.versions import tool_version

if TYPE_CHECKING:
    from contimg.runtime.context import Context
    from contimg_flag.visibilities import Visibilities

TIMEOUT_S = 900.0
"""A full-size group takes AOFlagger about 40 s on one core and CASA about 160 s."""
CHUNK_CHANNELS = 48
"""Channels that AOFlagger judges together: one subband at full size."""
FEW_INTEGRATIONS = 12
"""Below this many the background cannot be told from fringes, so the threshold is raised to where fringes of 16 Jy stay."""
BASE, BASE_OF_FEW = 1.0, 1.4
MEMORY_FACTOR = 1.6
"""Memory of AOFlagger over the bytes of DATA, as measured at full size: 2.1 GB."""


def aoflagger(visibilities: Visibilities, context: Context) -> None:
    """Run AOFlagger with our strategy; on one thread, so that the same data give the same flags.

    Raises
    ------
    UsageError
        If it is not installed.
    ChildFailedError, ChildTimedOutError
        With the end of its log.
    """
    if tool_version("aoflagger") == "absent":
        remedy = "Install Debian's package aoflagger (make tools), or choose --rfi casa."
        raise UsageError(
            "--rfi aoflagger", "expected the program aoflagger, found none on the PATH.", remedy
        )
    rows, channels, products = visibilities.shape
    context.need(0, int(MEMORY_FACTOR * rows * channels * products * 8))
    base = BASE if len(visibilities.times_s) >= FEW_INTEGRATIONS else BASE_OF_FEW
    visibilities.store()
    with as_file(files("contimg_flag") / "dsa110.lua") as strategy:
        argv = ["aoflagger", "-j", "1", "-memory-read", "-strategy", str(strategy)]
        context.run(
            [
                *argv,
                "-preamble",
                f"base = {base}; chunk = {CHUNK_CHANNELS}",
                str(visibilities.path),
            ],
            TIMEOUT_S,
        )
    visibilities.join()


def casa(visibilities: Visibilities, context: Context) -> None:
    """Run tfcrop and rflag of CASA's flagdata."""
    visibilities.store()
    call_casa(context, "contimg_flag.casa:flag", TIMEOUT_S, ms=str(visibilities.path))
    visibilities.join()
