"""Which engine a command speaks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options
from contimg_workflows.cli.words import runs_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg_workflows.service import Service

NAMESPACE = "contimg"
NO = {"false", "0", "no"}


class EngineOptions(Options):
    """Where workflows run."""

    engine: Literal["local", "argo"] | None = None
    """Processes of this machine, or Argo; default: Argo where --argo or ARGO_SERVER names a server and --runs no folder."""
    argo: str | None = None
    """URL of the Argo Server; default: ARGO_SERVER, with https where it names no scheme (http if ARGO_SECURE is false)."""
    namespace: str | None = None
    """Namespace of the chart; default: ARGO_NAMESPACE, else contimg."""
    token: str | None = None
    """Bearer token for the Argo Server; default: ARGO_TOKEN, which no list of processes shows."""
    store: str | None = None
    """Root URI of the store; on Argo by default the one that the chart was given."""
    runs: str | None = None
    """Folder of the local engine's states and logs; default: STORE/runs, or ./contimg-runs where the store is no directory."""
    jobs: int = Field(default=2, ge=1)
    """Processes side by side that the local engine starts."""


def engine_of(options: EngineOptions, env: Mapping[str, str]) -> Literal["local", "argo"]:
    """Return the engine that is meant."""
    if options.engine is not None:
        return options.engine
    server = options.argo or (env.get("ARGO_SERVER") if options.runs is None else None)
    return "argo" if server else "local"


def service_of(prog: str, options: EngineOptions, env: Mapping[str, str]) -> Service:
    """Return the engine that is meant.

    Raises
    ------
    UsageError
        If it lacks its place: a store or a folder of runs, or a server.
    """
    if engine_of(options, env) == "local":
        from contimg_workflows.local import (
            LocalService,
        )  # Hera is slow to import, and --help needs none

        runs = runs_folder(prog, options.store, options.runs)
        return LocalService(runs, env, options.jobs)
    from contimg_runs.argo import ArgoServer
    from contimg_workflows.argo import Parameter

    class ArgoService(ArgoServer):
        def parameters(self, template: str) -> tuple[Parameter, ...]:
            return tuple(
                Parameter(
                    name=one.name, value=one.default, description=one.description, enum=one.choices
                )
                for one in self.form(template).values()
            )

    namespace = options.namespace or env.get("ARGO_NAMESPACE") or NAMESPACE
    token = options.token or env.get("ARGO_TOKEN") or None
    verify = env.get("ARGO_INSECURE_SKIP_VERIFY", "").lower() not in {"true", "1", "yes"}
    return ArgoService(
        _url(prog, options.argo or env.get("ARGO_SERVER"), env), namespace, token, verify=verify
    )


def _url(prog: str, server: str | None, env: Mapping[str, str]) -> str:
    """Return the server's URL; the argo program's own variable holds host:port."""
    if not server:
        raise UsageError(
            prog,
            "expected --argo URL or ARGO_SERVER, found neither.",
            "Name the Argo Server, such as https://argo.example:2746.",
        )
    if "://" not in server:
        return f"{'http' if env.get('ARGO_SECURE', '').lower() in NO else 'https'}://{server}"
    if not server.startswith(("http://", "https://")):
        raise UsageError(
            prog,
            f"expected http://HOST:PORT or https://HOST:PORT, found {server}.",
            "Correct --argo or ARGO_SERVER.",
        )
    return server
