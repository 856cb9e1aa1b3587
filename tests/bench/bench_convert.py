"""Convert a full-size group against the floor: reading its bytes and writing those of the MS.

Both include the digests.
"""

import hashlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.bench_group import measure

from chain import full_calibrator
from contimg.records.groups import read_group
from contimg.runtime.manifest import read_manifest
from contimg.runtime.store import open_store

ROUNDS = 3
RATIO_LIMIT = 2.0
PEAK_LIMIT_GIB = 2.0
BLOCK = 4 << 20


def floor_s(paths: list[Path], size: int, folder: Path) -> tuple[float, float]:
    """Read and digest files, write and digest `size` bytes into a store; return both seconds."""
    start = time.perf_counter()
    for path in paths:
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
    middle = time.perf_counter()
    block, digest = os.urandom(BLOCK), hashlib.sha256()
    with open_store(str(folder)).writer("ms.tar") as sink:
        for done in range(0, size, BLOCK):
            piece = memoryview(block)[: size - done]
            digest.update(piece)
            sink.write(piece)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    """Print seconds and ratio of some rounds, conversion and floor in turn."""
    chain = full_calibrator()
    paths = [Path(subband.uri) for subband in read_group(chain.record).subbands]
    ratios, size = [], 0
    for number in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory(prefix="contimg-bench-", dir=chain.store) as folder:
            made = measure("convert", out=folder, group=chain.record)
            manifest = read_manifest(made.artifact)
            size = manifest.output("ms.tar").bytes
            begun = time.process_time()
            reading, writing = floor_s(paths, size, Path(folder))
            processors_s = time.process_time() - begun
        if not number:
            continue  # compiles the kernels and fills the page cache
        ratios.append(made.wall_s / (reading + writing))
        print(
            f"  convert {made.wall_s:5.1f} s ({made.cpu_s:.1f} s CPU, {made.peak_gib:.2f} GiB)"
            f"   floor {reading + writing:5.1f} s (read {reading:.1f}, write {writing:.1f};"
            f" {processors_s:.1f} s CPU)   ratio {ratios[-1]:.2f}   {json.dumps(manifest.seconds)}"
        )
    total = sum(path.stat().st_size for path in paths)
    print(
        f"  median ratio {statistics.median(ratios):.2f} (limit {RATIO_LIMIT}),"
        f" {total / 1e9:.2f} GB read, {size / 1e9:.2f} GB written,"
        f" peak limit {PEAK_LIMIT_GIB} GiB, {len(os.sched_getaffinity(0))} processors"
    )


if __name__ == "__main__":
    main()
