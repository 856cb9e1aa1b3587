"""The commands of the life cycle of runs."""

from __future__ import annotations

from contimg.runtime.command import Command
from contimg.runtime.stage import Resources
from contimg_runs import options

RESOURCES = Resources(deadline_s=600, memory_mi=512, cpu="100m")

CLAIM = Command(
    name="claim",
    options=options.ClaimOptions,
    run="contimg_runs.claim:run",
    outputs=("claimed", "options"),
    resources=RESOURCES,
)
BEGIN = Command(
    name="begin",
    options=options.BeginOptions,
    run="contimg_runs.begin:run",
    outputs=("attempt", "options"),
    resources=RESOURCES,
)
RECORD = Command(
    name="record",
    options=options.RecordOptions,
    run="contimg_runs.record:run",
    resources=RESOURCES,
)
SWEEP = Command(
    name="sweep",
    options=options.SweepOptions,
    run="contimg_runs.sweep:run",
    resources=RESOURCES,
)
SELECT = Command(
    name="select",
    options=options.SelectOptions,
    run="contimg_runs.select:run_select",
    outputs=("chunks", "new", "again"),
    resources=RESOURCES,
)
STRIPS = Command(
    name="strips",
    options=options.StripsOptions,
    run="contimg_runs.select:run_strips",
    outputs=("strips",),
    resources=RESOURCES,
)
RESOLVE_OPTIONS = Command(
    name="resolve-options",
    options=options.ResolveOptions,
    run="contimg_runs.resolve:run",
    outputs=("options",),
    resources=RESOURCES,
)
