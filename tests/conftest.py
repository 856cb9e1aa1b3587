"""Fixtures that several packages share: real S3 servers over HTTP, simulated groups."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import Chain, full_calibrator, small_calibrator
from cluster.loud import pytest_collection_modifyitems, pytest_terminal_summary

__all__ = ["pytest_collection_modifyitems", "pytest_terminal_summary"]

pytest_plugins = ["built", "charted", "listener"]
BIN = Path(sys.executable).parent
KEYS = {
    "AWS_ACCESS_KEY_ID": "contimg",
    "AWS_SECRET_ACCESS_KEY": "contimg-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1)  # noqa: S310 - a loopback address made here
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _serve(argv: list[str], url: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        server = subprocess.Popen(
            argv, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **KEYS}
        )
    for _ in range(300):
        if _answers(url):
            return server
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    server.kill()
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that honours conditional puts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("moto") / "log"
    server = _serve([str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], url, log)
    yield url
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that streams to and from disk."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("rclone")
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    program = shutil.which("rclone", path=str(BIN)) or str(BIN / "rclone")
    argv = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys]
    argv += ["--vfs-cache-mode", "off", str(folder)]
    server = _serve(argv, url, folder.parent / "rclone.log")
    yield url
    server.terminate()
    server.wait(10)


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials by boto3's own chain."""
    # It would win over the test's own server.
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def moto_root(
    moto_endpoint: str, s3_environment: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """An empty prefix on the moto server; the environment points there."""
    return _root(moto_endpoint, s3_environment, request.node.name)


@pytest.fixture
def rclone_root(
    rclone_endpoint: str, s3_environment: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """An empty prefix on the rclone server; the environment points there."""
    return _root(rclone_endpoint, s3_environment, request.node.name)


def _root(endpoint: str, environment: pytest.MonkeyPatch, name: str) -> str:
    import boto3

    environment.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3")
    if "contimg" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket="contimg")
    prefix = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"s3://contimg/{prefix}-{time.monotonic_ns()}"


@pytest.fixture(scope="session")
def small_chain() -> Chain:
    """A small simulated group on 3C48; the executables make its artifacts when needed."""
    return small_calibrator()


@pytest.fixture(scope="session")
def full_chain() -> Chain:
    """The same at the telescope's size and the standard tier: minutes, so for slow tests only."""
    return full_calibrator()
