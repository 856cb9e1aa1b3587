"""``contimg claim``: the first task of a workflow. One workflow has an attempt; others end."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contimg.records.groups import GROUPS
from contimg.records.runs import Claim, Outcome, run_name
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.options import ClaimOptions
from contimg_runs.resolve import hand_over_document, resolve_request


@dataclass(frozen=True)
class ClaimResult:
    """Whether a workflow has the attempt, and if not, why."""

    claimed: bool
    reason: str = ""


def run(options: ClaimOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check the options of the run, claim the attempt, and hand over both."""
    document = resolve_request(options, env)
    store = open_store(options.store)
    store.check()
    now = datetime.now(UTC)
    claim = Claim(run=options.run, uid=options.uid, workflow=options.workflow, at=now)
    result = claim_attempt(AttemptStore(store), claim)
    console.log.info("%s: %s", options.run, "claimed" if result.claimed else result.reason)
    hand_over(env, "claimed", str(result.claimed).lower())
    hand_over_document(env, document)
    group = f"{store.root}/{GROUPS}{options.run}.json"
    return {"stage": "claim", "run": options.run, "group": group, **vars(result)}


def claim_attempt(attempts: AttemptStore, claim: Claim) -> ClaimResult:
    """Let the first workflow that asks have an attempt; UsageError if it has no record."""
    group, number = run_name(claim.run) or ("", 0)
    latest = attempts.require_record(claim.run)
    held = attempts.read(Claim, claim.run)
    if held is None and number < latest:
        # Its rows, written last, would replace those of the later attempt.
        return ClaimResult(claimed=False, reason=f"attempt {latest} has replaced it")
    if held is None and not attempts.write(claim):
        held = attempts.read(Claim, claim.run)
        if held is None:
            return ClaimResult(claimed=False, reason="already done by another")
    if held is not None and held.uid != claim.uid:
        reason = f"already done by {held.workflow} ({held.uid})"
        return ClaimResult(claimed=False, reason=reason)
    outcome = attempts.read(Outcome, claim.run) if held is not None else None
    if outcome is not None:
        return ClaimResult(claimed=False, reason=f"already recorded as {outcome.phase}")
    attempts.refresh_row(group)
    return ClaimResult(claimed=True)
