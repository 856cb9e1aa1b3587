"""Caltables as gains: equal to CASA's applycal, and to hand-made numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from contimg.astro.gains import CalTable, Factors, Gains, apply_block, read_caltable
from contimg.astro.measures import casa_environment
from contimg.astro.telescope import SITE
from contimg.records.ms import Antennas, MeasurementSet, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

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
SETS = {
    "gain": ["gain.G"],
    "both": ["gain.G", "bandpass.B"],
    "all": ["delay.K", "bandpass.B", "gain.G"],
}


def write_ms(path: Path) -> None:
    rng = np.random.default_rng(3)
    places = SITE.itrf_m + rng.normal(size=(ANTENNAS, 3)) * 400
    names = tuple(str(k + 1) for k in range(ANTENNAS))
    header = MSHeader(
        "DSA_110", "field", 1.0, 0.5, FREQ, 0.5e6, Antennas(names, places, np.full(ANTENNAS, 4.65))
    )
    uvw = np.tile(places[ANT2] - places[ANT1], (TIMES, 1))
    ant1, ant2 = (np.tile(a, TIMES).astype(np.int32) for a in (ANT1, ANT2))
    rows = Rows(
        TIME_S,
        np.full(TIME_S.size, STEP_S),
        ant1,
        ant2,
        uvw,
        np.full((TIME_S.size, 2), 1e4, np.float32),
    )
    shape = (TIME_S.size, CHANNELS, 2)
    phase = rng.uniform(-3, 3, (ANTENNAS, 1, 2)) + rng.uniform(-0.5, 0.5, (ANTENNAS, CHANNELS, 2))
    gain = rng.uniform(0.5, 1.5, (ANTENNAS, 1, 2)) * np.exp(1j * phase)
    data = 5.0 * gain[ant1] * gain[ant2].conj() + 0.01 * (
        rng.normal(size=shape) + 1j * rng.normal(size=shape)
    )
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
def test_it_equals_applycal(solved: Path, name: str) -> None:
    data, flags = apply(solved, SETS[name])
    casa = np.load(solved / f"{name}.npz")
    assert np.array_equal(flags, casa["flag"])
    assert 0.1 < flags.mean() < 0.9
    good = ~flags
    # Both carry complex64; 1e-5 is some tens of its steps.
    assert np.abs(data[good] / casa["corrected"][good] - 1).max() < 1e-5


def test_the_order_of_tables_does_not_matter(solved: Path) -> None:
    one, two = apply(solved, SETS["all"]), apply(solved, SETS["all"][::-1])
    assert np.array_equal(one[1], two[1])
    assert np.abs(one[0][~one[1]] / two[0][~two[1]] - 1).max() < 1e-6


def test_a_bandpass_of_other_channels_is_refused(solved: Path) -> None:
    gains = Gains.read([solved / "bandpass.B"])
    for freq in (FREQ[1:], FREQ + 0.1e6, FREQ[::-1]):
        with pytest.raises(BadInputError, match=r"Its channels \(.*are not those of the data"):
            gains.evaluate([START_S], freq)


def test_other_table_is_not_a_caltable(solved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="kind B, G or K"):
        read_caltable(solved / "test.ms" / "ANTENNA")
    with pytest.raises(BadInputError, match="a CASA caltable"):
        read_caltable(tmp_path / "nothing")
    shutil.copytree(solved / "gain.G", tmp_path / "damaged.G")
    (tmp_path / "damaged.G" / "table.dat").write_bytes(b"no table")
    with pytest.raises(BadInputError, match="a CASA caltable"):
        read_caltable(tmp_path / "damaged.G")


def table(
    kind: str, value: npt.NDArray[np.complex128], time_s: list[float] | None = None
) -> CalTable:
    freq = FREQ[: value.shape[2]] if kind == "B" else FREQ[:1]
    times = np.array(time_s or [0.0])
    return CalTable("made", kind, times, freq, value, np.zeros(value.shape, bool))


def turning(*degrees: float) -> CalTable:
    phases = np.radians(degrees)
    value = (1.0 + np.arange(len(degrees)))[:, None, None, None] * np.exp(1j * phases)[
        :, None, None, None
    ]
    return table("G", value, [10.0 * k for k in range(len(degrees))])


def test_amplitude_and_phase_are_interpolated_separately() -> None:
    value, flag = turning(0.0, 90.0).interpolate(np.array([0.0, 5.0, 10.0]))
    assert np.abs(value[:, 0, 0]) == pytest.approx([1.0, 1.5, 2.0])
    assert np.degrees(np.angle(value[:, 0, 0])) == pytest.approx([0.0, 45.0, 90.0])
    assert not flag.any()


def test_phases_turn_the_shorter_way() -> None:
    value, _ = turning(170.0, -170.0).interpolate(np.array([5.0]))
    assert abs(np.degrees(np.angle(value[0, 0, 0]))) == pytest.approx(180.0)


def test_gains_are_held_beyond_their_ends() -> None:
    value, _ = turning(10.0, 30.0).interpolate(np.array([-1e5, 1e5]))
    assert value[:, 0, 0] == pytest.approx(
        [np.exp(1j * np.radians(10)), 2 * np.exp(1j * np.radians(30))]
    )


def test_factors_multiply_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    band = rng.normal(size=(1, 3, 4, 2)) + 1j * rng.normal(size=(1, 3, 4, 2))
    gain = rng.normal(size=(2, 3, 1, 2)) + 1j * rng.normal(size=(2, 3, 1, 2))
    gains = Gains((table("B", band), table("G", gain, [0.0, 10.0])))
    factors = gains.evaluate([0.0, 10.0], FREQ[:4])
    assert factors.product() == pytest.approx(band * gain, rel=1e-6)


def test_data_are_divided_by_the_first_and_the_conjugate_of_the_second() -> None:
    rng = np.random.default_rng(0)
    band, gain = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((3, 5, 2), (2, 3, 2)))
    factors = Factors(
        band.astype(np.complex64),
        np.zeros(band.shape, bool),
        gain.astype(np.complex64),
        np.zeros(gain.shape, bool),
    )
    ant1, ant2, slot = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 0]), np.array([0, 1, 1, 0])
    whole = factors.product()
    sky = (rng.normal(size=(4, 5, 2)) + 1j * rng.normal(size=(4, 5, 2))).astype(np.complex64)
    data = sky * whole[slot, ant1] * whole[slot, ant2].conj()
    flags = np.zeros(data.shape, bool)
    apply_block(data, flags, ant1, ant2, slot, factors)
    assert data == pytest.approx(sky, rel=1e-4)
    assert not flags.any()


def test_antenna_without_solution_is_flagged() -> None:
    factors = Gains(
        (table("B", np.ones((1, 3, 5, 2), complex)), table("G", np.ones((1, 3, 1, 2), complex)))
    ).evaluate([0.0], FREQ[:5])
    band, gain = factors.bandpass_flag.copy(), factors.gain_flag.copy()
    band[0, 2, 1] = gain[0, 2, 0] = True
    ant1, ant2, slot = np.array([0, 0, 1]), np.array([1, 2, 2]), np.zeros(3, int)
    flags = np.zeros((3, 5, 2), bool)
    apply_block(
        np.ones((3, 5, 2), np.complex64),
        flags,
        ant1,
        ant2,
        slot,
        replace(factors, bandpass_flag=band, gain_flag=gain),
    )
    expected = np.zeros((3, 5, 2), bool)
    expected[:2, 2, 1] = True
    expected[1:, :, 0] = True
    assert np.array_equal(flags, expected)


def test_tables_of_different_arrays_are_refused() -> None:
    gains = Gains(
        (table("G", np.ones((1, 3, 1, 2), complex)), table("G", np.ones((1, 4, 1, 2), complex)))
    )
    with pytest.raises(
        BadInputError, match="It has 4 antennas and 2 polarizations, the first table has 3 and 2"
    ):
        gains.evaluate([0.0], FREQ)


def test_a_bandpass_that_changes_in_time_is_refused() -> None:
    gains = Gains((table("B", np.ones((2, 3, 5, 2), complex), [0.0, 1e3]),))
    with pytest.raises(BadInputError, match="solutions of 2 times, not of one"):
        gains.evaluate([0.0], FREQ[:5])
