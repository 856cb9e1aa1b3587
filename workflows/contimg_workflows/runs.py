"""What every workflow of ours has: an end that is recorded, a title, a deadline, and a time after which it is cleared away."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from hera.workflows import DAG, Parameter, Task, WorkflowTemplate
from hera.workflows.models import (
    LabelValueFrom,
    Mutex,
    PodGC,
    RetryStrategy,
    Synchronization,
    TemplateRef,
    TTLStrategy,
    WorkflowMetadata,
)

from contimg_workflows.pods import labels

VERSION = version("contimg")
HOUR_S, DAY_S = 3600, 86400
EXIT = "exit"
"""The template that runs last, whatever happened."""


def run_settings(*, deadline_s: int = DAY_S) -> dict[str, Any]:
    """Return how long a workflow may take, and how long it and its pods stay to be looked at."""
    return {
        "active_deadline_seconds": deadline_s,
        "ttl_strategy": TTLStrategy(
            seconds_after_success=3 * DAY_S, seconds_after_failure=14 * DAY_S
        ),
        "pod_gc": PodGC(strategy="OnPodCompletion", delete_delay_duration="600s"),
    }


def pipeline_template(
    name: str,
    title: str,
    text: str | None,
    *,
    of: str = "",
    alone: str = "",
    deadline_s: int = DAY_S,
    recorded: bool = True,
) -> WorkflowTemplate:
    """Begin the template of a pipeline.

    Parameters
    ----------
    of
        Parameter that its runs are about.
    alone
        Parameter of which no two workflows with the same value run at a time: their rows lie in the same files.
    """
    # First, since Argo's list of workflows cuts titles after some twenty letters.
    about = f"{{{{workflow.parameters.{of}}}}}: " if of else ""
    marked = (
        {f"contimg/{of}": LabelValueFrom(expression=f"workflow.parameters.{of}")} if of else None
    )
    return WorkflowTemplate(
        name=f"contimg-{name}",
        entrypoint="main",
        labels=labels(name, VERSION),
        annotations=described(f"contimg-{name}: {title}", text),
        workflow_metadata=WorkflowMetadata(
            labels={**labels(name, VERSION), "contimg/pipeline": name},
            annotations={"workflows.argoproj.io/title": f"{about}{title}"},
            labels_from=marked,
        ),
        on_exit=EXIT if recorded else None,
        synchronization=_alone(alone) if alone else None,
        **run_settings(deadline_s=deadline_s),
    )


def _alone(parameter: str) -> Synchronization:
    return Synchronization(mutexes=[Mutex(name=f"contimg-{{{{workflow.parameters.{parameter}}}}}")])


def described(title: str, text: str | None) -> dict[str, str]:
    """Return what the Argo UI shows beside a name."""
    return {
        "workflows.argoproj.io/title": title,
        "workflows.argoproj.io/description": " ".join((text or "").split()),
    }


def once() -> RetryStrategy:
    """Return what an entrypoint has: its tasks are tried again, it is not."""
    return RetryStrategy(limit="0", expression="false")


def exit_handler(pipeline: str, *, run: str = "", group: str = "") -> None:
    """Add the template that records how the workflow ended; within a WorkflowTemplate's context."""
    given = {
        "store": "{{workflow.parameters.store}}",
        "uid": "{{workflow.uid}}",
        "workflow": "{{workflow.name}}",
        "run": run,
        "group": group,
        "pipeline": pipeline,
        "status": "{{workflow.status}}",
        "failures": "{{workflow.failures}}",
    }
    with DAG(name=EXIT):
        Task(
            name="record",
            template_ref=TemplateRef(name="contimg-record", template="main"),
            arguments=given,
        )


def store_parameter() -> Parameter:
    """Return the parameter that every pipeline has."""
    return Parameter(
        name="store", description="Root URI of the store: s3://bucket/prefix or a directory."
    )
