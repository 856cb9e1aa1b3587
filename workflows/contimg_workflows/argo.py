"""The part of Argo's WorkflowTemplate that the local engine understands; any other field is refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from contimg.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping


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


class Backoff(_Part):
    """How long to wait before the next try."""

    duration: str
    factor: int
    cap: str


class RetryStrategy(_Part):
    """When to try again."""

    limit: str
    retry_policy: Literal["Always"]
    expression: str
    backoff: Backoff


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


class Dag(_Part):
    """Tasks and what they wait for."""

    tasks: tuple[Task, ...]


class Template(_Part):
    """A program or a DAG."""

    name: str
    inputs: Parameters = Parameters()
    outputs: Parameters = Parameters()
    container: Container | None = None
    dag: Dag | None = None
    retry_strategy: RetryStrategy | None = None
    active_deadline_seconds: int | None = None


class Spec(_Part):
    """The templates of a workflow, and the parameters that are asked for."""

    entrypoint: str
    templates: tuple[Template, ...]
    arguments: Parameters = Parameters()

    def template(self, name: str) -> Template:
        """Return a template by its name."""
        for template in self.templates:
            if template.name == name:
                return template
        raise BadInputError(
            f"template {name}", "a template of that name", ", ".join(t.name for t in self.templates), "Correct the reference."
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
        found = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        remedy = "Run it on Argo, or leave that out."
        raise BadInputError(name, "what the local engine understands", found, remedy) from error
