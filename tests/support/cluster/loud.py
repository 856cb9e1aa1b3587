"""Hooks: without a cluster one loud line says how many tests did not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.kube import missing

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

MARK = "cluster"
FIGURES = "figure: "


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a cluster where there is none."""
    ours = [item for item in items if item.get_closest_marker(MARK)]
    if ours and missing():
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=f"needs a cluster: {missing()}"))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say what was not proven, and what was measured."""
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if MARK in report.keywords
    ]
    if skipped:
        reasons = sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped})
        terminalreporter.write_line(
            f"NOT PROVEN ON A CLUSTER: {len(skipped)} tests did not run ({'; '.join(reasons)})",
            red=True,
            bold=True,
        )
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name.startswith(FIGURES):
                terminalreporter.write_line(f"{name.removeprefix(FIGURES)}: {value}")
