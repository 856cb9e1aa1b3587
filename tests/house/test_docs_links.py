"""What README and docs name is there: files, make targets, programs, commands, options, tests."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from contimg_runs.pipelines import PIPELINES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
STAGES = {
    folder.name for folder in (ROOT / "stages").iterdir() if (folder / "pyproject.toml").is_file()
}
COMMANDS = {point.name for point in entry_points(group="contimg.commands")}
PLACEHOLDERS = {"NAME", "COMMAND", "CMD"}
NO_PROGRAMS = {"workflows", "runs", "flags", "UID", "ID-aN", "NAMESPACE", "preflight"}
"""What follows `contimg-` in names of a distribution, of folders, of a file's first line and of a cluster's objects."""
"""The figures, and what goes with them, are still to be measured."""

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def code(text: str) -> list[str]:
    """Return what stands in fences and between backticks, line by line, without comments."""
    fences = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    spans = SPAN.findall(FENCE.sub("", text))
    return [re.sub(r"\s#\s.*", "", line).strip() for line in [*fences, *spans]]


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def found(pattern: str) -> list[tuple[str, str]]:
    return sorted(
        {
            (page, match)
            for page, text in TEXT.items()
            for line in code(text)
            for match in re.findall(pattern, line)
        }
    )


def links() -> list[tuple[str, str]]:
    return sorted(
        {(page, link) for page, text in TEXT.items() for link in LINK.findall(FENCE.sub("", text))}
    )


def makefile() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("page", "link"), [item for item in links() if "://" not in item[1]])
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    path, _, part = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists(), f"{page} links to {link}"
    assert target.resolve().is_relative_to(ROOT), f"{page} links out of the repository"
    if part:
        assert part in {anchor(heading) for heading in HEADING.findall(target.read_text())}


def test_what_is_elsewhere_is_named_securely() -> None:
    assert [
        item for item in links() if "://" in item[1] and not item[1].startswith("https://")
    ] == []


@pytest.mark.parametrize(("page", "target"), found(r"(?:^|\s)make ([a-z][a-z0-9-]*)"))
def test_a_make_target_is_one(page: str, target: str) -> None:
    assert target in makefile(), page


@pytest.mark.parametrize(("page", "name"), found(r"contimg-([a-zA-Z][a-zA-Z-]*[a-zA-Z])(?![\w/.])"))
def test_a_program_is_one(page: str, name: str) -> None:
    assert name in STAGES | PLACEHOLDERS | NO_PROGRAMS, page


@pytest.mark.parametrize(("page", "name"), found(r"(?:^|[\s/])contimg ([a-zA-Z][a-zA-Z-]*)"))
def test_a_command_is_one(page: str, name: str) -> None:
    assert name in COMMANDS | PLACEHOLDERS, page


@pytest.mark.parametrize(("page", "name"), found(r"contimg run ([a-z][a-z-]*)"))
def test_a_pipeline_is_one(page: str, name: str) -> None:
    assert name in {*PIPELINES, "all"}, page


@pytest.mark.parametrize(
    ("page", "path"), found(r"(?<![\w/])((?:tests|stages|workflows|lib|docs|\.ci)/[\w./-]*\w)")
)
def test_a_file_of_the_repository_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists() or _is_example(path), page


def _is_example(path: str) -> bool:
    return bool(PLACEHOLDERS & set(re.split(r"[/_.]", path)))


@pytest.mark.parametrize(("page", "test"), found(r"(tests/[\w/]+\.py::\w+)"))
def test_a_test_that_is_named_exists(page: str, test: str) -> None:
    path, _, name = test.partition("::")
    assert re.search(rf"^\s*(?:def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE), page


@pytest.mark.parametrize(
    ("page", "module"), found(r"(?<![\w./-])(contimg(?:_[a-z]+)?(?:\.[a-z_]+)+)(?![\w/-])")
)
def test_a_module_is_there(page: str, module: str) -> None:
    package, *parts = module.split(".")
    rooms = [ROOT / "lib", ROOT / "workflows", *ROOT.glob("stages/*")]
    folder = next((room / package for room in rooms if (room / package).is_dir()), None)
    assert folder is not None, page
    assert (
        folder.joinpath(*parts).is_dir()
        or folder.joinpath(*parts).with_suffix(".py").is_file()
        or _defines(folder, parts)
    )


def _defines(folder: Path, parts: list[str]) -> bool:
    """Say whether the last part is a name in the module that the others are."""
    module = folder.joinpath(*parts[:-1]).with_suffix(".py")
    return (
        module.is_file()
        and re.search(rf"^(?:def |class )?{parts[-1]}\b", module.read_text(), re.MULTILINE)
        is not None
    )


@pytest.mark.parametrize("page", TEXT)
def test_a_page_has_one_title_and_closed_fences(page: str) -> None:
    prose = FENCE.sub("", TEXT[page])
    assert "```" not in prose
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    assert TEXT[page].startswith("# ")


@pytest.mark.parametrize("page", [page for page in TEXT if page != "README.md"])
def test_no_page_is_lost(page: str) -> None:
    # Every page can be reached from the front.
    others = [(source, link) for source, link in links() if "://" not in link and source != page]
    assert any(
        ((ROOT / source).parent / link.partition("#")[0]).resolve() == ROOT / page
        for source, link in others
    )


def test_no_page_names_a_machine_s_own_paths() -> None:
    for page, text in TEXT.items():
        assert not re.search(r"/work/|/home/\w|/root/|localhost:\d", text), page


def test_help_of_make_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", text, re.MULTILINE))
    assert (
        explained
        == makefile()
        == set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    )
