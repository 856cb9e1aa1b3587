"""What errors of a catalogue, and changes of sources, do to the fluxes of a WSClean image.

Small groups are enough: what leaks goes through the gains, and a small group has all antennas.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import Chain, contimg
from contimg.astro.catalogues import Catalogue, nvss
from contimg_calibrate import sky_models
from image_truth import compare
from observed import calibrate

pytestmark = pytest.mark.slow
MAX_CHANGE, MIN_SNR = 0.002, 20.0
Array = np.ndarray[Any, Any]


def half_of(number: int) -> Array:
    return np.where(np.random.default_rng(4).random(number) < 0.5, 0.5, 1.0)


@pytest.mark.parametrize(
    "draw_factors", [lambda number: np.full(number, 1.5), half_of], ids=["all-1.5", "half-0.5"]
)
def test_catalogue_fluxes_do_not_reach_image(
    draw_factors: Callable[[int], Array],
    small_chain: Chain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All fluxes but the calibrator's, whose flux is the standard's.

    The image's own catalogue stays: the order of its fluxes says which sources are subtracted.
    """
    whole = nvss()
    wrong = replace(whole, flux_jy=whole.flux_jy * draw_factors(whole.flux_jy.size))

    def read_wrong() -> Catalogue:
        return wrong

    monkeypatch.setattr(sky_models, "nvss", read_wrong)
    inputs = {"ms": small_chain.ms, "flags": small_chain.flags}
    solved = calibrate(tmp_path, **inputs)["artifact"]
    made = contimg("image", **inputs, calibration=solved, tier="development", out=tmp_path)
    before, after = compare(small_chain), compare(small_chain, made["artifact"])
    bright = before.snr >= MIN_SNR
    changed = np.abs(np.log(after.ratio / before.ratio))[bright]
    worst = before[bright][changed.argmax()]
    print(f"{changed.size} fluxes change by {100 * changed.max():.3f} % at most ({worst})")
    assert changed.size >= 25
    assert changed.max() <= MAX_CHANGE


def test_source_that_dims_by_half_is_measured_so(small_chain: Chain, tmp_path: Path) -> None:
    """The brightest sources but 3C48, of which the catalogue still has the old fluxes."""
    found = compare(small_chain)
    names = found.names[np.argsort(-found.snr)][1:4]
    dimmed = [source for source in small_chain.truth["sources"] if source["name"] in names]
    listed = [{**source, "flux_jy": source["flux_jy"] / 2} for source in dimmed]
    (tmp_path / "dimmed.json").write_text(json.dumps(listed))
    sky = {"sources": str(tmp_path / "dimmed.json")}
    after = compare(Chain("small", 1, "development", sky=sky, name="small-dimmed"))
    for name in names:
        [before_row], [after_row] = found[found.names == name], after[after.names == name]
        # The truth of the second group is half.
        change = 0.5 * after_row.ratio / before_row.ratio - 1
        print(f"{name}: {100 * change:+.2f} %")
        assert change == pytest.approx(-0.5, abs=0.01)
