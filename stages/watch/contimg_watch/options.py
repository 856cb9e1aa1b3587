"""The options of watch and upload."""

from typing import Literal

from pydantic import Field

from contimg.runtime.options import Options, Words
from contimg_runs.options import URL

FULL_SIZE = 145_348_600
"""Bytes of every subband that the telescope writes."""


class WatchOptions(Options):
    """Find groups in a store's incoming subbands and record each that can be processed."""

    store: str
    """Root URI of the store; subbands lie in STORE/incoming/DATE/, records go to STORE/groups/."""
    follow: bool = False
    """Keep looking until stopped, instead of one pass."""
    interval_s: float = Field(default=10.0, gt=0)
    """Pause between two passes when following, seconds."""
    timeout_s: float = Field(default=900.0, ge=0)
    """A group without all 16 subbands is processed as it is when watch has seen no subband of it
    come for this time, seconds."""
    gap_s: float = Field(default=60.0, ge=25, le=150)
    """First integrations that are further apart belong to different groups, seconds."""
    size: int = Field(default=FULL_SIZE, ge=0)
    """Bytes that a subband must have; 0: any, as long as its HDF5 is whole."""
    dates: Words = ()
    """Look only at these days of STORE/incoming and their neighbours, YYYY-MM-DD; empty: all
    days."""


class ServiceOptions(WatchOptions):
    """Find groups in a store's incoming subbands and record each that can be processed.

    As a service it looks until it is stopped, posts each recorded group, and answers HTTP.
    """

    post: str | None = Field(default=None, pattern=URL)
    """URL that each new group is posted to as JSON, such as that of a webhook EventSource."""
    serve: bool = False
    """Keep looking, and answer POST /notify, GET /healthz, /readyz and /metrics."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known beforehand
    """Address to listen at."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen at; 0: any free port, which the log names."""
    stall_s: float = Field(default=300.0, gt=0)
    """The service reports that it is dead if no pass begins for this time after the interval,
    seconds."""


class UploadOptions(Options):
    """Copy finished subbands from a folder into a store's incoming, as they appear."""

    folder: str
    """Folder that the telescope writes to; its subfolders are searched too."""
    store: str
    """Root URI of the store; subbands go to STORE/incoming/DATE/, DATE from the name."""
    follow: bool = False
    """Keep looking until stopped, instead of one pass."""
    interval_s: float = Field(default=2.0, gt=0)
    """Pause between two passes when following, seconds."""
    jobs: int = Field(default=2, ge=1)
    """Files copied side by side."""
    verify: Literal["size", "content"] = "content"
    """Compare what was copied, and what was there already, by content, or by size alone."""
