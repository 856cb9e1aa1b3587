"""The same group in two folders, on one processor and on two: the same bytes, and nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chain import BIN, ENVIRONMENT, ROOT, Chain, contimg
from contimg.runtime.manifest import read_manifest

CACHED_S = 1.0
"""Processor time of a stage that finds its artifact made: wall time would count what else the machine does."""
TIER = "development"
"""The quickest that promises the same bytes (docs/image.md); quicklook does not."""
DATA = frozenset({".tar", ".bin", ".fits"})
"""Measurement Set, flags, caltables, images; the records beside them also say where things lie."""


@dataclass(frozen=True)
class Run:
    """One folder and the processors that work in it."""

    store: Path
    processors: str
    litter: int
    """What glibc fills the memory with that it hands out: bytes that nobody wrote would differ between two runs."""

    def stage(self, name: str, **options: object) -> tuple[dict[str, Any], float]:
        """Run a stage; return its summary and the processor seconds that it and its children took."""
        options["out"] = self.store / "products" / name
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        argv = ["taskset", "-c", self.processors, str(BIN / f"contimg-{name}"), *words]
        # WSClean would take ten times as long over littered memory.
        env = (
            ENVIRONMENT if name == "image" else {**ENVIRONMENT, "MALLOC_PERTURB_": str(self.litter)}
        )
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, cwd=ROOT
        ) as child:
            assert child.stdout is not None
            said = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, argv
        return json.loads(said), usage.ru_utime + usage.ru_stime

    def chain(self, record: Path) -> dict[str, tuple[dict[str, Any], float]]:
        made = {"convert": self.stage("convert", group=record)}
        ms = made["convert"][0]["artifact"]
        made["flag"] = self.stage("flag", ms=ms)
        flags = made["flag"][0]["artifact"]
        # Its own table of sets, so that both runs solve.
        made["calibrate"] = self.stage("calibrate", ms=ms, flags=flags, store=self.store)
        calibration = made["calibrate"][0]["artifact"]
        made["image"] = self.stage("image", ms=ms, flags=flags, calibration=calibration, tier=TIER)
        return made


def outputs(made: dict[str, tuple[dict[str, Any], float]]) -> dict[str, str]:
    """Return the digests of the data files of every artifact."""
    return {
        f"{stage}/{output.name}": output.sha256
        for stage, (said, _) in made.items()
        for output in read_manifest(said["artifact"]).outputs
        if Path(output.name).suffix in DATA
    }


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2,
    reason="needs taskset and two processors",
)
def test_two_folders_and_numbers_of_processors_give_the_same_bytes(
    small_chain: Chain, tmp_path: Path
) -> None:
    assert small_chain.truth_artifact
    one, two, *_ = sorted(os.sched_getaffinity(0))
    found = []
    for name, processors, litter in (("a", str(one), 85), ("another/folder", f"{one},{two}", 170)):
        run = Run(tmp_path / name, processors, litter)
        shutil.copytree(small_chain.store / "incoming", run.store / "incoming")
        contimg("watch", store=run.store, size=0, timeout_s=0)
        (record,) = (run.store / "groups").glob("*.json")
        made = run.chain(record)
        assert not any(said["cached"] for said, _ in made.values())
        found.append(outputs(made))

        again = run.chain(record)
        assert all(said["cached"] for said, _ in again.values())
        seconds = {stage: seconds for stage, (_, seconds) in again.items()}
        assert max(seconds.values()) < CACHED_S, seconds
    first, second = found
    assert {
        "convert/ms.tar",
        "flag/flags.bin",
        "calibrate/bandpass.tar",
        "calibrate/gain.tar",
        "image/image.fits",
    } <= first.keys()
    assert {name for name in first if first[name] != second[name]} == set()
