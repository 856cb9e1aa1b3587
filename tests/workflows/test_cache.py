"""What the engine finds made without starting a process is what the stage itself would find."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, Field

from contimg.runtime.errors import BadInputError
from contimg.runtime.store import open_store
from contimg_workflows.cache import Cache
from contimg_workflows.stages import NEEDS, options_of, parameter, stage_of, word_of, words_of

if TYPE_CHECKING:
    from tiny_bench import Bench

    from contimg_workflows.compiled import Job


def values(bench: Bench, task: str = "a", **changes: str) -> tuple[Job, dict[str, str]]:
    job = bench.workflow().jobs[task]
    outputs = {name: {"artifact": ""} for name in "abcd"}
    return job, {**job.values(outputs), **changes}


def test_it_is_found_where_the_stage_put_it(bench: Bench) -> None:
    (state,) = bench.engine().run([bench.workflow()])
    found = Cache().find(*values(bench))
    assert found is not None
    assert found.artifact == state.tasks["a"].outputs["artifact"]
    assert found.seconds == pytest.approx(state.tasks["a"].made_s)


def test_a_hundred_looks_take_less_than_a_second_each(bench: Bench) -> None:
    bench.engine().run([bench.workflow()])
    begun = time.process_time()
    for _ in range(100):
        assert Cache().find(*values(bench)) is not None
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    "changes",
    [
        {"word": "other"},
        {"source": "/nowhere/KEY"},
        {"times": "many"},
        {"do": "dance"},
        {"surprise": "1"},
        {"out": "/elsewhere"},
    ],
)
def test_anything_else_is_left_to_the_stage(bench: Bench, changes: dict[str, str]) -> None:
    bench.engine().run([bench.workflow()])
    assert Cache().find(*values(bench, **changes)) is None


def test_files_without_a_manifest_are_no_artifact(bench: Bench) -> None:
    (state,) = bench.engine().run([bench.workflow()])
    artifact = Path(state.tasks["a"].outputs["artifact"])
    (artifact / "manifest.json").unlink()
    assert (artifact / "word.txt").exists()
    assert Cache().find(*values(bench)) is None


def test_a_damaged_manifest_is_left_to_the_stage(bench: Bench) -> None:
    (state,) = bench.engine().run([bench.workflow()])
    (Path(state.tasks["a"].outputs["artifact"]) / "manifest.json").write_text("{}")
    assert Cache().find(*values(bench)) is None
    again = bench.engine().run([bench.workflow()])[0].tasks["a"]
    # It is not taken for made, and not made again over it either: somebody has to look.
    assert again.tries[-1].exit == BadInputError.exit
    assert "not a manifest" in again.reason


def test_in_s3_too(bench: Bench, moto_root: str) -> None:
    def look() -> str | None:
        job = bench.library.workflow("x", "contimg-diamond", {"store": moto_root}).jobs["a"]
        found = Cache().find(job, {**job.values({}), "store": str(bench.store)})
        return found.artifact if found else None

    assert look() is None
    works = [bench.library.workflow("x", "contimg-diamond", {"store": moto_root, "a-nap_s": "0"})]
    (state,) = bench.engine().run(works)
    assert state.tasks["d"].outputs["artifact"].startswith(f"{moto_root}/d/")
    assert look() == state.tasks["a"].outputs["artifact"]
    words = [open_store(state.tasks["d"].outputs["artifact"]).read("word.txt")]
    assert words == [b"a b a c d"]
    (again,) = bench.engine().run(works)
    assert {task.status.value for task in again.tasks.values()} == {"cached"}


# Options as parameters


class Model(BaseModel):
    """Every kind of default."""

    text: str = "x"
    number: float = 0.05
    whole: int = 145348600
    yes: bool = True
    nothing: str | None = None
    words: tuple[str, ...] = ("a", "b")
    none: tuple[str, ...] = ()
    required: str = Field(description="Two\n  lines.")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("text", "x"),
        ("number", "0.05"),
        ("whole", "145348600"),
        ("yes", "true"),
        ("nothing", ""),
        ("words", "a,b"),
        ("none", ""),
    ],
)
def test_a_default_is_a_word(name: str, word: str) -> None:
    assert word_of(Model.model_fields[name].default) == word
    assert parameter(name, Model.model_fields[name]).value == word
    assert parameter(name, Model.model_fields[name], form=False).default == word


def test_what_is_required_has_no_default() -> None:
    made = parameter("required", Model.model_fields["required"])
    assert (made.value, made.default, made.description) == (None, None, "Two lines.")


def test_few_words_are_a_choice() -> None:
    assert words_of(Model.model_fields["yes"]) == ["true", "false"]
    assert words_of(Model.model_fields["text"]) is None


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_stage_is_known_by_its_program(name: str) -> None:
    stage = stage_of(f"contimg-{name}")
    if name == "watch":
        assert stage is None
    else:
        assert stage is not None
        assert (stage.program, stage.options) == (f"contimg-{name}", options_of(name))
