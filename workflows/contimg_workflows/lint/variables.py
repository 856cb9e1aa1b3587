"""Which variables Argo knows in which place, in ``{{name}}`` and in ``{{=expression}}``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

REFERENCE = re.compile(r"\{\{(.*?)\}\}")
ANYWHERE = frozenset(
    f"workflow.{name}"
    for name in ("name", "uid", "namespace", "creationTimestamp", "serviceAccountName")
)
ENDED = frozenset(f"workflow.{name}" for name in ("status", "failures", "duration"))
RETRIED = frozenset(
    {"retries", *(f"lastRetry.{name}" for name in ("exitCode", "status", "duration", "message"))}
)
MEASURED = frozenset({"status", "duration", "exitCode"})
FUNCTIONS = frozenset({"asInt", "asFloat", "string", "toJson", "split", "jsonpath"})
WORDS = frozenset({"in", "not", "and", "or", "true", "false", "nil"})
_OUTPUT = re.compile(r"tasks\.([-\w]+)\.outputs\.parameters\.([-\w]+)")
_INDEX = re.compile(r"\[\s*'([^']*)'\s*\]")
_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"")
_NAME = re.compile(r"(?<![\w.])[A-Za-z_][-\w]*(?:\.[-\w]+)*(?P<call>\s*\()?")


@dataclass(frozen=True)
class Scope:
    """What is known in one place."""

    inputs: frozenset[str] = frozenset()
    arguments: frozenset[str] = frozenset()
    """The workflow's own parameters, where they may be used: a template that others refer to runs under others' parameters."""
    outputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of the tasks that have ended."""
    ended: bool = False
    retried: bool = False
    pod: bool = False
    item: bool = False
    measured: bool = False

    def knows(self, name: str) -> bool:
        """Say whether Argo fills in a variable here."""
        kind, _, rest = name.rpartition(".")
        output = _OUTPUT.fullmatch(name)
        return (
            name in ANYWHERE
            or (kind == "inputs.parameters" and rest in self.inputs)
            or (kind == "workflow.parameters" and rest in self.arguments)
            or (output is not None and output[2] in self.outputs.get(output[1], ()))
            or (self.ended and name in ENDED)
            or (self.retried and name in RETRIED)
            or (self.pod and name == "pod.name")
            or (self.item and name.partition(".")[0] == "item")
            or (self.measured and name in MEASURED)
        )


def unresolved(text: str, scope: Scope, where: str) -> Iterator[str]:
    """Yield each {{…}} of a text that Argo would not fill in."""
    for reference in REFERENCE.findall(text):
        inner = reference.strip()
        for name in variables(inner[1:]) if inner.startswith("=") else [inner]:
            if not scope.knows(name):
                yield f"{where}: {{{{{reference}}}}} leads nowhere" + (
                    f": {name}" if name != inner else ""
                )


def variables(expression: str) -> list[str]:
    """Return the variables of an expression, and the functions that we do not use."""
    plain = _LITERAL.sub("''", _INDEX.sub(r".\1", expression))
    found = []
    for match in _NAME.finditer(plain):
        call = match["call"]
        name = match[0].removesuffix(call) if call else match[0]
        if name not in WORDS and not (call and name in FUNCTIONS):
            found.append(f"{name}()" if call else name)
    return found
