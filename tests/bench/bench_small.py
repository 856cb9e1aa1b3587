"""A small group from subbands to report: processor seconds of every stage."""

import tempfile
from pathlib import Path

from tests.bench.bench_group import Measured, run_group

from chain import Chain, small_calibrator

ROUNDS = 2
CORES = 2


def least(rounds: list[list[Measured]]) -> dict[str, float]:
    """Return the least processor seconds of each stage over some rounds."""
    return {
        stages[0].stage: min(stage.cpu_s for stage in stages)
        for stages in zip(*rounds, strict=True)
    }


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
        seconds = least(done)
        words = ", ".join(f"{stage} {cpu_s:.1f}" for stage, cpu_s in seconds.items())
        total = sum(seconds.values())
        print(
            f"  {'with' if solve else 'without'} a solve: {total:.1f} s of processors ({words}); "
            f"{total / CORES:.1f} s a group on {CORES} cores"
        )
    show_cached(chain)


def show_cached(chain: Chain) -> None:
    """Print the processor seconds of stages that find their artifacts; the limit is 1 s."""
    with tempfile.TemporaryDirectory(prefix="contimg-bench-", dir=chain.store.parent) as folder:
        run_group(chain, Path(folder), solve=True)
        for stage in run_group(chain, Path(folder), solve=True):
            print(f"  {stage.stage} again: {stage.cpu_s:.2f} × its limit of 1 s")


if __name__ == "__main__":
    main()
