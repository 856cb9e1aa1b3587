"""What the service tells Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from contimg_watch.plan import State

if TYPE_CHECKING:
    from datetime import datetime

    from contimg_watch.plan import Plan
    from contimg_watch.stage import Watcher

NAME = "contimg_watch_"
SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._passes = Counter(
            f"{NAME}passes", "Looks at the store, by result", ["result"], registry=own
        )
        self._seconds = Histogram(
            f"{NAME}pass_seconds", "Seconds of a look at the store", registry=own, buckets=SECONDS
        )
        self._success = Gauge(
            f"{NAME}last_success_timestamp_seconds",
            "Unix time of the last look that succeeded",
            registry=own,
        )
        self._groups = Gauge(
            f"{NAME}groups",
            "Groups at the last look at the whole store, by state",
            ["state"],
            registry=own,
        )
        self._quarantined = Gauge(
            f"{NAME}quarantined", "Objects that are no part of any group", registry=own
        )
        self._oldest = Gauge(
            f"{NAME}oldest_waiting_seconds",
            "Longest since a subband came of a group that lacks some",
            registry=own,
        )
        self._records = Counter(f"{NAME}records", "Attempts recorded", registry=own)
        self._posts = Counter(
            f"{NAME}posts",
            "Attempts posted, and passes in which nobody took them",
            ["result"],
            registry=own,
        )
        self._unposted = Gauge(f"{NAME}unposted", "Attempts that nobody took yet", registry=own)
        self._notifications = Counter(
            f"{NAME}notifications", "Notifications of new objects", registry=own
        )
        self._told = (0, 0)
        for state in State:
            self._groups.labels(state)
        for result in ("ok", "failed"):
            self._passes.labels(result)
            self._posts.labels(result)

    def passed(self, *, good: bool, seconds: float, watcher: Watcher) -> None:
        """Count a pass."""
        self._passes.labels("ok" if good else "failed").inc()
        self._seconds.observe(seconds)
        if good:
            self._success.set_to_current_time()
        told = (len(watcher.written), len(watcher.posted))
        self._records.inc(told[0] - self._told[0])
        self._posts.labels("ok").inc(told[1] - self._told[1])
        self._told = told
        if watcher.failure is not None:
            self._posts.labels("failed").inc()
        self._unposted.set(len(watcher.unposted))

    def planned(self, plan: Plan, now: datetime, timeout_s: float) -> None:
        """Show what a look at the whole store found."""
        for state in State:
            self._groups.labels(state).set(sum(group.state is state for group in plan.groups))
        self._quarantined.set(len(plan.quarantined))
        untils = [group.until for group in plan.groups if group.state is State.WAITING]
        self._oldest.set(
            max(0.0, (now - min(untils)).total_seconds() + timeout_s) if untils else 0.0
        )

    def notified(self) -> None:
        """Count a notification."""
        self._notifications.inc()

    def page(self) -> tuple[bytes, str]:
        """Return the text that Prometheus reads, and its type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
