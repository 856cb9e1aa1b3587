"""What every pod has: security context, folders, resources, retries, more memory if it ran out."""

from __future__ import annotations

from typing import Any

from hera.workflows import EmptyDirVolume, Env, NoneArchiveStrategy, RetryStrategy, S3Artifact
from hera.workflows import Resources as PodResources
from hera.workflows.models import (
    Backoff,
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

from contimg.runtime.child import LINEAR_ALGEBRA
from contimg.runtime.errors import MEANING, TRANSIENT, Exit
from contimg.runtime.stage import Resources
from contimg_workflows import retry

USER = 10001
TMP, SCRATCH = "/tmp", "/scratch"  # noqa: S108 - in a pod of its own
OUTPUTS = f"{TMP}/outputs"
SEMAPHORES = "contimg-semaphores"
"""ConfigMap with the limits on how many pods of a kind run at a time."""
BACKFILL = "backfill"
"""Its key for the workflows that backfills start."""
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
"""Bucket borders of the histogram of a stage's time."""


def labels(component: str, version: str) -> dict[str, str]:
    """Return the labels of templates, runs and pods."""
    return {
        "app.kubernetes.io/name": "contimg",
        "app.kubernetes.io/part-of": "contimg",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": version,
    }


def restricted_security_context() -> dict[str, Any]:
    """Return what Pod Security "restricted" asks of a pod, with a read-only root."""
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


def folders(resources: Resources) -> list[EmptyDirVolume]:
    """Return the only places that can be written to; scratch is memory."""
    return [
        EmptyDirVolume(name="tmp", mount_path=TMP, size_limit=Quantity("1Gi")),
        EmptyDirVolume(
            name="scratch",
            mount_path=SCRATCH,
            medium="Memory",
            size_limit=Quantity(f"{resources.scratch_mi}Mi"),
        ),
    ]


def requests_and_limits(resources: Resources) -> PodResources:
    """Return a pod's requests and limits."""
    return PodResources(
        cpu_request=resources.cpu,
        memory_request=f"{resources.memory_mi}Mi",
        memory_limit=f"{resources.memory_mi}Mi",
        ephemeral_request="256Mi",
        ephemeral_limit="2Gi",
    )


def environment(version: str) -> list[Env]:
    """Return the variables that do not depend on where the cluster's store is."""
    return [
        Env(name=key, value=value)
        for key, value in {**ENVIRONMENT, VERSION_VARIABLE: version}.items()
    ]


def memory_retry_patch(resources: Resources) -> str:
    """Return the patch that gives try N, after one that ran out of memory, N times the memory.

    Only the limit grows: a pod that requests more than any node has would stay pending.
    """
    codes = ", ".join(f"'{code}'" for code in OUT_OF_MEMORY)
    factor = f"(lastRetry.exitCode in [{codes}] ? 1 + asInt(retries) : 1)"
    return "\n".join(
        [
            "containers:",
            "- name: main",
            "  resources:",
            "    limits:",
            f'      memory: "{{{{={resources.memory_mi} * {factor}}}}}Mi"',
            "volumes:",
            "- name: scratch",
            "  emptyDir:",
            f'    sizeLimit: "{{{{={factor} * {resources.scratch_mi}}}}}Mi"',
            "",
        ]
    )


def semaphore(kind: str) -> Synchronization:
    """Limit how many pods of a kind run at a time by the ConfigMap."""
    key = ConfigMapKeySelector(name=SEMAPHORES, key=kind)
    return Synchronization(semaphores=[SemaphoreRef(config_map_key_ref=key)])


def artifacts(views: tuple[str, ...]) -> list[S3Artifact]:
    """Return the files that the Argo UI shows: the summary, and the stage's pictures and pages."""
    return [
        S3Artifact(
            name=name.partition(".")[0],
            path=f"{OUTPUTS}/{name}",
            key=f"argo/{{{{workflow.name}}}}/{{{{pod.name}}}}/{name}",
            archive=NoneArchiveStrategy(),
            optional=True,
        )
        for name in ("summary.json", *views)
    ]


def metrics(stage: str) -> Metrics:
    """Return a stage's Prometheus metrics: tries by status and exit code, and their seconds."""
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


def retry_strategy() -> RetryStrategy:
    """Return the retry strategy of every stage and command."""
    return RetryStrategy(
        limit=str(max(rule.limit for _, rule in MEANING.values())),
        retry_policy="Always",
        expression=retry.expression(),
        backoff=Backoff(
            duration=f"{TRANSIENT.backoff_s:.0f}s", factor=retry.FACTOR, cap=f"{retry.CAP_S:.0f}s"
        ),
    )


def never_retried() -> RetryStrategy:
    """Return the strategy of an entrypoint: its tasks are tried again, it is not."""
    return RetryStrategy(limit="0", expression="false")
