"""The commands for the life cycle of runs, as entry points."""

from functools import partial

from contimg.runtime.command import Command
from contimg.runtime.stage import Resources
from contimg_runs import options

_command = partial(Command, resources=Resources(deadline_s=600, memory_mi=512, cpu="100m"))

CLAIM = _command(
    name="claim",
    options=options.ClaimOptions,
    run="contimg_runs.claim:run",
    outputs=("claimed", "options"),
)
BEGIN = _command(
    name="begin",
    options=options.BeginOptions,
    run="contimg_runs.begin:run",
    outputs=("attempt", "options"),
)
RECORD = _command(name="record", options=options.RecordOptions, run="contimg_runs.record:run")
SWEEP = _command(name="sweep", options=options.SweepOptions, run="contimg_runs.sweep:run")
SELECT = _command(
    name="select",
    options=options.SelectOptions,
    run="contimg_runs.select:run_select",
    outputs=("chunks", "new", "again"),
)
STRIPS = _command(
    name="strips",
    options=options.StripsOptions,
    run="contimg_runs.select:run_strips",
    outputs=("strips",),
)
RESOLVE_OPTIONS = _command(
    name="resolve-options",
    options=options.RequestOptions,
    run="contimg_runs.resolve:run",
    outputs=("options",),
)
