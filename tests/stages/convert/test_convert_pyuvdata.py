"""Files that pyuvdata has rewritten in a newer version of UVH5, with phase-centre catalogues."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pyuvdata import UVData

from contimg.records.ms import MeasurementSet
from contimg.runtime.errors import BadFileError
from contimg_convert.reading import open_subband

LATITUDE_DEG, DEC_DEG = 37.234, 33.0


def rewrite(path: Path, into: Path, change: Callable[[UVData], Any] = lambda _: None) -> Path:
    """Read a subband with pyuvdata, change it, and write it as pyuvdata does."""
    off = {"run_check": False, "check_autos": False, "fix_autos": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = UVData.from_file(path, file_type="uvh5", **off)
        change(data)
        into.parent.mkdir(parents=True, exist_ok=True)
        data.write_uvh5(str(into), clobber=True, run_check=False, check_autos=False)
    with h5py.File(into) as file:
        assert file["Header/version"][()] != b"1.0"
        assert "phase_type" not in file["Header"]
    return into


def rewrite_group(group: Path, store: Path, change: Callable[[UVData], Any]) -> Path:
    """Return the record of a copy of a group that pyuvdata has rewritten."""
    base = group.parent.parent
    shutil.copytree(base, store)
    record = (store / "groups" / group.name).read_text()
    for path in (base / "incoming").rglob("*.hdf5"):
        size = rewrite(path, store / path.relative_to(base), change).stat().st_size
        record = record.replace(f'"size":{path.stat().st_size}', f'"size":{size}')
    (store / "groups" / group.name).write_text(record)
    return store / "groups" / group.name


def to_driftscan(data: UVData, altitude_deg: float = 90 - LATITUDE_DEG + DEC_DEG) -> None:
    centre = {"cat_type": "driftscan", "cat_frame": "altaz", "cat_name": "meridian"}
    (number,) = data.phase_center_catalog
    place = {"cat_lon": np.pi, "cat_lat": np.radians(altitude_deg)}
    data.phase_center_catalog[number] |= {**centre, **place}


def drop_keywords(data: UVData) -> None:
    for name in ("ha_phase_center", "phase_center_dec"):
        del data.extra_keywords[name]


def to_driftscan_alone(data: UVData) -> None:
    to_driftscan(data)
    drop_keywords(data)


def to_sidereal(data: UVData) -> None:
    data.phase(lon=0.1, lat=0.5, phase_frame="icrs", cat_name="3C48", select_mask=None)


def to_two_centres(data: UVData) -> None:
    number = data._add_phase_center("zenith", cat_type="driftscan")  # noqa: SLF001
    data.phase_center_id_array[-5:] = number


@pytest.mark.parametrize("change", [lambda _: None, to_driftscan], ids=["unprojected", "driftscan"])
def test_rewritten_group_gives_same_ms(
    group: Path, converted: Any, tmp_path: Path, run_convert: Any, change: Any
) -> None:
    made = run_convert(rewrite_group(group, tmp_path / "store", change))
    assert made.sha256 == converted.sha256


def test_driftscan_without_keywords_gives_same_values(
    group: Path, converted: Any, tmp_path: Path, run_convert: Any
) -> None:
    made = run_convert(rewrite_group(group, tmp_path / "store", to_driftscan_alone))
    with MeasurementSet(made.ms) as found, MeasurementSet(converted.ms) as expected:
        assert found.header.dec_rad == pytest.approx(expected.header.dec_rad, abs=1e-12)
        np.testing.assert_allclose(found.rows.uvw_m, expected.rows.uvw_m, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found.read("DATA"), expected.read("DATA"), rtol=0, atol=1e-6)


REFUSED: dict[str, tuple[Callable[[UVData], Any], str]] = {
    "sidereal": (to_sidereal, r"The data are phased to 3C48 \(sidereal\); expected fringes"),
    "two centres": (to_two_centres, r"phased to .*unprojected\), zenith \(driftscan\)"),
    "zenith": (
        lambda data: to_driftscan(data, 90),
        r"The keywords say HA, Dec = 0\.0000, 33\.0000 deg, but the phase centre is at .*37\.23",
    ),
    "no keywords": (drop_keywords, r"does not say where the fringes were stopped: no ha_phase_ce"),
}


@pytest.fixture
def subband(group: Path) -> Path:
    return next((group.parent.parent / "incoming").rglob("*_sb00.hdf5"))


def open_copy(path: Path) -> None:
    with open_subband(path, "a.hdf5", 0):
        pass


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_other_phase_centres_are_refused(
    subband: Path, tmp_path: Path, change: Callable[[UVData], Any], message: str
) -> None:
    with pytest.raises(BadFileError, match=rf"a\.hdf5: .*{message}"):
        open_copy(rewrite(subband, tmp_path / "a.hdf5", change))


def test_version_2_is_refused(subband: Path, tmp_path: Path) -> None:
    rewrite(subband, tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["Header/version"]
        file["Header/version"] = np.bytes_("2.0")
    with pytest.raises(BadFileError, match=r"a\.hdf5: The file has version 2\.0 of UVH5"):
        open_copy(tmp_path / "a.hdf5")


def test_telescope_files_are_read_without_pyuvdata(subband: Path) -> None:
    """Its import takes more processor time than a small group."""
    code = (
        "import pathlib, sys, contimg_convert.stage\n"
        "from contimg_convert.reading import open_subband\n"
        "with open_subband(pathlib.Path(sys.argv[1]), 'a.hdf5', 0): pass\n"
        "assert 'pyuvdata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(subband)], check=True)
