"""The chain on one simulated group, run by the real executables when a test first needs a step.

Artifacts are kept under .cache/chain between runs; changed code has other keys and remakes them.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contimg.runtime.child import LINEAR_ALGEBRA

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, **LINEAR_ALGEBRA}


def contimg(program: str, **options: object) -> dict[str, Any]:
    """Run contimg-PROGRAM and return its summary; if it fails, the failure shows its stderr."""
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    argv = [str(BIN / f"contimg-{program}"), *(f"--{name}={given[name]}" for name in given)]
    place: dict[str, Any] = {"env": ENVIRONMENT, "cwd": ROOT}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **place)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stderr[-4000:]}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time can have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


SKIES: dict[str, dict[str, object]] = {
    "small": {"counts": False, "faintest_jy": 0.004},
    "full": {},
}
"""The science is judged at full size on the simulator's realistic sky; small groups, for tests of
what does not depend on the sky, have nothing below the shipped NVSS list's 50 mJy."""
FIRST_RA_DEG, CADENCE_DEG = 24.4221, 1.2919
"""Right Ascension of 3C48, and what passes the meridian in 309.24 s."""


@dataclass
class Chain:
    """One group from simulated subbands on; each property is an artifact's URI."""

    scale: Literal["small", "full"]
    seed: int
    tier: str
    sky: dict[str, object] = field(default_factory=dict)
    """Further options of the simulator; those of SKIES are set before."""
    calibrate_from: "Chain | None" = None
    """A calibrator group in the same store, for a group without one."""
    name: str = ""

    @property
    def store(self) -> Path:
        # Resolved: a copy of the repository with a link to the folder must not make its own group.
        folder = (ROOT / ".cache/chain").resolve()
        return folder / (self.name or f"{self.scale}-{self.seed}")

    def contimg(self, program: str, **options: object) -> dict[str, Any]:
        """Run a program; other chains run it elsewhere."""
        return contimg(program, **options)

    @cached_property
    def truth_artifact(self) -> str:
        places = {"out": self.store / "products/simulate", "incoming": self.store / "incoming"}
        what = {"scale": self.scale, "seed": self.seed, **SKIES[self.scale], **self.sky}
        with locked(self.store / ".simulate.lock"):
            return str(self.contimg("simulate", **places, **what)["artifact"])

    @cached_property
    def truth(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((Path(self.truth_artifact) / "truth.json").read_text())
        return answer

    @cached_property
    def truth_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return dict(np.load(Path(self.truth_artifact) / "truth.npz"))

    @property
    def group_id(self) -> str:
        return str(self.truth["groups"][0]["id"])

    @cached_property
    def record(self) -> str:
        assert self.truth_artifact
        with locked(self.store / ".watch.lock"):
            self.contimg("watch", store=self.store, size=0, timeout_s=0)
        # The simulator may have written the subbands again, for which watch records an attempt.
        found = (self.store / "groups").glob(f"{self.group_id}-a*.json")
        return str(max(found, key=lambda path: int(path.stem.rpartition("-a")[2])))

    @cached_property
    def ms(self) -> str:
        return self._make("convert", group=self.record, tables=self.store / "tables")

    @cached_property
    def flags(self) -> str:
        return self._make("flag", ms=self.ms)

    @cached_property
    def calibration(self) -> str:
        if self.calibrate_from is not None:
            assert self.calibrate_from.calibration
        return self._make("calibrate", ms=self.ms, flags=self.flags, store=self.store)

    @cached_property
    def image(self) -> str:
        inputs = {"ms": self.ms, "flags": self.flags, "calibration": self.calibration}
        return self._make("image", **inputs, tier=self.tier, tables=self.store / "tables")

    @cached_property
    def photometry(self) -> str:
        return self._make("photometry", image=self.image, tables=self.store / "tables")

    def _make(self, stage: str, **options: object) -> str:
        out = self.store / "products" / self.group_id / stage
        # The workers of one test run share the chain: the second waits and finds the artifact.
        with locked(self.store / f".{stage}.lock"):
            summary = self.contimg(stage, out=out, **options)
        return str(summary["artifact"])


def full_calibrator() -> Chain:
    """Return a full-size group on 3C48 with its NVSS field, imaged at the standard tier."""
    return Chain("full", seed=1, tier="standard")


def next_group(first: Chain, number: int) -> Chain:
    """Return a full-size group `number` cadences after another, which it is calibrated from."""
    sky = {**first.sky, "ra_deg": round(FIRST_RA_DEG + number * CADENCE_DEG, 4)}
    return replace(first, sky=sky, calibrate_from=first, name=first.store.name)


def small_calibrator() -> Chain:
    """Return a small group on 3C48 with its NVSS field."""
    return Chain("small", seed=1, tier="development")


if __name__ == "__main__":
    # Both ways to calibrate, in a store of their own.
    solved = Chain("small", seed=1, tier="development", name=sys.argv[1])
    selected = replace(solved, sky={"ra_deg": 38.9}, calibrate_from=solved)
    assert solved.photometry
    assert selected.photometry
