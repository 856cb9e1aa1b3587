"""The commands watch and upload, as entry points."""

from contimg.runtime.command import Command
from contimg.runtime.stage import Resources
from contimg_watch.options import ServiceOptions, UploadOptions, WatchOptions

WATCH = Command(
    name="watch",
    options=WatchOptions,
    run="contimg_watch.stage:run",
    resources=Resources(deadline_s=600, memory_mi=1024, cpu="250m"),
)
SERVICE = Command(name="watch", options=ServiceOptions, run="contimg_watch.stage:run")
"""What the program contimg-watch does: the same, and as a service."""
UPLOAD = Command(
    name="upload", options=UploadOptions, run="contimg_watch.upload:run", positional=("folder",)
)
