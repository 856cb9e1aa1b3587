"""Installations for the tests on a cluster; a failure shows the state of the namespace."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.groups import Night, upload
from cluster.site import Done, Figure, Site, installed

HERE = Path(__file__).parent
ORDER = (
    "bench_chain",
    "chain",
    "losses",
    "night",
    "submit",
    "release",
    "trouble",
    "cli",
    "refusals",
)
"""The longest first, so that workers end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files of this folder into their order, behind all others."""
    stems = {HERE / f"{name}.py": place for place, name in enumerate(ORDER, 1)}
    items.sort(
        key=lambda item: stems.get(item.path.with_stem(item.path.stem.removeprefix("test_")), 0)
    )


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """An installation for all tests of this process but the chain's."""
    with installed("e2e") as made:
        yield made


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Note a measured number; the run's last lines tell it."""
    return lambda name, value: record_property(f"figure: {name}", value)


@pytest.fixture(scope="session")
def first() -> Night:
    """The group that most tests look at."""
    return Night("2026-01-25")


@pytest.fixture(scope="session")
def done(first: Night) -> Iterator[Done]:
    """A group on an installation of its own, of a tier that gives the same bytes each time."""
    with installed("chain", options={"image": {"tier": "development"}}) as site:
        upload(site.store, first.files)
        site.outcome(f"{first.id}-a1")
        yield Done(site, first, site.succeeded(f"contimg-{first.id}-a1"))


@pytest.fixture(scope="session")
def processed(site: Site, first: Night) -> Night:
    """A group with results, whose workflow has ended."""
    upload(site.store, first.files)
    assert site.outcome(f"{first.id}-a1")["phase"] == "succeeded"
    site.succeeded(f"contimg-{first.id}-a1")
    return first


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the state of the namespace to a failure."""
    outcome = yield
    report = outcome.get_result()
    given = getattr(item, "funcargs", {})
    site = given["done"].site if "done" in given else given.get("site")
    if report.failed and isinstance(site, Site):
        report.sections.append(("The namespace", site.describe()))
