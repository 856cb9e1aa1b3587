"""The same group in two folders, on one processor and on two, gives the same bytes."""

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

TIER = "development"
"""The quickest tier that is deterministic (docs/stages/image.md)."""
DATA = frozenset({".tar", ".bin", ".fits"})
"""Measurement Set, flags, caltables, images; the records beside them also say where things lie."""


@dataclass(frozen=True)
class Run:
    """One folder and the processors that work in it."""

    store: Path
    processors: str
    litter: int
    """What glibc fills memory with, so that uninitialised bytes differ between two runs."""

    def stage(self, name: str, **options: object) -> dict[str, Any]:
        """Run a stage and return its summary."""
        options["out"] = self.store / "products" / name
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        argv = ["taskset", "-c", self.processors, str(BIN / f"contimg-{name}"), *words]
        # WSClean would take ten times as long over littered memory.
        env = (
            ENVIRONMENT if name == "image" else {**ENVIRONMENT, "MALLOC_PERTURB_": str(self.litter)}
        )
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, cwd=ROOT, check=True
        )
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def chain(self, record: Path) -> dict[str, dict[str, Any]]:
        made = {"convert": self.stage("convert", group=record)}
        inputs = {"ms": made["convert"]["artifact"]}
        made["flag"] = self.stage("flag", **inputs)
        inputs["flags"] = made["flag"]["artifact"]
        # Its own table of sets, so that both runs solve.
        made["calibrate"] = self.stage("calibrate", **inputs, store=self.store)
        inputs["calibration"] = made["calibrate"]["artifact"]
        made["image"] = self.stage("image", **inputs, tier=TIER)
        return made


def outputs(made: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the digests of the data files of every artifact."""
    return {
        f"{stage}/{output.name}": output.sha256
        for stage, said in made.items()
        for output in read_manifest(said["artifact"]).outputs
        if Path(output.name).suffix in DATA
    }


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2,
    reason="needs taskset and two processors",
)
def test_bytes_are_independent_of_folder_and_processors(small_chain: Chain, tmp_path: Path) -> None:
    assert small_chain.truth_artifact
    one, two, *_ = sorted(os.sched_getaffinity(0))
    found = []
    for name, processors, litter in (("a", str(one), 85), ("another/folder", f"{one},{two}", 170)):
        run = Run(tmp_path / name, processors, litter)
        shutil.copytree(small_chain.store / "incoming", run.store / "incoming")
        contimg("watch", store=run.store, size=0, timeout_s=0)
        (record,) = (run.store / "groups").glob("*.json")
        made = run.chain(record)
        assert not any(said["cached"] for said in made.values())
        found.append(outputs(made))

        assert all(said["cached"] for said in run.chain(record).values())
    first, second = found
    assert {"convert/ms.tar", "flag/flags.bin", "calibrate/gain.tar"} <= first.keys()
    assert {"calibrate/bandpass.tar", "image/image.fits"} <= first.keys()
    assert {name for name in first if first[name] != second[name]} == set()
