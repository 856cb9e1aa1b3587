"""``contimg claim``: the first task of a workflow. One workflow has an attempt; the others end without doing anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contimg.records.groups import GROUPS
from contimg.records.runs import Claim, run_name
from contimg.runtime.contract import hand_over
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import Ledger
from contimg_runs.options import ClaimOptions
from contimg_runs.pipelines import find_pipeline
from contimg_runs.resolve import resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg.runtime.console import Console


@dataclass(frozen=True)
class Answer:
    """Whether the attempt is ours, and if not, why."""

    claimed: bool
    reason: str = ""


def run(options: ClaimOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Claim, and tell the engine."""
    document = resolve_options(
        find_pipeline(options.pipeline), options.options, options.profile, env, options.set
    )
    hand_over(env, "options", json.dumps(document))
    store = open_store(options.store)
    store.check()
    wanted = Claim(
        run=options.run, uid=options.uid, workflow=options.workflow, at=datetime.now(UTC)
    )
    answer = claim(Ledger(store), wanted)
    console.log.info("%s: %s", options.run, "claimed" if answer.claimed else answer.reason)
    uri = f"{store.root}/{GROUPS}{options.run}.json"
    hand_over(env, "claimed", str(answer.claimed).lower())
    hand_over(env, "group", uri)
    return {
        "stage": "claim",
        "run": options.run,
        "claimed": answer.claimed,
        "reason": answer.reason,
        "group": uri,
    }


def claim(ledger: Ledger, wanted: Claim) -> Answer:
    """Let one workflow have an attempt: the first that asks, as long as no later attempt is there.

    Raises
    ------
    UsageError
        If there is no record of the attempt.
    """
    group, number = run_name(wanted.run) or ("", 0)
    latest = ledger.expect(wanted.run)
    held = ledger.claim(wanted.run)
    if held is None and number < latest:
        # Its rows, written last, would replace those of the later attempt.
        return Answer(claimed=False, reason=f"attempt {latest} has replaced it")
    if held is None and ledger.take(wanted):
        ledger.refresh(group)
        return Answer(claimed=True)
    held = held or ledger.claim(wanted.run)
    if held is None or held.uid != wanted.uid:
        return Answer(
            claimed=False,
            reason=f"already done by {f'{held.workflow} ({held.uid})' if held else 'another'}",
        )
    outcome = ledger.outcome(wanted.run)
    if outcome is not None:
        return Answer(claimed=False, reason=f"already recorded as {outcome.phase}")
    ledger.refresh(group)
    return Answer(claimed=True)
