"""Pages of what went wrong: reasons first, the missing and the dead by name, and safe text."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain import Chain, contimg
from contimg.runtime.manifest import QA, read_manifest
from contimg_report import page
from contimg_report.artifacts import ReportArtifact
from report_pages import make_report

DEFECTS = {"rfi": "both", "dead_antennas": "13,77", "deaf_antennas": "30", "missing_subbands": "4"}
SICK = Chain("small", seed=3, tier="development", name="flag-sick", sky=DEFECTS | {"zeros": 0.01})


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
