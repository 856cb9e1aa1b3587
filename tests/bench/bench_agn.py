"""The search for lenses on real light curves: four AGN of the Green Bank Interferometer, as they are and with lenses before them.

``python -m tests.bench.bench_agn 1000`` (as many light curves as there are); needs the shared folder `data/gbi` beside the project. Each
light curve is 150 days with one epoch in six days, and each begins 75 days after the last, so that half of its epochs are new.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tests.bench.bench_variability import OPTIONS, lens_gain
from tests.support import gbi

from contimg_variability.stage import LightCurve, judge_curve

FEW = 4
BANDS = {"2.25 GHz": (2, 0.015), "8.3 GHz": (3, 0.03)}
"""Column of the archive, and the errors that are assumed: a fraction of the flux."""
LENSES = {"none": None, "50 days": (1.2, 13.0)}
"""Strength, and days in which the lens crosses its own radius; a source of 0.3 radii, all of it lensed: a dip of half the flux."""
THRESHOLDS = (4, 6, 8, 10, 11, 12, 13, 14, 16)
Arrays = tuple[np.ndarray, np.ndarray]


def one(job: tuple[Arrays, float, tuple[float, float] | None]) -> float:
    """The evidence of a lens, −inf if it was not tried."""
    (mjd, flux), error, lens = job
    if lens is not None:
        strength, radius = lens
        flux = flux * lens_gain((mjd - mjd[0] - 75) / radius, strength, 0.3)
    epochs = np.arange(mjd.size)
    curve = LightCurve(
        "agn",
        0,
        0,
        "f",
        False,  # noqa: FBT003
        mjd,
        epochs,
        flux,
        error * flux,
        np.zeros(mjd.size, bool),
    )
    found = judge_curve(curve, OPTIONS).lens
    return found.least if found else -np.inf


def main(count: int = FEW) -> None:
    if not gbi.FOLDER.exists():
        print(f"{gbi.FOLDER} is not here: nothing was judged")
        return
    with ProcessPoolExecutor(2) as pool:
        for band, (column, error) in BANDS.items():
            paths = sorted(gbi.FOLDER.glob("*.txt"))
            curves = [
                one for path in paths for one in gbi.windows(path, column, 75.0, OPTIONS.min_epochs)
            ][:count]
            for name, lens in LENSES.items():
                evidence = np.array(list(pool.map(one, [(curve, error, lens) for curve in curves])))
                above = {t: int(np.sum(evidence > t)) for t in THRESHOLDS}
                top = [round(float(e), 1) for e in np.sort(evidence)[::-1][:4] if np.isfinite(e)]
                print(
                    json.dumps(
                        {
                            "band": band,
                            "lens": name,
                            "light_curves": len(curves),
                            "above": above,
                            "largest": top,
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else FEW)
