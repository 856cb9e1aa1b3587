"""The document of options that a run works with: a profile, the options that were given, the shortcuts."""

from collections.abc import Mapping

from contimg.runtime.config import Document, merge_documents, read_document, read_profile, read_yaml
from contimg.runtime.errors import UsageError
from contimg.runtime.pipeline import Pipeline


def resolve_options(
    pipeline: Pipeline,
    options: str,
    profile: str,
    shortcuts: Mapping[str, str] | str,
    env: Mapping[str, str],
) -> Document:
    """Return the options of a run, checked: the profile's, replaced by `options`, replaced by the shortcuts.

    Parameters
    ----------
    options
        YAML as text, or the file or URI that holds it; empty: no options.
    profile
        Name of a profile in $CONTIMG_PROFILES; empty: none.
    shortcuts
        Value by name of a shortcut of the pipeline, or a YAML mapping of these; an empty value was not given.

    Raises
    ------
    UsageError
        If a profile, shortcut, stage or option is unknown, a value is out of range, or a text is not YAML.
    """
    given = read_shortcuts(shortcuts) if isinstance(shortcuts, str) else shortcuts
    known = [shortcut.name for shortcut in pipeline.shortcuts]
    for name in given:
        if name not in known:
            problem = f"Pipeline {pipeline.name} has no shortcut {name!r}."
            remedy = f"Its shortcuts are {', '.join(known)}." if known else "It has no shortcuts."
            raise UsageError("shortcuts", problem, remedy)
    document = merge_documents([read_profile(profile, env), read_document(options)])
    document = pipeline.with_shortcuts(document, given)
    pipeline.check_options(document)
    return document


def read_shortcuts(text: str) -> dict[str, str]:
    """Read a YAML mapping of shortcuts to values; UsageError if it is not one."""
    found = read_yaml(text) or {}
    if not isinstance(found, Mapping):
        problem = f"A mapping of shortcuts is expected, not {found!r}."
        raise UsageError("shortcuts", problem, "Write shortcuts as {name: value}.")
    return {str(name): "" if value is None else str(value) for name, value in found.items()}
