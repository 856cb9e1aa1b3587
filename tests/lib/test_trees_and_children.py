"""Folders as one object with one digest; children that end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contimg.runtime import child
from contimg.runtime.context import Context, available_memory
from contimg.runtime.errors import BadInputError, ChildFailedError, ChildTimedOutError, NoRoomError
from contimg.runtime.manifest import MANIFEST, QA, Manifest
from contimg.runtime.tar import pack, unpack


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "a.ms"
    (folder / "SUB").mkdir(parents=True)
    (folder / "table.dat").write_bytes(b"data")
    (folder / "SUB" / "table.f0").write_bytes(os.urandom(100_000))
    return folder


def packed(folder: Path) -> bytes:
    sink = io.BytesIO()
    pack(folder, sink)
    return sink.getvalue()


def test_the_same_content_makes_the_same_bytes(tree: Path) -> None:
    before = packed(tree)
    os.utime(tree / "table.dat", (1, 1))
    (tree / "table.dat").chmod(0o600)
    (tree / "table.lock").write_bytes(b"pid 17")
    assert packed(tree) == before


def test_other_content_makes_other_bytes(tree: Path) -> None:
    before = packed(tree)
    (tree / "table.dat").write_bytes(b"Data")
    assert packed(tree) != before


def test_round_trip(tree: Path, tmp_path: Path) -> None:
    back = unpack(io.BytesIO(packed(tree)), tmp_path / "b")
    assert subprocess.run(["diff", "-r", tree, back], check=False).returncode == 0


@pytest.mark.parametrize("filters", [{"filter": "data"}, {}], ids=["filter", "Python 3.11.2"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("../x", tarfile.REGTYPE), ("/tmp/x", tarfile.REGTYPE), ("a/x", tarfile.SYMTYPE)],
)
def test_a_tar_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: bytes, filters: dict[str, str]
) -> None:
    monkeypatch.setattr("contimg.runtime.tar.FILTER", filters)
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc"
    with pytest.raises(BadInputError, match="below the tar's own"):
        unpack(io.BytesIO(member.tobuf() + bytes(1024)), tmp_path / "b")


def test_round_trip_without_filters(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contimg.runtime.tar.FILTER", {})
    back = unpack(io.BytesIO(packed(tree)), tmp_path / "b")
    assert subprocess.run(["diff", "-r", tree, back], check=False).returncode == 0
    assert {path.stat().st_uid for path in back.rglob("*")} == {os.getuid()}


# A cut inside a header looks like an end to tarfile: there the digest speaks (next test).
@pytest.mark.parametrize("cut", [0, 60_000])
def test_a_damaged_tar_is_refused(tree: Path, tmp_path: Path, cut: int) -> None:
    with pytest.raises(BadInputError, match="tar"):
        unpack(io.BytesIO(packed(tree)[:cut]), tmp_path / "b")


def test_a_tree_is_checked_against_its_manifest(tree: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    writer = Context(str(artifact), tmp_path, (), {})
    output = writer.write_tree("a.tar", tree)
    whole = Manifest(
        stage="toy",
        version="1",
        key="k",
        options={},
        inputs=(),
        tools={},
        outputs=(output,),
        metrics={},
        qa=QA(),
        seconds={},
        created=datetime.now(UTC),
    )
    (artifact / MANIFEST).write_text(whole.model_dump_json())
    (tmp_path / "scratch").mkdir()
    reader = Context(str(tmp_path / "next"), tmp_path / "scratch", (), {})
    assert (reader.fetch_tree(str(artifact), "a.tar") / "table.dat").read_bytes() == b"data"
    (artifact / "a.tar").write_bytes((artifact / "a.tar").read_bytes()[:1400])
    with pytest.raises(BadInputError, match="damaged"):
        reader.fetch_tree(str(artifact), "a.tar")


def test_a_child_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ChildFailedError, match="SEVERE nothing"):
        child.run(["sh", "-c", "echo SEVERE nothing; exit 3"], tmp_path / "log", 10, os.environ)


def test_a_child_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(ChildTimedOutError, match="did not end within 1 s"):
        child.run(["sh", "-c", "trap '' TERM; sleep 62 & wait"], tmp_path / "log", 1, os.environ)
    assert (
        "sleep 62"
        not in subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_a_call_crosses_the_process(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    assert child.call("json:dumps", {"obj": [1, 2]}, tmp_path / "log", 20, env) == "[1, 2]"


def test_need_refuses_before_the_disk_is_full(tmp_path: Path) -> None:
    context = Context(str(tmp_path / "a"), tmp_path, (), {"PATH": sys.prefix})
    context.need(1)
    with pytest.raises(NoRoomError, match="CONTIMG_SCRATCH"):
        context.need(1 << 60)
    with pytest.raises(NoRoomError, match="memory"):
        context.need(1, memory=1 << 60)
    assert available_memory() > 0
