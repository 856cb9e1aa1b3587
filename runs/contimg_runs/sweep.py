"""``contimg sweep``: what events, pods and people lost is begun anew; the store and the cluster decide, not the bus."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from contimg.records.groups import recorded
from contimg.records.runs import RUNS, Claim, Outcome, Phase, claim_key, outcome_key, workflow_name
from contimg.records.schemas.runs import GROUPS as GROUPS_TABLE
from contimg.runtime.errors import MissingError, StoreError, UsageError
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import Ledger, table_key
from contimg_runs.cluster import NoWorkflows, find_cluster
from contimg_runs.decide import LEAVE, Act, Case, Decision, Rules, decide
from contimg_runs.node_status import ENDS
from contimg_runs.options import SweepOptions
from contimg_runs.post import poster
from contimg_runs.record import outcome_of_workflow, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from logging import Logger

    from contimg.records.groups import GroupRecord
    from contimg.runtime.console import Console
    from contimg.runtime.store import Store
    from contimg_runs.cluster import Known, Workflows
    from contimg_runs.post import Post

READERS = 16
"""Small objects read at the same time."""
SWEEP = "sweep"
"""Uid under which the sweep takes an attempt that nobody is to run any more."""


class Posted(BaseModel):
    """How often an attempt was posted in vain: STORE/runs/ID-aN/posted.json. It only spares the bus, so the last may win."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    times: int


def posted_key(run: str) -> str:
    """Return where it stands how often a run was posted in vain."""
    return f"{RUNS}{run}/posted.json"


@dataclass
class Done:
    """What a sweep did: names of runs."""

    posted: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    """The new attempts."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Runs that are worth another try but had all of theirs, and why."""
    left: int = 0


def run(options: SweepOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Sweep once; return what was done."""
    store = open_store(options.store)
    store.check()
    rules = Rules(options.grace_s, options.retries)
    post = poster(options.post, store.root) if options.post else None
    if post is None and options.workflows != "none":
        raise UsageError(
            "contimg sweep",
            "expected --post URL, by which groups are begun, found none.",
            "Name it, or say --workflows none.",
        )
    sweeper = Sweeper(store, _workflows(options, env), post, rules, console.log)
    now = datetime.now(UTC)
    if options.dry_run:
        decisions = sweeper.decisions(now, options.days)
        return {
            "stage": "sweep",
            "would": {case.run: one.act for case, one in decisions if one.act is not Act.LEAVE},
        }
    done = sweeper.once(now, options.days)
    if sweeper.failure is not None:
        raise sweeper.failure
    return {"stage": "sweep", **vars(done)}


def _workflows(options: SweepOptions, env: Mapping[str, str]) -> Workflows:
    if options.workflows == "none":
        return NoWorkflows()
    cluster = find_cluster(env, options.api, options.namespace)
    if cluster is None:
        remedy = "Run it in a pod with a service account, name --api and --namespace, or say --workflows none."
        raise UsageError(
            "contimg sweep",
            "expected a Kubernetes API to ask which workflows live, found none.",
            remedy,
        )
    return cluster


class Sweeper:
    """Compares what the store holds with the workflows that there are."""

    def __init__(
        self, store: Store, workflows: Workflows, post: Post | None, rules: Rules, log: Logger
    ) -> None:
        self._store, self._workflows, self._post, self._rules, self._log = (
            store,
            workflows,
            post,
            rules,
            log,
        )
        self._ledger = Ledger(store)
        self.failure: StoreError | None = None
        """Why the last post failed; nothing was posted after it."""

    def once(self, now: datetime, days: int = 0) -> Done:
        """Look at every attempt and do what is due."""
        done = Done()
        self.failure = None
        for case, decision in self.decisions(now, days):
            self._do(case, decision, now, done)
        for group in self._stale(now, days):
            self._ledger.refresh(group)
        return done

    def decisions(self, now: datetime, days: int = 0) -> list[tuple[Case, Decision]]:
        """Say what is due for every attempt, the oldest group first."""
        cases = self._cases(now, days)
        # After the store: what was claimed by then had a workflow by now.
        workflows = self._workflows.known()
        return [(case, self._decide(case, workflows, now)) for case in cases]

    def _decide(self, case: Case, workflows: Sequence[Known], now: datetime) -> Decision:
        """Say what is due, of what this sweep can do: without a bus nothing is posted."""
        due = decide(case, workflows, now, self._rules)
        return LEAVE if due.act is Act.POST and self._post is None else due

    def _cases(self, now: datetime, days: int) -> list[Case]:
        recorded = self._recorded(now, days)
        latest: dict[str, int] = {}
        for group, number in recorded:
            latest[group] = max(number, latest.get(group, 0))
        there = {entry.key: entry.modified for entry in self._store.entries(RUNS)}
        plain = [
            Case(run=f"{group}-a{number}", recorded=moment, latest=number == latest[group])
            for (group, number), moment in sorted(recorded.items())
        ]
        # Of an attempt that a later one followed nothing but its end matters.
        open_ones = [case for case in plain if case.latest or outcome_key(case.run) not in there]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda case: self._read(case, there), open_ones))

    def _recorded(self, now: datetime, days: int) -> dict[tuple[str, int], datetime]:
        since = f"{now - timedelta(days=days):%Y%m%d}" if days else ""
        return {
            (one.group, one.attempt): one.entry.modified
            for one in recorded(self._store)
            if one.group >= since
        }

    def _read(self, case: Case, there: Mapping[str, datetime]) -> Case:
        outcome = self._ledger.outcome(case.run) if outcome_key(case.run) in there else None
        if outcome is not None:
            return self._ended(case, outcome)
        claim = self._ledger.claim(case.run) if claim_key(case.run) in there else None
        if claim is not None or posted_key(case.run) not in there:
            return replace(case, claim=claim)
        return replace(case, posted=self._times(case.run), posted_at=there[posted_key(case.run)])

    def _ended(self, case: Case, outcome: Outcome) -> Case:
        record = (
            self._ledger.record(case.run) if outcome.may_be_tried_again and case.latest else None
        )
        if record is None:
            return replace(case, outcome=outcome)
        return replace(
            case,
            outcome=outcome,
            retries=record.retries,
            covered=self._ledger.succeeded_before(record),
        )

    def _times(self, run: str) -> int:
        try:
            return Posted.model_validate_json(self._store.read(posted_key(run))).times
        except (MissingError, ValueError):
            return 0

    def _do(self, case: Case, decision: Decision, now: datetime, done: Done) -> None:
        acts: dict[Act, Callable[[], None]] = {
            Act.POST: lambda: self._again(case, done),
            Act.RECORD: lambda: self._settle(case, done),
            Act.LOSE: lambda: self._lose(case, decision.reason, now, done),
            Act.SUPERSEDE: lambda: self._supersede(case, decision.reason, now, done),
            Act.RESTART: lambda: self._restart(case, done),
        }
        if decision.act in acts:
            self._log.info("%s: %s: %s", case.run, decision.act, decision.reason)
            acts[decision.act]()
            return
        done.left += 1
        if decision.reason:
            done.given_up[case.run] = decision.reason

    def _again(self, case: Case, done: Done) -> None:
        record = self._ledger.record(case.run)
        if record is not None and self._say(record):
            done.posted.append(case.run)
            self._store.put(
                posted_key(case.run), Posted(times=case.posted + 1).model_dump_json().encode()
            )

    def _settle(self, case: Case, done: Done) -> None:
        """Do what the exit handler could not."""
        claim = case.claim
        workflow = self._workflows.get(claim.workflow) if claim else None
        if claim is None or workflow is None or workflow["metadata"]["uid"] != claim.uid:
            return
        status = str(workflow.get("status", {}).get("phase"))
        if (
            status in ENDS
            and settle(self._ledger, outcome_of_workflow(case.run, workflow, status)).phase
        ):
            done.recorded.append(case.run)

    def _lose(self, case: Case, reason: str, now: datetime, done: Done) -> None:
        outcome = self._close(case, Phase.LOST, reason, now)
        if outcome is None:
            return
        done.lost.append(case.run)
        after = self._ended(case, outcome)
        self._ledger.refresh(_group(case))
        self._do(after, self._decide(after, (), now), now, done)

    def _supersede(self, case: Case, reason: str, now: datetime, done: Done) -> None:
        if self._close(case, Phase.SUPERSEDED, reason, now):
            done.superseded.append(case.run)

    def _close(self, case: Case, phase: Phase, reason: str, now: datetime) -> Outcome | None:
        """Write an outcome; an attempt that nobody has is taken first, so that nobody can begin it afterwards."""
        claim = case.claim or Claim(
            run=case.run, uid=SWEEP, workflow=workflow_name(case.run), at=now
        )
        if case.claim is None and not self._ledger.take(claim):
            return None
        outcome = Outcome(
            run=case.run,
            workflow=claim.workflow,
            uid=claim.uid,
            phase=phase,
            reason=reason,
            ended=now,
        )
        return outcome if self._ledger.close(outcome) else None

    def _restart(self, case: Case, done: Done) -> None:
        before = self._ledger.record(case.run)
        if before is None:
            return
        record = before.model_copy(
            update={"attempt": before.attempt + 1, "retries": before.retries + 1}
        )
        if self._ledger.add(record):
            done.restarted.append(record.name)
            self._say(record)
            self._ledger.refresh(record.id)

    def _say(self, record: GroupRecord) -> bool:
        """Post; after a failure nothing more, since each would wait as long. The next sweep goes on."""
        if self._post is not None and self.failure is None:
            try:
                self._post(record)
            except StoreError as error:
                self._log.warning("%s", error)
                self.failure = error
        return self._post is not None and self.failure is None

    def _stale(self, now: datetime, days: int) -> list[str]:
        """Return the groups whose row is missing or older than what the store holds of them."""
        newest: dict[str, datetime] = {}
        recorded = self._recorded(now, days)
        keys = {claim_key(f"{g}-a{n}"): g for g, n in recorded} | {
            outcome_key(f"{g}-a{n}"): g for g, n in recorded
        }
        times = [(group, moment) for (group, _), moment in recorded.items()]
        times += [
            (keys[entry.key], entry.modified)
            for entry in self._store.entries(RUNS)
            if entry.key in keys
        ]
        for group, moment in times:
            newest[group] = max(moment, newest.get(group, moment))
        rows = {
            entry.key: entry.modified
            for entry in self._store.entries(f"tables/{GROUPS_TABLE.name}/")
        }
        known = {group: rows.get(table_key(GROUPS_TABLE.name, group, group)) for group in newest}
        return sorted(
            group
            for group, moment in newest.items()
            if (row := known[group]) is None or row <= moment
        )


def _group(case: Case) -> str:
    return case.run.rpartition("-a")[0]
