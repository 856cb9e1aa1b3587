"""Memory and processor time of normalize: ``python -m tests.bench normalize``.

A quarter of the strip, 5,000 sources in 250 and in 1,000 epochs, as dense as 20,000 sources around
the whole circle. Memory of all of them follows from the difference.
"""

import json
import resource
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
RUN = [sys.executable, "-m", "contimg_normalize", "--strip=33"]


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


def main() -> None:
    """Print seconds of processor time and peak memory by number of rows, and for all rows."""
    found: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for first, last in zip((0, *EPOCHS), EPOCHS, strict=False):
            write_epochs(f"{folder}/tables", first, last)
            argv = [*RUN, f"--tables={folder}/tables", f"--out={folder}/{last}"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(argv, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            size = sum(path.stat().st_size for path in Path(folder).glob(f"{last}/*/n*d.parquet"))
            found.append((SOURCES * last, after.ru_maxrss / 2**20))
            line = {"rows": found[-1][0], "cpu_s": round(cpu_s, 1), "file_mb": round(size / 1e6)}
            print(json.dumps(line | {"peak_gb": round(found[-1][1], 2)}), flush=True)
    (few, low), (many, high) = found
    whole = high + (high - low) / (many - few) * (WHOLE_ROWS - many)
    print(f"  20,000 sources x 1000 epochs: {whole:.1f} GB, allowed {LIMIT_GB} GB")


if __name__ == "__main__":
    main()
