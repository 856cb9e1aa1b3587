# ruff: noqa: INP001 - a script, in no package
"""What `helm test` runs: a small simulated group, whose fluxes are compared with the truth.

Three steps in three containers of one pod: `simulate` writes subbands, `watch` makes the record,
`check` posts the event as the watch service does, waits for the outcome, compares, and removes what
the test made. They hand on to each other by files in a folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.parquet as pq
from pyarrow import BufferReader
from pydantic import Field

from contimg.records.groups import list_records, record_name
from contimg.runtime.command import Command
from contimg.runtime.contract import run_command
from contimg.runtime.errors import BadInputError, MissingError, StoreError
from contimg.runtime.options import Options
from contimg.runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg.runtime.console import Console
    from contimg.runtime.store import Store

FIRST, DAYS = date(2001, 1, 1), 7000
"""Groups of tests have dates of their own, so that their workflows' names are new."""
POST_AGAIN_S = 30.0
"""An event that is posted before the Sensor listens is lost."""
BRIGHT_SNR = 20.0
"""Sources whose fluxes are compared; fainter ones scatter."""
TOLERANCE = 0.05
"""For the median of the bright sources and for the brightest alone: a small group has an eighth of
the channels and a sixth of the time,
for whose full size 1 and 3 % hold."""
NEAR_DEG = 20 / 3600
"""A row of photometry belongs to the source within 20 arcsec, a quarter of the beam."""


class SelftestOptions(Options):
    """Process a small simulated group end to end."""

    step: Literal["simulate", "watch", "check"]
    """What this container does."""
    store: str
    """Root URI below which each run has a store of its own."""
    folder: str
    """What one step leaves for the next."""
    post: str = ""
    """URL of the webhook EventSource."""
    timeout_s: float = Field(default=1200.0, gt=0)
    """How long the group may take, seconds."""


def run(options: SelftestOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Do one step."""
    return {"simulate": simulate, "watch": watch, "check": check}[options.step](options, console)


def simulate(options: SelftestOptions, _console: Console) -> dict[str, Any]:
    """Write the 16 subbands of a group on 3C48 into a new store."""
    now = datetime.now(UTC)
    day = FIRST + timedelta(days=int(now.timestamp()) // 60 % DAYS)
    store = f"{options.store.rstrip('/')}/{now:%Y%m%dt%H%M%S}"
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    said = program(
        "contimg-simulate",
        f"--out={store}/products/simulate",
        f"--incoming={store}/incoming",
        f"--date={day}",
    )
    (folder / "store").write_text(store)
    (folder / "truth").write_text(str(said["artifact"]))
    return {"stage": "selftest", "store": store, "truth": said["artifact"]}


def watch(options: SelftestOptions, _console: Console) -> dict[str, Any]:
    """Let watch look once, which makes the record."""
    store = Path(options.folder, "store").read_text()
    return program("contimg-watch", f"--store={store}", "--size=0", "--timeout-s=0")


def check(options: SelftestOptions, console: Console) -> dict[str, Any]:
    """Post the event, wait for the outcome, compare."""
    root = Path(options.folder, "store").read_text()
    store = open_store(root)
    record = next(list_records(store), None)
    if record is None:
        raise MissingError(
            f"{root}/groups",
            "expected the record of the simulated group, found none.",
            "Look at the log of the container watch.",
        )
    run_name = record.run
    outcome = wait(store, run_name, options, console)
    if outcome.get("phase", "").lower() != "succeeded":
        found = f"{outcome.get('phase')}: {outcome.get('reason')}"
        raise BadInputError(
            f"{root}/runs/{run_name}",
            f"expected a workflow that succeeds, found {found}.",
            f"Look at contimg-{run_name}.",
        )
    truth = json.loads(open_store(Path(options.folder, "truth").read_text()).read("truth.json"))
    compared = compare(truth, rows_of(store, run_name))
    console.log.info(
        "%(sources)d bright sources, median ratio %(median).4f, %(brightest)s %(ratio).4f", compared
    )
    off = max(abs(compared["median"] - 1), abs(compared["ratio"] - 1))
    if off > TOLERANCE:
        raise BadInputError(
            f"{root}/tables/photometry",
            f"expected fluxes within {TOLERANCE:.0%} of the truth, found {off:.1%} off.",
            "Look at its report.",
        )
    for entry in list(store.entries()):  # what failed stays for a look
        store.delete(entry.key)
    return {"stage": "selftest", "run": run_name, **compared}


def wait(store: Store, run_name: str, options: SelftestOptions, console: Console) -> dict[str, Any]:
    """Post until a workflow has claimed the group, and return its outcome.

    Raises
    ------
    StoreError
        If it does not end in time.
    """
    until = time.monotonic() + options.timeout_s
    claim, outcome = f"runs/{run_name}/claim.json", f"runs/{run_name}/outcome.json"
    posted = float("-inf")
    while time.monotonic() < until:
        if store.exists(outcome):
            answer: dict[str, Any] = json.loads(store.read(outcome))
            return answer
        if time.monotonic() - posted > POST_AGAIN_S and not store.exists(claim):
            post(options.post, store.root, run_name, console)
            posted = time.monotonic()
        time.sleep(2)
    found = "a claim" if store.exists(claim) else "not even a claim"
    raise StoreError(
        f"{store.root}/{outcome}",
        f"expected an outcome within {options.timeout_s:.0f} s, found {found}.",
        f"Look at workflow contimg-{run_name}.",
    )


def post(url: str, root: str, run_name: str, console: Console) -> None:
    """Post the event of a group as the watch service does."""
    group, attempt = record_name(f"{run_name}.json") or ("", 0)
    event = {
        "group": group,
        "attempt": attempt,
        "run": run_name,
        "store": root,
        "name": f"contimg-{run_name}",
    }
    request = urllib.request.Request(  # noqa: S310
        url, json.dumps(event).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            console.log.info("posted %s", run_name)
    except (urllib.error.URLError, TimeoutError) as error:
        console.log.warning("%s: %s", url, error)


def rows_of(store: Store, run_name: str) -> list[dict[str, Any]]:
    """Return the rows of photometry that the group left."""
    group = run_name.partition("-")[0]
    keys = [
        entry.key for entry in store.entries("tables/photometry/") if entry.key.endswith(".parquet")
    ]
    rows = [row for key in keys for row in pq.read_table(BufferReader(store.read(key))).to_pylist()]
    if not rows:
        raise BadInputError(
            f"{store.root}/tables/photometry",
            f"expected rows of {group}, found none.",
            "Look at the photometry stage.",
        )
    return rows


def compare(truth: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare bright, detected sources with what was simulated; ratios are measured over true."""
    (group,) = truth["groups"]
    places = np.array([(source["ra_deg"], source["dec_deg"]) for source in group["sources"]])
    found: list[tuple[float, float, str]] = []
    for row in rows:
        if row["upper_limit"] or row["snr"] < BRIGHT_SNR:
            continue
        offset = (places - (row["ra"], row["dec"])) * (np.cos(np.radians(row["dec"])), 1.0)
        nearest = int(np.argmin(np.hypot(*offset.T)))
        if np.hypot(*offset[nearest]) < NEAR_DEG:
            true_jy = group["sources"][nearest]["flux_mid_jy"] * group["flux_scale"]
            found.append((true_jy, row["flux_peak"] / 1e3 / true_jy, row["source"]))
    if not found:
        raise BadInputError(
            "photometry",
            "expected bright sources of the simulated sky, found none.",
            "Look at the image.",
        )
    _, ratio, brightest = max(found)
    median = float(np.median([one for _, one, _ in found]))
    return {"sources": len(found), "median": median, "brightest": brightest, "ratio": ratio}


def program(*argv: str) -> dict[str, Any]:
    """Run a program of this image and return its summary; its words go to our stderr."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own programs
    if done.returncode:
        raise StoreError(
            argv[0], f"expected exit code 0, found {done.returncode!s}.", "See its words above."
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    sys.exit(run_command(Command(name="selftest", options=SelftestOptions, run="__main__:run")))
