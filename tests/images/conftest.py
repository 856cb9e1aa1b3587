"""The images that `make images` built of this very source."""

import pytest

from built import RECIPES, image_name
from containers import Engine, Image, find_engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    found = find_engine()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, Image]:
    """Every stage's image."""
    found = {stage: engine.inspect(image_name(stage)) for stage in RECIPES}
    return {stage: image for stage, image in found.items() if image is not None}
