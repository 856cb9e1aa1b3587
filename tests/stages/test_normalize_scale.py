"""The flux scale against known answers: bad epochs, references that come and go or vary, setups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contimg.astro.telescope import SITE
from contimg_normalize.epochs import (
    find_duplicates,
    grouped_median,
    label_setups,
    make_cells,
    transit_numbers,
)
from contimg_normalize.solve import largest_component
from photometry_tables import (
    SIDEREAL_DAY,
    Normalized,
    World,
    curve_statistics,
    normalize,
    steady_world,
)


def world(seed: int, n: int = 60, u: int = 40, **changed: Any) -> World:
    return steady_world(n, u, seed=seed, **({"common": 0.05} | changed))


def statuses(field: Normalized) -> dict[int, str]:
    pairs = zip(field.scale.groups, field.scale.whole.status, strict=True)
    return {int(g): status for g, status in pairs if status != "good"}


def mean_chi2(field: Normalized, without: tuple[int, ...] = ()) -> float:
    """Mean χ²ν of the steady sources; 40 sources of 40 epochs give it to 0.035."""
    _, chi, _ = curve_statistics(field.curves)
    return float(np.mean(np.delete(chi, without)))


def test_blank_epoch_is_marked_and_not_used() -> None:
    sky = world(1)
    sky.flux[:, 20] = 0
    (field,), reasons, metrics = normalize(sky)
    assert statuses(field) == {20: "bad epoch"}
    assert any("g0020 (no significant scale" in text for text in reasons)
    assert metrics["bad_groups"] == 1
    curves = field.curves
    bad = curves.epoch == field.scale.epoch[20]
    assert np.isnan(curves.flux[bad]).all()
    assert set(curves.status[bad]) == {"bad epoch"}
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)


def test_epoch_of_unknown_noise_is_marked() -> None:
    sky = world(9)
    sky.flux[:, 10] += 5 * sky.rng.normal(size=60)
    (field,), reasons, _ = normalize(sky)
    assert statuses(field) == {10: "bad epoch"}
    assert any("g0010 (references disagree" in text for text in reasons)


def test_noisy_epoch_has_its_errors() -> None:
    sky = world(9)
    sky.noise[:, 10] *= 10
    (field,), reasons, _ = normalize(sky)
    assert reasons == []
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("seed", [21, 23])
@pytest.mark.parametrize(
    ("part", "factor", "n"), [(2, 0.5, 60), (2, 0.5, 30), (2, 1.5, 60), (3, 0.7, 60), (4, 0.5, 60)]
)
def test_epoch_of_two_scales_is_marked(seed: int, part: int, factor: float, n: int) -> None:
    """A half, a third or a quarter of the sources are wrong in one epoch."""
    sky = world(seed, n=n)
    wrong = sky.rng.permutation(n)[: n // part]
    sky.flux[wrong, 25] *= factor
    (field,), reasons, _ = normalize(sky)
    assert statuses(field) == {25: "bad epoch"}
    words = ("mixed scale: ", "references disagree", "scale 0.")
    assert any(f"g0025 ({word}" in text for text in reasons for word in words)
    assert np.isnan(field.curves.flux[field.curves.epoch == field.scale.epoch[25]]).all()
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)


def test_half_of_the_sky_is_marked_in_one_of_three_groups() -> None:
    sky = drifting_world(eps=0.0)
    sky.flux[sky.ra > 40.5, 61] *= 0.5
    fields, reasons, _ = normalize(sky)
    assert any("g0061 (mixed scale: " in text for text in reasons)
    assert sum(bool(statuses(field)) for field in fields) >= 1
    assert all(set(statuses(field)) <= {61} for field in fields)


@pytest.mark.parametrize("kind", ["flares", "eclipses", "one epoch", "steady"])
def test_variable_sources_are_not_two_scales(kind: str) -> None:
    """A tenth of the sources vary, each when it likes, or all in one epoch."""
    for seed in (31, 32):
        sky = world(seed, n=80)
        for k in sky.rng.permutation(80)[:8] if kind != "steady" else ():
            when = sky.rng.random(40) < 0.3 if kind == "eclipses" else np.arange(40) == 30
            if kind == "flares":
                when = np.abs(np.arange(40) - sky.rng.integers(40)) < 4
            sky.flux[k, when] *= 0.6 if kind == "eclipses" else 2.0
        (field,), reasons, _ = normalize(sky)
        assert statuses(field) == {}
        assert not any("mixed scale" in text for text in reasons)


def come_and_go(sky: World) -> None:
    """Each source is measured for a third of the time."""
    for k, start in enumerate(sky.rng.integers(0, sky.mjd.size * 2 // 3, len(sky.present))):
        sky.present[k] = False
        sky.present[k, start : start + sky.mjd.size // 3] = True


def bright_come_late(sky: World) -> None:
    sky.present[np.ix_(sky.flux.mean(axis=1) / 0.5 > 50, np.arange(12))] = False


@pytest.mark.parametrize(("change", "some"), [(come_and_go, 0.9), (bright_come_late, 1.0)])
def test_references_may_come_and_go(change: Callable[[World], None], some: float) -> None:
    sky = world(3, n=90, u=60)
    change(sky)
    (field,), _, _ = normalize(sky)
    assert np.isfinite(field.curves.flux).mean() >= some
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)


def test_disconnected_epochs_have_no_common_scale() -> None:
    sky = world(3)
    sky.present[:40, :25] = False
    sky.present[40:, 25:] = False
    (field,), _, _ = normalize(sky)
    assert sorted(statuses(field)) in (list(range(25)), list(range(25, 40)))
    curves = field.curves
    assert np.isfinite(curves.flux).any()
    sides = {bool(e < 25) for e in (curves.epoch - curves.epoch.min())[np.isfinite(curves.flux)]}
    assert len(sides) == 1


def test_three_references_have_light_curves() -> None:
    (field,), reasons, _ = normalize(world(4, n=3, snr=(100, 300)))
    assert np.isfinite(field.curves.flux).all()
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.4)
    assert any("only 3 references" in text for text in reasons)


@pytest.mark.parametrize("when", [slice(15, 25), slice(25, 40)])
def test_flare_among_four_references_is_dropped(when: slice) -> None:
    sky = world(5, n=4, snr=(100, 300))
    sky.flux[1, when] *= 2
    (field,), _, _ = normalize(sky)
    assert field.scale.reference.tolist() == [0, 2, 3]
    assert mean_chi2(field, without=(1,)) == pytest.approx(1.0, abs=0.4)
    curve = field.curves.flux[field.curves.source == 1]
    assert curve[when].mean() / np.delete(curve, np.arange(40)[when]).mean() == pytest.approx(
        2, abs=0.02
    )


def test_scale_errors_are_honest_with_few_references() -> None:
    pulls = []
    for seed in range(12):
        sky = world(seed, n=5, snr=(60, 200))
        true = sky.flux[0] / sky.flux[0].mean()
        (field,), _, _ = normalize(sky)
        planes = field.scale.whole
        ratio = planes.plane[:, 0] / true
        pulls += list((ratio / ratio.mean() - 1) * true / np.sqrt(planes.covariance[:, 0, 0]))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)


def test_variable_references_are_dropped() -> None:
    sky = world(11, u=80)
    bright = np.argsort(-sky.flux.mean(axis=1))
    sky.flux[bright[0]] *= 1 + 0.05 * np.arange(80) / 80  # ramps slowly
    sky.flux[bright[1], 30:45] *= 0.8  # a lens
    sky.flux *= 1 + 0.3 * np.arange(80) / 80  # common: no source's own
    (field,), _, _ = normalize(sky)
    assert not set(bright[:2]) & set(field.scale.reference.tolist())
    steady = np.delete(np.arange(60), bright[:2])
    _, chi, _ = curve_statistics(field.curves)
    assert np.mean(chi[steady]) == pytest.approx(1.0, abs=0.1)
    curve = field.curves.flux[field.curves.source == bright[1]]
    assert curve[30:45].mean() / curve[45:].mean() == pytest.approx(0.8, abs=0.004)


def test_no_source_normalises_itself() -> None:
    sky = world(6, n=12, snr=(60, 200))
    (field,), _, _ = normalize(replace(sky, rng=np.random.default_rng(1)))
    k = int(field.scale.reference[0])
    changed = replace(sky, flux=sky.flux.copy(), rng=np.random.default_rng(1))
    changed.flux[k, 30] *= 1.02
    (after,), _, _ = normalize(changed)
    mine = field.curves.source == k
    # Whether a reference is steady, and the size of the systematic term, may depend on it.
    assert after.curves.factor[mine] == pytest.approx(field.curves.factor[mine], rel=2e-4)
    assert after.curves.flux[mine][30] / field.curves.flux[mine][30] == pytest.approx(
        1.02, rel=2e-4
    )


def test_slopes_are_fitted_only_where_there_are_some() -> None:
    flat, sloped = world(7), world(7)
    east = (sloped.ra - 40.5) * np.cos(np.radians(33))
    sloped.flux *= 1 + 0.02 * sloped.rng.normal(size=40) * east[:, None]
    for sky, fitted in ((flat, False), (sloped, True)):
        (field,), _, _ = normalize(sky)
        assert (np.abs(field.scale.whole.plane[:, 1:]).max() > 1e-6) == fitted
        assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)
    never = curve_statistics(normalize(sloped, gradient="never")[0][0].curves)[2]
    assert np.median(never) < 1.2  # the scatter becomes the systematic term


def same_data_twice(sky: World) -> World:
    """Each group again, under another name, 5 seconds later."""
    draw = sky.rng.normal(size=sky.flux.shape)
    names = {"flux": sky.flux, "noise": sky.noise, "present": sky.present, "draw": draw}
    mjd = np.repeat(sky.mjd, 2) + np.tile([0, 5 / 86400], sky.mjd.size)
    return replace(sky, mjd=mjd, **{n: np.repeat(v, 2, axis=1) for n, v in names.items()})


def test_same_data_under_two_names_count_once() -> None:
    sky = same_data_twice(world(6))
    sky.columns = {"used_fraction": [1.0, 0.5] * 40}
    (field,), reasons, metrics = normalize(sky)
    assert metrics["duplicates"] == 40
    assert "the same data under another name" in reasons[0]
    assert set(field.curves.count) == {1}
    assert set(field.scale.groups) == set(range(0, 80, 2))  # the fuller ones
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)


def test_groups_a_minute_apart_are_not_one_chain() -> None:
    """Only groups within 2 minutes of a kept one are its repetitions."""
    sky = world(6, u=12)
    sky.mjd = sky.mjd[0] + np.arange(12) * 80 / 86400
    rows = sky.measurements()
    assert find_duplicates(rows, np.ones(12, bool)).tolist() == [True, False] * 6


def test_group_without_any_flux_is_named() -> None:
    sky = world(6)
    sky.flux[:, 7] = np.nan
    (field,), reasons, metrics = normalize(sky)
    assert 7 not in field.scale.groups
    assert "no usable flux: g0007" in reasons
    assert metrics["blank_groups"] == 1


def test_other_frequency_is_left_out() -> None:
    sky, six = world(7), [5, 9, 17, 22, 30, 33]
    index = sky.rng.uniform(-1, 0.3, 60)
    sky.flux[:, six] *= (1.45 / 1.38) ** index[:, None]
    sky.columns = {"frequency": [1.45e9 if g in six else 1.38e9 for g in range(40)]}
    (field,), reasons, metrics = normalize(sky)
    assert set(field.scale.groups) == set(range(40)) - set(six)
    assert metrics["setups"] == 2
    assert "6 groups of another setup were left out (" in reasons[0]
    assert "frequency 1450.0 MHz" in reasons[0]
    assert mean_chi2(field) == pytest.approx(1.0, abs=0.15)
    (other,), _, _ = normalize(sky, setup=1)
    assert other.scale.groups.tolist() == six


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("tier", ["a", "b", "b", None, "b"], [2, 0, 0, 1, 0]),
        ("primary_beam", ["a", "a", "b", "a", "a"], [0, 0, 1, 0, 0]),
        ("catalogue", [None] * 5, [0] * 5),
        ("catalogue", [None, None, None, "nvss", "nvss"], [0, 0, 0, 1, 1]),
        ("frequency", [1.4e9, 1.401e9, 1.38e9, np.nan, 1.401e9], [0, 0, 2, 1, 0]),
        ("frequency", [np.nan, 1.4e9, np.nan, np.nan, 1.4e9], [0, 1, 0, 0, 1]),
        ("bmaj", [60.0, 61.0, 62.0, 30.0, 60.5], [0, 0, 0, 1, 0]),
    ],
)
def test_setups_are_told_apart(name: str, values: list[Any], expected: list[int]) -> None:
    groups: dict[str, Any] = {n: np.full(5, None) for n in ("tier", "primary_beam", "catalogue")}
    groups |= {n: np.full(5, np.nan) for n in ("frequency", "bmaj", "bmin")}
    groups |= {"mjd": np.arange(5.0), name: np.array(values)}
    assert label_setups(groups).tolist() == expected


def test_rows_that_do_not_state_their_frequency_are_told() -> None:
    """Rows of older tables are never mixed with others, nor with each other without a word."""
    sky = world(7)
    sky.columns = {"frequency": [np.nan] * 15 + [1.4e9] * 25}
    (field,), reasons, _ = normalize(sky)
    assert field.scale.groups.tolist() == list(range(15, 40))
    assert "15 groups of another setup" in reasons[0]
    assert "frequency not stated" in reasons[0]
    (old,), reasons, _ = normalize(sky, setup=1)
    assert old.scale.groups.tolist() == list(range(15))
    assert any("does not state the frequency of its images" in text for text in reasons)


@pytest.mark.parametrize("strip", [-5.0, 16.3, 33.0, 71.6, 88.0])
def test_cells_are_fixed_and_cover_the_circle(strip: float) -> None:
    cells, ra = make_cells(strip), np.random.default_rng(1).uniform(0, 360, 5000)
    ra[:4] = 0.0, 360.0, -1e-15, np.nextafter(360.0, 0.0)
    held = np.array([cell.holds(ra) for cell in cells])
    assert (held.sum(axis=0) == 1).all()
    for cell, mine in zip(cells, held, strict=True):
        assert cell.uses(ra)[mine].all()
        assert not mine.any() or np.ptp(cell.offsets(ra[mine], np.full(mine.sum(), strip))[0]) < 16


def test_new_source_changes_no_other_cell() -> None:
    sky = steady_world(160, 8, seed=3, snr=(20, 500))
    ra = np.random.default_rng(1).uniform(0, 360, 160)
    sky = replace(sky, ra=ra, draw=sky.rng.normal(size=(160, 8)))
    one: dict[str, Any] = {"ra": np.append(ra, 100.0), "dec": np.append(sky.dec, 33.0)}
    for name in ("flux", "noise", "present", "draw"):
        one[name] = np.vstack([getattr(sky, name), getattr(sky, name)[:1]])
    # At this Declination the circle has 8 cells.
    before, after = (normalize(world, strip=80.0)[0] for world in (sky, replace(sky, **one)))
    assert len(before) == 8
    assert [f.scale.cell for f in before] == [f.scale.cell for f in after]
    changed = 0
    for old, new in zip(before, after, strict=True):
        mine = new.curves.source != 160
        assert new.curves.source[mine].tolist() == old.curves.source.tolist()
        changed += not np.array_equal(new.curves.flux[mine], old.curves.flux)
    assert changed <= 3  # its own cell and its neighbours


def test_sources_at_a_border_share_their_scale() -> None:
    sky = world(12)
    sky.ra += 45.0 - 40.5  # a border for strip 33
    west, east = normalize(sky)[0]
    ratio = west.scale.whole.plane[:, 0] / east.scale.whole.plane[:, 0]
    error = np.sqrt(west.scale.whole.covariance[:, 0, 0])
    assert np.abs(ratio / ratio.mean() - 1).max() < 0.1 * error.min()


def test_missing_group_makes_no_step() -> None:
    sky = drifting_world(eps=0.1)
    sky.present[:, 3 * 20 + 1 :: 3] = False  # no middle groups in the second half
    fields, reasons, _ = normalize(sky)
    steps, pulls = [], []
    for field in fields:
        curves, first = field.curves, field.curves.epoch.min()
        for k in np.unique(curves.source[curves.raw > 100 * curves.noise]):
            mine = curves.source == k
            half = [mine & ((curves.epoch < first + 20) == early) for early in (True, False)]
            if min(part.sum() for part in half) == 20:
                (a, da), (b, db) = ((curves.flux[p].mean(), curves.error[p].mean()) for p in half)
                steps.append(b / a - 1)
                pulls.append((b - a) / np.hypot(da, db) * np.sqrt(20))
    assert len(steps) >= 8
    exponents = [field.scale.exponent for field in fields]
    print(f"median step {np.median(np.abs(steps)):.4f}, exponents {np.round(exponents, 4)}")  # noqa: T201 - for docs
    # The beam alone would make steps of 1.2 % in the mean and 2.8 % at most.
    assert np.median(np.abs(steps)) < 0.003
    assert np.std(pulls) < 1.4
    assert any("fluxes follow beam^+" in text for text in reasons)
    assert exponents == pytest.approx([0.1] * len(fields), abs=0.005)


def drifting_world(eps: float, n: int = 120, epochs: int = 40) -> World:
    """Three groups a transit, 1.29 deg apart, of sources that drift through a beam.

    The beam is assumed too wide: fluxes ∝ beam^eps. Each group has its own scale and slope.
    """
    rng = np.random.default_rng(1)
    group = np.arange(3 * epochs)
    centre = (group % 3 - 1) * 1.29 + rng.uniform(-0.6, 0.6, epochs)[group // 3]
    east, north = rng.uniform(-4, 4, n), rng.uniform(-1.8, 1.8, n)
    dx = east[:, None] - centre
    beam = np.exp(-4 * np.log(2) * (dx**2 + north[:, None] ** 2) / 2.7**2)
    true = 0.5 * np.exp(rng.uniform(np.log(5), np.log(500), n))
    slope = 0.02 * rng.normal(size=(2, group.size))
    error = (1 + 0.05 * rng.normal(size=group.size)) * (
        1 + slope[0] * dx + slope[1] * north[:, None]
    )
    return World(
        ra=40.5 + east / np.cos(np.radians(33)),
        dec=33 + north,
        mjd=61065.1 + SIDEREAL_DAY * (group // 3) + group % 3 * 309 / 86400,
        flux=true[:, None] * error * beam**eps,
        noise=0.5 / beam,
        present=beam > 0.2,
        columns={"beam": beam},
        rng=rng,
    )


def test_group_without_references_borrows_its_scale() -> None:
    sky = drifting_world(eps=0.0)
    few = 3 * np.arange(10, 20)
    bright = sky.flux.mean(axis=1) > 10
    sky.present[np.ix_(bright, few)] = False
    fields, reasons, _ = normalize(sky)
    assert any("borrowed scale: " in text for text in reasons)
    scale = fields[-1].scale
    borrowed = np.array(scale.whole.status) == "borrowed"
    error = np.sqrt(scale.whole.covariance[:, 0, 0])
    assert set(few) >= set(scale.groups[borrowed]) > set()
    assert np.median(error[borrowed]) > 3 * np.median(error[~borrowed])


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.02])
def test_systematic_term_is_measured(fraction: float) -> None:
    sky = world(3, n=20, u=60, snr=(300, 500))
    sky.flux *= 1 + fraction * sky.rng.normal(size=sky.flux.shape)
    (field,), _, metrics = normalize(sky)
    # 20 × 60 epochs give a scatter to 2 %; below a third of the noise (0.3 %) it is not measurable.
    assert field.field.systematic == pytest.approx(fraction, abs=max(0.0012, 0.1 * fraction))
    assert metrics["scatter_classes"][-1]["unexplained"] == pytest.approx(
        fraction, abs=max(0.0012, 0.1 * fraction)
    )


def test_two_epochs_measure_the_systematic_term() -> None:
    sky = world(8, n=40, u=2, snr=(100, 500))
    sky.flux *= 1 + 0.02 * sky.rng.normal(size=sky.flux.shape)
    (field,), _, _ = normalize(sky)
    assert field.field.measured
    assert field.field.systematic == pytest.approx(0.02, abs=0.008)
    (single,), reasons, _ = normalize(world(8, n=40, u=1))
    assert not single.field.measured
    assert single.field.systematic == 0.01
    assert any("is assumed" in text for text in reasons)


def test_epoch_spans_midnight_and_ra_zero() -> None:
    turned = 280.46061837 + SITE.lon_deg
    day = 360.0 / 360.98564736629
    transit = 51544.5 + (360.0 * 9700 + 359.5 - turned) / 360.98564736629
    mjd = transit + np.array([-0.02, -0.01, 0.0, 0.02])
    number = transit_numbers(np.append(mjd, mjd + 57 * day), 359.5)
    assert number.tolist() == [9700] * 4 + [9757] * 4


def test_grouped_median_and_components() -> None:
    values, label = np.array([5.0, 1.0, 3.0, 2.0, 9.0]), np.array([0, 2, 0, 2, 0])
    assert grouped_median(values, label, 4) == pytest.approx([5, np.nan, 1.5, np.nan], nan_ok=True)
    sky = world(1, n=6, u=6)
    sky.present[:4, 3:] = False
    sky.present[4:, :3] = False
    from contimg_normalize.scale import make_ratings

    rows = sky.measurements()
    data = make_ratings(rows, make_cells(33.0)[4], np.arange(6), np.arange(6))
    assert largest_component(data).tolist() == [True] * 4 + [False] * 2
