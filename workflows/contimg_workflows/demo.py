"""``contimg demo``: simulate months of a strip, run the chain, and compare with the truth."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contimg.runtime.console import Console
from contimg.runtime.errors import ChildFailedError, ContimgError
from contimg_workflows.options import DemoOptions

SAME_DEG = 30 / 3600
"""A candidate within half a beam of a hidden source is that source."""
SETTINGS = ("watch.size=0", "watch.timeout_s=0", "image.tier=development")
"""Small subbands of any size, no waiting for late ones, and images of the demo's short groups."""


def run(options: DemoOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Run the demo; ContimgError if the hidden event was not found, or another was."""
    store = Path(options.folder).absolute() / "store"
    say = console.log.info
    say("simulating %d epochs of a strip at Dec +33 into %s", options.epochs, store / "incoming")
    places = [f"--out={store}/products/simulate", f"--incoming={store}/incoming"]
    # Sources below 1 mJy in the beam would add 0.1 mJy to the 0.6 mJy of noise, and treble the
    # time.
    simulate = ["contimg-simulate", "--campaign=demo", "--faintest-jy=0.001", *places]
    simulate += [f"--epochs={options.epochs}"]
    truth = json.loads((Path(run_program(simulate, env)["artifact"]) / "truth.json").read_text())
    words = [f"--store={store}", f"--jobs={options.jobs}", *(f"--set={one}" for one in SETTINGS)]
    run = run_program(["contimg", "run", "all", *words], env)
    verdict = judge(truth, candidates(store))
    pages = sorted(str(path) for path in store.glob("products/epoch-*/report/*/report.html"))
    say("verdict: %s", verdict["words"])
    for page in pages:
        say("look at %s", page)
    say("images: %s", f"{store}/products/*/image/*/thumbnail.png")
    if not verdict["right"]:
        problem = f"The hidden lens must be found and nothing else: {verdict['words']}."
        raise ContimgError(str(store), problem, "contimg status tells what ran.")
    report = pages[-1] if pages else None
    return {"store": str(store), "verdict": verdict, "report": report, "run": run}


def run_program(argv: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """Run one of our programs, its log on our stderr, and return its summary."""
    program = str(Path(sys.executable).parent / argv[0])
    done = subprocess.run([program, *argv[1:]], stdout=subprocess.PIPE, env=dict(env), check=False)  # noqa: S603
    if done.returncode != 0:
        where = " ".join(argv[:3])
        raise ChildFailedError(where, f"exit code {done.returncode}.", "Its log is above.")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def candidates(store: Path) -> list[dict[str, Any]]:
    """Return the published ESE candidates of a store."""
    import pyarrow.parquet as pq  # slow to import

    paths = sorted(store.glob("tables/ese_candidates/*/*.parquet"))
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


def judge(truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare candidates with the sources that were made to scatter; positions decide."""
    hidden = [source for source in truth["sources"] if source["curve"]["kind"] == "lens"]
    seen, right = [], set[int]()
    for source in hidden:
        near = set()
        for number, row in enumerate(found):
            turn = (source["ra_deg"] - row["ra"] + 180) % 360 - 180  # 359.999 is beside 0.001
            east = turn * math.cos(math.radians(source["dec_deg"]))
            if math.hypot(east, source["dec_deg"] - row["dec"]) < SAME_DEG:
                near.add(number)
        seen += [source["name"]] if near else []
        right |= near
    false = [row["source"] for number, row in enumerate(found) if number not in right]
    words = f"{len(seen)} of {len(hidden)} hidden scattering events found"
    words += f", {len(false)} false candidates"
    is_right = len(seen) == len(hidden) and not false
    return {"right": is_right, "found": seen, "false": false, "words": words}
