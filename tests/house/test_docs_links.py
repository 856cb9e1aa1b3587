"""What README and docs name exists: files, make targets, programs, commands, modules."""

import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from contimg_runs.pipelines import PIPELINES

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [*map(ROOT.joinpath, TOP), *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
STAGES = {path.parent.name for path in ROOT.glob("stages/*/pyproject.toml")}
COMMANDS = {point.name for point in entry_points(group="contimg.commands")}
PLACEHOLDERS = {"NAME", "COMMAND", "PIPELINE", "hello"}
NOT_PROGRAMS = {"runs", "ID-aN", "NAMESPACE", "preflight", "reprocess", "backfill", "UID"}
"""What follows `contimg-` in the names of distributions, objects and templates."""
RUNNABLE = {*PIPELINES, "all", "quicklook"}
"""`quicklook` is the example of a new pipeline."""
GENERATED = "docs/reference/"
"""Pages that docs/generate.py makes; `make docs` checks links to them."""

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
GATE = re.compile(r"\"([a-z]+(?:_[a-z]+)*): ")
"""A reason of a verdict begins with the name of its gate."""


MAKE = r"(?:^|\s)make ([a-z][a-z0-9-]*)"
PROGRAM = r"(?<![\w/.])contimg-([a-zA-Z][a-zA-Z-]*[a-zA-Z])(?![\w/.])"
COMMAND = r"(?:^|[\s/])contimg ([a-zA-Z][a-zA-Z-]*)"
FOLDERS = "tests|stages|runs/contimg_runs|workflows|lib|docs|images|scripts|charts|starters|\\.ci"
PATH = rf"(?<![\w/])((?:{FOLDERS})/[\w./-]*\w)(?!:|/?\*)"


def code(text: str) -> list[str]:
    """Return what stands in fences and between backticks, line by line, without comments."""
    fences = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    spans = SPAN.findall(FENCE.sub("", text))
    return [re.sub(r"\s#\s.*", "", line).strip() for line in [*fences, *spans]]


def anchor(heading: str) -> str:
    """Return the anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def links() -> Iterator[tuple[str, str]]:
    for page, text in TEXT.items():
        yield from ((page, link) for link in LINK.findall(FENCE.sub("", text)))


def makefile() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_links_lead_to_files_and_headings() -> None:
    broken = []
    for page, link in links():
        path, _, part = link.partition("#")
        target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        if "://" in link:
            wrong = not link.startswith("https://")
        elif not target.exists():
            wrong = not target.relative_to(ROOT).as_posix().startswith(GENERATED)
        else:
            text = target.read_text() if part else ""
            wrong = bool(part) and part not in map(anchor, HEADING.findall(text))
        if wrong:
            broken.append((page, link))
    assert broken == []


def has_file(path: str) -> bool:
    return (ROOT / path).exists() or bool(PLACEHOLDERS & set(re.split(r"[/_.]", path)))


def has_module(path: str) -> bool:
    """Say whether a dotted name is a module, or a name that a module defines."""
    if PLACEHOLDERS & set(re.split(r"[._]", path)):
        return True
    folders = [ROOT / "lib", ROOT / "runs", ROOT / "workflows", *ROOT.glob("stages/*")]
    for folder in folders:
        target = folder.joinpath(*path.split("."))
        module = target.parent.with_suffix(".py")
        if target.is_dir() or target.with_suffix(".py").is_file():
            return True
        if module.is_file():
            defined = rf"^(?:def |class )?{target.name}\b"
            return re.search(defined, module.read_text(), re.MULTILINE) is not None
    return False


@pytest.mark.parametrize(
    ("pattern", "exists"),
    [
        (MAKE, lambda name: name in makefile()),
        (PROGRAM, (STAGES | PLACEHOLDERS | NOT_PROGRAMS).__contains__),
        (COMMAND, (COMMANDS | PLACEHOLDERS).__contains__),
        (r"contimg run ([a-z][a-z-]*)", RUNNABLE.__contains__),
        (PATH, has_file),
        (r"(?<![\w./-])(contimg(?:_[a-z]+)?(?:\.[a-z_]+)+)(?![\w/-])", has_module),
    ],
    ids=["make", "program", "command", "pipeline", "file", "module"],
)
def test_named_things_exist(pattern: str, exists: Callable[[str], bool]) -> None:
    found = {
        (page, match)
        for page, text in TEXT.items()
        if page != "CHANGELOG.md"
        for line in code(text)
        for match in re.findall(pattern, line)
    }
    assert found, "the pattern finds nothing: it checks nothing"
    assert {item for item in found if not exists(item[1])} == set()


def test_pages_have_one_title_and_closed_fences() -> None:
    for page, text in TEXT.items():
        prose = FENCE.sub("", text)
        assert "```" not in prose, page
        assert text.startswith("# "), page
        assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1, page


def test_stage_pages_name_known_options_only() -> None:
    from contimg.runtime.stage import stage_specs

    unknown = []
    for name, spec in stage_specs().items():
        known = {"help", "config", *(f.replace("_", "-") for f in spec.options.model_fields)}
        pattern = rf"contimg-{name}((?: --[a-z][a-z-]*(?:[ =][^\s`]+)?)+)"
        lines = re.findall(pattern, "".join(TEXT.values()))
        used = {option for line in lines for option in re.findall(r"--([a-z][a-z-]*)", line)}
        unknown += [(name, option) for option in used - known]
    assert unknown == []


def test_every_gate_has_an_entry() -> None:
    names = {stage for pipeline in PIPELINES.values() for stage in pipeline.order} - {"report"}
    files = [path for one in names for path in ROOT.glob(f"stages/{one}/contimg_{one}/*.py")]
    texts = [path.read_text() for path in files if path.name != "options.py"]
    named = {name for text in texts for name in GATE.findall(text)}
    assert {"flux_scale", "primary_beam", "mirrored", "gain_step", "clock", "pointing"} <= named
    entry = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
    assert named <= set(entry.findall(TEXT["docs/how-to/verdicts.md"]))


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", text, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    assert explained == makefile() == phony
