"""The executable contimg-simulate: exit codes, SIGTERM, S3 and option help."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from contimg.runtime.errors import Exit
from contimg.runtime.options import help_text
from contimg.runtime.store import open_store
from contimg_simulate.options import SimulateOptions
from simulated import BARE, off_axis, simulate

PROGRAM = Path(sys.executable).parent / "contimg-simulate"
BUT_FIRST = ",".join(map(str, range(1, 16)))


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
def test_errors_exit_code(tmp_path: Path, words: list[str], code: Exit, reason: str) -> None:
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
        assert help_text(field), name
        assert not name.endswith(("_deg", "_jy", "_ns", "_h")) or field.annotation is float
