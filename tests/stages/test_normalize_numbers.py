"""The promised numbers of the normalisation, on skies with everything that goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from photometry_tables import curve_statistics, normalize, steady_world


def test_500_sources_200_epochs_reach_their_errors() -> None:
    world = steady_world(500, 200, seed=4)
    rng, (n, u) = np.random.default_rng(5), world.flux.shape
    east = (world.ra - 40.5) * np.cos(np.radians(33))
    angle = rng.uniform(0, 2 * np.pi, u)
    slope = 0.03 / 1.8 * (np.cos(angle) * east[:, None] + np.sin(angle) * (world.dec - 33)[:, None])
    world.flux *= (1 + slope) * (1 + 0.01 * rng.normal(size=(n, u)))
    variable = rng.uniform(size=n) < 0.1
    phase = np.arange(u) / rng.uniform(5, 40, n)[:, None] + rng.uniform(0, 6, (n, 1))
    world.flux[variable] *= 1 + 0.2 * np.sin(phase[variable])
    world.flux[:, 60] = 0.0
    world.flux[:, 120] *= 0.06
    (field,), reasons, metrics = normalize(world)
    status = dict(zip(field.scale.groups, field.scale.whole.status, strict=True))
    assert [g for g, name in status.items() if name != "good"] == [60, 120]
    assert any("g0060" in text and "g0120" in text for text in reasons)
    assert not variable[field.scale.reference].any()
    snr, chi, over = curve_statistics(field.curves)
    for low, high in ((5, 30), (30, 100), (100, 1e9)):
        mine = ~variable & (snr >= low) & (snr < high)
        shown = np.mean(chi[mine]), np.sqrt(np.mean(over[mine] ** 2))
        print(f"S/N {low}: {mine.sum()} sources, χ²ν {shown[0]:.3f}, over {shown[1]:.3f}")  # noqa: T201 - for docs
        assert 0.9 < np.mean(chi[mine]) < 1.1
        assert np.sqrt(np.mean(over[mine] ** 2)) < 1.1
    assert metrics["systematic"] == pytest.approx(0.01, abs=0.001)
