"""The simulator against pyuvsim: same sources, baselines and times, no beam, no smearing."""

from __future__ import annotations

import warnings
from typing import Any

import astropy.units as u
import h5py
import numpy as np
import pytest
from astropy.coordinates import EarthLocation, Latitude, Longitude
from astropy.time import Time
from astropy.utils import iers
from astropy_iers_data import IERS_A_FILE

from contimg_simulate.telescope import dsa110
from simulated import BARE, off_axis, simulate

SOURCES = [
    off_axis(0.0, 0.1, 3.0),
    off_axis(1.3, 0.4, 1.0),
    off_axis(-0.7, -1.6, 0.5),
    off_axis(-2.0, 1.0, 2.0),
]
SUBBANDS = (0, 9, 15)
PHASE_ONLY = 1e-3
"""Of the brightest source's flux. Positions that agree to 1 mas give 4e-4 on 2.6 km."""


def make_sky() -> Any:
    from pyradiosky import SkyModel

    stokes = np.zeros((4, 1, len(SOURCES))) * u.Jy
    stokes[0, 0] = [source.flux_jy for source in SOURCES] * u.Jy
    return SkyModel(
        name=[source.name for source in SOURCES],
        ra=Longitude([s.ra_deg for s in SOURCES] * u.deg),
        dec=Latitude([s.dec_deg for s in SOURCES] * u.deg),
        frame="icrs",
        stokes=stokes,
        spectral_type="flat",
        component_type="point",
    )


def simulate_by_pyuvsim(file: h5py.File, rows: list[int]) -> np.ndarray[Any, Any]:
    """Return pyuvsim's XX for rows of a file, fringe-stopped as it is; shape (rows, channels)."""
    from pyuvdata import utils
    from pyuvdata.analytic_beam import UniformBeam
    from pyuvsim import Antenna, Baseline, BeamList, Telescope
    from pyuvsim.uvsim import UVEngine, UVTask

    header = file["Header"]
    where = EarthLocation.from_geodetic(
        header["longitude"][()] * u.deg,
        header["latitude"][()] * u.deg,
        header["altitude"][()] * u.m,
    )
    centre = np.array([where.x.to_value("m"), where.y.to_value("m"), where.z.to_value("m")])
    enu = utils.ENU_from_ECEF(header["antenna_positions"][()] + centre, center_loc=where)
    telescope = Telescope("DSA", where, BeamList([UniformBeam()]))
    frequency = header["freq_array"][0]
    dec, latitude = (
        header["extra_keywords/phase_center_dec"][()],
        np.deg2rad(header["latitude"][()]),
    )
    stopped_at = np.array([0.0, np.sin(dec - latitude), np.cos(dec - latitude)])
    sky, engine = make_sky(), UVEngine()
    out = np.zeros((len(rows), frequency.size), complex)
    for k, row in enumerate(rows):
        ends = [
            Antenna(str(n), int(n), enu[n], 0)
            for n in (header["ant_1_array"][row], header["ant_2_array"][row])
        ]
        time = Time(header["time_array"][row], format="jd", scale="utc", location=where)
        for c, hertz in enumerate(frequency):
            engine.set_task(UVTask(sky, time, hertz * u.Hz, Baseline(*ends), telescope))
            out[k, c] = engine.make_visibility()[0]
        path = (enu[header["ant_2_array"][row]] - enu[header["ant_1_array"][row]]) @ stopped_at
        out[k] *= np.exp(-2j * np.pi * frequency * path / 299792458.0)
    return out


def choose_rows(count: int) -> list[int]:
    """Return rows of long and other baselines, first and last time; some have ant1 > ant2."""
    array = dsa110()
    lengths = np.linalg.norm(array.uvw_m(np.deg2rad(33.0)), axis=1)
    baselines = [
        *np.argsort(lengths)[-count:],
        *np.flatnonzero(array.first > array.second)[:2],
        *range(1, len(array.first), len(array.first) // count),
    ]
    return [int(row) + t * len(array.first) for row in baselines for t in (0, 3)]


@pytest.mark.parametrize("index", SUBBANDS)
def test_visibilities_match_pyuvsim(tmp_path_factory: pytest.TempPathFactory, index: int) -> None:
    # One simulation for all parameters: the second call finds it cached.
    folder = tmp_path_factory.getbasetemp() / "pyuvsim"
    made = simulate(folder, SOURCES, beam="uniform", smearing=False, **BARE)
    rows = choose_rows(8)
    with (
        h5py.File(made.files[index]) as file,
        warnings.catch_warnings(),
        iers.earth_orientation_table.set(iers.IERS_A.open(IERS_A_FILE)),
    ):
        warnings.simplefilter("ignore")
        expected = simulate_by_pyuvsim(file, rows)
        found = file["Data/visdata"][:][rows][:, 0, :, 0]
    # pyuvsim's XX is <Ex Ex*>, half of Stokes I; ours averages with YY to Stokes I, like CASA's.
    worst = np.abs(found - 2 * expected).max() / max(source.flux_jy for source in SOURCES)
    assert worst < PHASE_ONLY
    assert np.abs(found - 2 * expected.conj()).max() > 1, "the test would not see a mirrored sky"
