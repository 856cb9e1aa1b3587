"""One look at the store, or many: listing, headers, plan, records."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from contimg.errors import StoreError, UsageError
from contimg.groups import GROUPS, INCOMING, GroupRecord, record_name, subband_name
from contimg.store import open_store
from contimg_watch.memory import Headers
from contimg_watch.plan import Plan, Rules, Seen, State, plan
from contimg_watch.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from logging import Logger

    from contimg.console import Console
    from contimg.store import Entry, Store
    from contimg_watch.options import WatchOptions


def run(options: WatchOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Watch a store; return the summary of the last pass."""
    watcher = Watcher(options, console.log)
    probe(watcher.store)
    if options.follow:
        watcher.follow()
    return summarise(watcher.once(), watcher.written)


class Watcher:
    """Looks at one store again and again."""

    def __init__(self, options: WatchOptions, log: Logger) -> None:
        self.store: Store = open_store(options.store)
        self.written: list[str] = []
        """Records that this watcher wrote."""
        self._options, self._log = options, log
        self._rules = Rules(options.gap_s, options.timeout_s, options.size)
        self._days = _days(options.dates)
        self._headers = Headers(self.store)
        self._records: dict[str, GroupRecord] = {}
        self._said: set[tuple[str, str]] = set()

    def once(self) -> Plan:
        """Look once and write the records that are due."""
        listing = [self._see(entry) for entry in self._incoming()]
        if not self._days:
            self._headers.forget_all_but({seen.key for seen in listing})
        self._headers.save()
        self._learn()
        result = self._within(plan(listing, datetime.now(UTC), self._records.values(), self._rules))
        for group in result.groups:
            if group.state is State.READY:
                self._write(group.record)
        self._say(result)
        return result

    def follow(self) -> None:
        """Look until told to stop; a store that does not answer is waited for."""
        while True:
            try:
                self.once()
            except StoreError as error:
                self._log.warning("%s", error)
            time.sleep(self._options.interval_s)

    def _incoming(self) -> Iterator[Entry]:
        """List the days asked for and their neighbours: a group around midnight lies in two folders."""
        if not self._days:
            yield from self.store.entries(INCOMING)
        for day in sorted({day + timedelta(days=step) for day in self._days for step in (-1, 0, 1)}):
            yield from self.store.entries(f"{INCOMING}{day}/")

    def _within(self, result: Plan) -> Plan:
        """Leave out the groups of other days: of those around midnight not everything was listed."""
        if not self._days:
            return result
        return replace(result, groups=tuple(group for group in result.groups if group.record.t0.date() in self._days))

    def _see(self, entry: Entry) -> Seen:
        """Read the header of what may be a good subband, and of nothing else."""
        named = subband_name(entry.key.rpartition("/")[2])
        if named is None or entry.size == 0 or (self._rules.size and entry.size != self._rules.size):
            return Seen(entry.key, entry.size, entry.modified)
        return self._headers.see(entry)

    def _learn(self) -> None:
        """Read the records that were not read before; they never change."""
        for entry in self.store.entries(GROUPS):
            name = entry.key.removeprefix(GROUPS)
            if name not in self._records and record_name(name):
                self._records[name] = GroupRecord.model_validate_json(self.store.read(entry.key))

    def _write(self, record: GroupRecord) -> None:
        data = record.model_dump_json(indent=1).encode()
        if self.store.create(f"{GROUPS}{record.name}.json", data):
            self.written.append(record.name)
            lacks = f", without {', '.join(f'sb{n:02d}' for n in record.missing)}" if record.missing else ""
            self._log.info("group %s: %d subbands%s", record.name, len(record.subbands), lacks)

    def _say(self, result: Plan) -> None:
        """Name each quarantined object once."""
        for key, reason in result.quarantined:
            if (key, reason) not in self._said:
                self._log.warning("quarantined: %s/%s: %s", self.store.root, key, reason)
        self._said = set(result.quarantined)


def summarise(result: Plan, written: list[str]) -> dict[str, Any]:
    """Return what watch prints: the groups by state, and every quarantined object with its reason."""
    waiting = [
        {"group": g.id, "missing": list(g.record.missing), "until": g.until.isoformat(timespec="seconds")}
        for g in result.groups
        if g.state is State.WAITING
    ]
    return {
        "stage": "watch",
        "written": written,
        "recorded": sum(group.state is State.RECORDED for group in result.groups),
        "waiting": waiting,
        "quarantined": dict(result.quarantined),
    }


def _days(words: tuple[str, ...]) -> frozenset[date]:
    try:
        return frozenset(date.fromisoformat(word) for word in words)
    except ValueError as error:
        raise UsageError("--dates", "YYYY-MM-DD,…", ",".join(words), "Correct the dates.") from error
