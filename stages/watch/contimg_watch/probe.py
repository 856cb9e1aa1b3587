"""Check that a store lets exactly one of many writers win; claims and records rely on this."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from contimg.runtime.errors import UsageError
from contimg.runtime.store import Store

N_WRITERS = 32


def probe(store: Store) -> None:
    """Let 32 writers create one object at once; UsageError unless exactly the first one wins."""
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
        won = f"{len(winners)} of {N_WRITERS} concurrent conditional puts won"
        late = ", and a later one" if is_late_accepted else ""
        problem = f"{won}{late}; exactly one must win."
        remedy = (
            "Use AWS, Ceph, Garage, SeaweedFS, MinIO or a directory: they honour If-None-Match."
        )
        raise UsageError(store.root, problem, remedy)
