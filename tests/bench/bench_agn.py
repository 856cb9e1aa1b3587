"""The search for lenses on real light curves: four AGN of the GBI, as they are and behind lenses.

``python -m tests.bench.bench_agn 1000`` (as many light curves as there are); needs the shared
folder `data/gbi` beside the project. Each light curve is 150 days with one epoch in six days, and
each begins 75 days after the last, so that half of its epochs are new.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tests.support.light_curves import gbi_windows, judge_fluxes, lens_gain
from tests.support.outside import FOLDER

DEFAULT_CURVES = 4
BANDS = {"2.25 GHz": (2, 0.015), "8.3 GHz": (3, 0.03)}
"""Column of the archive, and the errors that are assumed: a fraction of the flux."""
LENSES = {"none": None, "50 days": (1.2, 13.0)}
"""Strength, and days in which the lens crosses its own radius; a source of 0.3 radii, all of it
lensed: a dip of half the flux."""
THRESHOLDS = (4, 6, 8, 10, 11, 12, 13, 14, 16)
Arrays = tuple[np.ndarray, np.ndarray]


def find_evidence(job: tuple[Arrays, float, tuple[float, float] | None]) -> float:
    """The evidence of a lens, −inf if it was not tried."""
    (mjd, flux), error, lens = job
    if lens is not None:
        strength, radius = lens
        flux = flux * lens_gain((mjd - mjd[0] - 75) / radius, strength, 0.3)
    found = judge_fluxes(mjd, flux, error * flux).lens
    return found.over_best_rival if found else -np.inf


def main(count: int = DEFAULT_CURVES) -> None:
    folder = FOLDER / "gbi"
    if not folder.exists():
        print(f"{folder} does not exist: nothing was judged")
        return
    paths = sorted(folder.glob("*.txt"))
    with ProcessPoolExecutor(2) as pool:
        for band, (column, error) in BANDS.items():
            curves = [part for path in paths for part in gbi_windows(path, column, 75.0)][:count]
            for name, lens in LENSES.items():
                jobs = [(curve, error, lens) for curve in curves]
                evidence = np.array(list(pool.map(find_evidence, jobs)))
                top = np.sort(evidence)[::-1][:4]
                row = {
                    "band": band,
                    "lens": name,
                    "light_curves": len(curves),
                    "above": {t: int(np.sum(evidence > t)) for t in THRESHOLDS},
                    "largest": [round(float(e), 1) for e in top if np.isfinite(e)],
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
