"""The parts of a page: formatted numbers, figures, banners, tables."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from contimg_report import figure, formatting, page, plots_image, sections
from contimg_report.artifacts import ReportArtifact, column
from report_pages import artifact, png

pytestmark = pytest.mark.usefixtures("page_style")


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formatting.percent, 0.0, "0.00 %"),
        (formatting.percent, 1e-6, "< 0.01 %"),
        (formatting.percent, 0.004, "0.40 %"),
        (formatting.percent, 0.1234, "12.3 %"),
        (formatting.percent, None, "–"),
        (formatting.seconds, 9.94, "9.9 s"),
        (formatting.seconds, 300.0, "5 min 00 s"),
        (formatting.flux, 16.2, "16.20 Jy"),
        (formatting.flux, 0.00103, "1.03 mJy"),
        (formatting.utc, 61065.05166991056, "2026-01-25 01:14:24"),
        (formatting.number, 15783.25, "15\u2009783.25"),
        (formatting.number, float("nan"), "–"),
        (formatting.right_ascension, 24.4221, "01h37m41.3s"),
        (formatting.right_ascension, 359.99999, "00h00m00.0s"),
        (formatting.declination, 33.159759, "+33°09′35″"),
        (formatting.declination, -0.5, "−00°30′00″"),
        (formatting.declination, 59.99999, "+60°00′00″"),
    ],
)
def test_numbers_are_formatted(function: Any, value: float | None, text: str) -> None:
    assert function(value) == text


@pytest.mark.parametrize(
    ("name", "value", "label", "text"),
    [
        ("peak_jy", 0.00103, "Peak", "1.03 mJy"),
        ("noise_mjy", 1500, "Noise", "1.50 Jy"),
        ("used_fraction", 0.5, "Used fraction", "50.0 %"),
        ("fraction", 0.5, "Fraction", "50.0 %"),
        ("last_mjd", 61065.05166991056, "Last UTC", "2026-01-25 01:14:24"),
        ("freq_max_hz", 1.498e9, "Freq max", "1498 MHz"),
        ("integration_s", 12.88, "Integration", "12.9 s"),
        ("beam_arcsec", 37.215, "Beam", "37.22″"),
        ("sources", 12345, "Sources", "12\u2009345"),
        ("ratio", 0.98765432, "Ratio", "0.9877"),
        ("done", True, "Done", "yes"),
        ("calibrator", "3C48", "Calibrator", "3C48"),
        ("names", ["a", 2], "Names", "a, 2"),
        ("names", [], "Names", "–"),
        ("by_antenna", {"1": [2]}, "By antenna", '{"1": [2]}'),
        ("rms_jy", None, "Rms jy", "–"),
        ("ratio", float("inf"), "Ratio", "–"),
        ("text", "x" * 400, "Text", "x" * 300 + "…"),
    ],
)
def test_metrics_are_formatted_by_their_unit(name: str, value: Any, label: str, text: str) -> None:
    assert formatting.describe_metric(name, value) == (label, text)


def draw(name: str) -> figure.Picture:
    made, (axes,) = figure.new_figure()
    pixels = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    pixels[3, 5] = np.nan
    axes.imshow(pixels, cmap="cividis")
    axes.plot([0, 10], [0, 10], color=figure.BLUE)
    return figure.finish(made, name, 'A "test" < drawing', "Nothing.")


def test_figure_has_page_colours_and_own_identifiers() -> None:
    first, second = draw("one"), draw("two")
    assert draw("one") == first
    assert "var(--blue)" in first.svg
    assert figure.BLUE not in first.svg
    assert 'aria-label="A &quot;test&quot; &lt; drawing"' in first.svg
    names = [set(re.findall(r'id="([^"]+)"', one.svg)) for one in (first, second)]
    assert not names[0] & names[1]
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', first.svg))
    assert {a or b for a, b in used} <= names[0]


def test_embedded_image_is_smaller() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (200, 4), np.uint8)
    pixels = colours[np.random.default_rng(2).integers(0, 200, (40, 50))]
    original = png(pixels)
    data = base64.b64decode(figure.embed_png(original).partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert np.array_equal(found, pixels)
    assert len(data) < len(original)


def test_shrink_averages_and_leaves_gaps_out() -> None:
    pixels = np.arange(16, dtype=np.float32).reshape(4, 4)
    pixels[0, 0] = np.nan
    pixels[2:, 2:] = np.nan
    found = plots_image.shrink(pixels, 2)
    assert found[0].tolist() == pytest.approx([(1 + 4 + 5) / 3, 4.5])
    assert np.isnan(found[1, 1])
    assert plots_image.shrink(np.ones((5, 5)), 2).shape == (1, 1)
    assert plots_image.shrink(np.ones((5, 5)), 5).shape == (5, 5)


def test_column_has_nan_for_null() -> None:
    flux, count = pa.array([1.0, None]), pa.array([1, None], pa.int32())
    table = pa.table({"flux": flux, "n": count, "name": ["a", "b"], "good": [True, False]})
    assert np.isnan([column(table, "flux")[1], column(table, "n")[1]]).all()
    assert column(table, "name").tolist() == ["a", "b"]
    assert column(table, "good").tolist() == [True, False]


def test_one_warning_makes_banner_warning() -> None:
    convert, flag = artifact("convert", {}), artifact("flag", {}, "45 % are flagged")
    found = page.judge({"convert": convert, "flag": flag}, "group")
    assert (found.good, found.headline) == (False, "Look at 1 thing")
    assert found.reasons == (("Flag", "45 % are flagged"),)
    assert page.judge({"convert": convert}, "group").headline == "Good"


HEADLINES = {None: "No search for scattering events", 0: "No candidate", 1: "1 candidate"}


@pytest.mark.parametrize(("count", "headline"), [*HEADLINES.items(), (3, "3 candidates")])
def test_run_banner_counts_candidates(count: int | None, headline: str) -> None:
    found = {"variability": artifact("variability", {"candidates": count})}
    for reasons, end in (((), ""), (("few references",), ", with warnings")):
        artifacts = {"normalize": artifact("normalize", {}, *reasons)}
        artifacts |= {} if count is None else found
        assert page.judge(artifacts, "run").headline == headline + end


def test_missing_subbands_are_named() -> None:
    metrics = {"missing_subbands": [4, 11], "freq_max_hz": 1.5e9, "freq_min_hz": 1.34e9}
    content = sections.describe_convert(artifact("convert", metrics))
    tile = sections.Tile("Subbands", "14 of 16", "missing: sb04, sb11", good=False)
    assert content["tiles"] == [tile]
    rows = content["subbands"]
    assert [row["index"] for row in rows if row["missing"]] == [4, 11]
    assert (rows[0]["high"], rows[15]["low"]) == (1500.0, pytest.approx(1340.0))


def test_group_is_one_row() -> None:
    image, flag = {"group": "b", "rms_jy": 1e-3}, {"group": "b", "fraction": 0.1}
    made = [artifact("image", image), artifact("flag", flag, "much")]
    made.append(artifact("image", {"group": "a", "rms_jy": 2e-3}))
    rows = page.group_rows(one.manifest for one in made)
    found = [(row["group"], row["good"], row["reasons"]) for row in rows]
    assert found == [("a", True, []), ("b", False, ["much"])]
    assert rows[1]["metrics"]["flag_fraction"] == 0.1


def test_run_page_counts_doubtful_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    tile, rendered = sections.Tile("Candidates", "1"), list[dict[str, Any]]()
    monkeypatch.setattr(page, "RUN_SECTIONS", {"variability": lambda _one: {"tiles": [tile]}})
    monkeypatch.setattr(page, "render", lambda _template, content: rendered.append(content))
    run = {"variability": artifact("variability", {"candidates": 1})}
    good, bad = artifact("flag", {"group": "a"}), artifact("flag", {"group": "b"}, "x")
    for groups in ([good, bad], [good], []):
        page.make_page(run, [group.manifest for group in groups])
    doubtful, fine, nothing = (content["tiles"] for content in rendered)
    assert doubtful == [tile, sections.Tile("Groups", "2", "1 with warnings", good=False)]
    assert fine[-1].note == "all good"
    assert nothing == [tile]


@pytest.mark.parametrize(
    ("uri", "page_uri", "link"),
    [
        ("/s/p/g/spectra/k", "/s/p/g/report/r", "../../spectra/k/v%20w.html"),
        ("file:///s/p/spectra/k", "/s/p/report/r", "../../spectra/k/v%20w.html"),
        ("s3://bucket/p/spectra/k", "s3://bucket/p/report/r", "../../spectra/k/v%20w.html"),
        ("s3://other/p/spectra/k", "s3://bucket/p/report/r", "s3://other/p/spectra/k/v%20w.html"),
    ],
)
def test_link_is_relative_within_a_store(uri: str, page_uri: str, link: str) -> None:
    class Context:
        artifact = page_uri

    one = ReportArtifact(uri, artifact("spectra", {}).manifest, Context())  # type: ignore[arg-type]
    assert one.link("v w.html") == link
