"""Tables of photometry with known truth, as many groups and sources as a test needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from contimg.records.schemas.photometry import PHOTOMETRY
from contimg_normalize import stage
from contimg_normalize.curves import LightCurves
from contimg_normalize.epochs import Measurements, measurements_of
from contimg_normalize.options import NormalizeOptions
from contimg_normalize.scale import CellScale

SIDEREAL_DAY = 0.9972695663
FIRST_MJD = 61065.1
STATED: dict[str, Any] = {
    "tier": "standard",
    "primary_beam": "airy",
    "catalogue": "nvss",
    "frequency": 1.4e9,
}
STATED |= {"bmaj": 60.0, "bmin": 40.0, "used_fraction": 0.9}
"""What images state of themselves, unless a test says otherwise."""


@dataclass(frozen=True)
class Normalized:
    """A field with all its light curves."""

    field: stage.NormalizedField
    curves: LightCurves

    @property
    def scale(self) -> CellScale:
        return self.field.scale


@dataclass
class World:
    """n sources in u groups; shape (n, u). A test changes what it is about."""

    ra: np.ndarray[Any, Any]
    dec: np.ndarray[Any, Any]
    mjd: np.ndarray[Any, Any]
    flux: np.ndarray[Any, Any]
    """True fluxes times errors of the scale, mJy, without noise."""
    noise: np.ndarray[Any, Any]
    present: np.ndarray[Any, Any]
    columns: dict[str, list[Any]]
    """Further columns of photometry, one value a group; or an array (n, u)."""
    rng: np.random.Generator
    draw: np.ndarray[Any, Any] | None = None
    """The noise in units of its sigma; drawn if None."""

    def tables(self) -> list[pa.Table]:
        """Return one table a group."""
        draw = self.rng.normal(size=self.flux.shape) if self.draw is None else self.draw
        found = self.flux + self.noise * draw
        made = []
        for g in range(self.mjd.size):
            here = np.flatnonzero(self.present[:, g])
            rows: dict[str, Any] = {c.name: [None] * here.size for c in PHOTOMETRY.columns}
            fixed = {"group": f"g{g:04d}", "image": f"k{g}", "mjd": self.mjd[g], "strip": 33.0}
            fixed |= {"compactness": 1.0, "blend": 1, "upper_limit": False, "beam": 1.0} | STATED
            fixed |= {n: v[g] for n, v in self.columns.items() if isinstance(v, list)}
            rows |= {name: [value] * here.size for name, value in fixed.items()}
            rows |= {n: v[here, g] for n, v in self.columns.items() if isinstance(v, np.ndarray)}
            rows |= {"ra": self.ra[here] % 360, "dec": self.dec[here]}
            rows |= {"source": [f"s{k:05d}" for k in here], "flux_forced": found[here, g]}
            rows |= {"local_rms": self.noise[here, g], "snr": [0.0] * here.size}
            made.append(PHOTOMETRY.table(rows))
        return made

    def measurements(self) -> Measurements:
        """Return what normalize reads of the tables."""
        return measurements_of(self.tables())


def steady_world(
    n: int, u: int, *, seed: int = 0, snr: tuple[float, float] = (5.0, 500.0), common: float = 0.1
) -> World:
    """Steady sources about RA 40.5, Dec 33, log-uniform in S/N, one group a transit."""
    rng = np.random.default_rng(seed)
    true = 0.5 * np.exp(rng.uniform(*np.log(snr), n))
    mjd = FIRST_MJD + SIDEREAL_DAY * np.arange(u)
    return World(
        ra=40.5 + rng.uniform(-1.8, 1.8, n) / np.cos(np.radians(33)),
        dec=33 + rng.uniform(-1.8, 1.8, n),
        mjd=mjd,
        flux=true[:, None] * (1 + common * rng.normal(size=u)),
        noise=np.full((n, u), 0.5),
        present=np.ones((n, u), bool),
        columns={},
        rng=rng,
    )


def normalize(world: World, **changed: Any) -> tuple[list[Normalized], list[str], dict[str, Any]]:
    """Return fields, reasons of the verdict, and metrics."""
    options = NormalizeOptions(**{"tables": "t", "out": "o", "strip": 33.0, **changed})
    rows, reasons, metrics = stage.comparable_rows(world.measurements(), options)
    fields, missing = stage.normalise_strip(rows, options)
    assert fields
    verdict = stage.judge(fields, missing, options, reasons)
    (made,) = stage.light_curves(rows, fields)
    found = [Normalized(field, curves) for field, curves in made]
    statistics = [stage.source_statistics(curves) for _, curves in made]
    metrics |= stage.summarise(fields) | stage.summarise_scatter(np.hstack(statistics))
    return found, list(verdict.reasons), metrics


def curve_statistics(curves: LightCurves) -> tuple[np.ndarray[Any, Any], ...]:
    """Return S/N, χ²ν, and scatter over the predicted, of each source."""
    snr, chi, over = [], [], []
    for k in np.unique(curves.source):
        mine = (curves.source == k) & np.isfinite(curves.flux)
        flux, error = curves.flux[mine], curves.error[mine]
        mean = np.average(flux, weights=error**-2.0)
        chi.append(np.sum(((flux - mean) / error) ** 2) / (flux.size - 1))
        over.append(flux.std(ddof=1) / np.sqrt(np.mean(error**2)))
        snr.append(np.median(flux * curves.factor[mine] / curves.noise[mine]))
    return np.array(snr), np.array(chi), np.array(over)
