"""What evidence to ask of a lens: false alarms and detections as functions of `--min-evidence`, and the rule that decides.

``python -m tests.bench.bench_threshold SECONDS FILE [KIND]`` judges sources (of one kind) for so long, two at a time, adds them to FILE
(JSON lines) and says what all of FILE says; run it until FILE holds all of `COUNTS`. Source k of a kind is the same in every run.

The rule was written before the first source of this seed was made:

* The threshold is the smallest whole number T at which the 99 % upper limit of the rate of false candidates is at most 1 in 1000
  sources of each kind without a lens, as if the whole sky were of the worst kind.
* The limit is that of an extreme-value fit: the evidences of a kind above u (0, or what a tenth of its sources exceeds if that is
  larger; below 0 a search ends early and its evidence is too low) are taken as n draws of a generalised Pareto distribution of
  shape ξ ≥ 0. It is the largest rate p (1 + ξ (T − u)/σ)^(−1/ξ) that p, σ and ξ allow whose joint log likelihood is within
  2.326²/2 of the best (profile likelihood; 2.326 σ is 99 % to one side). A tail that ends (ξ < 0) is not believed.
* A kind with fewer than 30 evidences above 0 cannot be fitted: its largest evidence must be below T.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench.bench_variability import DAYS, OPTIONS, judged, lens_gain, made

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
FITTED, ASKED = 30, 1e-3
Row = dict[str, Any]


def lens(cell: int, rng: np.random.Generator) -> np.ndarray:
    """A lens of the cell's depth and duration, of any strength and source size that can make it, dip and flanks within the epochs."""
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
    return np.asarray(1 + part * (lens_gain((DAYS - middle) / radius, strength, size) - 1))


def one(kind: str, k: int) -> Row:
    rng = np.random.default_rng([SEED, list(COUNTS).index(kind), k])
    row: Row = {"kind": kind, "k": k}
    if kind == "lens":
        cell = k % len(CELLS)
        row["cell"] = cell
    flux = lens(cell, rng) if kind == "lens" else made(kind, rng)
    flagged, _, evidence = judged(flux, rng)
    return row | {
        "flagged": bool(flagged),
        "evidence": round(evidence, 3) if np.isfinite(evidence) else None,
    }


def order() -> list[tuple[str, int]]:
    """All sources, kinds in proportion, so that a part of them is a fair part."""
    return sorted(
        ((kind, k) for kind, n in COUNTS.items() for k in range(n)),
        key=lambda item: (item[1] + 0.5) / COUNTS[item[0]],
    )


def collect(seconds: float, rows: list[Row], path: Path | None, only: str) -> None:
    done = {(row["kind"], row["k"]) for row in rows}
    left = [item for item in order() if item not in done and only in {"", item[0]}]
    ends = time.monotonic() + seconds
    with ProcessPoolExecutor(2) as pool:
        while left and time.monotonic() < ends:
            part, left = left[:40], left[40:]
            found = list(pool.map(one, *zip(*part, strict=True)))
            rows += found
            if path is not None:
                with path.open("a") as sink:
                    sink.writelines(json.dumps(row) + "\n" for row in found)


def evidences(rows: list[Row], kind: str) -> np.ndarray:
    """Of one kind, −inf for what was never tried."""
    return np.array(
        [
            -np.inf if row["evidence"] is None else row["evidence"]
            for row in rows
            if row["kind"] == kind
        ]
    )


class Tail:
    """The generalised Pareto distribution of the large evidences of a kind, on a grid of its parameters."""

    def __init__(self, values: np.ndarray) -> None:
        self.n, self.u = values.size, max(0.0, float(np.quantile(values, 0.9, method="higher")))
        over = values[values > self.u] - self.u
        self.k = over.size
        self.sigma, self.shape = (
            a.ravel() for a in np.meshgrid(np.geomspace(0.1, 30, 300), np.arange(0, 1.5, 0.01))
        )
        self.fit = np.array(
            [self._log_likelihood(over, s, x) for s, x in zip(self.sigma, self.shape, strict=True)]
        )

    @staticmethod
    def _log_likelihood(over: np.ndarray, sigma: float, shape: float) -> float:
        if shape == 0:
            return float(-over.size * np.log(sigma) - over.sum() / sigma)
        return float(
            -over.size * np.log(sigma) - (1 + 1 / shape) * np.log1p(shape * over / sigma).sum()
        )

    def beyond(self, threshold: float) -> np.ndarray:
        """The part of the tail above a threshold, for each point of the grid."""
        y = (threshold - self.u) / self.sigma
        return np.where(
            self.shape == 0, np.exp(-y), (1 + self.shape * y) ** (-1 / np.maximum(self.shape, 1e-9))
        )

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


def say(rows: list[Row]) -> None:
    nulls = {kind: evidences(rows, kind) for kind in COUNTS if kind != "lens"}
    tails = {kind: Tail(values) for kind, values in nulls.items() if np.sum(values > 0) >= FITTED}
    for kind, values in nulls.items():
        flagged = sum(row["flagged"] for row in rows if row["kind"] == kind)
        said: Row = {
            "kind": kind,
            "sources": values.size,
            "flagged": flagged,
            "above_0": int(np.sum(values > 0)),
        }
        said["largest"] = [float(v) for v in np.sort(values)[::-1][:4] if np.isfinite(v)]
        if kind in tails:
            tail, best = tails[kind], int(np.argmax(tails[kind].fit))
            said |= {
                "u": tail.u,
                "k": tail.k,
                "sigma": round(float(tail.sigma[best]), 2),
                "xi": float(tail.shape[best]),
            }
        print(json.dumps(said))
    found = evidences(rows, "lens")
    for t in THRESHOLDS:
        print(
            json.dumps(
                {
                    "T": t,
                    "lenses": f"{np.sum(found > t)}/{found.size}",
                    **{
                        kind: f"{np.sum(values > t)}/{values.size}"
                        for kind, values in nulls.items()
                    },
                    **{
                        f"{kind} fit, 99 % limit, per 1000": [
                            round(1e3 * tail.rate(t), 2),
                            round(1e3 * tail.limit(t), 2),
                        ]
                        for kind, tail in tails.items()
                    },
                }
            )
        )
    if not tails:
        print("too few sources for the rule")
        return
    highest = max(
        [
            0.0,
            *(values.max() for kind, values in nulls.items() if kind not in tails and values.size),
        ]
    )
    lowest = max([highest, *(tail.u for tail in tails.values())])
    chosen = next(
        t
        for t in range(int(lowest) + 1, 10_000)
        if all(tail.limit(t) <= ASKED for tail in tails.values())
    )
    print(json.dumps({"the rule's threshold": chosen}))
    cells = np.array([row["cell"] for row in rows if row["kind"] == "lens"], int)
    for depth in DEPTHS:
        said = []
        for days in DURATIONS:
            part = found[cells == CELLS.index((depth, days))]
            said.append(
                f"{days:.0f} d {np.sum(part > chosen)}/{part.size} (default: {np.sum(part > OPTIONS.min_evidence)})"
            )
        print(f"depth {depth:.2f}: " + "  ".join(said))


def main(seconds: float = 15.0, file: str | None = None, only: str = "") -> None:
    path = Path(file) if file else None
    rows = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path is not None and path.exists()
        else []
    )
    collect(seconds, rows, path, only)
    say(rows)


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, str, str), sys.argv[1:], strict=False)))
