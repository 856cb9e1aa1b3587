"""Group records that agree with their files, as after watch's next look."""

from __future__ import annotations

from pathlib import Path

from contimg.records.groups import GroupRecord
from contimg.runtime.store import open_store


def relist(record: Path) -> Path:
    """Write a record again with size, time and version of its files as they are now."""
    store = open_store(str(record.parents[1]))
    old = GroupRecord.model_validate_json(record.read_text())
    subbands = []
    for subband in old.subbands:
        entry = store.entry(subband.uri)
        assert entry is not None
        subbands.append(subband.updated(entry))
    record.write_text(old.model_copy(update={"subbands": tuple(subbands)}).model_dump_json())
    return record
