"""The artifacts of a page, and the few of their files that it shows."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from contimg.records.images import SkyImage, read_image
from contimg.records.tables import read_parquet
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import Manifest, read_manifest
from contimg.runtime.store import split_scheme

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ReportArtifact:
    """One artifact and the way to its files."""

    uri: str
    manifest: Manifest
    context: Context

    @property
    def good(self) -> bool:
        """Whether the stage has no doubts about its product."""
        return self.manifest.qa.verdict == "good"

    def has(self, name: str) -> bool:
        """Say whether the artifact has a file."""
        return any(output.name == name for output in self.manifest.outputs)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return self.context.fetch(self.uri, name).read_bytes()

    def arrays(self, name: str) -> dict[str, Array]:
        """Read a numpy archive."""
        with np.load(io.BytesIO(self.read(name)), allow_pickle=False) as archive:
            return dict(archive)

    def table(self, name: str) -> pa.Table:
        """Read a Parquet table."""
        return read_parquet(self.read(name), f"{self.uri}/{name}")

    def image(self, name: str) -> SkyImage:
        """Read a FITS image."""
        return read_image(self.context.fetch(self.uri, name), f"{self.uri}/{name}")

    def link(self, name: str) -> str:
        """Return the URL of a file: relative to the page where both lie in one store."""
        uri = f"{self.uri.rstrip('/')}/{name}"
        (scheme, page), (other, file) = split_scheme(self.context.artifact), split_scheme(uri)
        same_bucket = scheme == other and page.split("/")[0] == file.split("/")[0]
        if {scheme, other} <= {"", "file"} or same_bucket:
            return quote(os.path.relpath(file, page))
        return f"{self.uri.rstrip('/')}/{quote(name)}"


def open_artifacts(context: Context, uris: Iterable[str]) -> dict[str, ReportArtifact]:
    """Open the artifacts of a page, by stage, in the order in which they were made.

    Raises
    ------
    BadInputError
        If two are of one stage, or of different groups.
    """
    found: dict[str, ReportArtifact] = {}
    groups: dict[str, str] = {}
    for uri in uris:
        manifest = read_manifest(uri)
        stage = manifest.stage
        if stage in found:
            problem = f"There are two artifacts of {stage}: {found[stage].uri} and {uri}."
            raise BadInputError("--artifacts", problem, "Give one artifact of each stage.")
        found[stage] = ReportArtifact(uri, manifest, context)
        if "group" in manifest.metrics:
            groups[str(manifest.metrics["group"])] = stage
    if len(groups) > 1:
        listed = ", ".join(f"{group} ({stage})" for group, stage in groups.items())
        problem = f"The artifacts are of different groups: {listed}."
        raise BadInputError("--artifacts", problem, "Give the artifacts of one group.")
    return dict(sorted(found.items(), key=lambda item: item[1].manifest.created))


def column(table: pa.Table, name: str) -> Array:
    """Return a column as numpy; nulls of numbers are NaN."""
    values = table[name]
    text = pa.types.is_boolean(values.type) or pa.types.is_string(values.type)
    # Not to_numpy: that imports pandas where it is installed (0.3 s).
    return np.array(values.to_pylist(), None if text else np.float64)
