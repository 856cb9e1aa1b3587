"""What a running stage may do: read inputs, write outputs, publish tables, run programs."""

from __future__ import annotations

import io
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

from contimg.runtime import child
from contimg.runtime.errors import BadInputError, NoRoomError
from contimg.runtime.manifest import QA, Input, Manifest, Output, read_manifest
from contimg.runtime.scratch import available_memory
from contimg.runtime.store import copy_digest, fetch_file, open_store, split
from contimg.runtime.tar import DigestStream, pack, unpack

MEMORY_SPARE_BYTES = 1 << 30
"""Memory that scratch in memory leaves free."""


@dataclass(frozen=True)
class StageResult:
    """What a stage reports of its work."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Numbers for people and dashboards; JSON, units in the names."""
    qa: QA = field(default_factory=QA)


class TableSchema(Protocol):
    """Makes the Parquet file of a table (`contimg.records.tables.Schema`)."""

    @property
    def name(self) -> str:
        """Name of the table."""

    def to_bytes(self, content: Any) -> bytes:  # noqa: ANN401 - a pa.Table or a mapping of columns
        """Return the file of a table's columns."""


class Context:
    """One run of a stage."""

    def __init__(
        self,
        artifact: str,
        scratch: Path,
        inputs: Sequence[Input],
        env: Mapping[str, str],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self.artifact = artifact
        """URI of the artifact being made."""
        self.key = artifact.rstrip("/").rpartition("/")[2]
        """The key of the work: the last part of the artifact's URI."""
        self.scratch = scratch
        """An empty folder for heavy files; removed when the stage ends."""
        self.inputs = tuple(inputs)
        """Everything that the stage may read, with digests."""
        self.env = dict(env)
        """Environment of child processes."""
        self.log = logging.getLogger("contimg")
        self.outputs: list[Output] = []
        self.seconds: dict[str, float] = {}
        self.progress = progress
        """Shows how far the work is, (done, total): on a terminal, in a log or to Argo."""
        self._store = open_store(artifact)

    def manifest(self, uri: str) -> Manifest:
        """Read the manifest of an input artifact."""
        return read_manifest(uri)

    def named(self, name: str) -> list[Input]:
        """Return the resolved inputs of one name, such as the results of a query on the store."""
        return [item for item in self.inputs if item.name == name]

    def fetch(self, uri: str, name: str) -> Path:
        """Copy one file of an artifact into scratch and check its digest; return its path."""
        expected = read_manifest(uri).output(name)
        self.need(expected.bytes)
        path = self.scratch / "inputs" / uri.rstrip("/").rpartition("/")[2] / name
        if not path.exists():
            size, digest = fetch_file(open_store(uri), name, path)
            if digest != expected.sha256:
                path.unlink()  # otherwise the next fetch would take it for a checked one
            _check_digest(uri, expected, size, digest)
        return path

    def fetch_tree(self, uri: str, name: str) -> Path:
        """Unpack a tar of an artifact (an MS or caltable) into scratch; return the folder."""
        expected = read_manifest(uri).output(name)
        self.need(expected.bytes)
        into = self.scratch / "inputs" / uri.rstrip("/").rpartition("/")[2]
        into.mkdir(parents=True, exist_ok=True)
        with open_store(uri).open(name) as source:
            through = DigestStream(source)
            folder = unpack(through, into)
        _check_digest(uri, expected, through.size, through.digest.hexdigest())
        return folder

    def read(self, uri: str) -> bytes:
        """Read one small object."""
        store, key = split(uri)
        return store.read(key)

    def write(self, name: str, content: bytes | Path) -> Output:
        """Write one file of the artifact."""
        # Open the source first: inside the writer its errors would count as the store's.
        with (
            content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as source,
            self._store.writer(name) as sink,
        ):
            size, digest = copy_digest(source, sink)
        return self._record(name, size, digest)

    @contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """Open a stream to one file of the artifact, for what is too large for memory."""
        with self._store.writer(name) as sink:
            through = DigestStream(sink)
            yield cast("IO[bytes]", through)
        self._record(name, through.size, through.digest.hexdigest())

    def write_tree(self, name: str, folder: Path) -> Output:
        """Write a folder as one tar of the artifact."""
        with self._store.writer(name) as sink:
            size, digest = pack(folder, sink)
        return self._record(name, size, digest)

    def write_table(self, name: str, schema: TableSchema, rows: Any) -> Output:  # noqa: ANN401 - as `TableSchema.to_bytes`
        """Write a Parquet table of the artifact."""
        return self.write(name, schema.to_bytes(rows))

    def publish(self, tables: str, schema: TableSchema, day: str, unit: str, rows: Any) -> None:  # noqa: ANN401 - as `TableSchema.to_bytes`
        """Write rows to ``TABLES/NAME/date=DAY/UNIT.parquet``, where queries find them.

        The same unit again replaces its earlier rows.
        """
        open_store(tables).put(f"{schema.name}/date={day}/{unit}.parquet", schema.to_bytes(rows))

    def publish_output(self, tables: str, table: str, day: str, unit: str, name: str) -> None:
        """Copy a table that is an output of this artifact to where `publish` writes rows."""
        key = f"{table}/date={day}/{unit}.parquet"
        with self._store.open(name) as source, open_store(tables).writer(key) as sink:
            copy_digest(source, sink)

    def _record(self, name: str, size: int, digest: str) -> Output:
        output = Output(name=name, bytes=size, sha256=digest)
        self.outputs = [item for item in self.outputs if item.name != name] + [output]
        return output

    def relative_uri(self, tables: str) -> str:
        """Return the artifact's URI relative to the folder that holds the tables.

        Tables name artifacts so, so that a store can be moved. An artifact elsewhere keeps its
        whole URI.
        """
        above = tables.rstrip("/").rpartition("/")[0]
        return self.artifact.removeprefix(f"{above}/") if above else self.artifact

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; the seconds are written to the manifest."""
        self.log.info("%s", name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def need(self, room: int, memory: int = 0) -> None:
        """Raise NoRoomError if scratch has under `room` bytes or the machine under `memory`."""
        free = shutil.disk_usage(self.scratch).free
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
        above = [(len(point), kind) for point, kind in mounts if self.scratch.is_relative_to(point)]
        if above and max(above)[1] in {"tmpfs", "ramfs"}:
            free = min(free, available_memory() - MEMORY_SPARE_BYTES)
            memory = memory + room if memory else 0
        if free < room:
            problem = f"{room / 1e6:.0f} MB are needed, but {free / 1e6:.0f} MB are free."
            remedy = "Free space, or point CONTIMG_SCRATCH to a larger disk."
            raise NoRoomError(str(self.scratch), problem, remedy)
        if memory and available_memory() < memory:
            found = f"{available_memory() / 1e6:.0f} MB are available"
            problem = f"{memory / 1e6:.0f} MB of memory are needed, but {found}."
            raise NoRoomError("this machine", problem, "Raise the stage's memory limit.")

    def run(self, argv: Sequence[str], timeout_s: float, cwd: Path | None = None) -> Path:
        """Run a program with a time limit; return its log."""
        log = self.scratch / f"{Path(argv[0]).name}.log"
        child.run(argv, log, timeout_s, self.env, cwd or self.scratch)
        return log


def _check_digest(uri: str, expected: Output, size: int, digest: str) -> None:
    if digest != expected.sha256:
        found = f"{size} bytes with sha256 {digest[:12]}…"
        said = f"{expected.bytes} bytes with sha256 {expected.sha256[:12]}…"
        problem = f"The file is damaged: {found}, but the manifest says {said}."
        raise BadInputError(f"{uri}/{expected.name}", problem, "Make the artifact again.")
