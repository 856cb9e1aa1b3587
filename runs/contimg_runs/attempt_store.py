"""What the store says of attempts: records, claims and outcomes, each written once, and where a group stands by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from contimg.records.groups import GROUPS, N_SUBBANDS, GroupRecord, list_records, mjd_of
from contimg.records.runs import RUNS, Claim, Outcome, Phase, claim_key, outcome_key, run_name
from contimg.records.schemas.runs import GROUPS as GROUPS_TABLE
from contimg.records.schemas.runs import GroupState
from contimg.runtime.errors import BadInputError, MissingError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from contimg.runtime.store import Store

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Attempt:
    """One attempt, as far as it has come."""

    record: GroupRecord
    claim: Claim | None = None
    outcome: Outcome | None = None


class Ledger:
    """The records, claims and outcomes of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def record(self, run: str) -> GroupRecord | None:
        """Read the record of ID-aN; None if there is none."""
        return self._read(f"{GROUPS}{run}.json", GroupRecord)

    def claim(self, run: str) -> Claim | None:
        """Read who has ID-aN; None if nobody."""
        return self._read(claim_key(run), Claim)

    def outcome(self, run: str) -> Outcome | None:
        """Read what became of ID-aN; None if that is not known yet."""
        return self._read(outcome_key(run), Outcome)

    def add(self, record: GroupRecord) -> bool:
        """Write a record; False: it was there."""
        return self.store.create(
            f"{GROUPS}{record.name}.json", record.model_dump_json(indent=1).encode()
        )

    def take(self, claim: Claim) -> bool:
        """Write a claim; False: another was first."""
        return self.store.create(claim_key(claim.run), claim.model_dump_json(indent=1).encode())

    def close(self, outcome: Outcome) -> bool:
        """Write an outcome; False: there was one."""
        return self.store.create(
            outcome_key(outcome.run), outcome.model_dump_json(indent=1).encode()
        )

    def attempts(self, group: str) -> list[int]:
        """Return the numbers of the attempts at a group, ascending."""
        return sorted(one.attempt for one in list_records(self.store, f"{group}-a"))

    def claimed(self, group: str, uid: str) -> str | None:
        """Return which attempt at a group a workflow has; None if it has none."""
        prefix = f"{RUNS}{group}-a"
        keys = [entry.key for entry in self.store.entries(prefix)] if group else []
        runs = [key.split("/")[1] for key in keys if key.endswith("/claim.json")]
        return next(
            (run for run in runs if (claim := self.claim(run)) is not None and claim.uid == uid),
            None,
        )

    def succeeded_before(self, record: GroupRecord) -> bool:
        """Say whether an earlier attempt at the same subbands succeeded."""
        for number in self.attempts(record.id):
            run = f"{record.id}-a{number}"
            if (
                number < record.attempt
                and (outcome := self.outcome(run)) is not None
                and outcome.phase is Phase.SUCCEEDED
            ):
                before = self.record(run)
                if before is not None and before.missing == record.missing:
                    return True
        return False

    def latest(self, group: str) -> Attempt | None:
        """Return the latest attempt at a group; None if there is none."""
        for number in self.attempts(group)[-1:]:
            run = f"{group}-a{number}"
            record = self.record(run)
            if record is not None:
                return Attempt(record, self.claim(run), self.outcome(run))
        return None

    def expect(self, run: str) -> int:
        """Return the number of the latest attempt at the group of ID-aN, which must have a record.

        Raises
        ------
        UsageError
            If there is no such group or attempt.
        """
        group, number = run_name(run) or ("", 0)
        there = self.attempts(group)
        if number not in there:
            found = (
                f"attempts {', '.join(map(str, there))}" if there else "no attempt at that group"
            )
            where = f"{self.store.root}/{GROUPS}{run}.json"
            raise UsageError(
                where,
                f"expected the record of an attempt, found {found}.",
                "Correct the id, the attempt or the store.",
            )
        return there[-1]

    def refresh(self, group: str) -> None:
        """Write the group's row as the store says it now; again if that changed meanwhile, since the last to write wins."""
        shown: Attempt | None = None
        while (latest := self.latest(group)) is not None and latest != shown:
            put_row(self.store, latest.record, latest)
            shown = latest

    def _read(self, key: str, model: type[Model]) -> Model | None:
        try:
            return model.model_validate_json(self.store.read(key))
        except MissingError:
            return None
        except ValidationError as error:
            where, found = f"{self.store.root}/{key}", "; ".join(str(error).splitlines()[:3])
            raise BadInputError(
                where,
                f"expected a {model.__name__} of this version, found {found}.",
                "Remove it, or upgrade.",
            ) from error


def state_of(attempt: Attempt) -> GroupState:
    """Return where a group stands by its latest attempt."""
    if attempt.outcome is not None:
        return (
            GroupState.COMPLETED if attempt.outcome.phase is Phase.SUCCEEDED else GroupState.FAILED
        )
    if attempt.record.retries:
        return GroupState.RESUMING
    return GroupState.PENDING if attempt.claim is None else GroupState.IN_PROGRESS


def table_key(table: str, group: str, unit: str) -> str:
    """Return where a unit's rows of a table lie; the day is that of the group's id."""
    return f"tables/{table}/date={group[:4]}-{group[4:6]}-{group[6:8]}/{unit}.parquet"


def put_row(store: Store, record: GroupRecord, attempt: Attempt | None = None) -> None:
    """Write the row of a group; without an attempt it is still being collected."""
    claim, outcome = (attempt.claim, attempt.outcome) if attempt else (None, None)
    row = {
        "group": record.id,
        "state": str(state_of(attempt) if attempt else GroupState.COLLECTING),
        "attempt": record.attempt if attempt else 0,
        "retries": record.retries,
        "n_subbands": N_SUBBANDS - len(record.missing),
        "complete": record.complete,
        "mjd_start": record.mjd_start,
        "mjd_end": record.mjd_end,
        "dec": record.dec_deg,
        "workflow": claim.workflow if claim else None,
        "exit": outcome.exit if outcome else None,
        "reason": (outcome.reason or None) if outcome else None,
        "mjd_started": mjd_or_none(claim.at if claim else None),
        "mjd_ended": mjd_or_none(outcome.ended if outcome else None),
    }
    store.put(
        table_key(GROUPS_TABLE.name, record.id, record.id),
        GROUPS_TABLE.to_bytes(GROUPS_TABLE.rows([row])),
    )


def mjd_or_none(moment: datetime | None) -> float | None:
    """Return the MJD of a moment that may not be known."""
    return None if moment is None else mjd_of(moment)
