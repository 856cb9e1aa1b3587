"""uv.npz of visibilities whose signal, model and noise are known."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_image.averaging import AveragedBaselines, AveragedVisibilities
from contimg_image.uv import summarise_baselines
from image_arrays import averaged

Array = np.ndarray[Any, Any]
FLUX_JY, MODEL_JY = 3.0, 2.5
SOURCES_JY = np.array([1.0] * 7 + [0.0])


def observe(data: AveragedVisibilities, seed: int = 4) -> tuple[Array, ...]:
    """Return a source of 3 Jy with noise by the weights; subtract 2.5 Jy of it from `data`."""
    rng, before = np.random.default_rng(seed), []
    for part in data.sets:
        sigma = np.sqrt(data.variance_jy2 / np.maximum(part.weight, 1e-9))
        real, imaginary = rng.standard_normal((2, *part.vis.shape))
        phase = np.exp(2j * np.pi * rng.random(part.vis.shape))
        whole = FLUX_JY * phase + sigma * (real + 1j * imaginary)
        before.append(whole.astype(np.complex64))
        part.vis[:] = before[-1] - (MODEL_JY * phase).astype(np.complex64)
    return tuple(before)


def summarise(data: AveragedVisibilities, before: tuple[Array, ...]) -> dict[str, Any]:
    with np.load(io.BytesIO(summarise_baselines(data, before, SOURCES_JY))) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def data() -> AveragedVisibilities:
    return averaged(times=12, channels=16)


@pytest.fixture(scope="module")
def found(data: AveragedVisibilities) -> dict[str, Any]:
    return summarise(data, observe(data))


def uv_distances(part: AveragedBaselines) -> Array:
    metres = np.hypot(part.uvw_m[:, 0], part.uvw_m[:, 1])[:, None]
    return np.asarray(metres * part.frequencies_hz / SPEED_OF_LIGHT_M_S)


def test_power_of_each_baseline_has_no_noise(found: dict[str, Any]) -> None:
    pulls = {}
    for name, power in (("power_jy2", FLUX_JY**2), ("left_jy2", (FLUX_JY - MODEL_JY) ** 2)):
        noise = found["noise_jy2"]
        error = np.sqrt((noise**2 + 2 * power * noise) / found["samples"])
        pulls[name] = (found[name] - power) / error
        # Some 250 baselines: the mean of their pulls is good to 0.06, their scatter to 5 %; with
        # the noise left in both are far off.
        assert abs(pulls[name].mean()) < 4 / np.sqrt(noise.size)
    assert pulls["power_jy2"].std() == pytest.approx(1, abs=0.2)


def test_model_is_what_was_subtracted(found: dict[str, Any]) -> None:
    # Single precision.
    assert found["model_jy2"] == pytest.approx(MODEL_JY**2, rel=1e-5)
    assert found["sources"] == 7


def test_each_weighted_visibility_counts_once(
    data: AveragedVisibilities, found: dict[str, Any]
) -> None:
    (part,) = data.sets
    assert found["samples"].sum() == np.count_nonzero(part.weight)
    assert found["coverage"].sum() == pytest.approx(part.weight.sum(), rel=1e-5)
    names = set(zip(found["antenna1"].tolist(), found["antenna2"].tolist(), strict=True))
    assert names == set(zip(part.antenna1.tolist(), part.antenna2.tolist(), strict=True))
    assert len(names) == found["samples"].size


def test_distances_are_those_of_baselines(
    data: AveragedVisibilities, found: dict[str, Any]
) -> None:
    (part,) = data.sets
    distances = uv_distances(part)
    k = int(np.argmax(found["uv_wavelengths"]))
    mine = (part.antenna1 == found["antenna1"][k]) & (part.antenna2 == found["antenna2"][k])
    expected = np.average(distances[mine], weights=part.weight[mine])
    assert found["uv_wavelengths"][k] == pytest.approx(expected, rel=1e-5)
    # The farthest cell with weight holds the farthest visibility, to a cell.
    y, x = np.nonzero(found["coverage"])
    cells = np.hypot(x + 0.5 - found["coverage"].shape[1] // 2, y + 0.5).max()
    cell = float(found["cell_wavelengths"])
    assert cells * cell == pytest.approx(distances[part.weight > 0].max(), abs=1.5 * cell)


def test_power_keeps_noise_of_one_polarization(data: AveragedVisibilities) -> None:
    bare = summarise(replace(data, variance_jy2=float("nan")), observe(data))
    assert np.isnan(bare["noise_jy2"]).all()
    assert (bare["power_jy2"] > FLUX_JY**2).mean() > 0.95  # signal and noise


def test_same_visibilities_make_same_bytes(data: AveragedVisibilities) -> None:
    before = observe(data)
    first, second = (summarise_baselines(data, before, SOURCES_JY) for _ in range(2))
    assert first == second
