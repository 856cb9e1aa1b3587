"""The parts of a page: numbers in words, figures, verdicts."""

from __future__ import annotations

import base64
import io
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from contimg.records.schemas.variability import LIGHTCURVES
from contimg.runtime.manifest import QA, Manifest
from contimg_report import figure, page, plots_flags, plots_image, plots_run, verdict, words
from contimg_report.material import Artifact, column


def artifact(stage: str, metrics: dict[str, Any], *reasons: str) -> Artifact:
    made = Manifest(
        stage=stage,
        version="1",
        key="k" * 16,
        options={},
        inputs=(),
        tools={},
        outputs=(),
        metrics=metrics,
        qa=QA(verdict="warning" if reasons else "good", reasons=reasons),
        seconds={"a": 1.0, "b": 2.5},
        created=datetime(2026, 1, 25, tzinfo=UTC),
    )
    return Artifact(f"/nowhere/{stage}", made, context=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (words.percent, 0.0, "0.00 %"),
        (words.percent, 1e-6, "< 0.01 %"),
        (words.percent, 0.004, "0.40 %"),
        (words.percent, 0.1234, "12.3 %"),
        (words.percent, None, "–"),
        (words.seconds, 9.94, "9.9 s"),
        (words.seconds, 300.0, "5 min 00 s"),
        (words.flux, 16.2, "16.20 Jy"),
        (words.flux, 0.00103, "1.03 mJy"),
        (words.utc, 61065.05166991056, "2026-01-25 01:14:24"),
        (words.day, 61065.9, "2026-01-25"),
        (words.number, 15783.25, "15\u2009783.25"),
        (words.number, float("nan"), "–"),
        (words.right_ascension, 24.4221, "01h37m41.3s"),
        (words.right_ascension, 359.99999, "00h00m00.0s"),
        (words.declination, 33.159759, "+33°09′35″"),
        (words.declination, -0.5, "−00°30′00″"),
        (words.declination, 59.99999, "+60°00′00″"),
    ],
)
def test_numbers_read_well(function: Any, value: float | None, text: str) -> None:
    assert function(value) == text


def drawn(name: str) -> figure.Picture:
    with figure.style():
        made, (axes,) = figure.new()
        pixels = np.linspace(0, 1, 64 * 64).reshape(64, 64)
        pixels[3, 5] = np.nan
        axes.imshow(pixels, cmap="cividis")
        axes.plot([0, 10], [0, 10], color=figure.BLUE)
        return figure.picture(made, name, 'A "test" < drawing', "Nothing.")


def test_a_figure_takes_its_colours_from_the_page_and_names_nobody_elses_parts() -> None:
    first, second = drawn("one"), drawn("two")
    assert drawn("one") == first
    assert "var(--blue)" in first.svg
    assert figure.BLUE not in first.svg
    assert 'aria-label="A &quot;test&quot; &lt; drawing"' in first.svg
    names = [set(re.findall(r'id="([^"]+)"', one.svg)) for one in (first, second)]
    assert not names[0] & names[1]
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', first.svg))
    assert {a or b for a, b in used} <= names[0]


def test_a_smaller_image_has_the_same_pixels() -> None:
    colours = (np.random.default_rng(1).integers(0, 256, (200, 4))).astype(np.uint8)
    pixels = colours[np.random.default_rng(2).integers(0, 200, (40, 50))]
    sink = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(sink, "PNG")
    made = figure._smaller(base64.b64encode(sink.getvalue()).decode())  # noqa: SLF001 - the step that must lose nothing
    data = base64.b64decode(made.partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert np.array_equal(found, pixels)
    assert len(data) < len(sink.getvalue())


def test_shrinking_averages_and_leaves_gaps_out() -> None:
    pixels = np.arange(16, dtype=np.float32).reshape(4, 4)
    pixels[0, 0] = np.nan
    pixels[2:, 2:] = np.nan
    found = plots_image.shrink(pixels, 2)
    assert found[0].tolist() == pytest.approx([(1 + 4 + 5) / 3, 4.5])
    assert np.isnan(found[1, 1])
    assert plots_image.shrink(np.ones((5, 5)), 2).shape == (1, 1)
    assert plots_image.shrink(np.ones((5, 5)), 5).shape == (5, 5)


def test_nulls_become_not_a_number() -> None:
    table = pa.table(
        {
            "flux": pa.array([1.0, None]),
            "n": pa.array([1, None], pa.int32()),
            "name": ["a", "b"],
            "good": [True, False],
        }
    )
    assert np.isnan(column(table, "flux")[1])
    assert np.isnan(column(table, "n")[1])
    assert column(table, "name").tolist() == ["a", "b"]
    assert column(table, "good").tolist() == [True, False]


def test_one_warning_makes_the_banner_a_warning_and_is_named() -> None:
    artifacts = {
        "convert": artifact("convert", {}),
        "flag": artifact("flag", {}, "45 % are flagged"),
    }
    found = verdict.of_group(artifacts)
    assert (found.good, found.headline) == (False, "Look at 1 thing")
    assert found.reasons == (("Flag", "45 % are flagged"),)
    assert verdict.of_group({"convert": artifact("convert", {})}).headline == "Good"


@pytest.mark.parametrize(
    ("count", "headline"),
    [
        (None, "No search for scattering events"),
        (0, "No candidate"),
        (1, "1 candidate"),
        (3, "3 candidates"),
    ],
)
def test_a_run_says_how_many_candidates(count: int | None, headline: str) -> None:
    assert verdict.of_run({"normalize": artifact("normalize", {})}, count).headline == headline
    assert (
        verdict.of_run({"normalize": artifact("normalize", {}, "few references")}, count).headline
        == f"{headline}, with reservations"
    )


def test_missing_subbands_are_named() -> None:
    said = {"missing_subbands": [4, 11], "freq_max_hz": 1.5e9, "freq_min_hz": 1.34e9}
    tile = verdict.group_tiles({"convert": artifact("convert", said)})[0]
    assert (tile.value, tile.note, tile.good) == ("14 of 16", "missing: sb04, sb11", False)
    rows = page.subband_rows(artifact("convert", said))
    assert [row["index"] for row in rows if row["missing"]] == [4, 11]
    assert (rows[0]["high"], rows[15]["low"]) == (1500.0, pytest.approx(1340.0))


def test_all_that_is_known_of_a_group_is_one_row() -> None:
    manifests = [
        artifact("image", {"group": "b", "rms_jy": 1e-3}).manifest,
        artifact("flag", {"group": "b", "fraction": 0.1}, "much").manifest,
        artifact("image", {"group": "a", "rms_jy": 2e-3}).manifest,
    ]
    rows = page.group_rows(manifests)
    assert [(row["group"], row["good"], row["reasons"]) for row in rows] == [
        ("a", True, []),
        ("b", False, ["much"]),
    ]
    assert rows[1]["metrics"]["flag_fraction"] == 0.1


def test_a_run_counts_its_doubtful_groups() -> None:
    artifacts = {"variability": artifact("variability", {"candidates": 1})}
    tile = verdict.run_tiles(artifacts, [{"good": True}, {"good": False}, {"good": True}])[-1]
    assert (tile.label, tile.value, tile.note, tile.good) == (
        "Groups",
        "3",
        "1 with reservations",
        False,
    )
    assert verdict.run_tiles(artifacts, [{"good": True}])[-1].note == "all good"
    assert [one.label for one in verdict.run_tiles(artifacts)] == ["Candidates"]


def test_only_bad_antennas_are_listed_the_worst_first() -> None:
    antennas = [
        {"index": 0, "name": "1", "fraction": [0.1, 0.1], "dead": []},
        {"index": 1, "name": "2", "fraction": [0.5, 0.2], "dead": []},
        {"index": 2, "name": "3", "fraction": [1.0, 0.1], "dead": ["XX"]},
    ]
    rows = plots_flags.bad_antennas({"antennas": antennas})
    assert [(row["name"], row["dead"]) for row in rows] == [("3", "XX"), ("2", "–")]


def test_upper_limits_are_arrows_and_are_counted() -> None:
    rows = [
        {
            "source": "DSA J000000.0+000000",
            "mjd": 61000.0 + k,
            "epoch": k,
            "flux": float(k),
            "flux_err": 1.0,
            "upper_limit": k < 3,
        }
        for k in range(8)
    ]
    curves = LIGHTCURVES.rows(rows)
    names = ("source", "eta_peak", "flux_mean", "ese_candidate", "reference")
    stats = pa.table(
        dict(zip(names, (["DSA J000000.0+000000"], [3.0], [4.0], [False], [False]), strict=True))
    )
    with figure.style():
        candidates, (curve,) = plots_run.light_curves(curves, stats)
    assert candidates == []
    assert "8 epochs, 3 upper limits" in curve.alt
    assert "plasma lens" not in curve.svg
