"""A full-size group from subbands to report: seconds and peak memory of every stage."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from chain import BIN, ENVIRONMENT, Chain, full_calibrator
from contimg_runs.pipelines import PROCESS_GROUP

CADENCE_S = 309.24
SOLVE_LIMIT_S = 400.0


class Measured(NamedTuple):
    """One stage's run."""

    stage: str
    wall_s: float
    cpu_s: float
    peak_gib: float
    artifact: str


def measure(stage: str, **options: object) -> Measured:
    """Run an executable and measure it and its children."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        argv = [str(BIN / f"contimg-{stage}"), *words]
        child = subprocess.Popen(argv, stdout=said, env=ENVIRONMENT)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        summary: dict[str, Any] = json.loads(said.read() or b"{}")
    assert child.returncode == 0, f"contimg-{stage} ended with {child.returncode}"
    peak = usage.ru_maxrss / (1 << 20)
    return Measured(stage, wall, usage.ru_utime + usage.ru_stime, peak, str(summary["artifact"]))


def run_group(chain: Chain, store: Path, *, solve: bool) -> list[Measured]:
    """Process the group in a store; without a solve, with caltables that a solve left there."""
    out = store / ("solve" if solve else "select")
    further: dict[str, dict[str, object]] = {
        "convert": {"group": chain.record},
        "calibrate": {"store": store, **({} if solve else {"solve": "never"})},
        "image": {"tier": chain.tier},
        "photometry": {"tables": out / "tables"},
    }
    made: dict[str, Measured] = {}
    for name in PROCESS_GROUP.order:
        inputs = {
            option: ",".join(made[one].artifact for one in PROCESS_GROUP.sources(name, option))
            for option in PROCESS_GROUP.step(name).inputs
        }
        made[name] = measure(name, out=out / name, **inputs, **further.get(name, {}))
    return list(made.values())


def show(title: str, stages: list[Measured], limit_s: float) -> None:
    """Print the table and the ratios."""
    print(f"{title:<22}{'wall s':>8}{'cpu s':>8}{'GiB':>6}")
    for stage in stages:
        print(f"  {stage.stage:<20}{stage.wall_s:8.1f}{stage.cpu_s:8.1f}{stage.peak_gib:6.2f}")
    total = sum(stage.wall_s for stage in stages)
    ratios = f"{total / limit_s:.2f} × its limit of {limit_s:.0f} s, {total / CADENCE_S:.2f} × the"
    print(f"  {'whole group':<20}{total:8.1f}   {ratios} cadence")


def main() -> None:
    """Measure with a solve, then without."""
    chain = full_calibrator()
    assert chain.record
    with tempfile.TemporaryDirectory(prefix="contimg-bench-", dir=chain.store.parent) as folder:
        for solve, limit in ((True, SOLVE_LIMIT_S), (False, CADENCE_S)):
            title = "with a solve" if solve else "without a solve"
            show(title, run_group(chain, Path(folder), solve=solve), limit)


if __name__ == "__main__":
    main()
