"""Pipelines as data: their graph, and each way in which one may be wrong."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from contimg.runtime import stage
from contimg.runtime.errors import UsageError
from contimg.runtime.options import ArtifactURI, ArtifactURIs, StageOptions, Words
from contimg.runtime.pipeline import ALL_OTHERS, Parameter, Pipeline, Shortcut, Step
from contimg.runtime.stage import Resources, StageSpec


class FirstOptions(StageOptions):
    group: str
    tables: str
    size: int = 3


class NextOptions(StageOptions):
    ms: ArtifactURI
    words: Words = ()
    tier: str = "standard"


class PageOptions(StageOptions):
    artifacts: ArtifactURIs


MODELS = {"first": FirstOptions, "left": NextOptions, "right": NextOptions, "page": PageOptions}
SPECS = {
    name: StageSpec(name=name, options=model, resources=Resources(deadline_s=1, memory_mi=64))
    for name, model in MODELS.items()
}
STEPS = (
    Step("first", fixed={"group": "{group}"}),
    Step("left", {"ms": "first"}),
    Step("right", {"ms": "left"}, {"tier": "quick"}),
    Step("page", {"artifacts": ALL_OTHERS}),
)
PIPELINE = Pipeline(
    name="work",
    title="Work",
    description="For tests.",
    subject="group",
    products="products/{group}",
    parameters=(Parameter(name="group", description="The group."),),
    shortcuts=(Shortcut(name="tier", sets=("left.tier",)),),
    steps=STEPS,
)


@pytest.fixture(autouse=True)
def _stages_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "stage_specs", lambda: SPECS)


def with_steps(*steps: Step) -> Pipeline:
    return replace(PIPELINE, steps=steps, shortcuts=())


class TestGraph:
    def test_good_pipeline_passes(self) -> None:
        PIPELINE.check()

    @pytest.mark.parametrize("steps", [STEPS, STEPS[::-1]])
    def test_order_puts_sources_first(self, steps: tuple[Step, ...]) -> None:
        assert with_steps(*steps).order == ("first", "left", "right", "page")

    def test_all_others_are_the_steps_that_gather_nothing(self) -> None:
        assert PIPELINE.needs["page"] == ("first", "left", "right")
        assert PIPELINE.sources("page", "artifacts") == ("first", "left", "right")
        assert PIPELINE.sources("right", "ms") == ("left",)

    def test_before_and_after_follow_the_inputs(self) -> None:
        branch = with_steps(STEPS[0], STEPS[1], Step("right", {"ms": "first"}), STEPS[3])
        assert branch.after("left") == {"left", "page"}
        assert branch.after("first") == {"first", "left", "right", "page"}
        assert branch.before("right") == {"first"}
        assert branch.before("page") == {"first", "left", "right"}

    def test_wiring_fills_parameters_and_places(self) -> None:
        values = {"store": "s3://b", "group": "g"}
        assert PIPELINE.wired("first", values) == {
            "out": "s3://b/products/g/first",
            "tables": "s3://b/tables",
            "group": "g",
        }
        assert PIPELINE.wired("right", values) == {
            "out": "s3://b/products/g/right",
            "tier": "quick",
        }


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            (STEPS[0], Step("left", {"ms": "right"}), Step("right", {"ms": "left"})),
            "The steps form a cycle: (left → right → left|right → left → right).",
        ),
        ((*STEPS, Step("hello", {"ms": "first"})), "stage hello: There is no stage of this name;"),
        ((STEPS[0], Step("left", {"ms": "middle"})), "Step 'left' reads from 'middle', which is"),
        ((STEPS[0], Step("left")), "Step 'left' lacks its input 'ms'."),
        ((Step("first"),), "Step 'first' lacks its input 'group'."),
        ((*STEPS, STEPS[1]), "There are two steps 'left'."),
        ((STEPS[0], Step("left", {"image": "first"})), "Step 'left' has no option 'image'."),
        ((STEPS[0], Step("left", {"words": "first"})), "Option 'words' of step 'left' takes no"),
        ((STEPS[0], Step("left", {"ms": "first"}, {"ms": "x"})), "'ms' .* is in its inputs and"),
        ((STEPS[0], Step("left", {"ms": "first"}, {"tier": "{x}"})), "fixes 'tier' by {x}, no"),
    ],
)
def test_wrong_pipeline_is_refused(steps: tuple[Step, ...], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_steps(*steps).check()
    assert re.search(problem, str(caught.value)), str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("sets", "problem"), [("left.size", "not an option"), ("middle.tier", "no step 'middle'")]
)
def test_shortcut_to_nothing_is_refused(sets: str, problem: str) -> None:
    wrong = replace(PIPELINE, shortcuts=(Shortcut(name="size", sets=(sets,)),))
    with pytest.raises(UsageError, match=problem):
        wrong.check()


class TestOptions:
    @pytest.mark.parametrize(
        ("document", "problem"),
        [
            ({"middle": {}}, "There is no stage 'middle' in this pipeline; its stages are first,"),
            ({"left": {"colour": 1}}, "left --colour: there is no such option"),
            ({"left": {"colour": None}}, "left --colour: there is no such option"),
            ({"first": {"size": "many"}}, "first --size: Input should be a valid integer"),
            ({"left": {"ms": "elsewhere"}}, "The pipeline sets left.ms itself."),
            ({"right": {"tier": "deep"}}, "The pipeline sets right.tier itself."),
        ],
    )
    def test_wrong_options_are_refused(
        self, document: dict[str, dict[str, object]], problem: str
    ) -> None:
        with pytest.raises(UsageError, match=re.escape(problem)):
            PIPELINE.check_options(document)

    def test_right_and_empty_options_pass(self) -> None:
        PIPELINE.check_options({"first": {"size": 7}, "left": {"tier": "", "words": "a,b"}})

    def test_shortcuts_win_unless_they_are_empty(self) -> None:
        document = {"left": {"tier": "deep", "words": "a"}}
        given = PIPELINE.with_shortcuts(document, {"tier": "quick", "other": "x"})
        assert given == {"left": {"tier": "quick", "words": "a"}}
        assert PIPELINE.with_shortcuts(document, {"tier": ""}) == document
