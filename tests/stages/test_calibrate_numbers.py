"""Gains on a simulated calibrator against the simulator's truth: the numbers that the project promises."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from chain import contimg
from contimg.astro.gains import load_gains
from contimg.runtime.context import Context

if TYPE_CHECKING:
    from chain import Chain

AMPLITUDE_RMS, AMPLITUDE_BIAS = 0.006, 0.001
PHASE_RMS_DEG, PHASE_BIAS_DEG = 0.6, 0.05
"""For a calibrator of 10 Jy and more; 3C48 has 15.7 Jy behind the beam."""


def errors(chain: Chain, artifact: str, scratch: Path) -> tuple[float, float, float, float]:
    """Return rms and bias of the amplitude (fractions) and of the phase (degrees) of all gains against the truth.

    One phase a polarization cannot be known: that of the reference antenna is taken out. The group has no flux-scale error.
    """
    truth, group = chain.truth_arrays, chain.group_id
    scratch.mkdir(exist_ok=True)
    gains = load_gains(Context(str(scratch / "none"), scratch, (), {}), artifact)
    factors = gains.evaluate(truth[f"mjd_{group}"] * 86400, truth["frequency_hz"])
    antennas = truth["antennas"]
    true = (truth["bandpass"][:, :, None, :] * truth[f"gains_{group}"][:, :, :, None]).transpose(
        2, 1, 3, 0
    )
    lost = (factors.bandpass_flag[None] | factors.gain_flag[:, :, None])[:, antennas]
    assert lost.mean() < 0.02
    ratio = np.ma.array(factors.product()[:, antennas] / true, mask=lost)
    reference = int(np.flatnonzero(antennas == reference_antenna(artifact) - 1)[0])
    turned = ratio * np.exp(-1j * np.angle(ratio[:, reference : reference + 1]))
    amplitude, phase = np.abs(turned) - 1, np.degrees(np.ma.array(np.angle(turned), mask=lost))
    others = np.arange(antennas.size) != reference
    return (
        float(amplitude.std()),
        float(amplitude.mean()),
        float(phase[:, others].std()),
        float(phase[:, others].mean()),
    )


def reference_antenna(artifact: str) -> int:
    import json

    return int(json.loads((Path(artifact) / "calibration.json").read_text())["reference_antenna"])


def hold(found: tuple[float, float, float, float]) -> bool:
    amplitude_rms, amplitude_bias, phase_rms, phase_bias = found
    right_amplitude = amplitude_rms <= AMPLITUDE_RMS and abs(amplitude_bias) <= AMPLITUDE_BIAS
    return right_amplitude and phase_rms <= PHASE_RMS_DEG and abs(phase_bias) <= PHASE_BIAS_DEG


def test_a_small_group(small_chain: Chain, tmp_path: Path) -> None:
    found = errors(small_chain, small_chain.calibration, tmp_path / "tables")
    assert hold(found), found


def mirrored(chain: Chain, path: Path, *, all_of_it: bool) -> str:
    """Write the true sky turned by half a turn about the phase centre: what a conjugated model is."""
    said = chain.truth["groups"][0]
    with path.open("w") as sink:
        writer = csv.writer(sink)
        writer.writerow(["ra_deg", "dec_deg", "flux_jy", "alpha"])
        for source in said["sources"]:
            turn = all_of_it or source["name"] != "3C48"
            ra, dec = source["ra_deg"], source["dec_deg"]
            place = (2 * said["ra_deg"] - ra, 2 * said["dec_deg"] - dec) if turn else (ra, dec)
            writer.writerow(
                [*place, source["flux_jy"], -0.85 if source["name"] == "3C48" else -0.7]
            )
    return str(path)


@pytest.mark.parametrize("all_of_it", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_conjugated_model_fails_the_same_numbers(
    small_chain: Chain,
    tmp_path: Path,
    all_of_it: bool,  # noqa: FBT001
) -> None:
    """The check is sensitive: the whole model conjugated, or only the weak sources off the axis."""
    said = contimg(
        "calibrate",
        ms=small_chain.ms,
        flags=small_chain.flags,
        out=tmp_path / "out",
        model_source="file",
        model_file=mirrored(small_chain, tmp_path / "mirror.csv", all_of_it=all_of_it),
    )
    found = errors(small_chain, str(said["artifact"]), tmp_path / "tables")
    assert not hold(found), found


@pytest.mark.slow
def test_a_full_group(full_chain: Chain, tmp_path: Path) -> None:
    found = errors(full_chain, full_chain.calibration, tmp_path / "tables")
    assert hold(found), found
