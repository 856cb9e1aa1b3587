"""What runs in a CASA child of the flag stage."""

from __future__ import annotations


def flag(ms: str) -> bool:
    """Flag the DATA of a scratch Measurement Set with tfcrop and then rflag, defaults of both."""
    from casatasks import flagdata

    for mode in ("tfcrop", "rflag"):
        flagdata(vis=ms, mode=mode, datacolumn="data", action="apply", flagbackup=False, display="")
    return True
