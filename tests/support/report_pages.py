"""Artifacts and pages for the tests of the report."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chain import contimg
from contimg.runtime.manifest import QA, Manifest, Output
from contimg_report.artifacts import ReportArtifact


@dataclass(frozen=True)
class Run:
    """A run's artifacts."""

    normalize: str
    variability: str


@dataclass(frozen=True)
class FakeArtifact(ReportArtifact):
    """An artifact whose files are given as what reading them returns."""

    files: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name in self.files

    def read(self, name: str) -> Any:
        return self.files[name]

    arrays = table = image = read


def manifest(stage: str, metrics: dict[str, Any], *reasons: str, **changed: Any) -> Manifest:
    fields = {"version": "1", "key": "k" * 16, "options": {}, "inputs": (), "tools": {}}
    fields |= {"seconds": {"a": 1.0, "b": 2.5}, "created": datetime(2026, 1, 25, tzinfo=UTC)}
    qa = QA(verdict="warning" if reasons else "good", reasons=reasons)
    fields |= {"stage": stage, "outputs": (), "metrics": metrics, "qa": qa}
    return Manifest(**(fields | changed))


def artifact(
    stage: str, metrics: dict[str, Any], *reasons: str, files: dict[str, Any] | None = None
) -> FakeArtifact:
    made = manifest(stage, metrics, *reasons)
    return FakeArtifact(f"/nowhere/{stage}", made, context=None, files=files or {})  # type: ignore[arg-type]


def write_artifact(
    folder: Path, stage: str, metrics: dict[str, Any], files: dict[str, bytes], *reasons: str
) -> str:
    """Write an artifact of any stage, made now; return its URI."""
    place = folder / stage / ("k" * 16)
    place.mkdir(parents=True)
    outputs = []
    for name, data in files.items():
        (place / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        outputs.append(Output(name=name, bytes=len(data), sha256=digest))
    changed = {"outputs": tuple(outputs), "created": datetime.now(UTC)}
    made = manifest(stage, metrics, *reasons, **changed)
    (place / "manifest.json").write_text(made.model_dump_json())
    return str(place)


def make_report(out: Path, *artifacts: str, groups: tuple[str, ...] = ()) -> Path:
    """Make a page; return its path."""
    options = {"groups": ",".join(groups)} if groups else {}
    made = contimg("report", artifacts=",".join(artifacts), out=out, **options)
    return Path(made["artifact"]) / "report.html"


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
