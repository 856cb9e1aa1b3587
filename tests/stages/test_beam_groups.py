"""The beam measured on 40 groups of one night that went through the stages: `make science`.

The sky is the realistic one: sources to 0.5 mJy, every NVSS source 15 % off its catalogue flux, a
third of the sources resolved. The dishes' beam is 3 % wider than assumed and points elsewhere.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import ROOT, contimg
from contimg.astro import beam_cli
from contimg.astro.beam_cli import BeamOptions
from contimg.runtime.console import Console

GROUPS, WIDTH, EAST_DEG, NORTH_DEG = 40, 1.03, 0.05, -0.05
SKY = {"date": "2026-04-25", "groups": GROUPS, "effects": "variable:1:0.15,resolved:0.3"}
"""The first group is on 3C48. All are in one UTC day, in which no source varies."""


def simulate(root: Path) -> str:
    """Write the subbands seen through the true beam, and return the file of that beam."""
    beam = {"model": "airy:4.65", "offset_deg": [EAST_DEG, NORTH_DEG], "widths": [[1405, WIDTH]]}
    file = root / "true.json"
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(beam))
    places = {"incoming": root / "incoming", "out": root / "products/simulate"}
    contimg("simulate", **places, **SKY, beam=file)
    contimg("watch", store=root, size=0, timeout_s=0)
    return str(file)


def process(record: Path, root: Path, store: Path, beam: str | None) -> list[str]:
    """Take a group to its fluxes with an assumed beam; return the reasons of the image's verdict.

    The subbands are of `root`, the calibration and all tables of `store`.
    """
    where = store / "products" / record.stem
    ms = contimg("convert", group=record, out=root / "products" / record.stem)["artifact"]
    flags = contimg("flag", ms=ms, out=root / "products" / record.stem)["artifact"]
    inputs = {"ms": ms, "flags": flags}
    inputs["calibration"] = contimg(
        "calibrate", **inputs, store=store, beam=beam, out=where / "calibrate"
    )["artifact"]
    given = {"tier": "development", "tables": store / "tables", "beam": beam}
    image = contimg("image", **inputs, **given, out=where / "image")
    tables = store / "tables"
    contimg("photometry", image=image["artifact"], tables=tables, out=where / "photometry")
    reasons: list[str] = image["qa"]["reasons"]
    return reasons


def process_night(root: Path, store: Path, beam: str | None) -> tuple[list[str], list[str]]:
    """Process all groups; return the verdicts named primary_beam, of groups and of the strip."""
    first, *others = sorted((root / "groups").glob("*.json"))
    found = [process(first, root, store, beam)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found += pool.map(lambda record: process(record, root, store, beam), others)
    strip = contimg("normalize", tables=store / "tables", strip=33.0, out=store / "normalize")
    texts = [text for reasons in found for text in reasons], strip["qa"]["reasons"]
    groups, run = ([one for one in part if "primary_beam" in one] for part in texts)
    print(f"{GROUPS} groups with the beam {beam or 'of the stages'}: marked {len(groups)}; {run}")  # noqa: T201 - shown by pytest -rP
    return groups, run


@pytest.mark.science
def test_beam_of_40_groups() -> None:
    root = ROOT / ".cache/chain/beam"
    true = simulate(root)
    _, marked = process_night(root, root / "wrong", None)
    assert marked
    found = fit(root / "wrong")
    assert found["width"] == pytest.approx(WIDTH, rel=0.005)
    assert found["east_deg"] == pytest.approx(EAST_DEG, abs=0.02)
    assert found["north_deg"] == pytest.approx(NORTH_DEG, abs=0.02)
    groups, marked = process_night(root, root / "right", true)
    assert not groups
    assert not marked
    found = fit(root / "right")
    assert found["width"] == pytest.approx(1.0, rel=0.005)
    np.testing.assert_allclose([found["east_deg"], found["north_deg"]], 0, atol=0.02)


def fit(store: Path) -> dict[str, Any]:
    """Run ``contimg beam fit`` on a store, print what it found, and return it."""
    options = BeamOptions(action="fit", file=store / "found.json", store=str(store))
    found = beam_cli.run(options, Console("beam", {}), {})
    print({name: value for name, value in found.items() if name not in {"command", "beam"}})  # noqa: T201 - shown by pytest -rP
    return found
