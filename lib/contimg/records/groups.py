"""Groups of subbands: their records and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field, ValidationError

from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import Input, Record, digest_json, object_input
from contimg.runtime.options import InputKind
from contimg.runtime.store import (
    FILE_VERSION,
    Entry,
    Store,
    absolute_uri,
    is_absolute,
    open_store,
    split,
)

N_SUBBANDS = 16
MJD_ZERO_JD = 2_400_000.5
"""Julian Date of MJD 0."""
UNIX_EPOCH = datetime.fromtimestamp(0, UTC)
UNIX_EPOCH_MJD = 40587
GROUPS = "groups/"
"""Folder of the records below the store's root."""
INCOMING = "incoming/"
"""Folder of the subbands below the store's root."""

_SUBBAND = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)_sb(?P<index>\d\d)\.hdf5")
_RECORD = re.compile(r"(?P<id>\d{8}t\d{6})-a(?P<attempt>[1-9]\d*)\.json")


@dataclass(frozen=True)
class SubbandName:
    """Time and index in the name of a complete subband file."""

    stamp: datetime
    """UTC by the clock of the node that wrote it, which may be 21 s off its neighbours'."""
    index: int
    """Subband, 0 is the highest frequency."""


class Subband(Record):
    """One UVH5 file of a group."""

    index: int = Field(ge=0, lt=N_SUBBANDS)
    """0 is the highest frequency."""
    uri: str
    """Relative to the store's root in the stored record, which can be moved so; else absolute."""
    size: int
    """Bytes."""
    modified: AwareDatetime
    """UTC."""
    version: str = ""
    """Version of the content by the store (`Entry.version`); empty in older records."""

    @property
    def is_absolute(self) -> bool:
        """Whether the URI is absolute."""
        return is_absolute(self.uri)

    def updated(self, entry: Entry) -> Self:
        """Return it with size, time and version of an object in the store."""
        now = {"size": entry.size, "modified": entry.modified, "version": entry.version}
        return self.model_copy(update=now)

    def is_replaced(self, entry: Entry, *, strictly: bool = False) -> bool:
        """Return whether an object is no longer the recorded one.

        Size and S3's entity tag decide; for files and in older records, size and time. After a
        move from a directory into a bucket or back, only the size can be compared. `strictly`: a
        file counts as replaced also if its size and time are the same, but its inode or time of
        change is not.
        """
        if entry.size != self.size:
            return True
        if not self.version or not entry.version:
            return entry.modified != self.modified
        is_file, was_file = (v.startswith(FILE_VERSION) for v in (entry.version, self.version))
        if is_file and was_file and not strictly:
            return entry.modified != self.modified
        return is_file == was_file and entry.version != self.version


class GroupRecord(Record):
    """One attempt at a group: STORE/groups/ID-aN.json, written once and never changed."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=r"^\d{8}t\d{6}$")
    """First integration's UTC to the second, such as 20260125t222605."""
    attempt: int = Field(ge=1)
    """A late subband starts the next one."""
    t0: AwareDatetime
    """UTC midpoint of the first integration, ``time_array[0]``."""
    duration_s: float
    """From the first integration's midpoint to the last one's, seconds."""
    dec_deg: float | None
    """Apparent Declination of the pointing, degrees; None if it is not in the header."""
    subbands: tuple[Subband, ...]
    """By index, each index at most once."""
    missing: tuple[int, ...] = ()
    """Subbands that the attempt does not have."""
    retries: int = Field(default=0, ge=0)
    """How often the same subbands were started again after infrastructure failures."""

    @property
    def name(self) -> str:
        """The record's name without its suffix, ID-aN."""
        return f"{self.id}-a{self.attempt}"

    @property
    def complete(self) -> bool:
        """Whether all subbands are there."""
        return not self.missing

    @property
    def mjd_start(self) -> float:
        """MJD (UTC) of the first integration's midpoint."""
        return mjd_of(self.t0)

    @property
    def mjd_end(self) -> float:
        """MJD (UTC) of the last integration's midpoint."""
        return self.mjd_start + self.duration_s / 86400


def subband_name(name: str) -> SubbandName | None:
    """Parse the name of a complete subband file; None for any other, such as a partial one."""
    match = _SUBBAND.fullmatch(name)
    if match is None or int(match["index"]) >= N_SUBBANDS:
        return None
    try:
        stamp = datetime.fromisoformat(match["stamp"]).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    return SubbandName(stamp, int(match["index"]))


def record_name(name: str) -> tuple[str, int] | None:
    """Split the name of a record, ID-aN.json, into id and attempt; None for any other name."""
    match = _RECORD.fullmatch(name)
    return (match["id"], int(match["attempt"])) if match else None


class Recorded(NamedTuple):
    """A record in a store's listing; sorts by group, then by attempt (keys have a10 before a2)."""

    group: str
    attempt: int
    entry: Entry

    @property
    def run(self) -> str:
        """Name of the attempt, ID-aN."""
        return f"{self.group}-a{self.attempt}"


def list_records(store: Store, prefix: str = "") -> Iterator[Recorded]:
    """List the records whose names begin with `prefix`, by key."""
    for entry in store.entries(f"{GROUPS}{prefix}"):
        name = record_name(entry.key.removeprefix(GROUPS))
        if name is not None:
            yield Recorded(*name, entry)


def list_latest(store: Store) -> list[Recorded]:
    """List the record of the latest attempt at each group, by id."""
    return list({one.group: one for one in sorted(list_records(store))}.values())


def utc_of_jd(jd: float) -> datetime:
    """Return the UTC of a Julian date, to the 40 microseconds that a float64 resolves."""
    return utc_of_mjd(jd - MJD_ZERO_JD)


def utc_of_mjd(mjd: float) -> datetime:
    """Return the UTC moment of an MJD."""
    return UNIX_EPOCH + timedelta(days=mjd - UNIX_EPOCH_MJD)


def day_of_mjd(mjd: float) -> str:
    """Return the UTC day of an MJD, by which tables are partitioned."""
    return utc_of_mjd(mjd).strftime("%Y-%m-%d")


def mjd_of(moment: datetime) -> float:
    """Return the MJD of a UTC moment."""
    return UNIX_EPOCH_MJD + (moment - UNIX_EPOCH) / timedelta(days=1)


def group_id(t0: datetime) -> str:
    """Return the id of the group whose first integration is at `t0`, to the nearest second."""
    return (t0.astimezone(UTC) + timedelta(milliseconds=500)).strftime("%Y%m%dt%H%M%S")


def read_group(uri: str) -> GroupRecord:
    """Read a group record STORE/groups/ID-aN.json; the returned subbands' URIs are absolute.

    Raises MissingError if it does not exist, BadInputError if it is not a group record.
    """
    store, key = split(uri)
    record = group_record(store.read(key), uri)
    root = open_store(uri.rpartition("/")[0] or ".").root.rpartition("/")[0]
    subbands = tuple(
        subband.model_copy(update={"uri": absolute_uri(subband.uri, root)})
        for subband in record.subbands
    )
    return record.model_copy(update={"subbands": subbands})


def group_record(data: bytes, uri: str) -> GroupRecord:
    """Parse the content of a group record; the subbands' URIs stay as they are.

    Raises BadInputError if it is not a group record.
    """
    try:
        return GroupRecord.model_validate_json(data)
    except ValidationError as error:
        problem = f"This is not a group record: {error}."
        raise BadInputError(uri, problem, "Name a STORE/groups/ID-aN.json.") from error


def group_input(name: str, uri: str) -> Input:
    """Describe a group's record as an input, without the numbers of the attempt and of retries."""
    store, key = split(uri)
    try:
        record = group_record(store.read(key), uri)
    except BadInputError:  # the stage that reads it reports it
        return object_input(name, uri)
    content = record.model_dump(mode="json", exclude={"attempt", "retries"})
    return Input(name=name, uri=uri, digest=digest_json(content))


GroupURI = Annotated[str, InputKind("group", group_input)]
"""URI of a group's record, digested without the attempt: the same subbands are the same work."""
