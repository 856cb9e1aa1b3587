"""The images, and whether they are built."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from containers import find_engine
from specs import find_images, make_recipe

ROOT = Path(__file__).parents[2]
RECIPES = {name: make_recipe(name) for name in find_images()}


def image_name(stage: str) -> str:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return f"contimg-{stage}:{version}"


@functools.cache
def missing() -> str:
    """Return what keeps the images from being tested here; nothing if they can be."""
    engine = find_engine()
    if engine is None:
        return "nothing here runs containers (docker, podman, or buildah and runc as root)"
    absent = [stage for stage in RECIPES if engine.inspect(image_name(stage)) is None]
    return f"not built: {', '.join(absent)}; `make images` builds them" if absent else ""
