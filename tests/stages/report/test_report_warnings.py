"""Pages of what went wrong: the reasons first, the missing and the dead by name, and nothing that a name could break."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain import Chain, contimg
from contimg.runtime.manifest import QA, read_manifest
from contimg_report import page, verdict
from contimg_report.material import Artifact

SICK = Chain(
    "small",
    seed=3,
    tier="development",
    name="flag-sick",
    sky={
        "rfi": "both",
        "dead_antennas": "13,77",
        "deaf_antennas": "30",
        "missing_subbands": "4",
        "zeros": 0.01,
    },
)


@pytest.fixture(scope="module")
def sick_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = contimg("report", convert=SICK.ms, flag=SICK.flags, out=tmp_path_factory.mktemp("sick"))
    return (Path(made["artifact"]) / "report.html").read_text()


def test_the_banner_is_a_warning_with_every_reason(sick_page: str) -> None:
    assert 'class="verdict warning"' in sick_page
    reasons = read_manifest(SICK.ms).qa.reasons
    assert any("subbands missing: 4" in reason for reason in reasons)
    banner = sick_page[
        sick_page.index('class="verdict warning"') : sick_page.index('class="tiles"')
    ]
    assert all(reason in banner for reason in reasons)


def test_the_missing_subband_is_shown_and_listed(sick_page: str) -> None:
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


def test_the_summary_says_what_the_page_says(tmp_path: Path) -> None:
    made = contimg("report", convert=SICK.ms, flag=SICK.flags, out=tmp_path)
    assert made["metrics"]["page"] == "group"
    assert made["metrics"]["verdict"].startswith("Look at")
    assert any(
        reason.startswith("Convert: subbands missing: 4") for reason in made["metrics"]["reasons"]
    )


def test_what_looks_like_markup_is_text() -> None:
    manifest = read_manifest(SICK.ms)
    evil = '<script>alert("x")</script>'
    warned = manifest.model_copy(
        update={
            "qa": QA(verdict="warning", reasons=(evil,)),
            "metrics": {**manifest.metrics, "group": evil},
        }
    )
    artifacts = {"convert": Artifact(SICK.ms, warned, context=None)}  # type: ignore[arg-type]
    content = {
        "verdict": verdict.of_group(artifacts),
        "tiles": verdict.group_tiles(artifacts),
        "title": f"Group {evil}",
        "seen": warned.metrics,
        "rungs": verdict.RUNGS,
        "anchors": verdict.ANCHORS,
        "subbands": [],
        "steps": [("Convert", artifacts["convert"])],
        "slowest": 1.0,
        "total": 1.0,
    }
    html = page.render("group.html.j2", content)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
