"""How a failed task is tried again, by the table of exit codes."""

from __future__ import annotations

from itertools import groupby

from contimg.runtime.errors import MEANING, TRANSIENT

FACTOR = 2
CAP_S = 120.0
"""Longest wait before another try, seconds."""


def expression() -> str:
    """Return the condition under which Argo tries again; `retries` counts further tries."""
    retried = sorted((rule.limit, int(code)) for code, (_, rule) in MEANING.items() if rule.limit)
    terms = []
    for allowed, group in groupby(retried, key=lambda pair: pair[0]):
        codes = ", ".join(str(code) for _, code in group)
        terms.append(f"(asInt(retries) < {allowed} && asInt(lastRetry.exitCode) in [{codes}])")
    return " || ".join(terms)


def backoff_s(tries: int) -> float:
    """Return the wait after so many tries, seconds."""
    return min(TRANSIENT.backoff_s * float(FACTOR ** (tries - 1)), CAP_S)
