"""``contimg resolve-options``: one checked document of options, before the first stage starts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from contimg.runtime.config import Document, merge_documents, read_document, read_profile
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import UsageError
from contimg.runtime.pipeline import Pipeline
from contimg_runs.options import ResolveOptions
from contimg_runs.pipelines import PIPELINES, find_pipeline


def run(options: ResolveOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Resolve the options, and hand them over as JSON."""
    pipeline = find_pipeline(options.pipeline)
    document = resolve_options(pipeline, options.options, options.profile, env, options.set)
    console.log.info("options of %s: %s", pipeline.name, json.dumps(document))
    hand_over(env, "options", json.dumps(document))
    return {"pipeline": pipeline.name, "options": document}


def resolve_options(
    pipeline: Pipeline,
    text: str = "",
    profile: str = "",
    env: Mapping[str, str] | None = None,
    settings: Iterable[str] = (),
) -> Document:
    """Merge everything that a person set: the profile, over it the text, over it the settings.

    Parameters
    ----------
    text
        A document of options, or the file or URI that holds one; empty: no options.
    profile
        Name of a profile in `env`; empty: none.
    settings
        STAGE.OPTION=VALUE, or SHORTCUT=VALUE; an empty value counts as not given.

    Raises
    ------
    UsageError
        If a stage, option, shortcut or profile is unknown, the text is not YAML, or a value is
        out of range.
    """
    pipeline.check()
    single, shortcuts = read_settings(settings)
    known = [one.name for one in pipeline.shortcuts]
    for name in shortcuts:
        if name not in known:
            there = ", ".join(known) or "none"
            problem = f"Pipeline {pipeline.name} has no shortcut {name!r}; it has {there}."
            raise UsageError(f"--set {name}", problem, "Write STAGE.OPTION=VALUE.")
    # A profile, and the options of an installation, may serve several pipelines.
    shared = [
        select_stages(pipeline, read_profile(profile, env or {}), f"profile {profile}"),
        select_stages(pipeline, read_document(text), "options"),
    ]
    document = merge_documents([*shared, pipeline.with_shortcuts({}, shortcuts), single])
    pipeline.check_options(document)
    return document


def select_stages(pipeline: Pipeline, document: Document, where: str) -> Document:
    """Return the part of a document that is about the stages of a pipeline.

    Raises
    ------
    UsageError
        If a stage of the document is in no pipeline.
    """
    known = {step.stage for one in [pipeline, *PIPELINES.values()] for step in one.steps}
    for stage in document:
        if stage not in known:
            problem = f"There is no stage {stage!r}; there are {', '.join(sorted(known))}."
            raise UsageError(where, problem, "Correct the stage's name.")
    own = {step.stage for step in pipeline.steps}
    return {stage: options for stage, options in document.items() if stage in own}


def read_settings(texts: Iterable[str]) -> tuple[Document, dict[str, str]]:
    """Read STAGE.OPTION=VALUE into a document, and NAME=VALUE of parameters and shortcuts.

    Raises
    ------
    UsageError
        If one is neither.
    """
    document: Document = {}
    named: dict[str, str] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        stage, dot, option = path.partition(".")
        if not equals or not stage or (dot and not option):
            problem = f"This is not a setting: {text!r}."
            raise UsageError("--set", problem, "Write STAGE.OPTION=VALUE or NAME=VALUE.")
        if dot:
            document.setdefault(stage, {})[option.replace("-", "_")] = value
        else:
            named[path] = value
    return document, named
