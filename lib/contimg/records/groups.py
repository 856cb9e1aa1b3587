"""Groups of subbands: the record that makes a group exist, and the names that everything about it carries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, Field, ValidationError

from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import Input, digest_json, object_input
from contimg.runtime.options import InputKind
from contimg.runtime.record import Record
from contimg.runtime.store import Entry, open_store, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contimg.runtime.store import Store

N_SUBBANDS = 16
JD_OF_MJD_0 = 2400000.5
MJD_OF_UNIX_0 = 40587
GROUPS = "groups/"
"""Where the records lie below the store's root."""
INCOMING = "incoming/"
"""Where the subbands lie below the store's root."""

_SUBBAND = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)_sb(?P<index>\d\d)\.hdf5")
_RECORD = re.compile(r"(?P<id>\d{8}t\d{6})-a(?P<attempt>[1-9]\d*)\.json")


@dataclass(frozen=True)
class SubbandName:
    """What the name of a finished subband says."""

    stamp: datetime
    """UTC by the clock of the node that wrote it, which may be 21 s off its neighbours'."""
    index: int
    """Subband, 0 is the highest frequency."""


class Subband(Record):
    """One UVH5 file of a group."""

    index: int = Field(ge=0, lt=N_SUBBANDS)
    """0 is the highest frequency."""
    uri: str
    """In the stored record relative to the store's root, so that a store can be moved; `read_group` makes it absolute."""
    size: int
    """Bytes."""
    modified: AwareDatetime
    """UTC."""


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
    """Apparent Declination that the dishes point to, degrees; None if the header does not say."""
    subbands: tuple[Subband, ...]
    """By index, each index at most once."""
    missing: tuple[int, ...] = ()
    """Subbands that the attempt has to do without."""
    retries: int = Field(default=0, ge=0)
    """How often these very subbands were begun anew, after runs that the world ended."""

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
    """Read the name of a finished subband; None for anything else, such as one that is still being written."""
    match = _SUBBAND.fullmatch(name)
    if match is None or int(match["index"]) >= N_SUBBANDS:
        return None
    try:
        stamp = datetime.fromisoformat(match["stamp"]).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    return SubbandName(stamp, int(match["index"]))


def record_name(name: str) -> tuple[str, int] | None:
    """Split the name of a record's object, ID-aN.json, into id and attempt; None for anything else."""
    match = _RECORD.fullmatch(name)
    return (match["id"], int(match["attempt"])) if match else None


class Recorded(NamedTuple):
    """A record in a store's listing; sorts by group, then by attempt, where keys would have a10 before a2."""

    group: str
    attempt: int
    entry: Entry

    @property
    def run(self) -> str:
        """Name of the attempt, ID-aN."""
        return f"{self.group}-a{self.attempt}"


def recorded(store: Store, prefix: str = "") -> Iterator[Recorded]:
    """List the records whose names begin with `prefix`, by key."""
    for entry in store.entries(f"{GROUPS}{prefix}"):
        name = record_name(entry.key.removeprefix(GROUPS))
        if name is not None:
            yield Recorded(*name, entry)


def latest(store: Store) -> list[Recorded]:
    """List the record of the latest attempt at each group, by id."""
    return list({one.group: one for one in sorted(recorded(store))}.values())


def utc_of_jd(jd: float) -> datetime:
    """Return the UTC of a Julian date (good to 40 microseconds, which is what a float64 holds)."""
    return utc_of_mjd(jd - JD_OF_MJD_0)


def utc_of_mjd(mjd: float) -> datetime:
    """Return the UTC moment of an MJD."""
    return datetime.fromtimestamp(0, UTC) + timedelta(days=mjd - MJD_OF_UNIX_0)


def day_of_mjd(mjd: float) -> str:
    """Return the UTC day of an MJD, as tables are parted by it."""
    return utc_of_mjd(mjd).strftime("%Y-%m-%d")


def mjd_of(moment: datetime) -> float:
    """Return the MJD of a UTC moment."""
    return MJD_OF_UNIX_0 + (moment - datetime.fromtimestamp(0, UTC)) / timedelta(days=1)


def group_id(t0: datetime) -> str:
    """Return the id of the group whose first integration is at `t0`, to the nearest second."""
    return (t0.astimezone(UTC) + timedelta(milliseconds=500)).strftime("%Y%m%dt%H%M%S")


def read_group(uri: str) -> GroupRecord:
    """Read a group record STORE/groups/ID-aN.json; the subbands' URIs come back absolute.

    Raises
    ------
    MissingError
        If there is none.
    BadInputError
        If it is not a group record.
    """
    store, key = split(uri)
    record = group_record(store.read(key), uri)
    root = store_of(uri)
    subbands = tuple(
        s.model_copy(update={"uri": s.uri if _absolute(s.uri) else f"{root}/{s.uri}"})
        for s in record.subbands
    )
    return record.model_copy(update={"subbands": subbands})


def group_record(data: bytes, uri: str) -> GroupRecord:
    """Return the record that an object at `uri` holds, with the subbands' URIs as they stand there.

    Raises
    ------
    BadInputError
        If it is not a group record.
    """
    try:
        return GroupRecord.model_validate_json(data)
    except ValidationError as error:
        raise BadInputError(
            uri,
            f"expected a group record, found {error!s}.",
            "Name a STORE/groups/ID-aN.json that watch wrote.",
        ) from error


def group_input(name: str, uri: str) -> Input:
    """Describe a group's record as an input: what is in it, but neither which attempt it is nor how often it was tried."""
    store, key = split(uri)
    try:
        record = group_record(store.read(key), uri)
    except BadInputError:  # whoever reads it says what is wrong
        return object_input(name, uri)
    return Input(
        name=name,
        uri=uri,
        digest=digest_json(record.model_dump(mode="json", exclude={"attempt", "retries"})),
    )


GroupURI = Annotated[str, InputKind("group", group_input)]
"""URI of a group's record, digested without the number of the attempt: the same subbands again are the same work."""


def store_of(uri: str) -> str:
    """Return the root of the store that a group record lies in."""
    return open_store(uri.rpartition("/")[0] or ".").root.rpartition("/")[0]


def _absolute(uri: str) -> bool:
    return uri.startswith("/") or "://" in uri
