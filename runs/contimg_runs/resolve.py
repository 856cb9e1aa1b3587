"""``contimg resolve-options``: one checked document of options, before the first stage starts."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from contimg.runtime.config import Document, merge_documents, read_document, read_profile
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options, describe_error
from contimg.runtime.pipeline import Pipeline
from contimg_runs.options import RequestOptions
from contimg_runs.pipelines import PIPELINES, find_pipeline


def run(options: RequestOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Resolve the options, and hand them over as JSON."""
    document = resolve_request(options, env)
    console.log.info("options of %s: %s", options.pipeline, hand_over_document(env, document))
    return {"stage": "resolve-options", "pipeline": options.pipeline, "options": document}


def resolve_request(options: RequestOptions, env: Mapping[str, str]) -> Document:
    """Return the requested document of options; UsageError if the pipeline does not take it."""
    pipeline = find_pipeline(options.pipeline)
    return resolve_options(pipeline, options.options, options.profile, env, options.set)


def hand_over_document(env: Mapping[str, str], document: Document) -> str:
    """Leave a resolved document for the engine, as one line of JSON; return the line."""
    line = json.dumps(document, separators=(",", ":"), default=str)  # YAML knows dates
    hand_over(env, "options", line)
    return line


def resolve_options(
    pipeline: Pipeline,
    text: str = "",
    profile: str = "",
    env: Mapping[str, str] | None = None,
    settings: Iterable[str] = (),
) -> Document:
    """Merge all options that were set: the profile, replaced by the text, replaced by the settings.

    `text` is a document of options, or the file or URI that holds one; `profile` is the name of a
    profile in `env`; `settings` are STAGE.OPTION=VALUE or SHORTCUT=VALUE, where an empty value
    counts as not given. UsageError if a stage, option, shortcut or profile is unknown, the text is
    not YAML, or a value is out of range.
    """
    pipeline.check()
    single, shortcuts = read_settings(settings)
    known = [one.name for one in pipeline.shortcuts]
    for name in sorted(shortcuts.keys() - known):
        there = ", ".join(known) or "none"
        problem = f"Pipeline {pipeline.name} has no shortcut {name!r}; it has {there}."
        raise UsageError(f"--set {name}", problem, "Write STAGE.OPTION=VALUE.")
    # A profile, and the options of an installation, may serve several pipelines.
    stages = {step.stage for one in [pipeline, *PIPELINES.values()] for step in one.steps}
    own = {step.stage for step in pipeline.steps}
    shared = []
    profiled, written = read_profile(profile, env or {}), read_document(text)
    for where, given in ((f"profile {profile}", profiled), ("options", written)):
        for stage in sorted(given.keys() - stages):
            problem = f"There is no stage {stage!r}; there are {', '.join(sorted(stages))}."
            raise UsageError(where, problem, "Correct the stage's name.")
        shared.append({stage: options for stage, options in given.items() if stage in own})
    document = merge_documents([*shared, pipeline.with_shortcuts({}, shortcuts), single])
    pipeline.check_options(document)
    return document


def find_wrong_values(model: type[Options], given: Mapping[str, str]) -> str:
    """Return which values a command line of these options would refuse and why; else "".

    Names of other options, required options that are not given, and values that an engine fills in
    are not judged.
    """
    known = {
        name: value
        for name, value in model.drop_empty(given).items()
        if name in model.model_fields and "{{" not in str(value)
    }
    try:
        model.model_validate(known)
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["loc"] and item["type"] != "missing"]
        return "; ".join(describe_error(item) for item in wrong)
    return ""


def read_settings(texts: Iterable[str]) -> tuple[Document, dict[str, str]]:
    """Return STAGE.OPTION=VALUE as a document, NAME=VALUE by name; UsageError for others."""
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
