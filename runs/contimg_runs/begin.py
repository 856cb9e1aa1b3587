"""``contimg begin``: the first task of a reprocessing. It claims the next attempt.

The claim comes before the record: once the record is there, any workflow may claim the attempt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from contimg.records.groups import GROUPS, GroupRecord
from contimg.records.runs import Claim, Outcome, Phase
from contimg.runtime.config import merge_documents
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over, read_manifest_or_none
from contimg.runtime.errors import UsageError
from contimg.runtime.manifest import Manifest
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.options import BeginOptions
from contimg_runs.pipelines import find_pipeline
from contimg_runs.resolve import hand_over_document, resolve_request


@dataclass(frozen=True)
class NextAttempt:
    """An attempt that is claimed and recorded."""

    number: int
    kept: Mapping[str, str]
    """URI of the artifact by step, for the steps that do not run again."""


def run(options: BeginOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check the options, begin the next attempt, and hand over its number and options."""
    document = resolve_request(options, env)
    pipeline = find_pipeline(options.pipeline)
    store = open_store(options.store)
    store.check()
    begun = begin_attempt(AttemptStore(store), pipeline, options)
    first = options.first or "the first step"
    console.log.info("attempt %d at %s, from %s on", begun.number, options.group, first)
    reused = {step: {"reuse": uri} for step, uri in begun.kept.items()}
    document = merge_documents([document, reused])
    hand_over(env, "attempt", str(begun.number))
    hand_over_document(env, document)
    summary = {"group": options.group, "attempt": begun.number, "kept": dict(begun.kept)}
    return {"stage": "begin", **summary}


def begin_attempt(attempts: AttemptStore, pipeline: Pipeline, options: BeginOptions) -> NextAttempt:
    """Claim and record the next attempt at a group; the same workflow gets the same one again.

    Raises
    ------
    UsageError
        If there is no such group or step, the last attempt is in progress, or a required
        artifact is missing.
    """
    group, latest = options.group, attempts.read_latest(options.group)
    if latest is None:
        where = f"{attempts.store.root}/{GROUPS}{group}-a1.json"
        raise UsageError(where, "There is no record of this group.", "Correct the id or the store.")
    number, previous = latest.record.attempt, latest.record
    is_ours = latest.claim is not None and latest.claim.uid == options.uid
    if is_ours:  # an earlier try of this pod began it
        previous = attempts.read(GroupRecord, f"{group}-a{number - 1}") or previous
    elif latest.claim is not None and latest.outcome is None:
        where = f"{attempts.store.root}/{GROUPS}{latest.record.name}.json"
        problem = f"The attempt is in progress: {latest.claim.workflow} has it."
        remedy = "Wait for it or stop it; if its workflow is gone, the sweep closes it in minutes."
        raise UsageError(where, problem, remedy)
    kept = find_kept(attempts, pipeline, group, options.first)
    if is_ours:
        record = latest.record
    else:
        number = _claim_free_number(attempts, number + 1, options)
        record = previous.model_copy(update={"attempt": number, "retries": 0})
        if not attempts.write(record):
            record = attempts.read(GroupRecord, record.name) or record
    attempts.refresh_row(group)
    # If watch recorded the attempt first, with a late subband, nothing made without that can be
    # kept.
    return NextAttempt(number, kept if record.subbands == previous.subbands else {})


def _claim_free_number(attempts: AttemptStore, start: int, options: BeginOptions) -> int:
    """Claim the first attempt that no other workflow has claimed; return its number."""
    for number in count(start):
        run_id, now = f"{options.group}-a{number}", datetime.now(UTC)
        claim = Claim(run=run_id, uid=options.uid, workflow=options.workflow, at=now)
        if attempts.write(claim):
            return number
        held = attempts.read(Claim, run_id)
        if held is not None and held.uid == options.uid:
            return number
    raise AssertionError


def find_kept(attempts: AttemptStore, pipeline: Pipeline, group: str, first: str) -> dict[str, str]:
    """Return the artifacts of the steps that do not run again, by step.

    The steps that `first` reads from, directly or not, are required. Steps on other branches are
    kept where their artifacts exist. The artifacts are those that the last attempt with all
    required ones ended with, else the newest ones that fit together.

    Raises
    ------
    UsageError
        If there is no such step, or a required artifact is missing.
    """
    if not first:
        return {}
    required, again = pipeline.before(first), pipeline.after(first)
    wanted = [step for step in pipeline.order if step not in again]
    if not wanted:
        return {}
    # Newest artifacts are looked for from the last required step back, then on other branches.
    backwards = list(reversed(wanted))
    backwards.sort(key=lambda step: step not in required)
    for found in _list_candidates(attempts, pipeline, group, backwards):
        kept = {
            step: found[step]
            for step in wanted
            if step in found and read_manifest_or_none(found[step])
        }
        if kept and required <= kept.keys():
            return kept
    if not required:
        return {}
    names = ", ".join(step for step in wanted if step in required)
    problem = f"Not all artifacts of {names} exist."
    where = f"{attempts.store.root}/products/{group}"
    raise UsageError(where, problem, "Begin from an earlier step.")


def _list_candidates(
    attempts: AttemptStore, pipeline: Pipeline, group: str, backwards: list[str]
) -> Iterator[dict[str, str]]:
    """Yield artifacts by step: those of each attempt, the latest first, then the newest ones."""
    for number in reversed(attempts.list_attempts(group)):
        outcome = attempts.read(Outcome, f"{group}-a{number}")
        tasks = outcome.tasks if outcome else ()
        succeeded = [task for task in tasks if task.phase is Phase.SUCCEEDED and task.artifact]
        yield {task.stage: task.artifact for task in succeeded}
    found: dict[str, str] = {}
    for step in backwards:  # runs of the local engine leave no outcome
        if step not in found:
            found |= _find_newest(attempts, pipeline, group, step, found)
    yield found


def _find_newest(
    attempts: AttemptStore, pipeline: Pipeline, group: str, step: str, found: Mapping[str, str]
) -> dict[str, str]:
    """Return a step's newest artifact whose sources agree with `found`, and these sources."""
    folder = f"{pipeline.products.replace('{group}', group)}/{step}/"
    entries = attempts.store.entries(folder)
    keys = {entry.key.removeprefix(folder).partition("/")[0] for entry in entries}
    uris = [f"{attempts.store.root}/{folder}{key}" for key in keys]
    made = [(uri, manifest) for uri in uris if (manifest := read_manifest_or_none(uri))]
    for uri, manifest in sorted(made, key=lambda pair: pair[1].created, reverse=True):
        chain = {step: uri, **_trace_sources(pipeline, step, manifest)}
        if all(found.get(name, one) == one for name, one in chain.items()):
            return chain
    return {}


def _trace_sources(pipeline: Pipeline, step: str, manifest: Manifest) -> dict[str, str]:
    """Return the artifacts that one was made from, directly or not, by step."""
    found: dict[str, str] = {}
    for item in manifest.inputs:
        source = pipeline.step(step).inputs.get(item.name)
        if source is not None:
            found[source] = item.uri
            made_by = read_manifest_or_none(item.uri)
            found |= _trace_sources(pipeline, source, made_by) if made_by else {}
    return found
