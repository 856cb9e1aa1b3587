"""Sources per second of forced photometry and of plain numpy in the same run.

Run ``python tests/bench/bench_photometry.py``. Plain numpy is the weighted kernel fit as VAST's
forced_phot does it (a cut-out, Σ K D/σ² over Σ K²/σ²), here with noise and background from the same
annulus, too; rounds of both alternate, and medians are printed.
"""

import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from contimg.records.images import Beam
from contimg_photometry.kernels import fit_beam, measure_positions
from contimg_photometry.measure import annulus_offsets, measure
from contimg_photometry.noise import BeamProfile, measure_autocorrelation
from contimg_photometry.options import PhotometryOptions

SIZE, CELL, ROUNDS, SOURCES = 5400, 3 / 3600, 3, 2000
PROFILE = BeamProfile(Beam(68 / 3600, 37 / 3600, 20.0).form(-CELL, CELL), 68 / 3, 37 / 3)
RADIUS = PROFILE.major
OPTIONS = PhotometryOptions(image="i", tables="t", out="o")


def plain_fit(pixels: np.ndarray, x: float, y: float, background: float, noise: float) -> float:
    left, right = int(np.ceil(x - RADIUS)), int(np.floor(x + RADIUS)) + 1
    low, high = int(np.ceil(y - RADIUS)), int(np.floor(y + RADIUS)) + 1
    rows, columns = np.mgrid[low:high, left:right]
    kernel = PROFILE.at(columns - x, rows - y)
    data = pixels[low:high, left:right] - background
    return float(np.sum(kernel * data / noise**2) / np.sum(kernel**2 / noise**2))


def plain_annulus(pixels: np.ndarray, x: float, y: float, steps: np.ndarray) -> tuple[float, float]:
    samples = pixels[int(y + 0.5) + steps[1], int(x + 0.5) + steps[0]].astype(np.float64)
    middle = np.median(samples)
    sigma = 1.4826 * np.median(np.abs(samples - middle))
    for _ in range(3):
        kept = samples[np.abs(samples - middle) <= 3 * sigma]
        middle, sigma = kept.mean(), kept.std() / 0.98656
    return float(middle), float(sigma)


def rate(work: Callable[[], object], count: int) -> float:
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def main() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    x, y = rng.uniform(200, SIZE - 200, (2, SOURCES))
    steps = annulus_offsets(2 * PROFILE.major, 6 * PROFILE.major, int(PROFILE.minor / 2))
    out = np.empty((SOURCES, 4))
    few = SOURCES // 10
    correlation = measure_autocorrelation(pixels[:512, :512], 80)

    def fits() -> None:
        for k in range(SOURCES):
            fit_beam(pixels, x[k], y[k], PROFILE.form, 0.0, RADIUS)

    def everything_plain() -> None:
        for k in range(few):
            plain_fit(pixels, x[k], y[k], *plain_annulus(pixels, x[k], y[k], steps))

    jobs = {
        "numpy, fit": (lambda: [plain_fit(pixels, x[k], y[k], 0.0, 1.0) for k in range(few)], few),
        "numba, fit": (fits, SOURCES),
        "numpy, fit and annulus": (everything_plain, few),
        "numba, peak, fit and annulus": (
            lambda: measure_positions(pixels, x, y, PROFILE.form, RADIUS, steps, out),
            SOURCES,
        ),
        "all: blends, positions, errors": (
            lambda: measure(pixels, x, y, PROFILE, correlation, OPTIONS),
            SOURCES,
        ),
    }
    for work, _ in jobs.values():
        work()  # compiled and cached
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, (work, count) in jobs.items():
            found[name].append(rate(work, count))
    speed = {name: round(median(values)) for name, values in found.items()}
    print(json.dumps({"sources_a_second": speed, "samples_in_annulus": steps.shape[1]}, indent=1))


if __name__ == "__main__":
    main()
