"""What every pod of ours has: its walls, its folders, what it may take, and more memory after it ran out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hera.workflows import EmptyDirVolume, Env, NoneArchiveStrategy, Resources, S3Artifact
from hera.workflows.models import (
    Capabilities,
    ConfigMapKeySelector,
    Counter,
    Histogram,
    MetricLabel,
    Metrics,
    PodSecurityContext,
    Prometheus,
    SeccompProfile,
    SecurityContext,
    SemaphoreRef,
    Synchronization,
)
from hera.workflows.models.io.k8s.apimachinery.pkg.api.resource import Quantity

from contimg.runtime.blas_env import LINEAR_ALGEBRA
from contimg.runtime.errors import Exit

USER = 10001
TMP, SCRATCH = "/tmp", "/scratch"  # noqa: S108 - in a pod of its own
OUTPUTS = f"{TMP}/outputs"
SEMAPHORES = "contimg-semaphores"
"""ConfigMap that says how many pods of a kind run at a time."""
KINDS = ("casa", "wsclean", "backfill")
"""Its keys."""
OUT_OF_MEMORY = (int(Exit.NO_ROOM), 137)
"""After these exit codes the next try has more memory."""
POD_ENVIRONMENT = {
    "CONTIMG_OUTPUTS": OUTPUTS,
    "CONTIMG_SCRATCH": SCRATCH,
    "CONTIMG_TERMINATION_LOG": "/dev/termination-log",
}
ENVIRONMENT = {**POD_ENVIRONMENT, **LINEAR_ALGEBRA}
VERSION_VARIABLE = "CONTIMG_TEMPLATE_VERSION"
SECONDS = (1.0, 5.0, 20.0, 60.0, 180.0, 600.0, 1800.0)
"""Borders of the histogram of a stage's time."""


@dataclass(frozen=True)
class Needs:
    """What a stage may take, for a full-size group."""

    deadline_s: int
    """A try that runs longer is ended."""
    memory_mi: int
    """Limit, MiB; files in memory scratch count, too."""
    scratch_mi: int = 64
    """How much of it scratch may take, MiB."""
    cpu: str = "1"
    semaphore: str = ""
    """One of `KINDS`, for pods that only a few of may run at a time."""
    views: tuple[str, ...] = ()
    """Files of the artifact that a person opens in the UI."""


def labels(component: str, version: str) -> dict[str, str]:
    """Return the labels of templates, runs and pods."""
    return {
        "app.kubernetes.io/name": "contimg",
        "app.kubernetes.io/part-of": "contimg",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": version,
    }


def walls() -> dict[str, Any]:
    """Return what Pod Security "restricted" asks of a pod and its container, and a root that nobody writes to."""
    return {
        "pod_security_context": PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        "security_context": SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
            capabilities=Capabilities(drop=["ALL"]),
        ),
    }


def folders(needs: Needs) -> list[EmptyDirVolume]:
    """Return the only places that can be written to; scratch is memory."""
    return [
        EmptyDirVolume(name="tmp", mount_path=TMP, size_limit=Quantity("1Gi")),
        EmptyDirVolume(
            name="scratch",
            mount_path=SCRATCH,
            medium="Memory",
            size_limit=Quantity(f"{needs.scratch_mi}Mi"),
        ),
    ]


def resources(needs: Needs) -> Resources:
    """Return what a pod is promised and what it may not exceed."""
    return Resources(
        cpu_request=needs.cpu,
        memory_request=f"{needs.memory_mi}Mi",
        memory_limit=f"{needs.memory_mi}Mi",
        ephemeral_request="256Mi",
        ephemeral_limit="2Gi",
    )


def environment(version: str) -> list[Env]:
    """Return the variables that do not depend on where the cluster's store is."""
    return [
        Env(name=key, value=value)
        for key, value in {**ENVIRONMENT, VERSION_VARIABLE: version}.items()
    ]


def ramp(needs: Needs) -> str:
    """Return the patch that gives the second, third, … try two, three, … times the memory, if the one before ran out of it.

    The limit alone grows: a pod that asked for more than any node has would wait for ever.
    """
    codes = ", ".join(f"'{code}'" for code in OUT_OF_MEMORY)
    factor = f"(lastRetry.exitCode in [{codes}] ? 1 + asInt(retries) : 1)"
    return "\n".join(
        [
            "containers:",
            "- name: main",
            "  resources:",
            "    limits:",
            f'      memory: "{{{{={needs.memory_mi} * {factor}}}}}Mi"',
            "volumes:",
            "- name: scratch",
            "  emptyDir:",
            f'    sizeLimit: "{{{{={factor} * {needs.scratch_mi}}}}}Mi"',
            "",
        ]
    )


def semaphore(kind: str) -> Synchronization:
    """Let only so many pods of a kind run at a time as the ConfigMap says."""
    key = ConfigMapKeySelector(name=SEMAPHORES, key=kind)
    return Synchronization(semaphores=[SemaphoreRef(config_map_key_ref=key)])


def artifacts(needs: Needs) -> list[S3Artifact]:
    """Return what the Argo UI shows: the summary and the pictures and pages that the contract hands over."""
    return [
        S3Artifact(
            name=name.partition(".")[0],
            path=f"{OUTPUTS}/{name}",
            key=f"argo/{{{{workflow.name}}}}/{{{{pod.name}}}}/{name}",
            archive=NoneArchiveStrategy(),
            optional=True,
        )
        for name in ("summary.json", *needs.views)
    ]


def metrics(stage: str) -> Metrics:
    """Return what Prometheus may ask the controller about a stage: how often it ended how, and its time."""
    named = [MetricLabel(key="stage", value=stage), MetricLabel(key="status", value="{{status}}")]
    coded = [*named, MetricLabel(key="exit", value="{{exitCode}}")]
    ended = Prometheus(
        name="contimg_stage_total",
        help="Tries of a stage",
        labels=coded,
        counter=Counter(value="1"),
    )
    timed = Prometheus(
        name="contimg_stage_seconds",
        help="Seconds of a try of a stage",
        labels=named,
        histogram=Histogram(value="{{duration}}", buckets=list(SECONDS)),
    )
    return Metrics(prometheus=[ended, timed])
