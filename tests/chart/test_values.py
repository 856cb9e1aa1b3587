"""The values: a closed schema that says what is wrong, a comment for each, a README that is made
from them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from charted import CHART, ROOT, VALUES, HelmError, helm, refusal, render

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()
DEFAULTS: dict[str, Any] = yaml.safe_load(TEXT)
NO_DEFAULTS = {"global"}
"""Helm adds it by itself."""
FREE = {f"{when}DuringSchedulingIgnoredDuringExecution" for when in ("required", "preferred")}
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
        given, known = values.keys(), part["properties"].keys()
        yield from (f"{path}.{key} has no schema" for key in given - known)
        yield from (f"{path}.{key} has no default" for key in known - given - NO_DEFAULTS)
        for key in given & known:
            yield from compared(values[key], part["properties"][key], f"{path}.{key}")


def test_schema_is_closed() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    found = list(objects(SCHEMA))
    assert len(found) > 40
    assert [path for path, part in found if part.get("additionalProperties") is not False] == []


def test_each_value_has_a_type() -> None:
    untyped = [
        (path, key)
        for path, part in objects(SCHEMA)
        for key, leaf in part.get("properties", {}).items()
        if key not in FREE and not {"type", "enum", "$ref"} & followed(leaf).keys()
    ]
    assert untyped == []


def test_schema_and_defaults_have_same_keys() -> None:
    # Resources may name fewer amounts than there are.
    assert [one for one in compared(DEFAULTS, SCHEMA) if ".resources." not in one] == []


def test_defaults_and_sets_are_valid() -> None:
    validator = Draft202012Validator(SCHEMA)
    sets = [yaml.safe_load(path.read_text()) for path in VALUES.glob("*.yaml")]
    for values in (DEFAULTS, *sets):
        assert [error.message for error in validator.iter_errors(values)] == []


def test_readme_is_made_from_values() -> None:
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


def test_generator_of_readme_is_program(tmp_path: Path) -> None:
    for name in ("values.yaml", "README.head.md"):
        (tmp_path / name).write_text((CHART / name).read_text())
    subprocess.run([sys.executable, str(ROOT / "charts" / "readme.py"), str(tmp_path)], check=True)
    assert (tmp_path / "README.md").read_text() == (CHART / "README.md").read_text()


ONE_OF = "value must be one of"
MEMORY = "stages/convert/resources/limits/memory"
NO_STAGE = "there is no stage of this name"
NO_OPTION = "contimg-image has no option of this name"
NO_URI, SET_URI = "store.uri is empty", "--set store.uri=s3://bucket/prefix"
NO_EVENTS = "sweep starts groups by an event, but events.enabled is false"
NO_URL = "events.eventBus.exotic.url is empty: name the NATS server"
OTHER = "this chart's templates are made for"


def value(path: str, what: Any) -> dict[str, Any]:
    first, _, rest = path.partition("/")
    return {first: value(rest, what) if rest else what}


@pytest.mark.helm
@pytest.mark.parametrize(
    ("path", "wrong", "says"),
    [
        ("stor", {"uri": "s3://a"}, "'stor' not allowed"),
        ("store/url", "s3://a", "'url' not allowed"),
        ("store/uri", "/data/store", "'/store/uri': '/data/store' does not match pattern"),
        *(
            ("store/uri", f"s3://bucket/{part}", "does not match pattern")
            for part in ("a?b", "a%20b", "a b", "{x}", "../a", "./a", "a//b")
        ),
        ("store/uri", 5, "'/store/uri': got number, want string"),
        ("s3/endpoint", "s3.org:9000", "'/s3/endpoint': 's3.org:9000' does not match pattern"),
        ("s3/endpoint", "https://s3.example.org/path", "does not match pattern"),
        ("s3/existingSecret", "Contimg S3", "'/s3/existingSecret'"),
        ("images/pullPolicy", "Sometimes", f"{ONE_OF} 'IfNotPresent', 'Always', 'Never'"),
        ("images/pullSecrets", "one", "'/images/pullSecrets': got string, want array"),
        ("stages/convrt", {}, f"stages.convrt: {NO_STAGE}; there are calibrate, convert"),
        ("stages/convert/image/digest", "sha256:12", "'/stages/convert/image/digest'"),
        (MEMORY, "4G", f"'/{MEMORY}'"),
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
        ("events/eventBus/kind", "kafka", f"{ONE_OF} 'exotic', 'jetstream'"),
        ("events/eventBus/exotic/url", "http://nats", "'/events/eventBus/exotic/url'"),
        ("events/eventBus/jetstream/replicas", 2, f"{ONE_OF} 1, 3, 5"),
        ("sweep/schedules", ["every night"], "'/sweep/schedules/0'"),
        ("sweep/schedules", [], "'/sweep/schedules': minItems"),
        ("nightly/enabled", "yes", "'/nightly/enabled': got string, want boolean"),
        ("serviceAccounts/names/watch", "Watch", "'/serviceAccounts/names/watch'"),
        ("networkPolicy/apiServerPorts", [], "'/networkPolicy/apiServerPorts': minItems"),
        ("pods/tolerations", [{"op": "Exists"}], "'op' not allowed"),
        ("pods/labels", {"a b": "c"}, "'a b' not allowed"),
        ("monitoring/serviceMonitor/interval", "soon", "'/monitoring/serviceMonitor/interval'"),
        ("test/timeoutSeconds", 0, "'/test/timeoutSeconds': minimum"),
    ],
)
def test_wrong_value_is_named(path: str, wrong: Any, says: str) -> None:
    assert says in refusal(value(path, wrong))


@pytest.mark.helm
@pytest.mark.parametrize(
    ("path", "wrong", "says"),
    [
        ("store/uri", "", f"{NO_URI}: say where subbands arrive and results go, such as {SET_URI}"),
        ("events/eventBus/kind", "exotic", NO_URL),
        ("events/enabled", False, f"{NO_EVENTS}: set sweep.enabled=false"),
        ("parameters/tier", "fast", 'parameters.tier: "fast" is not one of '),
        ("parameters/teir", "x", "parameters.teir: no pipeline has a parameter of this name"),
        ("options/imagee/tier", "x", f"options.imagee: {NO_STAGE}; there are calibrate, convert"),
        ("options/image/teir", "quicklook", f"options.image.teir: {NO_OPTION}"),
        ("profiles/deep/watch/size", 0, f"profiles.deep.watch: {NO_STAGE}"),
        ("profiles/deep/image/teir", 0, f"profiles.deep.image.teir: {NO_OPTION}"),
        ("images/tag", "0.2.0", f"images.tag is 0.2.0, but {OTHER} version 0.1.0"),
        ("stages/image/image/tag", "latest", f"stages.image.image.tag is latest, but {OTHER}"),
        ("images/tag", "0.1.01", "images.tag is 0.1.01, but"),
    ],
)
def test_inconsistent_values_are_refused(path: str, wrong: Any, says: str) -> None:
    assert says in " ".join(refusal(value(path, wrong)).split())


@pytest.mark.helm
def test_store_is_required() -> None:
    with pytest.raises(HelmError, match=r"store\.uri is empty"):
        helm("template", "contimg", str(CHART), "--kube-version=1.35.0")


@pytest.mark.helm
@pytest.mark.parametrize("tag", ["0.1.0", "0.1.0-7", "0.1.0_gabc"])
def test_tag_of_own_version_is_accepted(tag: str) -> None:
    assert render("minimal", **{"images.tag": tag})
