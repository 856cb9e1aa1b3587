"""Tasks from pipelines: arguments, artifacts found without a process, claims, both engines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hera.workflows import WorkflowTemplate
from rich.console import Console

from contimg.runtime.errors import MEANING, BadInputError, Exit, UsageError, retry_of
from contimg.runtime.pipeline import Pipeline, Step
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import open_store
from contimg_runs.pipelines import EPOCH, PROCESS_GROUP
from contimg_runs.state import RunState, Status
from contimg_workflows import local, pods
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.forms import Form, find_form, pipeline_form, request_form
from contimg_workflows.local import record_end
from contimg_workflows.state import RunFolder
from contimg_workflows.tasks import LocalTask, backoff_s, steps_workflow, template_workflow
from contimg_workflows.templates import form_parameters, program_template, steps_dag

if TYPE_CHECKING:
    from tiny_bench import Bench

ID = "20260125t222605"
STEPS = PROCESS_GROUP.order
OTHERS = "catalogue=\nbeam=\ncalibrator=\nsolve="
"""The shortcuts of process-group that are not set."""


# Arguments


def test_process_group_steps_wait_for_claim() -> None:
    given = {"store": "/s", "group": ID, "attempt": "2", "tier": "quicklook", "profile": "deep"}
    made = template_workflow("w", "contimg-process-group", given)
    assert list(made.tasks) == ["claim", *(f"process-{stage}" for stage in STEPS)]
    claim = made.tasks["claim"]
    owner = ["--store=/s", "--uid=local-w", "--workflow=w", "--pipeline=process-group"]
    request = ["--options=", "--profile=deep", f"--set=tier=quicklook\n{OTHERS}", f"--run={ID}-a2"]
    assert claim.command(claim.values({})) == ["contimg", "claim", *owner, *request]
    assert made.tasks["process-convert"].needs == {"claim"}
    assert made.tasks["process-flag"].needs == {"process-convert"}
    artifacts = {f"process-{one}": {"artifact": f"/{one}"} for one in STEPS}
    claimed, options = {"claim": {"claimed": "true"}}, '{"flag": {}}'
    outputs = {**artifacts, "claim": {"claimed": "true", "options": options}}
    image = made.tasks["process-image"].values(outputs)
    assert (image["ms"], image["tier"], image["config"]) == ("/convert", "quicklook", options)
    assert image["out"] == f"/s/products/{ID}/image"
    assert not made.tasks["process-image"].skip_reason(claimed)
    refused = {"claim": {"claimed": "false"}}
    skipped = {name: task.skip_reason(refused) for name, task in made.tasks.items()}
    assert skipped.pop("claim") == ""
    assert set(skipped.values()) == {"claim: claimed is false"}


def test_reprocess_takes_attempt_and_options_from_begin() -> None:
    given = {"store": "/s", "group": ID, "from": "image", "tier": "quicklook"}
    made = template_workflow("re-1", "contimg-reprocess", given)
    begin = made.tasks["begin"]
    assert begin.command(begin.values({}))[3:] == [
        "--uid=local-re-1",
        "--workflow=re-1",
        "--pipeline=process-group",
        "--options=",
        "--profile=",
        f"--set=tier=quicklook\n{OTHERS}",
        f"--group={ID}",
        "--first=image",
    ]
    options = json.dumps({"convert": {"reuse": "/s/c"}})
    convert = made.tasks["process-convert"].values({"begin": {"attempt": "3", "options": options}})
    assert (convert["group"], convert["config"]) == (f"/s/groups/{ID}-a3.json", options)


def test_stage_or_command_is_one_task() -> None:
    image = template_workflow("w", "contimg-flag", {"ms": "/ms", "out": "/o"}).tasks["main"]
    assert image.command(image.values({}))[:2] == ["contimg-flag", "--out=/o"]
    watch = template_workflow("w", "contimg-watch", {"store": "/s"}).tasks["main"]
    assert watch.command(watch.values({}))[:3] == ["contimg", "watch", "--store=/s"]


@pytest.mark.parametrize("name", ["backfill", "backfill-chunk", "nightly"])
def test_driver_is_refused_locally(name: str) -> None:
    given = {"store": "/s", "first_day": "2026-01-01", "last_day": "2026-01-02"}
    known = {key: value for key, value in given.items() if key in find_form(name)}
    with pytest.raises(UsageError, match="starts other workflows, which the local engine does not"):
        template_workflow("w", f"contimg-{name}", known)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "Parameter 'store' is required"),
        ({"store": "s", "group": "g", "tire": "1"}, "There is no parameter 'tire'"),
        ({"store": "s", "group": "g", "tier": "best"}, "'best' is not one of quicklook, develop"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        template_workflow("w", "contimg-process-group", given)


def test_forms_have_at_most_12_fields() -> None:
    names = ["process-group", "epoch", "reprocess", "backfill", "nightly"]
    assert {name: len(find_form(name)) for name in names if len(find_form(name)) > 12} == {}
    tiers = ("", "quicklook", "development", "standard", "high_precision")
    assert find_form("process-group")["tier"].choices == tiers
    assert find_form("reprocess")["from"].choices == STEPS
    assert list(request_form(EPOCH)) == ["options", "profile"]


@pytest.mark.parametrize("name", sorted(stage_specs()))
def test_stage_form_matches_options(name: str) -> None:
    form = find_form(name)
    for key, field in stage_specs()[name].options.model_fields.items():
        assert form[key].description == " ".join((field.description or "").split())
        assert (form[key].default is None) is field.is_required()


# Cycles and missing inputs


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            (Step("flag", inputs={"ms": "image"}), Step("image", inputs={"ms": "flag"})),
            "The steps form a cycle: flag → image → flag",
        ),
        ((Step("flag"),), "Step 'flag' lacks its input 'ms'"),
        ((Step("flag", inputs={"ms": "convrt"}),), "reads from 'convrt', which is not a step"),
        ((Step("mosaic"),), "There is no stage of this name"),
    ],
)
def test_broken_pipeline_is_refused(steps: tuple[Step, ...], problem: str) -> None:
    texts = {"name": "p", "title": "", "description": "", "subject": "", "products": "x"}
    pipeline = Pipeline(**texts, parameters=(), steps=steps)
    with pytest.raises(UsageError, match=problem):
        pipeline.check()


# What was made before


def found(bench: Bench, **changes: str) -> dict[str, str] | None:
    task = bench.workflow().tasks["a"]
    return task.find_made({**task.values({}), **changes})


def test_artifact_is_found_unless_anything_changed(bench: Bench) -> None:
    (state,) = bench.engine().run([bench.workflow()])
    made = found(bench)
    assert made is not None
    assert made["artifact"] == state.tasks["a"].outputs["artifact"]
    assert float(made["seconds"]) == pytest.approx(state.tasks["a"].made_s)
    for changes in (
        {"word": "other"},
        {"source": "/nowhere/KEY"},
        {"times": "many"},
        {"do": "dance"},
        {"surprise": "1"},
        {"out": "/elsewhere"},
        {"config": "{a: {word: other, do: dance}}"},
        {"config": "a: b: c"},
    ):
        assert found(bench, **changes) is None, changes
    assert found(bench, config="{b: {do: data}}") == made
    artifact = Path(made["artifact"])
    (artifact / "manifest.json").write_text("{}")
    assert found(bench) is None
    again = bench.engine().run([bench.workflow()])[0].tasks["a"]
    # It does not count as made, and is not replaced: a person must look at it.
    assert again.tries[-1].exit == BadInputError.exit
    assert "manifest" in again.reason
    (artifact / "manifest.json").unlink()
    assert (artifact / "word.txt").exists()
    assert found(bench) is None


def test_artifacts_are_found_in_s3(bench: Bench, moto_root: str) -> None:
    workflow = bench.workflow("x", moto_root)
    task = workflow.tasks["a"]
    assert task.find_made(task.values({})) is None
    (state,) = bench.engine().run([workflow])
    artifact = state.tasks["d"].outputs["artifact"]
    assert artifact.startswith(f"{moto_root}/products/d/")
    assert open_store(artifact).read("word.txt") == b"a b a c d"
    (again,) = bench.engine().run([workflow])
    assert {task.status.value for task in again.tasks.values()} == {"cached"}


def test_reusing_stage_is_cached_without_process(bench: Bench) -> None:
    bench.engine().run([bench.workflow()])
    (kept,) = (bench.store / "one" / "products" / "b").iterdir()
    ran = bench.ran()
    (state,) = bench.engine().run([bench.workflow(b_reuse=str(kept), b_times="7")])
    assert state.tasks["b"].outputs["artifact"] == str(kept)
    assert {task.status for task in state.tasks.values()} == {Status.CACHED}
    assert bench.ran() == ran


# Both engines


def walk(bench: Bench, values: dict[str, str], folder: Path) -> dict[str, str]:
    """Run the steps as Argo would, from rendered templates alone; return the artifacts by task."""
    form: Form = {**pipeline_form(bench.pipeline)}
    with WorkflowTemplate(name="x", entrypoint="steps", arguments=form_parameters(form)) as made:
        steps_dag(bench.pipeline, form)
    (dag,) = yaml.safe_load(made.to_yaml())["spec"]["templates"]
    outputs: dict[str, dict[str, str]] = {}
    waiting = {task["name"]: task for task in dag["dag"]["tasks"]}

    def fill(text: str, inputs: dict[str, str]) -> str:
        known = {f"inputs.parameters.{name}": value for name, value in inputs.items()}
        for task, given in outputs.items():
            known |= {f"tasks.{task}.outputs.parameters.{name}": v for name, v in given.items()}
        return re.sub(r"\{\{(.*?)\}\}", lambda match: known[match[1]], text)

    while waiting:
        needs = {one: task.get("depends", "").split(" && ") for one, task in waiting.items()}
        name = next(one for one in waiting if {*filter(None, needs[one])} <= outputs.keys())
        task = waiting.pop(name)
        spec = bench.pipeline.specs[task["templateRef"]["name"].removeprefix("contimg-")]
        (main,) = yaml.safe_load(program_template(spec).to_yaml())["spec"]["templates"]
        inputs = {one["name"]: one["default"] for one in main["inputs"]["parameters"]}
        given = {one["name"]: one["value"] for one in task["arguments"]["parameters"]}
        assert given.keys() <= inputs.keys()
        inputs |= {one: fill(text, values) for one, text in given.items()}
        place = folder / name
        mine = {**os.environ, "CONTIMG_OUTPUTS": str(place), "CONTIMG_SCRATCH": str(folder / "s")}
        (program,) = main["container"]["command"]
        words = [fill(word, inputs) for word in main["container"]["args"]]
        argv = [str(bench.binaries / program), *words]
        subprocess.run(argv, check=True, env=mine, capture_output=True)
        paths = {one["name"]: one["valueFrom"]["path"] for one in main["outputs"]["parameters"]}
        assert {Path(path).parent.as_posix() for path in paths.values()} == {pods.OUTPUTS}
        outputs[name] = {one: (place / Path(path).name).read_text() for one, path in paths.items()}
    return {name: given["artifact"] for name, given in outputs.items()}


def test_local_engine_and_templates_agree(bench: Bench, tmp_path: Path) -> None:
    options = {"b": {"times": "3"}, "c": {"nap_s": "0.1"}}
    (state,) = bench.engine().run([bench.workflow("one", b_times="3", c_nap_s="0.1")])
    other = tmp_path / "other"
    walked = walk(bench, {"store": str(other), "options": json.dumps(options)}, tmp_path / "walk")
    assert list(walked) == [name for name in bench.pipeline.order if name in walked]
    # The keys hash options and inputs, and the marks' folder is not in them.
    mine = {name: Path(one.outputs["artifact"]).name for name, one in state.tasks.items()}
    assert {name: Path(uri).name for name, uri in walked.items()} == mine
    assert (Path(walked["d"]) / "word.txt").read_bytes() == b"a b a c d"


# Commands


def test_attempt_is_claimed_once(tmp_path: Path) -> None:
    (tmp_path / "s" / "groups").mkdir(parents=True)
    record = {"id": ID, "attempt": 1, "t0": "2026-01-25T22:26:05Z", "duration_s": 309.0}
    text = json.dumps({**record, "dec_deg": 33.0, "subbands": []})
    (tmp_path / "s" / "groups" / f"{ID}-a1.json").write_text(text)
    display, binaries = Display(Console(file=sys.stderr)), Path(sys.executable).parent
    states = []
    for name in ("first", "second"):
        engine = Engine(tmp_path / "runs", binaries, os.environ, display)
        given = {"store": str(tmp_path / "s"), "group": ID, "options": "{flag: {rfi: off}}"}
        (state,) = engine.run([template_workflow(name, "contimg-process-group", given)])
        states.append(state.tasks)
    # A record without subbands is bad data for convert; what follows does not begin.
    options = '{"flag":{"rfi":"off"}}'
    assert states[0]["claim"].outputs == {"claimed": "true", "options": options}
    assert states[0]["process-convert"].status is Status.FAILED
    assert states[1]["claim"].outputs == {"claimed": "false", "options": options}
    assert {task.status for name, task in states[1].items() if name != "claim"} == {Status.SKIPPED}


def ended_run(store: Path) -> tuple[RunFolder, RunState]:
    state = RunState(
        name="w",
        pipeline="contimg-process-group",
        arguments={"store": str(store), "group": ID, "attempt": "1"},
        started=datetime.now(UTC),
        status=Status.DONE,
        tasks={},
    )
    folder = RunFolder(store / "runs" / "w")
    folder.path.mkdir(parents=True)
    return folder, state


def test_record_end_returns_exit_code(tmp_path: Path) -> None:
    folder, state = ended_run(tmp_path)
    assert record_end(folder, state, os.environ) == Exit.USAGE
    assert "There is no record of this attempt" in (folder.path / local.EXIT_LOG).read_text()


def test_record_end_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "RECORD_TIMEOUT_S", 0.01)  # no Python starts so fast
    assert record_end(*ended_run(tmp_path), os.environ) == Exit.CHILD_TIMED_OUT


# The retry rule


def argo_would_retry(code: int, retries: int) -> bool:
    """Evaluate the expression as Argo does; its `&&`, `||` and `in` are those of Python."""
    text = str(pods.retry_strategy().expression).replace("&&", "and").replace("||", "or")
    names = {"asInt": int, "retries": str(retries), "exit_code": str(code)}
    text = text.replace("lastRetry.exitCode", "exit_code")
    return bool(eval(text, {"__builtins__": {}}, names))  # noqa: S307


@pytest.mark.parametrize("code", [*MEANING, 1, 3, 99])
def test_argo_retries_match_exit_table(code: int) -> None:
    for retries in range(6):
        assert argo_would_retry(code, retries) is (retries < retry_of(code).limit)
    limit = pods.retry_strategy().limit
    assert int(str(limit)) == max(rule.limit for _, rule in MEANING.values())


def test_backoff_doubles_up_to_cap() -> None:
    assert [backoff_s(tries) for tries in (1, 2, 3, 4, 5, 9)] == [10, 20, 40, 80, 120, 120]
    rules = {rule.backoff_s for _, rule in MEANING.values() if rule.limit}
    assert rules == {10.0}, "Argo knows one backoff a template"


def test_steps_workflow_has_no_command() -> None:
    made = steps_workflow("w", EPOCH, {"store": "/s", "strip": "33.0", "epoch": "e"}, "{}")
    assert list(made.tasks) == list(EPOCH.order)
    assert all(isinstance(task, LocalTask) and task.stage for task in made.tasks.values())
    assert made.tasks["normalize"].arguments["strip"] == "33.0"
