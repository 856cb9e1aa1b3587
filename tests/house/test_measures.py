"""The measures that we hold ourselves to; a house rule is a test."""

from __future__ import annotations

import ast
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    chain(
        (ROOT / "lib/contimg").rglob("*.py"),
        ROOT.glob("stages/*/contimg_*/**/*.py"),
        ROOT.glob("workflows/contimg_*/**/*.py"),
    )
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    return [(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", _lines(node)) for node in found]


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    assert node.end_lineno is not None
    total = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        assert first.end_lineno is not None
        total -= first.end_lineno - first.lineno + 1
    return total


def count(paths: list[Path]) -> int:
    """Count lines of code: docstrings and comments, which sources have and tests need less, are not among them."""
    return sum(_code_lines(path) for path in paths)


def _code_lines(path: Path) -> int:
    text = path.read_text()
    strings = [
        n.value
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    ]
    documented = {
        number
        for s in strings
        if isinstance(s.value, str)
        for number in range(s.lineno, (s.end_lineno or 0) + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return sum(
        1
        for n, line in lines
        if line.strip() and not line.lstrip().startswith("#") and n not in documented
    )


def test_functions_are_small() -> None:
    lengths = dict(chain.from_iterable(functions(path) for path in SOURCES))
    too_long = {name: size for name, size in lengths.items() if size > 80}
    assert not too_long
    assert median(lengths.values()) <= 16
    assert quantiles(lengths.values(), n=10)[-1] <= 40


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_tests_are_as_long_as_the_source() -> None:
    assert count(TESTS) >= count(SOURCES)


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    names = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
        if handler.type
        else {"Exception"}
    )
    return "Exception" in names or ("BaseException" in names and not _raises(handler))


def _raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_errors_are_swallowed_nowhere() -> None:
    catchers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node)
    ]
    assert len(catchers) == 1, catchers
    assert catchers[0].startswith("lib/contimg/contract.py")


# The contract reads it for the stages; the engine for the processes that it starts.
READERS = {"lib/contimg/contract.py"}


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }
    assert readers <= READERS


def test_nothing_is_called_utils() -> None:
    assert not [
        path
        for path in SOURCES
        if path.stem in {"utils", "helpers", "misc", "common"} or path.stem.endswith("_v2")
    ]
