"""Manifests, digests and keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.manifest import (
    MANIFEST,
    QA,
    Input,
    Manifest,
    Output,
    artifact_input,
    manifest_input,
    object_input,
    read_manifest,
    work_key,
)

if TYPE_CHECKING:
    from pathlib import Path

ONE = Output(name="a", bytes=1, sha256="1")
TWO = Output(name="b", bytes=2, sha256="2")


def manifest(**changes: Any) -> Manifest:
    known: dict[str, Any] = {
        "stage": "toy",
        "version": "1",
        "key": "k",
        "options": {},
        "inputs": (),
        "tools": {},
        "outputs": (ONE, TWO),
        "metrics": {},
        "qa": QA(),
        "seconds": {},
        "created": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Manifest(**{**known, **changes})


def key(**changes: Any) -> str:
    known: dict[str, Any] = {
        "stage": "toy",
        "options": {"x": 1},
        "inputs": [Input(name="ms", uri="u", digest="d")],
        "code": "c",
        "tools": {"t": "1"},
    }
    return work_key(**{**known, **changes})


def test_the_digest_is_of_the_outputs_alone() -> None:
    same = manifest(
        outputs=(TWO, ONE),
        created=datetime(2027, 1, 1, tzinfo=UTC),
        seconds={"x": 1.0},
        key="other",
    )
    assert same.digest == manifest().digest
    assert manifest(outputs=(ONE,)).digest != manifest().digest


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "other"},
        {"options": {"x": 2}},
        {"inputs": []},
        {"inputs": [Input(name="ms", uri="u", digest="e")]},
        {"inputs": [Input(name="flags", uri="u", digest="d")]},
        {"code": "d"},
        {"tools": {"t": "2"}},
    ],
)
def test_whatever_the_bytes_depend_on_changes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_input_uri_leaves_key() -> None:
    assert key(inputs=[Input(name="ms", uri="elsewhere", digest="d")]) == key()


def test_input_order_leaves_key() -> None:
    pair = [Input(name="a", uri="", digest="1"), Input(name="b", uri="", digest="2")]
    assert key(inputs=pair) == key(inputs=pair[::-1])


def test_an_unknown_output_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match="There is no c, only a, b"):
        manifest().output("c")


def test_folder_without_manifest_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    with pytest.raises(MissingError, match=r"manifest\.json"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"stage": 1}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BadInputError, match="not a manifest"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("change", [{"metrics": {"n": 1}}, {"qa": QA(verdict="warning")}])
def test_metrics_and_verdict_count_where_the_manifest_is_read(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    found = []
    for made in (manifest(), manifest(seconds={"x": 1.0}), manifest(**change)):
        (tmp_path / MANIFEST).write_text(made.model_dump_json())
        found.append(manifest_input("artifacts", str(tmp_path)).digest)
    assert found[0] == found[1] != found[2]
    assert artifact_input("artifacts", str(tmp_path)).digest == manifest().digest


def test_inputs_are_described_by_digest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(manifest().model_dump_json())
    (tmp_path / "record.json").write_text("{}")
    assert artifact_input("ms", str(tmp_path)).digest == manifest().digest
    # sha256 of the two bytes {}
    assert object_input("g", f"{tmp_path}/record.json").digest.startswith("44136fa355b3678a")
