"""A DAG within a DAG, a condition and the workflow's own name, as contimg-group and contimg-reprocess use them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hera.workflows import DAG, Parameter, Task, WorkflowTemplate
from hera.workflows.models import TemplateRef

from contimg.runtime.errors import BadInputError
from contimg_workflows.compiled import Library
from contimg_workflows.pods import Needs
from contimg_workflows.render import rendered
from contimg_workflows.runs import once, pipeline_template, store_parameter
from contimg_workflows.stages import options_of, stage_template
from contimg_workflows.state import Status

if TYPE_CHECKING:
    from contimg_workflows.compiled import Workflow
    from contimg_workflows.state import RunState

CLAIM = "{{tasks.claim.outputs.parameters.claimed}} == true"
ID = "20260125t222605"


@pytest.fixture(scope="module")
def ours() -> Library:
    read = map(yaml.safe_load, rendered().values())
    return Library(one for one in read if one["kind"] == "WorkflowTemplate")


# What is compiled


def test_an_event_s_pipeline_claims_first(ours: Library) -> None:
    made = ours.workflow(
        "w", "contimg-group", {"store": "/s", "group": ID, "attempt": "2"}, uid="u"
    )
    stages = ["convert", "flag", "calibrate", "image", "photometry", "report"]
    assert list(made.jobs) == ["claim", *(f"process-{stage}" for stage in stages)]
    claim = made.jobs["claim"]
    assert claim.command(claim.values({})) == [
        "contimg",
        "claim",
        "--store=/s",
        "--uid=u",
        "--workflow=w",
        f"--run={ID}-a2",
    ]
    assert made.jobs["process-convert"].needs == {"claim"}
    assert made.jobs["process-flag"].needs == {"process-convert"}
    assert (
        made.jobs["process-flag"].arguments["ms"]
        == "{{tasks.process-convert.outputs.parameters.artifact}}"
    )
    assert {job.when for name, job in made.jobs.items() if name != "claim"} == {CLAIM}


def test_a_reprocessing_takes_what_begin_says(ours: Library) -> None:
    given = {"store": "/s", "group": ID, "from": "image", "image-tier": "quicklook"}
    made = ours.workflow("re-1", "contimg-reprocess", given)
    assert made.jobs["begin"].command(made.jobs["begin"].values({}))[3:] == [
        "--uid=local-re-1",
        "--workflow=re-1",
        f"--group={ID}",
        "--first=image",
    ]
    kept = {
        "begin": {
            "attempt": "3",
            "convert": "/s/c",
            "flag": "/s/f",
            "calibrate": "/s/k",
            "image": "",
            "photometry": "",
        }
    }
    convert = made.jobs["process-convert"].values(kept)
    assert (convert["group"], convert["reuse"]) == (f"/s/groups/{ID}-a3.json", "/s/c")
    image = made.jobs["process-image"].values(
        {**kept, **{f"process-{s}": {"artifact": s} for s in ("convert", "flag", "calibrate")}}
    )
    assert (image["reuse"], image["tier"], image["ms"]) == ("", "quicklook", "convert")


@pytest.mark.parametrize("name", ["contimg-backfill", "contimg-backfill-chunk", "contimg-nightly"])
def test_what_starts_other_workflows_is_refused_by_its_field(ours: Library, name: str) -> None:
    with pytest.raises(BadInputError, match=r"templates\.0\.resource"):
        ours.workflow("w", name, {})


def test_what_is_refused_keeps_nothing_else_from_running(ours: Library) -> None:
    assert list(ours.workflow("w", "contimg-watch", {"store": "/s"}).jobs) == ["main"]


# What runs: the tiny stage says "true" or not by what it hands over


def inner() -> WorkflowTemplate:
    with pipeline_template("inner", "Inner", "x", recorded=False) as template:
        with DAG(
            name="main",
            inputs=[Parameter(name="store"), Parameter(name="word")],
            retry_strategy=once(),
        ):
            given = {"out": "{{inputs.parameters.store}}/one", "word": "{{inputs.parameters.word}}"}
            one = _tiny("one", given)
            two = _tiny(
                "two",
                {**given, "out": "{{inputs.parameters.store}}/two", "source": _artifact("one")},
            )
            one >> two  # type: ignore[operator]
        template.arguments = [store_parameter(), Parameter(name="word")]
    return template


def outer(wanted: str) -> WorkflowTemplate:
    """Let `first` hand over whether it was cached, and run the inner DAG only if that is `wanted`."""
    with pipeline_template("outer", "Outer", "x", recorded=False) as template:
        with DAG(name="main", inputs=[Parameter(name="store")], retry_strategy=once()):
            first = _tiny(
                "first", {"out": "{{inputs.parameters.store}}/first", "word": "{{workflow.name}}"}
            )
            process = Task(
                name="process",
                template_ref=TemplateRef(name="contimg-inner", template="main"),
                arguments={"store": "{{inputs.parameters.store}}", "word": _artifact("first")},
                when=f"{{{{tasks.first.outputs.parameters.cached}}}} == {wanted}",
            )
            first >> process  # type: ignore[operator]
        template.arguments = [store_parameter()]
    return template


def _tiny(name: str, given: dict[str, str]) -> Task:
    return Task(
        name=name, template_ref=TemplateRef(name="contimg-tiny", template="main"), arguments=given
    )


def _artifact(task: str) -> str:
    return f"{{{{tasks.{task}.outputs.parameters.artifact}}}}"


def run(folder: Path, wanted: str) -> RunState:
    from tiny_bench import Bench

    tiny = stage_template("tiny", options_of("tiny"), "0", Needs(60, 64))
    library = Library(yaml.safe_load(one.to_yaml()) for one in (tiny, inner(), outer(wanted)))
    made: Workflow = library.workflow("w", "contimg-outer", {"store": str(folder / "s")})
    (state,) = Bench(folder).engine().run([made])
    return state


def test_a_condition_that_holds_lets_the_inner_tasks_run(tmp_path: Path) -> None:
    state = run(tmp_path, "false")
    assert {name: task.status for name, task in state.tasks.items()} == dict.fromkeys(
        ("first", "process-one", "process-two"), Status.DONE
    )
    words = Path(state.tasks["process-two"].outputs["artifact"]) / "word.txt"
    first = state.tasks["first"].outputs["artifact"]
    assert words.read_text() == f"{first} {first}"
    assert (Path(first) / "word.txt").read_text() == "w"


def test_one_that_does_not_skips_all_of_them_and_nothing_failed(tmp_path: Path) -> None:
    state = run(tmp_path, "true")
    assert state.status is Status.DONE
    assert {name: (task.status, task.reason) for name, task in state.tasks.items()} == {
        "first": (Status.DONE, ""),
        "process-one": (Status.SKIPPED, "first: cached is false"),
        "process-two": (Status.SKIPPED, "first: cached is false"),
    }
    # The second time `first` is found made, and the condition holds.
    again = run(tmp_path, "true")
    assert [task.status for task in again.tasks.values()] == [
        Status.CACHED,
        Status.DONE,
        Status.DONE,
    ]


def test_a_stage_that_reuses_is_cached_without_a_process(tmp_path: Path) -> None:
    from tiny_bench import Bench

    bench = Bench(tmp_path)
    bench.engine().run([bench.workflow()])
    (kept,) = (bench.store / "one" / "b").iterdir()
    ran = bench.ran()
    (state,) = bench.engine().run([bench.workflow(b_reuse=str(kept), b_times="7")])
    assert state.tasks["b"].outputs["artifact"] == str(kept)
    assert {task.status for task in state.tasks.values()} == {Status.CACHED}
    assert bench.ran() == ran


def test_real_commands_claim_once(tmp_path: Path, ours: Library) -> None:
    """The claim of contimg-group, by a real process of ours: the second workflow is told so, and does nothing."""
    from rich.console import Console

    from contimg_workflows.display import Display
    from contimg_workflows.engine import Engine

    (tmp_path / "s" / "groups").mkdir(parents=True)
    record = {
        "id": ID,
        "attempt": 1,
        "t0": "2026-01-25T22:26:05Z",
        "duration_s": 309.0,
        "dec_deg": 33.0,
        "subbands": [],
    }
    (tmp_path / "s" / "groups" / f"{ID}-a1.json").write_text(json.dumps(record))
    states = []
    for name in ("first", "second"):
        engine = Engine(
            tmp_path / "runs",
            Path(sys.executable).parent,
            os.environ,
            Display(Console(file=sys.stderr)),
            2,
        )
        work = ours.workflow(name, "contimg-group", {"store": str(tmp_path / "s"), "group": ID})
        (state,) = engine.run([work])
        states.append({task: (one.status, one.outputs) for task, one in state.tasks.items()})
    # A record without subbands is bad data for convert; what follows does not begin.
    assert states[0]["claim"] == (Status.DONE, {"claimed": "true"})
    assert states[0]["process-convert"][0] is Status.FAILED
    assert states[1]["claim"] == (Status.DONE, {"claimed": "false"})
    assert {one for task, one in states[1].items() if task != "claim" for one in one[:1]} == {
        Status.SKIPPED
    }
