"""Random order, duplicates, a late file, dying pods: one successful run per group."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cluster.argo import nodes
from cluster.chaos import Chaos
from cluster.groups import Night, key_of, shuffled, upload
from cluster.kube import Kube, look, wait_until
from cluster.site import Site
from contimg.records.groups import subband_name

pytestmark = pytest.mark.cluster
SEED = 20260126
LATE = 11
"""The subband of the partial group that comes late."""
PAUSES_S = (0.0, 0.6)
"""Between two files: 48 of them take a quarter of a minute."""


@dataclass
class Story:
    """What was done, and the site on which it happened."""

    site: Site
    whole: list[Night]
    """Complete from the start."""
    partial: Night
    """15 subbands; the 16th came after its first run."""
    orphan: Night
    """Watch died between its put and its post."""
    duplicate: str
    """Key of a second file of one subband."""
    killed: list[tuple[float, str]]

    @property
    def nights(self) -> list[Night]:
        return [*self.whole, self.partial, self.orphan]


def find_controller() -> tuple[Kube, str]:
    """Return namespace and labels of Argo's workflow controller."""
    for pod in (look("api/v1/pods") or {})["items"]:
        if any("workflow-controller" in one["image"] for one in pod["spec"]["containers"]):
            labels = pod["metadata"]["labels"].items()
            selector = [f"{key}={value}" for key, value in labels if not key.endswith("-hash")]
            return Kube(pod["metadata"]["namespace"]), ",".join(selector)
    raise LookupError("no pod runs a workflow-controller")


def twin(night: Night, index: int) -> tuple[str, Path]:
    """Return a second file of one subband, as another node's clock would name it."""
    path = next(path for path in night.files if f"_sb{index:02d}" in path.name)
    name = subband_name(path.name)
    assert name is not None
    stamp: datetime = name.stamp + timedelta(seconds=7)
    return key_of(Path(f"{stamp:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5")), path


def arrive(site: Site, files: list[Path]) -> None:
    """Upload with pauses; some files twice, as a client that lost an answer does."""
    dice = random.Random(SEED)  # noqa: S311 - repeatable
    for path in files:
        upload(site.store, [path] if dice.random() < 0.8 else [path, path])
        time.sleep(dice.uniform(*PAUSES_S))


def post_into_nothing(site: Site) -> Callable[[], None]:
    """Let watch post to an address without a listener; return what undoes that."""
    deployment = site.kube.get("deployments", "contimg-watch")
    assert deployment is not None
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    (place,) = [n for n, word in enumerate(args) if word.startswith("--post=")]
    path = f"/spec/template/spec/containers/0/args/{place}"

    def put(word: str) -> None:
        change = json.dumps([{"op": "replace", "path": path, "value": word}])
        site.kube.ctl("patch", "deployment", "contimg-watch", "--type", "json", "-p", change)
        site.kube.rolled_out("contimg-watch")

    put("--post=http://127.0.0.1:9/group")
    return lambda: put(args[place])


def die_between_put_and_post(site: Site, night: Night) -> None:
    """Upload a group, and kill watch when its record is there and its event is not."""
    restore = post_into_nothing(site)
    upload(site.store, night.files)
    wait_until("the record of the orphan", lambda: f"{night.id}-a1" in site.runs(), 60, every_s=0.2)
    for pod in site.kube.pods("app.kubernetes.io/component=watch"):
        site.kube.kill(pod)
    assert site.kube.get("workflows", f"contimg-{night.id}-a1") is None
    restore()


@pytest.fixture(scope="module")
def story(site: Site) -> Story:
    # Many events are lost here: let the sweep run every minute.
    site.kube.patch("cronworkflow", "contimg-sweep", {"spec": {"schedules": ["* * * * *"]}})
    whole = [Night("2026-01-26"), Night("2026-01-27")]
    partial, orphan = Night("2026-01-28"), Night("2026-01-29")
    late = [path for path in partial.files if f"_sb{LATE:02d}" in path.name]
    early = [path for path in shuffled([*whole, partial], SEED) if path not in late]
    duplicate, source = twin(whole[0], 3)
    victims = [
        (site.kube, label)
        for label in ("app.kubernetes.io/component=watch", "sensor-name", "eventsource-name")
    ]
    with Chaos([*victims, find_controller()], seed=SEED) as chaos:
        arrive(site, early)
        site.store.put(duplicate, source.read_bytes())
        wait_until("every kind of pod was killed", lambda: len(chaos.killed) >= 6, 180)
    site.kube.rolled_out("contimg-watch")
    site.hears()
    die_between_put_and_post(site, orphan)
    wait_until("the record of the partial group", lambda: f"{partial.id}-a1" in site.runs(), 240)
    first = site.outcome(f"{partial.id}-a1")
    assert first["phase"] == "succeeded", first
    upload(site.store, late)
    for night in (*whole, orphan):
        wait_until(f"success of {night.id}", lambda night=night: successes(site, night), 900)  # type: ignore[misc]
    wait_until("success of the completed group", lambda: complete_successes(site, partial), 900)
    return Story(site, whole, partial, orphan, duplicate, chaos.killed)


def successes(site: Site, night: Night) -> list[str]:
    """Return the attempts at a group that succeeded."""
    runs = [name for name in site.runs() if name.startswith(f"{night.id}-a")]
    found = {name: site.document(f"runs/{name}/outcome.json") or {} for name in runs}
    return [name for name, outcome in found.items() if outcome.get("phase") == "succeeded"]


def missing_subbands(site: Site, run: str) -> list[int]:
    missing: list[int] = (site.document(f"groups/{run}.json") or {})["missing"]
    return missing


def complete_successes(site: Site, night: Night) -> list[str]:
    """Return the successful attempts that had all 16 subbands."""
    return [name for name in successes(site, night) if not missing_subbands(site, name)]


def test_every_kind_of_pod_was_killed(story: Story) -> None:
    kinds = {"watch", "sensor", "eventsource", "controller"}
    assert {kind for kind in kinds if any(kind in pod for _, pod in story.killed)} == kinds, (
        story.killed
    )


def test_group_has_exactly_one_complete_success(story: Story) -> None:
    found = {night.id: complete_successes(story.site, night) for night in story.nights}
    assert {len(names) for names in found.values()} == {1}, found


def test_attempt_runs_once(story: Story) -> None:
    """One workflow with the claim's uid did the work; no other went on after its claim."""
    for name in story.site.runs():
        claim, outcome = (
            story.site.document(f"runs/{name}/{what}.json") for what in ("claim", "outcome")
        )
        if claim is not None and outcome is not None and outcome["phase"] == "succeeded":
            assert claim["uid"] == outcome["uid"]
    workers = Counter(
        flow["metadata"]["name"]
        for flow in story.site.workflows()
        for node in nodes(flow, "Pod")
        if node["phase"] == "Succeeded" and node["displayName"].startswith("convert")
    )
    ids = [night.id for night in story.nights]
    ours = {flow: n for flow, n in workers.items() if any(group in flow for group in ids)}
    assert set(ours.values()) == {1}, ours


def test_partial_group_runs_again_when_complete(story: Story) -> None:
    names = successes(story.site, story.partial)
    assert [missing_subbands(story.site, name) for name in names] == [[LATE], []], names


def test_lost_event_is_posted_by_sweep(story: Story) -> None:
    assert successes(story.site, story.orphan) == [f"{story.orphan.id}-a1"]


def test_duplicate_subband_is_in_no_record(story: Story) -> None:
    records = [story.site.document(f"groups/{name}.json") or {} for name in story.site.runs()]
    uris = [subband["uri"] for record in records for subband in record["subbands"]]
    assert not [uri for uri in uris if uri.endswith(story.duplicate)]


def test_tables_hold_each_result_once(story: Story) -> None:
    fluxes, groups = story.site.table("photometry"), story.site.table("groups")
    for night in story.nights:
        rows = fluxes[fluxes["group"] == night.id]
        assert len(rows) > 0
        assert not rows["source"].duplicated().any()
        (state,) = groups[groups["group"] == night.id]["state"]
        assert state == "completed"
        assert story.site.half_written(night.id) == []
