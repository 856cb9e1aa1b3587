"""Make sure that a store lets exactly one of many writers win; everything that runs once rests on this."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from contimg.runtime.errors import UsageError

if TYPE_CHECKING:
    from contimg.runtime.store import Store

WRITERS = 32
REMEDY = "Use a store with conditional puts (If-None-Match): AWS, Ceph, Garage, SeaweedFS, MinIO, or a directory."


def probe(store: Store) -> None:
    """Let 32 writers create one object at the same time.

    Raises
    ------
    UsageError
        Unless exactly one wins, the object is what it wrote, and a later one is refused.
    """
    key = f"watch/probe-{uuid.uuid4().hex}"
    barrier = threading.Barrier(WRITERS)

    def write(number: int) -> bool:
        barrier.wait()
        return store.create(key, str(number).encode())

    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            winners = [number for number, won in enumerate(pool.map(write, range(WRITERS))) if won]
        late = store.create(key, b"late")
        holds = store.read(key)
    finally:
        store.delete(key)
    if len(winners) != 1 or late or holds != str(winners[0]).encode():
        found = f"{len(winners)}{' and a late one' if late else ''}"
        raise UsageError(
            store.root,
            f"expected 1 of {WRITERS} concurrent conditional puts to win, found {found}.",
            REMEDY,
        )
