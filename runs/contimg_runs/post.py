"""Post an attempt to whatever starts workflows: a webhook EventSource, or anything that takes JSON by HTTP."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from contimg.records.runs import workflow_name
from contimg.runtime.errors import StoreError

if TYPE_CHECKING:
    from contimg.records.groups import GroupRecord

TIMEOUT_S = 10.0
Post = Callable[["GroupRecord"], None]
"""Posts a record; StoreError if nobody took it."""


def event(record: GroupRecord, store: str) -> dict[str, Any]:
    """Return what is posted about an attempt; `name` is the workflow's, so that a second one is refused."""
    return {
        "group": record.id,
        "attempt": record.attempt,
        "run": record.name,
        "name": workflow_name(record.name),
        "store": store,
    }


def poster(url: str, store: str) -> Post:
    """Return a function that posts attempts to a URL."""
    return lambda record: post(url, event(record, store))


def post(url: str, body: dict[str, Any], timeout_s: float = TIMEOUT_S) -> None:
    """Post JSON once.

    Raises
    ------
    StoreError
        If it was not taken (any answer but 2xx, or none).
    """
    request = urllib.request.Request(  # noqa: S310
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    expected, remedy = (
        "the event to be taken",
        "Check the EventSource, its Service and the NetworkPolicy.",
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310 - as above
            return
    except urllib.error.HTTPError as error:
        with error:
            raise StoreError(
                url, f"expected {expected}, found HTTP {error.code} {error.reason}.", remedy
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise StoreError(
            url,
            f"expected {expected}, found {getattr(error, 'reason', '') or error or type(error).__name__!s}.",
            remedy,
        ) from error
