"""Published data that tests compare with. They lie beside the repository and are not part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data"


def outside_data(name: str) -> Path:
    """Return a file or folder of the data beside the repository; skip the test if it is missing."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    return path
