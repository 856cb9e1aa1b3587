"""Every bad input gives an exit code and one clear line on stderr, by the real executables."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from chain import BIN, ENVIRONMENT, ROOT, Chain, contimg
from contimg.runtime.errors import Exit
from contimg.runtime.manifest import read_manifest
from waiting import wait_for

SPOILT, SECOND_COPY = 7, "2026-01-25T01:14:29_sb07.hdf5"
"""The subband that is spoilt, and the name of another copy of it."""
POINTING = "extra_keywords/phase_center_dec"
MESSAGE = re.compile(r"(?P<where>.+?): (?P<problem>.+)\. (?P<remedy>[A-Z].+)", re.DOTALL)


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    last: dict[str, Any]
    """The last line of stderr."""

    def check(self, name: str, where: str, found: str) -> None:
        """Check the code's name; the message must say where, what is wrong, and what to do."""
        said = (self.last["code"], self.last["exit"], self.code)
        assert said == (name, Exit[name], Exit[name]), self.last
        parts = MESSAGE.fullmatch(self.last["message"])
        assert parts, self.last["message"]
        assert where in parts["where"]
        assert re.search(found, parts["problem"]), parts["problem"]
        assert "trace" not in self.last


def fails(program: str, *wrapper: str, env: Mapping[str, str] = {}, **options: object) -> Ended:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    argv, env = [*wrapper, str(BIN / f"contimg-{program}"), *words], {**ENVIRONMENT, **env}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, cwd=ROOT)
    assert done.stdout == "", "stdout is for summaries"
    return Ended(done.returncode, json.loads(done.stderr.splitlines()[-1]))


@dataclass(frozen=True)
class Site:
    """A store with one good group; its subbands are links, so spoiling one costs one copy."""

    store: Path

    @property
    def out(self) -> Path:
        return self.store / "products/convert"

    def subband(self, index: int = SPOILT) -> Path:
        (path,) = (self.store / "incoming").rglob(f"*_sb{index:02d}.hdf5")
        return path

    def own(self, index: int = SPOILT) -> Path:
        """Turn a subband's link into a file that may be changed."""
        path = self.subband(index)
        if path.is_symlink():
            good = path.readlink()
            path.unlink()
            shutil.copyfile(good, path)
        return path

    def watch(self) -> dict[str, Any]:
        return contimg("watch", store=self.store, size=0, timeout_s=0)

    @property
    def record(self) -> Path:
        (path,) = (self.store / "groups").glob("*-a1.json")
        return path

    def assert_no_partial_files(self) -> None:
        products = [path for path in (self.store / "products").rglob("*") if not path.is_dir()]
        assert products == []
        assert list(self.store.rglob(".part-*")) == []


@pytest.fixture
def site(small_chain: Chain, tmp_path: Path) -> Site:
    assert small_chain.truth_artifact
    good = small_chain.store / "incoming"
    for path in good.rglob("*.hdf5"):
        link = tmp_path / "store/incoming" / path.relative_to(good)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return Site(tmp_path / "store")


def header(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            value = change(file[f"Header/{name}"][()])
            del file[f"Header/{name}"]
            file[f"Header/{name}"] = value

    return spoil


SPOIL: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size * 9 // 10),
    "empty": lambda path: os.truncate(path, 0),
    "wrong_size": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "not_hdf5": lambda path: path.write_bytes(b"\x55" * path.stat().st_size),
    "duplicate": lambda path: shutil.copy(next(path.parent.glob("*_sb06.hdf5")), path),
    "second_copy": lambda path: shutil.copy(path, path.with_name(SECOND_COPY)),
    "wrong_telescope": header("telescope_name", lambda _: np.bytes_(b"HERA")),
    "mixed_declinations": header(POINTING, lambda dec: dec + np.radians(0.01)),
    "mixed_time_axes": header("time_array", lambda jd: jd + 12.884902 / 86400),
}
"""What may be wrong with a subband."""


@pytest.mark.parametrize(
    ("spoil", "name", "found"),
    [
        ("truncated", "BAD_FILE", r"\d+ bytes"),
        ("empty", "BAD_FILE", r"0 bytes|empty"),
        ("wrong_size", "BAD_FILE", r"\d+ bytes"),
        ("not_hdf5", "BAD_FILE", "HDF5"),
        ("duplicate", "INCONSISTENT_GROUP", "MHz"),
        ("wrong_telescope", "WRONG_TELESCOPE", "HERA"),
        ("mixed_declinations", "INCONSISTENT_GROUP", r"33\.01"),
        ("mixed_time_axes", "INCONSISTENT_GROUP", ""),
    ],
)
def test_convert_refuses_changed_file(site: Site, spoil: str, name: str, found: str) -> None:
    site.watch()
    kept = site.subband().stat()
    SPOIL[spoil](site.own())
    os.utime(site.own(), ns=(kept.st_atime_ns, kept.st_mtime_ns))  # else it is seen as replaced
    fails("convert", group=site.record, out=site.out).check(name, f"_sb{SPOILT:02d}.hdf5", found)
    site.assert_no_partial_files()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("truncated", r"\d+ bytes|truncated"),
        ("empty", r"empty|\b0 bytes"),
        ("not_hdf5", "UVH5|HDF5"),
        ("second_copy", r"_sb07\.hdf5"),
    ],
)
def test_watch_quarantines_bad_file_with_reason(site: Site, spoil: str, reason: str) -> None:
    SPOIL[spoil](site.own())
    ((key, why),) = site.watch()["quarantined"].items()
    assert key.endswith(f"_sb{SPOILT:02d}.hdf5")
    assert re.search(reason, why), why
    missing = json.loads(site.record.read_text())["missing"]
    assert missing == ([] if spoil == "second_copy" else [SPOILT])


def test_fifteen_subbands_give_a_warning(site: Site) -> None:
    site.subband().unlink()
    site.watch()
    said = contimg("convert", group=site.record, out=site.out)
    assert said["metrics"]["missing_subbands"] == [SPOILT]
    assert said["qa"]["verdict"] == "warning"
    assert "7" in " ".join(said["qa"]["reasons"])


def test_local_runner_shows_the_reason(site: Site) -> None:
    SPOIL["wrong_telescope"](site.own())
    argv = [BIN / "contimg", "run", "all", "--store", site.store]
    argv += ["--set", "watch.size=0", "--set", "watch.timeout_s=0"]
    asked = [BIN / "contimg", "status", "--store", site.store]
    place: dict[str, Any] = {"env": ENVIRONMENT, "cwd": site.store}
    for command in (argv, asked):
        done = subprocess.run(command, capture_output=True, text=True, check=False, **place)
        assert command is asked or done.returncode != 0
        assert re.search("telescope HERA.*not the DSA-110", done.stdout + done.stderr)
    (state,) = site.store.glob("runs/contimg-*/state.json")
    (only,) = json.loads(state.read_text())["tasks"]["convert"]["tries"]
    assert only["exit"] == Exit.WRONG_TELESCOPE
    site.assert_no_partial_files()


def test_silent_store_is_unreachable(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    keys |= {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "us-east-1"}
    group = "s3://none/groups/x-a1.json"
    ended = fails("convert", group=group, out=tmp_path / "out", env=keys)
    ended.check("STORE_UNREACHABLE", group, "connect")
    assert not (tmp_path / "out").exists()


def test_unreadable_store_is_unreachable(site: Site) -> None:
    """Root reads everything but without its capabilities."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    as_anyone = drop if os.geteuid() == 0 else []
    if as_anyone and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv (util-linux) can read every store")
    site.watch()
    hidden = site.record.parent
    for folder, program, options in (
        (hidden, "convert", {"group": site.record, "out": site.out}),
        (site.store / "incoming", "watch", {"store": site.store, "size": 0}),
    ):
        folder.chmod(0)
        try:
            ended = fails(program, *as_anyone, **options)
        finally:
            folder.chmod(0o755)
        ended.check("STORE_UNREACHABLE", str(folder), "Permission denied")
    site.assert_no_partial_files()


def test_store_that_is_a_file_is_refused(site: Site, tmp_path: Path) -> None:
    site.watch()
    (tmp_path / "file").write_text("no directory")
    fails("watch", store=tmp_path / "file").check("USAGE", "file", "file")
    ended = fails("convert", group=site.record, out=tmp_path / "file/out")
    ended.check("STORE_UNREACHABLE", "file/out", "Not a directory")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight MB, a tenth of what a small group needs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_is_no_room(site: Site, small_disk: Path) -> None:
    site.watch()
    ended = fails("convert", group=site.record, out=small_disk / "out")
    ended.check("NO_ROOM", str(small_disk / "out"), "No space left")
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    scratch = {"CONTIMG_SCRATCH": str(small_disk / "scratch")}
    ended = fails("convert", group=site.record, out=site.out, env=scratch)
    ended.check("NO_ROOM", str(small_disk / "scratch"), "8 MB")
    site.assert_no_partial_files()
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


def working_below(folder: Path) -> dict[int, str]:
    """Return the processes that work in a folder, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            where, words = (path / "cwd").readlink(), (path / "cmdline").read_text()
        except OSError:
            continue
        if where.is_relative_to(folder) or str(folder) in words:
            found[int(path.name)] = words
    return found


@pytest.mark.parametrize("stage", ["convert", "flag"])
def test_killed_stage_gives_same_bytes(small_chain: Chain, tmp_path: Path, stage: str) -> None:
    """After SIGKILL: no artifact, no child process; the next run makes the same bytes."""
    whole = {"convert": small_chain.ms, "flag": small_chain.flags}[stage]
    inputs = {"group": small_chain.record} if stage == "convert" else {"ms": small_chain.ms}
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    words = [f"--{name}={value}" for name, value in inputs.items()]
    argv = [str(BIN / f"contimg-{stage}"), *words, f"--out={out}"]
    env = {**ENVIRONMENT, "CONTIMG_SCRATCH": str(scratch)}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    child = subprocess.Popen(argv, env=env, text=True, **pipes)
    assert child.stderr is not None
    if stage == "convert":
        assert any(json.loads(line)["message"] == "convert" for line in child.stderr)
    else:
        wait_for(lambda: any("aoflagger" in words for words in working_below(scratch).values()))
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stderr.close()
    wait_for(lambda: not working_below(scratch))
    left = [path for path in out.rglob("*") if path.is_file()]
    assert [path for path in left if not path.name.startswith(".part-")] == []

    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    assert again["cached"] is False
    ours, theirs = (read_manifest(artifact).outputs for artifact in (again["artifact"], whole))
    assert {o.name: o.sha256 for o in ours} == {o.name: o.sha256 for o in theirs}
    assert list(scratch.iterdir()) == [], "the next run removes what the killed one left"


def test_flagged_data_end_with_all_flagged(site: Site) -> None:
    for index in range(16):
        with h5py.File(site.own(index), "r+") as file:
            flags = file["Data/flags"]
            flags[...] = np.ones(flags.shape, bool)  # h5py writes a scalar row by row, slowly
    site.watch()
    ms = contimg("convert", group=site.record, out=site.out)["artifact"]
    ended = fails("flag", ms=ms, out=site.store / "products/flag")
    ended.check("ALL_FLAGGED", "", r"100\.0%")
    assert not list((site.store / "products/flag").rglob("*.*"))


def test_group_without_calibration_is_refused(tmp_path: Path) -> None:
    far = Chain("small", seed=1, tier="quicklook", sky={"ra_deg": 38.9}, name="e2e-no-calibrator")
    store = tmp_path / "store"
    ended = fails("calibrate", ms=far.ms, store=store, out=store / "out", solve="never")
    ended.check("NO_CALIBRATION", far.group_id, "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
