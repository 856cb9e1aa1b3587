"""Errors name place, problem and remedy, and can be pickled."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NoReturn

import pytest

from contimg.runtime import errors
from contimg.runtime.errors import (
    MEANING,
    BadFileError,
    ContimgError,
    Exit,
    Retry,
    Stopped,
    meaning_of,
    retry_of,
)


def family(kind: type[ContimgError]) -> list[type[ContimgError]]:
    return [
        member
        for child in kind.__subclasses__()
        if child.__module__ == errors.__name__
        for member in (child, *family(child))
    ]


KINDS = family(ContimgError)
PARTS = ("/data/x_sb03.hdf5", "expected 145348600 bytes, found 0 bytes.", "Send it again.")
LINE = "/data/x_sb03.hdf5: expected 145348600 bytes, found 0 bytes. Send it again."


@pytest.mark.parametrize("kind", [ContimgError, *KINDS])
class TestEveryError:
    def test_says_all_in_one_line(self, kind: type[ContimgError]) -> None:
        assert str(kind(*PARTS)) == LINE

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_survives_pickling(self, kind: type[ContimgError], protocol: int) -> None:
        back = pickle.loads(pickle.dumps(kind(*PARTS), protocol))  # noqa: S301 - our own bytes
        assert type(back) is kind
        assert (str(back), back.args, back.exit) == (LINE, PARTS, kind.exit)

    def test_survives_copying(self, kind: type[ContimgError]) -> None:
        assert str(copy.deepcopy(kind(*PARTS))) == LINE

    def test_has_a_code_of_the_table_and_a_docstring(self, kind: type[ContimgError]) -> None:
        assert kind.exit in MEANING
        assert kind.__doc__

    def test_asks_for_all_four_parts(self, kind: type[ContimgError]) -> None:
        with pytest.raises(TypeError):
            kind("x.hdf5")  # type: ignore[call-arg]

    def test_is_no_oserror_and_no_stop(self, kind: type[ContimgError]) -> None:
        assert not issubclass(kind, OSError | Stopped)
        assert issubclass(kind, Exception)


def test_every_code_has_one_error_and_every_error_its_own_code() -> None:
    codes = [kind.exit for kind in KINDS]
    assert len(set(codes)) == len(codes)
    # Nothing raises DONE; BUG is what is left; TERMINATED is `Stopped`.
    assert set(Exit) - set(codes) == {Exit.DONE, Exit.BUG, Exit.TERMINATED}


def test_only_codes_from_20_are_retried() -> None:
    for kind in KINDS:
        world = retry_of(kind.exit).limit > 0
        assert (20 <= kind.exit < 30) == world, kind.__name__
        assert world or kind.exit < 20


def _raise() -> NoReturn:
    raise BadFileError(*PARTS)


def test_an_error_crosses_a_process_pool() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool,
        pytest.raises(BadFileError) as caught,
    ):
        pool.submit(_raise).result()
    assert str(caught.value) == LINE


def test_the_cause_stays_with_it() -> None:
    with pytest.raises(BadFileError) as caught:
        try:
            b"\xff".decode()
        except UnicodeDecodeError as error:
            raise BadFileError(*PARTS) from error
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


@pytest.mark.parametrize("code", [1, 3, 26, 71, 255, -9])
def test_an_unknown_code_is_named_and_never_tried_again(code: int) -> None:
    assert meaning_of(code) == f"unknown exit code {code}"
    assert retry_of(code) == Retry(0, 0.0)


def test_exit_codes_fit_a_shell() -> None:
    assert all(0 <= code < 126 for code in Exit), "from 126 on a code is the shell's or a signal's"
    meanings = {code: meaning for code, (meaning, _) in MEANING.items() if code != 143}
    assert len(set(meanings.values())) == len(meanings)  # 143 is the shell's code of TERMINATED


def test_stopped_is_not_an_exception() -> None:
    assert issubclass(Stopped, BaseException)
    assert not issubclass(Stopped, Exception)
