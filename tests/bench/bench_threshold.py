"""The evidence to ask of a lens: false alarms and detections by `--min-evidence`, and the rule.

``python -m tests.bench.bench_threshold SECONDS FILE [KIND]`` judges sources (of one kind) for so
long, two at a time, adds them to FILE (JSON lines) and prints what all of FILE shows; run it until
FILE holds all of `COUNTS`. Source k of a kind is the same in every run.

The rule was written before the first source of this seed was made:

* The threshold is the smallest whole number T at which the 99 % upper limit of the rate of false
  candidates is at most 1 in 1000 sources of each kind without a lens, as if the whole sky were of
  the worst kind.
* The limit is that of an extreme-value fit. The evidences of a kind above u (0, or what a tenth of
  its sources exceeds if that is larger; below 0 a search ends early and its evidence is too low)
  are taken as n draws of a generalised Pareto distribution of shape ξ ≥ 0. The limit is the largest
  rate p (1 + ξ (T − u)/σ)^(−1/ξ) for p, σ and ξ whose joint log likelihood is within 2.326²/2 of
  the best (profile likelihood; 2.326 σ is 99 % to one side). A tail that ends (ξ < 0) is not
  believed.
* A kind with fewer than 30 evidences above 0 cannot be fitted; T must exceed its largest evidence.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench.bench_variability import judge_source, make_flux
from tests.support.light_curves import EPOCH_DAYS, OPTIONS, lens_gain

SEED = 20261122
COUNTS = {
    "red noise": 2000,
    "two flares": 600,
    "flare": 600,
    "bad epochs": 400,
    "steady": 400,
    "lens": 1008,
}
DEPTHS = (0.15, 0.25, 0.4, 0.6)
"""Of the dip, a fraction of the quiescent flux."""
DURATIONS = (20.0, 30.0, 45.0, 70.0, 100.0, 140.0)
"""Days in which a lens changes the lensed flux by 5 % or more."""
CELLS = [(depth, days) for depth in DEPTHS for days in DURATIONS]
THRESHOLDS = (4, 6, 8, 9, 10, 11, 12, 13, 14, 16, 20)
ONE_SIDED_99 = 2.326**2 / 2
MIN_FITTED, MAX_RATE = 30, 1e-3
Row = dict[str, Any]


def make_lens(cell: int, rng: np.random.Generator) -> np.ndarray:
    """A lens of the cell's depth and duration, of any strength and source size that can make it."""
    depth, days = CELLS[cell]
    where = np.arange(-12, 12, 0.1)
    while True:
        strength, size = 0.5 * 20 ** rng.uniform(), rng.uniform(0.15, 0.8)
        change = lens_gain(where, strength, size) - 1
        part = depth / -change.min()
        if part <= 1:
            break
    radius = days / np.ptp(where[np.abs(change) >= 0.05])
    middle = rng.uniform(0.35 * days, 150 - 0.35 * days)
    return np.asarray(1 + part * (lens_gain((EPOCH_DAYS - middle) / radius, strength, size) - 1))


def judge_one(kind: str, k: int) -> Row:
    rng = np.random.default_rng([SEED, list(COUNTS).index(kind), k])
    row: Row = {"kind": kind, "k": k}
    if kind == "lens":
        cell = k % len(CELLS)
        row["cell"] = cell
    flux = make_lens(cell, rng) if kind == "lens" else make_flux(kind, rng)
    flagged, _, evidence = judge_source(flux, rng)
    rounded = round(evidence, 3) if np.isfinite(evidence) else None
    return row | {"flagged": bool(flagged), "evidence": rounded}


def list_sources() -> list[tuple[str, int]]:
    """All sources, kinds in proportion, so that a part of them is a fair part."""
    sources = ((kind, k) for kind, n in COUNTS.items() for k in range(n))
    return sorted(sources, key=lambda source: (source[1] + 0.5) / COUNTS[source[0]])


def collect(seconds: float, rows: list[Row], path: Path | None, only: str) -> None:
    done = {(row["kind"], row["k"]) for row in rows}
    left = [item for item in list_sources() if item not in done and only in {"", item[0]}]
    ends = time.monotonic() + seconds
    with ProcessPoolExecutor(2) as pool:
        while left and time.monotonic() < ends:
            part, left = left[:40], left[40:]
            found = list(pool.map(judge_one, *zip(*part, strict=True)))
            rows += found
            if path is not None:
                with path.open("a") as sink:
                    sink.writelines(json.dumps(row) + "\n" for row in found)


def evidences(rows: list[Row], kind: str) -> np.ndarray:
    """Of one kind, −inf for what was never tried."""
    found = [row["evidence"] for row in rows if row["kind"] == kind]
    return np.array([-np.inf if value is None else value for value in found])


class Tail:
    """The generalised Pareto distribution of the large evidences of a kind, on a grid."""

    def __init__(self, values: np.ndarray) -> None:
        self.n, self.u = values.size, max(0.0, float(np.quantile(values, 0.9, method="higher")))
        over = values[values > self.u] - self.u
        self.k = over.size
        grid = np.meshgrid(np.geomspace(0.1, 30, 300), np.arange(0, 1.5, 0.01))
        self.sigma, self.shape = (axis.ravel() for axis in grid)
        points = zip(self.sigma, self.shape, strict=True)
        self.fit = np.array([self._log_likelihood(over, s, x) for s, x in points])

    @staticmethod
    def _log_likelihood(over: np.ndarray, sigma: float, shape: float) -> float:
        if shape == 0:
            return float(-over.size * np.log(sigma) - over.sum() / sigma)
        tail = (1 + 1 / shape) * np.log1p(shape * over / sigma).sum()
        return float(-over.size * np.log(sigma) - tail)

    def beyond(self, threshold: float) -> np.ndarray:
        """The part of the tail above a threshold, for each point of the grid."""
        y = (threshold - self.u) / self.sigma
        power = (1 + self.shape * y) ** (-1 / np.maximum(self.shape, 1e-9))
        return np.where(self.shape == 0, np.exp(-y), power)

    def rate(self, threshold: float) -> float:
        return float(self.k / self.n * self.beyond(threshold)[np.argmax(self.fit)])

    def limit(self, threshold: float) -> float:
        """99 % upper limit of the rate."""
        part = np.linspace(self.k / self.n, min(1.0, 3 * (self.k + 5) / self.n), 2000)
        worse = -(self.k * np.log(part) + (self.n - self.k) * np.log1p(-part))
        worse -= worse.min()
        room = ONE_SIDED_99 - (self.fit.max() - self.fit)
        allowed = room >= 0
        highest = part[np.searchsorted(worse, room[allowed], side="right") - 1]
        return float(np.max(highest * self.beyond(threshold)[allowed]))


def print_summary(rows: list[Row]) -> None:
    nulls = {kind: evidences(rows, kind) for kind in COUNTS if kind != "lens"}
    tails = {
        kind: Tail(values) for kind, values in nulls.items() if np.sum(values > 0) >= MIN_FITTED
    }
    for kind, values in nulls.items():
        flagged = sum(row["flagged"] for row in rows if row["kind"] == kind)
        line: Row = {
            "kind": kind,
            "sources": values.size,
            "flagged": flagged,
            "above_0": int(np.sum(values > 0)),
        }
        line["largest"] = [float(v) for v in np.sort(values)[::-1][:4] if np.isfinite(v)]
        if kind in tails:
            tail, best = tails[kind], int(np.argmax(tails[kind].fit))
            line |= {
                "u": tail.u,
                "k": tail.k,
                "sigma": round(float(tail.sigma[best]), 2),
                "xi": float(tail.shape[best]),
            }
        print(json.dumps(line))
    found = evidences(rows, "lens")
    for t in THRESHOLDS:
        line = {"T": t, "lenses": f"{np.sum(found > t)}/{found.size}"}
        line |= {kind: f"{np.sum(values > t)}/{values.size}" for kind, values in nulls.items()}
        for kind, tail in tails.items():
            rates = [round(1e3 * rate, 2) for rate in (tail.rate(t), tail.limit(t))]
            line[f"{kind} fit, 99 % limit, per 1000"] = rates
        print(json.dumps(line))
    if not tails:
        print("too few sources for the rule")
        return
    unfitted = [values.max() for kind, values in nulls.items() if kind not in tails and values.size]
    chosen = int(max([0.0, *unfitted, *(tail.u for tail in tails.values())])) + 1
    while any(tail.limit(chosen) > MAX_RATE for tail in tails.values()):
        chosen += 1
    print(json.dumps({"the rule's threshold": chosen}))
    cells = np.array([row["cell"] for row in rows if row["kind"] == "lens"], int)
    for depth in DEPTHS:
        parts = []
        for days in DURATIONS:
            part = found[cells == CELLS.index((depth, days))]
            default = f"default: {np.sum(part > OPTIONS.min_evidence)}"
            parts.append(f"{days:.0f} d {np.sum(part > chosen)}/{part.size} ({default})")
        print(f"depth {depth:.2f}: " + "  ".join(parts))


def main(seconds: float = 15.0, file: str | None = None, only: str = "") -> None:
    path = Path(file) if file else None
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    rows = [json.loads(line) for line in lines]
    collect(seconds, rows, path, only)
    print_summary(rows)


if __name__ == "__main__":
    main(*(convert(word) for convert, word in zip((float, str, str), sys.argv[1:], strict=False)))
