"""The starter stage by its executable, on the image of a simulated group; and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chain import Chain, contimg
from contimg.runtime.errors import BadImageError
from contimg_starter.stage import judge_peak, measure_peak


def test_executable_finds_calibrator(small_chain: Chain, tmp_path: Path) -> None:
    said = contimg("starter", image=small_chain.image, out=tmp_path)
    found = json.loads((Path(said["artifact"]) / "starter.json").read_text())
    assert found["group"] == small_chain.group_id
    assert found["snr"] > 1000  # 3C48, 16 Jy
    assert said["qa"]["verdict"] == "good"


def test_second_run_finds_artifact(small_chain: Chain, tmp_path: Path) -> None:
    first, second = (contimg("starter", image=small_chain.image, out=tmp_path) for _ in range(2))
    assert second["cached"]
    assert second["artifact"] == first["artifact"]


def test_measure_peak_ignores_undefined_pixels() -> None:
    pixels = np.random.default_rng(1).normal(size=(200, 200))
    pixels[0, 0], pixels[1, 1] = np.nan, 20.0
    peak, noise = measure_peak(pixels, "image")
    assert peak == 20.0
    assert noise == pytest.approx(1, rel=0.03)  # of 40,000 pixels: 0.6 %, 1 sigma


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_measure_peak_refuses_image_without_noise(value: float) -> None:
    with pytest.raises(BadImageError):
        measure_peak(np.full((8, 8), value), "image")


def test_faint_peak_is_a_warning() -> None:
    assert judge_peak(4.0, 5.0).verdict == "warning"
    assert judge_peak(6.0, 5.0).verdict == "good"
