# ruff: noqa: INP001 - a script, in no package
"""Check the store and the options of an installation; helm runs this before each install."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from contimg.runtime.command import Command, commands
from contimg.runtime.config import PROFILES_VARIABLE, read_yaml
from contimg.runtime.console import Console
from contimg.runtime.contract import run_command
from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import open_store
from contimg_runs.pipelines import PIPELINES
from contimg_runs.resolve import find_wrong_values, resolve_options
from contimg_watch.probe import probe


class PreflightOptions(Options):
    """Check a store, and options of stages, before anything depends on them."""

    store: str
    """Root URI of the store."""
    options: str = ""
    """Options of the stages for all pipelines, YAML."""
    parameters: str = ""
    """Defaults of the templates' parameters, YAML: {name: value}."""


def check(options: PreflightOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check options, profiles and parameters; of 32 writers of one object one may win."""
    names = read_yaml(env.get(PROFILES_VARIABLE, "")) or {}
    for pipeline in PIPELINES.values():
        for name in ["", *names]:
            resolve_options(pipeline, options.options, name, env)
    models: list[type[Options]] = [spec.options for spec in stage_specs().values()]
    models += [command.options for command in commands().values()]
    given = read_yaml(options.parameters) or {}
    wrong = [check_parameter(models, name, value) for name, value in given.items()]
    if any(wrong):
        problem = f"{'; '.join(filter(None, wrong))}."
        raise UsageError("parameters", problem, "Correct the values.")
    store = open_store(options.store)
    probe(store)
    console.log.info("%s: reached, and exactly one of many writers wins", store.root)
    return {"stage": "preflight", "store": store.root}


def check_parameter(models: Iterable[type[Options]], name: str, value: str) -> str:
    """Return what is wrong with a value if no model that has an option of this name takes it."""
    takers = [model for model in models if name in model.model_fields]
    problems = [find_wrong_values(model, {name: value}) for model in takers]
    return problems[-1] if problems and all(problems) else ""


if __name__ == "__main__":
    sys.exit(run_command(Command(name="preflight", options=PreflightOptions, run="__main__:check")))
