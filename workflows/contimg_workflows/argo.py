"""The part of Argo's WorkflowTemplate that the local engine understands; any other field is refused by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping


RAMP = re.compile(
    r"containers:\n- name: main\n  resources:\n    limits:\n      memory: .*\n"
    r"volumes:\n- name: scratch\n  emptyDir:\n    sizeLimit: .*\n"
)
WHEN = r"^\{\{tasks\.(?P<task>[-\w]+)\.outputs\.parameters\.(?P<name>[-\w]+)\}\} == (?P<word>\w+)$"
"""The one condition that we use: a task handed over a word."""


def _ramp(text: str) -> str:
    if not RAMP.fullmatch(text):
        raise ValueError("only more memory for main and scratch is understood")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class ValueFrom(_Part):
    """Where an output parameter comes from."""

    path: str


class Parameter(_Part):
    """A parameter of a workflow, a template or a task."""

    name: str
    value: str | None = None
    default: str | None = None
    description: str = ""
    enum: tuple[str, ...] | None = None
    value_from: ValueFrom | None = None


class Parameters(_Part):
    """Inputs, outputs or arguments."""

    parameters: tuple[Parameter, ...] = ()


class Artifact(_Part):
    """A file that the Argo UI shows; here it stays where the stage left it."""

    name: str
    path: str
    optional: Literal[True]
    archive: dict[Literal["none"], dict[str, str]]
    s3: dict[Literal["key"], str]


class Outputs(Parameters):
    """What a template hands over."""

    artifacts: tuple[Artifact, ...] = ()


class EmptyDir(_Part):
    """A folder that a pod begins with empty; here the temporary folder serves."""

    medium: str = ""
    size_limit: str


class Volume(_Part):
    """A folder of a pod."""

    name: str
    empty_dir: EmptyDir


class Mount(_Part):
    """Where a folder appears."""

    name: str
    mount_path: str


class KeyRef(_Part):
    """An entry of a ConfigMap."""

    name: str
    key: str


class Semaphore(_Part):
    """How many pods of a kind run at a time; here `--jobs` bounds all."""

    config_map_key_ref: KeyRef


class Synchronization(_Part):
    """What a pod waits for."""

    semaphores: tuple[Semaphore, ...] = Field(min_length=1)


class Mutex(_Part):
    """A name that one workflow has at a time; here a lock keeps two engines from one run."""

    name: str


class Mutexes(_Part):
    """What a workflow waits for."""

    mutexes: tuple[Mutex, ...] = Field(min_length=1)


class Env(_Part):
    """A variable of a container's environment."""

    name: str
    value: str


class Resources(_Part):
    """What Kubernetes reserves; a process on a laptop takes what it needs."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class Container(_Part):
    """A program; its image means nothing here, where the stages are installed."""

    image: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: tuple[Env, ...] = ()
    resources: Resources = Resources()
    security_context: dict[str, Any] = {}
    """The walls of a pod; a process on a laptop has its user's."""
    volume_mounts: tuple[Mount, ...] | None = Field(default=None, min_length=1)


class Backoff(_Part):
    """How long to wait before the next try."""

    duration: str
    factor: int
    cap: str


class RetryStrategy(_Part):
    """When to try again."""

    limit: str
    retry_policy: Literal["Always"] | None = None
    expression: str
    backoff: Backoff | None = None


class TemplateRef(_Part):
    """A template of another WorkflowTemplate."""

    name: str
    template: str


class Task(_Part):
    """A node of a DAG."""

    name: str
    template_ref: TemplateRef
    arguments: Parameters = Parameters()
    depends: str = ""
    when: str = Field(default="", pattern=f"{WHEN}|^$")


class Dag(_Part):
    """Tasks and what they wait for."""

    tasks: tuple[Task, ...]


class Template(_Part):
    """A program or a DAG."""

    name: str
    inputs: Parameters = Parameters()
    outputs: Outputs = Outputs()
    container: Container | None = None
    dag: Dag | None = None
    retry_strategy: RetryStrategy | None = None
    active_deadline_seconds: int | None = None
    metadata: dict[Literal["labels"], dict[str, str]] = {}
    metrics: dict[str, Any] = {}
    security_context: dict[str, Any] = {}
    pod_spec_patch: Annotated[str, AfterValidator(_ramp)] | None = None
    synchronization: Synchronization | None = None
    volumes: tuple[Volume, ...] = ()


class Spec(_Part):
    """The templates of a workflow, and the parameters that are asked for."""

    entrypoint: str
    templates: tuple[Template, ...]
    arguments: Parameters = Parameters()
    on_exit: str | None = None
    """Argo's record of the workflow; the local engine keeps its own state."""
    active_deadline_seconds: int | None = None
    """Of the whole workflow; here a person looks on, and each task has its own."""
    pod_gc: dict[str, str] = Field(default={}, alias="podGC")
    synchronization: Mutexes | None = None
    ttl_strategy: dict[str, int] = {}
    workflow_metadata: dict[str, Any] = {}

    @model_validator(mode="after")
    def _exit_is_there(self) -> Spec:
        if self.on_exit is not None and self.on_exit not in {
            template.name for template in self.templates
        }:
            raise ValueError(f"spec.onExit: there is no template {self.on_exit}")
        return self

    def template(self, name: str) -> Template:
        """Return a template by its name."""
        for template in self.templates:
            if template.name == name:
                return template
        raise BadInputError(
            f"template {name}",
            f"expected a template of that name, found {', '.join(t.name for t in self.templates)}.",
            "Correct the reference.",
        )


class Metadata(_Part):
    """Name, labels and annotations."""

    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class WorkflowTemplate(_Part):
    """A workflow that can be run with arguments."""

    api_version: Literal["argoproj.io/v1alpha1"]
    kind: Literal["WorkflowTemplate"]
    metadata: Metadata
    spec: Spec


def read_template(document: Mapping[str, Any]) -> WorkflowTemplate:
    """Read a WorkflowTemplate.

    Raises
    ------
    BadInputError
        If it has a field or a value that the local engine does not understand, naming each.
    """
    try:
        return WorkflowTemplate.model_validate(document)
    except ValidationError as error:
        name = f"WorkflowTemplate {document.get('metadata', {}).get('name', '?')}"
        found = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        remedy = "Run it on Argo, or leave that out."
        raise BadInputError(
            name, f"expected what the local engine understands, found {found}.", remedy
        ) from error
