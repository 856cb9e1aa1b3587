"""A store in S3 or a compatible service: multipart streams and conditional puts.

Endpoint, region and credentials come by boto3's own chain (``AWS_ENDPOINT_URL``, profiles, roles).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
CONFLICT_CODES = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


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

    def check(self) -> None:
        """Make sure that the bucket exists and may be listed."""
        with self._translate_errors(""):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects whose key begins with `prefix`; S3 sorts by key."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._translate_errors(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield Entry(
                        item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"]
                    )

    def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        try:
            with self._translate_errors(key):
                self._client.head_object(**self._at(key))
        except MissingError:
            return False
        return True

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return some of an object's bytes, by ``Range``."""
        with self._translate_errors(key):
            part = self._client.get_object(**self._at(key), Range=f"bytes={start}-{stop - 1}")
            return part["Body"].read()

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """Open an object as a stream."""
        with self._translate_errors(key):
            body: Any = self._client.get_object(**self._at(key))["Body"]
            with contextlib.closing(body):
                yield body

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes]]:
        """Open a multipart upload as a stream; an error aborts it and nothing appears."""
        with self._translate_errors(key):
            upload = _Upload(self._client, self._bucket, self._prefix + key)
            try:
                yield cast("IO[bytes]", upload)
                upload.complete()
            except BaseException:
                upload.abort()
                raise

    def create(self, key: str, data: bytes) -> bool:
        """Write if the key is free, by ``If-None-Match: *``."""
        try:
            with self._translate_errors(key):
                self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*")
        except _TakenError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._translate_errors(key):
            self._client.delete_object(**self._at(key))

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    @contextlib.contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        """Turn boto3's exceptions into errors that name the object and the remedy."""
        uri = f"{self.root}/{key}"
        check = "Check bucket, credentials (AWS_*), endpoint (AWS_ENDPOINT_URL) and network."
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in MISSING_CODES:
                remedy = "Check the URI, or run the stage that makes it."
                raise MissingError(uri, "There is no such object.", remedy) from error
            if code in CONFLICT_CODES:
                raise _TakenError(uri) from error
            if code in BUCKET_CODES:
                problem = f"There is no bucket {self._bucket} ({code})."
                remedy = "Correct the store's URI, or make the bucket."
                raise UsageError(uri, problem, remedy) from error
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


class _TakenError(Exception):
    """Another writer was first."""


class _Upload(io.RawIOBase):
    """A write-only stream over a multipart upload; small objects go in one put."""

    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        super().__init__()
        self._client = client
        self._at: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._buffer = bytearray()
        self._id = ""
        self._parts: list[Future[str]] = []
        self._pool = ThreadPoolExecutor(PARTS_IN_FLIGHT)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - io.RawIOBase takes any buffer
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            self._send(bytes(self._buffer[:PART_BYTES]))
            del self._buffer[:PART_BYTES]
        return len(data)

    def complete(self) -> None:
        """Send the rest and make the object visible."""
        rest = bytes(self._buffer)
        if not self._id:
            self._client.put_object(**self._at, Body=rest)
        else:
            if rest:
                self._send(rest)
            tags = [part.result() for part in self._parts]
            parts: Any = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
            self._client.complete_multipart_upload(
                **self._at, UploadId=self._id, MultipartUpload={"Parts": parts}
            )
        self._pool.shutdown()

    def abort(self) -> None:
        """Remove the parts; an error of that does not replace the first one."""
        self._pool.shutdown(cancel_futures=True)
        if self._id:
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**self._at, UploadId=self._id)

    def _send(self, part: bytes) -> None:
        if not self._id:
            self._id = self._client.create_multipart_upload(**self._at)["UploadId"]
        if len(self._parts) >= PARTS_IN_FLIGHT:
            self._parts[-PARTS_IN_FLIGHT].result()
        number = len(self._parts) + 1

        def upload() -> str:
            part_of: dict[str, Any] = {"UploadId": self._id, "PartNumber": number}
            return self._client.upload_part(**self._at, **part_of, Body=part)["ETag"]

        self._parts.append(self._pool.submit(upload))
