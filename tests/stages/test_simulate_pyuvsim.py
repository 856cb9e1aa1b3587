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

PLACES = ((0.0, 0.1, 3.0), (1.3, 0.4, 1.0), (-0.7, -1.6, 0.5), (-2.0, 1.0, 2.0))
SOURCES = [off_axis(*place) for place in PLACES]
SUBBANDS = (0, 9, 15)


def simulate_by_pyuvsim(file: h5py.File, rows: list[int]) -> np.ndarray[Any, Any]:
    """Return pyuvsim's XX for rows of a file, fringe-stopped as it is; shape (rows, channels)."""
    from pyradiosky import SkyModel
    from pyuvdata import utils
    from pyuvdata.analytic_beam import UniformBeam
    from pyuvsim import Antenna, Baseline, BeamList, Telescope
    from pyuvsim.uvsim import UVEngine, UVTask

    stokes = np.zeros((4, 1, len(SOURCES))) * u.Jy
    stokes[0, 0] = [source.flux_jy for source in SOURCES] * u.Jy
    ra = Longitude([source.ra_deg for source in SOURCES] * u.deg)
    dec = Latitude([source.dec_deg for source in SOURCES] * u.deg)
    kind = {"spectral_type": "flat", "component_type": "point", "frame": "icrs"}
    names = [source.name for source in SOURCES]
    sky = SkyModel(name=names, ra=ra, dec=dec, stokes=stokes, **kind)
    header = file["Header"]
    longitude, latitude = header["longitude"][()] * u.deg, header["latitude"][()] * u.deg
    where = EarthLocation.from_geodetic(longitude, latitude, header["altitude"][()] * u.m)
    centre = np.array([axis.to_value("m") for axis in (where.x, where.y, where.z)])
    enu = utils.ENU_from_ECEF(header["antenna_positions"][()] + centre, center_loc=where)
    telescope, engine = Telescope("DSA", where, BeamList([UniformBeam()])), UVEngine()
    frequency = header["freq_array"][0]
    zenith_angle = header["extra_keywords/phase_center_dec"][()] - latitude.to_value("rad")
    stopped_at = np.array([0.0, np.sin(zenith_angle), np.cos(zenith_angle)])
    out = np.zeros((len(rows), frequency.size), complex)
    for k, row in enumerate(rows):
        numbers = [int(header[name][row]) for name in ("ant_1_array", "ant_2_array")]
        ends = [Antenna(str(n), n, enu[n], 0) for n in numbers]
        time = Time(header["time_array"][row], format="jd", scale="utc", location=where)
        for c, hertz in enumerate(frequency):
            engine.set_task(UVTask(sky, time, hertz * u.Hz, Baseline(*ends), telescope))
            out[k, c] = engine.make_visibility()[0]
        path = (enu[numbers[1]] - enu[numbers[0]]) @ stopped_at
        out[k] *= np.exp(-2j * np.pi * frequency * path / 299792458.0)
    return out


@pytest.mark.parametrize("index", SUBBANDS)
def test_visibilities_match_pyuvsim(tmp_path_factory: pytest.TempPathFactory, index: int) -> None:
    # One simulation for all parameters: the second call finds it cached.
    folder = tmp_path_factory.getbasetemp() / "pyuvsim"
    made = simulate(folder, SOURCES, beam="uniform", smearing=False, **BARE)
    array = dsa110()
    lengths = np.linalg.norm(array.uvw_m(np.deg2rad(33.0)), axis=1)
    # Long and other baselines, some with ant1 > ant2; first and last time.
    baselines = [*np.argsort(lengths)[-8:], *np.flatnonzero(array.first > array.second)[:2]]
    baselines += range(1, lengths.size, lengths.size // 8)
    rows = [int(row) + t * lengths.size for row in baselines for t in (0, 3)]
    iers_a = iers.earth_orientation_table.set(iers.IERS_A.open(IERS_A_FILE))
    with h5py.File(made.files[index]) as file, iers_a, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = simulate_by_pyuvsim(file, rows)
        found = file["Data/visdata"][:][rows][:, 0, :, 0]
    # pyuvsim's XX is <Ex Ex*>, half of Stokes I; ours averages with YY to Stokes I, like CASA's.
    # Positions that agree to 1 mas give 4e-4 of the brightest source's flux on 2.6 km.
    worst = np.abs(found - 2 * expected).max() / max(source.flux_jy for source in SOURCES)
    assert worst < 1e-3
    assert np.abs(found - 2 * expected.conj()).max() > 1, "the test would not see a mirrored sky"
