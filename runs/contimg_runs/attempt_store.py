"""Attempts at groups in a store: records, claims and outcomes, each written once; their table."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from contimg.records.groups import GROUPS, N_SUBBANDS, GroupRecord, list_records, mjd_of
from contimg.records.runs import RUNS, Claim, Outcome, Phase, run_name
from contimg.records.schemas.runs import GROUPS as GROUPS_TABLE
from contimg.records.schemas.runs import GroupState
from contimg.runtime.errors import BadInputError, MissingError, UsageError
from contimg.runtime.manifest import Record
from contimg.runtime.store import Store


class PostCount(Record):
    """How often a sweep has posted an attempt without effect; the only file that is replaced."""

    times: int


Kind = TypeVar("Kind", GroupRecord, Claim, Outcome, PostCount)
KEYS: dict[type[Record], str] = {
    GroupRecord: f"{GROUPS}{{}}.json",
    Claim: f"{RUNS}{{}}/claim.json",
    Outcome: f"{RUNS}{{}}/outcome.json",
    PostCount: f"{RUNS}{{}}/posted.json",
}
"""Key of each file about ID-aN, which replaces the braces."""


@dataclass(frozen=True)
class Attempt:
    """One attempt, as far as it has come."""

    record: GroupRecord
    claim: Claim | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class AttemptStore:
    """The records, claims and outcomes of one store."""

    store: Store

    def read(self, kind: type[Kind], run: str) -> Kind | None:
        """Return the record, claim or outcome of ID-aN; None if it does not exist."""
        key = KEYS[kind].format(run)
        try:
            return kind.model_validate_json(self.store.read(key))
        except MissingError:
            return None
        except ValidationError as error:
            reasons = "; ".join(str(error).splitlines()[:3])
            problem = f"This is not a {kind.__name__} of this version: {reasons}."
            where = f"{self.store.root}/{key}"
            raise BadInputError(where, problem, "Remove it, or upgrade.") from error

    def write(self, value: GroupRecord | Claim | Outcome) -> bool:
        """Write a record, claim or outcome; return False if it exists: each is written once."""
        run = value.name if isinstance(value, GroupRecord) else value.run
        key = KEYS[type(value)].format(run)
        return self.store.create(key, value.model_dump_json(indent=1).encode())

    def list_attempts(self, group: str) -> list[int]:
        """Return the numbers of the recorded attempts at a group, ascending."""
        return sorted(one.attempt for one in list_records(self.store, f"{group}-a"))

    def read_latest(self, group: str) -> Attempt | None:
        """Return the latest attempt at a group; None if no attempt is recorded."""
        for number in self.list_attempts(group)[-1:]:
            run = f"{group}-a{number}"
            record = self.read(GroupRecord, run)
            if record is not None:
                return Attempt(record, self.read(Claim, run), self.read(Outcome, run))
        return None

    def require_record(self, run: str) -> int:
        """Return the latest attempt at the group of ID-aN; UsageError if ID-aN has no record."""
        group, number = run_name(run) or ("", 0)
        there = self.list_attempts(group)
        if number not in there:
            known = f"attempts {', '.join(map(str, there))}" if there else "no attempt"
            where = f"{self.store.root}/{GROUPS}{run}.json"
            problem = f"There is no record of this attempt; the group has {known}."
            raise UsageError(where, problem, "Correct the id, the attempt or the store.")
        return there[-1]

    def refresh_row(self, group: str) -> None:
        """Write the group's row; again if the attempt changed meanwhile: the last writer wins."""
        shown: Attempt | None = None
        while (latest := self.read_latest(group)) is not None and latest != shown:
            put_row(self.store, latest)
            shown = latest


def table_key(table: str, group: str, unit: str) -> str:
    """Return the key of a unit's rows of a table; the day is that of the group's id."""
    return f"tables/{table}/date={group[:4]}-{group[4:6]}-{group[6:8]}/{unit}.parquet"


def put_row(store: Store, attempt: Attempt, *, collecting: bool = False) -> None:
    """Write the row of a group; `collecting`: the attempt is not recorded yet."""
    record, claim, outcome = attempt.record, attempt.claim, attempt.outcome
    if collecting:
        state = GroupState.COLLECTING
    elif outcome is not None:
        done = outcome.phase is Phase.SUCCEEDED
        state = GroupState.COMPLETED if done else GroupState.FAILED
    elif record.retries:
        state = GroupState.RESUMING
    else:
        state = GroupState.PENDING if claim is None else GroupState.IN_PROGRESS
    row = {
        "group": record.id,
        "state": str(state),
        "attempt": 0 if collecting else record.attempt,
        "retries": record.retries,
        "n_subbands": N_SUBBANDS - len(record.missing),
        "complete": record.complete,
        "mjd_start": record.mjd_start,
        "mjd_end": record.mjd_end,
        "dec": record.dec_deg,
        "workflow": claim.workflow if claim else None,
        "exit": outcome.exit if outcome else None,
        "reason": (outcome.reason or None) if outcome else None,
        "mjd_started": mjd_of(claim.at) if claim else None,
        "mjd_ended": mjd_of(outcome.ended) if outcome else None,
    }
    key = table_key(GROUPS_TABLE.name, record.id, record.id)
    store.put(key, GROUPS_TABLE.to_bytes(GROUPS_TABLE.rows([row])))
