"""The description of a stage: command line, key, image and pod, without its science code."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Literal, get_args

from contimg.runtime import manifest, versions
from contimg.runtime.errors import UsageError
from contimg.runtime.options import StageOptions, input_mark

Semaphore = Literal["", "casa", "wsclean"]
ImageLevel = Literal["common", "casa"]
ENTRY_POINTS = "contimg.stages"
"""Each stage's distribution names its `StageSpec` here; there is no other list of stages."""
PLACES = {"out", "reuse", "tables", "store", "calibrations"}
"""Options that name a place, not what is made; what is read there is in the key by its digest."""
ALWAYS_REACHED = "contimg.runtime.child"
"""The module that decides how linear algebra rounds: the bytes of every product depend on it."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of one try of a stage or command, for a full-size group."""

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
    """A stage: all that other packages need to know of it; light enough to import everywhere."""

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
    """``module:function`` that turns options that are queries on the store into inputs."""
    semaphore: Semaphore = ""
    """Limit, shared by all workflows, on the number of its pods that run at a time."""
    image_level: ImageLevel = "common"
    """The level of images/Containerfile that its image stands on."""
    debian_packages: tuple[str, ...] = ()
    """Debian packages that its image needs besides Python."""
    views: tuple[str, ...] = ()
    """Files of its artifact that a person opens: .png and .html."""

    def __post_init__(self) -> None:
        package = self.package or f"contimg_{self.name}"
        object.__setattr__(self, "package", package)
        object.__setattr__(self, "module", self.module or f"{package}.stage")
        if not (isinstance(self.options, type) and issubclass(self.options, StageOptions)):
            problem = f"Its options are {self.options!r}, not a subclass of StageOptions."
            raise UsageError(f"stage {self.name}", problem, "Correct the stage's spec.")
        for name, kind in (("semaphore", Semaphore), ("image_level", ImageLevel)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(map(repr, get_args(kind)))
                problem = f"The {name} is {getattr(self, name)!r}, not one of {known}."
                raise UsageError(f"stage {self.name}", problem, "Correct the stage's spec.")
        memory, scratch = self.resources.memory_mi, self.resources.scratch_mi
        if not 0 < scratch <= memory:
            problem = f"Its scratch_mi is {scratch}; it is a part of memory_mi, which is {memory}."
            raise UsageError(f"stage {self.name}", problem, "Correct the stage's resources.")
        if self.resolver and ":" not in self.resolver:
            problem = f"The resolver {self.resolver!r} is not written module:function."
            raise UsageError(f"stage {self.name}", problem, "Correct the stage's spec.")

    @property
    def program(self) -> str:
        """The executable's name."""
        return f"contimg-{self.name}"

    @property
    def version(self) -> str:
        """The version of the distribution that holds the stage."""
        return versions.tool_version(self.package.partition(".")[0].replace("_", "-"))

    def inputs(self, options: StageOptions) -> tuple[manifest.Input, ...]:
        """Resolve what the stage will read to URIs with digests; MissingError if it is absent."""
        found: list[manifest.Input] = []
        for name, field in type(options).model_fields.items():
            mark, value = input_mark(field), getattr(options, name)
            if mark is not None and value:
                uris = (value,) if isinstance(value, str) else value
                found += [mark.describe(name, uri) for uri in uris]
        if self.resolver:
            found += resolve_name(self.resolver)(options)
        return tuple(found)

    def tool_versions(self) -> dict[str, str]:
        """Return the versions of the stage's tools."""
        return {tool: versions.tool_version(tool) for tool in self.tools}

    def key(self, options: StageOptions, inputs: Sequence[manifest.Input]) -> str:
        """Return the key of this work: the same key means the same bytes."""
        fields = type(options).model_fields
        plain = {n for n, f in fields.items() if n not in PLACES and input_mark(f) is None}
        reached = {self.module, self.options.__module__, ALWAYS_REACHED}
        if self.resolver:
            reached.add(self.resolver.partition(":")[0])
        whole = {
            "stage": self.name,
            "options": options.model_dump(mode="json", include=plain),
            "inputs": sorted((item.name, item.digest) for item in inputs),
            "code": versions.code_digest(*sorted(reached)),
            "tools": self.tool_versions(),
        }
        return manifest.digest_json(whole)[: manifest.KEY_LENGTH]


@functools.cache
def stage_specs() -> Mapping[str, StageSpec]:
    """Return the installed stages' specs by name, sorted; UsageError if an entry point is wrong."""
    specs: dict[str, StageSpec] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        where = f"entry point {ENTRY_POINTS}: {point.name} = {point.value}"
        try:
            spec = point.load()
        except ModuleNotFoundError as error:  # another branch, or a folder that was removed
            problem = f"The stage is installed, but its code is not there: {error}."
            remedy = f"If its folder was removed: pip uninstall contimg-{point.name}."
            raise UsageError(where, problem, remedy) from error
        except (AttributeError, TypeError) as error:  # a field of the spec is missing or unknown
            problem = f"The stage's spec is incomplete or wrong: {error}."
            raise UsageError(where, problem, "Correct the fields of the StageSpec.") from error
        if not isinstance(spec, StageSpec):
            problem = f"This is a {type(spec).__name__}, not a StageSpec."
            raise UsageError(where, problem, "Name the module and the spec in it.")
        if spec.name != point.name:
            problem = f"The spec's name is {spec.name!r}."
            raise UsageError(where, problem, "Give the entry point the name of the stage.")
        specs[spec.name] = spec
    return specs


def stage_spec(name: str) -> StageSpec:
    """Return the spec of an installed stage; UsageError if it is not installed."""
    specs = stage_specs()
    if name not in specs:
        problem = f"There is no stage of this name; there are {', '.join(specs)}."
        raise UsageError(f"stage {name}", problem, f"Correct the name, or install contimg-{name}.")
    return specs[name]
