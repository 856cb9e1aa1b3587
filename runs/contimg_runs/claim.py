"""``contimg claim`` and ``contimg begin``: the first task of a workflow, which gets its attempt.

One workflow has an attempt. Where a workflow begins the next attempt, the claim comes before the
record: once the record is there, any workflow may claim the attempt.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

from contimg.records.groups import GROUPS, GroupRecord, Subband
from contimg.records.runs import Claim, Outcome, Phase, run_name
from contimg.runtime.config import merge_documents
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over, read_manifest_or_none
from contimg.runtime.errors import UsageError
from contimg.runtime.manifest import Manifest
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.store import Store, open_store, split
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.options import BeginOptions, ClaimOptions
from contimg_runs.pipelines import find_pipeline
from contimg_runs.resolve import hand_over_document, resolve_request


def run_claim(options: ClaimOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check the options of the run, claim the attempt, and hand over both."""
    document = resolve_request(options, env)
    store = open_store(options.store)
    store.check()
    now = datetime.now(UTC)
    claim = Claim(run=options.run, uid=options.uid, workflow=options.workflow, at=now)
    reason = claim_attempt(AttemptStore(store), claim)
    console.log.info("%s: %s", options.run, reason or "claimed")
    hand_over(env, "claimed", str(not reason).lower())
    hand_over_document(env, document)
    summary = {"run": options.run, "group": f"{store.root}/{GROUPS}{options.run}.json"}
    return {"stage": "claim", **summary, "claimed": not reason, "reason": reason}


def claim_attempt(attempts: AttemptStore, claim: Claim) -> str:
    """Let one workflow have a recorded attempt; return why this one does not, empty if it does."""
    group, number = run_name(claim.run) or ("", 0)
    latest = attempts.require_record(claim.run)
    held = attempts.read(Claim, claim.run)
    if held is None and number < latest:
        # Its rows, written last, would replace those of the later attempt.
        return f"attempt {latest} has replaced it"
    if held is None and not attempts.write(claim):
        held = attempts.read(Claim, claim.run)
        if held is None:
            return "already done by another"
    if held is not None and held.uid != claim.uid:
        return f"already done by {held.workflow} ({held.uid})"
    outcome = attempts.read(Outcome, claim.run) if held is not None else None
    if outcome is not None:
        return f"already recorded as {outcome.phase}"
    attempts.refresh_row(group)
    return ""


def run_begin(options: BeginOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check the options, begin the next attempt, and hand over its number and options."""
    document = resolve_request(options, env)
    pipeline = find_pipeline(options.pipeline)
    store = open_store(options.store)
    store.check()
    number, kept = begin_attempt(AttemptStore(store), pipeline, options)
    first = options.first or "the first step"
    console.log.info("attempt %d at %s, from %s on", number, options.group, first)
    hand_over(env, "attempt", str(number))
    reused = {step: {"reuse": uri} for step, uri in kept.items()}
    hand_over_document(env, merge_documents([document, reused]))
    return {"stage": "begin", "group": options.group, "attempt": number, "kept": kept}


def begin_attempt(
    attempts: AttemptStore, pipeline: Pipeline, options: BeginOptions
) -> tuple[int, dict[str, str]]:
    """Claim and record the next attempt at a group; the same workflow gets the same one again.

    Return its number, and the URI of the artifact of each step that does not run again. UsageError
    if there is no such group or step, the last attempt is in progress, or a required artifact is
    missing.
    """
    group, latest = options.group, attempts.read_latest(options.group)
    if latest is None:
        where = f"{attempts.store.root}/{GROUPS}{group}-a1.json"
        raise UsageError(where, "There is no record of this group.", "Correct the id or the store.")
    number, previous, held = latest.record.attempt, latest.record, latest.claim
    is_ours = held is not None and held.uid == options.uid
    if is_ours:  # an earlier try of this pod began it
        previous = attempts.read(GroupRecord, f"{group}-a{number - 1}") or previous
    elif held is not None and latest.outcome is None:
        where = f"{attempts.store.root}/{GROUPS}{latest.record.name}.json"
        problem = f"The attempt is in progress: {held.workflow} has it."
        remedy = "Wait for it or stop it; if its workflow is gone, the sweep closes it in minutes."
        raise UsageError(where, problem, remedy)
    kept = find_kept(attempts, pipeline, group, options.first)
    record = latest.record
    if not is_ours:
        for number in count(latest.record.attempt + 1):  # the first one not claimed by another
            run, now = f"{group}-a{number}", datetime.now(UTC)
            claim = Claim(run=run, uid=options.uid, workflow=options.workflow, at=now)
            held = claim if attempts.write(claim) else attempts.read(Claim, run)
            if held is not None and held.uid == options.uid:
                break
        subbands = refresh_subbands(attempts.store, previous)
        changes = {"attempt": number, "retries": 0, "subbands": subbands}
        record = previous.model_copy(update=changes)
        if not attempts.write(record):
            record = attempts.read(GroupRecord, record.name) or record
    attempts.refresh_row(group)
    # Artifacts made of other subbands cannot be kept: one was replaced, or watch has recorded the
    # attempt first, with a late one.
    return number, kept if record.subbands == previous.subbands else {}


def refresh_subbands(store: Store, record: GroupRecord) -> tuple[Subband, ...]:
    """Return the subbands of a record as they are in the store now; one that is gone as it was.

    The comparison is strict: to convert a file again costs little, and a person has asked for it.
    """
    subbands = []
    for subband in record.subbands:
        folder, key = split(subband.uri) if subband.is_absolute else (store, subband.uri)
        entry = folder.entry(key)
        if entry is None or not subband.is_replaced(entry, strictly=True):
            subbands.append(subband)
        else:
            subbands.append(subband.updated(entry))
    return tuple(subbands)


def find_kept(attempts: AttemptStore, pipeline: Pipeline, group: str, first: str) -> dict[str, str]:
    """Return the artifacts of the steps that do not run again, by step.

    The steps that `first` reads from, directly or not, are required. Steps on other branches are
    kept where their artifacts exist. The artifacts are those that the last attempt with all
    required ones ended with, else the newest ones that fit together. UsageError if there is no such
    step, or a required artifact is missing.
    """
    again = pipeline.after(first) if first else frozenset(pipeline.order)
    wanted = [step for step in pipeline.order if step not in again]
    if not wanted:
        return {}
    required = pipeline.before(first)
    # Newest artifacts are looked for from the last required step back, then on other branches.
    backwards = list(reversed(wanted))
    backwards.sort(key=lambda step: step not in required)
    for found in _list_candidates(attempts, pipeline, group, backwards):
        made = [step for step in wanted if step in found and read_manifest_or_none(found[step])]
        kept = {step: found[step] for step in made}
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
    """Yield artifacts by step: those of each attempt, the latest first, then the newest ones.

    Of each step the newest artifact counts whose sources agree with those of the steps after it.
    """
    for number in reversed(attempts.list_attempts(group)):
        outcome = attempts.read(Outcome, f"{group}-a{number}")
        tasks = outcome.tasks if outcome else ()
        succeeded = [task for task in tasks if task.phase is Phase.SUCCEEDED and task.artifact]
        yield {task.stage: task.artifact for task in succeeded}
    found: dict[str, str] = {}
    for step in backwards:  # runs of the local engine leave no outcome
        folder = f"{pipeline.products.replace('{group}', group)}/{step}/"
        entries = attempts.store.entries(folder) if step not in found else ()
        keys = {entry.key.removeprefix(folder).partition("/")[0] for entry in entries}
        uris = [f"{attempts.store.root}/{folder}{key}" for key in keys]
        made = [(uri, manifest) for uri in uris if (manifest := read_manifest_or_none(uri))]
        for uri, manifest in sorted(made, key=lambda pair: pair[1].created, reverse=True):
            chain = {step: uri, **_trace_sources(pipeline, step, manifest)}
            if all(found.get(name, one) == one for name, one in chain.items()):
                found |= chain
                break
    yield found


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
