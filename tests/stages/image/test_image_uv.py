"""What uv.npz says of visibilities whose signal, model and noise are known."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_image import uv
from contimg_image.averaging import Averaged
from image_arrays import averaged

FLUX_JY, MODEL_JY = 3.0, 2.5


def observed(data: Averaged, seed: int = 4) -> tuple[np.ndarray, ...]:
    """A source of 3 Jy with the noise that the weights say; a model of 2.5 Jy is taken out of it in place."""
    rng, before = np.random.default_rng(seed), []
    for part in data.sets:
        sigma = np.sqrt(data.variance_jy2 / np.maximum(part.weight, 1e-9))
        noise = sigma * (
            rng.standard_normal(part.vis.shape) + 1j * rng.standard_normal(part.vis.shape)
        )
        phase = np.exp(2j * np.pi * rng.random(part.vis.shape))
        before.append(((FLUX_JY * phase) + noise).astype(np.complex64))
        part.vis[:] = before[-1] - (MODEL_JY * phase).astype(np.complex64)
    return tuple(before)


def said(data: Averaged, before: tuple[np.ndarray, ...]) -> dict[str, Any]:
    with np.load(io.BytesIO(uv.summary(data, before, 7))) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def data() -> Averaged:
    return averaged(times=12, channels=16)


@pytest.fixture(scope="module")
def found(data: Averaged) -> dict[str, Any]:
    return said(data, observed(data))


def error(found: dict[str, Any], power: float) -> np.ndarray:
    return np.asarray(
        np.sqrt((found["noise_jy2"] ** 2 + 2 * power * found["noise_jy2"]) / found["samples"])
    )


def test_power_of_each_baseline_without_its_noise(found: dict[str, Any]) -> None:
    pull = (found["power_jy2"] - FLUX_JY**2) / error(found, FLUX_JY**2)
    # Some 250 baselines: the mean of their pulls is good to 0.06, their scatter to 5 %; without the noise's share both are far off.
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1, abs=0.2)
    left = (found["left_jy2"] - (FLUX_JY - MODEL_JY) ** 2) / error(found, (FLUX_JY - MODEL_JY) ** 2)
    assert abs(left.mean()) < 4 / np.sqrt(left.size)


def test_the_model_is_what_was_taken_out(found: dict[str, Any]) -> None:
    assert found["model_jy2"] == pytest.approx(
        np.full(found["model_jy2"].size, MODEL_JY**2), rel=1e-5
    )  # single precision
    assert found["sources"] == 7


def test_every_visibility_with_weight_is_counted_once(
    data: Averaged, found: dict[str, Any]
) -> None:
    (part,) = data.sets
    assert found["samples"].sum() == np.count_nonzero(part.weight)
    assert found["coverage"].sum() == pytest.approx(part.weight.sum(), rel=1e-5)
    names = set(zip(found["antenna1"].tolist(), found["antenna2"].tolist(), strict=True))
    assert names == set(zip(part.antenna1.tolist(), part.antenna2.tolist(), strict=True))
    assert len(names) == found["samples"].size


def test_distances_are_those_of_the_baselines(data: Averaged, found: dict[str, Any]) -> None:
    (part,) = data.sets
    k = int(np.argmax(found["uv_wavelengths"]))
    mine = (part.antenna1 == found["antenna1"][k]) & (part.antenna2 == found["antenna2"][k])
    each = (
        np.hypot(part.uvw_m[mine, 0], part.uvw_m[mine, 1])[:, None]
        * part.frequencies_hz
        / SPEED_OF_LIGHT_M_S
    )
    assert found["uv_wavelengths"][k] == pytest.approx(
        np.average(each, weights=part.weight[mine]), rel=1e-5
    )
    # The farthest cell with weight holds the farthest visibility, to a cell.
    y, x = np.nonzero(found["coverage"])
    cells = np.hypot(x + 0.5 - found["coverage"].shape[1] // 2, y + 0.5).max()
    whole = (
        np.hypot(part.uvw_m[:, 0], part.uvw_m[:, 1])[:, None]
        * part.frequencies_hz
        / SPEED_OF_LIGHT_M_S
    )[part.weight > 0]
    assert cells * found["cell_wavelengths"] == pytest.approx(
        whole.max(), abs=1.5 * float(found["cell_wavelengths"])
    )


def test_one_polarization_has_no_known_noise_to_take_off(data: Averaged) -> None:
    bare = said(replace(data, variance_jy2=float("nan")), observed(data))
    assert np.isnan(bare["noise_jy2"]).all()
    assert (bare["power_jy2"] > FLUX_JY**2).mean() > 0.95  # signal and noise


def test_the_same_visibilities_make_the_same_bytes(data: Averaged) -> None:
    before = observed(data)
    assert uv.summary(data, before, 1) == uv.summary(data, before, 1)
