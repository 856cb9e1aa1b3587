"""A stage seen from outside: what it will read, and the name of its work."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from pydantic import Field

import toys
from contimg.runtime import versions
from contimg.runtime.errors import BadInputError, MissingError, UsageError
from contimg.runtime.manifest import MANIFEST, Input, Output
from contimg.runtime.options import ArtifactURI, ArtifactURIs, ObjectURI, StageOptions, Words
from contimg.runtime.stage import PLACES, Resources, StageSpec, stage_spec, stage_specs
from contimg.runtime.store import open_store


class TryOptions(StageOptions):
    ms: ArtifactURI | None = None
    images: ArtifactURIs = ()
    record: ObjectURI = ""
    model: ObjectURI | None = None
    tables: str = ""
    store: str | None = None
    calibrations: str = ""
    sigma: float = Field(default=3.0, gt=0)
    tier: str = "standard"
    loud: bool = False
    words: Words = ()


def rows(options: TryOptions) -> list[Input]:
    """Resolve what lies in the store, as calibrate and normalize do."""
    root = open_store(options.tables)
    return [
        Input(name="rows", uri=f"{options.tables}/{e.key}", digest=root.read(e.key).decode())
        for e in root.entries("rows/")
    ]


def spec(package: str = "contimg_normalize", **changes: Any) -> StageSpec:
    known = {"name": "try", "options": TryOptions, "tools": ("numpy",)}
    small = Resources(deadline_s=60, memory_mi=512)
    return StageSpec(**{"resources": small, "package": package, **known, **changes})


PLAIN = spec()
# sha256 of the two bytes {}
EMPTY_OBJECT = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def artifact(folder: Path, sha256: str) -> str:
    output = Output(name="a", bytes=1, sha256=sha256)
    made = toys.toy_manifest(key=folder.name, outputs=(output,))
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(made.model_dump_json())
    return str(folder)


def key(stage: StageSpec = PLAIN, /, **options: Any) -> str:
    given = TryOptions(**({"out": "o"} | options))
    return stage.key(given, stage.inputs(given))


class TestInputs:
    def test_inputs_are_named_by_their_options(self, tmp_path: Path) -> None:
        uris = [artifact(tmp_path / name, name * 64) for name in "abc"]
        (tmp_path / "r.json").write_bytes(b"{}")
        values: dict[str, Any] = {"ms": uris[0], "images": ",".join(uris[1:])}
        found = PLAIN.inputs(TryOptions(out="o", record=f"{tmp_path}/r.json", **values))
        names = ["ms", "images", "images", "record"]
        assert [item.name for item in found] == names
        assert [item.uri for item in found] == [*uris, f"{tmp_path}/r.json"]
        assert found[-1].digest == EMPTY_OBJECT
        assert len({item.digest for item in found}) == 4

    def test_option_not_given_is_no_input(self) -> None:
        assert PLAIN.inputs(TryOptions(out="o", tables="t", store="s")) == ()

    @pytest.mark.parametrize("option", ["ms", "images", "record", "model"])
    def test_missing_input_is_named(self, tmp_path: Path, option: str) -> None:
        with pytest.raises(MissingError, match="nowhere"):
            PLAIN.inputs(TryOptions(**{"out": "o", option: f"{tmp_path}/nowhere"}))

    def test_one_missing_artifact_is_named(self, tmp_path: Path) -> None:
        there = artifact(tmp_path / "a", "a" * 64)
        with pytest.raises(MissingError, match="gone"):
            PLAIN.inputs(TryOptions(out="o", images=(there, f"{tmp_path}/gone")))

    def test_bad_manifest_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / MANIFEST).write_text('{"stage": "toy"}')
        with pytest.raises(BadInputError, match="not a manifest"):
            PLAIN.inputs(TryOptions(out="o", ms=str(tmp_path)))

    def test_query_results_are_in_the_key(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "resolving.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path / "modules"))
        importlib.invalidate_caches()
        monkeypatch.setattr(importlib.import_module("resolving"), "rows", rows, raising=False)
        versions.module_path.cache_clear()
        asking, store = spec(resolver="resolving:rows"), open_store(str(tmp_path))
        empty = key(asking, tables=str(tmp_path))
        store.put("rows/1", b"one")
        one = key(asking, tables=str(tmp_path))
        store.put("rows/2", b"two")
        assert len({empty, one, key(asking, tables=str(tmp_path))}) == 3
        store.delete("rows/2")
        assert key(asking, tables=str(tmp_path)) == one

    def test_options_of_another_kind_are_refused(self) -> None:
        with pytest.raises(UsageError, match="not a subclass of StageOptions"):
            spec(options=dict)

    def test_resolver_without_function_is_refused(self) -> None:
        with pytest.raises(UsageError, match="is not written module:function"):
            spec(resolver="contimg.runtime.stage")


class TestKey:
    def test_key_is_16_hex_digits(self) -> None:
        assert len(key()) == 16
        assert set(key()) <= set("0123456789abcdef")

    @pytest.mark.parametrize(
        "change", [{"sigma": 3.5}, {"tier": "x"}, {"loud": True}, {"words": "a,b"}]
    )
    def test_option_of_content_changes_key(self, change: dict[str, Any]) -> None:
        assert key(**change) != key()

    @pytest.mark.parametrize("place", ["out", "tables", "store", "calibrations"])
    def test_option_of_place_leaves_key(self, place: str) -> None:
        assert place in PLACES
        assert key(**{place: "elsewhere"}) == key()

    def test_given_default_leaves_key(self) -> None:
        assert key(sigma="3", tier="standard") == key()

    def test_input_digest_but_not_uri_changes_key(self, tmp_path: Path) -> None:
        here, there = (artifact(tmp_path / place / "k", "a" * 64) for place in ("here", "there"))
        other = artifact(tmp_path / "other/k", "b" * 64)
        assert key(ms=here) == key(ms=there) == key(ms=here + "/")
        assert len({key(), key(ms=here), key(ms=other)}) == 3

    def test_role_of_input_changes_key(self, tmp_path: Path) -> None:
        uri = artifact(tmp_path / "a", "a" * 64)
        assert key(ms=uri) != key(images=(uri,))

    def test_order_of_artifacts_leaves_key(self, tmp_path: Path) -> None:
        first, second = (artifact(tmp_path / name, name * 64) for name in "ab")
        assert key(images=(first, second)) == key(images=(second, first)) != key(images=(first,))

    def test_order_of_inputs_leaves_key(self) -> None:
        pair = [Input(name=name, uri="", digest=name) for name in "ab"]
        assert PLAIN.key(TryOptions(out="o"), pair) == PLAIN.key(TryOptions(out="o"), pair[::-1])

    @pytest.mark.parametrize(
        "change",
        [{"name": "other"}, {"package": "contimg_flag"}, {"tools": ("numpy", "scipy")}],
        ids=str,
    )
    def test_name_code_and_tools_change_key(self, change: dict[str, Any]) -> None:
        assert key(spec(**change)) != key()

    def test_tool_version_changes_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = key()
        monkeypatch.setattr(versions, "tool_version", lambda _: "9.9")
        assert key() != before

    def test_key_is_the_same_in_another_process(self) -> None:
        code = (
            "from contimg_flag.options import STAGE as s\n"
            "from contimg.runtime.manifest import Input\n"
            "print(s.key(s.options(out='o', ms='m'), (Input(name='ms', uri='m', digest='1'),)))"
        )
        from contimg_flag.options import STAGE, FlagOptions

        # Sets and dicts are in another order for another seed of the hashes.
        env = {"PYTHONHASHSEED": "7", "PATH": os.environ["PATH"]}
        said = toys.run(sys.executable, "-c", code, env=env, check=True).stdout
        inputs = (Input(name="ms", uri="n", digest="1"),)
        assert said.strip() == STAGE.key(FlagOptions(out="elsewhere", ms="n"), inputs)


def test_stage_has_program_version_and_tools() -> None:
    assert PLAIN.program == "contimg-try"
    assert PLAIN.version == "0.1.0", "that of the distribution that holds the package"
    assert list(PLAIN.tool_versions()) == ["numpy"]


def test_stage_without_code_names_the_module() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"contimg\.records\.schemas\.stage"):
        resolve_name(f"{spec('contimg.records.schemas').module}:run")


class TestInstalledSpecs:
    """Entry points of distributions, each wrong in one way."""

    SPEC = 'StageSpec(name="hello", options=StageOptions, resources=R'

    def specs(self, tmp_path: Path, spec: str, name: str = "hello") -> Mapping[str, StageSpec]:
        info = tmp_path / "contimg_hello-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contimg-hello\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[contimg.stages]\n{name} = hello_spec:STAGE\n")
        code = (
            "from contimg.runtime.options import StageOptions\n"
            "from contimg.runtime.stage import Resources, StageSpec\n"
            f"R = Resources(deadline_s=1, memory_mi=64)\nSTAGE = {spec}\n"
        )
        (tmp_path / "hello_spec.py").write_text(code)
        return stage_specs.__wrapped__()

    @pytest.fixture(autouse=True)
    def _on_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "hello_spec", raising=False)

    def test_complete_spec_is_found(self, tmp_path: Path) -> None:
        specs = self.specs(tmp_path, f"{self.SPEC})")
        assert list(specs) == sorted(specs)
        assert specs["hello"].package == "contimg_hello"

    @pytest.mark.parametrize(
        ("spec", "name", "problem"),
        [
            ('StageSpec(name="hello", resources=R)', "hello", "missing .* argument: 'options'"),
            (f"{SPEC}, color=1)", "hello", "unexpected keyword argument 'color'"),
            ("StageOptions", "hello", "not a StageSpec"),
            (f"{SPEC})", "hallo", "The spec's name is 'hello'"),
            (f'{SPEC}, resolver="x")', "hello", "'x' is not written module:function"),
            (
                f'{SPEC}, semaphore="wscleen")',
                "hello",
                "'wscleen', not one of '', 'casa', 'wsclean'",
            ),
            (
                f'{SPEC}, image_level="cas")',
                "hello",
                "image_level is 'cas', not one of 'common', 'casa'",
            ),
            (
                "Resources(deadline_s=1, memory_mi=1, semaphore='casa')",
                "hello",
                "argument 'semaphore'",
            ),
            (
                SPEC.replace("=R", "=Resources(deadline_s=1, memory_mi=64, scratch_mi=65))"),
                "hello",
                "scratch_mi is 65; it is a part of memory_mi, which is 64",
            ),
        ],
    )
    def test_wrong_spec_is_one_clear_sentence(
        self, tmp_path: Path, spec: str, name: str, problem: str
    ) -> None:
        with pytest.raises(UsageError, match=problem) as caught:
            self.specs(tmp_path, spec, name)
        assert "\n" not in str(caught.value)

    def test_unknown_stage_lists_known_ones(self) -> None:
        with pytest.raises(UsageError, match=r"stage hallo: There is no stage .*convert, flag"):
            stage_spec("hallo")
