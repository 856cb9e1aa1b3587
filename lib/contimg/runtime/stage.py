"""What a stage is, seen from outside: enough to know its command line, its key, its image and its pod without its science."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from contimg.runtime import manifest, versions
from contimg.runtime.errors import UsageError
from contimg.runtime.options import StageOptions, input_mark

if TYPE_CHECKING:
    from contimg.runtime.context import Context, StageResult

ENTRY_POINTS = "contimg.stages"
"""Each stage's distribution names its `StageSpec` here; there is no other list of stages."""
PLACES = {"out", "reuse", "tables", "store", "calibrations"}
"""Options that say where things lie, not what is made; what is read there enters the key by its digest."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one try of a stage or command may take, for a full-size group."""

    deadline_s: int
    """A try that runs longer is stopped, seconds."""
    memory_mi: int
    """Memory limit, MiB; files in memory scratch count."""
    scratch_mi: int = 64
    """How much of it scratch may take, MiB."""
    cpu: str = "1"
    """Cores requested, as Kubernetes writes them."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A stage: everything that others need to know of it; light enough to import everywhere."""

    name: str
    options: type[StageOptions]
    resources: Resources
    package: str = ""
    """Package of the stage; default: contimg_NAME."""
    module: str = ""
    """Module with the function `run`; default: PACKAGE.stage."""
    tools: tuple[str, ...] = ()
    """Programs and distributions whose versions enter the key."""
    resolver: str = ""
    """``module:function`` that turns options which are queries on the store into a list of inputs."""
    semaphore: Literal["", "casa", "wsclean"] = ""
    """Limit, shared by all workflows, on how many of its pods run at a time."""
    image_level: Literal["common", "casa"] = "common"
    """The level of images/Containerfile that its image stands on."""
    debian_packages: tuple[str, ...] = ()
    """Debian packages that its image needs besides Python."""
    views: tuple[str, ...] = ()
    """Files of its artifact that a person opens: .png and .html."""

    def __post_init__(self) -> None:
        if not self.package:
            object.__setattr__(self, "package", f"contimg_{self.name}")
        if not self.module:
            object.__setattr__(self, "module", f"{self.package}.stage")

    @property
    def program(self) -> str:
        """The executable's name."""
        return f"contimg-{self.name}"

    @property
    def version(self) -> str:
        """The version of the distribution that holds the stage; not every stage has one of its own."""
        return versions.tool_version(self.package.partition(".")[0].replace("_", "-"))

    def load(self) -> Callable[[Any, Context], StageResult]:
        """Import the stage's code; this is where the heavy imports happen."""
        run: Callable[[Any, Context], StageResult] = importlib.import_module(self.module).run
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
            mark, value = input_mark(field), getattr(options, name)
            if mark is not None and value:
                uris = (value,) if isinstance(value, str) else value
                found += [mark.describe(name, uri) for uri in uris]
        if self.resolver:
            found += _function(self.resolver)(options)
        return tuple(found)

    def tool_versions(self) -> dict[str, str]:
        """Return the versions of the stage's tools."""
        return {tool: versions.tool_version(tool) for tool in self.tools}

    def key(self, options: StageOptions, inputs: tuple[manifest.Input, ...]) -> str:
        """Return the key of this work."""
        fields = type(options).model_fields
        plain = {n for n, f in fields.items() if n not in PLACES and input_mark(f) is None}
        code = versions.source_digest("contimg", self.package)
        chosen = options.model_dump(mode="json", include=plain)
        return manifest.work_key(self.name, chosen, inputs, code, self.tool_versions())


def _function(path: str) -> Callable[[StageOptions], list[manifest.Input]]:
    module, colon, name = path.partition(":")
    if not colon:
        raise UsageError(
            path, "A resolver is written module:function.", "Correct the stage's spec."
        )
    function: Callable[[StageOptions], list[manifest.Input]] = getattr(
        importlib.import_module(module), name
    )
    return function


@functools.cache
def stage_specs() -> Mapping[str, StageSpec]:
    """Return the specs of all installed stages by name, in alphabetical order.

    Raises
    ------
    UsageError
        If an entry point is not a `StageSpec`, or its name is not the spec's.
    """
    specs: dict[str, StageSpec] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        where = f"entry point {ENTRY_POINTS}: {point.name} = {point.value}"
        try:
            spec = point.load()
        except TypeError as error:  # a field of the spec is missing or unknown
            raise UsageError(
                where, f"The stage's spec is incomplete: {error}.", "Complete it."
            ) from error
        if not isinstance(spec, StageSpec):
            raise UsageError(
                where, "This is not a StageSpec.", "Name the module and the spec in it."
            )
        if spec.name != point.name:
            problem = f"The spec's name is {spec.name!r}."
            raise UsageError(where, problem, "Give the entry point the name of the stage.")
        specs[spec.name] = spec
    return specs


def stage_spec(name: str) -> StageSpec:
    """Return the spec of an installed stage; UsageError if there is none of that name."""
    specs = stage_specs()
    if name not in specs:
        problem = f"There is no stage of this name; there are {', '.join(specs)}."
        raise UsageError(f"stage {name}", problem, f"Correct the name, or install contimg-{name}.")
    return specs[name]
