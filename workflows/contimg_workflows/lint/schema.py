"""Closed schemas: Hera's models for Argo's kinds, Kubernetes' own for core objects and pods."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import kubernetes_validate
from hera.events.models import Amount, EventSource, Int64OrString, K8SResource, Sensor
from hera.workflows.models import CronWorkflow, Workflow, WorkflowTemplate
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from contimg_workflows.lint.documents import Document

KUBERNETES = "1.35"
"""Version whose schemas are taken."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Exotic(_Closed):
    url: str
    accessSecret: dict[str, str] = {}  # noqa: N815 - Argo's name
    streamConfig: str = ""  # noqa: N815 - Argo's name


class _Bus(_Closed):
    jetstreamExotic: _Exotic | None = None  # noqa: N815 - Argo's name
    jetstream: dict[str, Any] | None = None


class EventBus(_Closed):
    """A bus of Argo Events by JetStream, native or not, of which Hera has no model."""

    apiVersion: Literal["argoproj.io/v1alpha1"]  # noqa: N815 - Kubernetes' name
    kind: Literal["EventBus"]
    metadata: dict[str, Any]
    spec: _Bus


MODELS: dict[str, type[BaseModel]] = {
    "WorkflowTemplate": WorkflowTemplate,
    "CronWorkflow": CronWorkflow,
    "Workflow": Workflow,
    "Sensor": Sensor,
    "EventSource": EventSource,
    "EventBus": EventBus,
}
EVENTS: tuple[type[BaseModel], ...] = (Sensor, EventSource)
EMBEDDED = "webhookContext"
"""A part that is written within its parent."""
ARGO = "argoproj.io/v1alpha1"


def has_schema(document: Document) -> bool:
    """Say whether a document's kind can be checked here."""
    if document.get("apiVersion") == ARGO:
        return document.get("kind") in MODELS
    try:
        kubernetes_validate.validate(document, KUBERNETES)
    except kubernetes_validate.SchemaNotFoundError:
        return False
    except (kubernetes_validate.ValidationError, KeyError):
        return True
    return True


def find_problems(document: Document) -> Iterator[str]:
    """Yield every unknown field and every value of the wrong kind."""
    model = MODELS.get(document.get("kind", "")) if document.get("apiVersion") == ARGO else None
    if model is None:
        yield from _core(document)
        return
    content = as_hera(document, model) if model in EVENTS else document
    found = list(unknown_fields(content, model))
    try:
        model.model_validate(content)
    except ValidationError as error:
        found += [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    yield from found
    if found or document["kind"] not in {"WorkflowTemplate", "Workflow"}:
        return
    for template in document["spec"].get("templates", []):
        if "container" in template:
            # What it asks of Kubernetes is checked as the pod that Argo makes of it.
            copied = {"volumes", "securityContext", "serviceAccountName"} & template.keys()
            spec = {key: template[key] for key in copied} | {"restartPolicy": "Never"}
            spec["containers"] = [{"name": "main", **template["container"]}]
            metadata = {"name": "x", **template.get("metadata", {})}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            yield from _core(pod, f"pod of {template['name']}: ")


def as_hera(value: Any, annotation: Any) -> Any:  # noqa: ANN401 - any part of YAML
    """Return a part of an events object as Hera's models have it, which follow Go's types."""
    model, inner = _types(annotation, type(value))
    if model is K8SResource or (
        model in {Amount, Int64OrString} and isinstance(value, int | float | str)
    ):
        return {}  # a resource is checked as what it is; a number or a duration is one word
    if isinstance(value, list):
        return [as_hera(part, inner) for part in value]
    if not isinstance(value, dict):
        return value
    if model is None:
        return {key: as_hera(part, inner) for key, part in value.items()}
    if model in EVENTS:
        value = {key: part for key, part in value.items() if key not in {"apiVersion", "kind"}}
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    if EMBEDDED in fields:
        value = {key: part for key, part in value.items() if key in fields} | {
            EMBEDDED: {key: part for key, part in value.items() if key not in fields}
        }
    return {key: as_hera(part, fields.get(key)) for key, part in value.items()}


def unknown_fields(value: Any, annotation: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401 - any part of YAML
    """Yield the path of every field that Hera's generated models do not know."""
    model, inner = _types(annotation, type(value))
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from unknown_fields(part, inner, f"{path}[{number}]")
    elif isinstance(value, dict) and model is not None and not issubclass(model, RootModel):
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        for key, part in value.items():
            if key not in fields:
                yield f"{path or '.'}: unknown field {key}"
            else:
                yield from unknown_fields(part, fields[key].annotation, f"{path}.{key}")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from unknown_fields(part, inner, f"{path}.{key}")


def _types(annotation: Any, kind: type) -> tuple[type[BaseModel] | None, Any]:  # noqa: ANN401 - typing's own
    """Return the model that a field holds, and what a list or dict (`kind`) in it holds."""
    if get_origin(annotation) in {Union, types.UnionType}:
        parts = [part for part in get_args(annotation) if part is not type(None)]
        annotation = parts[0] if len(parts) == 1 else annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, None
    return None, get_args(annotation)[-1] if get_origin(annotation) is kind else None


def _core(document: Document, where: str = "") -> Iterator[str]:
    """Check a core object, closed; `has_schema` tells which kinds are unknown here."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return
    except kubernetes_validate.ValidationError as error:
        yield f"{where}{'.'.join(map(str, error.path))}: {error.message}"
    except KeyError as error:
        yield f"{where}no {error}"
