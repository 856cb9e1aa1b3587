"""How a failed stage is tried again: lib's one table, as Argo reads it."""

from __future__ import annotations

from itertools import groupby

from hera.workflows import RetryStrategy
from hera.workflows.models import Backoff

from contimg.runtime.errors import MEANING, TRANSIENT

FACTOR = 2
CAP_S = 120.0
"""No wait is longer, seconds."""


def limit() -> int:
    """Return how many further tries any exit code may have."""
    return max(rule.limit for _, rule in MEANING.values())


def expression() -> str:
    """Return the condition under which Argo tries again; `retries` counts the further tries so far."""
    retried = sorted((rule.limit, int(code)) for code, (_, rule) in MEANING.items() if rule.limit)
    terms = []
    for allowed, group in groupby(retried, key=lambda pair: pair[0]):
        codes = ", ".join(str(code) for _, code in group)
        terms.append(f"(asInt(retries) < {allowed} && asInt(lastRetry.exitCode) in [{codes}])")
    return " || ".join(terms)


def backoff_s(tries: int) -> float:
    """Return the wait after so many tries, seconds."""
    return min(TRANSIENT.backoff_s * float(FACTOR ** (tries - 1)), CAP_S)


def strategy() -> RetryStrategy:
    """Return the retry strategy of every stage."""
    backoff = Backoff(duration=f"{TRANSIENT.backoff_s:.0f}s", factor=FACTOR, cap=f"{CAP_S:.0f}s")
    return RetryStrategy(
        limit=str(limit()), retry_policy="Always", expression=expression(), backoff=backoff
    )
