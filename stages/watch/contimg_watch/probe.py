"""Check that a store lets exactly one of many writers win; claims and records rely on this."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from contimg.runtime.errors import UsageError
from contimg.runtime.store import Store

N_WRITERS = 32


def probe(store: Store) -> None:
    """Let 32 writers create one object at the same time.

    Raises
    ------
    UsageError
        Unless exactly one wins, the object is what it wrote, and a later one is refused.
    """
    key = f"watch/probe-{uuid.uuid4().hex}"
    barrier = threading.Barrier(N_WRITERS)

    def write(number: int) -> bool:
        barrier.wait()
        return store.create(key, str(number).encode())

    try:
        with ThreadPoolExecutor(N_WRITERS) as pool:
            winners = [n for n, won in enumerate(pool.map(write, range(N_WRITERS))) if won]
        is_late_accepted = store.create(key, b"late")
        content = store.read(key)
    finally:
        store.delete(key)
    if len(winners) != 1 or is_late_accepted or content != str(winners[0]).encode():
        late = ", and a later one" if is_late_accepted else ""
        won = f"{len(winners)} of {N_WRITERS} concurrent conditional puts won{late}"
        problem = f"{won}; exactly one must win."
        remedy = (
            "Use a store with conditional puts (If-None-Match): "
            "AWS, Ceph, Garage, SeaweedFS, MinIO, or a directory."
        )
        raise UsageError(store.root, problem, remedy)
