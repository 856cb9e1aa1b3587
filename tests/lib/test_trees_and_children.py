"""Folders as one object with one digest; children that end."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from contimg.runtime import child
from contimg.runtime.errors import BadInputError, ChildFailedError, ChildTimedOutError
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


def test_pack_ignores_times_modes_and_locks(tree: Path) -> None:
    before = packed(tree)
    os.utime(tree / "table.dat", (1, 1))
    (tree / "table.dat").chmod(0o600)
    (tree / "table.lock").write_bytes(b"pid 17")
    assert packed(tree) == before


def test_other_content_packs_to_other_bytes(tree: Path) -> None:
    before = packed(tree)
    (tree / "table.dat").write_bytes(b"Data")
    assert packed(tree) != before


@pytest.mark.parametrize("filters", [{"filter": "data"}, {}], ids=["filter", "Python 3.11.2"])
class TestFilters:
    @pytest.fixture(autouse=True)
    def _filters(self, monkeypatch: pytest.MonkeyPatch, filters: dict[str, str]) -> None:
        monkeypatch.setattr("contimg.runtime.tar.FILTER", filters)

    def test_round_trip(self, tree: Path, tmp_path: Path) -> None:
        back = unpack(io.BytesIO(packed(tree)), tmp_path / "b")
        assert subprocess.run(["diff", "-r", tree, back], check=False).returncode == 0
        assert {path.stat().st_uid for path in back.rglob("*")} == {os.getuid()}

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("../x", tarfile.REGTYPE), ("/tmp/x", tarfile.REGTYPE), ("a/x", tarfile.SYMTYPE)],
    )
    def test_member_outside_folder_is_refused(self, tmp_path: Path, name: str, kind: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc"
        with pytest.raises(BadInputError, match="below the tar's own"):
            unpack(io.BytesIO(member.tobuf() + bytes(1024)), tmp_path / "b")


@pytest.mark.parametrize("cut", [0, 60_000])
def test_cut_tar_is_refused(tree: Path, tmp_path: Path, cut: int) -> None:
    with pytest.raises(BadInputError, match="tar"):
        unpack(io.BytesIO(packed(tree)[:cut]), tmp_path / "b")


def test_failed_child_shows_end_of_log(tmp_path: Path) -> None:
    with pytest.raises(ChildFailedError, match="SEVERE nothing"):
        child.run(["sh", "-c", "echo SEVERE nothing; exit 3"], tmp_path / "log", 10, os.environ)


def test_hanging_child_is_killed_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(ChildTimedOutError, match="did not end within 1 s"):
        child.run(["sh", "-c", "trap '' TERM; sleep 62 & wait"], tmp_path / "log", 1, os.environ)
    assert "sleep 62" not in subprocess.check_output(["ps", "-eo", "args"], text=True)


def test_call_crosses_the_process(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    assert child.call("json:dumps", {"obj": [1, 2]}, tmp_path / "log", 20, env) == "[1, 2]"
