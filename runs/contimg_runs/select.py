"""``contimg select`` and ``contimg strips``: what a backfill or a night works on, as lists."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

from contimg.records.groups import GroupRecord, group_id, list_latest
from contimg.records.runs import Claim, Outcome
from contimg.records.strips import strip_name, strips
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import BadInputError, UsageError
from contimg.runtime.store import Store, open_store
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.calibrators import find_calibrator_groups
from contimg_runs.options import CHUNK, MAX_GROUPS, SelectOptions, StripsOptions
from contimg_runs.resolve import resolve_request
from contimg_runs.sweep import N_READERS


def run_select(options: SelectOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check the options of the runs, and hand over the groups of some days."""
    document = resolve_request(options, env)
    store = open_store(options.store)
    store.check()
    runs = select_runs(store, options)
    first = find_calibrator_groups(read_records(AttemptStore(store), runs), document)
    parts: dict[str, list[str]] = {"all": runs, "calibrators": [], "others": []}
    for run in runs:
        parts["calibrators" if run.partition("-")[0] in first else "others"].append(run)
    counts = {name: len(parts[name]) for name in ("calibrators", "others")}
    console.log.info("groups with a calibrator: %(calibrators)d, others: %(others)d", counts)
    for name in counts:
        hand_over(env, name, json.dumps(split_into_chunks(parts[name])))
    # The workflow of one chunk takes no more groups than that, even if more came since; one list is
    # empty.
    listed = json.dumps(parts[options.only][:CHUNK])
    hand_over(env, "new", "[]" if options.redo else listed)
    hand_over(env, "again", listed if options.redo else "[]")
    return {"stage": "select", "groups": len(runs), **counts}


def select_runs(store: Store, options: SelectOptions) -> list[str]:
    """Return the groups that are to be processed, as ID-aN of their latest attempts, by id.

    UsageError if the days are wrong, or hold more groups than one backfill takes.
    """
    bounds = []
    for day, time in ((options.first_day, "t000000"), (options.last_day, "t235959")):
        try:  # a day, or the id of a group
            bounds.append(day if "t" in day else f"{date.fromisoformat(day):%Y%m%d}{time}")
        except ValueError as error:
            problem = f"There is no day {day}."
            raise UsageError("days", problem, "Write days as YYYY-MM-DD.") from error
    first, last = bounds
    if first > last:
        problem = f"The last day, {options.last_day}, is before the first, {options.first_day}."
        raise UsageError("--last-day", problem, "Correct the days.")
    attempts = AttemptStore(store)
    wanted = [
        one.run
        for one in list_latest(store)
        if first <= one.group <= last  # an id begins with its day, so that ids sort by time
        and (
            attempts.read(Claim, one.run) is None
            or (options.redo and attempts.read(Outcome, one.run) is not None)
        )
    ]
    if len(wanted) > MAX_GROUPS:
        where = f"{options.first_day} to {options.last_day}"
        problem = f"These are {len(wanted)} groups; one backfill takes at most {MAX_GROUPS}."
        raise UsageError(where, problem, "Take fewer days.")
    return wanted


def read_records(attempts: AttemptStore, runs: Sequence[str]) -> list[GroupRecord]:
    """Return the records of ID-aN, without those that cannot be read: their own runs say why."""

    def read(run: str) -> GroupRecord | None:
        try:
            return attempts.read(GroupRecord, run)
        except BadInputError:
            return None

    with ThreadPoolExecutor(N_READERS) as pool:
        return [record for record in pool.map(read, runs) if record]


def split_into_chunks(runs: Sequence[str]) -> list[dict[str, str]]:
    """Return the first and the last group of each chunk; a list is too long for a node's name."""
    ids = [run.partition("-")[0] for run in runs]
    starts = range(0, len(ids), CHUNK)
    return [{"first": ids[n], "last": ids[n : n + CHUNK][-1]} for n in starts]


def run_strips(options: StripsOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Check the options of the runs, and hand over the strips."""
    resolve_request(options, env)
    store = open_store(options.store)
    store.check()
    since = datetime.now(UTC) - timedelta(days=options.days) if options.days else None
    found = list_strips(store, since)
    console.log.info("%d strips: %s", len(found), ", ".join(one["epoch"] for one in found))
    hand_over(env, "strips", json.dumps(found))
    return {"stage": "strips", "strips": found}


def list_strips(store: Store, since: datetime | None) -> list[dict[str, str]]:
    """Return the strips with groups since a time; UsageError if there are too many."""
    attempts = AttemptStore(store)
    first = group_id(since) if since else ""  # records of earlier groups need not be read
    runs = [one.run for one in list_latest(store) if one.group >= first]
    records = [record for run in runs if (record := attempts.read(GroupRecord, run))]
    decs = strips(record for record in records if since is None or record.t0 >= since)
    if len(decs) > CHUNK:
        problem = f"There are {len(decs)} strips; one night takes at most {CHUNK}."
        raise UsageError(store.root, problem, "Give --days.")
    return [{"strip": str(dec), "epoch": strip_name(dec)} for dec in decs]
