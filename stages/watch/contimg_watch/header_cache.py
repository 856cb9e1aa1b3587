"""The headers that watch has read, one per object, kept in the store."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from contimg.runtime.errors import MissingError
from contimg.runtime.store import Entry, Store
from contimg_watch.header import read_header
from contimg_watch.plan import ListedSubband, SubbandHeader

CACHE_KEY = "watch/headers.json"


class _CachedHeader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    modified: AwareDatetime
    header: SubbandHeader | None
    problem: str


class _CacheFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entries: dict[str, _CachedHeader] = {}


class HeaderCache:
    """The headers of a store's subbands; an object is read again if its size or time changes."""

    def __init__(self, store: Store) -> None:
        self._store, self._changed = store, False
        try:
            self._headers = _CacheFile.model_validate_json(store.read(CACHE_KEY)).entries
        except (MissingError, ValidationError):  # a cache of another version is dropped
            self._headers = {}

    def describe(self, entry: Entry) -> ListedSubband:
        """Return an object with its header, from the cache if the object has not changed."""
        item = self._headers.get(entry.key)
        if item is None or (item.size, item.modified) != (entry.size, entry.modified):
            header, problem = read_header(self._store, entry.key, entry.size)
            item = _CachedHeader(
                size=entry.size, modified=entry.modified, header=header, problem=problem
            )
            self._headers[entry.key] = item
            self._changed = True
        return ListedSubband(
            key=entry.key,
            size=entry.size,
            modified=entry.modified,
            header=item.header,
            problem=item.problem,
        )

    def forget_all_but(self, keys: set[str]) -> None:
        """Forget objects that are gone, so that the cache does not grow forever."""
        gone = self._headers.keys() - keys
        for key in gone:
            del self._headers[key]
        self._changed |= bool(gone)

    def save(self) -> None:
        """Write the cache if it changed; of two writers the last wins, which only costs reads."""
        if self._changed:
            content = _CacheFile(entries=self._headers).model_dump_json()
            self._store.put(CACHE_KEY, content.encode())
            self._changed = False
