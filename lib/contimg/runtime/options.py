"""Options models: their docstrings are the help, their fields the Argo parameters, their types the command line."""

from __future__ import annotations

import sys
import types
from argparse import SUPPRESS, ArgumentParser
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound="Options")


class InputKind:
    """Marks an option that names something to read; its digest, not its URI, enters the key."""

    def __init__(self, kind: Literal["artifact", "object", "group"]) -> None:
        self.kind = kind


def _split(value: object) -> object:
    """Read a list from one word with commas, as a command line and Argo pass it."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


ArtifactURI = Annotated[str, InputKind("artifact")]
"""URI of an artifact: a folder that ends in its key and holds a manifest.json."""
ObjectURI = Annotated[str, InputKind("object")]
"""URI of one small object, digested whole."""
GroupURI = Annotated[str, InputKind("group")]
"""URI of a group's record, digested without the number of the attempt: the same subbands again are the same work."""
Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list; one word with commas on the command line."""
ArtifactURIs = Annotated[tuple[str, ...], BeforeValidator(_split), InputKind("artifact")]
"""URIs of artifacts, with commas between them."""


class Options(BaseModel):
    """What may be asked of a command: frozen, no extras, the docstring under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StageOptions(Options):
    """What every stage takes."""

    out: str
    """URI of the folder that the artifact is made in, as OUT/KEY."""
    reuse: str | None = None
    """URI of an artifact of this stage that is handed on as it is; nothing is made then."""


def flag(name: str) -> str:
    """Return the command-line flag of a field; an underscore at its end keeps it from being a word of Python."""
    return "--" + name.rstrip("_").replace("_", "-")


def is_optional(field: FieldInfo) -> bool:
    """Say whether None is a value of the field."""
    return get_origin(field.annotation) in {Union, types.UnionType} and type(None) in get_args(
        field.annotation
    )


def choices(field: FieldInfo) -> list[str] | None:
    """Return the values of a Literal field as words, or None."""
    annotation: Any = field.annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return (
        [str(value) for value in get_args(annotation)]
        if get_origin(annotation) is Literal
        else None
    )


def help_text(field: FieldInfo) -> str:
    """Return a field's help with its default, on one line."""
    text = " ".join((field.description or "").split())
    if field.is_required() or field.default is None or field.default == ():
        return text
    return f"{text} Default: {field.default}."


def input_kind(field: FieldInfo) -> Literal["artifact", "object", "group"] | None:
    """Return what kind of input a field names, if it does."""
    # In `ArtifactURI | None` the mark stays inside the union.
    marks = [
        *field.metadata,
        *(
            mark
            for part in get_args(field.annotation)
            for mark in getattr(part, "__metadata__", ())
        ),
    ]
    return next((mark.kind for mark in marks if isinstance(mark, InputKind)), None)


class Misused(SystemExit):
    """A command line that cannot be read; it has been said on stderr."""

    def __init__(self, reason: str) -> None:
        super().__init__(2)
        self.reason = reason


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self._print_message(f"{self.prog}: error: {message}\n", sys.stderr)
        raise Misused(message)


def parse(model: type[T], argv: Sequence[str], prog: str, version: str) -> T:
    """Read a command line into an options model; anything wrong prints why and exits with 2.

    Raises
    ------
    Misused
        A SystemExit with the reason.
    """
    parser = _Parser(
        prog=prog, description=model.__doc__, allow_abbrev=False, argument_default=SUPPRESS
    )
    parser.add_argument("--version", action="version", version=f"{prog} {version}")
    for name, field in model.model_fields.items():
        text = help_text(field).replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(
                flag(name), dest=name, nargs="?", const="true", metavar="true|false", help=text
            )
        else:
            words = choices(field)
            metavar = "|".join(words) if words else name.upper()
            parser.add_argument(
                flag(name), dest=name, required=field.is_required(), metavar=metavar, help=text
            )
    given = vars(parser.parse_args(argv))
    # Argo passes an option that was left empty as an empty word.
    for name in [name for name, value in given.items() if value == ""]:
        if is_optional(model.model_fields[name]):
            given[name] = None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        parser.error("; ".join(map(_wrong, error.errors())))


def _wrong(item: ErrorDetails) -> str:
    """Say which option, what was expected and what was found."""
    if not item["loc"]:
        return f"options: {item['msg']}"
    return f"{flag(str(item['loc'][0]))}: {item['msg']}, found {item['input']!r}"
