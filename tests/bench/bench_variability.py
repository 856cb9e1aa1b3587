"""How often the search for lenses is right: simulated sources of each kind, and seconds of processor a source.

``python tests/bench/bench_variability.py 200`` makes the table of docs/variability.md; `make bench` takes fewer of each kind.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from contimg_variability.options import VariabilityOptions
from contimg_variability.stage import LightCurve, judge_curve

FEW = 10
SEED = 12
DAYS = 6.0 * np.arange(26)
KINDS = ("steady", "red noise", "flare", "two flares", "bad epochs", "lens")
OPTIONS = VariabilityOptions(normalized="n", tables="t", out="o")


def lens_gain(position: np.ndarray, strength: float, size: float) -> np.ndarray:
    rays = np.arange(-25, 25, size / 50)
    origin = rays * (1 + strength * np.exp(-(rays**2)))
    bright = np.exp(-0.5 * ((origin[None, :] - position[:, None]) / size) ** 2)
    return np.asarray(bright.sum(axis=1) * (size / 50) / (size * np.sqrt(2 * np.pi)))


def flare(rng: np.random.Generator) -> np.ndarray:
    """Rise 2 to 50 days, decay 5 to 100 days, 0.2 to 2 times the quiescent flux, at any time."""
    rise, decay, size = (
        10 ** rng.uniform(*limits) for limits in ((0.3, 1.7), (0.7, 2.0), (-0.7, 0.3))
    )
    x = DAYS - rng.uniform(0, 150)
    return np.asarray(size * np.exp(-np.abs(x) / np.where(x < 0, rise, decay)))


def made(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Fluxes without noise, 26 epochs in 150 days."""
    flux = np.ones(26)
    if kind == "red noise":  # 3 to 50 %, 3 to 300 days
        size, tau = 10 ** rng.uniform(-1.5, -0.3), 10 ** rng.uniform(0.5, 2.5)
        covariance = size**2 * np.exp(-np.abs(DAYS[:, None] - DAYS[None, :]) / tau)
        flux = np.exp(np.linalg.cholesky(covariance + 1e-12 * np.eye(26)) @ rng.normal(size=26))
    elif kind in {"flare", "two flares"}:
        flux += sum(flare(rng) for _ in range(1 if kind == "flare" else 2))
    elif kind == "bad epochs":
        flux[rng.integers(26, size=2)] *= rng.uniform(0.3, 1.7, 2)
    elif kind == "lens":  # crossing its own radius in 6 to 16 days, half to all of the flux lensed
        gain = lens_gain(
            (DAYS - rng.uniform(40, 110)) / rng.uniform(6, 16),
            rng.uniform(0.8, 5),
            rng.uniform(0.2, 0.6),
        )
        flux += rng.uniform(0.5, 1) * (gain - 1)
    return flux


def one(kind: str, rng: np.random.Generator) -> tuple[bool, bool, float]:
    """Whether the mission's score flags a source, whether it is a candidate, and its evidence; errors are 0.5 to 10 %."""
    return judged(made(kind, rng), rng)


def judged(flux: np.ndarray, rng: np.random.Generator) -> tuple[bool, bool, float]:
    """The same of given fluxes."""
    error = np.full(26, 10 ** rng.uniform(-2.3, -1.0) * flux.mean())
    noisy = flux + error * rng.normal(size=26)
    limit = np.zeros(26, bool)
    found = judge_curve(
        LightCurve("s", 0, 0, "f", False, DAYS, np.arange(26), noisy, error, limit),  # noqa: FBT003
        OPTIONS,
    )
    flagged = found.score is not None and found.score.total > OPTIONS.min_score
    return flagged, found.candidate, found.lens.least if found.lens else -np.inf


def main(count: int = FEW) -> None:
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng([SEED, number])
        start = time.process_time()
        flagged, candidate, evidence = np.array([one(kind, rng) for _ in range(count)]).T
        row = {
            "kind": kind,
            "sources": count,
            "score_above_0.6": int(flagged.sum()),
            "candidates": int(candidate.sum()),
            "largest_evidence": round(float(evidence.max()), 1),
            "cpu_s_a_source": round((time.process_time() - start) / count, 2),
        }
        print(json.dumps(row, allow_nan=True), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else FEW)
