"""Documents of options: one YAML mapping of stages to their options, from a file, a URI or the text itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from contimg.runtime.errors import ContimgError, UsageError
from contimg.runtime.options import wrong
from contimg.runtime.store import split

if TYPE_CHECKING:
    from contimg.runtime.stage import StageSpec

Document = dict[str, dict[str, Any]]
"""Values of options by stage and option."""
PROFILES_VARIABLE = "CONTIMG_PROFILES"
"""Environment variable with the named profiles: a mapping of names to documents, as `read_yaml` takes it."""


class _Loader(yaml.SafeLoader):
    """Reads only `true` and `false` as booleans, as YAML 1.2 does: `off` is a choice of some options."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOLEAN, re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(source: str) -> Any:  # noqa: ANN401 - YAML
    """Read YAML from text, a URI or a file.

    Parameters
    ----------
    source
        Text with a line break, a colon followed by a space, or a brace at its start; anything else is the URI or path of a file.

    Raises
    ------
    UsageError
        If the file cannot be read, or is not YAML.
    """
    is_text = (
        "\n" in source or ": " in source or source.lstrip().startswith("{") or not source.strip()
    )
    where = "options" if is_text else source
    try:
        if is_text:
            text = source
        elif "://" in source:
            store, key = split(source)
            text = store.read(key).decode()
        else:
            text = Path(source).read_text(encoding="utf-8")
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, ContimgError) as error:
        raise UsageError(
            where, f"The file cannot be read: {error}.", "Correct its name."
        ) from error
    except yaml.YAMLError as error:
        problem = f"This is not YAML: {' '.join(str(error).split())}."
        raise UsageError(where, problem, "Write options as {stage: {option: value}}.") from error


def read_document(source: str) -> Document:
    """Read a document of options.

    Raises
    ------
    UsageError
        If it is not YAML, or not a mapping of stages to mappings of options.
    """
    found = read_yaml(source)
    where = source if len(source) < 80 and "\n" not in source else "options"  # noqa: PLR2004
    return checked_document({} if found is None else found, where)


def checked_document(found: object, where: str) -> Document:
    """Return what was read if it is a mapping of stages to mappings of options; UsageError if not."""
    remedy = "Write options as {stage: {option: value}}."
    if not isinstance(found, Mapping):
        raise UsageError(where, f"A mapping of stages is expected, not {found!r}.", remedy)
    for stage, options in found.items():
        if not isinstance(options, Mapping):
            raise UsageError(
                f"{where}: {stage}", f"A mapping of options is expected, not {options!r}.", remedy
            )
    return {
        str(stage): {str(name).replace("-", "_"): value for name, value in options.items()}
        for stage, options in found.items()
    }


def read_profile(name: str, env: Mapping[str, str]) -> Document:
    """Return a named profile, a document of options; the empty name is no profile.

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    if not name:
        return {}
    source = env.get(PROFILES_VARIABLE, "")
    profiles = read_yaml(source) or {}
    if not isinstance(profiles, Mapping) or name not in profiles:
        there = ", ".join(map(str, profiles)) if isinstance(profiles, Mapping) else ""
        problem = f"There is no profile of this name; {f'there are {there}' if there else 'none is defined'}."
        raise UsageError(
            f"profile {name}", problem, f"Correct the name, or define it in ${PROFILES_VARIABLE}."
        )
    return checked_document(profiles[name], f"profile {name}")


def merge_documents(documents: Iterable[Mapping[str, Mapping[str, Any]]]) -> Document:
    """Return one document in which later ones replace single options of earlier ones."""
    merged: Document = {}
    for document in documents:
        for stage, options in document.items():
            merged.setdefault(stage, {}).update(options)
    return merged


def check_document(
    document: Mapping[str, Mapping[str, Any]],
    specs: Mapping[str, StageSpec],
    wired: Mapping[str, Mapping[str, object]],
    where: str,
) -> None:
    """Refuse a document that the stages of a pipeline do not understand, before anything runs.

    Parameters
    ----------
    document
        Options that a person set.
    specs
        The stages of the pipeline by name.
    wired
        Per stage, the options that the pipeline itself sets, with a value that stands for the real one.
    where
        What the document is called in messages.

    Raises
    ------
    UsageError
        If a stage or option is unknown, an option is the pipeline's own, or a value is out of range.
    """
    for stage, options in document.items():
        if stage not in specs:
            problem = (
                f"There is no stage {stage!r} in this pipeline; its stages are {', '.join(specs)}."
            )
            raise UsageError(where, problem, "Correct the stage's name.")
        for name in options:
            if name in wired[stage]:
                problem = f"The pipeline sets {stage}.{name} itself."
                raise UsageError(where, problem, "Remove it from the options.")
    for stage, spec in specs.items():
        options = {
            name: value
            for name, value in document.get(stage, {}).items()
            if value not in ("", None)
        }
        try:
            spec.options.model_validate({**wired[stage], **options})
        except ValidationError as error:
            # What the pipeline sets has its real value only in a run.
            errors = [e for e in error.errors() if not e["loc"] or e["loc"][0] not in wired[stage]]
            if errors:
                reasons = "; ".join(f"{stage} {wrong(item)}" for item in errors)
                remedy = f"contimg-{stage} --help lists the options."
                raise UsageError(where, f"{reasons}.", remedy) from error
