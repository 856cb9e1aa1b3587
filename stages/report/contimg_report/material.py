"""What the page is made from: manifests, and the few files of an artifact that it shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
        return read_parquet(self.context.fetch(self.uri, name).read_bytes(), f"{self.uri}/{name}")

    def picture(self, name: str) -> SkyImage:
        """Read a FITS image."""
        from contimg.records.images import read_image

        return read_image(self.context.fetch(self.uri, name), f"{self.uri}/{name}")


def open_artifacts(context: Context, uris: Iterable[str]) -> dict[str, Artifact]:
    """Open the artifacts of a page, by stage, in the order in which they were made.

    Raises
    ------
    BadInputError
        If two are of one stage, or some are of a group and some of a run over epochs.
    """
    found: dict[str, Artifact] = {}
    for uri in uris:
        manifest = read_manifest(uri)
        if manifest.stage in found:
            problem = f"There are two artifacts of {manifest.stage}: {uri} and {found[manifest.stage].uri}."
            raise BadInputError("--artifacts", problem, "Give one artifact of each stage.")
        found[manifest.stage] = Artifact(uri, manifest, context)
    if "convert" in found and {"normalize", "variability"} & found.keys():
        problem = "Some artifacts are of a group and some of a run over epochs."
        raise BadInputError("--artifacts", problem, "Give the artifacts of one or of the other.")
    if not {"convert", "normalize", "variability"} & found.keys():
        problem = f"There is neither a convert artifact nor one of normalize or variability among {', '.join(found)}."
        raise BadInputError("--artifacts", problem, "A group's page needs its convert artifact.")
    return dict(sorted(found.items(), key=lambda item: item[1].manifest.created))


def column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    """Return a column as numpy; nulls of numbers are NaN."""
    values = table[name]
    if pa.types.is_boolean(values.type) or pa.types.is_string(values.type):
        return np.array(values.to_pylist())
    # Not to_numpy: that imports pandas where it is installed (0.3 s).
    return np.array(values.to_pylist(), np.float64)
