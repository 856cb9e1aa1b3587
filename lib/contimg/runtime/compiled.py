"""Compile loops with numba, also where nothing that is compiled can be kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_loops(**options: Any) -> Callable[[Function], Function]:  # noqa: ANN401 - numba's own
    """Return a decorator as `numba.njit` with `options`, which keeps compiled code if it can.

    numba keeps it beside the module, in the account's cache, or in ``NUMBA_CACHE_DIR``. If it can
    write none of them (a read-only installation without a home), ``njit(cache=True)`` raises on
    import; here each process compiles for itself.
    """

    def compile_one(function: Function) -> Function:
        compiled = numba.njit(**options)(function)
        with contextlib.suppress(RuntimeError):
            compiled.enable_caching()
        return compiled  # type: ignore[no-any-return]

    return compile_one
