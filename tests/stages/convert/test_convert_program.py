"""What a run leaves: rows, a cached artifact, and nothing else when it is stopped or killed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import Chain, contimg
from contimg.astro.coordinates import direction_cosines
from contimg.records.groups import read_group
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.ms import MS, SUBBANDS
from contimg.runtime.errors import Exit
from contimg.runtime.manifest import read_manifest
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import open_store, put_file
from contimg.runtime.tar import unpack

GIB = 1 << 30
C = 299792458.0
ABSENT = 3
"""The subband that a group lacks."""


def argv(record: object, out: object) -> list[str]:
    return [sys.executable, "-m", "contimg_convert", "--group", str(record), "--out", str(out)]


def start_convert(record: object, out: Path, scratch: Path) -> subprocess.Popen[str]:
    """Start a conversion and wait until it writes its MS."""
    env = {**os.environ, "CONTIMG_SCRATCH": str(scratch)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(argv(record, out), env=env, **pipes)
    assert child.stderr is not None
    for line in child.stderr:
        if json.loads(line)["message"] == "convert":
            return child
    raise AssertionError(child.wait())


def test_second_run_is_cached_without_heavy_imports(group: Path, tmp_path: Path) -> None:
    first, command = contimg("convert", group=group, out=tmp_path), argv(group, tmp_path)
    timed = [command[0], "-X", "importtime", *command[1:]]
    done = subprocess.run(timed, capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["artifact"] == first["artifact"]
    files = {path.name for path in Path(first["artifact"]).iterdir()}
    assert files == {"ms.tar", "subbands.json", "manifest.json"}
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "contimg_convert.options" in imported
    assert not imported & {"h5py", "numba", "casacore", "pyuvdata"}


def rows(tables: Path, schema: Any) -> Any:
    """Return all rows of a table; the group must have written one file."""
    (path,) = tables.glob(f"{schema.name}/date=*/*.parquet")
    return schema.read(path.read_bytes(), str(path)).to_pylist()


@pytest.fixture
def record(two_sources: Any, tmp_path: Path) -> Path:
    """A group that lacks one subband."""
    return two_sources.write(tmp_path / "store", tuple(k for k in range(16) if k != ABSENT))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return tmp_path / "run0" / "tables"


@pytest.fixture
def with_rows(record: Path, run_convert: Any, tables: Path) -> Any:
    return run_convert(record, tables=str(tables))


@pytest.mark.usefixtures("with_rows")
def test_subband_rows_match_files_and_band(record: Path, two_sources: Any, tables: Path) -> None:
    found = rows(tables, SUBBANDS)
    assert [row["subband"] for row in found] == list(range(16))
    assert [row["subband"] for row in found if row["missing"]] == [ABSENT]
    assert {found[ABSENT][name] for name in ("file", "bytes", "sha256", "modified")} == {None}
    for subband in read_group(str(record)).subbands:
        row, data = found[subband.index], Path(subband.uri).read_bytes()
        assert (row["file"], row["bytes"]) == (Path(subband.uri).name, len(data))
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        # The listing's time, to the microsecond that an MJD holds.
        modified = 40587 + subband.modified.timestamp() / 86400
        assert row["modified"] == pytest.approx(modified, abs=1e-10)
    for row in found:
        channels = two_sources.frequencies_hz(row["subband"])
        # Edges lie half a channel beyond the file's own first and last channel.
        assert row["freq_max"] == pytest.approx(channels.max() + two_sources.width_hz / 2, abs=1)
        assert row["freq_min"] == pytest.approx(channels.min() - two_sources.width_hz / 2, abs=1)


def test_ms_row_agrees_with_ms(with_rows: Any, tables: Path, tmp_path: Path) -> None:
    (row,) = rows(tables, MS)
    tar = tmp_path / "run0" / "artifact" / "ms.tar"
    assert row["sha256"] == hashlib.sha256(tar.read_bytes()).hexdigest()
    assert row["bytes"] == tar.stat().st_size
    header, times = with_rows.header, with_rows.rows.time_s / 86400
    assert row["n_rows"] == len(times)
    assert row["channels"] == len(header.frequencies_hz)
    centre = np.degrees([header.ra_rad, header.dec_rad])
    assert (row["ra"], row["dec"]) == pytest.approx(tuple(centre))
    assert row["mjd_start"] < times.min() < row["mjd"] < times.max() < row["mjd_end"]
    assert row["baselines"] * row["integrations"] == row["n_rows"]
    assert (row["n_subbands"], row["verdict"]) == (15, "warning")
    # Relative to the store that holds tables and artifact; else the whole URI.
    assert (row["artifact"], row["ms"]) == ("artifact", "artifact")
    for elsewhere in ("/elsewhere/tables", "tables"):
        assert with_rows.context.relative_uri(elsewhere) == str(tar.parent)


@pytest.mark.usefixtures("with_rows")
def test_second_run_replaces_rows(record: Path, run_convert: Any, tables: Path) -> None:
    before = rows(tables, SUBBANDS)
    run_convert(record, tables=str(tables))
    assert rows(tables, SUBBANDS) == before
    (row,) = rows(tables, MS)
    assert row["artifact"] == str(tables.parents[1] / "run1" / "artifact")


def test_true_gains_recover_simulated_sky(small_chain: Chain, tmp_path: Path) -> None:
    """The simulator shares no code with convert: divide by its gains, compare with its flux."""
    truth, arrays = small_chain.truth, small_chain.truth_arrays
    name, calibrator = small_chain.group_id, truth["groups"][0]["sources"][0]
    with (
        (Path(small_chain.ms) / "ms.tar").open("rb") as tar,
        MeasurementSet(unpack(tar, tmp_path)) as data,
    ):
        header, rows, values = data.header, data.rows, data.read("DATA")
    index = np.full(len(header.antennas.names), -1)
    index[arrays["antennas"]] = np.arange(len(arrays["antennas"]))
    one, two = index[rows.antenna1], index[rows.antenna2]
    when = np.searchsorted(np.unique(rows.time_s), rows.time_s)
    band, gain = arrays["bandpass"], arrays[f"gains_{name}"]
    left, right = (band[:, side] * gain[:, side, when][..., None] for side in (one, two))
    alive = arrays[f"alive_{name}"].astype(bool)
    good = (one != two) & alive[when, one] & alive[when, two]
    use = good[:, None] & (arrays[f"rfi_{name}"][when] == 0)
    stokes_i = (values / np.moveaxis(left * right.conj(), 0, -1)).mean(axis=-1)
    place = np.radians([calibrator["ra_deg"], calibrator["dec_deg"]])
    cosines = np.array(direction_cosines(*place, header.ra_rad, header.dec_rad))
    fringe = np.exp(-2j * np.pi / C * (rows.uvw_m @ cosines)[:, None] * header.frequencies_hz)
    found = np.mean((stokes_i * fringe)[use])
    # 3C48 outshines its field 50 times; the sidelobes of the rest are 0.3 % here.
    assert found.real == pytest.approx(calibrator["apparent_jy"], rel=0.01)
    assert abs(found.imag) < 0.01 * found.real


@pytest.mark.slow
def test_full_group_takes_less_than_two_gib(full_chain: Chain, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    env = {**os.environ, "CONTIMG_SCRATCH": str(scratch)}
    with subprocess.Popen(argv(full_chain.record, tmp_path / "out"), env=env) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert usage.ru_maxrss * 1024 < 2 * GIB
    assert not list(scratch.iterdir())
    (manifest,) = (tmp_path / "out").glob("*/manifest.json")
    metrics: dict[str, Any] = json.loads(manifest.read_text())["metrics"]
    sizes = [metrics[name] for name in ("rows", "channels", "antennas", "integrations")]
    assert sizes == [111744, 768, 96, 24]


@pytest.mark.slow
def test_bucket_group_fits_scratch(full_chain: Chain, rclone_root: str, tmp_path: Path) -> None:
    """All 16 files lie beside the MS then, in a scratch of the size that the template gives."""
    record, store = Path(full_chain.record), open_store(rclone_root)
    for path in [record, *(full_chain.store / "incoming").rglob("*.hdf5")]:
        put_file(store, path.relative_to(full_chain.store).as_posix(), path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    size = f"{stage_specs()['convert'].resources.scratch_mi}m"
    walled = f'mount -t tmpfs -o size={size} none {scratch} && exec "$@"'
    words = argv(f"{rclone_root}/groups/{record.name}", f"{rclone_root}/out")
    boxed = ["unshare", "--map-root-user", "--mount", "sh", "-c", walled, "sh", *words]
    env = {**os.environ, "CONTIMG_SCRATCH": str(scratch)}
    done = subprocess.run(boxed, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = read_manifest(json.loads(done.stdout)["artifact"]).output("ms.tar")
    assert there.sha256 == read_manifest(full_chain.ms).output("ms.tar").sha256


@pytest.mark.slow
def test_sigterm_stops_conversion(full_chain: Chain, tmp_path: Path) -> None:
    child = start_convert(full_chain.record, tmp_path / "out", tmp_path / "scratch")
    child.send_signal(signal.SIGTERM)
    stdout, _ = child.communicate(timeout=60)
    assert (child.returncode, stdout) == (Exit.TERMINATED, "")
    assert not list((tmp_path / "out").rglob("*.*"))
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.slow
def test_killed_run_leaves_no_artifact(full_chain: Chain, tmp_path: Path) -> None:
    child = start_convert(full_chain.record, tmp_path / "out", tmp_path / "scratch")
    child.kill()
    child.communicate()
    assert not list((tmp_path / "out").rglob("manifest.json"))
    env = {**os.environ, "CONTIMG_SCRATCH": str(tmp_path / "scratch")}
    command = argv(full_chain.record, tmp_path / "out")
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["cached"] is False
    assert not list((tmp_path / "scratch").iterdir()), "left behind by the killed run"
