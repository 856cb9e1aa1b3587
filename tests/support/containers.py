"""Images and containers, restricted like pods: read-only root, uid 10001, no network.

By docker or podman, else by buildah and runc (which needs root). Nothing is pulled.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

USER = 10001
TMPFS_BYTES = 2 << 30


@dataclass(frozen=True)
class Image:
    """The configuration of an image."""

    name: str
    user: str
    entrypoint: tuple[str, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    layers: tuple[str, ...]
    """Digests, the lowest first."""


class Engine(Protocol):
    def inspect(self, name: str) -> Image | None:
        """Return an image, None if it is not here."""

    def run(
        self, image: Image, argv: Sequence[str], data: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of an image; the folder `data` is mounted, writable, at its own path."""


def find_engine() -> Engine | None:
    """Return what runs containers here."""
    for program in ("docker", "podman"):
        if shutil.which(program) and _quiet([program, "info"]):
            return DockerLike(program)
    if shutil.which("buildah") and shutil.which("runc") and _quiet(["buildah", "info"]):
        return BuildahRunc()
    return None


def _quiet(argv: Sequence[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _read(argv: Sequence[str]) -> Any:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def _image(name: str, config: Mapping[str, Any], layers: Sequence[str]) -> Image:
    env = dict(item.split("=", 1) for item in config.get("Env") or ())
    return Image(
        name,
        config.get("User") or "",
        tuple(config.get("Entrypoint") or ()),
        env,
        config.get("Labels") or {},
        tuple(layers),
    )


class DockerLike:
    def __init__(self, program: str) -> None:
        self.program = program

    def inspect(self, name: str) -> Image | None:
        found = _read([self.program, "image", "inspect", name])
        return _image(name, found[0]["Config"], found[0]["RootFS"]["Layers"]) if found else None

    def run(
        self, image: Image, argv: Sequence[str], data: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        walls = [
            "--rm",
            "--pull=never",
            "--read-only",
            "--network=none",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        ]
        room = [f"--user={USER}:{USER}", f"--tmpfs=/tmp:rw,mode=1777,size={TMPFS_BYTES}"]
        bind = [f"--volume={data}:{data}"] if data else []
        whole = [
            self.program,
            "run",
            *walls,
            *room,
            *bind,
            f"--entrypoint={argv[0]}",
            image.name,
            *argv[1:],
        ]
        return subprocess.run(whole, capture_output=True, text=True, check=False)


class BuildahRunc:
    def inspect(self, name: str) -> Image | None:
        found = _read(["buildah", "inspect", "--type", "image", name])
        return (
            _image(name, found["OCIv1"]["config"], found["OCIv1"]["rootfs"]["diff_ids"])
            if found
            else None
        )

    def run(
        self, image: Image, argv: Sequence[str], data: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        with self._mounted(image.name) as root, tempfile.TemporaryDirectory() as bundle:
            (Path(bundle) / "config.json").write_text(
                json.dumps(specification(image, argv, root, data))
            )
            name = f"contimg-test-{Path(bundle).name}"
            # runc looks for no user in the image's files: the numbers stand in the specification.
            return subprocess.run(
                ["runc", "run", "--bundle", bundle, name],
                capture_output=True,
                text=True,
                check=False,
            )

    @contextmanager
    def _mounted(self, name: str) -> Iterator[str]:
        container = subprocess.run(
            ["buildah", "from", "--pull-never", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        try:
            yield subprocess.run(
                ["buildah", "mount", container], capture_output=True, text=True, check=True
            ).stdout.strip()
        finally:
            subprocess.run(["buildah", "rm", container], capture_output=True, check=True)


def specification(
    image: Image, argv: Sequence[str], root: str, data: Path | None
) -> dict[str, Any]:
    """Return an OCI runtime specification: runc's default, restricted."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["runc", "spec", "--bundle", folder], check=True)
        spec: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    spec["root"] = {"path": root, "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": USER, "gid": USER},
        "args": list(argv),
        "cwd": "/tmp",
        "env": [f"{name}={value}" for name, value in image.env.items()],
        "capabilities": {},
        "noNewPrivileges": True,
    }
    options = ["nosuid", "nodev", "mode=1777", f"size={TMPFS_BYTES}"]
    spec["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}
    )
    if data:
        spec["mounts"].append(
            {
                "destination": str(data),
                "type": "bind",
                "source": str(data),
                "options": ["rbind", "rw"],
            }
        )
    return spec
