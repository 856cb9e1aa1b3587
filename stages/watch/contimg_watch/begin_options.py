"""The options of the commands that start workflows by hand or by the clock: reprocess, backfill, nightly."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.options import Options
from contimg_watch.options import RunOptions

DAY_OR_GROUP = r"^(\d{4}-\d{2}-\d{2}|\d{8}t\d{6})$"
GROUP_ID = r"^\d{8}t\d{6}$"
CHUNK = 80
"""Groups of one workflow, and chunks of one backfill: a workflow has fewer than 100 nodes."""
First = Literal["convert", "flag", "calibrate", "image", "photometry", "report"]


class BeginOptions(RunOptions):
    """Begin the next attempt at a group: claim it, write its record, and say which artifacts of the last one are kept."""

    group: str = Field(pattern=GROUP_ID)
    """Id of the group."""
    first: First = "convert"
    """First stage that works again; the artifacts of the stages before are kept as they are."""


class SelectOptions(Options):
    """List the groups of some days that are to be processed, in chunks."""

    store: str
    """Root URI of the store."""
    first_day: str = Field(pattern=DAY_OR_GROUP)
    """Groups observed from this UTC day on, YYYY-MM-DD; or the id of the first."""
    last_day: str = Field(pattern=DAY_OR_GROUP)
    """Groups observed up to and with this UTC day; or the id of the last."""
    redo: bool = False
    """Also groups that were processed before, as their next attempts; else only those that nothing has begun."""


class StripsOptions(Options):
    """List the Declination strips of a store."""

    store: str
    """Root URI of the store."""
    days: int = Field(default=0, ge=0)
    """Only strips that were observed in so many last days; 0: all."""
