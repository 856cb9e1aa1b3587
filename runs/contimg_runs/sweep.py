"""``contimg sweep``: restart what was lost. The store and the cluster decide, not the event bus."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from logging import Logger
from typing import Any

from contimg.records.groups import GroupRecord, Recorded, list_records
from contimg.records.runs import RUNS, Claim, Outcome, Phase, workflow_name
from contimg.records.schemas.runs import GROUPS as GROUPS_TABLE
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, StoreError, UsageError
from contimg.runtime.store import open_store
from contimg_runs.argo import ArgoClient, KnownWorkflow, find_kubernetes_api
from contimg_runs.attempt_store import KEYS, AttemptStore, PostCount, table_key
from contimg_runs.node_status import ENDED
from contimg_runs.options import SweepOptions
from contimg_runs.post import Post, post_attempt
from contimg_runs.record import read_outcome, record_outcome

N_READERS = 16
"""Small objects read at the same time."""
SWEEP = "sweep"
"""Uid in claims on attempts that the sweep closes."""
MAX_DOUBLINGS = 6
"""The wait before an attempt is posted again doubles at most this many times."""


class Action(StrEnum):
    """What the sweep does about an attempt."""

    LEAVE = "leave"
    POST = "post"
    """No workflow has claimed it: post it again."""
    RECORD = "record"
    """Its workflow ended, and only the outcome is missing."""
    MARK_LOST = "mark lost"
    """Its workflow is gone: close the attempt as lost."""
    SUPERSEDE = "supersede"
    """No workflow claimed it before the next one was recorded: close it, so that none will."""
    RESTART = "restart"
    """Infrastructure failed: record the same subbands as the next attempt."""


@dataclass(frozen=True, kw_only=True)
class AttemptCase:
    """What the store says about one attempt."""

    run: str
    """ID-aN."""
    recorded: datetime
    """UTC, by the store's clock."""
    latest: bool
    """Whether no later attempt at the group is recorded."""
    retries: int = 0
    """How often these subbands were started again; of the latest attempt only."""
    covered: bool = False
    """Whether an earlier attempt at the same subbands succeeded, as when a person began this one;
    of the latest only."""
    claim: Claim | None = None
    outcome: Outcome | None = None
    posted: int = 0
    """How often a sweep has posted it without effect."""
    posted_at: datetime | None = None
    """UTC."""


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why."""

    action: Action
    reason: str = ""


LEAVE = Decision(Action.LEAVE)


def decide(  # noqa: C901, PLR0911 - a table of cases
    case: AttemptCase, workflows: Sequence[KnownWorkflow], now: datetime, options: SweepOptions
) -> Decision:
    """Return what is to be done about an attempt; pure.

    `case` is as the store was before all workflows of the namespace were listed, so that each
    claim's workflow is listed; `now` is UTC, by the store's clock.
    """
    claim, outcome, name = case.claim, case.outcome, workflow_name(case.run)
    if outcome is not None:
        if not case.latest or not outcome.may_be_tried_again:
            return LEAVE
        if case.covered:
            return Decision(Action.LEAVE, "an earlier attempt at the same subbands succeeded")
        if case.retries >= options.retries:
            return Decision(Action.LEAVE, f"it was started again {case.retries} times")
        return Decision(Action.RESTART, outcome.reason or outcome.phase)
    own = [one for one in workflows if (one.uid == claim.uid if claim else one.name == name)]
    if own and not own[0].completed:
        return LEAVE
    if claim is not None:
        if own:
            return Decision(Action.RECORD, "its workflow ended without an outcome")
        if now - max(claim.at, case.recorded) < timedelta(seconds=options.grace_s):
            return LEAVE
        reason = f"workflow {claim.workflow} ({claim.uid}) is gone and left no outcome"
        return Decision(Action.MARK_LOST, reason)
    if not case.latest:
        reason = "a later attempt was recorded before a workflow claimed this one"
        return Decision(Action.SUPERSEDE, reason)
    if own:
        return Decision(Action.MARK_LOST, f"workflow {name} ended before it claimed the attempt")
    wait = timedelta(seconds=options.grace_s * 2 ** min(case.posted, MAX_DOUBLINGS))
    last = max(case.recorded, case.posted_at or case.recorded)
    return LEAVE if now - last < wait else Decision(Action.POST, "no workflow has claimed it")


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
        workflows = find_kubernetes_api(env, options)
        if workflows is None:
            problem = "There is no Kubernetes API to ask which workflows run."
            remedy = "Run it in a pod with a service account, or give --api or --workflows none."
            raise UsageError("contimg sweep", problem, remedy)
    post = partial(post_attempt, options.post, store.root) if options.post else None
    sweeper = Sweeper(AttemptStore(store), workflows, post, options, console.log)
    now = datetime.now(UTC)
    if options.dry_run:
        due = sweeper.decide_all(now)
        would = {case.run: one.action for case, one in due if one.action is not Action.LEAVE}
        return {"stage": "sweep", "would": would}
    done = sweeper.run_pass(now)
    if sweeper.failure is not None:
        raise sweeper.failure
    return {"stage": "sweep", **vars(done)}


@dataclass
class Sweeper:
    """Compares what the store holds with the workflows of the cluster, and does what is due."""

    attempts: AttemptStore
    workflows: ArgoClient | None
    post: Post | None
    options: SweepOptions
    log: Logger
    failure: StoreError | None = None
    """Why the last post failed; nothing was posted after it."""

    def run_pass(self, now: datetime) -> SweepResult:
        """Look at every attempt and do what is due; then update the table of groups."""
        done = SweepResult()
        self.failure = None
        for case, decision in self.decide_all(now):
            self._act(case, decision, now, done)
        records = self._list_records(now)
        changes = [(one.group, one.entry.modified) for one in records]
        groups = {one.run: one.group for one in records}
        for entry in self.attempts.store.entries(RUNS):
            run = entry.key.removeprefix(RUNS).partition("/")[0]
            if run in groups and entry.key.endswith(("/claim.json", "/outcome.json")):
                changes.append((groups[run], entry.modified))
        newest = dict(sorted(changes))  # the last change of each group
        entries = self.attempts.store.entries(f"tables/{GROUPS_TABLE.name}/")
        rows = {entry.key: entry.modified for entry in entries}
        for group, at in newest.items():
            row = rows.get(table_key(GROUPS_TABLE.name, group, group))
            if row is None or row <= at:
                self.attempts.refresh_row(group)
        return done

    def decide_all(self, now: datetime) -> list[tuple[AttemptCase, Decision]]:
        """Return what is due for every attempt, the oldest group first."""
        records = self._list_records(now)
        latest = {one.group: one.run for one in records}
        there = {entry.key: entry.modified for entry in self.attempts.store.entries(RUNS)}
        cases = [
            AttemptCase(
                run=one.run, recorded=one.entry.modified, latest=one.run == latest[one.group]
            )
            for one in records
            # Of an attempt that has a successor only the end matters.
            if one.run == latest[one.group] or KEYS[Outcome].format(one.run) not in there
        ]
        with ThreadPoolExecutor(N_READERS) as pool:
            cases = list(pool.map(lambda case: self._read_case(case, there), cases))
        # After the store: a workflow that had a claim by then is in the list.
        workflows = self.workflows.list_workflows() if self.workflows else []
        due = [(case, decide(case, workflows, now, self.options)) for case in cases]
        if self.post is None:
            return [(case, LEAVE if one.action is Action.POST else one) for case, one in due]
        return due

    def _list_records(self, now: datetime) -> list[Recorded]:
        """Return the records of the last days, by group and attempt."""
        days = self.options.days
        since = f"{now - timedelta(days=days):%Y%m%d}" if days else ""
        return sorted(one for one in list_records(self.attempts.store) if one.group >= since)

    def _read_case(self, case: AttemptCase, there: Mapping[str, datetime]) -> AttemptCase:
        attempts, run = self.attempts, case.run
        keys = {kind: key.format(run) for kind, key in KEYS.items()}
        outcome = attempts.read(Outcome, run) if keys[Outcome] in there else None
        if outcome is not None:
            return self._add_outcome(case, outcome)
        claim = attempts.read(Claim, run) if keys[Claim] in there else None
        if claim is not None or keys[PostCount] not in there:
            return replace(case, claim=claim)
        try:
            count = attempts.read(PostCount, run)
        except BadInputError:  # of another version
            count = None
        times = count.times if count else 0
        return replace(case, posted=times, posted_at=there[keys[PostCount]])

    def _add_outcome(self, case: AttemptCase, outcome: Outcome) -> AttemptCase:
        attempts, again = self.attempts, outcome.may_be_tried_again and case.latest
        record = attempts.read(GroupRecord, case.run) if again else None
        if record is None:
            return replace(case, outcome=outcome)
        covered = False
        for number in attempts.list_attempts(record.id):
            run = f"{record.id}-a{number}"
            earlier = attempts.read(Outcome, run) if number < record.attempt else None
            if earlier is not None and earlier.phase is Phase.SUCCEEDED:
                before = attempts.read(GroupRecord, run)
                covered |= before is not None and before.missing == record.missing
        return replace(case, outcome=outcome, retries=record.retries, covered=covered)

    def _act(self, case: AttemptCase, decision: Decision, now: datetime, done: SweepResult) -> None:
        action, reason = decision.action, decision.reason
        if action is Action.LEAVE:
            done.left += 1
            if reason:
                done.given_up[case.run] = reason
            return
        self.log.info("%s: %s: %s", case.run, action, reason)
        match action:
            case Action.POST | Action.RESTART:
                self._start(case, action, done)
            case Action.RECORD:
                # Its exit handler did not.
                claim, api = case.claim, self.workflows
                found = (api.get_workflow(claim.workflow) if api and claim else None) or {}
                uid = (found.get("metadata") or {}).get("uid")
                status = str((found.get("status") or {}).get("phase"))
                if claim and uid == claim.uid and status in ENDED:
                    outcome = read_outcome(case.run, found, status)
                    phase, _ = record_outcome(self.attempts, outcome)
                    done.recorded += [case.run] if phase != "none" else []
            case Action.MARK_LOST:
                closed = self._close(case, Phase.LOST, reason, now)
                if closed is not None:
                    done.lost.append(case.run)
                    lost = self._add_outcome(case, closed)
                    self.attempts.refresh_row(case.run.rpartition("-a")[0])
                    self._act(lost, decide(lost, (), now, self.options), now, done)
            case Action.SUPERSEDE:
                if self._close(case, Phase.SUPERSEDED, reason, now):
                    done.superseded.append(case.run)

    def _close(self, case: AttemptCase, phase: Phase, reason: str, now: datetime) -> Outcome | None:
        """Write an outcome; without a claim, claim it first, so that no workflow can begin it."""
        name = workflow_name(case.run)
        claim = case.claim or Claim(run=case.run, uid=SWEEP, workflow=name, at=now)
        if case.claim is None and not self.attempts.write(claim):
            return None
        outcome = Outcome(
            run=case.run,
            workflow=claim.workflow,
            uid=claim.uid,
            phase=phase,
            reason=reason,
            ended=now,
        )
        return outcome if self.attempts.write(outcome) else None

    def _start(self, case: AttemptCase, action: Action, done: SweepResult) -> None:
        """Post an attempt again, or record and post the next one with the same subbands."""
        record = self.attempts.read(GroupRecord, case.run)
        if record is None:
            return
        if action is Action.POST:
            if self._try_post(record):
                done.posted.append(case.run)
                count = PostCount(times=case.posted + 1).model_dump_json().encode()
                self.attempts.store.put(KEYS[PostCount].format(case.run), count)
            return
        following = {"attempt": record.attempt + 1, "retries": record.retries + 1}
        record = record.model_copy(update=following)
        if self.attempts.write(record):
            done.restarted.append(record.name)
            self._try_post(record)
            self.attempts.refresh_row(record.id)

    def _try_post(self, record: GroupRecord) -> bool:
        """Post a record; after a failure nothing more in this pass: each would wait as long."""
        if self.post is None or self.failure is not None:
            return False
        try:
            self.post(record)
        except StoreError as error:
            self.log.warning("%s", error)
            self.failure = error
        return self.failure is None
