"""A store in S3 or anything that speaks its protocol: streaming multipart up and down, conditional puts.

Endpoint, region and credentials come by boto3's own chain (``AWS_ENDPOINT_URL``, profiles, roles).
"""

from __future__ import annotations

import contextlib
import io
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
from contimg.runtime.store import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

PART = 16 << 20
"""Bytes of one part; S3 allows 10,000 parts, so an object may have 160 GB."""
IN_FLIGHT = 4
"""Parts on their way at once, which bounds the memory at IN_FLIGHT + 1 parts."""
MISSING = {"404", "NoSuchKey", "NotFound"}
NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403"}
TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


class S3Store:
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
        """Make sure that the bucket is there and may be listed."""
        with self._speaking(""):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects whose key begins with `prefix`; S3 sorts by key."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._speaking(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield Entry(
                        item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"]
                    )

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""
        try:
            with self._speaking(key):
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except MissingError:
            return False
        return True

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        with self._speaking(key):
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)[
                "Body"
            ].read()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return some of an object's bytes, by ``Range``."""
        with self._speaking(key):
            wanted = f"bytes={start}-{stop - 1}"
            return self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + key, Range=wanted
            )["Body"].read()

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """Open an object as a stream."""
        with self._speaking(key):
            body: Any = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
            with contextlib.closing(body):
                yield body

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes]]:
        """Open a multipart upload as a stream; an error aborts it and nothing appears."""
        with self._speaking(key):
            upload = _Upload(self._client, self._bucket, self._prefix + key)
            try:
                yield cast("IO[bytes]", upload)
                upload.complete()
            except BaseException:
                upload.abort()
                raise

    def put(self, key: str, data: bytes) -> None:
        """Write a small object whole."""
        with self._speaking(key):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        """Write if the key is free, by ``If-None-Match: *``."""
        try:
            with self._speaking(key):
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*"
                )
        except _TakenError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._speaking(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextlib.contextmanager
    def _speaking(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises into words that name the object and the remedy."""
        uri = f"{self.root}/{key}"
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in MISSING:
                raise MissingError(
                    uri,
                    "expected an object, found none.",
                    "Check the URI, or run the stage that makes it.",
                ) from error
            if code in TAKEN:
                raise _TakenError(uri) from error
            if code in NO_BUCKET:
                raise UsageError(
                    uri,
                    f"expected a bucket {self._bucket}, found {code}.",
                    "Correct the store's URI, or make the bucket.",
                ) from error
            if code in REFUSED:
                remedy = "Check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and what they may do in this bucket."
                raise UsageError(
                    uri, f"expected credentials that S3 accepts, found {code}: {error}.", remedy
                ) from error
            remedy = "Check bucket, credentials (AWS_*) and endpoint (AWS_ENDPOINT_URL)."
            raise StoreError(
                uri, f"expected an answer from S3, found {code}: {error}.", remedy
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            remedy = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role."
            raise UsageError(
                uri, f"expected credentials for S3, found {error!s}.", remedy
            ) from error
        except ParamValidationError as error:
            raise UsageError(
                uri,
                f"expected a name that a bucket may have, found {error!s}.",
                "Correct the store's URI.",
            ) from error
        except BotoCoreError as error:
            remedy = (
                "Check the endpoint (AWS_ENDPOINT_URL), the network and the credentials (AWS_*)."
            )
            raise StoreError(
                uri, f"expected an answer from S3, found {error!s}.", remedy
            ) from error


class _TakenError(Exception):
    """Another writer was first."""


class _Upload(io.RawIOBase):
    """A write-only stream over a multipart upload; small objects go in one put."""

    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        super().__init__()
        self._client, self._bucket, self._key = client, bucket, key
        self._buffer = bytearray()
        self._id = ""
        self._parts: list[Future[str]] = []
        self._pool = ThreadPoolExecutor(IN_FLIGHT)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - io.RawIOBase takes any buffer
        self._buffer += data
        while len(self._buffer) >= PART:
            self._send(bytes(self._buffer[:PART]))
            del self._buffer[:PART]
        return len(data)

    def complete(self) -> None:
        """Send the rest and make the object visible."""
        rest = bytes(self._buffer)
        if not self._id:
            self._client.put_object(Bucket=self._bucket, Key=self._key, Body=rest)
        else:
            if rest:
                self._send(rest)
            tags = [
                {"PartNumber": n, "ETag": part.result()} for n, part in enumerate(self._parts, 1)
            ]
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={"Parts": tags},  # type: ignore[typeddict-item]
            )
        self._pool.shutdown()

    def abort(self) -> None:
        """Give the parts back; the first error stands, not one of the clean-up."""
        self._pool.shutdown(cancel_futures=True)
        if self._id:
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=self._key, UploadId=self._id
                )

    def _send(self, part: bytes) -> None:
        if not self._id:
            self._id = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key)[
                "UploadId"
            ]
        if len(self._parts) >= IN_FLIGHT:
            self._parts[-IN_FLIGHT].result()
        number = len(self._parts) + 1
        self._parts.append(self._pool.submit(self._upload, number, part))

    def _upload(self, number: int, part: bytes) -> str:
        answer = self._client.upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._id, PartNumber=number, Body=part
        )
        return answer["ETag"]
