"""contimg-simulate as its executable: exit codes, being told to stop, S3, and what a pipeline of Argo sees."""

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
from contimg.runtime.options import help_text
from contimg.runtime.store import open_store
from contimg_simulate.options import SimulateOptions
from simulated import BARE, off_axis, simulate

PROGRAM = Path(sys.executable).parent / "contimg-simulate"
STOP_WITHIN_S = 10.0
"""architecture.md: SIGTERM ends a stage within this."""


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)


def test_a_group_comes_with_one_line_of_summary(tmp_path: Path) -> None:
    words = [
        "--out",
        f"{tmp_path}/products",
        "--incoming",
        f"{tmp_path}/incoming",
        "--missing-subbands",
        "2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    ]
    done = _run(*words)
    assert done.returncode == Exit.DONE, done.stderr
    summary = json.loads(done.stdout)
    assert summary["metrics"]["files"] == 2
    assert len(list((tmp_path / "incoming").rglob("*.hdf5"))) == 2
    again = _run(*words)
    assert json.loads(again.stdout)["cached"] is True


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--scale", "huge"], Exit.USAGE, "--scale"),
        (["--dead-antennas", "10"], Exit.USAGE, "active stations"),
        (["--zeros", "1.5"], Exit.USAGE, "--zeros"),
        (["--sources", "{here}/list.csv"], Exit.BAD_INPUT, "list.csv"),
        (["--nvss", "false"], Exit.NO_SOURCES, "in the beam"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_exit_code(
    tmp_path: Path, words: list[str], code: Exit, told: str
) -> None:
    (tmp_path / "list.csv").write_text("not,a,list\n1,2,3\n")
    given = [word.format(here=tmp_path) for word in words]
    done = _run("--out", f"{tmp_path}/products", "--incoming", f"{tmp_path}/incoming", *given)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "incoming").exists()
    assert not (tmp_path / "products").exists()


def test_told_to_stop_it_leaves_whole_files_only(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    words = ["--out", f"{tmp_path}/products", "--incoming", str(incoming), "--campaign", "demo"]
    with subprocess.Popen(
        [PROGRAM, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as child:
        for _ in range(600):
            if len(list(incoming.rglob("*.hdf5"))) > 3:
                break
            time.sleep(0.1)
        told = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(STOP_WITHIN_S) == Exit.TERMINATED
        assert time.monotonic() - told < STOP_WITHIN_S
    written = [path for path in incoming.rglob("*") if path.is_file()]
    assert all(path.suffix == ".hdf5" for path in written)
    for path in written:
        with h5py.File(path) as file:
            assert file["Data/visdata"].shape[0] == 4 * 4656
    assert not list((tmp_path / "products").rglob("manifest.json"))


def test_subbands_go_to_s3_as_well(tmp_path: Path, moto_root: str) -> None:
    chosen = {**BARE, "missing_subbands": ",".join(str(k) for k in range(1, 16))}
    here = simulate(tmp_path / "here", [off_axis(0.0, 0.1)], **chosen)
    there = simulate(
        tmp_path / "there", [off_axis(0.0, 0.1)], incoming=f"{moto_root}/incoming", **chosen
    )
    store = open_store(f"{moto_root}/incoming")
    (key,) = [entry.key for entry in store.entries()]
    assert key == here.truth["groups"][0]["files"][0] == there.truth["groups"][0]["files"][0]
    with store.open(key) as stream:
        assert io.BytesIO(stream.read()).getvalue() == here.files[0].read_bytes()


def test_every_option_has_help_and_a_unit_where_it_needs_one() -> None:
    for name, field in SimulateOptions.model_fields.items():
        assert help_text(field), name
        assert not name.endswith(("_deg", "_jy", "_ns", "_h")) or field.annotation is float
