"""A converted group is what pyuvdata makes of it, and sources are where they are."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import casacore.tables as ct
import h5py
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord, get_body_barycentric_posvel
from astropy.time import Time
from pyuvdata import UVData

from contimg.runtime.errors import BadFileError
from contimg.runtime.manifest import read_manifest
from contimg.runtime.store import open_store, put_file
from contimg_convert.reading import open_subband
from relist import relist

C = 299792458.0
LATITUDE_DEG, DEC_DEG = 37.234, 33.0
OFF = {"run_check": False, "check_autos": False, "fix_autos": False}


@pytest.fixture(scope="module")
def oracle(group: Path, converted: Any, two_sources: Any, tmp_path_factory: Any) -> Path:
    """Return pyuvdata's MS of the group, with fringes stopped at the meridian, not the zenith."""
    files = sorted((group.parent.parent / "incoming").rglob("*.hdf5"))
    parts = [UVData.from_file(path, file_type="uvh5", **OFF) for path in files[::-1]]
    for part in parts:
        part.uvw_array = part.uvw_array.astype(np.float64)
        part.reorder_freqs(channel_order="freq", run_check=False)
    data = parts[0].fast_concat(parts[1:], axis="freq", run_check=False)
    # Declination 33 deg culminates south of the zenith at 37.2 deg.
    altitude = np.pi / 2 - np.radians(37.234 - two_sources.dec_deg)
    absent = ("cat_times", "cat_pm_ra", "cat_pm_dec", "cat_dist", "cat_vrad")
    centre = {"cat_name": "meridian", "cat_type": "driftscan", "cat_frame": "altaz"}
    place = {"cat_lon": np.pi, "cat_lat": altitude, "cat_epoch": 2000.0, "info_source": "user"}
    data.phase_center_catalog = {0: {**centre, **place, **dict.fromkeys(absent)}}
    data.phase_center_id_array[:] = 0
    data._set_app_coords_helper()  # noqa: SLF001 - pyuvdata has no public way to say where data are phased
    # The azimuth of the meridian is exact, the apparent Dec follows from the geodetic latitude.
    dec_rad = np.radians(two_sources.dec_deg)
    np.testing.assert_allclose(data.phase_center_app_dec, dec_rad, rtol=0, atol=1e-7)
    data.phase_center_app_dec[:] = dec_rad
    data.phase_center_app_ra = data.lst_array.copy()
    data.set_uvws_from_antenna_positions(update_vis=False)
    place = {"lon": converted.header.ra_rad, "lat": converted.header.dec_rad}
    data.phase(**place, phase_frame="icrs", cat_name="centre", epoch=2000.0)
    # A few baselines are reversed; pyuvdata 3.2.4 would write an MS with the signs of the other
    # convention, whose image is mirrored.
    data.conjugate_bls("ant1<ant2")
    path = tmp_path_factory.mktemp("oracle") / "oracle.ms"
    data.write_ms(str(path), **OFF)
    return path


def columns(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Rows sorted by time and antennas, all with ANTENNA1 <= ANTENNA2."""
    with ct.table(str(path), ack=False) as table:
        values = {name: table.getcol(name) for name in (*names, "TIME", "ANTENNA1", "ANTENNA2")}
    swap = values["ANTENNA1"] > values["ANTENNA2"]
    pair = np.stack([values["ANTENNA1"], values["ANTENNA2"]])
    values["ANTENNA1"], values["ANTENNA2"] = np.sort(pair, axis=0)
    if "UVW" in values:
        values["UVW"][swap] *= -1
    if "DATA" in values:
        values["DATA"][swap] = values["DATA"][swap].conj()
    order = np.lexsort((values["ANTENNA2"], values["ANTENNA1"], np.round(values["TIME"])))
    return {name: value[order] for name, value in values.items()}


def subtable(path: Path, name: str, column: str) -> Any:
    with ct.table(f"{path}::{name}", ack=False) as table:
        return table.getcol(column)


def test_rows_and_subtables_match_pyuvdata(converted: Any, oracle: Path) -> None:
    names = ("FLAG", "WEIGHT", "SIGMA", "EXPOSURE")
    ours, theirs = columns(converted.ms, *names), columns(oracle, *names)
    for name in ("ANTENNA1", "ANTENNA2", "FLAG", "WEIGHT", "SIGMA"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    # MJD seconds around 5e9 in float64 resolve 1 us; Julian dates, from which both start, 40 us.
    np.testing.assert_allclose(ours["TIME"], theirs["TIME"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["EXPOSURE"], theirs["EXPOSURE"], rtol=1e-12)
    for table, column, rtol, atol in (
        ("SPECTRAL_WINDOW", "CHAN_FREQ", 1e-12, 0),
        ("SPECTRAL_WINDOW", "CHAN_WIDTH", 1e-9, 0),
        ("ANTENNA", "POSITION", 0, 1e-6),
        ("FIELD", "PHASE_DIR", 0, 1e-12),
        ("POLARIZATION", "CORR_TYPE", 0, 0),
    ):
        here, there = (subtable(path, table, column) for path in (converted.ms, oracle))
        np.testing.assert_allclose(here, there, rtol=rtol, atol=atol, err_msg=column)
    here, there = (subtable(path, "ANTENNA", "NAME") for path in (converted.ms, oracle))
    assert list(here) == list(there)


def test_visibilities_match_pyuvdata(converted: Any, oracle: Path) -> None:
    ours, theirs = (columns(path, "DATA", "UVW") for path in (converted.ms, oracle))
    # The Earth's orientation is known to 5 micro-arcseconds: 0.1 um on the longest baseline.
    difference = ours["UVW"][:, 2] - theirs["UVW"][:, 2]
    np.testing.assert_allclose(difference, 0, rtol=0, atol=1e-7)
    frequencies = subtable(oracle, "SPECTRAL_WINDOW", "CHAN_FREQ")[0]
    turn = np.exp(-2j * np.pi / C * difference[:, None] * frequencies)[..., None]
    # Both are rounded to float32 once or twice: 1e-6 of the largest is five roundings.
    limit = 1e-6 * np.abs(theirs["DATA"]).max()
    np.testing.assert_allclose(ours["DATA"], theirs["DATA"] * turn, rtol=0, atol=limit)


def test_uvw_matches_but_for_aberration(converted: Any, oracle: Path, two_sources: Any) -> None:
    ours, theirs = columns(converted.ms, "UVW")["UVW"], columns(oracle, "UVW")["UVW"]
    longest = converted.outcome.metrics["longest_baseline_m"]
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=0, atol=1e-6 * longest)
    plane, other = (uvw[:, 0] + 1j * uvw[:, 1] for uvw in (ours, theirs))
    scale = np.vdot(other, plane) / np.vdot(other, other)
    np.testing.assert_allclose(plane, scale * other, rtol=0, atol=1e-6 * longest)
    # A field that the Earth moves towards looks smaller by v/c: paths change less across it.
    metrics = converted.outcome.metrics
    centre = SkyCoord(metrics["ra_deg"], metrics["dec_deg"], unit="deg").cartesian.xyz.value
    start = Time(two_sources.start_jd, format="jd", scale="utc")
    _, velocity = get_body_barycentric_posvel("earth", start)
    approach = float(velocity.xyz.to_value(units.m / units.s) @ centre) / C
    assert abs(approach) > 5e-5, "choose a date on which this shows"
    # 2e-6 leaves room for the Earth's rotation (1.2e-6) and for the Sun's mass.
    assert abs(scale) == pytest.approx(1 - approach, abs=2e-6)
    # pyuvdata takes its position angle half a degree south of the centre, 1" off.
    assert abs(np.angle(scale)) < 1e-5


def test_every_source_is_at_its_icrs_position(converted: Any, two_sources: Any) -> None:
    visibilities = converted.read("DATA")[..., 0].astype(complex)
    models = [flux * converted.fringes(*at) for *at, flux in two_sources.sky]
    # 0.005 rad on 2.5 km is 0.02"; the aberration of the field alone would be 0.3" here.
    np.testing.assert_allclose(visibilities, np.sum(models, axis=0), rtol=0, atol=0.005)


@pytest.mark.parametrize("at", [(0.9, 0.7), (-1.1, 0.5)])
def test_source_is_not_mirrored(two_sources: Any, tmp_path: Any, run_convert: Any, at: Any) -> None:
    seen = two_sources.but(sources=((*at, 1.0),), noise=0.5)
    made = run_convert(seen.write(tmp_path / "store"))
    mirrors = {"true": (1, 1), "east-west": (-1, 1), "north-south": (1, -1), "both": (-1, -1)}
    cross, xx = made.rows.antenna1 != made.rows.antenna2, made.read("DATA")[..., 0]
    found = {
        name: np.mean((xx * made.fringes(*seen.sky[0][:2], *signs).conj())[cross]).real
        for name, signs in mirrors.items()
    }
    # The flux to four times the noise; elsewhere the sidelobes of ten antennas, whose rms is
    # 1/sqrt(45) of a snapshot at one frequency.
    error = 0.5 / np.sqrt(xx[cross].size)
    assert found.pop("true") == pytest.approx(1.0, abs=4 * error)
    assert max(map(abs, found.values())) < 0.15


def test_ms_has_one_field_and_one_band(converted: Any, two_sources: Any) -> None:
    header, rows = converted.header, converted.rows
    assert header.telescope == "DSA_110"
    assert np.all(np.diff(header.frequencies_hz) > 0)
    assert len(header.frequencies_hz) == 16 * two_sources.channels
    assert rows.uvw_m.dtype == np.float64
    assert np.all(rows.antenna1 <= rows.antenna2)
    assert np.all(np.diff(rows.time_s) >= 0)
    # YY was simulated twice as strong.
    data_xx, data_yy = np.moveaxis(converted.read("DATA"), 2, 0)
    np.testing.assert_allclose(data_yy, 2 * data_xx, rtol=0, atol=1e-5)
    centres = (subtable(converted.ms, "FIELD", name) for name in ("PHASE_DIR", "REFERENCE_DIR"))
    np.testing.assert_array_equal(*centres)
    metrics = converted.outcome.metrics
    assert metrics["dec_deg"] == pytest.approx(32.86, abs=0.01)
    span_days = two_sources.integrations * two_sources.integration_s / 86400
    assert metrics["mjd_end"] - metrics["mjd_start"] == pytest.approx(span_days, rel=1e-4)
    assert metrics["missing_subbands"] == []
    assert not list(converted.ms.parents[1].rglob("*.parquet")), "--tables was not given"
    assert converted.outcome.qa.verdict == "good"
    longest = np.linalg.norm(rows.uvw_m, axis=1).max()
    assert longest <= 1.1 * metrics["longest_baseline_m"]


def test_missing_subband_becomes_flagged_channels(
    converted: Any, two_sources: Any, tmp_path: Path, run_convert: Any
) -> None:
    made = run_convert(two_sources.write(tmp_path / "store", tuple(i for i in range(16) if i != 5)))
    gone = np.zeros(96, bool)
    gone[(15 - 5) * 6 : (16 - 5) * 6] = True
    frequencies = (one.header.frequencies_hz for one in (made, converted))
    np.testing.assert_allclose(*frequencies, rtol=1e-12)
    flags, values = made.read("FLAG"), made.read("DATA")
    assert np.array_equal(flags.all(axis=(0, 2)), gone)
    assert np.array_equal(flags.any(axis=(0, 2)), gone)
    assert not values[:, gone].any()
    np.testing.assert_array_equal(values[:, ~gone], converted.read("DATA")[:, ~gone])
    np.testing.assert_array_equal(made.rows.weight, converted.rows.weight)
    assert made.outcome.metrics["missing_subbands"] == [5]
    assert made.outcome.qa.reasons == ("subbands missing: 5",)


@pytest.mark.parametrize(
    "layout",
    [{"compression": "gzip"}, {}, {"chunks": (64, 1, 6, 2)}, {"chunks": (1000, 1, 5, 1)}],
    ids=str,
)
def test_file_layout_changes_no_byte(
    converted: Any, two_sources: Any, tmp_path: Path, run_convert: Any, layout: dict[str, Any]
) -> None:
    if "chunks" in layout:
        layout = {**layout, "maxshape": (None, 1, 6, 2)}
    made = run_convert(two_sources.but(layout=layout).write(tmp_path / "store"))
    assert made.sha256 == converted.sha256


def test_other_process_makes_same_bytes(converted: Any, group: Path, tmp_path: Path) -> None:
    """On one processor, and with unwritten memory filled with a pattern by the C library."""
    env = {**os.environ, "MALLOC_PERTURB_": "165", "CONTIMG_SCRATCH": str(tmp_path / "elsewhere")}
    alone = (
        "import os, runpy; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "runpy.run_module('contimg_convert', run_name='__main__', alter_sys=True)"
    )
    argv = [sys.executable, "-c", alone, "--group", str(group), "--out", str(tmp_path / "out")]
    subprocess.run(argv, env=env, check=True, capture_output=True)
    (made,) = (tmp_path / "out").glob("*/manifest.json")
    assert converted.sha256 in made.read_text()


def test_s3_gives_same_bytes(converted: Any, group: Path, tmp_path: Path, rclone_root: str) -> None:
    """Subbands are streamed into scratch, the MS out of it."""
    store = open_store(rclone_root)
    base = group.parent.parent
    for path in [group, *base.rglob("*.hdf5")]:
        put_file(store, path.relative_to(base).as_posix(), path)
    words = ["--group", f"{rclone_root}/groups/{group.name}", "--out", f"{rclone_root}/products"]
    argv = [sys.executable, "-m", "contimg_convert", *words]
    env = {**os.environ, "CONTIMG_SCRATCH": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = read_manifest(json.loads(done.stdout)["artifact"])
    assert made.output("ms.tar").sha256 == converted.sha256
    for row in json.loads(store.read(f"products/{made.key}/subbands.json")):
        (path,) = (base / "incoming").rglob(f"*_sb{row['index']:02d}.hdf5")
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not list(tmp_path.iterdir())


def rewrite(path: Path, into: Path, change: Callable[[UVData], Any] = lambda _: None) -> Path:
    """Read a subband with pyuvdata, change it, and write it as pyuvdata does: newer UVH5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = UVData.from_file(path, file_type="uvh5", **OFF)
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
    for path in (base / "incoming").rglob("*.hdf5"):
        rewrite(path, store / path.relative_to(base), change)
    return relist(store / "groups" / group.name)


def to_driftscan(data: UVData, altitude_deg: float = 90 - LATITUDE_DEG + DEC_DEG) -> None:
    centre = {"cat_type": "driftscan", "cat_frame": "altaz", "cat_name": "meridian"}
    (number,) = data.phase_center_catalog
    place = {"cat_lon": np.pi, "cat_lat": np.radians(altitude_deg)}
    data.phase_center_catalog[number] |= {**centre, **place}


def drop_keywords(data: UVData) -> None:
    for name in ("ha_phase_center", "phase_center_dec"):
        del data.extra_keywords[name]


def to_two_centres(data: UVData) -> None:
    number = data._add_phase_center("zenith", cat_type="driftscan")  # noqa: SLF001
    data.phase_center_id_array[-5:] = number


@pytest.mark.parametrize("change", [lambda _: None, to_driftscan], ids=["unprojected", "driftscan"])
def test_rewritten_group_gives_same_ms(
    group: Path, converted: Any, tmp_path: Path, run_convert: Any, change: Any
) -> None:
    made = run_convert(rewrite_group(group, tmp_path / "store", change))
    assert made.sha256 == converted.sha256


def test_driftscan_alone_gives_same_values(
    group: Path, converted: Any, tmp_path: Path, run_convert: Any
) -> None:
    def change(data: UVData) -> None:
        to_driftscan(data)
        drop_keywords(data)

    made = run_convert(rewrite_group(group, tmp_path / "store", change))
    assert made.header.dec_rad == pytest.approx(converted.header.dec_rad, abs=1e-12)
    np.testing.assert_allclose(made.rows.uvw_m, converted.rows.uvw_m, rtol=0, atol=1e-8)
    np.testing.assert_allclose(made.read("DATA"), converted.read("DATA"), rtol=0, atol=1e-6)


REFUSED: dict[str, tuple[Callable[[UVData], Any], str]] = {
    "sidereal": (
        lambda data: data.phase(lon=0.1, lat=0.5, phase_frame="icrs", cat_name="3C48"),
        r"The data are phased to 3C48 \(sidereal\); expected fringes",
    ),
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
