"""Rules about the source that ruff does not know."""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(chain(ROOT.glob("*/contimg*/"), ROOT.glob("stages/*/contimg*/")))
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for package in PACKAGES
    for path in sorted(package.rglob("*.py"))
}
PAGES = sorted((ROOT / "docs").rglob("*.md"))
STAGES = sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml"))
CONTRACT = "lib/contimg/runtime/contract.py"
MAX_DUPLICATE_CLASSES = 3
ADJECTIVES = {"MANY", "FEW", "ENOUGH", "MOST", "WORST", "BEST", "LEAST", "AGAIN", "RIGHT", "WRONG"}
"""Words that say nothing about a constant without a noun."""
BANNED = r"(?:which|that|it) is none\b|nobody|anew|\blest\b|blame|nouns|\brooms\b|\bminds\b"
BANNED += r"|\bbears?\b"
"""Words and phrases that readers had to decode."""


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path, tree in SOURCES.items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, kind))


def tracked() -> list[Path]:
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_class_names_are_unique() -> None:
    files = defaultdict(set)
    for path, node in nodes(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        files[node.name].add(path)
    twice = {name: sorted(paths) for name, paths in files.items() if len(paths) > 1}
    assert len(twice) <= MAX_DUPLICATE_CLASSES, twice


def constants() -> Iterator[tuple[str, str, object]]:
    """Yield file, name and value of every module-level constant; None if it is not a literal."""
    for path, tree in SOURCES.items():
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [one.id for one in targets if isinstance(one, ast.Name)]
                value = getattr(node.value, "value", None)
                yield from ((path, name, value) for name in names if name.isupper())


def test_constants_are_nouns() -> None:
    found = [(path, name) for path, name, _ in constants() if name.strip("_") in ADJECTIVES]
    assert found == []


def test_physical_constants_are_defined_once() -> None:
    # Four significant digits or more: not equal by chance. The simulator shares none on purpose.
    places = defaultdict(set)
    for path, name, value in constants():
        text = f"{value:.15g}" if isinstance(value, float) else ""
        digits = text.partition("e")[0].replace(".", "").strip("0")
        if len(digits) >= 4 and not path.startswith("stages/simulate/"):
            places[value].add(f"{path}:{name}")
    twice = [sorted(found) for found in places.values() if len(found) > 1]
    assert twice == []


def test_one_place_catches_every_exception() -> None:
    found = []
    for path, node in nodes(ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        kind = node.type or ast.Name("Exception")
        caught = {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)}
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        if "Exception" in caught or ("BaseException" in caught and not raises):
            found.append(path)
    assert found == [CONTRACT]


def test_one_module_reads_the_environment() -> None:
    names = ((path, getattr(node, "attr", "")) for path, node in nodes(ast.Attribute))
    assert {path for path, name in names if name in {"environ", "getenv"}} <= {CONTRACT}


def test_modules_are_nouns() -> None:
    names = {Path(path).stem for path in SOURCES}
    assert names & {"utils", "helpers", "misc", "common"} == set()
    assert [name for name in names if name.endswith("_v2")] == []


def test_texts_are_plain() -> None:
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in PAGES]
    for path, node in nodes(ast.Constant):  # docstrings and messages
        value = getattr(node, "value", None)
        texts += [(path, value)] if isinstance(value, str) else []
    found = [(path, re.findall(BANNED, text, re.IGNORECASE)) for path, text in texts]
    assert [item for item in found if item[1]] == []


LISTS_ALLOWED = ("stages/", "docs/", "README.md", "CHANGELOG.md", "charts/contimg/rendered/")
LISTS_ALLOWED += ("runs/contimg_runs/pipelines.py",)
WINDOW = 6
"""Lines within which five names of stages are a list."""
HERE = Path(__file__).relative_to(ROOT).as_posix()


def test_list_of_stages_exists_once() -> None:
    # As data: in quotes, as keys, or in a list of words.
    names = "|".join(STAGES)
    named = re.compile(rf"(?<=[\"'`,|({{ /])(?:contimg[-_])?({names})(?=[\"'`,|)}}:])")
    copies = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(LISTS_ALLOWED) or path.suffix in {".png", ".parquet", ".lock", ".json"}:
            continue
        lines = [set(named.findall(line)) for line in path.read_text(errors="ignore").splitlines()]
        windows = (set().union(*lines[start : start + WINDOW]) for start in range(len(lines)))
        found = next((window for window in windows if len(window) >= 5), None)
        copies += [(name, sorted(found))] if found else []
    assert copies == []


OUTSIDE = r"\.\./shared|(?<![\w.])/work/|/home/(?!ubuntu/data)\w|/root/"
OUTSIDE += r"|(?:science|measured|house|conventions|faults)\.md"
OUTSIDE_ALLOWED = {".ci/run", "images/build", HERE}
"""They use what lies beside the repository if it is there."""


def test_no_text_names_files_outside_the_repository() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}"
        for path in tracked()
        if path.suffix not in {".png", ".parquet", ".lock"}
        and path.relative_to(ROOT).as_posix() not in OUTSIDE_ALLOWED
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1)
        if re.search(OUTSIDE, line)
    ]
    assert found == []


def test_comments_name_existing_pages() -> None:
    found = [
        (path.relative_to(ROOT).as_posix(), page)
        for path in tracked()
        if path.suffix in {".py", ".md", ".yaml", ".tpl", ".sh", ".toml"}
        for page in re.findall(r"(?<!its )\bdocs/[a-z/-]+\.md", path.read_text())
        if not (ROOT / page).exists() and not page.endswith("hello.md")
    ]
    assert found == []
