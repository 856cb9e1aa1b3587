"""Options models: their docstrings are the help, their fields the Argo parameters, their types the command line."""

from __future__ import annotations

import sys
import types
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Sequence
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

from contimg.runtime.errors import UsageError
from contimg.runtime.manifest import Input, artifact_input, object_input

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound="Options")


class InputKind:
    """Marks an option that names something to read; its digest, not its URI, enters the key."""

    def __init__(
        self, kind: Literal["artifact", "object", "group"], describe: Callable[[str, str], Input]
    ) -> None:
        self.kind = kind
        self.describe = describe
        """Makes the `Input` of an option's name and a URI."""


def _split(value: object) -> object:
    """Read a list from a word with commas, or from several, as a command line and Argo pass them."""
    words = [value] if isinstance(value, str) else value
    if isinstance(words, list):
        return tuple(
            part.strip() for word in words for part in str(word).split(",") if part.strip()
        )
    return value


def _lines(value: object) -> object:
    words = [value] if isinstance(value, str) else value
    if isinstance(words, list):
        return tuple(line for word in words for line in str(word).splitlines() if line)
    return value


ArtifactURI = Annotated[str, InputKind("artifact", artifact_input)]
"""URI of an artifact: a folder that ends in its key and holds a manifest.json."""
ObjectURI = Annotated[str, InputKind("object", object_input)]
"""URI of one small object, digested whole."""
Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list; on the command line one word with commas, or the flag again and again."""
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
"""A list whose elements may hold commas; on the command line the flag again and again, in Argo a line each."""
ArtifactURIs = Annotated[
    tuple[str, ...], BeforeValidator(_split), InputKind("artifact", artifact_input)
]
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


def input_mark(field: FieldInfo) -> InputKind | None:
    """Return how a field's value is described as an input; None if it names none."""
    # In `ArtifactURI | None` the mark stays inside the union.
    inner = [
        mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())
    ]
    return next((mark for mark in [*field.metadata, *inner] if isinstance(mark, InputKind)), None)


def is_list(field: FieldInfo) -> bool:
    """Say whether a field takes several values."""
    return get_origin(field.annotation) is tuple


class CommandLineError(SystemExit):
    """A command line that cannot be read; the reason has been printed to stderr."""

    def __init__(self, reason: str) -> None:
        super().__init__(2)
        self.reason = reason


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self._print_message(f"{self.prog}: error: {message}\n", sys.stderr)
        raise CommandLineError(message)


def parse(
    model: type[T],
    argv: Sequence[str],
    prog: str,
    version: str,
    *,
    positional: Sequence[str] = (),
    section: str = "",
) -> T:
    """Read a command line into an options model; anything wrong prints why and exits with 2.

    An option with an empty value counts as not given, since Argo passes every option of a form.

    Parameters
    ----------
    positional
        Fields that may also be given without their flags, in this order.
    section
        Section of the document of options that ``--config`` names; without one there is no such flag.

    Raises
    ------
    CommandLineError
        A SystemExit with the reason.
    """
    parser = _parser(model, prog, version, positional=positional, section=section)
    given = vars(parser.parse_intermixed_args(argv))
    words = given.pop("positional", [])
    for name, word in zip(positional, words, strict=False):
        given.setdefault(name, word)
    if len(words) > len(positional):
        parser.error(f"unrecognized arguments: {' '.join(words[len(positional) :])}")
    given = {name: value for name, value in given.items() if value not in ("", [""])}
    config = given.pop("config", None) if section else None
    if config is not None:
        from contimg.runtime.config import read_document  # yaml is slow to import

        try:
            document = read_document(config).get(section, {})
            given = {**{k: v for k, v in document.items() if v not in ("", None)}, **given}
        except UsageError as error:
            parser.error(str(error))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        parser.error("; ".join(map(wrong, error.errors())))


def _parser(
    model: type[Options], prog: str, version: str, *, positional: Sequence[str], section: str
) -> _Parser:
    parser = _Parser(
        prog=prog, description=model.__doc__, allow_abbrev=False, argument_default=SUPPRESS
    )
    parser.add_argument("--version", action="version", version=f"{prog} {version}")
    if positional:
        parser.add_argument("positional", nargs="*", metavar=" ".join(positional).upper())
    if section:
        text = (
            f"Options as YAML, a file, URI or the text itself: its section {section!r}. Flags win."
        )
        parser.add_argument("--config", metavar="FILE|URI|TEXT", help=text)
    for name, field in model.model_fields.items():
        text = help_text(field).replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(
                flag(name), dest=name, nargs="?", const="true", metavar="true|false", help=text
            )
        else:
            metavar = "|".join(choices(field) or [name.upper()])
            action = "append" if is_list(field) else "store"
            parser.add_argument(flag(name), dest=name, action=action, metavar=metavar, help=text)
    return parser


def wrong(item: ErrorDetails) -> str:
    """Say which option is wrong, what was expected and what was found."""
    if not item["loc"]:
        return f"options: {item['msg']}"
    name = flag(str(item["loc"][0]))
    if item["type"] == "missing":
        return f"{name} is required"
    if item["type"] == "extra_forbidden":
        return f"{name}: there is no such option"
    return f"{name}: {item['msg']}, found {item['input']!r}"
