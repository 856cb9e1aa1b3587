"""Caltables as gains: equal to CASA's applycal, and to hand-made numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from contimg.astro.gains import CalTable, Gains, apply_block, read_caltable
from contimg.astro.measures import casa_environment
from contimg.astro.telescope import SITE
from contimg.records.ms import Antennas, MeasurementSet, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError

ANTENNAS, TIMES, CHANNELS, STEP_S = 8, 6, 24, 12.884902
FREQ = 1.35e9 + 0.5e6 * np.arange(CHANNELS)
START_S = 61065.1 * 86400
ANT1, ANT2 = np.triu_indices(ANTENNAS)
TIME_S = np.repeat(START_S + STEP_S * np.arange(TIMES), ANT1.size)

CASA = """
import json, sys
import numpy as np
import casacore.tables as ct
from casatasks import applycal, bandpass, gaincal
ms = sys.argv[1]
gaincal(ms, "gain.G", solint="25s", refant="1", minsnr=3)
bandpass(ms, "bandpass.B", solint="inf", combine="scan", refant="1", gaintable=["gain.G"], minsnr=3)
gaincal(ms, "delay.K", gaintype="K", solint="inf", combine="scan", refant="1",
        gaintable=["gain.G"], minsnr=3)
rng = np.random.default_rng(5)
with ct.table("gain.G", readonly=False, ack=False) as gain:
    value, flag = gain.getcol("CPARAM"), gain.getcol("FLAG")
    time, antenna = gain.getcol("TIME"), gain.getcol("ANTENNA1")
    value *= rng.uniform(0.5, 2, value.shape) * np.exp(1j * rng.uniform(-3, 3, value.shape))
    times = np.unique(time)
    flag[(antenna == 3) & (time == times[1])] = True          # a gap in the middle
    flag[(antenna == 4) & (time == times[0]), :, 0] = True    # one polarization at an end
    flag[antenna == 5] = True                                 # no solution at all
    gain.putcol("CPARAM", value.astype(np.complex64)); gain.putcol("FLAG", flag)
with ct.table("bandpass.B", readonly=False, ack=False) as band:
    flag = band.getcol("FLAG"); flag[6, 5:8, 1] = True; flag[7, 10] = True
    band.putcol("FLAG", flag)
with ct.table("delay.K", readonly=False, ack=False) as delay:
    value = delay.getcol("FPARAM")
    delay.putcol("FPARAM", rng.uniform(-20, 20, value.shape).astype(np.float32))
for name, tables in json.loads(sys.argv[2]).items():
    kinds = {"G": "linear", "K": "nearest"}
    interp = [kinds.get(t[-1], "nearest,nearestflag") for t in tables]
    with ct.table(ms, readonly=False, ack=False) as table:
        auto = table.getcol("ANTENNA1") == table.getcol("ANTENNA2")
        table.putcol("FLAG", np.zeros_like(table.getcol("FLAG")) | auto[:, None, None])
    applycal(ms, gaintable=tables, interp=interp, calwt=False, flagbackup=False)
    with ct.table(ms, ack=False) as table:
        np.savez(name, corrected=table.getcol("CORRECTED_DATA"), flag=table.getcol("FLAG"))
"""
SETS = {"gain": ["gain.G"], "both": ["gain.G", "bandpass.B"]}
SETS["all"] = ["delay.K", "bandpass.B", "gain.G"]


def noise(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.complex128]:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def write_ms(path: Path) -> None:
    rng = np.random.default_rng(3)
    places = SITE.itrf_m + rng.normal(size=(ANTENNAS, 3)) * 400
    antennas = Antennas(tuple("12345678"), places, np.full(ANTENNAS, 4.65))
    header = MSHeader("DSA_110", "field", 1.0, 0.5, FREQ, 0.5e6, antennas)
    uvw = np.tile(places[ANT2] - places[ANT1], (TIMES, 1))
    ant1, ant2 = (np.tile(a, TIMES).astype(np.int32) for a in (ANT1, ANT2))
    weight = np.full((TIME_S.size, 2), 1e4, np.float32)
    rows = Rows(TIME_S, np.full(TIME_S.size, STEP_S), ant1, ant2, uvw, weight)
    shape = (TIME_S.size, CHANNELS, 2)
    phase = rng.uniform(-3, 3, (ANTENNAS, 1, 2)) + rng.uniform(-0.5, 0.5, (ANTENNAS, CHANNELS, 2))
    gain = rng.uniform(0.5, 1.5, (ANTENNAS, 1, 2)) * np.exp(1j * phase)
    data = 5.0 * gain[ant1] * gain[ant2].conj() + 0.01 * noise(rng, *shape)
    flag = np.broadcast_to((ant1 == ant2)[:, None, None], shape)
    with create(path, header, rows, ("DATA", "MODEL_DATA")) as writer:
        model = np.full(shape, 5.0, np.complex64)
        writer.put(0, {"DATA": data.astype(np.complex64), "MODEL_DATA": model, "FLAG": flag})


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MS, CASA's caltables (some solutions changed) and applycal's results."""
    folder = tmp_path_factory.mktemp("gains")
    write_ms(folder / "test.ms")
    env = casa_environment(dict(os.environ))
    argv = [sys.executable, "-c", CASA, "test.ms", json.dumps(SETS)]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def apply(
    folder: Path, tables: list[str]
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_]]:
    with MeasurementSet(folder / "test.ms") as ms:
        data, rows = ms.read("DATA"), ms.rows
    times, index = np.unique(rows.time_s, return_inverse=True)
    flags = np.zeros(data.shape, bool) | (rows.antenna1 == rows.antenna2)[:, None, None]
    factors = Gains.read([folder / table for table in tables]).evaluate(times, FREQ)
    apply_block(data, flags, rows.antenna1, rows.antenna2, index, factors)
    return data, flags


@pytest.mark.parametrize("name", SETS)
def test_gains_equal_applycal(solved: Path, name: str) -> None:
    data, flags = apply(solved, SETS[name])
    casa = np.load(solved / f"{name}.npz")
    assert np.array_equal(flags, casa["flag"])
    assert 0.1 < flags.mean() < 0.9
    good = ~flags
    # Both carry complex64; 1e-5 is some tens of its steps.
    assert np.abs(data[good] / casa["corrected"][good] - 1).max() < 1e-5
    # The order of tables does not matter.
    other, other_flags = apply(solved, SETS[name][::-1])
    assert np.array_equal(other_flags, flags)
    assert np.abs(data[good] / other[good] - 1).max() < 1e-6


def test_other_tables_are_no_caltables(solved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="kind B, G or K"):
        read_caltable(solved / "test.ms" / "ANTENNA")
    shutil.copytree(solved / "gain.G", tmp_path / "damaged.G")
    (tmp_path / "damaged.G" / "table.dat").write_bytes(b"no table")
    for name in ("nothing", "damaged.G"):
        with pytest.raises(BadInputError, match="a CASA caltable"):
            read_caltable(tmp_path / name)


def table(kind: str, value: npt.NDArray[np.complex128], *time_s: float) -> CalTable:
    freq = FREQ[: value.shape[2]] if kind == "B" else FREQ[:1]
    times = np.array(time_s or (0.0,))
    return CalTable("made", kind, times, freq, value, np.zeros(value.shape, bool))


def ones(*shape: int) -> npt.NDArray[np.complex128]:
    return np.ones(shape, complex)


@pytest.mark.parametrize(
    ("phases_deg", "times", "amplitudes", "expected_deg"),
    [
        ([0.0, 90.0], [0.0, 5.0, 10.0], [1.0, 1.5, 2.0], [0.0, 45.0, 90.0]),
        ([170.0, -170.0], [5.0], [1.5], [180.0]),
        ([10.0, 30.0], [-1e5, 1e5], [1.0, 2.0], [10.0, 30.0]),
    ],
    ids=["amplitude and phase apart", "shorter way round", "held beyond ends"],
)
def test_gains_are_interpolated(
    phases_deg: list[float], times: list[float], amplitudes: list[float], expected_deg: list[float]
) -> None:
    value = np.array([1.0, 2.0]) * np.exp(1j * np.radians(phases_deg))
    gain = table("G", value[:, None, None, None], 0.0, 10.0)
    found, flag = gain.interpolate(np.array(times))
    expected = np.array(amplitudes) * np.exp(1j * np.radians(expected_deg))
    assert found[:, 0, 0] == pytest.approx(expected)
    assert not flag.any()


def test_data_are_divided_by_gain_and_conjugate() -> None:
    rng = np.random.default_rng(0)
    band, gain = noise(rng, 1, 3, 5, 2), noise(rng, 2, 3, 1, 2)
    gains = Gains((table("B", band), table("G", gain, 0.0, 10.0)))
    factors = gains.evaluate([0.0, 10.0], FREQ[:5])
    whole = factors.product()
    assert whole == pytest.approx(band * gain, rel=1e-6)
    ant1, ant2, slot = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 0]), np.array([0, 1, 1, 0])
    sky = noise(rng, 4, 5, 2).astype(np.complex64)
    data = sky * whole[slot, ant1] * whole[slot, ant2].conj()
    flags = np.zeros(data.shape, bool)
    apply_block(data, flags, ant1, ant2, slot, factors)
    assert data == pytest.approx(sky, rel=1e-4)
    assert not flags.any()


def test_antenna_without_solution_is_flagged() -> None:
    gains = Gains((table("B", ones(1, 3, 5, 2)), table("G", ones(1, 3, 1, 2))))
    factors = gains.evaluate([0.0], FREQ[:5])
    band, gain = factors.bandpass_flag.copy(), factors.gain_flag.copy()
    band[0, 2, 1] = gain[0, 2, 0] = True
    factors = replace(factors, bandpass_flag=band, gain_flag=gain)
    ant1, ant2, slot = np.array([0, 0, 1]), np.array([1, 2, 2]), np.zeros(3, int)
    data, flags = np.ones((3, 5, 2), np.complex64), np.zeros((3, 5, 2), bool)
    apply_block(data, flags, ant1, ant2, slot, factors)
    expected = np.zeros((3, 5, 2), bool)
    expected[:2, 2, 1] = True
    expected[1:, :, 0] = True
    assert np.array_equal(flags, expected)


def test_unfit_tables_are_refused(solved: Path) -> None:
    gains = Gains.read([solved / "bandpass.B"])
    for freq in (FREQ[1:], FREQ + 0.1e6, FREQ[::-1]):
        with pytest.raises(BadInputError, match=r"Its channels \(.*are not those of the data"):
            gains.evaluate([START_S], freq)
    gains = Gains((table("G", ones(1, 3, 1, 2)), table("G", ones(1, 4, 1, 2))))
    message = "It has 4 antennas and 2 polarizations, the first table has 3 and 2"
    with pytest.raises(BadInputError, match=message):
        gains.evaluate([0.0], FREQ)
    gains = Gains((table("B", ones(2, 3, 5, 2), 0.0, 1e3),))
    with pytest.raises(BadInputError, match="solutions of 2 times, not of one"):
        gains.evaluate([0.0], FREQ[:5])
