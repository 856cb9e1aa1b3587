"""What each image is made from, by the specs of the stages and the pyproject.toml of every package.

specs.py [NAME…]    for images/build, one line per image, the fields of `Recipe` with | between them
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import astuple, dataclass
from pathlib import Path

from contimg.runtime.stage import stage_specs
from requirements import find_direct, normalize_name

ROOT = Path(__file__).parents[1]
OWN_LICENSE = "BSD-3-Clause"
LICENSES = {
    "aoflagger": "GPL-3.0-or-later",
    "wsclean": "GPL-3.0-or-later",
    "casatools": "GPL-2.0-or-later",
    "casatasks": "LGPL-2.0-or-later",
    "python-casacore": "LGPL-3.0-or-later",
}
"""Copyleft programs and libraries that an image may hold besides Debian's base system."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The arguments of one image's build."""

    name: str
    """The stage or service."""
    level: str
    """The level of images/Containerfile that it stands on."""
    projects: str
    """Folders of our packages that it holds with their dependencies."""
    specs: str
    """Folders of stages of which it holds the specs alone, without their dependencies."""
    packages: str
    """Debian packages besides Python."""
    licenses: str
    """SPDX expression."""
    description: str


def read_project(folder: str) -> dict[str, object]:
    """Return the table ``project`` of a package of ours."""
    text = (ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, object] = tomllib.loads(text)["project"]
    return table


def make_recipe(name: str) -> Recipe:
    """Return the recipe of an image.

    A folder in stages/ without a `StageSpec` is a service, such as watch. It checks the options of
    all stages, so it holds their specs, which import lib alone.
    """
    spec = stage_specs().get(name)
    project = read_project(f"stages/{name}")
    needs = {normalize_name(item) for item in list(project["dependencies"])}  # type: ignore[call-overload]
    projects = ["lib", *(["runs"] if "contimg-runs" in needs else []), f"stages/{name}"]
    packages = spec.debian_packages if spec else ()
    held = {normalize_name(item) for item in find_direct([ROOT / folder for folder in projects])}
    copyleft = {LICENSES[item] for item in held | set(packages) if item in LICENSES}
    return Recipe(
        name=name,
        level=spec.image_level if spec else "common",
        projects=" ".join(projects),
        specs="" if spec else " ".join(f"stages/{other}" for other in stage_specs()),
        packages=" ".join(packages),
        licenses=" AND ".join([OWN_LICENSE, *sorted(copyleft)]),
        description=str(project["description"]),
    )


def find_images() -> list[str]:
    """Return the names of all images: the folders of stages/."""
    return sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml"))


def main(*names: str) -> None:
    """Print the recipes of all images, or of those named."""
    known = find_images()
    for name in names or known:
        if name not in known:
            sys.exit(f"There is no image {name!r}. The images are {', '.join(known)}.")
        print("|".join(astuple(make_recipe(name))))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
