"""One pass over the store, or many: listing, headers, plan, records, posts."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from logging import Logger
from typing import Any

from pydantic import ValidationError

from contimg.records.groups import INCOMING, GroupRecord, list_records, subband_name
from contimg.runtime.console import Console
from contimg.runtime.errors import ContimgError, Exit, StoreError, UsageError, retry_of
from contimg.runtime.store import Store, open_store
from contimg_runs.attempt_store import Attempt, AttemptStore, put_row
from contimg_runs.post import Post, post_attempt
from contimg_watch.header import HeaderCache
from contimg_watch.options import ServiceOptions, WatchOptions
from contimg_watch.plan import ListedSubband, PlanState, WatchPlan, plan
from contimg_watch.probe import probe

Days = frozenset[date]


def run(options: WatchOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Watch a store; return the summary of the last pass."""
    if not isinstance(options, ServiceOptions):
        options = ServiceOptions(**options.model_dump())
    if options.serve:
        from contimg_watch.serve import serve  # the metrics' library is not needed for one pass

        serve(options, console.log)
    watcher = Watcher(options, console.log)
    watcher.store.check()
    probe(watcher.store)
    while options.follow:
        watcher.try_or_log(watcher.run_pass)
        time.sleep(options.interval_s)
    found = watcher.run_pass()
    for number in range(retry_of(Exit.STORE_UNREACHABLE).limit):
        if watcher.failure is not None:
            time.sleep(2**number)
            watcher.post_due()
    if watcher.failure is not None:
        raise watcher.failure
    waiting = [
        {
            "group": group.record.id,
            "missing": list(group.record.missing),
            "until": group.until.isoformat(timespec="seconds"),
        }
        for group in found.groups
        if group.state is PlanState.WAITING
    ]
    return {
        "stage": "watch",
        "written": watcher.written,
        "posted": watcher.posted,
        "recorded": sum(group.state is PlanState.RECORDED for group in found.groups),
        "waiting": waiting,
        "quarantined": dict(found.quarantined),
    }


class Watcher:
    """Looks at one store again and again."""

    def __init__(self, options: ServiceOptions, log: Logger, post: Post | None = None) -> None:
        self.store: Store = open_store(options.store)
        self.written: list[str] = []
        """Records that this watcher wrote."""
        self.posted: list[str] = []
        """Those of them that were posted."""
        self.unposted: list[GroupRecord] = []
        """Those that are still to be posted."""
        self.failure: StoreError | None = None
        """Why the last post failed; None if it did not."""
        self.alive_at_s = time.monotonic()
        """When it was last known to work, by the monotonic clock; a pass may take minutes."""
        self._log = log
        if options.post:
            post = partial(post_attempt, options.post, self.store.root)
        self._options, self._post = options, post
        try:
            self._days = frozenset(date.fromisoformat(word) for word in options.dates)
        except ValueError as error:
            problem = f"Dates are written YYYY-MM-DD, not {','.join(options.dates)}."
            raise UsageError("--dates", problem, "Correct the dates.") from error
        self._headers: HeaderCache | None = None
        self._records: dict[str, GroupRecord] = {}
        self._unreadable: set[str] = set()
        self._collecting: dict[str, int] = {}
        """Number of subbands in the row of each group that is being collected."""
        self._quarantined: set[tuple[str, str]] = set()

    def run_pass(self, now: datetime | None = None, days: Days = frozenset()) -> WatchPlan:
        """Look once, at some days if the options name none; write and post the records due."""
        days = self._days or days
        headers = self._headers = self._headers or HeaderCache(self.store)
        now = now or datetime.now(UTC)
        listing = list(self._list_incoming(days, headers, now))
        headers.save(None if days else {one.key for one in listing})
        self._refresh_cache()
        found = plan(listing, now, self._records.values(), self._options)
        if days:  # of the groups around midnight of other days not all subbands were listed
            groups = [group for group in found.groups if group.record.t0.date() in days]
            found = replace(found, groups=tuple(groups))
        for record in (one.record for one in found.groups if one.state is PlanState.READY):
            if AttemptStore(self.store).write(record):
                self.written.append(record.name)
                self.unposted += [record] if self._post is not None else []
                missing = ", ".join(f"sb{number:02d}" for number in record.missing)
                without = f", without {missing}" if missing else ""
                n_subbands = len(record.subbands)
                self._log.info("group %s: %d subbands%s", record.name, n_subbands, without)
        self.post_due()
        if self._post is not None:
            self._update_rows(found)
        for key, reason in found.quarantined:  # each is logged once
            if (key, reason) not in self._quarantined:
                self._log.warning("quarantined: %s/%s: %s", self.store.root, key, reason)
        self._quarantined = set(found.quarantined)
        return found

    def try_or_log(self, work: Callable[[], object]) -> bool:
        """Do something that may fail for a while; return whether it succeeded."""
        try:
            work()
        except ContimgError as error:
            if not retry_of(error.exit).limit:
                raise
            self._log.warning("%s", error)
            return False
        return True

    def post_due(self) -> None:
        """Post new records; those that fail wait for the next pass, or for the sweep."""
        while self.unposted and self._post is not None:
            try:
                self._post(self.unposted[0])
            except StoreError as error:
                self._log.warning("%s", error)
                self.failure = error
                return
            self.posted.append(self.unposted.pop(0).name)
        self.failure = None

    def _list_incoming(
        self, days: Days, headers: HeaderCache, now: datetime
    ) -> Iterator[ListedSubband]:
        """List the objects of the days, or of all; with headers where they may be good subbands."""
        # With neighbours: a group around midnight lies in two folders.
        near = sorted({day + timedelta(days=step) for day in days for step in (-1, 0, 1)})
        for folder in [f"{INCOMING}{day}/" for day in near] if days else [INCOMING]:
            for entry in self.store.entries(folder):
                is_subband = subband_name(entry.key.rpartition("/")[2]) is not None
                if is_subband and entry.size and self._options.size in {0, entry.size}:
                    self.alive_at_s = time.monotonic()
                    yield headers.describe(entry, now)
                else:
                    yield ListedSubband(**vars(entry))

    def _refresh_cache(self) -> None:
        """Read the records that were not read before; they never change."""
        for key in (one.entry.key for one in list_records(self.store)):
            if key in self._records or key in self._unreadable:
                continue
            try:
                self._records[key] = GroupRecord.model_validate_json(self.store.read(key))
            except ValidationError as error:
                self._unreadable.add(key)
                reason = str(error).splitlines()[0]
                self._log.warning("%s/%s is not a group record: %s", self.store.root, key, reason)

    def _update_rows(self, found: WatchPlan) -> None:
        """Update the table of groups; only where workflows run, which update it afterwards."""
        for group in found.groups:
            record, n_subbands = group.record, len(group.record.subbands)
            is_new = group.state is PlanState.WAITING and record.attempt == 1
            if group.state is PlanState.READY:
                AttemptStore(self.store).refresh_row(record.id)
            elif is_new and self._collecting.get(record.id) != n_subbands:
                put_row(self.store, Attempt(record), collecting=True)
                self._collecting[record.id] = n_subbands
