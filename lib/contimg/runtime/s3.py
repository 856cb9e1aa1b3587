"""A store in S3 or a compatible service: multipart streams and conditional writes.

Endpoint, region and credentials come by boto3's own chain (``AWS_ENDPOINT_URL``, profiles, roles).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from contimg.runtime.errors import MissingError, StoreError, UsageError
from contimg.runtime.store import Entry, Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 16 << 20
"""Size of one part; S3 allows 10,000 parts, so an object may have 160 GB."""
PARTS_IN_FLIGHT = 4
"""Parts that are sent at the same time; memory holds one more."""
MISSING_CODES = {"404", "NoSuchKey", "NotFound"}
BUCKET_CODES = {"NoSuchBucket", "InvalidBucketName"}
CREDENTIAL_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403"}
TAKEN_CODES = {"PreconditionFailed", "412"}
CONFLICT_CODES = {"ConditionalRequestConflict", "409"}
"""Another request for the key is in progress, and may fail: try again."""
CONDITIONAL_TRIES = 6
FIRST_PAUSE_S = 0.1
"""Pause before a conditional write is tried again; it doubles each time."""
WRITER = "contimg-writer"
"""Metadata of each object: a random word of the call that wrote it, by which a call whose answer
was lost knows its own object; another writer's bytes may be the same."""


class S3Store(Store):
    """Objects of one bucket below a prefix."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client: S3Client = boto3.client(
            "s3",
            config=Config(
                signature_version="s3v4",
                retries={"max_attempts": 5, "mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=16,
            ),
        )

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects whose key begins with `prefix`; S3 sorts by key."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._translate_errors(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    name = item["Key"].removeprefix(self._prefix)
                    yield Entry(name, item["Size"], item["LastModified"], item.get("ETag", ""))

    def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        try:
            with self._translate_errors(key):
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except MissingError:
            return False
        return True

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[IO[bytes]]:
        """Open an object, or by ``Range`` some of its bytes, as a stream."""
        what: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + key}
        if stop is not None:
            what["Range"] = f"bytes={start}-{stop - 1}"
        with self._translate_errors(key):
            body: Any = self._client.get_object(**what)["Body"]
            with contextlib.closing(body):
                yield body

    @contextlib.contextmanager
    def writer(self, key: str, *, new: bool = False) -> Iterator[IO[bytes]]:
        """Open a multipart upload as a stream; an error aborts it and nothing appears."""
        at: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + key}
        word = secrets.token_hex(16)
        with self._translate_errors(key), ThreadPoolExecutor(PARTS_IN_FLIGHT) as pool:
            upload = _Upload(self._client, at, {WRITER: word}, pool)
            try:
                yield cast("IO[bytes]", upload)
                if upload.id:
                    upload.write(b"", least=1)
                    tags = [part.result()["ETag"] for part in upload.parts]
                    parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
                    sent: dict[str, Any] = {"UploadId": upload.id}
                    sent["MultipartUpload"] = {"Parts": parts}
                    finish: Any = self._client.complete_multipart_upload
                else:  # small: in one put
                    sent = {"Body": bytes(upload.buffer), "Metadata": {WRITER: word}}
                    finish = self._client.put_object
                condition = {"IfNoneMatch": "*"} if new else {}
                self._finish(at, word, lambda: finish(**at, **sent, **condition))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                if upload.id:  # an error of this does not replace the first one
                    with contextlib.suppress(ClientError, BotoCoreError):
                        self._client.abort_multipart_upload(**at, UploadId=upload.id)
                raise

    def _finish(self, at: dict[str, Any], word: str, finish: Callable[[], object]) -> None:
        """Make an object visible, once; FileExistsError if another writer's has the key.

        boto3 repeats requests whose answer was lost, and then may be told that the key is taken or
        the upload has ended, by what this very call wrote. Where the key is not taken after all,
        the request is sent again.
        """
        for number in range(CONDITIONAL_TRIES):
            try:
                finish()
            except (ClientError, BotoCoreError) as error:
                code, found = _code_of(error), self._find_writer(at)
                if found == word:
                    return
                is_last = number == CONDITIONAL_TRIES - 1
                if code in TAKEN_CODES and (found is not None or is_last):
                    raise FileExistsError(at["Key"]) from error
                if is_last or code not in TAKEN_CODES | CONFLICT_CODES:
                    raise
                time.sleep(FIRST_PAUSE_S * 2**number)
            else:
                return

    def _find_writer(self, at: dict[str, Any]) -> str | None:
        """Return the word of the call that wrote an object, empty if it has none.

        None if there is no object, or the server does not say. Some servers capitalize the names of
        metadata.
        """
        try:
            metadata = self._client.head_object(**at)["Metadata"]
        except (ClientError, BotoCoreError):  # the error of the write is the one to report
            return None
        return {name.lower(): value for name, value in metadata.items()}.get(WRITER, "")

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._translate_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextlib.contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        """Turn boto3's exceptions into errors that name the object and the remedy."""
        uri = f"{self.root}/{key}"
        check = "Check bucket, credentials (AWS_*), endpoint (AWS_ENDPOINT_URL) and network."
        try:
            yield
        except ClientError as error:
            code = _code_of(error)
            if code in MISSING_CODES:
                remedy = "Check the URI, or run the stage that makes it."
                raise MissingError(uri, "There is no such object.", remedy) from error
            if code in BUCKET_CODES:
                problem = f"There is no bucket {self._bucket} ({code})."
                raise UsageError(uri, problem, "Correct the URI, or make the bucket.") from error
            if code in CREDENTIAL_CODES:
                remedy = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their permissions."
                raise UsageError(uri, f"S3 refused access ({code}): {error}.", remedy) from error
            raise StoreError(uri, f"S3 answered with {code}: {error}.", check) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            remedy = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role."
            raise UsageError(uri, f"There are no credentials for S3: {error}.", remedy) from error
        except ParamValidationError as error:
            problem = f"This is not a valid name of a bucket: {error}."
            raise UsageError(uri, problem, "Correct the store's URI.") from error
        except BotoCoreError as error:
            raise StoreError(uri, f"S3 does not answer: {error}.", check) from error


def _code_of(error: ClientError | BotoCoreError) -> str:
    """Return the code of S3's answer; empty if there was no answer."""
    answer = error.response if isinstance(error, ClientError) else {}
    return str(answer.get("Error", {}).get("Code", ""))


@dataclass
class _Upload:
    """A write-only stream over a multipart upload."""

    client: S3Client
    at: dict[str, Any]
    metadata: dict[str, str]
    pool: ThreadPoolExecutor
    id: str = ""
    buffer: bytearray = field(default_factory=bytearray)
    parts: list[Future[Any]] = field(default_factory=list)

    def write(self, data: bytes, least: int = PART_BYTES) -> int:
        """Send what has been written in parts, the last of them with at least `least` bytes."""
        self.buffer += data
        while len(self.buffer) >= least:
            if not self.id:
                begun = self.client.create_multipart_upload(**self.at, Metadata=self.metadata)
                self.id = begun["UploadId"]
            if len(self.parts) >= PARTS_IN_FLIGHT:
                self.parts[-PARTS_IN_FLIGHT].result()
            where = {**self.at, "UploadId": self.id, "PartNumber": len(self.parts) + 1}
            part = bytes(self.buffer[:PART_BYTES])
            self.parts.append(self.pool.submit(self.client.upload_part, **where, Body=part))
            del self.buffer[:PART_BYTES]
        return len(data)
