"""Fixtures that several packages share: real S3 servers over HTTP, simulated groups."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chain import Chain, full_calibrator, small_calibrator
from waiting import wait_for

pytest_plugins = ["needs", "listener"]
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


@contextmanager
def _serve(argv: list[str], log: Path) -> Iterator[str]:
    """Run a server on a free port, whose number is put for {port}; yield its address."""
    port = free_port()
    words, url = [word.format(port=port) for word in argv], f"http://127.0.0.1:{port}"
    env = {**os.environ, **KEYS}
    with log.open("wb") as sink:
        server = subprocess.Popen(words, stdout=sink, stderr=subprocess.STDOUT, env=env)
    try:
        wait_for(lambda: server.poll() is not None or _answers(url), 30)
        assert server.poll() is None, log.read_text()
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that honours conditional puts."""
    argv = [sys.executable, str(Path(__file__).with_name("support") / "moto_serial.py"), "{port}"]
    with _serve(argv, tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that streams to and from disk."""
    folder = tmp_path_factory.mktemp("rclone")
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    argv = [str(BIN / "rclone"), "serve", "s3", "--addr", "127.0.0.1:{port}", "--auth-key", keys]
    argv += ["--vfs-cache-mode", "off", str(folder)]
    with _serve(argv, folder.parent / "rclone.log") as url:
        yield url


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials by boto3's own chain."""
    # It would win over the test's own server.
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def moto_root(moto_endpoint: str, s3_environment: pytest.MonkeyPatch) -> str:
    """An empty prefix on the moto server; the environment points there."""
    return _root(moto_endpoint, s3_environment)


@pytest.fixture
def rclone_root(rclone_endpoint: str, s3_environment: pytest.MonkeyPatch) -> str:
    """An empty prefix on the rclone server; the environment points there."""
    return _root(rclone_endpoint, s3_environment)


def _root(endpoint: str, environment: pytest.MonkeyPatch) -> str:
    import boto3

    environment.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3")
    if "contimg" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket="contimg")
    return f"s3://contimg/{uuid.uuid4()}"


@pytest.fixture(scope="session")
def small_chain() -> Chain:
    """A small simulated group on 3C48; the executables make its artifacts when needed."""
    return small_calibrator()


@pytest.fixture(scope="session")
def full_chain() -> Chain:
    """The same at the telescope's size and the standard tier: minutes, so for slow tests only."""
    return full_calibrator()
