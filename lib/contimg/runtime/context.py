"""What a running stage may do: read inputs, write outputs, publish tables, run children, say how far it is."""

from __future__ import annotations

import io
import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from contimg.runtime import child
from contimg.runtime.errors import BadInputError, NoRoomError
from contimg.runtime.manifest import QA, Input, Manifest, Output, read_manifest
from contimg.runtime.store import copy_digest, fetch_file, open_store, split
from contimg.runtime.tar import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from contimg.records.tables import Schema

MEMORY_SPARE = 1 << 30
"""Bytes of memory that scratch in memory leaves free."""


@dataclass(frozen=True)
class StageResult:
    """What a stage says of its work."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Numbers for people and dashboards; JSON, units in the names."""
    qa: QA = field(default_factory=QA)


class Context:
    """One run of a stage."""

    def __init__(
        self,
        artifact: str,
        scratch: Path,
        inputs: Sequence[Input],
        env: Mapping[str, str],
        progress: Progress | None = None,
    ) -> None:
        self.artifact = artifact
        """URI of the artifact being made."""
        self.scratch = scratch
        """An empty folder for heavy files; gone when the stage ends."""
        self.inputs = tuple(inputs)
        """Everything that the stage may read, with digests."""
        self.log = logging.getLogger("contimg")
        self.outputs: list[Output] = []
        self.seconds: dict[str, float] = {}
        self._env = dict(env)
        self._store = open_store(artifact)
        self._progress = progress

    # Reading

    def manifest(self, uri: str) -> Manifest:
        """Read the manifest of an input artifact."""
        return read_manifest(uri)

    def named(self, name: str) -> list[Input]:
        """Return the resolved inputs of one name, such as what a query on the store found."""
        return [item for item in self.inputs if item.name == name]

    def fetch(self, uri: str, name: str) -> Path:
        """Copy one file of an artifact into scratch and check its digest; return its path."""
        expected = read_manifest(uri).output(name)
        self.need(expected.bytes)
        path = self.scratch / "inputs" / uri.rstrip("/").rpartition("/")[2] / name
        if not path.exists():
            found = fetch_file(open_store(uri), name, path)
            if found[1] != expected.sha256:
                path.unlink()  # or the next fetch would take it for a checked one
            self._check(uri, expected, *found)
        return path

    def fetch_tree(self, uri: str, name: str) -> Path:
        """Unpack a tar of an artifact (an MS or caltable) into scratch and check its digest; return the folder."""
        expected = read_manifest(uri).output(name)
        self.need(expected.bytes)
        into = self.scratch / "inputs" / uri.rstrip("/").rpartition("/")[2]
        into.mkdir(parents=True, exist_ok=True)
        with open_store(uri).open(name) as source:
            through = _DigestReader(source)
            folder = unpack(through, into)  # type: ignore[arg-type]
            through.drain()
        self._check(uri, expected, through.size, through.sha256)
        return folder

    def read(self, uri: str) -> bytes:
        """Read one small object."""
        store, key = split(uri)
        return store.read(key)

    # Writing

    def write(self, name: str, content: bytes | Path) -> Output:
        """Write one file of the artifact."""
        # The source first: in the writer's hands its errors would count as the store's.
        with (
            content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as source,
            self._store.writer(name) as sink,
        ):
            size, digest = copy_digest(source, sink)
        return self._record(name, size, digest)

    def write_tree(self, name: str, folder: Path) -> Output:
        """Write a folder as one tar of the artifact."""
        with self._store.writer(name) as sink:
            size, digest = pack(folder, sink)
        return self._record(name, size, digest)

    def write_table(self, name: str, schema: Schema, rows: pa.Table | Mapping[str, Any]) -> Output:
        """Write a Parquet table of the artifact."""
        return self.write(name, schema.to_bytes(rows))

    def publish(
        self, tables: str, schema: Schema, day: str, unit: str, rows: pa.Table | Mapping[str, Any]
    ) -> None:
        """Put rows where queries find them: ``TABLES/NAME/date=DAY/UNIT.parquet``; the same unit again replaces itself."""
        open_store(tables).put(f"{schema.name}/date={day}/{unit}.parquet", schema.to_bytes(rows))

    @property
    def key(self) -> str:
        """The key of the work: the last part of the artifact's URI."""
        return self.artifact.rstrip("/").rpartition("/")[2]

    def relative_uri(self, tables: str) -> str:
        """Return the artifact's URI as tables name it: relative to the folder that holds them, so that a store may be moved.

        An artifact that lies elsewhere keeps its whole URI.
        """
        holds = tables.rstrip("/").rpartition("/")[0]
        return self.artifact.removeprefix(f"{holds}/") if holds else self.artifact

    # Doing

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; the seconds go into the manifest."""
        self.log.info("%s", name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def progress(self, done: int, total: int) -> None:
        """Say how far the stage is."""
        if self._progress is not None:
            self._progress.show(done, total)

    def need(self, room: int, memory: int = 0) -> None:
        """Refuse early if scratch has not `room` bytes or the machine not `memory` bytes.

        Raises
        ------
        NoRoomError
            Naming the folder and the numbers.
        """
        free = shutil.disk_usage(self.scratch).free
        in_memory = _is_memory(self.scratch)
        if in_memory:
            free = min(free, available_memory() - MEMORY_SPARE)
            memory = memory + room if memory else 0
        if free < room:
            remedy = "Free space, or point CONTIMG_SCRATCH to a larger disk."
            raise NoRoomError(
                str(self.scratch),
                f"expected {room / 1000000.0:.0f} MB free, found {free / 1000000.0:.0f} MB.",
                remedy,
            )
        if memory and available_memory() < memory:
            found = f"{available_memory() / 1e6:.0f} MB"
            raise NoRoomError(
                "this machine",
                f"expected {memory / 1000000.0:.0f} MB of memory, found {found}.",
                "Give the stage more memory.",
            )

    def run(self, argv: Sequence[str], timeout_s: float, cwd: Path | None = None) -> Path:
        """Run a program with a time limit; return its log."""
        log = self.scratch / f"{Path(argv[0]).name}.log"
        child.run(argv, log, timeout_s, self._env, cwd or self.scratch)
        return log

    def call(self, function: str, timeout_s: float, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Call ``module:function`` in a child Python that has CASA configured offline; arguments and result are JSON."""
        log = self.scratch / "casa.log"
        return child.call(function, arguments, log, timeout_s, self._casa_env())

    def _casa_env(self) -> dict[str, str]:
        from contimg.astro.measures import (
            casa_environment,
        )  # needs casadata, which only some stages have

        return casa_environment(self._env)

    def _record(self, name: str, size: int, digest: str) -> Output:
        output = Output(name=name, bytes=size, sha256=digest)
        self.outputs = [item for item in self.outputs if item.name != name] + [output]
        return output

    def _check(self, uri: str, expected: Output, size: int, digest: str) -> None:
        if digest != expected.sha256:
            found = f"{size} bytes, sha256 {digest[:12]}…"
            wanted = f"{expected.bytes} bytes, sha256 {expected.sha256[:12]}…"
            raise BadInputError(
                f"{uri}/{expected.name}",
                f"expected {wanted}, found {found}.",
                "The store's copy is damaged; make the artifact again.",
            )


class Progress:
    """Where progress is shown; the contract gives one for terminals, one for logs and one for Argo."""

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` is done."""


class _DigestReader:
    def __init__(self, source: IO[bytes]) -> None:
        import hashlib

        self._source, self._digest, self.size = source, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._digest.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def available_memory() -> int:
    """Return the bytes of memory that a new program could get: the machine's, or less if a control group says so."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def _is_memory(path: Path) -> bool:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(len(point), kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(inside)[1] in {"tmpfs", "ramfs"} if inside else False
