"""Times of one small group on a quiet cluster; run by its name (README.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from cluster.groups import key_of
from cluster.site import Done, Figure

pytestmark = pytest.mark.cluster
MAX_START_S, MAX_OVERHEAD_S, MAX_CACHED_S = 10.0, 60.0, 60.0


def wall_seconds(status: dict[str, Any]) -> float:
    ended, begun = (datetime.fromisoformat(status[name]) for name in ("finishedAt", "startedAt"))
    return (ended - begun).total_seconds()


def test_workflow_starts_within_limit(done: Done, figure: Figure) -> None:
    keys = {key_of(path) for path in done.night.files}
    last = max(e.modified for e in done.site.store.entries("incoming/") if e.key in keys)
    (record,) = done.site.store.entries(f"groups/{done.run}.json")
    begun = datetime.fromisoformat(done.workflow["status"]["startedAt"])
    waited_s = (begun - record.modified).total_seconds()
    limit = f"limit {MAX_START_S:.0f} s, clock of 1 s"
    figure("record in the store to workflow start", f"{waited_s:.1f} s ({limit})")
    figure("16th file in the bucket to workflow start", f"{(begun - last).total_seconds():.1f} s")
    assert waited_s <= MAX_START_S


def test_overhead_of_argo_is_within_limit(done: Done, figure: Figure) -> None:
    """The group's wall time without the seconds in which the stages worked, by their own clocks."""
    manifests = done.site.manifests(done.night.id)
    own = {stage: made[0]["usage"]["wall_s"] for stage, made in manifests.items()}
    travel_s = sum(
        value
        for made in manifests.values()
        for step, value in made[0]["seconds"].items()
        if step in {"fetch", "store", "bring subbands", "read"}
    )
    wall_s = wall_seconds(done.workflow["status"])
    overhead_s = wall_s - sum(own.values())
    stages = f"stages {sum(own.values()):.0f} s {dict(sorted(own.items()))}"
    figure("one small group, wall", f"{wall_s:.0f} s, {stages}")
    figure("Argo's overhead on it", f"{overhead_s:.0f} s (limit {MAX_OVERHEAD_S:.0f} s)")
    figure("of the stages' own, reading and storing artifacts", f"{travel_s:.1f} s")
    assert overhead_s <= MAX_OVERHEAD_S


def test_cached_attempt_is_within_limit(done: Done, figure: Figure) -> None:
    workflow = done.site.succeeded(done.site.reprocess(done.night.id))
    wall_s = wall_seconds(workflow["status"])
    figure("the same group again (cached)", f"{wall_s:.0f} s (limit {MAX_CACHED_S:.0f} s)")
    assert wall_s <= MAX_CACHED_S
