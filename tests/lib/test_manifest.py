"""Manifests and digests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime import manifest
from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.manifest import MANIFEST, QA, Output, read_manifest
from toys import toy_manifest

ONE = Output(name="a", bytes=1, sha256="1")
TWO = Output(name="b", bytes=2, sha256="2")
MADE = toy_manifest(outputs=(ONE, TWO))


def test_digest_is_of_the_outputs_alone() -> None:
    later = datetime(2027, 1, 1, tzinfo=UTC)
    same = toy_manifest(outputs=(TWO, ONE), created=later, seconds={"x": 1.0}, key="other")
    assert same.digest == MADE.digest
    assert toy_manifest(outputs=(ONE,)).digest != MADE.digest


def test_unknown_output_is_refused() -> None:
    with pytest.raises(BadInputError, match="There is no c, only a, b"):
        MADE.output("c")


def test_folder_without_manifest_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    with pytest.raises(MissingError, match=r"manifest\.json"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"stage": 1}'])
def test_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BadInputError, match="not a manifest"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("change", [{"metrics": {"n": 1}}, {"qa": QA(verdict="warning")}])
def test_manifest_input_counts_metrics_and_verdict(tmp_path: Path, change: dict[str, Any]) -> None:
    found = []
    for more in ({}, {"seconds": {"x": 1.0}}, change):
        made = toy_manifest(outputs=MADE.outputs, **more)
        (tmp_path / MANIFEST).write_text(made.model_dump_json())
        found.append(manifest.manifest_input("artifacts", str(tmp_path)).digest)
    assert found[0] == found[1] != found[2]
    assert manifest.artifact_input("artifacts", str(tmp_path)).digest == MADE.digest


def test_inputs_are_described_by_digest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(MADE.model_dump_json())
    (tmp_path / "record.json").write_text("{}")
    assert manifest.artifact_input("ms", str(tmp_path)).digest == MADE.digest
    # sha256 of the two bytes {}
    assert manifest.object_input("g", f"{tmp_path}/record.json").digest.startswith(
        "44136fa355b3678a"
    )
