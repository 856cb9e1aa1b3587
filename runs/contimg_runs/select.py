"""``contimg select`` and ``contimg strips``: what a backfill or a night works on, as lists that Argo fans out over."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from contimg.records.groups import group_id, latest
from contimg.records.strips import strip_name, strips
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import UsageError
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import Ledger
from contimg_runs.options import CHUNK, SelectOptions, StripsOptions
from contimg_runs.pipelines import find_pipeline
from contimg_runs.resolve import resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg.runtime.console import Console
    from contimg.runtime.store import Store


def select(store: Store, options: SelectOptions) -> list[str]:
    """Return the groups that are to be processed, as ID-aN of their latest attempts, by id.

    Raises
    ------
    UsageError
        If the days are none, or hold more groups than one backfill takes.
    """
    first, last = _begin(options.first_day), _end(options.last_day)
    if first > last:
        raise UsageError(
            "--last-day",
            f"expected {options.first_day} or later, found {options.last_day}.",
            "Correct the days.",
        )
    ledger = Ledger(store)
    # An id begins with its day, so that words compare as times do.
    chosen = [one.run for one in latest(store) if first <= one.group <= last]
    wanted = [
        run
        for run in chosen
        if (ledger.claim(run) is None or (options.redo and ledger.outcome(run) is not None))
    ]
    if len(wanted) > CHUNK * CHUNK:
        where = f"{options.first_day} to {options.last_day}"
        raise UsageError(
            where,
            f"expected at most {CHUNK * CHUNK} groups, found {len(wanted)!s}.",
            "Take fewer days.",
        )
    return wanted


def chunks(runs: Sequence[str]) -> list[dict[str, str]]:
    """Return the first and the last group of each chunk; the whole list would stand in the name of a node."""
    starts = range(0, len(runs), CHUNK)
    ids = [run.partition("-")[0] for run in runs]
    return [
        {"first": ids[start], "last": ids[min(start + CHUNK, len(ids)) - 1]} for start in starts
    ]


def observed(store: Store, since: datetime | None) -> list[dict[str, str]]:
    """Return the strips with groups since some time, each with its name.

    Raises
    ------
    UsageError
        If there are more than one workflow takes.
    """
    ledger = Ledger(store)
    # What was begun earlier by its id need not be read.
    first = group_id(since) if since else ""
    records = [ledger.record(one.run) for one in latest(store) if one.group >= first]
    decs = strips(
        record for record in records if record is not None and (since is None or record.t0 >= since)
    )
    if len(decs) > CHUNK:
        raise UsageError(
            store.root, f"expected at most {CHUNK} strips, found {len(decs)!s}.", "Give --days."
        )
    return [{"strip": str(dec), "epoch": strip_name(dec)} for dec in decs]


def run_select(options: SelectOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Hand over the list."""
    resolve_options(find_pipeline(options.pipeline), options.options, options.profile, env)
    store = open_store(options.store)
    store.check()
    runs = select(store, options)
    console.log.info("%d groups", len(runs))
    hand_over(env, "chunks", json.dumps(chunks(runs)))
    # Who asks for the groups of one chunk gets no more, whatever came since; one of the lists is empty.
    listed = json.dumps(runs[:CHUNK])
    hand_over(env, "new", "[]" if options.redo else listed)
    hand_over(env, "again", listed if options.redo else "[]")
    return {"stage": "select", "groups": len(runs), "chunks": len(chunks(runs))}


def run_strips(options: StripsOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Hand over the list."""
    resolve_options(find_pipeline(options.pipeline), options.options, options.profile, env)
    store = open_store(options.store)
    store.check()
    since = datetime.now(UTC) - timedelta(days=options.days) if options.days else None
    found = observed(store, since)
    console.log.info("%d strips: %s", len(found), ", ".join(one["epoch"] for one in found))
    hand_over(env, "strips", json.dumps(found))
    return {"stage": "strips", "strips": found}


def _begin(word: str) -> str:
    return word if "t" in word else f"{_day(word):%Y%m%d}t000000"


def _end(word: str) -> str:
    return word if "t" in word else f"{_day(word):%Y%m%d}t235959"


def _day(word: str) -> date:
    try:
        return date.fromisoformat(word)
    except ValueError as error:
        raise UsageError(
            "days", f"expected YYYY-MM-DD, found {word}.", "Correct the days."
        ) from error
