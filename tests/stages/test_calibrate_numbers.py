"""Gains on a simulated calibrator against the simulator's truth: the accuracy that we promise."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from chain import Chain, contimg
from observed import load_factors

MAX_AMPLITUDE_RMS, MAX_AMPLITUDE_BIAS = 0.006, 0.001
MAX_PHASE_RMS_DEG, MAX_PHASE_BIAS_DEG = 0.6, 0.05
"""For a calibrator of 10 Jy and more; 3C48 has 15.7 Jy behind the beam."""


def measure_errors(chain: Chain, artifact: str, scratch: Path) -> tuple[float, float, float, float]:
    """Return rms and bias of amplitudes (fractions) and phases (degrees) of all gains.

    One phase a polarization cannot be known: that of the reference antenna is taken out. The group
    has no flux-scale error.
    """
    truth, group = chain.truth_arrays, chain.group_id
    factors = load_factors(artifact, scratch, truth[f"mjd_{group}"], truth["frequency_hz"])
    antennas = truth["antennas"]
    gains = truth["bandpass"][:, :, None, :] * truth[f"gains_{group}"][:, :, :, None]
    true = gains.transpose(2, 1, 3, 0)
    lost = (factors.bandpass_flag[None] | factors.gain_flag[:, :, None])[:, antennas]
    assert lost.mean() < 0.02
    ratio = np.ma.array(factors.product()[:, antennas] / true, mask=lost)
    record = json.loads((Path(artifact) / "calibration.json").read_text())
    is_reference = antennas == int(record["reference_antenna"]) - 1
    turned = ratio * np.exp(-1j * np.angle(ratio[:, is_reference]))
    amplitude = np.abs(turned) - 1
    phase = np.degrees(np.ma.array(np.angle(turned), mask=lost))[:, ~is_reference]
    return tuple(float(x) for x in (amplitude.std(), amplitude.mean(), phase.std(), phase.mean()))


def is_accurate(found: tuple[float, float, float, float]) -> bool:
    limits = MAX_AMPLITUDE_RMS, MAX_AMPLITUDE_BIAS, MAX_PHASE_RMS_DEG, MAX_PHASE_BIAS_DEG
    return all(abs(value) <= limit for value, limit in zip(found, limits, strict=True))


def test_gains_of_small_group_are_accurate(small_chain: Chain, tmp_path: Path) -> None:
    found = measure_errors(small_chain, small_chain.calibration, tmp_path / "tables")
    assert is_accurate(found), found


@pytest.mark.slow
def test_gains_of_full_group_are_accurate(full_chain: Chain, tmp_path: Path) -> None:
    found = measure_errors(full_chain, full_chain.calibration, tmp_path / "tables")
    assert is_accurate(found), found


@pytest.mark.parametrize("whole", [pytest.param(True, marks=pytest.mark.slow), False])
def test_conjugated_model_fails_the_same_limits(
    small_chain: Chain,
    tmp_path: Path,
    whole: bool,  # noqa: FBT001
) -> None:
    """The test above is sensitive: the whole model conjugated, or only the weak sources."""
    # A conjugated model is the true sky turned by half a turn about the phase centre.
    truth, model = small_chain.truth["groups"][0], tmp_path / "mirror.csv"
    with model.open("w") as sink:
        writer = csv.writer(sink)
        writer.writerow(["ra_deg", "dec_deg", "flux_jy", "alpha"])
        for source in truth["sources"]:
            calibrator = source["name"] == "3C48"
            ra, dec = source["ra_deg"], source["dec_deg"]
            if whole or not calibrator:
                ra, dec = 2 * truth["ra_deg"] - ra, 2 * truth["dec_deg"] - dec
            writer.writerow([ra, dec, source["flux_jy"], -0.85 if calibrator else -0.7])
    summary = contimg(
        "calibrate",
        ms=small_chain.ms,
        flags=small_chain.flags,
        out=tmp_path / "out",
        model_source="file",
        model_file=model,
    )
    found = measure_errors(small_chain, str(summary["artifact"]), tmp_path / "tables")
    assert not is_accurate(found), found
