"""What is asked of a pipeline: names, values and types of its parameters, checked before anything begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter, ValidationError

from contimg.runtime.errors import UsageError
from contimg.runtime.options import is_optional
from contimg_workflows.stages import NEEDS, options_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pydantic.fields import FieldInfo

    from contimg_workflows.argo import Parameter


def named(texts: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Read settings STAGE.OPTION=VALUE, or NAME=VALUE of a pipeline's own parameter, as parameters and their values.

    Raises
    ------
    UsageError
        If one is no such thing, or names a parameter that is not known.
    """
    values: dict[str, str] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        name = parameter_name(path)
        if not equals or name not in known:
            raise UsageError(
                f"--set {text}",
                f"expected STAGE.OPTION=VALUE, found {_near(path, known)}.",
                "contimg-STAGE --help lists options.",
            )
        values[name] = value
    return values


def parameter_name(path: str) -> str:
    """Return the parameter of STAGE.OPTION, however its words are joined."""
    stage, dot, option = path.partition(".")
    return f"{stage}-{option.replace('-', '_')}" if dot else path


def settled(
    where: str, parameters: Iterable[Parameter], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the value of every parameter of a pipeline.

    Raises
    ------
    UsageError
        If an argument is unknown, missing, or none of the few values that its parameter allows.
    """
    asked = {one.name: one for one in parameters}
    for name in given:
        if name not in asked:
            raise UsageError(
                where,
                f"expected one of {', '.join(asked)}, found {name}.",
                "Correct the parameter's name.",
            )
    values: dict[str, str] = {}
    for name, one in asked.items():
        value = given.get(name, one.value)
        if value is None:
            raise UsageError(where, f"expected a value of {name}, found none.", one.description)
        if one.enum and value not in one.enum:
            raise UsageError(
                f"{where}: {name}",
                f"expected one of {', '.join(one.enum)}, found {value}.",
                one.description,
            )
        values[name] = value
    return values


def typed(where: str, given: Mapping[str, str]) -> None:
    """Check values against the options of the stages that they are meant for.

    Raises
    ------
    UsageError
        If a value is not of its option's type, or beyond its limits.
    """
    for name, value in given.items():
        stage, _, option = name.partition("-")
        field = options_of(stage).model_fields.get(option) if stage in NEEDS else None
        if field is None:
            continue
        found = _problem(field, value)
        if found:
            raise UsageError(
                f"{where}: {name}",
                f"expected {found}, found {value!r}.",
                " ".join((field.description or "").split()),
            )


def _problem(field: FieldInfo, value: str) -> str:
    """Say what a value should have been; nothing if it is good."""
    kind: Any = Annotated[(field.annotation, field.description, *field.metadata)]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        adapter.validate_python(None if value == "" and is_optional(field) else value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        return (
            message.removeprefix("Input should be ")
            .removeprefix("Value error, ")
            .partition(", unable")[0]
        )
    return ""


def _near(path: str, known: Iterable[str]) -> str:
    """Return the settings that may have been meant."""
    stage, _, _ = path.replace("-", ".", 1).partition(".")
    own = [name for name in known if "-" not in name]
    options = [name.replace("-", ".", 1) for name in known if name.startswith(f"{stage}-")]
    return ", ".join(options or own) or "no such stage"
