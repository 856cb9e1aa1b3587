"""From a command line to a service, a folder of runs, and the arguments of a template."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from contimg.runtime.command import commands
from contimg.runtime.config import merge_documents, read_document
from contimg.runtime.directory import DirectoryStore
from contimg.runtime.errors import UsageError
from contimg.runtime.options import describe_error
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import open_store
from contimg_runs.argo import ArgoServer, EngineError
from contimg_runs.resolve import read_settings, resolve_options
from contimg_runs.state import RunState
from contimg_workflows.forms import PREFIX, Form, fill_form, pipeline_of, word_of
from contimg_workflows.local import LocalService
from contimg_workflows.options import EngineOptions, SettingOptions

Service = LocalService | ArgoServer
"""Runs workflows of our templates, and knows their states."""
PATIENCE_S = 60.0
"""How long to keep retrying an unreachable engine."""
TICK_S = 1.0
NAMESPACE = "contimg"
FALSE = {"false", "0", "no"}


def service_of(prog: str, options: EngineOptions, env: Mapping[str, str]) -> Service:
    """Return the requested engine; UsageError if its store, folder or server is not named."""
    server = options.argo or env.get("ARGO_SERVER")
    default = "argo" if options.argo or (server and options.runs is None) else "local"
    if (options.engine or default) == "local":
        return LocalService(runs_folder(prog, options.store, options.runs), env, options.jobs)
    if not server:
        problem = "No Argo Server is named, by --argo URL or by ARGO_SERVER."
        raise UsageError(prog, problem, "Name it, such as https://argo.example:2746.")
    if "://" not in server:  # the argo program's own variable holds host:port
        secure = env.get("ARGO_SECURE", "").lower() not in FALSE
        server = f"{'https' if secure else 'http'}://{server}"
    if not server.startswith(("http://", "https://")):
        problem = f"An Argo Server's URL is http://HOST:PORT or https://HOST:PORT, not {server}."
        raise UsageError(prog, problem, "Correct --argo or ARGO_SERVER.")
    namespace = options.namespace or env.get("ARGO_NAMESPACE") or NAMESPACE
    token = options.token or env.get("ARGO_TOKEN") or None
    verify = env.get("ARGO_INSECURE_SKIP_VERIFY", "").lower() not in {"true", "1", "yes"}
    return ArgoServer(server, namespace, token, verify=verify)


def poll_until_answered(service: Service, name: str, patience_s: float = PATIENCE_S) -> RunState:
    """Return the state of a workflow; an unreachable engine is asked again for some time.

    Raises
    ------
    EngineError
        If it does not answer in that time.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return service.state(name)
        except EngineError:
            if time.monotonic() > until:
                raise
        time.sleep(TICK_S)


def runs_folder(prog: str, store: str | None, runs: str | None) -> Path:
    """Return the folder of states and logs; UsageError if neither it nor a store is named."""
    if runs is not None:
        return Path(runs).absolute()
    if store is None:
        remedy = "Name the store that was run on; or an Argo Server, by --argo or ARGO_SERVER."
        raise UsageError(prog, "Neither --store nor --runs is given.", remedy)
    opened = open_store(store)
    is_directory = isinstance(opened, DirectoryStore)
    return Path(opened.root) / "runs" if is_directory else Path("contimg-runs").absolute()


def template_arguments(
    template: str,
    form: Form,
    options: SettingOptions,
    own: Mapping[str, str],
    env: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return the arguments of a template that a command line gives, checked before anything starts.

    Parameters
    ----------
    own
        Arguments that the command sets itself.
    env
        Where profiles are defined; None: elsewhere, so that their names cannot be checked here.

    Raises
    ------
    UsageError
        If a parameter, stage, option or profile is unknown, or a value is missing or out of range.
    """
    single, named = read_settings(options.set)
    pipeline = pipeline_of(template)
    if pipeline is None:
        name = template.removeprefix(PREFIX)
        section = read_document(options.config).get(name, {})
        settings = {**section, **single.pop(name, {}), **named}
        given = {key.replace("-", "_"): word_of(value) for key, value in settings.items()}
        if single:
            problem = f"There is no stage {next(iter(single))!r} in {template}."
            raise UsageError("--set", problem, "Write NAME=VALUE.")
        given |= own
        values = fill_form(template, form, given)
        program = stage_specs().get(name) or commands().get(name)
        try:
            if program is not None:
                words = {key: value for key, value in values.items() if value != ""}
                program.options.model_validate(words)
        except ValidationError as error:
            reasons = "; ".join(map(describe_error, error.errors()))
            raise UsageError(template, f"{reasons}.", "Correct the value.") from error
        return given
    given = {**named, **({"profile": options.profile} if options.profile else {}), **own}
    if options.config or single:
        # The chart may have set options of its own, which single ones replace.
        before = given.get("options") or form["options"].default or ""
        documents = [read_document(before), read_document(options.config), single]
        given["options"] = json.dumps(merge_documents(documents))
    fill_form(template, form, given)
    pipeline.check_options(single, "--set")
    shortcuts = [f"{one.name}={given.get(one.name, '')}" for one in pipeline.shortcuts]
    profile = given.get("profile", "") if env is not None else ""
    resolve_options(pipeline, given.get("options", ""), profile, env, shortcuts)
    return given
