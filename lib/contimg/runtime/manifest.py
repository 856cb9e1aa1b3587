"""The manifest that makes an artifact exist, and the key of the work that made it."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.record import Record
from contimg.runtime.store import open_store, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MANIFEST = "manifest.json"
KEY_LENGTH = 16


class Input(Record):
    """One thing that was read."""

    name: str
    """The option, or the role, that named it."""
    uri: str
    digest: str
    """sha256 of the object, or of the artifact's outputs."""


class Output(Record):
    """One object that was written."""

    name: str
    bytes: int
    sha256: str


class QA(Record):
    """Whether the stage vouches for its product; what it cannot vouch for it does not write."""

    verdict: Literal["good", "warning"] = "good"
    reasons: tuple[str, ...] = ()


class Usage(Record):
    """What making it took of the machine."""

    wall_s: float
    """From the start of the process, seconds."""
    cpu_s: float
    """Of the process and its children, on all cores, seconds."""
    peak_memory_bytes: int
    """Largest resident size of the process plus that of its largest child; files in memory scratch are not in it."""


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
        """sha256 over the outputs' names and digests; times and hosts do not enter it."""
        return digest_json(
            [[output.name, output.sha256] for output in sorted(self.outputs, key=lambda o: o.name)]
        )

    def output(self, name: str) -> Output:
        """Return one output; BadInputError if the artifact has none of that name."""
        for output in self.outputs:
            if output.name == name:
                return output
        found = ", ".join(output.name for output in self.outputs) or "nothing"
        raise BadInputError(
            f"{self.stage} artifact {self.key}",
            f"expected {name}, found {found}.",
            "Name an artifact of the right stage.",
        )


def digest_json(value: object) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def work_key(
    stage: str,
    options: Mapping[str, Any],
    inputs: Sequence[Input],
    code: str,
    tools: Mapping[str, str],
) -> str:
    """Return the key of a piece of work: the same key means the same bytes."""
    digests = sorted((item.name, item.digest) for item in inputs)
    whole = {
        "stage": stage,
        "options": dict(options),
        "inputs": digests,
        "code": code,
        "tools": dict(tools),
    }
    return digest_json(whole)[:KEY_LENGTH]


def read_manifest(uri: str) -> Manifest:
    """Read an artifact's manifest.

    Raises
    ------
    MissingError
        If there is none: the artifact does not exist, whatever files lie there.
    BadInputError
        If it is not a manifest.
    """
    try:
        data = open_store(uri).read(MANIFEST)
    except MissingError as error:
        raise MissingError(
            uri,
            "expected an artifact (a folder with manifest.json), found none.",
            "Run the stage that makes it.",
        ) from error
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BadInputError(
            f"{uri}/{MANIFEST}",
            f"expected a manifest, found {error!s}.",
            "Make the artifact again.",
        ) from error


def artifact_input(name: str, uri: str) -> Input:
    """Describe an artifact as an input; its digest stands in its manifest."""
    return Input(name=name, uri=uri, digest=read_manifest(uri).digest)


def object_input(name: str, uri: str) -> Input:
    """Describe one small object as an input; it is read whole to digest it."""
    store, key = split(uri)
    return Input(name=name, uri=uri, digest=hashlib.sha256(store.read(key)).hexdigest())
