"""Pages say what the artifacts say, reasons first, in bytes that are the same each time."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from chain import BIN, ENVIRONMENT, Chain, contimg
from contimg.runtime.manifest import QA, read_manifest
from contimg_report import formatting, page
from contimg_report.artifacts import ReportArtifact
from report_pages import Run, make_report, write_artifact

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "circle", "image", "rect"}
DEFECTS = {
    "rfi": "narrow,burst",
    "dead_antennas": "13,77",
    "deaf_antennas": "30",
    "missing_subbands": "4",
}
SICK = Chain("small", seed=3, tier="development", name="flag-sick", sky=DEFECTS | {"zeros": 0.01})


class Page(HTMLParser):
    """Collects what a test asks for, and checks that tags close in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.identifiers: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.identifiers += [str(given["id"])] if given.get("id") else []
        self.links += [str(given[n]) for n in ("href", "src", "xlink:href") if given.get(n)]
        if given.get("role") == "img" or tag == "img":
            self.images.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


@pytest.mark.parametrize("name", ["group_page", "run_page", "spectra_page"])
def test_page_is_self_contained(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    page = Page(path)
    assert page.open == []
    assert len(set(page.identifiers)) == len(page.identifiers)
    outside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert [Path(link).name for link in outside] == ["view.html"] * (name == "spectra_page")
    assert all(link[1:] in page.identifiers for link in page.links if link.startswith("#"))
    assert page.images
    assert all(len(i.get("aria-label") or i.get("alt") or "") > 20 for i in page.images)
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    # One file that can be mailed.
    assert path.stat().st_size < 5e6


def test_group_page_shows_verdict_and_numbers(group_page: Path, group: dict[str, str]) -> None:
    text = Page(group_page).text
    image, flags = (read_manifest(group[stage]).metrics for stage in ("image", "flag"))
    # The last "What came in" is the heading, the first is the link to it.
    verdict = text.index("No step has warnings" if " Good " in text else "Look at")
    place = [verdict, text.index("16 of 16"), text.rindex("What came in")]
    assert place == sorted(place)
    numbers = [f"{1e3 * image['rms_jy']:.2f} mJy", formatting.percent(flags["fraction"])]
    headings = ["Flags", "Calibration", "Image", "Fluxes and positions", "Steps, verdicts"]
    reasons = [reason for uri in group.values() for reason in read_manifest(uri).qa.reasons]
    for phrase in ("3C48", "PRIMARY_TRANSIT_GENERATED", *numbers, *headings, *reasons):
        assert phrase in text


def test_steps_are_in_order_of_creation(group: dict[str, str], tmp_path: Path) -> None:
    text = Page(make_report(tmp_path, group["flag"], group["convert"])).text
    assert "convert, flag." in text
    assert "Calibrated on" not in text


def test_page_is_reproducible(group: dict[str, str], group_page: Path, tmp_path: Path) -> None:
    again = make_report(tmp_path, *group.values())
    assert again.read_bytes() == group_page.read_bytes()


def test_run_page_begins_with_candidate(run_page: Path, epochs: Run) -> None:
    text = Page(run_page).text
    names = read_manifest(epochs.variability).metrics["candidate_names"]
    assert names == ["DSA J023503.0+330000"]
    phrases = ("1 candidate", f"{names[0]} looks like a plasma lens", "Flux scale of each epoch")
    place = [text.index(phrase) for phrase in phrases]
    assert place == sorted(place)
    for heading in ("Candidates for extreme", "How variable the sources are", "Light curves"):
        assert heading in text


def test_run_page_lists_groups(run_page: Path, group: dict[str, str]) -> None:
    text = Page(run_page).text
    name = read_manifest(group["convert"]).metrics["group"]
    row = text[text.index(f" {name} ") :]
    rms = f"{1e3 * read_manifest(group['image']).metrics['rms_jy']:.2f}"
    assert row.index(rms) < row.index("Steps, verdicts")
    assert text.count(f" {name} ") == 1


def test_unknown_stage_has_section(spectra_page: Path) -> None:
    html, page = spectra_page.read_text(), Page(spectra_page)
    assert "#stage-spectra" in page.links
    tiles = html[html.index('class="tiles"') : html.index('id="came"')]
    assert re.search(r"Spectra</span><span[^>]*>12.3 mJy</span><span[^>]*>Peak", tiles)
    section = html[html.index('id="stage-spectra"') : html.index('id="steps"')]
    assert '<span class="badge warning">warning</span> the peak is &lt;i&gt;low' in section
    for label, text in (("Peak", "12.3 mJy"), ("Used fraction", "93.0 %")):
        assert f'<th scope="row">{label}</th><td class="words">{text}</td>' in section
    phrases = ("2026-01-25 01:12:00", '<img src="data:image/png;base64,', "data.bin (2.0 MB)")
    for phrase in (*phrases, "&lt;b&gt;spectra&lt;/b&gt;", "large.json (18.0 kB)"):
        assert phrase in section
    assert "1,1,1" not in section
    (link,) = (link for link in page.links if link.endswith("view.html"))
    assert (spectra_page.parent / link).read_text() == "<p>spectra</p>"
    assert "convert, flag, spectra." in page.text
    assert '<th scope="row">Spectra</th>' in html[html.index('id="steps"') :]


@pytest.mark.parametrize(
    ("stages", "extra", "code", "message"),
    [
        ([], None, 2, "--artifacts is required"),
        (["flag"], None, 19, "needs its convert artifact"),
        (["convert", "convert"], None, 19, "There are two artifacts of convert"),
        (["convert"], "normalize", 19, "of a group (convert) and some of a run over epochs (norm"),
        (["flag"], "variability", 19, "of a group (flag) and some of a run over epochs (varia"),
        (["convert"], "spectra", 19, "of different groups: "),
        (["convert", "missing"], None, 25, "/missing"),
    ],
)
def test_bad_artifacts_are_refused(
    group: Any, tmp_path: Path, stages: list[str], extra: str | None, code: int, message: str
) -> None:
    uris = [group.get(stage, f"{tmp_path}/{stage}") for stage in stages]
    if extra is not None:
        metrics = {"group": "another"} if extra == "spectra" else {}
        uris.append(write_artifact(tmp_path, extra, metrics, {}))
    argv = [str(BIN / "contimg-report"), f"--artifacts={','.join(uris)}", f"--out={tmp_path}/out"]
    done = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert message in (last if code == 2 else json.loads(last)["message"])


@pytest.fixture(scope="module")
def sick_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_report(tmp_path_factory.mktemp("sick"), SICK.ms, SICK.flags).read_text()


def test_banner_lists_every_reason(sick_page: str) -> None:
    assert 'class="verdict warning"' in sick_page
    reasons = read_manifest(SICK.ms).qa.reasons
    assert any("subbands missing: 4" in reason for reason in reasons)
    start, end = (sick_page.index(f'class="{name}"') for name in ("verdict warning", "tiles"))
    assert all(reason in sick_page[start:end] for reason in reasons)


def test_missing_subband_is_shown(sick_page: str) -> None:
    assert "15 of 16" in sick_page
    assert sick_page.count('class="missing"') == 1
    assert 'title="subband 4 is missing"' in sick_page
    listed = sick_page[sick_page.index("All subbands") : sick_page.index('id="flags"')]
    assert listed.count("_sb") == 15


def test_dead_antennas_are_named(sick_page: str) -> None:
    table = sick_page[sick_page.index("Antennas that are dead") :]
    table = table[: table.index("</table>")]
    for name in ("13", "77", "30"):
        assert f'<th scope="row">{name}</th><td>XX, YY</td>' in table


def test_summary_matches_page(tmp_path: Path) -> None:
    metrics = contimg("report", artifacts=f"{SICK.ms},{SICK.flags}", out=tmp_path)["metrics"]
    assert metrics["page"] == "group"
    assert metrics["verdict"].startswith("Look at")
    assert any(r.startswith("Convert: subbands missing: 4") for r in metrics["reasons"])


def test_markup_in_names_and_reasons_is_text() -> None:
    manifest = read_manifest(SICK.ms)
    evil = '<script>alert("x")</script>'
    changed = {"outputs": (), "metrics": {**manifest.metrics, "group": evil, "spectra": evil}}
    warned = manifest.model_copy(update={**changed, "qa": QA(verdict="warning", reasons=(evil,))})
    other = warned.model_copy(update={"stage": "spectra"})
    made = [ReportArtifact(SICK.ms, one, context=None) for one in (warned, other)]  # type: ignore[arg-type]
    html, _, _ = page.make_page({one.manifest.stage: one for one in made})
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 5
