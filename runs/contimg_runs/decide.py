"""What the sweep does about an attempt: one pure function of what the store and the cluster say of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from contimg.records.runs import workflow_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contimg.records.runs import Claim, Outcome
    from contimg_runs.cluster import Known

LONGEST = 6
"""The wait before an attempt is posted again doubles so often at most."""


class Act(StrEnum):
    """What is to be done about an attempt."""

    LEAVE = "leave"
    POST = "post"
    """Nobody took it: say it again."""
    RECORD = "record"
    """Its workflow ended, and only the outcome is missing."""
    LOSE = "lose"
    """Its workflow is gone: close the attempt as lost."""
    SUPERSEDE = "supersede"
    """Nobody took it before the next one was recorded: close it, so that nobody will."""
    RESTART = "restart"
    """The world ended it: record the same subbands as the next attempt."""


@dataclass(frozen=True)
class Rules:
    """How patient the sweep is."""

    grace_s: float = 600.0
    """What is younger is left alone, seconds."""
    retries: int = 3
    """How often the same subbands are begun anew."""


@dataclass(frozen=True)
class Case:
    """What the store says of one attempt."""

    run: str
    """ID-aN."""
    recorded: datetime
    """UTC, by the store's clock."""
    latest: bool
    """Whether no later attempt at the group is recorded."""
    retries: int = 0
    """How often these subbands were begun anew; of the latest attempt only."""
    covered: bool = False
    """Whether an earlier attempt at the same subbands succeeded, as where a person began this one; of the latest only."""
    claim: Claim | None = None
    outcome: Outcome | None = None
    posted: int = 0
    """How often a sweep has posted it in vain."""
    posted_at: datetime | None = None
    """UTC."""


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why."""

    act: Act
    reason: str = ""


LEAVE = Decision(Act.LEAVE)


def decide(case: Case, workflows: Sequence[Known], now: datetime, rules: Rules) -> Decision:
    """Say what is to be done about an attempt.

    Parameters
    ----------
    case
        As the store said before the workflows were listed: what was claimed then had a workflow by then.
    workflows
        All of the namespace.
    now
        UTC, by the store's clock.
    rules
        How patient to be.
    """
    if case.outcome is not None:
        return _after(case, case.outcome, rules)
    if case.claim is not None:
        return _during(case, case.claim, workflows, now, rules)
    return _before(case, workflows, now, rules)


def _after(case: Case, outcome: Outcome, rules: Rules) -> Decision:
    if not case.latest or not outcome.may_be_tried_again:
        return LEAVE
    if case.covered:
        return Decision(Act.LEAVE, "an earlier attempt at the same subbands succeeded")
    if case.retries >= rules.retries:
        return Decision(Act.LEAVE, f"it was begun anew {case.retries} times")
    return Decision(Act.RESTART, outcome.reason or outcome.phase)


def _during(
    case: Case, claim: Claim, workflows: Sequence[Known], now: datetime, rules: Rules
) -> Decision:
    found = [one for one in workflows if one.uid == claim.uid]
    if found:
        return (
            Decision(Act.RECORD, "its workflow ended without an outcome")
            if found[0].completed
            else LEAVE
        )
    if now - max(claim.at, case.recorded) < timedelta(seconds=rules.grace_s):
        return LEAVE
    return Decision(
        Act.LOSE, f"workflow {claim.workflow} ({claim.uid}) is gone and left no outcome"
    )


def _before(case: Case, workflows: Sequence[Known], now: datetime, rules: Rules) -> Decision:
    name = workflow_name(case.run)
    living = [one for one in workflows if one.name == name]
    if living and not living[0].completed:
        return LEAVE
    if not case.latest:
        return Decision(Act.SUPERSEDE, "a later attempt was recorded before anybody had begun it")
    if living:
        return Decision(Act.LOSE, f"workflow {name} ended before it could claim the attempt")
    wait = timedelta(seconds=rules.grace_s * 2 ** min(case.posted, LONGEST))
    last = max(case.recorded, case.posted_at or case.recorded)
    return LEAVE if now - last < wait else Decision(Act.POST, "nobody took it")
