"""Documents of options: a YAML mapping of stages to options, from a file, a URI or the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from contimg.runtime.errors import ContimgError, UsageError
from contimg.runtime.store import split

Document = dict[str, dict[str, Any]]
"""Values of options by stage and option."""
PROFILES_VARIABLE = "CONTIMG_PROFILES"
"""Environment variable with the named profiles, YAML: a mapping of names to documents."""
MAX_NAME_LENGTH = 80
"""Longer sources are not repeated in messages."""
REMEDY = "Write options as {stage: {option: value}}."


class UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; PyYAML takes the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - a text or None
        """Read a mapping; raise yaml.YAMLError with key and line if a key is repeated."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = key.tag, str(key.value)
            if isinstance(key, yaml.ScalarNode) and name in seen:
                problem = f"line {key.start_mark.line + 1} gives the key {key.value!r} again"
                raise yaml.constructor.ConstructorError(None, None, problem)
            seen.add(name)
        return node


class _Loader(UniqueKeyLoader):
    """Reads only true and false as booleans, as YAML 1.2 does: `off` is a choice of options."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOLEAN, re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(source: str, what: str = "options") -> Any:  # noqa: ANN401 - YAML
    """Read YAML from text, a URI or a file; UsageError if that fails.

    Text has a line break, a colon followed by a space, or a brace or bracket at its start; anything
    else is the URI or path of a file. `what` is how messages call a text.
    """
    is_text = "\n" in source or ": " in source or source.strip()[:1] in {"", "{", "["}
    where = what if is_text else source
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
        problem = f"The file cannot be read: {error}."
        raise UsageError(where, problem, "Correct its name, or write YAML.") from error
    except yaml.YAMLError as error:
        problem = f"This is not YAML: {' '.join(str(error).split())}."
        raise UsageError(where, problem, REMEDY) from error


def read_document(source: str) -> Document:
    """Read a document of options from text, a URI or a file; UsageError if it is not one."""
    found = read_yaml(source)
    where = source if len(source) <= MAX_NAME_LENGTH and "\n" not in source else "options"
    return _validate_document({} if found is None else found, where)


def _validate_document(found: object, where: str) -> Document:
    if not isinstance(found, Mapping):
        raise UsageError(where, f"A mapping of stages is expected, not {found!r}.", REMEDY)
    for stage, options in found.items():
        if not isinstance(options, Mapping):
            problem = f"A mapping of options is expected, not {options!r}."
            raise UsageError(f"{where}: {stage}", problem, REMEDY)
        names = Counter(str(name).replace("-", "_") for name in options)
        if twice := [name for name, count in names.items() if count > 1]:
            problem = f"{twice[0]} is given twice, with a hyphen and with an underscore."
            raise UsageError(f"{where}: {stage}", problem, "Delete one of them.")
    return {
        str(stage): {str(name).replace("-", "_"): value for name, value in options.items()}
        for stage, options in found.items()
    }


def read_profile(name: str, env: Mapping[str, str]) -> Document:
    """Return a named profile, nothing for the empty name; UsageError if it is not defined."""
    if not name:
        return {}
    source = env.get(PROFILES_VARIABLE, "")
    profiles = read_yaml(source, f"${PROFILES_VARIABLE}") or {}
    if not isinstance(profiles, Mapping):
        problem = f"A mapping of names to documents of options is expected, not {profiles!r}."
        remedy = "Write {name: {stage: {option: value}}}."
        raise UsageError(f"${PROFILES_VARIABLE}", problem, remedy)
    if name not in profiles:
        names = ", ".join(map(str, profiles))
        problem = f"There is no profile of this name; defined are: {names or 'none'}."
        remedy = f"Correct the name, or define it in ${PROFILES_VARIABLE}."
        raise UsageError(f"profile {name}", problem, remedy)
    return _validate_document(profiles[name], f"profile {name}")


def merge_documents(documents: Iterable[Mapping[str, Mapping[str, Any]]]) -> Document:
    """Return one document in which later ones replace single options of earlier ones."""
    merged: Document = {}
    for document in documents:
        for stage, options in document.items():
            merged.setdefault(stage, {}).update(options)
    return merged
