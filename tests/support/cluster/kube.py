"""The cluster of the current kube context, by kubectl and helm; nothing here knows contimg."""

from __future__ import annotations

import atexit
import functools
import http
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
KIT = ROOT.parent / "shared" / "cluster"
"""Scripts that bring up a cluster on one machine, where they exist."""
WORKFLOWS = "workflows.argoproj.io"
APIS = {
    "pods": "api/v1",
    "configmaps": "api/v1",
    "deployments": "apis/apps/v1",
    "workflows": "apis/argoproj.io/v1alpha1",
    "workflowtemplates": "apis/argoproj.io/v1alpha1",
}
"""Where the API server has the kinds that tests look at."""
Answer = TypeVar("Answer")


class KubeError(AssertionError):
    """A command of kubectl, helm or the kit failed."""


@functools.cache
def environment() -> dict[str, str]:
    """Return the environment for kubectl and helm: the kit's if its cluster runs, else ours."""
    ours = dict(os.environ)
    if "KUBECONFIG" in ours or not (KIT / "env").is_file():
        return ours
    script = f'eval "$({KIT}/env)" && env -0'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    kits = dict(pair.partition("=")[::2] for pair in done.stdout.split("\0") if "=" in pair)
    return {**ours, **kits} if Path(kits.get("KUBECONFIG", "/absent")).is_file() else ours


@functools.cache
def missing() -> str:
    """Return why the cluster tests cannot run; empty if a cluster with Argo Workflows answers."""
    env = environment()
    for program in ("kubectl", "helm"):
        if shutil.which(program, path=env.get("PATH")) is None:
            return f"there is no {program}"
    argv = ["kubectl", "get", "crd", WORKFLOWS, "--request-timeout=5s", "-o", "name"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=60)
    if done.returncode == 0:
        return ""
    why = "has no Argo Workflows" if "NotFound" in done.stderr else "does not answer"
    return f"the current kube context {why}"


def run(
    *argv: str | Path, stdin: str | None = None, timeout_s: float = 120, check: bool = True
) -> str:
    """Run a program in the cluster's environment and return what it printed.

    Raises
    ------
    KubeError
        If it failed, with what it said.
    """
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode:
        raise KubeError(
            f"{' '.join(words)} → {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


@functools.cache
def _proxy() -> str:
    """Return the address of a proxy to the API server: kubectl takes 0.1 s a call."""
    program = subprocess.Popen(
        ["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True, env=environment()
    )
    atexit.register(program.kill)
    assert program.stdout is not None
    said = program.stdout.readline()
    if "Starting to serve on " not in said:
        raise KubeError(f"kubectl proxy does not begin: {said}")
    return f"http://{said.split()[-1]}"


def look(path: str) -> dict[str, Any] | None:
    """Return what the API server has at a path, or None.

    Raises
    ------
    KubeError
        If it does not answer, or refuses.
    """
    try:
        with urllib.request.urlopen(f"{_proxy()}/{path}", timeout=60) as answer:  # noqa: S310 - http on loopback
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND:
            return None
        raise KubeError(f"{path}: {error}\n{error.read().decode()[-2000:]}") from error
    except OSError as error:
        raise KubeError(f"{path}: {error}") from error


def wait_until(
    what: str, ask: Callable[[], Answer | None], within_s: float, every_s: float = 1.0
) -> Answer:
    """Ask again and again until there is an answer.

    Raises
    ------
    TimeoutError
        If there is none in time.
    """
    end = time.monotonic() + within_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        time.sleep(every_s)


@dataclass(frozen=True)
class Kube:
    """One namespace."""

    namespace: str

    def ctl(
        self, *words: str, stdin: str | None = None, check: bool = True, timeout_s: float = 120
    ) -> str:
        """Run kubectl in the namespace."""
        argv = ["kubectl", "--namespace", self.namespace, *words]
        return run(*argv, stdin=stdin, check=check, timeout_s=timeout_s)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None if it does not exist."""
        return look(f"{self._path(kind)}/{name}")

    def all(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects with these labels."""
        found = look(f"{self._path(kind)}?labelSelector={quote(selector)}") or {}
        items: list[dict[str, Any]] = found["items"]
        return items

    def _path(self, kind: str) -> str:
        return f"{APIS[kind]}/namespaces/{self.namespace}/{kind}"

    def apply(self, *documents: dict[str, Any]) -> None:
        """Create or change objects."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.ctl("apply", "-f", "-", stdin=json.dumps(whole))

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> None:
        """Merge a change into an object."""
        self.ctl("patch", kind, name, "--type", "merge", "-p", json.dumps(change))

    def kill(self, pod: str, *, grace_s: int = 0) -> None:
        """Delete a pod, at once by default; one that is gone already is no error."""
        options = ["--wait=false", "--ignore-not-found", *(["--force"] if grace_s == 0 else [])]
        self.ctl("delete", "pod", pod, f"--grace-period={grace_s}", *options)

    def pods(self, selector: str, phase: str = "") -> list[str]:
        """Return the names of the pods with these labels that are not being deleted."""
        return [
            str(pod["metadata"]["name"])
            for pod in self.all("pods", selector)
            if "deletionTimestamp" not in pod["metadata"]
            and phase in {"", pod["status"].get("phase")}
        ]

    def rolled_out(self, deployment: str, within_s: float = 120) -> None:
        """Wait until a deployment is ready."""
        words = ["rollout", "status", f"deployment/{deployment}", f"--timeout={within_s:.0f}s"]
        self.ctl(*words, timeout_s=within_s + 30)
