"""The reference sources of a cell, and the flux scale that they give each of its groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_normalize.epochs import (
    Bools,
    Cell,
    Floats,
    Ints,
    Measurements,
    grouped_median,
    transit_numbers,
)
from contimg_normalize.options import NormalizeOptions
from contimg_normalize.solve import (
    ANY_SLOPE,
    MEDIAN_Z2,
    MIN_SIGNIFICANCE,
    NO_WEIGHT_SIGMA,
    Ratings,
    Solution,
    evaluate,
    largest_component,
    solve_jointly,
)

MIN_REFERENCES = 3
"""References that a group needs for a scale of its own, and a cell for any."""
MIN_OTHER_REFERENCES = 2
"""Others that a reference needs for its own factor."""
MIN_NEED = 0.2
"""A source becomes a reference if at least this fraction of its groups lacks references."""
SAME_PLACE_DEG = 2e-6
FAINT_FRACTION = 0.4
"""Of the S/N of a reference: fainter sources serve only groups that lack bright ones."""
ENOUGH_REFERENCES = 10
"""A group that lacks bright references gets so many with faint ones."""
MIN_RATINGS = 3
"""Groups, or all if there are fewer, in which a reference was measured."""
MAX_COMPACTNESS_OFFSET = 0.1
"""From the cell's median flux_fit / flux_peak; beyond it a source is extended or blended."""
MAX_CANDIDATE_FACTOR = 10
"""Candidates that are tried, per reference that is wanted."""
MAX_EXCESS = 2.0
"""Scatter of a reference over that of the median candidate, both in units of their errors."""
BLOCK = 8
"""Groups in a row whose mean is looked at, so that a slow trend shows."""
MIN_BLOCKS = 3
MIN_FACTOR, MAX_FACTOR = 0.5, 2.0
"""A group further from the usual scale has failed: what spoilt its scale spoils more than that."""
MAX_SCATTER = 2.0
"""Of a group's references about its scale, in units of their errors, with what chance adds."""
MIN_FOR_SCATTER = 5
"""References that show a scatter."""
CHANCE_SCATTER = 4.7
"""√n times (scatter − 1) of n references that is no chance, 4 sigma: the errors of such a group are
multiplied by its scatter."""
MAX_OFF_FRACTION, MAX_OFF_SIGMA = 0.05, 4.0
"""Part of the candidates that may be off in a group, because they vary, and the chance added."""
BASELINE_EPOCHS = 10
"""The median scale of so many first good epochs is 1."""
DEFAULT_GROUP_SCATTER = 0.05
"""1 sigma between the scales of a transit's groups, if it cannot be measured."""
GOOD, BORROWED, BAD, NONE = "good", "borrowed", "bad epoch", "no scale"
Texts = NDArray[np.object_]


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Planes of the flux scale of u groups, and what they are worth."""

    plane: Floats
    """Scale at a group's middle and its change per degree east and north, shape (u, 3)."""
    covariance: Floats
    """Shape (u, 3, 3)."""
    status: Texts
    """GOOD, BORROWED, BAD or NONE, shape (u,)."""

    @property
    def usable(self) -> Bools:
        """Which groups are GOOD or BORROWED, shape (u,)."""
        return np.isin(self.status, (GOOD, BORROWED))

    def at(self, group: Ints, basis: Floats) -> tuple[Floats, Floats]:
        """Return factors and their 1 sigma errors of rows at places, (3, N); NaN if unusable."""
        factor, error = evaluate(self.plane, self.covariance, group, basis)
        good = self.usable[group] & (factor > 0)
        return np.where(good, factor, np.nan), np.where(good, error, np.nan)


@dataclass(frozen=True, kw_only=True)
class CellScale:
    """The scale of u groups in one cell, from k references."""

    cell: Cell
    groups: Ints
    """Their indices in the measurements, shape (u,)."""
    epoch: Ints
    """Number of each group's transit, shape (u,)."""
    reference: Ints
    """Indices of the references among all sources, shape (k,)."""
    middle_deg: Floats
    """Offset of each group's middle from the cell's, east and north, shape (2, u)."""
    whole: Factors
    """From all references; not used for a reference itself."""
    others: list[Factors]
    """For each reference, from all others."""
    reason: Texts
    """Why a group is not good, None for good ones, shape (u,)."""
    inflation: Floats
    """Factor on all errors of each group, above 1 where the references scatter more than their
    errors explain, shape (u,)."""
    used: Ints
    """References that define the scale of each group, shape (u,)."""
    clipped: Ints
    """References that are outliers in each group, shape (u,)."""
    scatter: Floats
    """Of the references about a group's scale, in their errors; NaN below 5 references, (u,)."""
    relative_scatter: Floats
    """The same as a fraction of the flux, 1.4826 MAD; NaN without references, shape (u,)."""
    systematic: float
    """1 sigma of errors in one group that grow with flux, a fraction."""
    measured: bool
    """Whether `systematic` was measured."""
    exponent: float
    """Fluxes of the cell are divided by effective beam ^ exponent."""
    exponent_error: float


def find_candidates(rows: Measurements, options: NormalizeOptions) -> Ints:
    """Return the indices of single, unresolved sources, brightest first.

    Some are fainter than a reference should be: `choose_spread` uses them where no others are.
    """
    count, single = rows.names.size, np.ones(rows.names.size, bool)
    single[rows.source[rows.blend > 1]] = False
    snr = grouped_median(rows.flux / rows.noise, rows.source, count)
    seen = np.bincount(rows.source, minlength=count)
    needed = min(MIN_RATINGS, np.unique(rows.group).size)
    good = single & (snr >= FAINT_FRACTION * options.reference_snr) & (seen >= needed)
    if not good.any():
        return np.empty(0, np.int64)
    known = np.isfinite(rows.compactness)
    compactness = grouped_median(rows.compactness[known], rows.source[known], count)
    if np.isfinite(compactness[good]).any():
        offset = np.abs(compactness - np.nanmedian(compactness[good]))
        good &= ~(offset > MAX_COMPACTNESS_OFFSET)
    order = np.argsort(np.where(good, -snr, np.inf), kind="stable")[: int(good.sum())]
    return np.asarray(order[: MAX_CANDIDATE_FACTOR * options.max_references], np.int64)


def make_ratings(rows: Measurements, cell: Cell, members: Ints, groups: Ints) -> Ratings:
    """Return the measurements of some sources in some groups, both given by their indices.

    Places are counted from the middle of a group's sources.
    """
    index, place = np.full(rows.names.size, -1), np.full(rows.groups["mjd"].size, -1)
    index[members], place[groups] = np.arange(members.size), np.arange(groups.size)
    mine = (index[rows.source] >= 0) & (place[rows.group] >= 0)
    source, group = index[rows.source[mine]], place[rows.group[mine]]
    offsets = cell.offsets(rows.ra_deg, rows.dec_deg)[:, rows.source[mine]]
    size = np.maximum(np.bincount(group, minlength=groups.size), 1)
    middle = np.stack([np.bincount(group, part, groups.size) / size for part in offsets])
    return Ratings(
        source=source,
        group=group,
        flux=rows.flux[mine],
        noise=rows.noise[mine],
        basis=np.concatenate([np.ones((1, source.size)), offsets - middle[:, group]]),
        log_beam=rows.log_beam[mine],
        middle_deg=middle,
        shape=(members.size, groups.size),
    )


def slope_prior(options: NormalizeOptions) -> float | None:
    """Return the prior of slopes that the options fix; None: it is measured."""
    return {"auto": None, "always": ANY_SLOPE, "never": 0.0}[options.gradient]


def drop_variables(data: Ratings, mjd: Floats, options: NormalizeOptions) -> tuple[Bools, Texts]:
    """Return which of the k candidates do not vary, (k,), and what `find_mixed` says of them.

    While candidates scatter more than twice as much as the median one, from group to group or in
    the means of 8 groups in a row, the worst are dropped, at most a twentieth at once.
    """
    left, mixed = np.ones(data.shape[0], bool), np.full(data.shape[1], "", object)
    while left.sum() > MIN_REFERENCES:
        part = data.select(left[data.source])
        found = solve_jointly(
            part, systematic=options.systematic, slope=slope_prior(options), start=None
        )
        mixed = find_mixed(part, found)
        excess = candidate_excess(part, found, mjd, mixed)
        worst = np.argsort(-excess, kind="stable")
        worst = worst[: max(1, int(left.sum()) // 20)]
        worst = worst[excess[worst] > MAX_EXCESS][: int(left.sum()) - MIN_REFERENCES]
        if not worst.size:
            break
        left[worst] = False
    return left, mixed


def find_mixed(data: Ratings, found: Solution) -> Texts:
    """Return what is wrong with groups that have no single scale; empty for others, (u,).

    More candidates are off by more than 5 sigma than may vary. Sigma is the error, or the usual
    deviation of a source that varies (1.4826 MAD), so that such sources do not count.
    """
    (k, u), size = data.shape, np.abs(found.pull)
    usual = MAD_TO_SIGMA * grouped_median(size, data.source, k)
    off = data.group[size > NO_WEIGHT_SIGMA * np.maximum(usual, 1.0)[data.source]]
    count, wrong = np.bincount(data.group, minlength=u), np.bincount(off, minlength=u)
    chance = np.sqrt(MAX_OFF_FRACTION * (1 - MAX_OFF_FRACTION) * count)
    mixed = np.full(u, "", object)
    for g in np.flatnonzero(wrong > MAX_OFF_FRACTION * count + MAX_OFF_SIGMA * chance):
        mixed[g] = f"mixed scale: {wrong[g]} of {count[g]} bright sources are off by over 5 sigma"
    return mixed


def candidate_excess(data: Ratings, found: Solution, mjd: Floats, mixed: Texts) -> Floats:
    """Return each candidate's scatter over that of the median one, shape (k,).

    It is 0 for candidates with too few groups to show one; `mixed` groups show nothing.
    """
    k, _ = data.shape
    factor, error = evaluate(found.plane, found.covariance, data.group, data.basis)
    factor = factor / float(np.median(found.plane[:, 0]))
    good = (factor > MIN_FACTOR) & (factor < MAX_FACTOR) & (factor > MIN_SIGNIFICANCE * error)
    good &= (mixed == "")[data.group]
    order = np.flatnonzero(good)
    order = order[np.lexsort((mjd[data.group[order]], data.source[order]))]
    source, pull = data.source[order], found.pull[order]
    size = np.bincount(source, minlength=k)
    nth = np.arange(source.size) - (np.cumsum(size) - size)[source]
    block = source * (source.size // BLOCK + 1) + nth // BLOCK
    _, first, label = np.unique(block, return_index=True, return_inverse=True)
    mean = np.bincount(label, pull) / np.sqrt(np.bincount(label))
    blocks = np.bincount(source[first], minlength=k)
    excess = np.zeros(k)
    for values, owner, enough in (
        (pull, source, size > 1),
        (mean, source[first], blocks >= MIN_BLOCKS),
    ):
        scatter = np.bincount(owner, values**2, k) / np.maximum(np.bincount(owner, minlength=k), 1)
        if enough.any():
            usual = max(1.0, float(np.median(np.sqrt(scatter[enough]))))
            excess = np.maximum(excess, np.where(enough, np.sqrt(scatter) / usual, 0.0))
    return excess


def choose_spread(data: Ratings, places_deg: Floats, bright: Bools, count: int) -> Bools:
    """Choose about `count` references for every group, the brightest first, far from each other.

    Sources are ordered by brightness; places, (2, k), are in degrees. The distance begins with the
    radius of the field and is halved until every bright source is chosen that at least a fifth of
    its groups need. Faint ones fill groups that have fewer than 3.
    """
    k, u = data.shape
    chosen, have = np.zeros(k, bool), np.zeros(u, np.int64)
    ordered = data.group[np.argsort(data.source, kind="stable")]
    groups = np.split(ordered, np.cumsum(np.bincount(data.source, minlength=k))[:-1])
    distance = 0.5 * float(np.hypot(*np.ptp(places_deg, axis=1)))
    while distance >= 0:
        for i in np.flatnonzero(bright & ~chosen):
            gap = np.hypot(*(places_deg[:, chosen] - places_deg[:, [i]]))
            needed = np.mean(have[groups[i]] < count) if groups[i].size else 0.0
            if gap.min(initial=np.inf) >= distance and needed >= MIN_NEED:
                chosen[i] = True
                have[groups[i]] += 1
        last = distance == 0
        distance = -1.0 if last else distance / 2 if distance > SAME_PLACE_DEG else 0.0
    lacking = have < MIN_REFERENCES
    for i in np.flatnonzero(~bright):
        if (lacking & (have < ENOUGH_REFERENCES))[groups[i]].any():
            chosen[i] = True
            have[groups[i]] += 1
    return chosen


def judge_groups(data: Ratings, found: Solution, minimum: int) -> tuple[Texts, Texts]:
    """Return the status of each group, GOOD, BAD or NONE, and the reason if it is not good, (u,).

    NONE have fewer than `minimum` references; BAD have no significant scale, one far from the
    usual, or references that disagree.
    """
    used, scatter = count_used(data, found), group_scatter(data, found)
    factor, error = found.plane[:, 0], np.sqrt(found.covariance[:, 0, 0])
    enough = (used >= minimum) & (factor > MIN_SIGNIFICANCE * error)
    usual = float(np.median(factor[enough])) if enough.any() else 1.0
    relative, error = factor / usual, error / usual
    status, reason = np.full(used.size, GOOD, object), np.full(used.size, None, object)
    disagree = scatter > MAX_SCATTER + CHANCE_SCATTER / np.sqrt(np.maximum(used, 1))
    faint = ~(relative > MIN_SIGNIFICANCE * error)
    far = ~((relative >= MIN_FACTOR) & (relative <= MAX_FACTOR))
    status[faint | far] = BAD
    status[used < minimum] = NONE
    status[disagree] = BAD
    for g in np.flatnonzero(status != GOOD):
        if disagree[g]:
            reason[g] = f"references disagree by {scatter[g]:.1f} times their errors"
        elif status[g] == NONE:
            reason[g] = f"{used[g]} references"
        elif faint[g]:
            reason[g] = f"no significant scale: {relative[g]:.3g} ± {error[g]:.2g}"
        else:
            reason[g] = f"scale {relative[g]:.3g} times the usual one"
    return status, reason


def count_used(data: Ratings, found: Solution) -> Ints:
    """Return the number of references that the robust fit uses in each group, shape (u,)."""
    return np.bincount(data.group[found.weight > 0], minlength=data.shape[1])


def group_scatter(data: Ratings, found: Solution) -> Floats:
    """Return the scatter of references in units of their errors, (u,); NaN below 5 references."""
    count = np.bincount(data.group, minlength=data.shape[1])
    square = grouped_median(found.pull**2, data.group, count.size)
    return np.where(count >= MIN_FOR_SCATTER, np.sqrt(square / MEDIAN_Z2), np.nan)


def borrow_scales(found: Solution, status: Texts, epoch: Ints) -> Factors:
    """Return the factors of a solution, with those of groups that lack references filled in.

    Such a group gets the mean scale of the good ones of the same transit. Its error contains the
    scatter between the groups of a transit, measured where there are several, else 5 %.
    """
    plane, covariance, status = found.plane.copy(), found.covariance.copy(), status.copy()
    good = status == GOOD
    weight = np.where(good, 1.0 / np.maximum(covariance[:, 0, 0], 1e-12), 0.0)
    number, label = np.unique(epoch, return_inverse=True)
    total = np.bincount(label, weight, number.size)
    mean = np.bincount(label, weight * plane[:, 0], number.size) / np.maximum(total, 1e-300)
    several = good & (np.bincount(label, good, number.size)[label] > 1)
    spread = DEFAULT_GROUP_SCATTER
    if several.sum() >= MIN_FOR_SCATTER:
        rest = (plane[several, 0] / mean[label[several]] - 1) * np.sqrt(2)
        spread = max(MAD_TO_SIGMA * float(np.median(np.abs(rest))), 1e-4)
    total, mean = total[label], mean[label]
    lacking = (status == NONE) & (total > 0)
    plane[lacking], covariance[lacking] = 0.0, 0.0
    plane[lacking, 0] = mean[lacking]
    covariance[lacking, 0, 0] = 1.0 / total[lacking] + (spread * mean[lacking]) ** 2
    status[lacking] = BORROWED
    return Factors(plane=plane, covariance=covariance, status=status)


def solve_cell(rows: Measurements, cell: Cell, options: NormalizeOptions) -> CellScale | None:
    """Choose the references of a cell and solve its scale; None if it has too few of them."""
    members, groups = find_candidates(rows, options), np.unique(rows.group)
    mjd = rows.groups["mjd"][groups].astype(np.float64)
    mixed = np.full(groups.size, "", object)
    if members.size >= MIN_REFERENCES:
        members, mixed = choose_references(rows, cell, members, groups, options)
    if members.size < MIN_REFERENCES:
        return None
    data = make_ratings(rows, cell, members, groups)
    fixed = {"systematic": options.systematic, "slope": slope_prior(options)}
    whole = solve_jointly(data, **fixed, start=None)
    status, reason = judge_groups(data, whole, MIN_REFERENCES)
    several = (status == GOOD) & (mixed != "")
    status[several], reason[several] = BAD, mixed[several]
    epoch = transit_numbers(mjd, cell.ra_deg)
    whole = anchor(whole, status, epoch)
    scatter = group_scatter(data, whole)
    chance = 1 + CHANCE_SCATTER / np.sqrt(np.maximum(count_used(data, whole), 1))
    inflation = np.where(scatter > chance, scatter, 1.0)
    whole = replace(whole, covariance=whole.covariance * inflation[:, None, None] ** 2)
    others = []
    for i in range(members.size):
        rest = data.select(data.source != i)
        found = solve_jointly(rest, systematic=whole.systematic, slope=whole.slope, start=whole)
        own, _ = judge_groups(rest, found, MIN_OTHER_REFERENCES)
        own[status == BAD] = BAD
        found = replace(found, covariance=found.covariance * inflation[:, None, None] ** 2)
        others.append(borrow_scales(found, own, epoch))
    return CellScale(
        cell=cell,
        groups=groups,
        epoch=epoch,
        reference=members,
        middle_deg=data.middle_deg,
        whole=borrow_scales(whole, status, epoch),
        others=others,
        reason=reason,
        inflation=inflation,
        used=count_used(data, whole),
        clipped=np.bincount(data.group[whole.weight == 0], minlength=groups.size),
        scatter=scatter,
        relative_scatter=MAD_TO_SIGMA
        * grouped_median(np.abs(whole.ratio), data.group, groups.size),
        systematic=whole.systematic,
        measured=whole.measured,
        exponent=whole.exponent,
        exponent_error=whole.exponent_error,
    )


def choose_references(
    rows: Measurements, cell: Cell, members: Ints, groups: Ints, options: NormalizeOptions
) -> tuple[Ints, Texts]:
    """Return those of the candidates that are steady, spread over the field and connected.

    And what `find_mixed` says of the groups.
    """
    mjd = rows.groups["mjd"][groups].astype(np.float64)
    data = make_ratings(rows, cell, members, groups)
    steady, mixed = drop_variables(data, mjd, options)
    members = members[steady]
    data = make_ratings(rows, cell, members, groups)
    places = cell.offsets(rows.ra_deg[members], rows.dec_deg[members])
    snr = grouped_median(data.flux / data.noise, data.source, members.size)
    bright = snr >= options.reference_snr
    members = members[choose_spread(data, places, bright, options.max_references)]
    return members[largest_component(make_ratings(rows, cell, members, groups))], mixed


def anchor(found: Solution, status: Texts, epoch: Ints) -> Solution:
    """Return the solution with the median scale of the first ten epochs with good groups as 1."""
    good = status == GOOD
    if not good.any():
        return found
    first = np.unique(epoch[good])[:BASELINE_EPOCHS]
    usual = float(np.median(found.plane[good & np.isin(epoch, first), 0]))
    return replace(
        found,
        baseline=found.baseline * usual,
        plane=found.plane / usual,
        covariance=found.covariance / usual**2,
    )
