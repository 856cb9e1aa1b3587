"""The values: a closed schema that says what is wrong, a comment for each, a README that is made
from them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from charted import CHART, ROOT, VALUES, HelmError, helm, refusal, render

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()
DEFAULTS: dict[str, Any] = yaml.safe_load(TEXT)
NO_DEFAULTS = {"global"}
"""Helm adds it by itself."""
FREE = {
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
}
"""Terms of an affinity: the cluster's own schema knows them."""


def objects(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every part of the schema that describes a mapping."""
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield path, part
        for key, inner in part.items():
            yield from objects(inner, f"{path}/{key}")
    elif isinstance(part, list):
        for number, inner in enumerate(part):
            yield from objects(inner, f"{path}/{number}")


def followed(part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference of the schema."""
    if "$ref" in part:
        found: dict[str, Any] = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
        return found
    return part


def compared(values: Any, part: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield where the schema and the defaults have other keys."""
    part = followed(part)
    if isinstance(values, dict) and "properties" in part and values:
        yield from (
            f"{path}.{key} has no schema" for key in values.keys() - part["properties"].keys()
        )
        yield from (
            f"{path}.{key} has no default"
            for key in part["properties"].keys() - values.keys() - NO_DEFAULTS
        )
        for key in values.keys() & part["properties"].keys():
            yield from compared(values[key], part["properties"][key], f"{path}.{key}")


def test_the_schema_is_closed_everywhere() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    found = list(objects(SCHEMA))
    assert len(found) > 40
    assert [path for path, part in found if part.get("additionalProperties") is not False] == []


def test_each_value_has_a_type() -> None:
    leaves = [
        (path, followed(leaf), key)
        for path, part in objects(SCHEMA)
        for key, leaf in part.get("properties", {}).items()
    ]
    assert [
        (path, key)
        for path, leaf, key in leaves
        if key not in FREE and not {"type", "enum", "$ref"} & leaf.keys()
    ] == []


def test_schema_and_defaults_have_the_same_keys() -> None:
    # Resources may name fewer amounts than there are.
    assert [one for one in compared(DEFAULTS, SCHEMA) if ".resources." not in one] == []


def test_the_defaults_and_each_set_are_good_values() -> None:
    validator = Draft202012Validator(SCHEMA)
    for values in (DEFAULTS, *(yaml.safe_load(path.read_text()) for path in VALUES.glob("*.yaml"))):
        assert [error.message for error in validator.iter_errors(values)] == []


def test_the_readme_is_made_from_the_values() -> None:
    sys.path.insert(0, str(ROOT / "charts"))
    try:
        from readme import UndocumentedError, readme, rows
    finally:
        sys.path.pop(0)
    assert (CHART / "README.md").read_text() == readme(CHART), "run make render"
    found = {row.path: row for row in rows(TEXT)}
    assert found["store.uri"].text.endswith("Required.")
    assert found["watch.timeoutSeconds"].default == 900
    assert all(row.text.endswith((".", ")")) for row in found.values())
    with pytest.raises(UndocumentedError, match=r"^a$"):
        rows("a: 1  # -- beside\nb: 2\n")
    with pytest.raises(UndocumentedError, match=r"^a\.c$"):
        rows("a:\n  # -- Text.\n  b: 1\n  c: 2\n")
    (row,) = rows("a:\n  # -- One,\n  # and more.\n  b: x\n")
    assert (row.path, row.default, row.text) == ("a.b", "x", "One, and more.")


def test_the_generator_is_a_program(tmp_path: Any) -> None:
    for name in ("values.yaml", "README.head.md"):
        (tmp_path / name).write_text((CHART / name).read_text())
    subprocess.run([sys.executable, str(ROOT / "charts" / "readme.py"), str(tmp_path)], check=True)
    assert (tmp_path / "README.md").read_text() == (CHART / "README.md").read_text()


def value(path: str, what: Any) -> dict[str, Any]:
    *folders, last = path.split("/")
    made: dict[str, Any] = {last: what}
    for folder in reversed(folders):
        made = {folder: made}
    return made


@pytest.mark.helm
@pytest.mark.parametrize(
    ("path", "wrong", "says"),
    [
        ("stor", {"uri": "s3://a"}, "'stor' not allowed"),
        ("store/url", "s3://a", "'url' not allowed"),
        ("store/uri", "/data/store", "'/store/uri': '/data/store' does not match pattern"),
        ("store/uri", 5, "'/store/uri': got number, want string"),
        (
            "s3/endpoint",
            "s3.example.org:9000",
            "'/s3/endpoint': 's3.example.org:9000' does not match pattern",
        ),
        ("s3/endpoint", "https://s3.example.org/path", "does not match pattern"),
        ("s3/existingSecret", "Contimg S3", "'/s3/existingSecret'"),
        (
            "images/pullPolicy",
            "Sometimes",
            "value must be one of 'IfNotPresent', 'Always', 'Never'",
        ),
        ("images/pullSecrets", "one", "'/images/pullSecrets': got string, want array"),
        (
            "stages/convrt",
            {},
            "stages.convrt: there is no stage of this name; there are calibrate, convert",
        ),
        ("stages/convert/image/digest", "sha256:12", "'/stages/convert/image/digest'"),
        (
            "stages/convert/resources/limits/memory",
            "4G",
            "'/stages/convert/resources/limits/memory'",
        ),
        ("stages/convert/resources/limit", {}, "'limit' not allowed"),
        ("parameters/tier", [1], "'/parameters/tier'"),
        ("options/image", 5, "'/options/image': got number, want object"),
        ("options/image/size", {"a": 1}, "'/options/image/size': got object"),
        ("profiles/deep/image", [], "'/profiles/deep/image': got array, want object"),
        ("semaphores/casa", 0, "'/semaphores/casa': minimum: got 0, want 1"),
        ("semaphores/casa", "many", "'/semaphores/casa': got string, want integer"),
        ("watch/gapSeconds", 500, "'/watch/gapSeconds': maximum"),
        ("watch/subbandBytes", 1.5, "'/watch/subbandBytes'"),
        ("watch/service/port", 123456, "'/watch/service/port': maximum"),
        ("events/eventBus/kind", "kafka", "value must be one of 'exotic', 'jetstream'"),
        ("events/eventBus/exotic/url", "http://nats", "'/events/eventBus/exotic/url'"),
        ("events/eventBus/jetstream/replicas", 2, "value must be one of 1, 3, 5"),
        ("sweep/schedules", ["every night"], "'/sweep/schedules/0'"),
        ("sweep/schedules", [], "'/sweep/schedules': minItems"),
        ("nightly/enabled", "yes", "'/nightly/enabled': got string, want boolean"),
        ("serviceAccounts/names/watch", "Watch", "'/serviceAccounts/names/watch'"),
        ("networkPolicy/apiServerPorts", [], "'/networkPolicy/apiServerPorts': minItems"),
        ("pods/tolerations", [{"op": "Exists"}], "'op' not allowed"),
        ("pods/labels", {"a b": "c"}, "'a b' not allowed"),
        (
            "monitoring/serviceMonitor/interval",
            "half a minute",
            "'/monitoring/serviceMonitor/interval'",
        ),
        ("test/timeoutSeconds", 0, "'/test/timeoutSeconds': minimum"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(path: str, wrong: Any, says: str) -> None:
    assert says in refusal(value(path, wrong))


@pytest.mark.helm
@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"store": {"uri": ""}},
            "store.uri is empty: say where subbands arrive and results go, such as --set store.uri=s3://bucket/prefix",
        ),
        (
            value("events/eventBus/kind", "exotic"),
            "events.eventBus.exotic.url is empty: name the NATS server",
        ),
        (
            {"events": {"enabled": False}},
            "sweep starts groups by an event, but events.enabled is false: set sweep.enabled=false",
        ),
        (
            value("parameters", {"teir": "x"}),
            "parameters.teir: no pipeline has a parameter of this name",
        ),
        (
            value("options/imagee/tier", "quicklook"),
            "options.imagee: there is no stage of this name; there are calibrate, convert",
        ),
        (
            value("options/image/teir", "quicklook"),
            "options.image.teir: contimg-image has no option of this name",
        ),
        (
            value("profiles/deep/watch/size", 0),
            "profiles.deep.watch: there is no stage of this name",
        ),
        (
            value("profiles/deep/image/teir", 0),
            "profiles.deep.image.teir: contimg-image has no option of this name",
        ),
        (
            value("images/tag", "0.2.0"),
            "images.tag is 0.2.0, but this chart's templates are made for version 0.1.0",
        ),
        (
            value("stages/image/image/tag", "latest"),
            "stages.image.image.tag is latest, but this chart's templates are made for",
        ),
        (value("images/tag", "0.1.01"), "images.tag is 0.1.01, but"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_in_words(
    values: dict[str, Any], says: str
) -> None:
    assert says in " ".join(refusal(values).split())


@pytest.mark.helm
def test_nothing_said_at_all_asks_for_the_store() -> None:
    with pytest.raises(HelmError, match=r"store\.uri is empty"):
        helm("template", "contimg", str(CHART), "--kube-version=1.35.0")


@pytest.mark.helm
@pytest.mark.parametrize("tag", ["0.1.0", "0.1.0-7", "0.1.0_gabc"])
def test_a_tag_of_the_chart_s_version_is_taken(tag: str) -> None:
    assert render("minimal", **{"images.tag": tag})
