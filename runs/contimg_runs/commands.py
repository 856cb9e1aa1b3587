"""The commands for the life cycle of runs, as entry points."""

from contimg.runtime.command import Command
from contimg.runtime.options import Options
from contimg.runtime.stage import Resources
from contimg_runs import options

RESOURCES = Resources(deadline_s=600, memory_mi=512, cpu="100m")


def _command(name: str, model: type[Options], run: str, *outputs: str) -> Command:
    run = f"contimg_runs.{run}"
    return Command(name=name, options=model, run=run, outputs=outputs, resources=RESOURCES)


CLAIM = _command("claim", options.ClaimOptions, "claim:run_claim", "claimed", "options")
BEGIN = _command("begin", options.BeginOptions, "claim:run_begin", "attempt", "options")
RECORD = _command("record", options.RecordOptions, "record:run")
SWEEP = _command("sweep", options.SweepOptions, "sweep:run")
SELECT = _command(
    "select",
    options.SelectOptions,
    "select:run_select",
    *("calibrators", "others", "new", "again"),
)
STRIPS = _command("strips", options.StripsOptions, "select:run_strips", "strips")
RESOLVE_OPTIONS = _command("resolve-options", options.RequestOptions, "resolve:run", "options")
