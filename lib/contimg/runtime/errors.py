"""Failures that a person can act on, and the one table of exit codes and their retries."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar, NamedTuple


class Exit(IntEnum):
    """Exit codes; 10-19: unusable input data; 20-29: infrastructure failures, which are retried."""

    DONE = 0
    USAGE = 2
    BAD_FILE = 10
    WRONG_TELESCOPE = 11
    INCONSISTENT_GROUP = 12
    NO_SIGNAL = 13
    ALL_FLAGGED = 14
    NO_CALIBRATION = 15
    SOLVE_FAILED = 16
    BAD_IMAGE = 17
    NO_SOURCES = 18
    BAD_INPUT = 19
    STORE_UNREACHABLE = 20
    TERMINATED = 21
    NO_ROOM = 22
    CHILD_FAILED = 23
    CHILD_TIMED_OUT = 24
    NOT_FOUND = 25
    BUG = 70


class Retry(NamedTuple):
    """How often a failure is retried, and how long to wait first."""

    limit: int
    """Further tries after the first."""
    backoff_s: float
    """Wait before the first further try, seconds; doubles each time."""


NEVER = Retry(limit=0, backoff_s=0.0)
TRANSIENT = Retry(limit=3, backoff_s=10.0)
ONCE = Retry(limit=1, backoff_s=10.0)

MEANING: dict[int, tuple[str, Retry]] = {
    Exit.DONE: ("done", NEVER),
    Exit.USAGE: ("the command line is wrong", NEVER),
    Exit.BAD_FILE: ("a file is empty, truncated or not what its name says", NEVER),
    Exit.WRONG_TELESCOPE: ("the data are not from the DSA-110", NEVER),
    Exit.INCONSISTENT_GROUP: ("the subbands do not belong together", NEVER),
    Exit.NO_SIGNAL: ("the visibilities hold no usable signal", NEVER),
    Exit.ALL_FLAGGED: ("everything is flagged", NEVER),
    Exit.NO_CALIBRATION: ("no calibrator in the beam and no valid set in the store", NEVER),
    Exit.SOLVE_FAILED: ("a calibration solve failed or cannot be trusted", NEVER),
    Exit.BAD_IMAGE: ("the image fails its quality checks", NEVER),
    Exit.NO_SOURCES: ("nothing to measure", NEVER),
    Exit.BAD_INPUT: ("an input is not of the kind that the stage reads", NEVER),
    Exit.STORE_UNREACHABLE: ("the store does not answer", TRANSIENT),
    Exit.TERMINATED: ("terminated", TRANSIENT),
    Exit.NO_ROOM: ("not enough disk or memory", TRANSIENT),
    Exit.CHILD_FAILED: ("CASA, WSClean or AOFlagger failed", ONCE),
    Exit.CHILD_TIMED_OUT: ("CASA, WSClean or AOFlagger took too long", ONCE),
    Exit.NOT_FOUND: ("an input does not exist in the store", TRANSIENT),
    Exit.BUG: ("a bug in contimg", NEVER),
    -1: ("the pod is gone", TRANSIENT),
    64: ("the Argo executor failed", TRANSIENT),
    137: ("killed, probably out of memory", TRANSIENT),
    143: ("terminated", TRANSIENT),
    134: ("crashed (abort)", ONCE),
    139: ("crashed (segmentation fault)", ONCE),
}


def retry_of(code: int) -> Retry:
    """Return how an exit code is retried; an unknown code never is."""
    return MEANING.get(code, ("", NEVER))[1]


def meaning_of(code: int) -> str:
    """Return an exit code's meaning in plain words."""
    return MEANING.get(code, (f"unknown exit code {code}", NEVER))[0]


class ContimgError(Exception):
    """A failure that a person can act on, in three parts.

    `where` is the file, URI or option; `problem` says in a sentence that makes sense alone what is
    wrong, with what was found and expected; `remedy` says in a sentence what to do about it.
    """

    exit: ClassVar[Exit] = Exit.BUG

    def __init_subclass__(cls, code: Exit | None = None) -> None:
        super().__init_subclass__()
        cls.exit = code or cls.exit

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        # All in args, so that the error can be pickled across processes.
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        """Return everything in one line."""
        where, problem, remedy = self.args
        return f"{where}: {problem} {remedy}"


class BadFileError(ContimgError, code=Exit.BAD_FILE):
    """A file is empty, truncated, or not of the format of its name."""


class WrongTelescopeError(ContimgError, code=Exit.WRONG_TELESCOPE):
    """The data come from another telescope or instrument."""


class InconsistentGroupError(ContimgError, code=Exit.INCONSISTENT_GROUP):
    """The subbands of a group disagree in time, Declination, baselines or frequency."""


class NoSignalError(ContimgError, code=Exit.NO_SIGNAL):
    """The visibilities are zeros, not finite, or carry impossible weights."""


class AllFlaggedError(ContimgError, code=Exit.ALL_FLAGGED):
    """No visibility is left."""


class NoCalibrationError(ContimgError, code=Exit.NO_CALIBRATION):
    """There is neither a calibrator in the beam nor a valid calibration set in the store."""


class SolveFailedError(ContimgError, code=Exit.SOLVE_FAILED):
    """A solve failed, or its solutions cannot be trusted."""


class BadImageError(ContimgError, code=Exit.BAD_IMAGE):
    """An image fails its quality checks."""


class NoSourcesError(ContimgError, code=Exit.NO_SOURCES):
    """The field or table holds nothing to measure."""


class BadInputError(ContimgError, code=Exit.BAD_INPUT):
    """An input exists, but is not of the kind that the stage reads."""


class StoreError(ContimgError, code=Exit.STORE_UNREACHABLE):
    """The store does not answer, or refuses."""


class NoRoomError(ContimgError, code=Exit.NO_ROOM):
    """There is not enough disk or memory."""


class ChildFailedError(ContimgError, code=Exit.CHILD_FAILED):
    """CASA, WSClean or AOFlagger failed."""


class ChildTimedOutError(ContimgError, code=Exit.CHILD_TIMED_OUT):
    """CASA, WSClean or AOFlagger exceeded its time limit."""


class MissingError(ContimgError, code=Exit.NOT_FOUND):
    """An object does not exist in the store."""


class UsageError(ContimgError, code=Exit.USAGE):
    """Options or settings that are wrong."""


class Stopped(BaseException):
    """SIGTERM or SIGINT was received; not an Exception, so that nothing swallows it."""


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
