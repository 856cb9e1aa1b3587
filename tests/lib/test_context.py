"""What a running stage may do, on a real store."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest

from contimg.astro.measures import call_casa
from contimg.records.tables import Column, Schema
from contimg.runtime.context import MEMORY_SPARE_BYTES, Context, StageResult
from contimg.runtime.errors import (
    BadInputError,
    ChildFailedError,
    ChildTimedOutError,
    MissingError,
    NoRoomError,
)
from contimg.runtime.manifest import MANIFEST, QA, Input
from contimg.runtime.scratch import available_memory
from contimg.runtime.store import open_store
from toys import toy_manifest

ENV = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "WORD": "spoken"}
NAME = Column("name", pa.string(), "", "meta.id;meta.main", "Who", nullable=False)
SCORE = Column("score", pa.float64(), "", "stat.value", "How much")
TABLE = Schema("scores", version=2, sort=("name",), columns=(NAME, SCORE))
KEY = "0123456789abcdef"


@pytest.fixture(params=["directory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(
        request.getfixturevalue("moto_root") if request.param == "s3" else tmp_path / "store"
    )


@pytest.fixture
def artifact(root: str, tmp_path: Path) -> str:
    tree = tmp_path / "first" / "field.ms"
    (tree / "SUB").mkdir(parents=True)
    (tree / "table.dat").write_bytes(b"rows")
    (tree / "SUB" / "table.f0").write_bytes(bytes(range(256)) * 300)
    writer = Context(f"{root}/products/g/toy/{KEY}", tmp_path / "first", (), ENV)
    writer.write("words.txt", b"a few words")
    writer.write_tree("ms.tar", tree)
    made = toy_manifest(outputs=tuple(writer.outputs))
    open_store(writer.artifact).put(MANIFEST, made.model_dump_json().encode())
    return writer.artifact


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A running stage whose scratch is the folder `scratch`."""
    (tmp_path / "scratch").mkdir()
    return Context(str(tmp_path / "next"), tmp_path / "scratch", (), ENV)


@pytest.fixture
def writer(root: str, context: Context) -> Context:
    return Context(f"{root}/k", context.scratch, (), ENV)


class TestReading:
    def test_file_is_fetched_below_artifact_key(self, artifact: str, context: Context) -> None:
        path = context.fetch(artifact + "/", "words.txt")
        assert path == context.scratch / "inputs" / KEY / "words.txt"
        assert path.read_text() == "a few words"

    def test_second_fetch_reads_scratch(self, artifact: str, context: Context) -> None:
        path = context.fetch(artifact, "words.txt")
        open_store(artifact).delete("words.txt")
        assert context.fetch(artifact, "words.txt") == path

    def test_damaged_file_is_refused_each_time(self, artifact: str, context: Context) -> None:
        open_store(artifact).put("words.txt", b"a few wordS")
        problem = r"words.txt: The file is damaged: 11 bytes with sha256 .* says 11 bytes"
        for _ in range(2):
            with pytest.raises(BadInputError, match=problem):
                context.fetch(artifact, "words.txt")
        open_store(artifact).put("words.txt", b"a few words")
        assert context.fetch(artifact, "words.txt").read_text() == "a few words"

    def test_file_not_in_manifest_is_refused(self, artifact: str, context: Context) -> None:
        open_store(artifact).put("stray.txt", b"left by a killed try")
        with pytest.raises(BadInputError, match=r"There is no stray.txt, only words.txt, ms.tar"):
            context.fetch(artifact, "stray.txt")

    def test_vanished_file_leaves_nothing(self, artifact: str, context: Context) -> None:
        open_store(artifact).delete("words.txt")
        with pytest.raises(MissingError, match=r"words.txt"):
            context.fetch(artifact, "words.txt")
        assert not [path for path in context.scratch.rglob("*") if path.is_file()]

    def test_tree_comes_back_whole(self, artifact: str, context: Context) -> None:
        folder = context.fetch_tree(artifact, "ms.tar")
        assert folder.name == "field.ms"
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in files} == {
            "table.dat": b"rows",
            "SUB/table.f0": bytes(range(256)) * 300,
        }

    @pytest.mark.parametrize(
        "damage",
        # A cut inside a header looks like an end to tarfile.
        [lambda data: data.replace(b"rows", b"sows"), lambda data: data[:1400]],
        ids=["other byte", "cut"],
    )
    def test_damaged_tree_is_refused(
        self, artifact: str, context: Context, damage: Callable[[bytes], bytes]
    ) -> None:
        store = open_store(artifact)
        store.put("ms.tar", damage(store.read("ms.tar")))
        with pytest.raises(BadInputError, match=r"ms.tar.*damaged"):
            context.fetch_tree(artifact, "ms.tar")

    def test_small_object_is_read_whole(self, artifact: str, context: Context) -> None:
        assert context.read(f"{artifact}/words.txt") == b"a few words"
        assert json.loads(context.read(f"{artifact}/{MANIFEST}"))["key"] == "k"
        assert context.manifest(artifact).output("ms.tar").bytes % 10240 == 0  # tar's records
        with pytest.raises(MissingError):
            context.read(f"{artifact}/nothing")


def test_named_inputs_keep_their_order(tmp_path: Path) -> None:
    pairs = (("rows", "b"), ("ms", "m"), ("rows", "a"))
    inputs = [Input(name=name, uri=uri, digest="0") for name, uri in pairs]
    reader = Context(str(tmp_path / "next"), tmp_path, inputs, ENV)
    assert [item.uri for item in reader.named("rows")] == ["b", "a"]
    assert reader.named("flags") == []


class TestWriting:
    def test_outputs_are_recorded_with_digests(self, writer: Context, tmp_path: Path) -> None:
        big = tmp_path / "big"
        big.write_bytes(os.urandom(3_000_000))
        contents: dict[str, bytes | Path] = {"small": b"x", "big": big, "none": b""}
        for name, content in contents.items():
            raw = content if isinstance(content, bytes) else content.read_bytes()
            output = writer.write(name, content)
            said = (output.name, output.bytes, output.sha256)
            assert said == (name, len(raw), hashlib.sha256(raw).hexdigest())
            assert open_store(writer.artifact).read(name) == raw
        assert [output.name for output in writer.outputs] == ["small", "big", "none"]

    def test_last_output_of_a_name_counts(self, writer: Context) -> None:
        writer.write("a", b"first")
        writer.write("b", b"other")
        last = writer.write("a", b"second")
        assert sorted(output.name for output in writer.outputs) == ["a", "b"]
        assert last in writer.outputs
        assert open_store(writer.artifact).read("a") == b"second"

    def test_missing_source_is_not_written(self, writer: Context, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            writer.write("a", tmp_path / "nowhere")
        assert writer.outputs == []
        assert not open_store(writer.artifact).exists("a")

    def test_table_is_an_output(self, writer: Context) -> None:
        rows: dict[str, list[Any]] = {"name": ["b", "a"], "score": [2.0, None]}
        output = writer.write_table("scores.parquet", TABLE, rows)
        data = open_store(writer.artifact).read("scores.parquet")
        assert hashlib.sha256(data).hexdigest() == output.sha256
        found = TABLE.read(data, "here").to_pylist()
        assert found == [{"name": "a", "score": None}, {"name": "b", "score": 2.0}]

    def test_published_unit_replaces_its_rows(self, root: str, writer: Context) -> None:
        for unit, score in (("g1", 1.0), ("g1", 5.0), ("g2", 7.0)):
            rows = {"name": ["a"], "score": [score]}
            writer.publish(f"{root}/tables", TABLE, "2026-01-25", unit, rows)
        store = open_store(f"{root}/tables")
        files = {entry.key: store.read(entry.key) for entry in store.entries()}
        assert {key: TABLE.read(data, key).to_pylist() for key, data in files.items()} == {
            "scores/date=2026-01-25/g1.parquet": [{"name": "a", "score": 5.0}],
            "scores/date=2026-01-25/g2.parquet": [{"name": "a", "score": 7.0}],
        }
        assert writer.outputs == [], "what is published is no part of the artifact"


class TestDoing:
    def test_steps_of_one_name_add_up(self, context: Context) -> None:
        with context.step("solve"):
            time.sleep(0.05)
        first = context.seconds["solve"]
        with pytest.raises(ZeroDivisionError), context.step("solve"):
            time.sleep(0.05)
            raise ZeroDivisionError
        with context.step("apply"):
            pass
        assert first >= 0.049
        assert context.seconds["solve"] >= first + 0.049  # seconds are rounded to ms
        assert list(context.seconds) == ["solve", "apply"]

    def test_progress_is_optional(self, context: Context, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        show = lambda done, total: seen.append((done, total))  # noqa: E731
        Context(str(tmp_path / "a"), tmp_path, (), ENV, show).progress(3, 7)
        context.progress(3, 7)
        assert seen == [(3, 7)]

    def test_program_runs_in_scratch_with_stage_environment(
        self, context: Context, tmp_path: Path
    ) -> None:
        log = context.run(["/bin/sh", "-c", "pwd; echo $WORD; echo to stderr >&2; touch made"], 30)
        assert log == context.scratch / "sh.log"
        assert log.read_text().splitlines() == [str(context.scratch), "spoken", "to stderr"]
        assert (context.scratch / "made").exists()
        context.run(["/bin/sh", "-c", "pwd"], 30, cwd=tmp_path)
        assert log.read_text().splitlines()[-1] == str(tmp_path)

    def test_failed_or_hanging_program_is_named(self, context: Context) -> None:
        with pytest.raises(ChildFailedError, match=r"sh -c .*: The program ended with exit code 7"):
            context.run(["/bin/sh", "-c", "exit 7"], 30)
        with pytest.raises(ChildTimedOutError, match="sleep 30: The program did not end within 0"):
            context.run(["/bin/sleep", "30"], 0.3)

    def test_call_casa_has_offline_environment_and_json(self, context: Context) -> None:
        text = call_casa(context, "json:dumps", 60, obj={"a": [1, None]}, sort_keys=True)
        assert text == '{"a": [1, null]}'
        site = call_casa(context, "os:getenv", 60, key="CASASITECONFIG")
        assert Path(site).is_file()
        assert call_casa(context, "os:getenv", 60, key="OMP_NUM_THREADS") == "1"
        with pytest.raises(ChildFailedError, match="FileNotFoundError"):
            call_casa(context, "os:listdir", 60, path="/nowhere/at/all")
        assert "FileNotFoundError" in (context.scratch / "casa.log").read_text()

    def test_need_with_room_passes(self, context: Context) -> None:
        context.need(0)
        context.need(1 << 20, memory=1 << 20)

    @pytest.mark.parametrize(
        ("room", "memory", "problem"),
        [
            (1 << 60, 0, r"1152921504607 MB are needed, but \d+ MB are free\. .*CONTIMG_SCRATCH"),
            (0, 1 << 60, r"1152921504607 MB of memory are needed, but \d+ MB are"),
            (1, 1 << 60, r"MB of memory are needed, but \d+ MB are"),
        ],
    )
    def test_need_without_room_gives_both_numbers(
        self, context: Context, room: int, memory: int, problem: str
    ) -> None:
        with pytest.raises(NoRoomError, match=problem):
            context.need(room, memory)

    @pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory as disk")
    def test_scratch_in_memory_shares_its_room(self) -> None:
        with TemporaryDirectory(dir="/dev/shm") as folder:
            context = Context(f"{folder}/a", Path(folder), (), ENV)
            half = int(0.6 * available_memory())  # each alone might fit
            with pytest.raises(NoRoomError):
                context.need(half, memory=half)

    def test_available_memory_is_below_total(self) -> None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert 0 < available_memory() <= total
        assert total > MEMORY_SPARE_BYTES


def test_stage_result_is_good_by_default() -> None:
    assert StageResult() == StageResult(metrics={}, qa=QA(verdict="good", reasons=()))
    assert StageResult().metrics is not StageResult().metrics
