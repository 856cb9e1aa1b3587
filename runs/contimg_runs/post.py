"""Post an attempt to what starts workflows: a webhook EventSource, or another HTTP server."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from contimg.records.groups import GroupRecord
from contimg.records.runs import workflow_name
from contimg.runtime.errors import StoreError

TIMEOUT_S = 10.0
REMEDY = "Check the EventSource, its Service and the NetworkPolicy."
Post = Callable[[GroupRecord], None]
"""Posts a record; StoreError if it is not accepted."""


def event(record: GroupRecord, store: str) -> dict[str, Any]:
    """Return what is posted about an attempt; `name` is the workflow's, which exists once."""
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
    """Post JSON once; StoreError if the answer is not 2xx, or there is none."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - http only
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310 - as above
            return
    except urllib.error.HTTPError as error:
        with error:
            problem = f"The event was refused with HTTP {error.code} {error.reason}."
            raise StoreError(url, problem, REMEDY) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise StoreError(url, f"The event could not be posted: {reason}.", REMEDY) from error
