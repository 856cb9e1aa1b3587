"""The metrics of the service for Prometheus."""

from datetime import datetime
from functools import partial

import prometheus_client as prometheus

from contimg_watch.plan import PlanState, WatchPlan
from contimg_watch.stage import Watcher

NAMESPACE = "contimg_watch"
BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        gauge = partial(prometheus.Gauge, namespace=NAMESPACE, registry=registry)
        counter = partial(prometheus.Counter, namespace=NAMESPACE, registry=registry)
        histogram = partial(prometheus.Histogram, namespace=NAMESPACE, registry=registry)

        self._passes = counter("passes", "Passes over the store, by result", ["result"])
        text = "Seconds of a pass over the store"
        self._seconds = histogram("pass_seconds", text, buckets=BUCKETS_S)
        text = "Unix time of the last pass that succeeded"
        self._success = gauge("last_success_timestamp_seconds", text)
        text = "Groups at the last pass over the whole store, by state"
        self._groups = gauge("groups", text, ["state"])
        self._quarantined = gauge("quarantined", "Objects that belong to no group")
        text = "Longest time since a subband came of a group that lacks some"
        self._oldest = gauge("oldest_waiting_seconds", text)
        self._records = counter("records", "Attempts recorded")
        text = "Attempts posted, and passes in which a post failed"
        self._posts = counter("posts", text, ["result"])
        self._unposted = gauge("unposted", "Attempts that are not posted yet")
        self._notifications = counter("notifications", "Notifications of new objects")
        self._counted = (0, 0)
        for state in PlanState:
            self._groups.labels(state)
        for result in ("ok", "failed"):
            self._passes.labels(result)
            self._posts.labels(result)

    def count_pass(self, *, good: bool, seconds: float, watcher: Watcher) -> None:
        """Count a pass, and what the watcher recorded and posted since the last one."""
        self._passes.labels("ok" if good else "failed").inc()
        self._seconds.observe(seconds)
        if good:
            self._success.set_to_current_time()
        records, posts = len(watcher.written), len(watcher.posted)
        self._records.inc(records - self._counted[0])
        self._posts.labels("ok").inc(posts - self._counted[1])
        self._counted = (records, posts)
        if watcher.failure is not None:
            self._posts.labels("failed").inc()
        self._unposted.set(len(watcher.unposted))

    def show_plan(self, plan: WatchPlan, now: datetime, timeout_s: float) -> None:
        """Show what a pass over the whole store found."""
        for state in PlanState:
            self._groups.labels(state).set(sum(group.state is state for group in plan.groups))
        self._quarantined.set(len(plan.quarantined))
        untils = [group.until for group in plan.groups if group.state is PlanState.WAITING]
        oldest_s = (now - min(untils)).total_seconds() + timeout_s if untils else 0.0
        self._oldest.set(max(0.0, oldest_s))

    def count_notification(self) -> None:
        """Count a notification."""
        self._notifications.inc()

    def render(self) -> tuple[bytes, str]:
        """Return the text that Prometheus reads, and its type."""
        text = prometheus.generate_latest(self._registry)
        return text, prometheus.exposition.CONTENT_TYPE_PLAIN_0_0_4
