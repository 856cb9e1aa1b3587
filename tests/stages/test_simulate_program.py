"""The executable contimg-simulate: exit codes, SIGTERM, S3 and option help."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from contimg.runtime.errors import Exit
from contimg.runtime.store import open_store
from contimg_simulate.options import SimulateOptions
from simulated import BARE, off_axis, simulate

PROGRAM = Path(sys.executable).parent / "contimg-simulate"


def run_simulate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)


def test_group_is_written_with_one_line_of_summary(tmp_path: Path) -> None:
    missing = ",".join(map(str, range(2, 16)))
    words = [f"--out={tmp_path}/products", f"--incoming={tmp_path}/incoming"]
    words.append(f"--missing-subbands={missing}")
    done = run_simulate(*words)
    assert done.returncode == Exit.DONE, done.stderr
    summary = json.loads(done.stdout)
    assert summary["metrics"]["files"] == 2
    assert len(list((tmp_path / "incoming").rglob("*.hdf5"))) == 2
    again = run_simulate(*words)
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
def test_errors_have_exit_code_and_reason(
    tmp_path: Path, words: list[str], code: Exit, reason: str
) -> None:
    (tmp_path / "list.csv").write_text("not,a,list\n1,2,3\n")
    given = [word.format(here=tmp_path) for word in words]
    done = run_simulate(
        "--out", f"{tmp_path}/products", "--incoming", f"{tmp_path}/incoming", *given
    )
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert not (tmp_path / "incoming").exists()
    assert not (tmp_path / "products").exists()


def test_sigterm_leaves_whole_files_only(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    words = ["--out", f"{tmp_path}/products", "--incoming", str(incoming), "--campaign", "demo"]
    with subprocess.Popen(
        [PROGRAM, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as child:
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
    options = {**BARE, "missing_subbands": ",".join(str(k) for k in range(1, 16))}
    here = simulate(tmp_path / "here", [off_axis(0.0, 0.1)], **options)
    there = simulate(
        tmp_path / "there", [off_axis(0.0, 0.1)], incoming=f"{moto_root}/incoming", **options
    )
    store = open_store(f"{moto_root}/incoming")
    (key,) = [entry.key for entry in store.entries()]
    assert key == here.truth["groups"][0]["files"][0] == there.truth["groups"][0]["files"][0]
    with store.open(key) as stream:
        assert io.BytesIO(stream.read()).getvalue() == here.files[0].read_bytes()


def test_every_option_has_help() -> None:
    for name, field in SimulateOptions.model_fields.items():
        assert field.description, name
        assert not name.endswith(("_deg", "_jy", "_ns", "_h")) or field.annotation is float
