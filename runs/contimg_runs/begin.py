"""``contimg begin``: the first task of a reprocessing. The next attempt is ours, and what is kept of the last one is named.

The claim comes before the record: once the record is there, anybody may want the attempt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from contimg.records.groups import GROUPS
from contimg.records.runs import Claim, Phase
from contimg.runtime.contract import hand_over, read_manifest_or_none
from contimg.runtime.errors import UsageError
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import Ledger
from contimg_runs.options import BeginOptions
from contimg_runs.pipelines import find_pipeline
from contimg_runs.resolve import resolve_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from contimg.records.groups import GroupRecord
    from contimg.runtime.console import Console
    from contimg.runtime.manifest import Manifest
    from contimg_runs.attempt_store import Attempt

STAGES = find_pipeline("process-group").order
READ = {"ms": "convert", "flags": "flag", "calibration": "calibrate", "image": "image"}
"""Which stage made what an option of a later one names."""


@dataclass(frozen=True)
class Begun:
    """An attempt that is ours."""

    attempt: int
    kept: Mapping[str, str]
    """URI of the artifact by stage, for the stages that do not work again."""


def run(options: BeginOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Begin, and tell the engine."""
    document = resolve_options(
        find_pipeline(options.pipeline), options.options, options.profile, env, options.set
    )
    store = open_store(options.store)
    store.check()
    begun = begin(Ledger(store), options)
    console.log.info("attempt %d at %s, from %s on", begun.attempt, options.group, options.first)
    hand_over(env, "attempt", str(begun.attempt))
    for stage, artifact in begun.kept.items():
        document.setdefault(stage, {})["reuse"] = artifact
    hand_over(env, "options", json.dumps(document))
    return {
        "stage": "begin",
        "group": options.group,
        "attempt": begun.attempt,
        "kept": dict(begun.kept),
    }


def begin(ledger: Ledger, options: BeginOptions) -> Begun:
    """Take the next attempt at a group; the same workflow again gets the same one.

    Raises
    ------
    UsageError
        If there is no such group, its last attempt is still in progress, or nothing is there that could be kept.
    """
    latest = ledger.latest(options.group)
    if latest is None:
        where = f"{ledger.store.root}/{GROUPS}{options.group}-a1.json"
        raise UsageError(
            where,
            "expected a group that watch has recorded, found none.",
            "Correct the id or the store.",
        )
    again = latest.claim is not None and latest.claim.uid == options.uid
    before = (
        ledger.record(f"{options.group}-a{latest.record.attempt - 1}") if again else latest.record
    )
    if not again:
        _refuse_running(ledger, latest)
    kept = keep(ledger, options.group, options.first or STAGES[0])
    number = latest.record.attempt if again else _claim(ledger, latest.record.attempt + 1, options)
    record = latest.record if again else _record(ledger, latest.record, number)
    ledger.refresh(options.group)
    # Watch was first with a late subband: what was made without it is of no use.
    return Begun(number, kept if before is None or record.subbands == before.subbands else {})


def keep(ledger: Ledger, group: str, first: str) -> dict[str, str]:
    """Return the artifacts of the stages before `first`: those that the last attempt ended with, else the newest.

    Raises
    ------
    UsageError
        If one is missing.
    """
    wanted = STAGES[: STAGES.index(first)]
    if not wanted:
        return {}
    for found in _chains(ledger, group, wanted[-1]):
        if all(stage in found and read_manifest_or_none(found[stage]) for stage in wanted):
            return {stage: found[stage] for stage in wanted}
    where = f"{ledger.store.root}/products/{group}"
    raise UsageError(
        where,
        f"expected artifacts of {', '.join(wanted)}, found not all of them.",
        "Begin from an earlier stage.",
    )


def _chains(ledger: Ledger, group: str, last: str) -> Iterator[dict[str, str]]:
    """Yield what the attempts ended with, the latest first, then the newest artifact of the last stage with its sources."""
    for number in reversed(ledger.attempts(group)):
        outcome = ledger.outcome(f"{group}-a{number}")
        tasks = outcome.tasks if outcome else ()
        yield {
            task.stage: task.artifact
            for task in tasks
            if task.phase is Phase.SUCCEEDED and task.artifact
        }
    yield _newest(ledger, group, last)


def _newest(ledger: Ledger, group: str, stage: str) -> dict[str, str]:
    """Return the newest artifact of a stage, and those that it was made from; runs of the local engine leave no outcome."""
    root = ledger.store.root
    folder = f"products/{group}/{stage}/"
    keys = {
        entry.key.removeprefix(folder).partition("/")[0] for entry in ledger.store.entries(folder)
    }
    made = [
        (uri, manifest)
        for uri in (f"{root}/{folder}{key}" for key in keys)
        if (manifest := read_manifest_or_none(uri))
    ]
    if not made:
        return {}
    uri, manifest = max(made, key=lambda pair: pair[1].created)
    return {stage: uri, **_sources(manifest)}


def _sources(manifest: Manifest) -> dict[str, str]:
    """Return the artifacts that one was made from, however far back, by stage."""
    found: dict[str, str] = {}
    for item in manifest.inputs:
        if item.name in READ:
            source = read_manifest_or_none(item.uri)
            found |= {READ[item.name]: item.uri, **(_sources(source) if source else {})}
    return found


def _refuse_running(ledger: Ledger, latest: Attempt) -> None:
    if latest.claim is not None and latest.outcome is None:
        where = f"{ledger.store.root}/{GROUPS}{latest.record.name}.json"
        found = f"that {latest.claim.workflow} has it and is not recorded as ended"
        remedy = "Wait for it, or stop it; if it is gone, the sweep says so within minutes."
        raise UsageError(where, f"expected an attempt that has ended, found {found}.", remedy)


def _claim(ledger: Ledger, start: int, options: BeginOptions) -> int:
    """Claim the first attempt that nobody has."""
    for number in count(start):
        name = f"{options.group}-a{number}"
        if ledger.take(
            Claim(run=name, uid=options.uid, workflow=options.workflow, at=datetime.now(UTC))
        ):
            return number
        held = ledger.claim(name)
        if held is not None and held.uid == options.uid:
            return number
    raise AssertionError


def _record(ledger: Ledger, last: GroupRecord, number: int) -> GroupRecord:
    """Write the record of an attempt with the subbands of the last one, unless watch was first."""
    record = last.model_copy(update={"attempt": number, "retries": 0})
    return record if ledger.add(record) else ledger.record(record.name) or record
