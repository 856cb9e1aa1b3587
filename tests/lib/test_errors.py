"""Errors name place, problem and remedy, and can be pickled."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NoReturn

import pytest

from contimg.runtime import errors
from contimg.runtime.errors import MEANING, BadFileError, ContimgError, Exit, Stopped

CLASSES = [one for one in vars(errors).values() if isinstance(one, type)]
KINDS = [one for one in CLASSES if issubclass(one, ContimgError) and one is not ContimgError]
PARTS = ("/data/x_sb03.hdf5", "expected 145348600 bytes, found 0 bytes.", "Send it again.")
LINE = "/data/x_sb03.hdf5: expected 145348600 bytes, found 0 bytes. Send it again."


@pytest.mark.parametrize("kind", [ContimgError, *KINDS])
class TestEveryError:
    def test_text_is_one_line(self, kind: type[ContimgError]) -> None:
        assert str(kind(*PARTS)) == LINE

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickling_keeps_it(self, kind: type[ContimgError], protocol: int) -> None:
        back = pickle.loads(pickle.dumps(kind(*PARTS), protocol))  # noqa: S301 - our own bytes
        assert type(back) is kind
        assert (str(back), back.args, back.exit) == (LINE, PARTS, kind.exit)

    def test_copying_keeps_it(self, kind: type[ContimgError]) -> None:
        assert str(copy.deepcopy(kind(*PARTS))) == LINE

    def test_has_code_and_docstring(self, kind: type[ContimgError]) -> None:
        assert kind.exit in MEANING
        assert kind.__doc__

    def test_needs_all_parts(self, kind: type[ContimgError]) -> None:
        with pytest.raises(TypeError):
            kind("x.hdf5")  # type: ignore[call-arg]

    def test_is_no_oserror_and_no_stop(self, kind: type[ContimgError]) -> None:
        assert not issubclass(kind, OSError | Stopped)
        assert issubclass(kind, Exception)


def test_errors_and_codes_are_paired() -> None:
    codes = [kind.exit for kind in KINDS]
    assert len(set(codes)) == len(codes)
    # Nothing raises DONE; BUG is what is left; TERMINATED is `Stopped`.
    assert set(Exit) - set(codes) == {Exit.DONE, Exit.BUG, Exit.TERMINATED}


def test_only_infrastructure_failures_are_retried() -> None:
    for code in Exit:
        assert errors.meaning_of(code)
        assert (errors.retry_of(code).limit > 0) == (20 <= code <= 29), code
    assert errors.retry_of(139).limit == 1
    assert {-1, 64, 137, 143, 134, 139} < set(MEANING)


def _raise() -> NoReturn:
    raise BadFileError(*PARTS)


def test_error_crosses_a_process_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        caught = pool.submit(_raise).exception()
    assert isinstance(caught, BadFileError)
    assert str(caught) == LINE


def test_cause_is_kept() -> None:
    cause = ValueError("why")
    with pytest.raises(BadFileError) as caught:
        raise BadFileError(*PARTS) from cause
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("code", [1, 3, 26, 71, 255, -9])
def test_unknown_code_is_named_and_never_retried(code: int) -> None:
    assert errors.meaning_of(code) == f"unknown exit code {code}"
    assert errors.retry_of(code) == errors.Retry(0, 0.0)


def test_exit_codes_fit_a_shell() -> None:
    assert all(0 <= code < 126 for code in Exit), "from 126 on a code is the shell's or a signal's"
    meanings = {code: meaning for code, (meaning, _) in MEANING.items() if code != 143}
    assert len(set(meanings.values())) == len(meanings)  # 143 is the shell's code of TERMINATED


def test_stopped_is_not_an_exception() -> None:
    assert issubclass(Stopped, BaseException)
    assert not issubclass(Stopped, Exception)
