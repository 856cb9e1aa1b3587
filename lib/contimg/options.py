"""Options models: their docstrings are the help, their fields the Argo parameters, their types the command line."""

from __future__ import annotations

import types
from argparse import SUPPRESS, ArgumentParser
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

T = TypeVar("T", bound="Options")


class InputKind:
    """Marks an option that names something to read; its digest, not its URI, enters the key."""

    def __init__(self, kind: Literal["artifact", "object"]) -> None:
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


def flag(name: str) -> str:
    """Return the command-line flag of a field."""
    return "--" + name.replace("_", "-")


def is_optional(field: FieldInfo) -> bool:
    """Say whether None is a value of the field."""
    return get_origin(field.annotation) in {Union, types.UnionType} and type(None) in get_args(field.annotation)


def choices(field: FieldInfo) -> list[str] | None:
    """Return the values of a Literal field as words, or None."""
    annotation: Any = field.annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else None


def help_text(field: FieldInfo) -> str:
    """Return a field's help with its default, on one line."""
    text = " ".join((field.description or "").split())
    if field.is_required() or field.default is None or field.default == ():
        return text
    return f"{text} Default: {field.default}."


def input_kind(field: FieldInfo) -> Literal["artifact", "object"] | None:
    """Return what kind of input a field names, if it does."""
    # In `ArtifactURI | None` the mark stays inside the union.
    marks = [*field.metadata, *(mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ()))]
    return next((mark.kind for mark in marks if isinstance(mark, InputKind)), None)


def parse(model: type[T], argv: Sequence[str], prog: str, version: str) -> T:
    """Read a command line into an options model; anything wrong prints why and exits with 2."""
    parser = ArgumentParser(prog=prog, description=model.__doc__, allow_abbrev=False, argument_default=SUPPRESS)
    parser.add_argument("--version", action="version", version=f"{prog} {version}")
    for name, field in model.model_fields.items():
        text = help_text(field).replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag(name), nargs="?", const="true", metavar="true|false", help=text)
        else:
            words = choices(field)
            metavar = "|".join(words) if words else name.upper()
            parser.add_argument(flag(name), required=field.is_required(), metavar=metavar, help=text)
    given = vars(parser.parse_args(argv))
    # Argo passes an option that was left empty as an empty word.
    for name in [name for name, value in given.items() if value == ""]:
        if is_optional(model.model_fields[name]):
            given[name] = None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        parser.error(
            "; ".join(f"{flag(str(item['loc'][0])) if item['loc'] else 'options'}: {item['msg']}" for item in error.errors())
        )
