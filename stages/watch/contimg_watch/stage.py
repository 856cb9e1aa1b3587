"""One look at the store, or many: listing, headers, plan, records."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from contimg.records.groups import INCOMING, GroupRecord, list_records, subband_name
from contimg.runtime.errors import ContimgError, Exit, StoreError, UsageError, retry_of
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import Ledger, put_row
from contimg_runs.post import poster
from contimg_watch.memory import Headers
from contimg_watch.plan import Plan, Rules, Seen, State, plan
from contimg_watch.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from logging import Logger

    from contimg.runtime.console import Console
    from contimg.runtime.store import Entry, Store
    from contimg_runs.post import Post
    from contimg_watch.options import ServiceOptions


def run(options: ServiceOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Watch a store; return the summary of the last pass."""
    if options.serve:
        from contimg_watch.serve import serve  # the metrics' library is not needed for one pass

        serve(options, console.log)
    watcher = Watcher(options, console.log)
    watcher.store.check()
    probe(watcher.store)
    if options.follow:
        watcher.follow(options.interval_s)
    result = watcher.once()
    watcher.post_rest()
    return summarise(result, watcher)


class Watcher:
    """Looks at one store again and again."""

    def __init__(
        self,
        options: ServiceOptions,
        log: Logger,
        post: Post | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.store: Store = open_store(options.store)
        self.written: list[str] = []
        """Records that this watcher wrote."""
        self.posted: list[str] = []
        """Those of them that were posted."""
        self.unposted: list[GroupRecord] = []
        """Those that nobody took yet."""
        self.failure: StoreError | None = None
        """Why the last post failed; None if it did not."""
        self._log, self._beat = log, beat
        self._post = poster(options.post, self.store.root) if options.post else post
        self._rules = Rules(options.gap_s, options.timeout_s, options.size)
        self._days = _days(options.dates)
        self._headers: Headers | None = None
        self._records: dict[str, GroupRecord] = {}
        self._unreadable: set[str] = set()
        self._collecting: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()

    def once(self, now: datetime | None = None, days: frozenset[date] = frozenset()) -> Plan:
        """Look once, write the records that are due and post them.

        Parameters
        ----------
        now
            UTC; the clock's if not given.
        days
            Look at the folders of these days and their neighbours, beside what the options say; none: at all.
        """
        days = self._days or days
        headers = self._headers = self._headers or Headers(self.store)
        listing = [self._see(entry, headers) for entry in self._incoming(days)]
        if not days:
            headers.forget_all_but({seen.key for seen in listing})
        headers.save()
        self._learn()
        result = _within(
            plan(listing, now or datetime.now(UTC), self._records.values(), self._rules), days
        )
        for group in result.groups:
            if group.state is State.READY:
                self._write(group.record)
        self.post_due()
        if self._post is not None:
            self._show(result)
        self._say(result)
        return result

    def follow(self, interval_s: float) -> None:
        """Look until told to stop; a store that does not answer is waited for."""
        while True:
            self.bear(self.once)
            time.sleep(interval_s)

    def bear(self, work: Callable[[], object]) -> bool:
        """Do something that may fail for a while; say whether it succeeded."""
        try:
            work()
        except ContimgError as error:
            if not retry_of(error.exit).limit:
                raise
            self._log.warning("%s", error)
            return False
        return True

    def post_due(self) -> None:
        """Post what was recorded; what nobody takes is kept for the next pass. After a crash the sweep posts it."""
        while self.unposted and self._post is not None:
            try:
                self._post(self.unposted[0])
            except StoreError as error:
                self._log.warning("%s", error)
                self.failure = error
                return
            self.posted.append(self.unposted.pop(0).name)
        self.failure = None

    def post_rest(self) -> None:
        """Try again what nobody took, as often as the table of exit codes says.

        Raises
        ------
        StoreError
            If nobody took it in the end.
        """
        for number in range(retry_of(Exit.STORE_UNREACHABLE).limit):
            if self.failure is None:
                return
            time.sleep(2**number)
            self.post_due()
        if self.failure is not None:
            raise self.failure

    def _incoming(self, days: frozenset[date]) -> Iterator[Entry]:
        """List the days asked for and their neighbours: a group around midnight lies in two folders."""
        if not days:
            yield from self.store.entries(INCOMING)
        for day in sorted({day + timedelta(days=step) for day in days for step in (-1, 0, 1)}):
            yield from self.store.entries(f"{INCOMING}{day}/")

    def _see(self, entry: Entry, headers: Headers) -> Seen:
        """Read the header of what may be a good subband, and of nothing else."""
        named = subband_name(entry.key.rpartition("/")[2])
        if (
            named is None
            or entry.size == 0
            or (self._rules.size and entry.size != self._rules.size)
        ):
            return Seen(entry.key, entry.size, entry.modified)
        self._beat()  # a store that was never looked at before takes minutes
        return headers.see(entry)

    def _learn(self) -> None:
        """Read the records that were not read before; they never change."""
        for key in (one.entry.key for one in list_records(self.store)):
            if key in self._records or key in self._unreadable:
                continue
            try:
                self._records[key] = GroupRecord.model_validate_json(self.store.read(key))
            except ValidationError as error:
                self._unreadable.add(key)
                self._log.warning(
                    "%s/%s is no group record: %s", self.store.root, key, str(error).splitlines()[0]
                )

    def _write(self, record: GroupRecord) -> None:
        if Ledger(self.store).add(record):
            self.written.append(record.name)
            if self._post is not None:
                self.unposted.append(record)
            lacks = (
                f", without {', '.join(f'sb{n:02d}' for n in record.missing)}"
                if record.missing
                else ""
            )
            self._log.info("group %s: %d subbands%s", record.name, len(record.subbands), lacks)

    def _show(self, result: Plan) -> None:
        """Bring the table of groups up to date; where something else runs the workflows, nobody would carry it on."""
        for group in result.groups:
            held = len(group.record.subbands)
            if group.state is State.READY:
                Ledger(self.store).refresh(group.id)
            elif (
                group.state is State.WAITING
                and group.record.attempt == 1
                and self._collecting.get(group.id) != held
            ):
                put_row(self.store, group.record)
                self._collecting[group.id] = held

    def _say(self, result: Plan) -> None:
        """Name each quarantined object once."""
        for key, reason in result.quarantined:
            if (key, reason) not in self._said:
                self._log.warning("quarantined: %s/%s: %s", self.store.root, key, reason)
        self._said = set(result.quarantined)


def _within(result: Plan, days: frozenset[date]) -> Plan:
    """Leave out the groups of other days: of those around midnight not everything was listed."""
    if not days:
        return result
    return replace(
        result, groups=tuple(group for group in result.groups if group.record.t0.date() in days)
    )


def summarise(result: Plan, watcher: Watcher) -> dict[str, Any]:
    """Return what watch prints: the groups by state, and every quarantined object with its reason."""
    waiting = [
        {
            "group": g.id,
            "missing": list(g.record.missing),
            "until": g.until.isoformat(timespec="seconds"),
        }
        for g in result.groups
        if g.state is State.WAITING
    ]
    return {
        "stage": "watch",
        "written": watcher.written,
        "posted": watcher.posted,
        "recorded": sum(group.state is State.RECORDED for group in result.groups),
        "waiting": waiting,
        "quarantined": dict(result.quarantined),
    }


def _days(words: tuple[str, ...]) -> frozenset[date]:
    try:
        return frozenset(date.fromisoformat(word) for word in words)
    except ValueError as error:
        raise UsageError(
            "--dates", f"expected YYYY-MM-DD,…, found {','.join(words)}.", "Correct the dates."
        ) from error
