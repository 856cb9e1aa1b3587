"""Every argument of a container is an option of its program, and every required option is given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from contimg.runtime.options import flag
from contimg_workflows.stages import COMMANDS, NEEDS, options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contimg_workflows.lint.library import Document, Library

_ARGUMENT = re.compile(r"(?P<flag>--[-\w]+)=\{\{inputs\.parameters\.(?P<name>[-\w]+)\}\}")


def problems(document: Document, _library: Library) -> Iterator[str]:
    """Yield every word of a command line that its program does not take, and every one that it lacks."""
    for template in (
        document.get("spec", {}).get("templates", [])
        if document["kind"] == "WorkflowTemplate"
        else ()
    ):
        if "container" in template:
            yield from _container(template["container"])


def _container(container: Document) -> Iterator[str]:
    command = container.get("command") or ["?"]
    program, name = " ".join(command), command[-1].removeprefix("contimg-")
    if name not in {*NEEDS, *COMMANDS} and not (
        len(command) == 1 and command[0].startswith("contimg-")
    ):
        yield f"there is no program {program}"
        return
    options = options_of(name).model_fields
    passed = set()
    for word in container.get("args", []):
        match = _ARGUMENT.fullmatch(word)
        if match is None or match["name"] not in options or match["flag"] != flag(match["name"]):
            yield f"{program} takes no {word}"
        else:
            passed.add(match["name"])
    for one, field in options.items():
        if field.is_required() and one not in passed:
            yield f"{program} requires {flag(one)}"
