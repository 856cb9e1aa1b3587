"""Hooks: tests that need a cluster, helm or built images are skipped where it is missing.

One loud line at the end says how many did not run, and why.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from _pytest.terminal import TerminalReporter

import built
import charted
from cluster import kube

NEEDS: dict[str, tuple[Callable[[], str], str]] = {
    "cluster": (kube.missing, "NOT PROVEN ON A CLUSTER"),
    "helm": (charted.missing, "CHART NOT PROVEN"),
    "images": (built.missing, "IMAGES NOT PROVEN"),
}
"""By mark: why its tests cannot run (empty if they can), and the head of the line."""
FIGURES = "figure: "


def pytest_runtest_setup(item: pytest.Item) -> None:
    # From one place, so that pytest counts them in one line.
    for mark, (missing, _) in NEEDS.items():
        if item.get_closest_marker(mark) and missing():
            pytest.skip(missing())


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for mark, (missing, head) in NEEDS.items():
        ours = [one for one in skipped if mark in one.keywords and missing() in str(one.longrepr)]
        if ours and missing():
            line = f"{head}: {len(ours)} tests did not run ({missing()})"
            terminalreporter.write_line(line, red=True, bold=True)
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name.startswith(FIGURES):
                terminalreporter.write_line(f"{name.removeprefix(FIGURES)}: {value}")
