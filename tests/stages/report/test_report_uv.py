"""The figures of the visibilities, from baselines whose power is known."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from contimg_report import plots_uv

pytestmark = pytest.mark.usefixtures("page_style")
BASELINES, CELL = 280, 50.0
Arrays = dict[str, np.ndarray[Any, Any]]


def visibilities(model_jy: float = 2.0, left_jy2: float = 0.01) -> Arrays:
    """Baselines of 0.1 to 10 kilowavelengths that all see 2 Jy; one uv cell to the upper right."""
    covered = np.zeros((102, 204), np.float32)
    covered[40, 102 + 70] = 3.0
    return {
        "uv_wavelengths": np.geomspace(100, 10_000, BASELINES).astype(np.float32),
        "power_jy2": np.full(BASELINES, 4.0, np.float32),
        "model_jy2": np.full(BASELINES, model_jy**2, np.float32),
        "left_jy2": np.full(BASELINES, left_jy2, np.float32),
        "noise_jy2": np.full(BASELINES, 9.0, np.float32),
        "samples": np.full(BASELINES, 10_000, np.int32),
        "coverage": covered,
        "cell_wavelengths": np.float64(CELL),
        "sources": np.int64(20),
    }


class Image:
    """An image artifact's stand-in."""

    def __init__(self, arrays: Arrays | None) -> None:
        self._arrays = arrays

    def has(self, name: str) -> bool:
        return name == "uv.npz" and self._arrays is not None

    def arrays(self, name: str) -> Arrays:
        assert name == "uv.npz"
        assert self._arrays is not None
        return self._arrays


def test_figures_are_drawn_where_there_are_visibilities() -> None:
    drawn = plots_uv.draw_visibilities(Image(visibilities()))  # type: ignore[arg-type]
    assert [one.name for one in drawn] == ["uv-coverage", "uv-amplitude"]
    assert plots_uv.draw_visibilities(Image(None)) == []  # type: ignore[arg-type]


def test_plane_is_completed_by_its_mirror_image() -> None:
    whole = plots_uv.mirror_plane(visibilities()["coverage"])
    y, x = np.nonzero(whole)
    assert whole.shape == (204, 204)
    # The middle of the plane lies between cells 101 and 102: a cell and its image add up to 203.
    assert (y.sum(), x.sum()) == (203, 203)
    assert (102 + 40, 102 + 70) in set(zip(y.tolist(), x.tolist(), strict=True))


def test_coverage_says_how_far_it_reaches() -> None:
    drawn = plots_uv.draw_coverage(visibilities())
    assert "280 baselines out to 10.0 kilowavelengths" in drawn.alt
    assert "kλ" in drawn.svg
    assert "in cells of 50\u00a0λ" in drawn.caption


def test_amplitudes_are_roots_of_median_powers() -> None:
    drawn = plots_uv.draw_amplitudes(visibilities())
    assert "2.00 Jy (model 2.00 Jy) at 0.1" in drawn.alt
    assert drawn.caption.endswith("20 sources at catalogue positions, with fitted fluxes.")
    labels = {"data, median", "model", "data − model", "noise of a baseline, 1σ"}
    labels |= {"uv distance (kλ)", "rms amplitude (Jy)"}
    assert labels <= set(re.findall(r">([^<>]+)</text>", drawn.svg))


def test_few_wild_baselines_do_not_move_the_medians() -> None:
    arrays = visibilities()
    arrays["power_jy2"][::20] = 1e6
    assert "2.00 Jy (model 2.00 Jy) at 0.1" in plots_uv.draw_amplitudes(arrays).alt


def test_negative_power_is_left_out() -> None:
    distance = np.geomspace(0.1, 10, 28)
    power = np.where(distance < 1, -0.5, 4.0)
    x, level = plots_uv.bin_power(distance, power, 14)
    assert np.isnan(level[x < 0.8]).all()
    assert level[x > 1.3] == pytest.approx(2.0)
    arrays = visibilities() | {"power_jy2": np.full(BASELINES, -1.0, np.float32)}
    assert "no signal" in plots_uv.draw_amplitudes(arrays).alt


def test_gap_is_explained() -> None:
    assert "gap" in plots_uv.draw_amplitudes(visibilities(left_jy2=-0.01)).caption


def test_no_model_has_no_line() -> None:
    drawn = plots_uv.draw_amplitudes(visibilities(model_jy=0.0))
    assert "primary beam is unknown" in drawn.caption
    assert "data − model" not in drawn.svg


def test_unknown_noise_is_not_drawn() -> None:
    arrays = visibilities() | {"noise_jy2": np.full(BASELINES, np.nan, np.float32)}
    assert "1σ" not in plots_uv.draw_amplitudes(arrays).svg
