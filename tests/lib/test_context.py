"""What a running stage may do, on a real store."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from contimg.astro.measures import call_casa
from contimg.records.tables import Column, Schema
from contimg.runtime import context as module
from contimg.runtime.context import Context, Progress, StageResult, available_memory
from contimg.runtime.errors import (
    BadInputError,
    ChildFailedError,
    ChildTimedOutError,
    MissingError,
    NoRoomError,
)
from contimg.runtime.manifest import MANIFEST, QA, Input, Manifest
from contimg.runtime.store import open_store

ENV = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "WORD": "spoken"}
TABLE = Schema(
    "scores",
    version=2,
    sort=("name",),
    columns=(
        Column("name", pa.string(), "", "meta.id;meta.main", "Who", nullable=False),
        Column("score", pa.float64(), "", "stat.value", "How much"),
    ),
)


class Counter(Progress):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def show(self, done: int, total: int) -> None:
        self.seen.append((done, total))


def context(root: str, scratch: Path, *inputs: Input, progress: Progress | None = None) -> Context:
    scratch.mkdir(parents=True, exist_ok=True)
    return Context(root, scratch, inputs, ENV, progress)


def finish(made: Context) -> str:
    """Write the manifest as the contract does; return the artifact's URI."""
    whole = Manifest(
        stage="toy",
        version="1",
        key="k",
        options={},
        inputs=made.inputs,
        tools={},
        outputs=tuple(made.outputs),
        metrics={},
        qa=QA(),
        seconds=made.seconds,
        created=datetime.now(UTC),
    )
    open_store(made.artifact).put(MANIFEST, whole.model_dump_json().encode())
    return made.artifact


@pytest.fixture(params=["directory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(
        request.getfixturevalue("moto_root") if request.param == "s3" else tmp_path / "store"
    )


@pytest.fixture
def artifact(root: str, tmp_path: Path) -> str:
    writer = context(f"{root}/products/g/toy/0123456789abcdef", tmp_path / "first")
    writer.write("words.txt", b"a few words")
    tree = tmp_path / "first" / "field.ms"
    (tree / "SUB").mkdir(parents=True)
    (tree / "table.dat").write_bytes(b"rows")
    (tree / "SUB" / "table.f0").write_bytes(bytes(range(256)) * 300)
    writer.write_tree("ms.tar", tree)
    return finish(writer)


class TestReading:
    def test_file_is_fetched_below_artifact_key(self, artifact: str, tmp_path: Path) -> None:
        reader = context(str(tmp_path / "next"), tmp_path / "scratch")
        path = reader.fetch(artifact + "/", "words.txt")
        assert path == tmp_path / "scratch" / "inputs" / "0123456789abcdef" / "words.txt"
        assert path.read_text() == "a few words"

    def test_a_second_fetch_does_not_ask_the_store_for_the_bytes(
        self, artifact: str, tmp_path: Path
    ) -> None:
        reader = context(str(tmp_path / "next"), tmp_path / "scratch")
        path = reader.fetch(artifact, "words.txt")
        open_store(artifact).delete("words.txt")
        assert reader.fetch(artifact, "words.txt") == path

    def test_a_damaged_file_is_refused_each_time(self, artifact: str, tmp_path: Path) -> None:
        open_store(artifact).put("words.txt", b"a few wordS")
        reader = context(str(tmp_path / "next"), tmp_path / "scratch")
        for _ in range(2):
            with pytest.raises(
                BadInputError,
                match=r"words.txt: The file is damaged: 11 bytes with sha256 .* says 11 bytes",
            ):
                reader.fetch(artifact, "words.txt")
        open_store(artifact).put("words.txt", b"a few words")
        assert reader.fetch(artifact, "words.txt").read_text() == "a few words"

    def test_file_not_in_manifest_is_refused(self, artifact: str, tmp_path: Path) -> None:
        open_store(artifact).put("stray.txt", b"left by a killed try")
        with pytest.raises(BadInputError, match=r"There is no stray.txt, only words.txt, ms.tar"):
            context(str(tmp_path / "next"), tmp_path / "scratch").fetch(artifact, "stray.txt")

    def test_vanished_file_is_missing_and_leaves_nothing(
        self, artifact: str, tmp_path: Path
    ) -> None:
        open_store(artifact).delete("words.txt")
        with pytest.raises(MissingError, match=r"words.txt"):
            context(str(tmp_path / "next"), tmp_path / "scratch").fetch(artifact, "words.txt")
        assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]

    def test_a_tree_comes_back_whole(self, artifact: str, tmp_path: Path) -> None:
        folder = context(str(tmp_path / "next"), tmp_path / "scratch").fetch_tree(
            artifact, "ms.tar"
        )
        assert folder.name == "field.ms"
        assert {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        } == {"table.dat": b"rows", "SUB/table.f0": bytes(range(256)) * 300}

    def test_a_tree_with_one_other_byte_is_refused(self, artifact: str, tmp_path: Path) -> None:
        store = open_store(artifact)
        store.put("ms.tar", store.read("ms.tar").replace(b"rows", b"sows"))
        with pytest.raises(BadInputError, match=r"ms.tar.*damaged"):
            context(str(tmp_path / "next"), tmp_path / "scratch").fetch_tree(artifact, "ms.tar")

    def test_a_small_object_is_read_whole(self, artifact: str, tmp_path: Path) -> None:
        reader = context(str(tmp_path / "next"), tmp_path / "scratch")
        assert reader.read(f"{artifact}/words.txt") == b"a few words"
        assert json.loads(reader.read(f"{artifact}/{MANIFEST}"))["key"] == "k"
        assert reader.manifest(artifact).output("ms.tar").bytes % 10240 == 0  # tar's records
        with pytest.raises(MissingError):
            reader.read(f"{artifact}/nothing")


def test_inputs_are_found_by_name_in_their_order(tmp_path: Path) -> None:
    inputs = [
        Input(name=name, uri=uri, digest="0")
        for name, uri in (("rows", "b"), ("ms", "m"), ("rows", "a"))
    ]
    reader = context(str(tmp_path / "next"), tmp_path / "scratch", *inputs)
    assert [item.uri for item in reader.named("rows")] == ["b", "a"]
    assert reader.named("flags") == []


class TestWriting:
    def test_bytes_and_files_are_recorded_with_their_digests(
        self, root: str, tmp_path: Path
    ) -> None:
        writer = context(f"{root}/k", tmp_path / "scratch")
        big = tmp_path / "big"
        big.write_bytes(os.urandom(3_000_000))
        for name, content, raw in (
            ("small", b"x", b"x"),
            ("big", big, big.read_bytes()),
            ("none", b"", b""),
        ):
            output = writer.write(name, content)
            assert (output.name, output.bytes, output.sha256) == (
                name,
                len(raw),
                hashlib.sha256(raw).hexdigest(),
            )
            assert open_store(f"{root}/k").read(name) == raw
        assert [output.name for output in writer.outputs] == ["small", "big", "none"]

    def test_the_last_of_a_name_counts(self, root: str, tmp_path: Path) -> None:
        writer = context(f"{root}/k", tmp_path / "scratch")
        writer.write("a", b"first")
        writer.write("b", b"other")
        last = writer.write("a", b"second")
        assert sorted(output.name for output in writer.outputs) == ["a", "b"]
        assert last in writer.outputs
        assert open_store(f"{root}/k").read("a") == b"second"

    def test_missing_source_is_not_written(self, root: str, tmp_path: Path) -> None:
        writer = context(f"{root}/k", tmp_path / "scratch")
        with pytest.raises(FileNotFoundError):
            writer.write("a", tmp_path / "nowhere")
        assert writer.outputs == []
        assert not open_store(f"{root}/k").exists("a")

    def test_a_table_is_an_output_like_any_other(self, root: str, tmp_path: Path) -> None:
        writer = context(f"{root}/k", tmp_path / "scratch")
        output = writer.write_table(
            "scores.parquet", TABLE, {"name": ["b", "a"], "score": [2.0, None]}
        )
        data = open_store(f"{root}/k").read("scores.parquet")
        assert hashlib.sha256(data).hexdigest() == output.sha256
        assert TABLE.read(data, "here").to_pylist() == [
            {"name": "a", "score": None},
            {"name": "b", "score": 2.0},
        ]

    def test_published_rows_lie_by_day_and_unit_and_replace_themselves(
        self, root: str, tmp_path: Path
    ) -> None:
        writer = context(f"{root}/k", tmp_path / "scratch")
        for score in (1.0, 5.0):
            writer.publish(
                f"{root}/tables", TABLE, "2026-01-25", "g1", {"name": ["a"], "score": [score]}
            )
        writer.publish(f"{root}/tables", TABLE, "2026-01-25", "g2", {"name": ["a"], "score": [7.0]})
        store = open_store(f"{root}/tables")
        found = {
            entry.key: TABLE.read(store.read(entry.key), entry.key).to_pylist()
            for entry in store.entries()
        }
        assert found == {
            "scores/date=2026-01-25/g1.parquet": [{"name": "a", "score": 5.0}],
            "scores/date=2026-01-25/g2.parquet": [{"name": "a", "score": 7.0}],
        }
        assert writer.outputs == [], "what is published is no part of the artifact"


class TestDoing:
    def test_steps_of_one_name_add_up_even_if_one_fails(self, tmp_path: Path) -> None:
        doing = context(str(tmp_path / "a"), tmp_path / "scratch")
        with doing.step("solve"):
            time.sleep(0.05)
        first = doing.seconds["solve"]
        with pytest.raises(ZeroDivisionError), doing.step("solve"):
            time.sleep(0.05)
            raise ZeroDivisionError
        with doing.step("apply"):
            pass
        assert first >= 0.049
        assert doing.seconds["solve"] >= first + 0.049  # seconds are rounded to ms
        assert list(doing.seconds) == ["solve", "apply"]

    def test_progress_goes_where_the_contract_says(self, tmp_path: Path) -> None:
        counter = Counter()
        context(str(tmp_path / "a"), tmp_path / "scratch", progress=counter).progress(3, 7)
        context(str(tmp_path / "a"), tmp_path / "scratch").progress(
            3, 7
        )  # and nowhere, if it says nothing
        assert counter.seen == [(3, 7)]

    def test_program_runs_in_scratch_with_stage_environment(self, tmp_path: Path) -> None:
        doing = context(str(tmp_path / "a"), tmp_path / "scratch")
        log = doing.run(["/bin/sh", "-c", "pwd; echo $WORD; echo to stderr >&2; touch made"], 30)
        assert log == tmp_path / "scratch" / "sh.log"
        assert log.read_text().splitlines() == [str(tmp_path / "scratch"), "spoken", "to stderr"]
        assert (tmp_path / "scratch" / "made").exists()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        doing.run(["/bin/sh", "-c", "pwd"], 30, cwd=elsewhere)
        assert log.read_text().splitlines()[-1] == str(elsewhere)

    def test_a_program_that_fails_or_hangs_has_a_name(self, tmp_path: Path) -> None:
        doing = context(str(tmp_path / "a"), tmp_path / "scratch")
        with pytest.raises(ChildFailedError, match=r"sh -c .*: The program ended with exit code 7"):
            doing.run(["/bin/sh", "-c", "exit 7"], 30)
        with pytest.raises(ChildTimedOutError, match="sleep: The program did not end within 0 s"):
            doing.run(["/bin/sleep", "30"], 0.3)

    def test_call_casa_has_offline_environment_and_json(self, tmp_path: Path) -> None:
        doing = context(str(tmp_path / "a"), tmp_path / "scratch")
        assert (
            call_casa(doing, "json:dumps", 60, obj={"a": [1, None]}, sort_keys=True)
            == '{"a": [1, null]}'
        )
        site = call_casa(doing, "os:getenv", 60, key="CASASITECONFIG")
        assert Path(site).is_file()
        assert call_casa(doing, "os:getenv", 60, key="OMP_NUM_THREADS") == "1"
        with pytest.raises(ChildFailedError, match="FileNotFoundError"):
            call_casa(doing, "os:listdir", 60, path="/nowhere/at/all")
        assert "FileNotFoundError" in (tmp_path / "scratch" / "casa.log").read_text()

    def test_need_with_room_passes(self, tmp_path: Path) -> None:
        doing = context(str(tmp_path / "a"), tmp_path / "scratch")
        doing.need(0)
        doing.need(1 << 20, memory=1 << 20)

    @pytest.mark.parametrize(
        ("room", "memory", "words"),
        [
            (1 << 60, 0, "1152921504607 MB are needed"),
            (0, 1 << 60, "1152921504607 MB of memory are needed"),
        ],
    )
    def test_need_without_room_gives_both_numbers(
        self, tmp_path: Path, room: int, memory: int, words: str
    ) -> None:
        with pytest.raises(NoRoomError, match=rf"{words}, but \d+ MB are"):
            context(str(tmp_path / "a"), tmp_path / "scratch").need(room, memory)

    @pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory as disk")
    def test_in_memory_room_and_memory_are_the_same_thing(self) -> None:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(dir="/dev/shm") as folder:
            doing = Context(f"{folder}/a", Path(folder), (), ENV)
            half = int(0.6 * available_memory())
            with pytest.raises(
                NoRoomError
            ):  # each alone might fit, but both come out of one memory
                doing.need(half, memory=half)

    def test_available_memory_is_below_total(self) -> None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert 0 < available_memory() <= total
        assert total > module.MEMORY_SPARE_BYTES


def test_an_outcome_is_good_unless_it_says_otherwise() -> None:
    assert StageResult() == StageResult(metrics={}, qa=QA(verdict="good", reasons=()))
    assert StageResult().metrics is not StageResult().metrics
