"""Benches for the engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_bench import Bench

sys.path.insert(0, str(Path(__file__).parent / "packages"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    from tiny_bench import Bench

    return Bench(tmp_path)
