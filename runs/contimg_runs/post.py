"""Post an attempt to what starts workflows: a webhook EventSource, or another HTTP server."""

import json
import urllib.error
from collections.abc import Callable
from http.client import HTTPException
from urllib.request import Request, urlopen

from contimg.records.groups import GroupRecord
from contimg.records.runs import workflow_name
from contimg.runtime.errors import StoreError

TIMEOUT_S = 10.0
REMEDY = "Check the EventSource, its Service and the NetworkPolicy."
Post = Callable[[GroupRecord], None]
"""Posts a record; StoreError if it is not accepted."""


def post_attempt(url: str, store: str, record: GroupRecord) -> None:
    """Post an attempt at a group of a store once, as JSON; `name` is that of its one workflow.

    StoreError if the answer is not 2xx, or the server does not answer.
    """
    ids = {"group": record.id, "attempt": record.attempt, "run": record.name}
    event = {**ids, "name": workflow_name(record.name), "store": store}
    headers = {"Content-Type": "application/json"}
    request = Request(url, json.dumps(event).encode(), headers)  # noqa: S310 - http only
    try:
        urlopen(request, timeout=TIMEOUT_S).close()  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        with error:
            problem = f"The event was refused with HTTP {error.code} {error.reason}."
            raise StoreError(url, problem, REMEDY) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise StoreError(url, f"The event could not be posted: {reason}.", REMEDY) from error
