"""What watch has read already: one header per object, remembered in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from contimg.runtime.errors import MissingError
from contimg_watch.header import read_header
from contimg_watch.plan import Header, Seen

if TYPE_CHECKING:
    from contimg.runtime.store import Entry, Store

MEMORY = "watch/headers.json"


class _Memory(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entries: dict[str, _Item] = {}


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    modified: AwareDatetime
    header: Header | None
    problem: str


class Headers:
    """The headers of a store's subbands; an object is read again only when its size or time changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = _load(store)
        self._changed = False

    def see(self, entry: Entry) -> Seen:
        """Return an object with its header, from memory if it is the same object still."""
        item = self._kept.get(entry.key)
        if item is None or (item.size, item.modified) != (entry.size, entry.modified):
            header, problem = read_header(self._store, entry.key, entry.size)
            item = _Item(size=entry.size, modified=entry.modified, header=header, problem=problem)
            self._kept[entry.key] = item
            self._changed = True
        return Seen(entry.key, entry.size, entry.modified, item.header, item.problem)

    def forget_all_but(self, keys: set[str]) -> None:
        """Forget objects that are gone, so that the memory does not grow for ever."""
        gone = self._kept.keys() - keys
        for key in gone:
            del self._kept[key]
        self._changed |= bool(gone)

    def save(self) -> None:
        """Write what is new; it is a memory only, so the last of two writers may win."""
        if self._changed:
            self._store.put(MEMORY, _Memory(entries=self._kept).model_dump_json().encode())
            self._changed = False


def _load(store: Store) -> dict[str, _Item]:
    try:
        return _Memory.model_validate_json(store.read(MEMORY)).entries
    except (MissingError, ValidationError):  # of an older version: read the headers again
        return {}
