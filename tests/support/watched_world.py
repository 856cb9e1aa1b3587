"""A simulated world around watch: store, event bus, sensor, workflows that fail."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from contimg.records.groups import GroupRecord
from contimg.records.runs import Claim, Outcome, workflow_name
from contimg.runtime.errors import MissingError, StoreError
from contimg.runtime.store import Entry
from contimg_runs.argo import COMPLETED_LABEL, KnownWorkflow
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.claim import claim_attempt
from contimg_runs.options import SweepOptions
from contimg_runs.record import read_outcome, record_outcome
from contimg_runs.sweep import Sweeper, SweepResult
from contimg_watch.options import ServiceOptions
from contimg_watch.plan import ListedSubband, SubbandHeader
from contimg_watch.stage import Watcher

LOG = logging.getLogger("world")
LOG.disabled = True
T0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
CADENCE = timedelta(seconds=309.24)
TIMEOUT_S, GRACE_S, TTL_S = 900.0, 600.0, 3600.0
MANY_RETRIES = 1000
"""More retries than a test uses, where it is not about giving up."""
RULES = SweepOptions(store="memory", grace_s=GRACE_S, retries=MANY_RETRIES, days=0)


class Crashed(BaseException):
    """The process is gone, here and now."""


class MemoryStore:
    """Objects in a dictionary, with the world's clock; before each change something may happen."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.root = "memory"
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.before_change: Callable[[], None] = lambda: None
        self._clock = clock

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        found = [(key, *value) for key, value in self.objects.items() if key.startswith(prefix)]
        return iter([Entry(key, len(data), moment) for key, data, moment in sorted(found)])

    def entry(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries(key) if entry.key == key), None)

    def read(self, key: str) -> bytes:
        if key not in self.objects:
            raise MissingError(key, "There is no such object.", "")
        return self.objects[key][0]

    def put(self, key: str, data: bytes) -> None:
        self.before_change()
        self.objects[key] = (data, self._clock())

    def create(self, key: str, data: bytes) -> bool:
        self.before_change()
        if key in self.objects:
            return False
        self.objects[key] = (data, self._clock())
        return True


@dataclass
class Flow:
    """A workflow of the cluster."""

    name: str
    uid: str
    run: str
    phase: str = "Running"
    step: str = "claim"
    """What its next pod does: claim, process, record, over."""
    code: int = 0
    """Exit code of the task that failed."""
    ended: datetime | None = None

    def document(self) -> dict[str, Any]:
        """Return it as the Kubernetes API does, with the one task that did the work."""
        start, end = "2026-01-26T00:00:00Z", "2026-01-26T00:01:00Z"
        message = f"Error (exit code {self.code}): so it was" if self.code else ""
        own = {"id": "1", "name": f"{self.name}.process", "type": "Pod", "templateName": "process"}
        times = {"startedAt": start, "finishedAt": end}
        node = {**own, **times, "phase": self.phase, "message": message}
        labels = {COMPLETED_LABEL: "true"} if self.step == "over" else {}
        meta = {"name": self.name, "uid": self.uid, "creationTimestamp": start, "labels": labels}
        return {"metadata": meta, "spec": {}, "status": {"phase": self.phase, "nodes": {"1": node}}}


@dataclass
class Group:
    """What the telescope wrote of one observation, in the order in which it comes."""

    t0: datetime
    coming: list[int]
    bad: bool = False
    """Its data cannot be used: every run fails with 12."""
    landed: set[int] = field(default_factory=set)


class World:
    """Everything, and the steps that it takes."""

    def __init__(self, groups: list[Group], rules: SweepOptions = RULES) -> None:
        self.now = T0 + timedelta(days=1)
        self.groups = groups
        self.store = MemoryStore(lambda: self.now)
        self.rules = rules
        self.bus: list[GroupRecord] = []
        self.events: list[GroupRecord] = []
        """All that was ever on the bus, which may deliver it again at any time."""
        self.bus_up = True
        self.flows: list[Flow] = []
        self.successes: dict[str, list[str]] = {}
        """Uids of the workflows that processed an attempt to its good end."""
        self.written: dict[str, str] = {}
        """Which attempt at a group wrote its rows last."""
        self.swept = SweepResult()
        self._born = 0
        self._left = -1
        self._aside: Callable[[], None] = lambda: None
        self.store.before_change = self._before_change
        self.watcher = self.new_watcher()

    def _before_change(self) -> None:
        self._left -= 1
        if self._left == 0:
            aside, self._aside = self._aside, lambda: None
            aside()

    def disturbed(self, step: Callable[[], object], after: int, aside: Callable[[], None]) -> None:
        """Take a step; before its `after`-th change something else happens."""
        self._left, self._aside = after, aside
        try:
            step()
        except Crashed:
            self.watcher = self.new_watcher()
        finally:
            self._left = -1

    @staticmethod
    def crash() -> None:
        raise Crashed

    def new_watcher(self) -> Watcher:
        options = ServiceOptions(store="/nowhere", size=0, timeout_s=TIMEOUT_S)
        watcher = Watcher(options, LOG, self.post)
        watcher.store = self.store  # type: ignore[assignment]
        watcher._headers = self  # type: ignore[assignment]  # noqa: SLF001 - headers are known here, and h5py is slow
        return watcher

    def describe(self, entry: Entry, _now: datetime) -> ListedSubband:
        number = int(entry.key.split("/")[1][-2:])
        header = SubbandHeader(t0=self.groups[number].t0, duration_s=296.0, dec_deg=33.0)
        return ListedSubband(key=entry.key, size=entry.size, modified=entry.modified, header=header)

    def save(self, listed: set[str] | None) -> None:
        """Keep nothing."""

    def land(self, number: int, *, again: bool = False) -> None:
        """Let a group's next subband come, or one again, under a name of another clock."""
        group = self.groups[number]
        if again and group.landed:
            index, skew = min(group.landed), 2
        elif group.coming:
            index, skew = group.coming.pop(0), group.coming[0] % 2 if group.coming else 0
            group.landed.add(index)
        else:
            return
        stamp = group.t0 + timedelta(seconds=skew)
        name = f"{stamp:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5"
        self.store.objects[f"incoming/day{number:02d}/{name}"] = (b"x", self.now)

    def land_all(self) -> None:
        for number, group in enumerate(self.groups):
            while group.coming:
                self.land(number)

    def look(self) -> None:
        self.watcher.run_pass(self.now)

    def post(self, record: GroupRecord) -> None:
        self._before_change()
        if not self.bus_up:
            raise StoreError("bus", "The event could not be posted.", "")
        self.bus.append(record)
        self.events.append(record)

    def redeliver(self, which: int) -> None:
        """Let the bus deliver an old event again."""
        if self.events:
            self.bus.append(self.events[which % len(self.events)])

    def deliver(self, which: int, *, keep: bool = False) -> None:
        """Let the sensor have an event, not always the oldest; once more later, if it is kept."""
        if self.bus:
            index = which % len(self.bus)
            record = self.bus[index] if keep else self.bus.pop(index)
            name = workflow_name(record.name)
            if all(flow.name != name for flow in self.flows):
                self._born += 1
                self.flows.append(Flow(name, f"uid{self._born}", record.name))

    def lose(self, which: int) -> None:
        if self.bus:
            self.bus.pop(which % len(self.bus))

    def work(self, which: int, code: int = 0) -> None:
        """Run the next pod of a workflow."""
        living = [flow for flow in self.flows if flow.step != "over" and not self._waits(flow)]
        if living:
            flow = living[which % len(living)]
            steps = {"claim": self._claim, "process": self._process, "record": self.record}
            steps[flow.step](flow, code)

    def start(self) -> None:
        """Let every event arrive and every new workflow claim."""
        while self.bus:
            self.deliver(0)
        for flow in [flow for flow in self.flows if flow.step == "claim"]:
            if not self._waits(flow):
                self._claim(flow, 0)

    def _waits(self, flow: Flow) -> bool:
        """Say whether a workflow waits for the mutex of its group."""
        group = f"{flow.run.split('-')[0]}-"
        others = [one.step for one in self.flows if one.run.startswith(group)]
        return flow.step == "claim" and not {"process", "record"}.isdisjoint(others)

    def _claim(self, flow: Flow, _code: int) -> None:
        wanted = Claim(run=flow.run, uid=flow.uid, workflow=flow.name, at=self.now)
        refused = claim_attempt(AttemptStore(self.store), wanted)
        flow.step, flow.phase = ("record", "Succeeded") if refused else ("process", "Running")

    def _process(self, flow: Flow, code: int) -> None:
        own = flow.run.split("-")[0]
        bad = {f"{group.t0:%Y%m%dt%H%M%S}" for group in self.groups if group.bad}
        flow.code = 12 if own in bad else code
        flow.phase = "Failed" if flow.code else "Succeeded"
        flow.step = "record"
        if not flow.code and flow in self.flows:
            self.successes.setdefault(flow.run, []).append(flow.uid)
            self.written[own] = flow.run

    def record(self, flow: Flow, code: int) -> None:
        """Run the exit handler, or let its pod die."""
        if not code:
            outcome = read_outcome(flow.run, flow.document(), flow.phase)
            record_outcome(AttemptStore(self.store), outcome)
        flow.step, flow.ended = "over", self.now

    def vanish(self, which: int) -> None:
        """Let a person delete a workflow."""
        if self.flows:
            self.flows.pop(which % len(self.flows))

    def list_workflows(self) -> list[KnownWorkflow]:
        found = [KnownWorkflow(flow.name, flow.uid, flow.step == "over") for flow in self.flows]
        self._before_change()  # the cluster goes on while the answer is on its way
        return found

    def get_workflow(self, name: str) -> dict[str, Any] | None:
        return next((flow.document() for flow in self.flows if flow.name == name), None)

    def new_sweeper(self, rules: SweepOptions | None = None) -> Sweeper:
        store = AttemptStore(self.store)
        return Sweeper(store, self, self.post, rules or self.rules, LOG)  # type: ignore[arg-type]

    def sweep(self, after_s: float = 0.0) -> None:
        self.wait(after_s)
        self.swept = self.new_sweeper().run_pass(self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass; finished workflows are cleared away after a while."""
        self.now += timedelta(seconds=seconds)
        old = self.now - timedelta(seconds=TTL_S)
        self.flows = [flow for flow in self.flows if flow.ended is None or flow.ended > old]

    def settle(self, rounds: int = 60) -> None:
        """Let everything come to rest in a world where nothing goes wrong any more."""
        self.bus_up = True
        self.land_all()
        for _ in range(rounds):
            # Longer than any wait: after a round without a change nothing changes any more.
            self.wait(TIMEOUT_S + GRACE_S * 64)
            before = self._sign()
            self.look()
            self.sweep()
            self.bus += self.events
            while self.bus:
                self.deliver(0)
            while any(flow.step != "over" for flow in self.flows):
                self.work(0)
            if self._sign() == before:
                return
        raise AssertionError("the world does not settle")

    def _sign(self) -> list[str]:
        return sorted(key for key in self.store.objects if key.startswith(("groups/", "runs/")))

    def attempts(self, number: int) -> list[tuple[GroupRecord, Outcome | None]]:
        """Return the attempts at a group with their outcomes."""
        attempts = AttemptStore(self.store)
        group = f"{self.groups[number].t0:%Y%m%dt%H%M%S}"
        runs = [f"{group}-a{number}" for number in attempts.list_attempts(group)]
        found = [(attempts.read(GroupRecord, run), attempts.read(Outcome, run)) for run in runs]
        return [(record, outcome) for record, outcome in found if record is not None]
