"""Images and containers, restricted like pods: read-only root, uid 10001, no network.

By docker or podman, else by buildah and runc (which needs root). Nothing is pulled.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Done = subprocess.CompletedProcess[str]
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

    def run(self, image: Image, argv: Sequence[str], data: Path | None = None) -> Done:
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
    user, entrypoint = config.get("User") or "", tuple(config.get("Entrypoint") or ())
    return Image(name, user, entrypoint, env, config.get("Labels") or {}, tuple(layers))


class DockerLike:
    def __init__(self, program: str) -> None:
        self.program = program

    def inspect(self, name: str) -> Image | None:
        found = _read([self.program, "image", "inspect", name])
        return _image(name, found[0]["Config"], found[0]["RootFS"]["Layers"]) if found else None

    def run(self, image: Image, argv: Sequence[str], data: Path | None = None) -> Done:
        whole = [self.program, "run", "--rm", "--pull=never", "--read-only", "--network=none"]
        whole += ["--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={USER}:{USER}"]
        whole += [f"--tmpfs=/tmp:rw,mode=1777,size={TMPFS_BYTES}"]
        whole += [f"--volume={data}:{data}"] if data else []
        whole += [f"--entrypoint={argv[0]}", image.name, *argv[1:]]
        return subprocess.run(whole, capture_output=True, text=True, check=False)


class BuildahRunc:
    def inspect(self, name: str) -> Image | None:
        found = (_read(["buildah", "inspect", "--type", "image", name]) or {}).get("OCIv1")
        return _image(name, found["config"], found["rootfs"]["diff_ids"]) if found else None

    def run(self, image: Image, argv: Sequence[str], data: Path | None = None) -> Done:
        with self._mounted(image.name) as root, tempfile.TemporaryDirectory() as bundle:
            text = json.dumps(specification(image, argv, root, data))
            (Path(bundle) / "config.json").write_text(text)
            name = f"contimg-test-{Path(bundle).name}"
            # runc does not look for the user in the image: the numbers are in the specification.
            command = ["runc", "run", "--bundle", bundle, name]
            return subprocess.run(command, capture_output=True, text=True, check=False)

    @contextmanager
    def _mounted(self, name: str) -> Iterator[str]:
        def ask(*argv: str) -> str:
            done = subprocess.run(["buildah", *argv], capture_output=True, text=True, check=True)
            return done.stdout.strip()

        container = ask("from", "--pull-never", name)
        try:
            yield ask("mount", container)
        finally:
            ask("rm", container)


def specification(image: Image, argv: Sequence[str], root: str, data: Path | None) -> Any:
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
    tmp = ["nosuid", "nodev", "mode=1777", f"size={TMPFS_BYTES}"]
    mounts = [("/tmp", "tmpfs", "tmpfs", tmp)]
    mounts += [(str(data), "bind", str(data), ["rbind", "rw"])] if data else []
    names = ("destination", "type", "source", "options")
    spec["mounts"] += [dict(zip(names, mount, strict=True)) for mount in mounts]
    return spec
