"""The commands watch and upload, as entry points."""

from contimg.runtime.command import Command
from contimg.runtime.stage import Resources
from contimg_watch.options import UploadOptions, WatchOptions

WATCH = Command(
    name="watch",
    options=WatchOptions,
    run="contimg_watch.stage:run",
    resources=Resources(deadline_s=600, memory_mi=1024, cpu="250m"),
)
UPLOAD = Command(
    name="upload", options=UploadOptions, run="contimg_watch.upload:run", positional=("folder",)
)
