"""How often the search for lenses is right, and its processor time, on simulated sources.

``python -m tests.bench.bench_variability 200`` makes the table of docs/stages/variability.md;
`make bench` takes fewer of each kind.
"""

import json
import sys
import time

import numpy as np
from tests.support import light_curves as curves

DEFAULT_SOURCES = 10
SEED = 12
KINDS = ("steady", "red noise", "flare", "two flares", "bad epochs", "lens")


def make_flux(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Fluxes without noise, 26 epochs in 150 days."""
    flux = np.ones(26)
    if kind == "red noise":  # 3 to 50 %, 3 to 300 days
        flux = curves.red_noise(rng, 10 ** rng.uniform(-1.5, -0.3), 10 ** rng.uniform(0.5, 2.5))
    elif kind in {"flare", "two flares"}:
        for _ in range(1 if kind == "flare" else 2):
            # Rise 2 to 50 days, decay 5 to 100 days, 0.2 to 2 times the quiescent flux.
            limits = ((0.3, 1.7), (0.7, 2.0), (-0.7, 0.3))
            rise, decay, size = (10 ** rng.uniform(*limit) for limit in limits)
            flux += curves.flare(rng.uniform(0, 150), rise, decay, size)
    elif kind == "bad epochs":
        flux[rng.integers(26, size=2)] *= rng.uniform(0.3, 1.7, 2)
    elif kind == "lens":  # crossing its own radius in 6 to 16 days, half to all of the flux lensed
        position = (curves.EPOCH_DAYS - rng.uniform(40, 110)) / rng.uniform(6, 16)
        gain = curves.lens_gain(position, rng.uniform(0.8, 5), rng.uniform(0.2, 0.6))
        flux += rng.uniform(0.5, 1) * (gain - 1)
    return flux


def judge_source(flux: np.ndarray, rng: np.random.Generator) -> tuple[bool, bool, float]:
    """Whether the mission's score flags a source, whether it is a candidate, and its evidence.

    Errors are 0.5 to 10 %.
    """
    error = np.full(26, 10 ** rng.uniform(-2.3, -1.0) * flux.mean())
    found = curves.judge_fluxes(curves.EPOCH_DAYS, flux + error * rng.normal(size=26), error)
    flagged = found.score is not None and found.score.total > curves.OPTIONS.min_score
    return flagged, found.candidate, found.lens.over_best_rival if found.lens else -np.inf


def main(count: int = DEFAULT_SOURCES) -> None:
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng([SEED, number])
        start = time.process_time()
        found = [judge_source(make_flux(kind, rng), rng) for _ in range(count)]
        flagged, candidate, evidence = np.array(found).T
        row = {
            "kind": kind,
            "sources": count,
            "score_above_0.6": int(flagged.sum()),
            "candidates": int(candidate.sum()),
            "largest_evidence": round(float(evidence.max()), 1),
            "cpu_s_per_source": round((time.process_time() - start) / count, 2),
        }
        print(json.dumps(row, allow_nan=True), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
