"""Failures that a person can act on, their exit codes, and how each is retried.

The one table of exit codes; the Argo retry expression and the local runner are made from it.
"""

from __future__ import annotations

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
    """A failure that a person can act on.

    Parameters
    ----------
    where
        The file, URI or option.
    problem
        What is wrong: a sentence that makes sense alone, with what was found and expected.
    remedy
        What to do about it, a sentence.
    """

    exit: ClassVar[Exit] = Exit.BUG

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        # All in args, so that the error can be pickled across processes.
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        """Return everything in one line."""
        where, problem, remedy = self.args
        return f"{where}: {problem} {remedy}"


class BadFileError(ContimgError):
    """A file is empty, truncated, or not of the format of its name."""

    exit = Exit.BAD_FILE


class WrongTelescopeError(ContimgError):
    """The data come from another telescope or instrument."""

    exit = Exit.WRONG_TELESCOPE


class InconsistentGroupError(ContimgError):
    """The subbands of a group disagree in time, Declination, baselines or frequency."""

    exit = Exit.INCONSISTENT_GROUP


class NoSignalError(ContimgError):
    """The visibilities are zeros, not finite, or carry impossible weights."""

    exit = Exit.NO_SIGNAL


class AllFlaggedError(ContimgError):
    """No visibility is left."""

    exit = Exit.ALL_FLAGGED


class NoCalibrationError(ContimgError):
    """There is neither a calibrator in the beam nor a valid calibration set in the store."""

    exit = Exit.NO_CALIBRATION


class SolveFailedError(ContimgError):
    """A solve failed, or its solutions cannot be trusted."""

    exit = Exit.SOLVE_FAILED


class BadImageError(ContimgError):
    """An image fails its quality checks."""

    exit = Exit.BAD_IMAGE


class NoSourcesError(ContimgError):
    """The field or table holds nothing to measure."""

    exit = Exit.NO_SOURCES


class BadInputError(ContimgError):
    """An input exists, but is not of the kind that the stage reads."""

    exit = Exit.BAD_INPUT


class StoreError(ContimgError):
    """The store does not answer, or refuses."""

    exit = Exit.STORE_UNREACHABLE


class NoRoomError(ContimgError):
    """There is not enough disk or memory."""

    exit = Exit.NO_ROOM


class ChildFailedError(ContimgError):
    """CASA, WSClean or AOFlagger failed."""

    exit = Exit.CHILD_FAILED


class ChildTimedOutError(ContimgError):
    """CASA, WSClean or AOFlagger exceeded its time limit."""

    exit = Exit.CHILD_TIMED_OUT


class MissingError(ContimgError):
    """An object does not exist in the store."""

    exit = Exit.NOT_FOUND


class UsageError(ContimgError):
    """Options or settings that are wrong."""

    exit = Exit.USAGE


class Stopped(BaseException):
    """SIGTERM or SIGINT was received; not an Exception, so that nothing swallows it."""
