"""The engine on real stages: killed under CASA, interrupted under WSClean, resumed, same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contimg.runtime.manifest import read_manifest
from contimg_runs.pipelines import PROCESS_GROUP
from waiting import wait_for

if TYPE_CHECKING:
    from tests.support.chain import Chain

CONTIMG = Path(sys.executable).parent / "contimg"
GROUP = PROCESS_GROUP.order


class Site:
    """A store of subbands, and a scratch folder by which its processes are recognised."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self.store, self.scratch = folder / "store", folder / "scratch"
        shutil.copytree(incoming, self.store / "incoming")

    def start(self) -> subprocess.Popen[str]:
        settings = ("watch.size=0", "watch.timeout_s=0", "image.tier=quicklook")
        argv = [str(CONTIMG), "run", "all", f"--store={self.store}"]
        argv += [f"--set={one}" for one in settings]
        env, pipe = {**os.environ, "CONTIMG_SCRATCH": str(self.scratch)}, subprocess.PIPE
        return subprocess.Popen(
            argv, stdout=pipe, stderr=pipe, text=True, env=env, start_new_session=True
        )

    def processes(self, program: str = "") -> list[int]:
        """Return the processes that work in the scratch folder, of one program if it is named."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                where, words = (path / "cwd").readlink(), (path / "cmdline").read_text()
            except OSError:
                continue
            is_ours = any(str(place) in words for place in (self.scratch, self.store))
            if program in words and (is_ours or where.is_relative_to(self.scratch)):
                found.append(int(path.name))
        return found

    def state(self, task: str) -> dict[str, Any]:
        (path,) = self.store.glob("runs/contimg-*/state.json")
        answer: dict[str, Any] = json.loads(path.read_text())["tasks"][task]
        return answer

    def made(self) -> set[str]:
        return {path.parts[-3] for path in self.store.glob("products/2*/*/*/manifest.json")}


@pytest.mark.slow
def test_interrupted_chain_resumes(small_chain: Chain, tmp_path: Path) -> None:
    assert small_chain.truth_artifact
    site = Site(tmp_path, small_chain.store / "incoming")

    engine = site.start()
    wait_for(lambda: site.processes("contimg_calibrate"), 300)
    engine.kill()
    engine.wait(10)
    # The stages hear of it from the kernel and have ten seconds, their CASA goes with them.
    wait_for(lambda: not site.processes(), 15)
    assert site.made() == {"convert", "flag"}

    engine = site.start()
    wait_for(lambda: site.processes("wsclean"), 300)
    engine.send_signal(signal.SIGINT)
    assert engine.wait(15) == 21
    assert site.processes() == []
    assert site.made() == {"convert", "flag", "calibrate"}
    assert site.state("convert")["status"] == "cached"
    assert site.state("image")["status"] == "stopped"

    engine = site.start()
    said, words = engine.communicate(timeout=600)
    assert engine.returncode == 0, words
    assert site.made() == set(GROUP)
    assert [site.state(task)["status"] for task in GROUP] == ["cached"] * 3 + ["done"] * 3
    assert json.loads(said)["failed"] == 0
    # Scratch of what was killed is gone, too.
    assert [path for path in site.scratch.iterdir() if path.name.startswith("contimg-")] == []

    (convert,) = site.store.glob("products/2*/convert/*")
    digests = {read_manifest(ms).output("ms.tar").sha256 for ms in (str(convert), small_chain.ms)}
    assert len(digests) == 1

    said, words = site.start().communicate(timeout=300)
    assert json.loads(said)["cached"] == 9, words
