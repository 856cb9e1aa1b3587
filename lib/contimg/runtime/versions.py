"""What the bytes of a product depend on besides its inputs: the code reached, and the tools.

The code of a stage is every module of ours that it can import, directly or not. Comments,
docstrings and formatting do not count, so that texts can be corrected without making every
product again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROGRAMS = {"wsclean", "aoflagger"}
OURS = re.compile(r"contimg(_[a-z0-9]+)?\b")
"""Beginning of the names of modules whose code counts; those of other packages have versions."""
MODULE_TEXT = re.compile(r"(?P<module>[a-zA-Z_]\w*(\.\w+)*)(:\w+)?")
"""A text that names a module, or a function as ``module:function``."""


@functools.cache
def code_digest(*modules: str) -> str:
    """Return the sha256 over the code that modules can reach; ModuleNotFoundError without them.

    Imports are followed from `modules` through the packages contimg, contimg_NAME and those of
    `modules`, also inside functions, but not those for type checkers. A text such as
    ``"contimg_flag.casa:flag"`` counts as an import: child processes are given functions that way.
    """
    tops = {module.partition(".")[0] for module in modules}
    waiting, digests = list(modules), dict[str, str]()
    while waiting:
        module = waiting.pop()
        if module in digests or not (OURS.match(module) or module.partition(".")[0] in tops):
            continue
        path = module_path(module)
        if path is None:
            if module in modules:
                raise ModuleNotFoundError(module)
            continue
        digests[module], named = _read_module(module, path)
        waiting += [module.rpartition(".")[0], *named]
        if path.name == "__init__.py":
            digests |= _data_digests(module, path.parent)
    whole = "\n".join(f"{name} {digest}" for name, digest in sorted(digests.items()))
    return hashlib.sha256(whole.encode()).hexdigest()


@functools.cache
def module_path(module: str) -> Path | None:
    """Return the source file of a module, without importing it; None if it has none."""
    top, *parts = module.split(".")
    spec = find_spec(top) if top else None
    init = Path(spec.origin or "") if spec is not None else Path()
    if init.name != "__init__.py":  # a module outside of packages, if it is imported
        file = getattr(sys.modules.get(module), "__file__", None)
        return Path(file) if file else None
    place = init.parent.joinpath(*parts)
    found = (place / "__init__.py", *([place.with_suffix(".py")] if parts else []))
    return next((path for path in found if path.is_file()), None)


@functools.cache
def _read_module(module: str, path: Path) -> tuple[str, frozenset[str]]:
    """Return the digest of a module's code, and the names in it that may be modules."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    parts: list[str] = []
    named: set[str] = set()
    _read_node(ast.parse(path.read_bytes()), package, parts, named)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest(), frozenset(named)


def _read_node(node: Any, package: str, parts: list[str], named: set[str]) -> None:  # noqa: ANN401 - a node, a list of them, or a value
    """Append what a node says to `parts`, without positions and docstrings, and names of modules.

    Not `ast.dump`: its text differs between versions of Python.
    """
    if isinstance(node, list):
        for item in node:
            if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):
                _read_node(item, package, parts, named)
    elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        _read_node(node.orelse, package, parts, named)
    elif isinstance(node, ast.AST):
        if isinstance(node, ast.ImportFrom):  # other names of modules are texts, as below
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, [above, node.module]))
            named |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
        parts.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:  # versions of Python differ in empty fields
                parts.append(name)
                _read_node(value, package, parts, named)
    else:
        parts.append(repr(node))
        if isinstance(node, str) and (match := MODULE_TEXT.fullmatch(node)):
            named.add(match["module"])


def _data_digests(package: str, folder: Path) -> dict[str, str]:
    """Return the digests of files that are not Python: any module of the package may read them."""
    found: dict[str, str] = {}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue  # an editor's or a system's
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            found[f"{package}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            found |= _data_digests(f"{package}/{path.name}", path)
    return found


@functools.cache
def tool_version(tool: str) -> str:
    """Return the version of a program or a Python distribution; ``absent`` if not installed."""
    if tool not in PROGRAMS:
        try:
            return version(tool)
        except PackageNotFoundError:
            return "absent"
    path = shutil.which(tool)
    if path is None:
        return "absent"
    done = subprocess.run(  # noqa: S603 - a program of the list above
        [path, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    lines = (done.stdout + done.stderr).splitlines()
    found = (line.strip() for line in lines if "ersion" in line or tool in line.lower())
    return next(found, "unknown")
