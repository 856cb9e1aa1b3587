"""What the simulator writes: names, headers, bytes of the telescope, the truth; exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import contimg_simulate
from contimg.records.groups import group_id, subband_name, utc_of_jd
from contimg.runtime.errors import BadInputError, Exit, MissingError, NoSourcesError, UsageError
from contimg.runtime.store import open_store
from contimg_simulate import uvh5
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import plan_groups
from contimg_simulate.telescope import SCALES, dsa110
from simulated import BARE, SimulatedRun, off_axis, simulate

SKY = [off_axis(0.0, 0.3, 10.0), off_axis(0.5, -0.4, 0.5)]
PROGRAM = Path(sys.executable).parent / "contimg-simulate"
BUT_FIRST = ",".join(map(str, range(1, 16)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimulatedRun:
    return simulate(tmp_path_factory.mktemp("small"), SKY, nvss=False)


def test_group_files_named_by_node_clocks(small: SimulatedRun) -> None:
    names = [subband_name(path.name) for path in small.files]
    assert [name.index for name in names if name] == list(range(16))
    assert all(path.parent.name == path.name[:10] for path in small.files)
    with h5py.File(small.files[0]) as file:
        first = utc_of_jd(float(file["Header/time_array"][0]))
    assert small.truth["groups"][0]["id"] == group_id(first)
    # A file is opened when its first integration begins, half an integration before its midpoint;
    # clocks are up to 21 s late.
    assert all(-8 < (name.stamp - first).total_seconds() < 21 - 6 for name in names if name)


def test_clock_skew_distribution() -> None:
    rng, count = np.random.default_rng(0), Counter[int]()
    for _ in range(4000):
        stamps = [datetime.fromisoformat(stamp) for stamp in uvh5.draw_stamps(2461065.55, rng)]
        assert len(stamps) == 16
        count[int((max(stamps) - min(stamps)).total_seconds())] += 1
    assert set(count) <= {0, 1, 2, *range(13, 22)}
    # Seen: 0 s 2 %, 1 s 85 %, 2 s 5 %, 13 to 21 s 8 to 10 %. 4000 draws know each to 0.6 %.
    for least, greatest, share in ((0, 0, 0.02), (1, 1, 0.85), (2, 2, 0.05), (13, 21, 0.08)):
        found = sum(count[spread] for spread in range(least, greatest + 1)) / 4000
        assert found == pytest.approx(share, abs=0.02 if share > 0.5 else 0.013)


@pytest.mark.parametrize("index", [0, 15])
def test_header_matches_telescope(small: SimulatedRun, index: int) -> None:
    expected: dict[str, Any] = {"telescope_name": b"OVRO_MMA", "instrument": b"DSA"}
    expected |= {"object_name": b"search", "phase_type": b"drift"}
    expected |= {"latitude": 37.234, "longitude": -118.283, "altitude": 1188.0}
    expected |= {"Nants_data": 96, "Nants_telescope": 117, "Nbls": 4656, "Nspws": 1}
    expected |= {"Npols": 2, "Nfreqs": 12, "Ntimes": 4, "Nblts": 4 * 4656}
    with h5py.File(small.files[index]) as file:
        header = file["Header"]
        assert {name: header[name][()] for name in expected} == expected
        assert list(header["polarization_array"]) == [-5, -6]
        assert [int(name) for name in header["antenna_names"]] == list(range(1, 118))
        assert list(header["antenna_numbers"]) == list(range(117))
        assert np.all(header["antenna_diameters"][()] == 4.65)
        assert header["antenna_positions"].shape == (117, 3)
        assert "lst_array" not in header
        found = {name: value[()] for name, value in header["extra_keywords"].items()}
    delays = found.pop("applied_delays_ns").decode().split()
    assert len([int(word) for word in delays]) == 117 * 2
    assert found.pop("fs_table")
    assert found.pop("phase_center_dec") == pytest.approx(np.deg2rad(33.0), rel=1e-15)
    assert found == {"ha_phase_center": 0, "phase_center_epoch": b"HADEC"}


def test_rows_repeat_times_and_baselines(small: SimulatedRun) -> None:
    names = ("time_array", "ant_1_array", "ant_2_array")
    with h5py.File(small.files[3]) as file:
        header = file["Header"]
        times, first, second = (header[name][()].reshape(4, 4656) for name in names)
        assert np.all(header["integration_time"][()] == 12.884902000427246)
    assert times.dtype == np.float64
    assert np.all(times == times[:, :1])
    # A float64 Julian date holds 40 microseconds.
    assert np.diff(times[:, 0]) * 86400 == pytest.approx(12.884902000427246, abs=1e-4)
    assert np.all(first == first[0])
    assert np.sum(first[0] == second[0]) == 96
    turned = first[0] > second[0]
    assert 0 < turned.sum() < 10
    assert np.all(np.isin(first[0], [101, 115]) | np.isin(second[0], [101, 115]) | ~turned)
    assert len({frozenset(pair) for pair in np.stack([first[0], second[0]]).T.tolist()}) == 4656


def test_uvw_is_second_less_first_antenna(small: SimulatedRun) -> None:
    with h5py.File(small.files[3]) as file:
        header = file["Header"]
        uvw = header["uvw_array"][()]
        ecef, dec = header["antenna_positions"][()], np.deg2rad(33.0)
        along = ecef[header["ant_2_array"][:4656]] - ecef[header["ant_1_array"][:4656]]
    assert uvw.dtype == np.float32
    uvw = uvw.reshape(4, 4656, 3)
    assert np.all(uvw == uvw[:1])
    # Thompson, Moran & Swenson, equation 4.1, with the X axis on the local meridian.
    lon, z = np.deg2rad(-118.283), along[:, 2]
    x = along[:, 0] * np.cos(lon) + along[:, 1] * np.sin(lon)
    y = -along[:, 0] * np.sin(lon) + along[:, 1] * np.cos(lon)
    v, w = -np.sin(dec) * x + np.cos(dec) * z, np.cos(dec) * x + np.sin(dec) * z
    # float32 holds 2.6 km to 0.12 mm.
    assert np.abs(uvw[0] - np.stack([y, v, w], axis=1)).max() < 2e-4
    assert 2550 < np.linalg.norm(uvw[0], axis=1).max() < 2750


def test_frequencies_descend_over_all_files(small: SimulatedRun) -> None:
    whole = np.empty(0)
    for path in small.files:
        with h5py.File(path) as file:
            frequency = file["Header/freq_array"]
            assert frequency.shape == (1, 12)
            assert file["Header/channel_width"][()] == pytest.approx(976562.5)
            whole = np.append(whole, frequency[0])
    assert np.diff(whole) == pytest.approx(-976562.5)
    assert whole[0] + 976562.5 / 2 == pytest.approx(1498.765e6, abs=1e3)
    assert whole[-1] - 976562.5 / 2 == pytest.approx(1311.265e6, abs=1e3)


def test_full_channels_match_telescope() -> None:
    for subband in range(16):
        expected = 1498.643188e6 - 11.71875e6 * subband - 0.24414063e6 * np.arange(48)
        # The width is known to eight digits: 47 times half of the last one.
        assert SCALES["full"].frequencies_hz(subband) == pytest.approx(expected, abs=0.5)
    assert np.all(np.diff(SCALES["full"].band_hz()) > 0)


def test_data_types_and_constants_match_telescope(small: SimulatedRun) -> None:
    with h5py.File(small.files[5]) as file:
        data = file["Data"]
        for name, kind in (("visdata", np.complex64), ("flags", bool), ("nsamples", np.float32)):
            assert data[name].dtype == kind
            assert data[name].shape == (4 * 4656, 1, 12, 2)
            assert data[name].compression is None
        assert not data["flags"][()].any()
        assert np.ptp(data["nsamples"][()]) == 0
        assert data["nsamples"][0, 0, 0, 0] > 0
        assert np.all(np.isfinite(data["visdata"][()]))
        # The median raw amplitude is about 0.06; 10 Jy and 1.2 Jy noise at gains of 0.07 are 0.05.
        assert 0.03 < np.median(np.abs(data["visdata"][()])) < 0.09


def test_full_file_size_and_chunks_match_telescope(tmp_path: Path) -> None:
    path = tmp_path / "full.hdf5"
    plan = plan_groups(SimulateOptions(out="", incoming="", scale="full"))[0]
    uvh5.write_subband(path, 4, plan, np.ones((24, len(dsa110().first), 48, 2), np.complex64))
    assert path.stat().st_size == 145_348_600
    # What h5py guesses for these shapes, as the telescope's writer lets it.
    chunks = {"visdata": (128, 1, 12, 1), "flags": (256, 1, 24, 1), "nsamples": (256, 1, 12, 1)}
    with h5py.File(path) as file:
        data, header = file["Data"], file["Header"]
        assert {name: data[name].chunks for name in data} == chunks
        assert data["visdata"].shape == (111744, 1, 48, 2)
        assert header["uvw_array"].chunks == (512, 3)
        assert np.all(data["visdata"][-1] == 1)


def test_pyuvdata_opens_subband(small: SimulatedRun) -> None:
    from pyuvdata import UVData

    data = UVData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its check requires float64 uvw, which the telescope does not write.
        data.read(small.files[2], file_type="uvh5", run_check=False)
    assert (data.Nbls, data.Ntimes, data.Nfreqs, data.Npols) == (4656, 4, 12, 2)
    assert data.extra_keywords["phase_center_epoch"] == "HADEC"
    assert data.get_data(0, 1).shape == (4, 12, 2)


def test_same_seed_makes_same_bytes(small: SimulatedRun, tmp_path: Path) -> None:
    again = simulate(tmp_path, SKY, nvss=False)
    other = simulate(tmp_path / "other", SKY, nvss=False, seed=2)
    assert [path.name for path in again.files] == [path.name for path in small.files]
    for one, two in zip(again.files, small.files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    for name in ("truth.json", "truth.npz"):
        assert (again.artifact / name).read_bytes() == (small.artifact / name).read_bytes()
    assert other.files[0].read_bytes() != small.files[0].read_bytes()


def test_groups_of_one_seed_share_instrument(tmp_path: Path) -> None:
    both = simulate(tmp_path / "both", SKY, nvss=False, groups=2)
    first, second = both.truth["groups"]
    start = utc_of_jd(second["mjd_start"] + 2400000.5).replace(tzinfo=None)
    alone = simulate(tmp_path / "alone", SKY, nvss=False, time=start.isoformat())
    name = second["id"]
    assert alone.truth["groups"][0]["id"] == name
    assert np.array_equal(alone.arrays["bandpass"], both.arrays["bandpass"])
    # The start was read to a microsecond, in which a gain drifts by 1e-7.
    assert alone.arrays[f"gains_{name}"] == pytest.approx(both.arrays[f"gains_{name}"], abs=1e-5)
    apart_s = (second["mjd_start"] - first["mjd_start"]) * 86400
    assert apart_s == pytest.approx(309.24, abs=1e-3)


def test_truth_describes_each_source(small: SimulatedRun) -> None:
    group, truth = small.truth["groups"][0], small.arrays
    sources = {source["name"]: source for source in group["sources"]}
    assert set(sources) == {source.name for source in SKY}
    for source in SKY:
        found = sources[source.name]
        assert found["flux_jy"] == source.flux_jy
        assert found["apparent_jy"] == pytest.approx(source.flux_jy * found["beam"], rel=1e-6)
        assert 0.7 < found["beam"] < 1
    assert group["flux_scale"] == 1
    assert group["dec_deg"] == pytest.approx(32.8646, abs=1e-3)
    assert truth["bandpass"].shape == (2, 96, 192)
    assert np.all(np.diff(truth["frequency_hz"]) > 0)
    assert truth[f"gains_{group['id']}"].shape == (2, 96, 4)
    assert list(truth["antennas"][:10]) == [*range(9), 10]


def test_demo_plan_is_one_strip_with_calibrators() -> None:
    planned = plan_groups(SimulateOptions(out="", incoming="", campaign="demo"))
    targets = [plan for plan in planned if plan.role == "target"]
    calibrators = [plan for plan in planned if plan.role == "calibrator"]
    assert len(targets) == 26
    assert [plan.epoch for plan in calibrators] == [0, 4, 8, 12, 16, 20, 24]
    assert targets[-1].middle_mjd - targets[0].middle_mjd == pytest.approx(150, abs=1)
    for calibrator in calibrators:
        target = next(plan for plan in targets if plan.epoch == calibrator.epoch)
        assert 50 < (target.middle_mjd - calibrator.middle_mjd) * 1440 < 70
        assert calibrator.centre_deg[0] == pytest.approx(24.4221, abs=0.01)
    places = np.array([plan.centre_deg for plan in targets])
    # Nutation and aberration move the apparent strip over the stars by 20 arcsec in half a year.
    assert np.ptp(places, axis=0).max() < 0.02
    assert len({plan.id for plan in planned}) == len(planned)


def test_demo_varies_lens_and_flare(tmp_path: Path) -> None:
    # The program limits the threads of linear algebra, which this process does not.
    words = ("--campaign=demo", "--epochs=2", "--days=100", "--calibrate-every=9")
    done = run_simulate(tmp_path, *words)
    assert done.returncode == Exit.DONE, done.stderr
    summary = json.loads(done.stdout)
    made = SimulatedRun(tmp_path / "incoming", Path(summary["artifact"]), summary)
    assert [group["role"] for group in made.truth["groups"]] == ["calibrator", "target", "target"]
    targets = made.truth["groups"][1:]
    quiet, late = ({source["curve"]: source for source in one["sources"]} for one in targets)
    assert set(quiet) == {"lens", "flare", "steady"}
    assert late["lens"]["flux_jy"] < 0.7 * quiet["lens"]["flux_jy"]
    assert min(quiet[kind]["apparent_jy"] for kind in ("lens", "flare")) > 0.1
    scales = [group["flux_scale"] for group in made.truth["groups"]]
    assert scales[0] == 1
    assert len(set(scales)) == 3


def test_missing_truncated_and_empty_subbands(small: SimulatedRun, tmp_path: Path) -> None:
    options: dict[str, Any] = {"truncated_subbands": "4", "empty_subbands": "5"}
    made = simulate(tmp_path, SKY, nvss=False, groups=2, missing_subbands="3,9", **options)
    groups = made.truth["groups"]
    first, second = ([made.incoming / key for key in group["files"]] for group in groups)
    assert [int(path.name[22:24]) for path in first] == [k for k in range(16) if k not in {3, 9}]
    assert len(second) == 16
    sizes = {int(path.name[22:24]): path.stat().st_size for path in first}
    whole = small.files[0].stat().st_size
    assert sizes[5] == 0
    assert sizes[4] == pytest.approx(whole * 142_348_126 / 145_348_600, abs=1)
    assert {size for index, size in sizes.items() if index not in {4, 5}} == {whole}
    assert {path.stat().st_size for path in second} == {whole}


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"dead_antennas": "10"}, UsageError, "10"),
        ({"deaf_antennas": "200"}, UsageError, "200"),
        ({"missing_subbands": "16"}, UsageError, "16"),
        ({"truncated_subbands": "top"}, UsageError, "top"),
        ({"time": "yesterday"}, UsageError, "yesterday"),
        ({"sky": [off_axis(0.0, 30.0)]}, NoSourcesError, "in the beam"),
        ({"sky": (), "sources": "{here}/malformed.csv"}, BadInputError, "malformed.csv"),
        ({"sky": (), "sources": "{here}/missing.csv"}, MissingError, "missing.csv"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: Any, error: Any, reason: str) -> None:
    (tmp_path / "malformed.csv").write_text("a,b\n1,2\n")
    if "sources" in options:
        options = options | {"sources": options["sources"].format(here=tmp_path)}
    with pytest.raises(error, match=re.escape(reason)):
        simulate(tmp_path, **{"sky": SKY, "nvss": False, **options})
    assert not (tmp_path / "incoming").exists()


def test_simulator_shares_no_science_with_stages() -> None:
    imported = {}
    for path in sorted(Path(contimg_simulate.__file__).parent.glob("*.py")):
        for module, names in re.findall(r"from contimg\.([\w.]+) import (.*)", path.read_text()):
            imported.setdefault(module, set()).add(names)
    science = {name for name in imported if name.startswith("astro.")}
    data = {"astro.constants", "astro.telescope", "astro.catalogues"}
    assert science == {*data, "astro.beam_files", "astro.beam_text"}
    # The texts that name a beam, and its files; the simulator has its own formulae of the models.
    assert imported["astro.beam_files"] == {"read_beam"}
    assert imported["astro.beam_text"] == {"DEFAULT_BEAM, BeamText", "parse_model"}
    # Of these two only data: the positions of the stations, and the NVSS.
    assert imported["astro.telescope"] == {"stations"}
    assert imported["astro.catalogues"] == {"nvss as catalogue"}


def run_simulate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [PROGRAM, f"--out={folder}/products", f"--incoming={folder}/incoming", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_group_is_written_and_cached(tmp_path: Path) -> None:
    done, again = (run_simulate(tmp_path, f"--missing-subbands={BUT_FIRST}") for _ in range(2))
    assert done.returncode == Exit.DONE, done.stderr
    assert json.loads(done.stdout)["metrics"]["files"] == 1
    assert len(list((tmp_path / "incoming").rglob("*.hdf5"))) == 1
    assert json.loads(again.stdout)["cached"] is True


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--scale", "huge"], Exit.USAGE, "--scale"),
        (["--dead-antennas", "10"], Exit.USAGE, "active stations"),
        (["--zeros", "1.5"], Exit.USAGE, "--zeros"),
        (["--sources", "{here}/list.csv"], Exit.BAD_INPUT, "list.csv"),
        (["--nvss", "false"], Exit.NO_SOURCES, "in the beam"),
    ],
)
def test_error_sets_exit_code(tmp_path: Path, words: list[str], code: Exit, reason: str) -> None:
    (tmp_path / "list.csv").write_text("not,a,list\n1,2,3\n")
    done = run_simulate(tmp_path, *(word.format(here=tmp_path) for word in words))
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_sigterm_leaves_whole_files_only(tmp_path: Path) -> None:
    incoming, silent = tmp_path / "incoming", subprocess.DEVNULL
    argv = [PROGRAM, f"--out={tmp_path}/products", f"--incoming={incoming}", "--campaign=demo"]
    with subprocess.Popen(argv, stderr=silent, stdout=silent) as child:
        for _ in range(6000):
            if len(list(incoming.rglob("*.hdf5"))) > 3:
                break
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) == Exit.TERMINATED
    written = [path for path in incoming.rglob("*") if path.is_file()]
    assert all(path.suffix == ".hdf5" for path in written)
    for path in written:
        with h5py.File(path) as file:
            assert file["Data/visdata"].shape[0] == 4 * 4656
    assert not list((tmp_path / "products").rglob("manifest.json"))


def test_subbands_are_written_to_s3(tmp_path: Path, moto_root: str) -> None:
    options = {"sky": [off_axis(0.0, 0.1)], **BARE, "missing_subbands": BUT_FIRST}
    here = simulate(tmp_path / "here", **options)
    there = simulate(tmp_path / "there", incoming=f"{moto_root}/incoming", **options)
    store = open_store(f"{moto_root}/incoming")
    (key,) = [entry.key for entry in store.entries()]
    assert key == here.truth["groups"][0]["files"][0] == there.truth["groups"][0]["files"][0]
    assert store.read(key) == here.files[0].read_bytes()


def test_every_option_has_help() -> None:
    for name, field in SimulateOptions.model_fields.items():
        assert field.description, name
        assert not name.endswith(("_deg", "_jy", "_ns", "_h")) or field.annotation is float
