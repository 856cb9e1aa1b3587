"""Light curves on the flux scale of their cell, and what their scatter says of their errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_normalize.epochs import Bools, Floats, Ints, Measurements, grouped_median
from contimg_normalize.scale import BAD, BASELINE_EPOCHS, BORROWED, GOOD, NONE, CellScale
from contimg_normalize.solve import least_fraction

MIN_EPOCHS_FOR_SCATTER = 5
"""Fewer epochs do not show a scatter."""


@dataclass(frozen=True, kw_only=True)
class LightCurves:
    """P fluxes, one a source and epoch, ordered by source and time; shape (P,) each."""

    source: Ints
    """Index among all sources."""
    epoch: Ints
    mjd: Floats
    count: Ints
    """Groups that were averaged."""
    flux: Floats
    """On the scale of the cell; NaN where the epoch has no scale."""
    factor: Floats
    """Mean factor of the groups; `flux` × `factor` is in the unit of the photometry."""
    factor_error: Floats
    raw: Floats
    """In the unit of the photometry."""
    noise: Floats
    """1 sigma of `raw`, noise alone."""
    status: NDArray[np.object_]
    """`good`, `borrowed`, `bad epoch` or `no scale`."""
    systematic: float
    """1 sigma of errors that grow with flux, a fraction."""
    reference: Bools
    """Whether the source is a reference of its cell."""

    def select(self, rows: Bools) -> LightCurves:
        """Return some rows."""
        columns: dict[str, Any] = vars(self)
        columns = {n: v[rows] for n, v in columns.items() if isinstance(v, np.ndarray)}
        return replace(self, **columns)

    @property
    def raw_error(self) -> Floats:
        """1 sigma of `raw`: noise and the systematic term."""
        return np.hypot(self.noise, self.systematic * self.raw)

    @property
    def error(self) -> Floats:
        """1 sigma of `flux`: σ² = (σ_raw/C)² + (F_raw σ_C/C²)²."""
        scale = self.raw * self.factor_error / self.factor**2
        return np.hypot(self.raw_error / self.factor, scale)


def average_groups(rows: Measurements, scale: CellScale, systematic: float) -> LightCurves:
    """Divide each flux by the factor of its group, and average those of one transit.

    Weights are 1/σ², from the noise and the factor's error; both are independent between groups.
    The systematic term is common to them.
    """
    place = np.full(rows.groups["mjd"].size, -1)
    place[scale.groups] = np.arange(scale.groups.size)
    group = place[rows.group]
    factor, error, borrowed = factors_of_rows(rows, scale, group)
    beam = np.exp(-scale.exponent * rows.log_beam)
    flux, noise = rows.flux * beam, rows.noise * beam * scale.inflation[group]
    epochs = int(scale.epoch.max() - scale.epoch.min()) + 1
    key = rows.source * epochs + scale.epoch[group] - scale.epoch.min()
    _, first, label = np.unique(key, return_index=True, return_inverse=True)

    def total(values: Any) -> Floats:  # noqa: ANN401 - numbers or truth values
        return np.asarray(np.bincount(label, values, first.size), np.float64)

    plain = noise**-2.0
    mean = total(plain * flux) / total(plain)
    good = np.isfinite(factor)
    safe = np.where(good, factor, 1.0)
    relative = np.where(good, error / safe, 0.0)
    weight = good / ((noise / safe) ** 2 + (mean[label] / safe * relative) ** 2)
    whole, any_ = total(weight), total(good) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = total(weight * flux / safe) / whole
        factor_mean = whole / total(weight / safe)
        factor_error = factor_mean * np.sqrt(total((weight * relative) ** 2)) / whole
        own_noise = factor_mean * np.sqrt(total((weight * noise / safe) ** 2)) / whole
    used = np.where(any_[label], weight, plain)
    # References to four texts; numpy's own texts would be a copy for each row.
    status = np.full(first.size, NONE, object)
    status[total((scale.whole.status == BAD)[group]) > 0] = BAD
    status[any_] = GOOD
    status[any_ & (total(weight * borrowed) > 0.5 * whole)] = BORROWED
    source = rows.source[first]
    return LightCurves(
        source=source,
        epoch=scale.epoch[group[first]],
        mjd=total(used * rows.groups["mjd"][rows.group]) / total(used),
        count=np.where(any_, total(good).astype(np.int64), np.bincount(label)),
        flux=np.where(any_, curve, np.nan),
        factor=np.where(any_, factor_mean, np.nan),
        factor_error=np.where(any_, factor_error, np.nan),
        raw=np.where(any_, curve * factor_mean, mean),
        noise=np.where(any_, own_noise, total(plain) ** -0.5),
        status=status,
        systematic=systematic,
        reference=np.isin(source, scale.reference),
    )


def factors_of_rows(
    rows: Measurements, scale: CellScale, group: Ints
) -> tuple[Floats, Floats, Bools]:
    """Return factor, 1 sigma error, and whether it is borrowed, of each row, shape (N,).

    That of a reference comes from the other references.
    """
    offsets = scale.cell.offsets(rows.ra_deg, rows.dec_deg)[:, rows.source]
    basis = np.concatenate([np.ones((1, group.size)), offsets - scale.middle_deg[:, group]])
    factor, error = scale.whole.at(group, basis)
    borrowed = (scale.whole.status == BORROWED)[group]
    for source, own in zip(scale.reference, scale.others, strict=True):
        mine = rows.source == source
        factor[mine], error[mine] = own.at(group[mine], basis[:, mine])
        borrowed[mine] = (own.status == BORROWED)[group[mine]]
    return factor, error, borrowed


def measure_systematic(curves: LightCurves, scale: CellScale) -> tuple[float, bool]:
    """Return the fraction of the flux that makes references' median χ²/(m − 1) 1, and True.

    From the light curves of references. It holds what grows with flux, differs between sources and
    is common to the groups of a transit: calibration, deconvolution, pointing. With too few epochs
    it is what the scatter between the references of a group says, or a default and False where that
    is unknown, too.
    """
    mine = curves.select(np.isfinite(curves.flux))
    _, source = np.unique(mine.source, return_inverse=True)
    if not source.size or np.bincount(source).max() < MIN_EPOCHS_FOR_SCATTER:
        return scale.systematic, scale.measured

    def too_small(fraction: float) -> bool:
        scatter = reduced_scatter(mine.flux, replace(mine, systematic=fraction).error, source)
        return float(np.nanmedian(scatter)) > 1

    return least_fraction(too_small), True


def reduced_scatter(flux: Floats, error: Floats, source: Ints) -> Floats:
    """Return √(χ²/(m − 1)) of each source's fluxes about their mean; NaN below 5 epochs."""
    weight = error**-2.0
    size = np.bincount(source)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(source, weight * flux) / np.bincount(source, weight)
        chi2 = np.bincount(source, weight * (flux - mean[source]) ** 2)
        return np.where(size >= MIN_EPOCHS_FOR_SCATTER, np.sqrt(chi2 / (size - 1)), np.nan)


def measure_baselines(curves: LightCurves) -> tuple[Floats, Floats]:
    """Return the median of the first ten fluxes of each row's source, and 1.4826 MAD, (P,)."""
    good = np.isfinite(curves.flux)
    names, label = np.unique(curves.source, return_inverse=True)
    before = np.cumsum(good) - good
    first = np.flatnonzero(np.append(True, np.diff(label) > 0))
    early = good & (before - before[first][label] < BASELINE_EPOCHS)
    flux, mine = curves.flux[early], label[early]
    middle = grouped_median(flux, mine, names.size)
    spread = MAD_TO_SIGMA * grouped_median(np.abs(flux - middle[mine]), mine, names.size)
    return middle[label], spread[label]
