"""``contimg sweep``: restart what was lost. The store and the cluster decide, not the event bus."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from logging import Logger
from typing import Any

from contimg.records.groups import GroupRecord, list_records
from contimg.records.runs import (
    RUNS,
    Claim,
    Outcome,
    Phase,
    claim_key,
    outcome_key,
    run_name,
    workflow_name,
)
from contimg.records.schemas.runs import GROUPS as GROUPS_TABLE
from contimg.runtime.console import Console
from contimg.runtime.errors import MissingError, StoreError, UsageError
from contimg.runtime.manifest import Record
from contimg.runtime.store import Store, open_store
from contimg_runs.argo import ArgoClient, KnownWorkflow, find_kubernetes_api
from contimg_runs.attempt_store import AttemptStore, table_key
from contimg_runs.decide import LEAVE, Action, AttemptCase, Decision, SweepRules, decide
from contimg_runs.node_status import ENDED
from contimg_runs.options import SweepOptions
from contimg_runs.post import Post, poster
from contimg_runs.record import read_outcome, record_outcome

N_READERS = 16
"""Small objects read at the same time."""
SWEEP = "sweep"
"""Uid in claims on attempts that the sweep closes."""


class PostCount(Record):
    """How often an attempt was posted without effect: STORE/runs/ID-aN/posted.json."""

    times: int


def posted_key(run: str) -> str:
    """Return the key of a run's `PostCount`."""
    return f"{RUNS}{run}/posted.json"


@dataclass
class SweepResult:
    """What a sweep did: names of runs."""

    posted: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    """The new attempts."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Runs that another try might help but that had all of theirs, and why."""
    left: int = 0


def run(options: SweepOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Sweep once; return what was done."""
    store = open_store(options.store)
    store.check()
    workflows = None
    if options.workflows != "none":
        if not options.post:
            problem = "No --post URL is given, by which workflows are started."
            raise UsageError("contimg sweep", problem, "Give it, or --workflows none.")
        workflows = find_kubernetes_api(env, options.api, options.namespace)
        if workflows is None:
            problem = "There is no Kubernetes API to ask which workflows run."
            remedy = "Run it in a pod with a service account, or give --api or --workflows none."
            raise UsageError("contimg sweep", problem, remedy)
    post = poster(options.post, store.root) if options.post else None
    rules = SweepRules(grace_s=options.grace_s, retries=options.retries)
    sweeper = Sweeper(store, workflows, post, rules, console.log)
    now = datetime.now(UTC)
    if options.dry_run:
        due = sweeper.decide_all(now, options.days)
        would = {case.run: one.action for case, one in due if one.action is not Action.LEAVE}
        return {"stage": "sweep", "would": would}
    done = sweeper.run_pass(now, options.days)
    if sweeper.failure is not None:
        raise sweeper.failure
    return {"stage": "sweep", **vars(done)}


class Sweeper:
    """Compares what the store holds with the workflows of the cluster, and does what is due."""

    def __init__(
        self,
        store: Store,
        workflows: ArgoClient | None,
        post: Post | None,
        rules: SweepRules,
        log: Logger,
    ) -> None:
        self._store, self._workflows, self._post = store, workflows, post
        self._rules, self._log = rules, log
        self._attempts = AttemptStore(store)
        self.failure: StoreError | None = None
        """Why the last post failed; nothing was posted after it."""

    def run_pass(self, now: datetime, days: int = 0) -> SweepResult:
        """Look at every attempt and do what is due; then update the table of groups."""
        done = SweepResult()
        self.failure = None
        for case, decision in self.decide_all(now, days):
            self._act(case, decision, now, done)
        for group in self._list_outdated_groups(now, days):
            self._attempts.refresh_row(group)
        return done

    def decide_all(self, now: datetime, days: int = 0) -> list[tuple[AttemptCase, Decision]]:
        """Return what is due for every attempt, the oldest group first."""
        times = self._list_records(now, days)
        latest = dict(sorted(times))
        there = {entry.key: entry.modified for entry in self._store.entries(RUNS)}
        cases = [
            AttemptCase(run=f"{group}-a{number}", recorded=at, latest=number == latest[group])
            for (group, number), at in sorted(times.items())
        ]
        # Of an attempt that has a successor only the end matters.
        cases = [case for case in cases if case.latest or outcome_key(case.run) not in there]
        with ThreadPoolExecutor(N_READERS) as pool:
            cases = list(pool.map(lambda case: self._read_case(case, there), cases))
        # After the store: a workflow that had a claim by then is in the list.
        workflows = self._workflows.list_workflows() if self._workflows else []
        return [(case, self._decide(case, workflows, now)) for case in cases]

    def _decide(
        self, case: AttemptCase, workflows: Sequence[KnownWorkflow], now: datetime
    ) -> Decision:
        due = decide(case, workflows, now, self._rules)
        return LEAVE if due.action is Action.POST and self._post is None else due

    def _list_records(self, now: datetime, days: int) -> dict[tuple[str, int], datetime]:
        """Return when each attempt of the last days was recorded."""
        since = f"{now - timedelta(days=days):%Y%m%d}" if days else ""
        records = list_records(self._store)
        return {(r.group, r.attempt): r.entry.modified for r in records if r.group >= since}

    def _read_case(self, case: AttemptCase, there: Mapping[str, datetime]) -> AttemptCase:
        attempts, run = self._attempts, case.run
        outcome = attempts.read(Outcome, run) if outcome_key(run) in there else None
        if outcome is not None:
            return self._add_outcome(case, outcome)
        claim = attempts.read(Claim, run) if claim_key(run) in there else None
        if claim is not None or posted_key(run) not in there:
            return replace(case, claim=claim)
        try:
            times = PostCount.model_validate_json(self._store.read(posted_key(run))).times
        except (MissingError, ValueError):
            times = 0
        return replace(case, posted=times, posted_at=there[posted_key(run)])

    def _add_outcome(self, case: AttemptCase, outcome: Outcome) -> AttemptCase:
        again = outcome.may_be_tried_again and case.latest
        record = self._attempts.read(GroupRecord, case.run) if again else None
        if record is None:
            return replace(case, outcome=outcome)
        covered = self._attempts.succeeded_before(record)
        return replace(case, outcome=outcome, retries=record.retries, covered=covered)

    def _act(self, case: AttemptCase, decision: Decision, now: datetime, done: SweepResult) -> None:
        action, reason = decision.action, decision.reason
        if action is Action.LEAVE:
            done.left += 1
            if reason:
                done.given_up[case.run] = reason
            return
        self._log.info("%s: %s: %s", case.run, action, reason)
        match action:
            case Action.POST:
                self._post_again(case, done)
            case Action.RECORD:
                self._record(case, done)
            case Action.MARK_LOST:
                outcome = self._close(case, Phase.LOST, reason, now)
                if outcome is not None:
                    done.lost.append(case.run)
                    lost = self._add_outcome(case, outcome)
                    self._attempts.refresh_row(case.run.rpartition("-a")[0])
                    self._act(lost, self._decide(lost, (), now), now, done)
            case Action.SUPERSEDE:
                if self._close(case, Phase.SUPERSEDED, reason, now):
                    done.superseded.append(case.run)
            case Action.RESTART:
                self._restart(case, done)

    def _post_again(self, case: AttemptCase, done: SweepResult) -> None:
        record = self._attempts.read(GroupRecord, case.run)
        if record is not None and self._try_post(record):
            done.posted.append(case.run)
            count = PostCount(times=case.posted + 1)
            self._store.put(posted_key(case.run), count.model_dump_json().encode())

    def _record(self, case: AttemptCase, done: SweepResult) -> None:
        """Record the outcome of a workflow whose exit handler did not."""
        claim, api = case.claim, self._workflows
        workflow = api.get_workflow(claim.workflow) if api and claim else None
        if claim is None or workflow is None or workflow["metadata"]["uid"] != claim.uid:
            return
        status = (workflow.get("status") or {}).get("phase")
        if status in ENDED:
            outcome = read_outcome(case.run, workflow, status)
            if record_outcome(self._attempts, outcome).phase:
                done.recorded.append(case.run)

    def _close(self, case: AttemptCase, phase: Phase, reason: str, now: datetime) -> Outcome | None:
        """Write an outcome; without a claim, claim it first, so that no workflow can begin it."""
        name = workflow_name(case.run)
        claim = case.claim or Claim(run=case.run, uid=SWEEP, workflow=name, at=now)
        if case.claim is None and not self._attempts.write(claim):
            return None
        outcome = Outcome(
            run=case.run,
            workflow=claim.workflow,
            uid=claim.uid,
            phase=phase,
            reason=reason,
            ended=now,
        )
        return outcome if self._attempts.write(outcome) else None

    def _restart(self, case: AttemptCase, done: SweepResult) -> None:
        before = self._attempts.read(GroupRecord, case.run)
        if before is None:
            return
        following = {"attempt": before.attempt + 1, "retries": before.retries + 1}
        record = before.model_copy(update=following)
        if self._attempts.write(record):
            done.restarted.append(record.name)
            self._try_post(record)
            self._attempts.refresh_row(record.id)

    def _try_post(self, record: GroupRecord) -> bool:
        """Post a record; after a failure nothing more in this pass: each would wait as long."""
        if self._post is None or self.failure is not None:
            return False
        try:
            self._post(record)
        except StoreError as error:
            self._log.warning("%s", error)
            self.failure = error
        return self.failure is None

    def _list_outdated_groups(self, now: datetime, days: int) -> list[str]:
        """Return the groups whose row is missing or older than what the store holds about them."""
        newest: dict[str, datetime] = {}
        records = self._list_records(now, days)
        changes = [(group, at) for (group, _), at in records.items()]
        for entry in self._store.entries(RUNS):
            name = run_name(entry.key.removeprefix(RUNS).partition("/")[0])
            if name in records and entry.key.endswith(("/claim.json", "/outcome.json")):
                changes.append((name[0], entry.modified))
        for group, at in changes:
            newest[group] = max(at, newest.get(group, at))
        entries = self._store.entries(f"tables/{GROUPS_TABLE.name}/")
        rows = {entry.key: entry.modified for entry in entries}
        return sorted(
            group
            for group, at in newest.items()
            if (row := rows.get(table_key(GROUPS_TABLE.name, group, group))) is None or row <= at
        )
