"""The gate primary_beam of a run: a beam that one group cannot tell from the right one."""

from pathlib import Path

import numpy as np
import pytest

from beam_strips import draw_strip
from contimg.records.schemas.images import IMAGES
from contimg.runtime.context import Context
from contimg.runtime.store import open_store
from contimg_normalize import beam, epochs
from contimg_normalize.options import NormalizeOptions
from photometry_tables import World, steady_world

ASSUMED = "airy:4.65"


def test_right_beam_is_not_marked() -> None:
    rng = np.random.default_rng(21)
    for _ in range(3):
        groups, images = draw_strip(rng, groups=40)
        assert beam.describe_beam(beam.average_beam(images)) == []
        assert not any(one.deviant for one in groups)


@pytest.mark.parametrize(
    "wrong", [{"width": 1 / 1.03}, {"east_deg": 0.05}, {"north_deg": -0.05}], ids=str
)
def test_small_error_shows_in_many_groups_alone(wrong: dict[str, float]) -> None:
    groups, images = draw_strip(np.random.default_rng(22), groups=40, **wrong)
    assert sum(bool(one.deviant) for one in groups) <= 1
    [reason] = beam.describe_beam(beam.average_beam(images))
    assert reason.startswith("primary_beam: the images of 11 fields want another beam")
    assert "contimg beam fit" in reason


def test_repeated_field_tells_no_more_than_once() -> None:
    """A hundred nights of one field average its noise, but not its catalogue's errors."""
    _, images = draw_strip(np.random.default_rng(23), groups=12)
    nights = {name: np.tile(values, 100) for name, values in images.items()}
    once, often = beam.average_beam(images), beam.average_beam(nights)
    assert often == pytest.approx(once)
    few = {name: values[:2] for name, values in images.items()}
    assert beam.average_beam(few) == {}


def write_tables(root: Path, world: World, images: dict[str, np.ndarray]) -> None:
    """Write what photometry and image publish, and the same group of another tier."""
    put = open_store(str(root)).put
    for g, (table, mjd) in enumerate(zip(world.tables(), world.mjd, strict=True)):
        image = {c.name: 0 for c in IMAGES.columns if not c.nullable}
        image |= dict.fromkeys((c.name for c in IMAGES.columns if c.type == "string"), "x")
        image |= {name: float(values[g]) for name, values in images.items()}
        image |= {"group": f"g{g:04d}", "tier": "standard", "primary_beam": ASSUMED, "mjd": mjd}
        rows = [image, image | {"tier": "quicklook", "beam_width": 9.0}]
        unit = f"date=2026-01-25/g{g:04d}.parquet"
        put(f"photometry/{unit}", epochs.PHOTOMETRY.to_bytes(table))
        put(f"images/{unit}", IMAGES.to_bytes(IMAGES.rows(rows)))


def test_images_of_the_measured_groups_are_read(tmp_path: Path) -> None:
    _, images = draw_strip(np.random.default_rng(24), groups=8, width=1 / 1.1)
    images["beam_width"][3] = np.nan
    world = steady_world(5, 8)
    world.columns = {"tier": ["standard"] * 8, "primary_beam": [ASSUMED] * 8}
    write_tables(tmp_path, world, images)
    options = NormalizeOptions(tables=str(tmp_path), strip=33.0, out=str(tmp_path / "out"))
    inputs = beam.find_inputs(options)
    assert [item.name for item in inputs] == ["photometry"] * 8 + ["images"] * 8
    context = Context(str(tmp_path / "artifact"), tmp_path, inputs, {})
    found = beam.read_images(context, epochs.read_photometry(context))
    for name, values in images.items():
        np.testing.assert_array_equal(found[name], values)
    [reason] = beam.describe_beam(beam.average_beam(found))
    assert "its width by -" in reason
