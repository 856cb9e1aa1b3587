"""The manifest that makes an artifact exist, and the key of the work that made it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.store import open_store, split

MANIFEST = "manifest.json"
KEY_LENGTH = 16


class Record(BaseModel):
    """The base of JSON files with fixed fields, written once and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(Record):
    """One thing that was read."""

    name: str
    """The option, or the role, that named it."""
    uri: str
    digest: str
    """sha256 of the object, or the artifact's digest."""


class Output(Record):
    """One object that was written."""

    name: str
    bytes: int
    sha256: str


class QA(Record):
    """The quality verdict of a product; a stage writes no product that fails."""

    verdict: Literal["good", "warning"] = "good"
    reasons: tuple[str, ...] = ()


class Usage(Record):
    """What making it took of the machine."""

    wall_s: float
    """From the start of the process, seconds."""
    cpu_s: float
    """Of the process and its children, on all cores, seconds."""
    peak_memory_bytes: int
    """Largest resident size of the process plus that of its largest child, without files in
    memory scratch."""

    @classmethod
    def measure(cls) -> Self:
        """Measure from the start of this process until now; children count once they have ended."""
        own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        # Not ru_maxrss: that includes what the process was before it became this program.
        status = Path("/proc/self/status").read_text()
        peak_kib = int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) + children.ru_maxrss
        # Field 22 of proc(5), counted from behind the name in brackets: clock ticks since boot.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        return cls(
            wall_s=round(up_s - ticks / os.sysconf("SC_CLK_TCK"), 3),
            cpu_s=round(cpu_s, 3),
            peak_memory_bytes=peak_kib * 1024,
        )


class Manifest(Record):
    """What was made, from what, how well and how long it took."""

    schema_version: Literal[1] = 1
    stage: str
    version: str
    key: str
    options: dict[str, Any]
    inputs: tuple[Input, ...]
    tools: dict[str, str]
    outputs: tuple[Output, ...]
    metrics: dict[str, Any]
    qa: QA
    seconds: dict[str, float]
    usage: Usage | None = None
    """None in artifacts that older versions made."""
    created: datetime

    @property
    def digest(self) -> str:
        """sha256 over the outputs' names and digests, without times and hosts."""
        return digest_json(sorted([output.name, output.sha256] for output in self.outputs))

    def output(self, name: str) -> Output:
        """Return one output; BadInputError if the artifact has none of that name."""
        for output in self.outputs:
            if output.name == name:
                return output
        names = ", ".join(output.name for output in self.outputs)
        problem = f"There is no {name}, " + (f"only {names}." if names else "it has no outputs.")
        where, remedy = f"{self.stage} artifact {self.key}", "Name an artifact of the right stage."
        raise BadInputError(where, problem, remedy)


def digest_json(value: object) -> str:
    """Return the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(uri: str) -> Manifest:
    """Read an artifact's manifest; BadInputError if the file is not one.

    MissingError if it does not exist: then there is no artifact, whatever other files are there.
    """
    try:
        data = open_store(uri).read(MANIFEST)
    except MissingError as error:
        problem = "There is no artifact here (a folder with manifest.json)."
        raise MissingError(uri, problem, "Run the stage that makes it.") from error
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = f"This is not a manifest: {error}."
        raise BadInputError(f"{uri}/{MANIFEST}", problem, "Make the artifact again.") from error


def artifact_input(name: str, uri: str) -> Input:
    """Describe an artifact as an input; its digest is that of its manifest."""
    return Input(name=name, uri=uri, digest=read_manifest(uri).digest)


def manifest_input(name: str, uri: str) -> Input:
    """Describe an artifact whose manifest is read, too: its key, metrics and verdict count."""
    found = read_manifest(uri)
    said = [found.key, found.digest, found.metrics, found.qa.model_dump(mode="json")]
    return Input(name=name, uri=uri, digest=digest_json(said))


def object_input(name: str, uri: str) -> Input:
    """Describe one small object as an input; it is read whole to digest it."""
    store, key = split(uri)
    return Input(name=name, uri=uri, digest=hashlib.sha256(store.read(key)).hexdigest())
