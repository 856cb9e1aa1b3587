"""The formulas of the normalisation against known answers; epochs and fields on the turning sky."""

from __future__ import annotations

import numpy as np
import pytest

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.telescope import SITE
from contimg_normalize import epochs, scale
from contimg_normalize.epochs import LightCurves, average_epochs, label_fields, transit_number
from contimg_normalize.scale import EpochScale, scales_from_others, solve_epoch


def solve_flat(ratio: np.ndarray) -> EpochScale:
    return solve_epoch(ratio, np.zeros((2, ratio.size)), gradient=False)


def test_baseline_is_median_of_first_epochs() -> None:
    row = np.array([np.nan, 5, 1, 2, 3, np.nan, 4, 6, 7, 8, 9, 10, 1000, 1000])
    middle, spread = scale.measure_baselines(row[None, :])
    assert middle[0] == 5.5  # of 1 to 10
    assert spread[0] == pytest.approx(MAD_TO_SIGMA * 2.5)


def test_factor_is_median_of_clipped_ratios() -> None:
    found = solve_flat(np.array([1.00, 1.01, 0.99, 1.02, 0.98, 1.01, 0.99, 1.00, 3.0, np.nan]))
    assert found.plane[0] == 1.0
    assert list(np.flatnonzero(~found.used)) == [8, 9]
    assert found.scatter == pytest.approx(MAD_TO_SIGMA * 0.01)
    error = 1.2533 * MAD_TO_SIGMA * 0.01 / np.sqrt(8)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(error)


def test_clip_leaves_handful_of_references() -> None:
    # Clipped again and again, four of these five would go.
    found = solve_flat(np.array([1.0, 1.001, 1.01, 0.95, 1.06]))
    assert found.used.sum() >= 3
    assert found.plane[0] == pytest.approx(1.0, abs=0.005)


def test_factor_error_is_scatter_over_epochs() -> None:
    rng = np.random.default_rng(2)
    found = [solve_flat(1.05 + 0.02 * rng.normal(size=15)) for _ in range(2000)]
    value, error = np.array([(s.plane[0], np.sqrt(s.covariance[0, 0])) for s in found]).T
    assert value.mean() == pytest.approx(1.05, abs=5e-4)
    # For 15 references sqrt(π/2), the limit for many, is 4 % too large, and the MAD 4 % too small.
    assert np.sqrt(np.mean(error**2)) == pytest.approx(value.std(), rel=0.12)


def test_too_few_references_give_no_factor() -> None:
    found = solve_flat(np.array([1.0, 1.1, np.nan, np.nan]))
    assert np.isnan(found.plane).all()
    assert np.isnan(found.at(np.zeros(2))[0])


def test_no_source_normalises_itself() -> None:
    flux = np.ones((5, 11))  # ten epochs of baseline, and one more
    flux[:, 10] = [1.0, 1.01, 0.99, 1.02, 9.0]
    before, _ = scales_from_others(flux, np.zeros((2, 5)), gradient=False)
    for k in range(5):
        others = np.where(np.arange(5) == k, np.nan, flux[:, 10])
        assert before[k, 10] == solve_flat(others).plane[0]
        changed = flux.copy()
        changed[k, 10] = 2.0
        after, _ = scales_from_others(changed, np.zeros((2, 5)), gradient=False)
        assert after[k, 10] == before[k, 10]


def test_error_formula() -> None:
    factors = np.array(0.8), np.array(0.02)
    flux, error = scale.normalise(np.array(200.0), np.array(3.0), factors)
    assert flux == pytest.approx(250.0)
    assert error == pytest.approx(np.sqrt((3 / 0.8) ** 2 + (200 * 0.02 / 0.64) ** 2))


def test_gradient_error_grows_outwards() -> None:
    rng = np.random.default_rng(9)
    offsets = rng.uniform(-2, 2, (2, 16))
    ratio = 1.05 + 0.03 * offsets[0] - 0.02 * offsets[1] + 0.001 * rng.normal(size=16)
    found = solve_epoch(ratio, offsets, gradient=True)
    # 16 references of 0.1 % over 4 degrees give a plane to 0.03 % and 0.02 % a degree: 3–4 sigma.
    assert found.plane == pytest.approx([1.05, 0.03, -0.02], abs=1e-3)
    _, error = found.at(np.array([[0.0, 6.0], [0.0, 6.0]]))
    assert error[1] > 3 * error[0]
    assert solve_epoch(ratio[:7], offsets[:, :7], gradient=True).plane[1] == 0.0


def test_epoch_spans_midnight_and_ra_zero() -> None:
    field = 359.5
    ra = np.array([358.0, 359.9, 0.1, 1.0])
    day = 360.0 / 360.98564736629
    # A transit of RA 0 near midnight UTC: sources cross the meridian within 12 minutes, on two
    # dates and two sides of RA 0.
    turned = 280.46061837 + SITE.lon_deg
    transit = 51544.5 + (360.0 * 9700 + field - turned) / 360.98564736629
    for shift in np.linspace(-0.01, 0.01, 9):
        number = transit_number(np.full(4, transit + shift), ra, field)
        assert len(set(number)) == 1
        later = transit_number(np.full(4, transit + shift + 57 * day), ra, field)
        assert (later == number + 57).all()


def test_fields_are_split_at_gaps() -> None:
    ra = np.array([358.0, 1.0, 2.0, 150.0, 151.0, 0.5, 359.0])
    number = label_fields(ra)
    assert len(set(number[[0, 1, 2, 5, 6]])) == 1
    assert len(set(number[[3, 4]])) == 1
    assert number[0] != number[3]
    assert epochs.arc_middle(ra[[0, 1, 2, 5, 6]]) == pytest.approx(0.0, abs=1e-9)
    whole_circle = label_fields(np.arange(0, 360, 0.5))
    assert len(set(whole_circle)) == 24
    assert np.bincount(whole_circle).max() <= 31
    assert list(label_fields(np.array([10.0]))) == [0]


def photometry_rows(n: int, m: int, groups: int = 1, seed: int = 1) -> dict[str, np.ndarray]:
    """Rows of steady sources of 100 mJy and 1 % noise, `groups` observations in each epoch."""
    i, e, g = (part.ravel() for part in np.indices((n, m, groups)))
    noise = np.array([1.0, 2.0, 4.0])[g]
    columns = {"source": np.array([f"s{k:02d}" for k in i]), "ra": 30 + 0.1 * i}
    columns |= {"dec": 33 + 0.1 * (i % 7), "mjd": 61000.2 + 0.99727 * e + 0.003 * g}
    columns["flux_forced"] = 100 + noise * np.random.default_rng(seed).normal(size=i.size)
    columns |= {"local_rms": noise, "compactness": np.ones(i.size)}
    return columns | {"blend": np.ones(i.size, int)}


def test_observations_are_averaged_by_noise() -> None:
    rows = photometry_rows(3, 5, groups=3)
    curves = average_epochs(rows)
    assert curves.flux.shape == (3, 5)
    assert (curves.count == 3).all()
    assert np.diff(curves.epoch).tolist() == [1, 1, 1, 1]
    mine = (rows["source"] == "s01") & (np.floor((rows["mjd"] - 61000) / 0.99727) == 2)
    weight = rows["local_rms"][mine] ** -2.0
    assert mine.sum() == 3
    mean = np.average(rows["flux_forced"][mine], weights=weight)
    assert curves.flux[1, 2] == pytest.approx(mean, rel=1e-12)
    assert curves.noise[1, 2] == pytest.approx(weight.sum() ** -0.5, rel=1e-12)


def test_unmeasured_source_is_missing() -> None:
    rows = photometry_rows(3, 4)
    curves = average_epochs({name: np.delete(column, 5) for name, column in rows.items()})
    assert np.isnan(curves.flux).sum() == 1
    assert curves.count.min() == 0


def make_curves(n: int = 30, m: int = 26, *, seed: int = 0) -> LightCurves:
    curves = average_epochs(photometry_rows(n, m, seed=seed))
    curves.flux[:] *= 1 + 0.05 * np.random.default_rng(seed).normal(size=m)
    return curves


def test_candidates_are_bright_single_compact() -> None:
    curves = make_curves()
    curves.noise[0] *= 3
    curves.blend[1] = 2
    curves.compactness[2] = 1.3
    curves.flux[3, :8] = np.nan
    assert list(np.flatnonzero(~scale.find_candidates(curves, 50.0))) == [0, 1, 2, 3]


def test_variable_source_is_no_reference() -> None:
    curves = make_curves()
    curves.flux[4, 10:] *= 1.3
    curves.flux[7] *= 1 + 0.2 * np.sin(np.arange(26) / 4)
    left = scale.drop_variables(curves, np.ones(30, bool), curves.noise, gradient=False)
    assert not left[[4, 7]].any()
    assert left.sum() >= 26


def test_references_are_bright_and_spread() -> None:
    curves = make_curves(60, 6)
    curves.noise[:20] /= 3  # the brightest all lie within two degrees
    chosen = scale.choose_spread(curves, np.ones(60, bool), 12)
    assert chosen.sum() == 12
    assert np.ptp(curves.ra_deg[chosen]) > 4
    assert chosen[:20].sum() >= 3


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.02])
def test_systematic_term_is_measured(fraction: float) -> None:
    curves = make_curves(20, 60, seed=3)
    systematic, noise = (np.random.default_rng(seed).normal(size=(20, 60)) for seed in (4, 5))
    curves.noise[:] = 0.3
    curves.flux[:] = 100 * (1 + 0.05 * np.sin(np.arange(60))) * (1 + fraction * systematic)
    curves.flux[:] += 0.3 * noise
    found = scale.measure_systematic(curves, np.ones(20, bool), gradient=False)
    # 20 × 60 epochs give a scatter to 2 %; below a third of the noise (0.3 %) it is not measurable.
    assert found == pytest.approx(fraction, abs=max(0.0012, 0.1 * fraction))
