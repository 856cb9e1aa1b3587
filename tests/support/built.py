"""Hooks: tests of the images run where they are built; else a line says how many did not."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from containers import find_engine
from specs import find_images, make_recipe

MARK = "images"
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


def pytest_runtest_setup(item: pytest.Item) -> None:
    # From one place, so that pytest counts them in one line.
    if item.get_closest_marker(MARK) and missing():
        pytest.skip(missing())


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    count = sum(
        1
        for report in terminalreporter.stats.get("skipped", [])
        if MARK in report.keywords and "not built" in str(report.longrepr)
    )
    if count:
        terminalreporter.write_line(
            f"IMAGES NOT PROVEN: {count} tests did not run ({missing()})", red=True, bold=True
        )
