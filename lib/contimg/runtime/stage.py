"""What a stage is, seen from outside: enough to know its command line and its key without importing its science."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contimg.records.groups import group_input
from contimg.runtime import manifest, versions
from contimg.runtime.errors import UsageError
from contimg.runtime.options import StageOptions, input_kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from contimg.runtime.context import Context, Outcome

Run = "Callable[[StageOptions, Context], Outcome]"


@dataclass(frozen=True)
class Stage:
    """A stage's name, its options and where its code is; light enough for the workflows to import."""

    name: str
    options: type[StageOptions]
    package: str
    """The package whose source enters the key."""
    tools: tuple[str, ...] = ()
    """Programs and distributions whose versions enter the key."""
    resolver: str = ""
    """``module:function``: turns options that are queries on the store into a list of inputs."""

    @property
    def program(self) -> str:
        """The executable's name."""
        return f"contimg-{self.name}"

    @property
    def version(self) -> str:
        """The version of the distribution that holds the stage; not every stage has one of its own."""
        return versions.tool_version(self.package.partition(".")[0].replace("_", "-"))

    def load(self) -> Callable[[Any, Context], Outcome]:
        """Import the stage's code; this is where the heavy imports happen."""
        run: Callable[[Any, Context], Outcome] = importlib.import_module(
            f"{self.package}.stage"
        ).run
        return run

    def inputs(self, options: StageOptions) -> tuple[manifest.Input, ...]:
        """Resolve everything that the stage will read to URIs with digests.

        Raises
        ------
        MissingError
            If one does not exist.
        """
        found: list[manifest.Input] = []
        for name, field in type(options).model_fields.items():
            kind, value = input_kind(field), getattr(options, name)
            if kind is None or not value:
                continue
            describe = DESCRIBE[kind]
            uris = (value,) if isinstance(value, str) else value
            found += [describe(name, uri) for uri in uris]
        if self.resolver:
            found += _function(self.resolver)(options)
        return tuple(found)

    def tool_versions(self) -> dict[str, str]:
        """Return the versions of the stage's tools."""
        return {tool: versions.tool_version(tool) for tool in self.tools}

    def key(self, options: StageOptions, inputs: tuple[manifest.Input, ...]) -> str:
        """Return the key of this work."""
        fields = type(options).model_fields
        plain = {n for n, f in fields.items() if n not in PLACES and input_kind(f) is None}
        code = versions.source_digest("contimg", self.package)
        chosen = options.model_dump(mode="json", include=plain)
        return manifest.work_key(self.name, chosen, inputs, code, self.tool_versions())


DESCRIBE = {
    "artifact": manifest.artifact_input,
    "object": manifest.object_input,
    "group": group_input,
}
"""How an input is digested, by its kind."""
PLACES = {"out", "reuse", "tables", "store", "calibrations"}
"""Options that say where things lie, not what is made; what is read there enters the key by its digest."""


def _function(path: str) -> Callable[[StageOptions], list[manifest.Input]]:
    module, _, name = path.partition(":")
    if not name:
        raise UsageError(
            path, "expected module:function, found no colon.", "Correct the stage's definition."
        )
    function: Callable[[StageOptions], list[manifest.Input]] = getattr(
        importlib.import_module(module), name
    )
    return function
