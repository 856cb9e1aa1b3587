"""What the sweep does about an attempt: a pure function of what store and cluster say about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from contimg.records.runs import Claim, Outcome, workflow_name
from contimg_runs.argo import KnownWorkflow

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
class SweepRules:
    """When the sweep acts."""

    grace_s: float = 600.0
    """What is younger is left alone, seconds."""
    retries: int = 3
    """How often the same subbands are started again."""


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


def decide(  # noqa: PLR0911 - a table of cases
    case: AttemptCase, workflows: Sequence[KnownWorkflow], now: datetime, rules: SweepRules
) -> Decision:
    """Return what is to be done about an attempt.

    Parameters
    ----------
    case
        As the store was before the workflows were listed, so that each claim's workflow is listed.
    workflows
        All of the namespace.
    now
        UTC, by the store's clock.
    rules
        When to act.
    """
    outcome = case.outcome
    if outcome is not None:
        if not case.latest or not outcome.may_be_tried_again:
            return LEAVE
        if case.covered:
            return Decision(Action.LEAVE, "an earlier attempt at the same subbands succeeded")
        if case.retries >= rules.retries:
            return Decision(Action.LEAVE, f"it was started again {case.retries} times")
        return Decision(Action.RESTART, outcome.reason or outcome.phase)
    if case.claim is not None:
        return _decide_claimed(case, case.claim, workflows, now, rules)
    name = workflow_name(case.run)
    own = next((one for one in workflows if one.name == name), None)
    if own is not None and not own.completed:
        return LEAVE
    if not case.latest:
        reason = "a later attempt was recorded before a workflow claimed this one"
        return Decision(Action.SUPERSEDE, reason)
    if own is not None:
        return Decision(Action.MARK_LOST, f"workflow {name} ended before it claimed the attempt")
    wait = timedelta(seconds=rules.grace_s * 2 ** min(case.posted, MAX_DOUBLINGS))
    last = max(case.recorded, case.posted_at or case.recorded)
    return LEAVE if now - last < wait else Decision(Action.POST, "no workflow has claimed it")


def _decide_claimed(
    case: AttemptCase,
    claim: Claim,
    workflows: Sequence[KnownWorkflow],
    now: datetime,
    rules: SweepRules,
) -> Decision:
    own = next((one for one in workflows if one.uid == claim.uid), None)
    if own is not None and own.completed:
        return Decision(Action.RECORD, "its workflow ended without an outcome")
    if own is not None or now - max(claim.at, case.recorded) < timedelta(seconds=rules.grace_s):
        return LEAVE
    reason = f"workflow {claim.workflow} ({claim.uid}) is gone and left no outcome"
    return Decision(Action.MARK_LOST, reason)
