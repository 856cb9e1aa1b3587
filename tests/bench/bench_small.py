"""A small group from subbands to report: processor seconds of every stage."""

import tempfile
from pathlib import Path

from tests.bench.bench_group import Measured, run_group

from chain import small_calibrator

ROUNDS = 2
CORES = 2


def main() -> None:
    """Measure with a solve and without; a first round fills the caches."""
    chain = small_calibrator()
    assert chain.record
    rounds: dict[bool, list[list[Measured]]] = {True: [], False: []}
    for number in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory(prefix="contimg-bench-", dir=chain.store.parent) as folder:
            for solve, done in rounds.items():
                made = run_group(chain, Path(folder), solve=solve)
                if number:
                    done.append(made)
    for solve, done in rounds.items():
        least = [min(stages, key=lambda one: one.cpu_s) for stages in zip(*done, strict=True)]
        words = ", ".join(f"{one.stage} {one.cpu_s:.1f}" for one in least)
        total, how = sum(one.cpu_s for one in least), "with" if solve else "without"
        print(f"  {how} a solve: {total:.1f} s of processors ({words});", end=" ")
        print(f"{total / CORES:.1f} s a group on {CORES} cores")
    # Stages that find their artifacts: the limit is 1 s.
    with tempfile.TemporaryDirectory(prefix="contimg-bench-", dir=chain.store.parent) as folder:
        run_group(chain, Path(folder), solve=True)
        for stage in run_group(chain, Path(folder), solve=True):
            print(f"  {stage.stage} again: {stage.cpu_s:.2f} × its limit of 1 s")


if __name__ == "__main__":
    main()
