"""Memory and processor time of normalize and variability: ``python -m tests.bench normalize``.

A quarter of the strip, 5,000 sources in 250 and in 1,000 epochs, as dense as 20,000 sources around
the whole circle. Memory of all of them follows from the difference.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tests.support.photometry_tables import FIRST_MJD, SIDEREAL_DAY, STATED

from contimg.records.groups import day_of_mjd
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.store import open_store

SOURCES, EPOCHS = 5000, (250, 1000)
WHOLE_ROWS = 20_000 * 1000
LIMIT_GB = 4.0


def write_epochs(root: str, first: int, last: int) -> None:
    """Write photometry with 10 % common errors, the same sources at each call."""
    rng = np.random.default_rng(1)
    ra, dec = np.sort(rng.uniform(0, 90, SOURCES)), rng.uniform(31.2, 34.8, SOURCES)
    true = 0.5 * np.exp(rng.uniform(*np.log([5, 500]), SOURCES))
    names = [f"DSA J{k:09d}+330000" for k in range(SOURCES)]
    empty = {column.name: [None] * SOURCES for column in PHOTOMETRY.columns}
    for g in range(first, last):
        rng = np.random.default_rng(100 + g)
        flux = true * (1 + 0.1 * rng.normal()) + 0.5 * rng.normal(size=SOURCES)
        mjd = FIRST_MJD + SIDEREAL_DAY * g
        fixed = {"group": f"g{g:05d}", "image": "k", "mjd": mjd, "strip": 33.0, "blend": 1}
        fixed |= {"compactness": 1.0, "upper_limit": False, "beam": 1.0, "local_rms": 0.5}
        rows = empty | {name: [value] * SOURCES for name, value in (fixed | STATED).items()}
        rows |= {"source": names, "ra": ra, "dec": dec, "flux_forced": flux, "snr": flux / 0.5}
        key = f"photometry/date={day_of_mjd(mjd)}/g{g:05d}.parquet"
        open_store(root).put(key, PHOTOMETRY.to_bytes(rows))


def run(stage: str, *options: str) -> tuple[str, float, float]:
    """Run a stage; return its artifact, seconds of processor time, and peak memory in GB."""
    argv = [sys.executable, "-m", f"contimg_{stage}", *options]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    artifact = json.loads(process.stdout.read())["artifact"]
    # Usage of this child alone: that of all children holds the largest so far.
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    assert code == 0, argv
    return artifact, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Print seconds of processor time and peak memory by number of rows, and for all rows."""
    peaks: dict[str, list[float]] = {"normalize": [], "variability": []}
    with tempfile.TemporaryDirectory() as folder:
        tables, out = f"--tables={folder}/tables", f"--out={folder}/out"
        for first, last in zip((0, *EPOCHS), EPOCHS, strict=False):
            write_epochs(f"{folder}/tables", first, last)
            options = "--strip=33"
            for stage, found in peaks.items():
                artifact, cpu_s, peak = run(stage, options, tables, out)
                options = f"--normalized={artifact}"
                found.append(peak)
                size_mb = round(sum(p.stat().st_size for p in Path(artifact).iterdir()) / 1e6)
                line = {"stage": stage, "rows": SOURCES * last, "cpu_s": round(cpu_s, 1)}
                print(json.dumps(line | {"peak_gb": round(peak, 2), "mb": size_mb}), flush=True)
    few, many = (SOURCES * epochs for epochs in EPOCHS)
    for stage, (low, high) in peaks.items():
        whole = high + (high - low) / (many - few) * (WHOLE_ROWS - many)
        print(f"  {stage}, 20,000 sources x 1000 epochs: {whole:.1f} GB, allowed {LIMIT_GB} GB")


if __name__ == "__main__":
    main()
