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
    simulate = [
        "contimg-simulate",
        "--campaign",
        "demo",
        "--epochs",
        str(options.epochs),
        "--out",
        f"{store}/products/simulate",
        "--incoming",
        f"{store}/incoming",
    ]
    truth = json.loads((Path(_json(simulate, env)["artifact"]) / "truth.json").read_text())
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    run = _json(
        ["contimg", "run", "all", "--store", str(store), "--jobs", str(options.jobs), *settings],
        env,
    )
    verdict = judge(truth, candidates(store))
    pages = sorted(str(path) for path in store.glob("products/epoch-*/report/*/report.html"))
    say("verdict: %s", verdict["words"])
    for page in pages:
        say("look at %s", page)
    say("images: %s", f"{store}/products/*/image/*/thumbnail.png")
    if not verdict["right"]:
        problem = f"The hidden lens must be found and nothing else: {verdict['words']}."
        raise ContimgError(str(store), problem, "contimg status tells what ran.")
    return {
        "store": str(store),
        "verdict": verdict,
        "report": pages[-1] if pages else None,
        "run": run,
    }


def _json(argv: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """Run one of our programs, its words on our stderr, and return its summary."""
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

    tables = [
        pq.ParquetFile(path).read()
        for path in sorted(store.glob("tables/ese_candidates/*/*.parquet"))
    ]
    return [row for table in tables for row in table.to_pylist()]


def judge(truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare candidates with the sources that were made to scatter; positions decide."""
    hidden = [source for source in truth["sources"] if source["curve"]["kind"] == "lens"]
    seen = [source["name"] for source in hidden if any(_same(source, row) for row in found)]
    false = [row["source"] for row in found if not any(_same(source, row) for source in hidden)]
    right = len(seen) == len(hidden) and not false
    words = f"{len(seen)} of {len(hidden)} hidden scattering events found"
    words += f", {len(false)} false candidates"
    return {"right": right, "found": seen, "false": false, "words": words}


def _same(source: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    turn = (source["ra_deg"] - row["ra"] + 180) % 360 - 180  # 359.999 and 0.001 are neighbours
    east = turn * math.cos(math.radians(source["dec_deg"]))
    return math.hypot(east, source["dec_deg"] - row["dec"]) < SAME_DEG
