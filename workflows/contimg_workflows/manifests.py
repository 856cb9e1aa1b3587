"""The Workflow that a resource template creates, as text: every value is put in as JSON, so that any word is safe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARK = "@@"


def child(
    template: str, prefix: str, given: Mapping[str, str | None], labels: Mapping[str, str]
) -> str:
    """Return the manifest of a workflow of a template.

    Parameters
    ----------
    given
        Its arguments; None: the input of the same name.
    """
    values = [
        {"name": name, "value": f"{_MARK}{_expression(name, text)}{_MARK}"}
        for name, text in given.items()
    ]
    whole = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": prefix, "labels": dict(labels)},
        "spec": {"workflowTemplateRef": {"name": template}, "arguments": {"parameters": values}},
    }
    text: str = yaml.safe_dump(whole, sort_keys=False, width=1000)
    return re.sub(rf"'?{_MARK}(.*?){_MARK}'?", _unquote, text)


def _expression(name: str, text: str | None) -> str:
    inner = (
        f"inputs.parameters['{name}']"
        if text is None
        else text.removeprefix("{{=").removesuffix("}}")
    )
    return f"{{{{=toJson({inner})}}}}"


def _unquote(match: re.Match[str]) -> str:
    # YAML doubles single quotes within single quotes.
    return match[1].replace("''", "'")
