"""What every pod has: security context, folders, resources, retries, more memory if it ran out."""

from __future__ import annotations

from importlib.metadata import version
from itertools import groupby
from typing import Any

from hera.workflows import EmptyDirVolume, Env, RetryStrategy, models
from hera.workflows import Resources as PodResources
from hera.workflows.models.io.k8s.apimachinery.pkg.api.resource import Quantity

from contimg.runtime.child import LINEAR_ALGEBRA
from contimg.runtime.errors import MEANING, TRANSIENT, Exit
from contimg.runtime.stage import Resources
from contimg_workflows.tasks import RETRY_CAP_S, RETRY_FACTOR

VERSION = version("contimg")
USER = 10001
TMP, SCRATCH = "/tmp", "/scratch"  # noqa: S108 - in a pod of its own
OUTPUTS = f"{TMP}/outputs"
SEMAPHORES = "contimg-semaphores"
"""ConfigMap with the limits on how many pods of a kind run at a time."""
BACKFILL = "backfill"
"""Its key for the workflows that backfills start."""
OUT_OF_MEMORY = (int(Exit.NO_ROOM), 137)
"""After these exit codes the next try has more memory."""
ENVIRONMENT = {
    "CONTIMG_OUTPUTS": OUTPUTS,
    "CONTIMG_SCRATCH": SCRATCH,
    "CONTIMG_TERMINATION_LOG": "/dev/termination-log",
    **LINEAR_ALGEBRA,
    "CONTIMG_TEMPLATE_VERSION": VERSION,
}
"""The variables that do not depend on where the cluster's store is."""
SECONDS = (1.0, 5.0, 20.0, 60.0, 180.0, 600.0, 1800.0)
"""Bucket borders of the histogram of a stage's time."""
NEVER_RETRIED = RetryStrategy(limit="0", expression="false")
"""Of an entrypoint: its tasks are tried again, it is not."""
POD_SECURITY = models.PodSecurityContext(
    run_as_non_root=True,
    run_as_user=USER,
    run_as_group=USER,
    fs_group=USER,
    seccomp_profile=models.SeccompProfile(type="RuntimeDefault"),
)
"""What Pod Security "restricted" asks of a pod."""
CONTAINER_SECURITY = models.SecurityContext(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    run_as_non_root=True,
    capabilities=models.Capabilities(drop=["ALL"]),
)


def labels(component: str) -> dict[str, str]:
    """Return the labels of templates, runs and pods."""
    parts = {"name": "contimg", "part-of": "contimg", "component": component, "version": VERSION}
    return {f"app.kubernetes.io/{key}": value for key, value in parts.items()}


def pod_settings(resources: Resources) -> dict[str, Any]:
    """Return the arguments of a program's Container that its resources decide, or nothing does.

    It can write only to the two folders; scratch is memory.
    """
    memory, scratch = f"{resources.memory_mi}Mi", Quantity(f"{resources.scratch_mi}Mi")
    return {
        "env": [Env(name=key, value=value) for key, value in ENVIRONMENT.items()],
        "resources": PodResources(
            cpu_request=resources.cpu,
            memory_request=memory,
            memory_limit=memory,
            ephemeral_request="256Mi",
            ephemeral_limit="2Gi",
        ),
        "volumes": [
            EmptyDirVolume(name="tmp", mount_path=TMP, size_limit=Quantity("1Gi")),
            EmptyDirVolume(name="scratch", mount_path=SCRATCH, medium="Memory", size_limit=scratch),
        ],
        "retry_strategy": retry_strategy(),
        "pod_spec_patch": memory_retry_patch(resources),
        "active_deadline_seconds": resources.deadline_s,
        "pod_security_context": POD_SECURITY,
        "security_context": CONTAINER_SECURITY,
    }


def memory_retry_patch(resources: Resources) -> str:
    """Return the patch that gives try N, after one that ran out of memory, N times the memory.

    Only the limit grows: a pod that requests more than any node has would stay pending.
    """
    codes = ", ".join(f"'{code}'" for code in OUT_OF_MEMORY)
    factor = f"(lastRetry.exitCode in [{codes}] ? 1 + asInt(retries) : 1)"
    return f"""\
containers:
- name: main
  resources:
    limits:
      memory: "{{{{={resources.memory_mi} * {factor}}}}}Mi"
volumes:
- name: scratch
  emptyDir:
    sizeLimit: "{{{{={factor} * {resources.scratch_mi}}}}}Mi"
"""


def semaphore(kind: str) -> models.Synchronization:
    """Limit how many pods of a kind run at a time by the ConfigMap."""
    key = models.ConfigMapKeySelector(name=SEMAPHORES, key=kind)
    return models.Synchronization(semaphores=[models.SemaphoreRef(config_map_key_ref=key)])


def metrics(stage: str) -> models.Metrics:
    """Return a stage's Prometheus metrics: tries by status and exit code, and their seconds."""
    given = {"stage": stage, "status": "{{status}}", "exit": "{{exitCode}}"}
    named = [models.MetricLabel(key=key, value=value) for key, value in given.items()]
    ended = models.Prometheus(
        name="contimg_stage_total",
        help="Tries of a stage",
        labels=named,
        counter=models.Counter(value="1"),
    )
    timed = models.Prometheus(
        name="contimg_stage_seconds",
        help="Seconds of a try of a stage",
        labels=named[:2],
        histogram=models.Histogram(value="{{duration}}", buckets=list(SECONDS)),
    )
    return models.Metrics(prometheus=[ended, timed])


def retry_strategy() -> RetryStrategy:
    """Return the retry strategy of every stage and command, by the table of exit codes."""
    allowed = sorted((rule.limit, int(code)) for code, (_, rule) in MEANING.items() if rule.limit)
    terms = []
    for limit, group in groupby(allowed, key=lambda pair: pair[0]):
        codes = ", ".join(str(code) for _, code in group)
        # `retries` counts further tries.
        terms.append(f"(asInt(retries) < {limit} && asInt(lastRetry.exitCode) in [{codes}])")
    first, cap = f"{TRANSIENT.backoff_s:.0f}s", f"{RETRY_CAP_S:.0f}s"
    return RetryStrategy(
        limit=str(allowed[-1][0]),
        retry_policy="Always",
        expression=" || ".join(terms),
        backoff=models.Backoff(duration=first, factor=RETRY_FACTOR, cap=cap),
    )
