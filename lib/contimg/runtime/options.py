"""Options models: their docstrings are the help, their fields the command line and Argo's form."""

from __future__ import annotations

import sys
import types
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from contimg.runtime.errors import UsageError
from contimg.runtime.manifest import Input, artifact_input, manifest_input, object_input

T = TypeVar("T", bound="Options")


@dataclass(frozen=True)
class InputKind:
    """Marks an option that names something to read: its digest, not its URI, is in the key."""

    kind: Literal["artifact", "object", "group"]
    describe: Callable[[str, str], Input]
    """Makes the `Input` of an option's name and a URI."""


def _split(separator: str, value: object) -> object:
    """Read a list from a text with separators, or from several such texts."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        return value
    parts = [part.strip() for text in texts for part in str(text).split(separator)]
    return tuple(part for part in parts if part)


ArtifactURI = Annotated[str, InputKind("artifact", artifact_input)]
"""URI of an artifact: a folder that ends in its key and holds a manifest.json."""
ObjectURI = Annotated[str, InputKind("object", object_input)]
"""URI of one small object, digested whole."""
Words = Annotated[tuple[str, ...], BeforeValidator(partial(_split, ","))]
"""A list; on the command line one word with commas, or the flag several times."""
Lines = Annotated[tuple[str, ...], BeforeValidator(partial(_split, "\n"))]
"""A list of texts with commas; on the command line the flag several times, in Argo a line each."""
ArtifactURIs = Annotated[Words, InputKind("artifact", artifact_input)]
"""URIs of artifacts, with commas between them."""
ManifestURIs = Annotated[Words, InputKind("artifact", manifest_input)]
"""URIs of artifacts of which the stage shows the manifests: metrics and verdicts are in the key."""


class Options(BaseModel):
    """Options of a command: frozen, no extras; the docstring under a field is its help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def drop_empty(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Drop empty values, which count as not given; unknown names stay and are refused."""
        empty = {n for n, one in options.items() if one in ("", None) and n in cls.model_fields}
        return {name: value for name, value in options.items() if name not in empty}


class StageOptions(Options):
    """Options that every stage has."""

    out: str
    """URI of the folder that the artifact is made in, as OUT/KEY."""
    reuse: str | None = None
    """URI of an artifact of this stage to hand on as it is; then nothing is made."""


def flag(name: str) -> str:
    """Return the command-line flag of a field; a final underscore only avoids a Python keyword."""
    return "--" + name.rstrip("_").replace("_", "-")


def choices(field: FieldInfo) -> list[str] | None:
    """Return the values of a Literal field as words, or None."""
    annotation: Any = field.annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    values = [str(value) for value in get_args(annotation)]
    return values if get_origin(annotation) is Literal else None


def first_sentence(model: type[Options]) -> str:
    """Return the first sentence of a model's help."""
    text = " ".join((model.__doc__ or "").split())
    return text.partition(". ")[0].partition(": ``")[0].rstrip(".") + "."


def input_mark(field: FieldInfo) -> InputKind | None:
    """Return how a field's value is described as an input; None if it is not an input."""
    # In `ArtifactURI | None` the mark stays inside the union.
    inner = [
        mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())
    ]
    return next((mark for mark in [*field.metadata, *inner] if isinstance(mark, InputKind)), None)


class CommandLineError(SystemExit):
    """A command line that cannot be read; the reason has been printed to stderr."""

    reason = ""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self._print_message(f"{self.prog}: error: {message}\n", sys.stderr)
        ended = CommandLineError(2)
        ended.reason = message
        raise ended


def parse(
    model: type[T],
    argv: Sequence[str] | None,
    prog: str,
    version: str,
    *,
    positional: Sequence[str] = (),
    section: str = "",
) -> T:
    """Read a command line into an options model; print an error and raise CommandLineError.

    An option with an empty value counts as not given, since Argo passes every option of a form.
    `argv` is that of this process if None; the fields in `positional` may be given without their
    flags, in this order; ``--config`` reads a `section` of a document, if that has a name.
    """
    parser = _Parser(
        prog=prog, description=model.__doc__, allow_abbrev=False, argument_default=SUPPRESS
    )
    parser.add_argument("--version", action="version", version=f"{prog} {version}")
    if positional:
        parser.add_argument("positional", nargs="*", metavar=" ".join(positional).upper())
    if section:
        text = f"Options as YAML: a file, URI or the text, with a section {section!r}. Flags win."
        parser.add_argument("--config", metavar="FILE|URI|TEXT", help=text)
    for name, field in model.model_fields.items():
        text = " ".join((field.description or "").split())
        if not field.is_required() and field.default not in (None, ()):
            text = f"{text} Default: {field.default}."
        how: dict[str, Any] = {"dest": name, "help": text.replace("%", "%%")}
        if field.annotation is bool:
            how |= {"nargs": "?", "const": "true", "metavar": "true|false"}
        else:
            how |= {"action": "append" if get_origin(field.annotation) is tuple else "store"}
            how |= {"metavar": "|".join(choices(field) or [name.upper()])}
        parser.add_argument(flag(name), **how)
    given = vars(parser.parse_intermixed_args(argv))
    words = given.pop("positional", [])
    if len(words) > len(positional):
        parser.error(f"unrecognized arguments: {' '.join(words[len(positional) :])}")
    given = {**dict(zip(positional, words, strict=False)), **given}
    given = {name: value for name, value in given.items() if value not in ("", [""])}
    config = given.pop("config", None) if section else None
    try:
        if config is not None:
            from contimg.runtime.config import read_document  # yaml is slow to import

            document = read_document(config)
            _check_sections(section, document.keys() - {section})
            given = {**model.drop_empty(document.get(section, {})), **given}
        return model.model_validate(given)
    except UsageError as error:
        parser.error(str(error))
    except ValidationError as error:
        parser.error("; ".join(map(describe_error, error.errors())))


def _check_sections(own: str, others: AbstractSet[str]) -> None:
    """Refuse sections of stages that do not exist; UsageError names them.

    In an image one stage is installed, and the sections of others cannot be judged; nor can they
    by a stage that is itself not installed.
    """
    if not others:
        return
    from contimg.runtime.stage import stage_specs  # which imports this module

    known = stage_specs().keys()
    unknown = sorted(others - known)
    if unknown and own in known and len(known) > 1:
        problem = f"There is no stage {unknown[0]!r}; there are {', '.join(known)}."
        raise UsageError("--config", problem, "Correct the name of the section.")


def describe_error(item: ErrorDetails) -> str:
    """Return which option is wrong, what was expected and what was found."""
    if not item["loc"]:
        return f"options: {item['msg']}"
    name = flag(str(item["loc"][0]))
    if item["type"] == "missing":
        return f"{name} is required"
    if item["type"] == "extra_forbidden":
        return f"{name}: there is no such option"
    return f"{name}: {item['msg']}, found {item['input']!r}"
