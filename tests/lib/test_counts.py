"""The source count against published numbers, and the confusion noise against drawn sources."""

from __future__ import annotations

import numpy as np
import pytest

from contimg.astro.counts import confusion_jy, count_per_deg2, differential_count, draw_fluxes


@pytest.mark.parametrize(("low_jy", "expected"), [(5e-3, 28), (2.5e-3, 48), (1e-3, 90)])
def test_count_matches_surveys(low_jy: float, expected: float) -> None:
    # Per square degree; surveys differ by 10 % at 1 mJy.
    assert count_per_deg2(low_jy, 1.0) == pytest.approx(expected, rel=0.1)


def test_count_matches_nvss_above_its_limit() -> None:
    # The shipped list has 125,309 peaks above 50 mJy/beam on the 34,000 deg^2 north of -40.4 deg.
    assert count_per_deg2(0.05, 1.0) == pytest.approx(125_309 / 34_000, rel=0.15)


def test_polynomial_at_one_millijansky() -> None:
    # 10^0.859 Jy^1.5/sr, the first coefficient.
    assert differential_count(1e-3) == pytest.approx(10**0.859 * 1e-3**-2.5)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 0.1), (1e-3, 2.0), (0.1, 0.01)])
def test_count_outside_its_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="holds from"):
        count_per_deg2(low, high)


def test_drawn_fluxes_follow_count() -> None:
    flux = draw_fluxes(np.random.default_rng(1), 100_000, 5e-4, 0.05)
    assert flux.min() >= 5e-4
    assert flux.max() <= 0.05
    for limit in (1e-3, 5e-3, 2e-2):
        share = count_per_deg2(limit, 0.05) / count_per_deg2(5e-4, 0.05)
        # Binomial: four standard deviations.
        spread = 4 * np.sqrt(share * (1 - share) / flux.size)
        assert np.mean(flux > limit) == pytest.approx(share, abs=spread)


def test_confusion_is_scatter_of_map_of_drawn_sources() -> None:
    rng, side, cell, sigma = np.random.default_rng(2), 1024, 12.0, 1.5
    area_deg2 = (side * cell / 3600) ** 2
    number = rng.poisson(area_deg2 * count_per_deg2(5e-4, 5e-3))
    image = np.zeros((side, side))
    place = rng.integers(0, side, (2, number))
    np.add.at(image, tuple(place), draw_fluxes(rng, number, 5e-4, 5e-3))
    k = np.fft.fftfreq(side)
    beam = np.exp(-2 * (np.pi * sigma) ** 2 * (k[:, None] ** 2 + k**2)) * 2 * np.pi * sigma**2
    smooth = np.fft.ifft2(np.fft.fft2(image) * beam).real
    beam_deg2 = 2 * np.pi * (sigma * cell / 3600) ** 2
    # 2000 sources, mostly faint: their sum of squares is known to 5 %, its root to 3 %.
    assert confusion_jy(beam_deg2, 5e-3, 5e-4) == pytest.approx(smooth.std(), rel=0.08)
