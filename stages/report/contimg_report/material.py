"""What the page is made from: manifests, and the few files of an artifact that it shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from contimg.records.tables import read_parquet
from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import read_manifest

if TYPE_CHECKING:
    from contimg.records.images import SkyImage
    from contimg.runtime.context import Context
    from contimg.runtime.manifest import Manifest

STAGES = ("convert", "flag", "calibrate", "image", "photometry", "normalize", "variability")
"""In the order in which they run."""


@dataclass(frozen=True)
class Artifact:
    """One artifact and the way to its files."""

    uri: str
    manifest: Manifest
    context: Context

    @property
    def metrics(self) -> dict[str, Any]:
        """The stage's metrics."""
        return self.manifest.metrics

    @property
    def seconds(self) -> float:
        """How long the stage took."""
        return sum(self.manifest.seconds.values())

    def has(self, name: str) -> bool:
        """Say whether the artifact has a file."""
        return any(output.name == name for output in self.manifest.outputs)

    def json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Read a JSON file."""
        return json.loads(self.context.fetch(self.uri, name).read_bytes())

    def arrays(self, name: str) -> dict[str, np.ndarray[Any, Any]]:
        """Read a numpy archive."""
        with np.load(self.context.fetch(self.uri, name), allow_pickle=False) as archive:
            return dict(archive)

    def table(self, name: str) -> pa.Table:
        """Read a Parquet table."""
        return read_parquet(
            self.context.fetch(self.uri, name).read_bytes(), f"{self.uri}/{name}", "table"
        )

    def picture(self, name: str) -> SkyImage:
        """Read a FITS image."""
        from contimg.records.images import read_image

        return read_image(self.context.fetch(self.uri, name), f"{self.uri}/{name}")


def open_artifact(context: Context, uri: str, stage: str | None = None) -> Artifact:
    """Open an artifact.

    Raises
    ------
    BadInputError
        If it is of another stage than the option that named it.
    """
    manifest = read_manifest(uri)
    if stage is not None and manifest.stage != stage:
        raise BadInputError(
            uri,
            f"expected an artifact of {stage}, found one of {manifest.stage}.",
            f"Give it as --{manifest.stage}.",
        )
    return Artifact(uri, manifest, context)


def column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    """Return a column as numpy; nulls of numbers are NaN."""
    values = table[name]
    if pa.types.is_boolean(values.type) or pa.types.is_string(values.type):
        return np.array(values.to_pylist())
    # Not to_numpy: that imports pandas where it is installed (0.3 s).
    return np.array(values.to_pylist(), np.float64)
