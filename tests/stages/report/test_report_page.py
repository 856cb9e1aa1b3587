"""The pages say what the artifacts say, in bytes that are the same each time."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain import BIN, ENVIRONMENT, contimg
from contimg.runtime.manifest import read_manifest
from contimg_report import words

if TYPE_CHECKING:
    from conftest import Run

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "circle", "image", "rect"}


class Page(HTMLParser):
    """Collects what a test asks for, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.identifiers: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if identifier := given.get("id"):
            self.identifiers.append(identifier)
        self.links += [
            str(given[name]) for name in ("href", "src", "xlink:href") if given.get(name)
        ]
        if given.get("role") == "img":
            self.images.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("name", ["group_page", "run_page"])
def test_a_page_is_sound_and_complete_in_itself(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    page = Page(path.read_text())
    assert page.open == []
    assert len(set(page.identifiers)) == len(page.identifiers)
    outside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert all(link[1:] in page.identifiers for link in page.links if link.startswith("#"))
    assert page.images
    assert all(len(image["aria-label"] or "") > 20 for image in page.images)
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    # One file that can be mailed.
    assert path.stat().st_size < 5e6


def test_a_group_is_judged_first_and_its_numbers_are_its_manifests(
    group_page: Path, group_options: dict[str, str]
) -> None:
    text = Page(group_page.read_text()).text
    image, flags = (
        read_manifest(group_options["image"]).metrics,
        read_manifest(group_options["flag"]).metrics,
    )
    # The last "What came in" is the heading, the first is the link to it.
    place = [
        text.index("vouch for their products" if " Good " in text else "Look at"),
        text.index("16 of 16"),
        text.rindex("What came in"),
    ]
    assert place == sorted(place)
    assert f"{1e3 * image['rms_jy']:.2f} mJy" in text
    assert words.percent(flags["fraction"]) in text
    assert "3C48" in text
    assert "PRIMARY_TRANSIT_GENERATED" in text
    for heading in (
        "Flags",
        "Calibration",
        "Image",
        "Fluxes and positions",
        "Steps, verdicts and time",
    ):
        assert heading in text


def test_every_reason_for_a_warning_is_on_the_page(
    group_page: Path, group_options: dict[str, str]
) -> None:
    text = Page(group_page.read_text()).text
    for uri in group_options.values():
        for reason in read_manifest(uri).qa.reasons:
            assert reason in text


def test_a_group_that_got_no_further_has_a_page(
    group_options: dict[str, str], tmp_path: Path
) -> None:
    made = contimg(
        "report", out=tmp_path, convert=group_options["convert"], flag=group_options["flag"]
    )
    text = Page((Path(made["artifact"]) / "report.html").read_text()).text
    assert "convert → flag." in text
    assert "Calibrated on" not in text


def test_the_same_artifacts_make_the_same_bytes(
    group_options: dict[str, str], group_page: Path, tmp_path: Path
) -> None:
    again = contimg("report", out=tmp_path, **group_options)["artifact"]
    assert (Path(again) / "report.html").read_bytes() == group_page.read_bytes()


def test_a_run_names_its_candidate_first(run_page: Path, epochs: Run) -> None:
    text = Page(run_page.read_text()).text
    names = read_manifest(epochs.variability).metrics["candidate_names"]
    assert names == ["DSA J023503.0+330000"]
    assert (
        text.index("1 candidate")
        < text.index(f"{names[0]} looks like a plasma lens")
        < text.index("Flux scale of each epoch")
    )
    for heading in (
        "Candidates for extreme scattering events",
        "How variable the sources are",
        "Light curves",
        "Groups",
    ):
        assert heading in text


def test_a_run_lists_its_groups_with_their_numbers(
    run_page: Path, group_options: dict[str, str]
) -> None:
    text = Page(run_page.read_text()).text
    group = read_manifest(group_options["convert"]).metrics["group"]
    row = text[text.index(f" {group} ") :]
    assert row.index(
        f"{1e3 * read_manifest(group_options['image']).metrics['rms_jy']:.2f}"
    ) < row.index("Steps, verdicts")
    assert text.count(f" {group} ") == 1


def refused(*argv: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(BIN / "contimg-report"), *argv],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "argv", [["--out=x"], ["--out=x", "--flag=y"], ["--out=x", "--convert=a", "--variability=b"]]
)
def test_a_page_of_nothing_or_of_two_kinds_is_a_usage_error(argv: list[str]) -> None:
    code, said = refused(*argv)
    assert code == 2
    assert "give" in said or "needs --convert" in said


def test_an_artifact_of_another_stage_is_refused(
    group_options: dict[str, str], tmp_path: Path
) -> None:
    code, said = refused(f"--convert={group_options['flag']}", f"--out={tmp_path}")
    assert code == 19
    assert (
        "expected an artifact of convert, found one of flag. Give it as --flag."
        in json.loads(said.splitlines()[-1])["message"]
    )
