"""What starts the science: an event, a person, the clock. Each claims its attempt first, and hands every option through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hera.workflows import DAG, CronWorkflow, Parameter, Resource, Task, WorkflowTemplate
from hera.workflows.models import TemplateRef, WorkflowTemplateRef

from contimg_runs.pipelines import PROCESS_GROUP
from contimg_workflows import pods
from contimg_workflows.manifests import child
from contimg_workflows.pipelines import GROUP, GROUP_STAGES, STORE, asked, epoch, process_group
from contimg_workflows.runs import (
    VERSION,
    described,
    exit_handler,
    once,
    pipeline_template,
    store_parameter,
)
from contimg_workflows.stages import options_of, parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ATTEMPT = "{{inputs.parameters.attempt}}"
WORKFLOW = {"uid": "{{workflow.uid}}", "workflow": "{{workflow.name}}"}
AT_ONCE = 8
"""Workflows that one backfill or night has running at a time, at most; the semaphore says how many over all."""
WEEK_S = 7 * 86400
# Argo's init container writes the manifest to a /tmp that it has not, where roots are read-only; main writes it once more.
STAGING = """\
initContainers:
- name: init
  volumeMounts:
  - name: tmp-dir-argo
    mountPath: /tmp
    subPath: init
"""


def group() -> WorkflowTemplate:
    """One group, once: what an event starts. Another workflow that has the attempt is left to it."""
    science = asked(process_group())
    with pipeline_template("group", "Group", group.__doc__, of="group", alone="group") as template:
        with DAG(name="main", inputs=_inputs(science), retry_strategy=once()):
            claim = _command("claim", store=STORE, run=f"{GROUP}-a{ATTEMPT}", **WORKFLOW)
            process = _process(
                science, {}, when="{{tasks.claim.outputs.parameters.claimed}} == true"
            )
            claim.next(process)
        template.arguments = list(science.values())
        exit_handler("group", run="{{workflow.parameters.group}}-a{{workflow.parameters.attempt}}")
    return template


def reprocess() -> WorkflowTemplate:
    """One group again, as its next attempt: from a stage on, with other options; what was made before that stage is kept."""
    science = asked(process_group())
    kept = {
        f"{stage}-reuse": f"{{{{tasks.begin.outputs.parameters.{stage}}}}}"
        for stage in GROUP_STAGES[:-1]
    }
    wired = {"attempt": "{{tasks.begin.outputs.parameters.attempt}}", "report-reuse": "", **kept}
    form = {
        "store": science["store"],
        "group": science["group"],
        "from": _from_parameter(),
        **_options_of_science(),
    }
    with pipeline_template(
        "reprocess", "Process a group again", reprocess.__doc__, of="group", alone="group"
    ) as template:
        with DAG(name="main", inputs=_inputs(form), retry_strategy=once()):
            begin = _command(
                "begin", store=STORE, group=GROUP, first="{{inputs.parameters.from}}", **WORKFLOW
            )
            process = _process(science, wired)
            begin.next(process)
        template.arguments = list(form.values())
        exit_handler("reprocess", group="{{workflow.parameters.group}}")
    return template


def backfill() -> WorkflowTemplate:
    """Process the groups of some days, a workflow each, a few at a time."""
    select = _options_of_select()
    form = {
        "store": store_parameter(),
        **select,
        "from": _from_parameter(),
        **_options_of_science(),
    }
    free = [name for name in form if name not in {"first_day", "last_day"}]
    title = "Process the groups of some days"
    with pipeline_template(
        "backfill", title, backfill.__doc__, of="first_day", deadline_s=4 * WEEK_S
    ) as template:
        _spawn("chunk", "contimg-backfill-chunk", "contimg-backfill-", form)
        with DAG(
            name="main", inputs=_inputs(form), retry_strategy=once(), parallelism=2, fail_fast=False
        ):
            chosen = _command("select", **_through(["store", *select]))
            days = {"first_day": "{{item.first}}", "last_day": "{{item.last}}"}
            _for_each(chosen, "chunks", "chunk", {**_through(free), **days})
        template.arguments = list(form.values())
        exit_handler("backfill")
    return template


def backfill_chunk() -> WorkflowTemplate:
    """Process at most 80 groups, a workflow each. Backfill starts it for each chunk; a person may, too."""
    select = _options_of_select()
    science = {"store": store_parameter(), **_options_of_science()}
    form = {"store": science["store"], **select, "from": _from_parameter(), **science}
    of_run, attempt = (
        "{{=split(inputs.parameters.run, '-a')[0]}}",
        "{{=split(inputs.parameters.run, '-a')[1]}}",
    )
    title = "Process a few groups"
    with pipeline_template(
        "backfill-chunk", title, backfill_chunk.__doc__, of="first_day", deadline_s=2 * WEEK_S
    ) as template:
        new = {"group": of_run, "attempt": attempt}
        _spawn("new", "contimg-group", "contimg-backfill-", ["run", *science], new, kind="backfill")
        _spawn(
            "again",
            "contimg-reprocess",
            "contimg-backfill-",
            ["run", "from", *science],
            {"group": of_run},
            kind="backfill",
        )
        with DAG(
            name="main",
            inputs=_inputs(form),
            retry_strategy=once(),
            parallelism=AT_ONCE,
            fail_fast=False,
        ):
            chosen = _command("select", **_through(["store", *select]))
            # One of the two lists is empty; `when` would leave a skipped node for each group.
            given = {"run": "{{item}}", **_through(science)}
            _for_each(chosen, "new", "new", given)
            _for_each(chosen, "again", "again", {**given, **_through(["from"])})
        template.arguments = list(form.values())
        exit_handler("backfill-chunk")
    return template


def nightly() -> WorkflowTemplate:
    """Bring the fluxes of every Declination strip together, each by an epoch workflow of its own."""
    own = {"store", "strip", "epoch"}
    free = {
        name: one
        for name, one in asked(epoch()).items()
        if name not in own and not name.endswith("-reuse")
    }
    form = {
        "store": store_parameter(),
        "days": parameter("days", options_of("strips").model_fields["days"]),
        **free,
    }
    passed = ["store", *free]
    with pipeline_template("nightly", "The epochs of all strips", nightly.__doc__) as template:
        _spawn("epoch", "contimg-epoch", "contimg-epoch-", [*passed, "strip", "epoch"])
        with DAG(
            name="main", inputs=_inputs(form), retry_strategy=once(), parallelism=2, fail_fast=False
        ):
            strips = _command("strips", **_through(["store", "days"]))
            one = {"strip": "{{item.strip}}", "epoch": "{{item.epoch}}"}
            _for_each(strips, "strips", "epoch", {**_through(passed), **one})
        template.arguments = list(form.values())
        exit_handler("nightly")
    return template


def cron(name: str, schedule: str, text: str, parameters: Iterable[Parameter]) -> CronWorkflow:
    """Run a WorkflowTemplate by the clock, never twice at a time."""
    return CronWorkflow(
        name=f"contimg-{name}",
        labels=pods.labels(name, VERSION),
        annotations=described(f"contimg-{name}", text),
        schedules=[schedule],
        timezone="Etc/UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=300,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=5,
        workflow_template_ref=WorkflowTemplateRef(name=f"contimg-{name}"),
        arguments=list(parameters),
    )


def all_drivers() -> list[WorkflowTemplate]:
    """Return the pipelines that start others."""
    return [group(), reprocess(), backfill(), backfill_chunk(), nightly()]


def all_crons() -> list[CronWorkflow]:
    """Return what runs by the clock."""
    post = parameter("post", options_of("sweep").model_fields["post"])
    return [
        cron(
            "sweep",
            "*/10 * * * *",
            "Begin anew what events and accidents lost.",
            [store_parameter(), post],
        ),
        cron(
            "nightly",
            "30 15 * * *",
            "The light curves of all strips, when the Sun is up at the telescope.",
            [store_parameter()],
        ),
    ]


def _process(science: Iterable[str], wired: Mapping[str, str], when: str | None = None) -> Task:
    """Add the science of one group as a task."""
    reference = TemplateRef(name="contimg-process-group", template="main")
    return Task(
        name="process", template_ref=reference, arguments={**_through(science), **wired}, when=when
    )


def _command(command: str, **given: str) -> Task:
    """Add a task of one of our commands."""
    return Task(
        name=command,
        template_ref=TemplateRef(name=f"contimg-{command}", template="main"),
        arguments=given,
    )


def _for_each(lister: Task, found: str, template: str, given: Mapping[str, str]) -> None:
    """Add a task for each item of a list that another task found."""
    items = f"{{{{tasks.{lister.name}.outputs.parameters.{found}}}}}"
    lister.next(Task(name=template, template=template, with_param=items, arguments=dict(given)))


def _spawn(
    name: str,
    template: str,
    prefix: str,
    inputs: Iterable[str],
    given: Mapping[str, str] | None = None,
    *,
    kind: str = "",
) -> None:
    """Add a template that starts a workflow of another template and waits for its end.

    Parameters
    ----------
    inputs
        Of this template; all but `run` are the other's arguments.
    given
        The other's arguments that are no inputs: expressions.
    kind
        Semaphore that is held as long as the workflow runs.
    """
    names = list(inputs)
    passed: dict[str, str | None] = {one: None for one in names if one != "run"}
    Resource(
        name=name,
        inputs=[Parameter(name=one) for one in names],
        action="create",
        manifest=child(
            template,
            prefix,
            {**passed, **(given or {})},
            pods.labels(template.removeprefix("contimg-"), VERSION),
        ),
        success_condition="status.phase == Succeeded",
        failure_condition="status.phase in (Failed, Error)",
        synchronization=pods.semaphore(kind) if kind else None,
        labels=pods.labels("spawn", VERSION),
        pod_security_context=pods.walls()["pod_security_context"],
        pod_spec_patch=STAGING,
    )


def _options_of_science() -> dict[str, Parameter]:
    """Return every option of every stage of a group, but the artifacts that one run reuses."""
    own = {"store", "group", "attempt"}
    return {
        name: one
        for name, one in asked(process_group()).items()
        if name not in own and not name.endswith("-reuse")
    }


def _options_of_select() -> dict[str, Parameter]:
    """Return the options that say which groups are meant."""
    return {
        name: parameter(name, field)
        for name, field in options_of("select").model_fields.items()
        if name != "store"
    }


def _from_parameter() -> Parameter:
    field = options_of("begin").model_fields["first"]
    words = list(PROCESS_GROUP.order)
    return Parameter(
        name="from",
        value=words[0],
        enum=words,
        description=" ".join((field.description or "").split()),
    )


def _through(names: Iterable[str]) -> dict[str, str]:
    """Hand inputs on under their names."""
    return {name: f"{{{{inputs.parameters.{name}}}}}" for name in names}


def _inputs(names: Iterable[str]) -> list[Parameter]:
    return [Parameter(name=name) for name in names]
