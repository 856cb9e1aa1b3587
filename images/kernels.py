"""Compiled functions that an image brings along, so that pods need not compile them.

kernels.py record CACHE    write kernels.json: the functions and types in numba's cache after a run
kernels.py compile STAGE   compile those of STAGE, and lib's, into NUMBA_CACHE_DIR
The code serves processors like the one that compiled it; on others, numba compiles as usual.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import pkgutil
import sys
from pathlib import Path
from typing import Any

import contimg

LIST = Path(__file__).with_name("kernels.json")
Spelled = str | list[Any] | dict[str, Any]
"""A type: "float64"; "float32 2C", an array with dimensions and layout; a list, a tuple of these;
{class: list}, a named tuple."""


def import_types() -> Any:  # noqa: ANN401 - its annotations lack half of it
    """Return numba's types; the import takes a second."""
    return importlib.import_module("numba.core.types")


def write_type(kind: object) -> Spelled:
    """Return a type of numba's as the list has it.

    Raises
    ------
    TypeError
        If the list has no word for it.
    """
    known = import_types()
    if isinstance(kind, known.Array) and kind.mutable and kind.aligned:
        return f"{kind.dtype} {kind.ndim}{kind.layout}"
    if isinstance(kind, known.NamedTuple | known.NamedUniTuple):
        made = kind.instance_class
        return {f"{made.__module__}.{made.__qualname__}": [write_type(part) for part in kind.types]}
    if isinstance(kind, known.BaseTuple):
        return [write_type(part) for part in kind.types]
    if isinstance(kind, known.Number | known.Boolean):
        return str(kind)
    raise TypeError(f"images/kernels.py has no word for numba's type {kind!r}: add one")


def read_type(word: Spelled) -> object:
    """Return the type that `write_type` wrote."""
    known = import_types()
    if isinstance(word, list):
        return known.BaseTuple.from_types([read_type(part) for part in word])
    if isinstance(word, dict):
        ((name, parts),) = word.items()
        return known.BaseTuple.from_types([read_type(part) for part in parts], import_name(name))
    name, _, shape = word.partition(" ")
    scalar = known.boolean if name == "bool" else getattr(known, name)
    return known.Array(scalar, int(shape[:-1]), shape[-1]) if shape else scalar


def read_signatures(cache: Path) -> dict[str, list[Spelled]]:
    """Return the types of each function of ours that a cache of numba's holds compiled."""
    found: dict[str, list[Spelled]] = {}
    # numba names the folder of a module by the last part of its package.
    lib = {item.name: f"contimg.{item.name}" for item in pkgutil.iter_modules(contimg.__path__)}
    for index in cache.glob("*/*.nbi"):
        folder, function = index.parent.name.rpartition("_")[0], index.name.split("-")[0]
        package = lib.get(folder, folder)
        if not package.startswith("contimg"):
            continue
        with index.open("rb") as file:
            pickle.load(file)  # noqa: S301 - numba's version; numba itself has just written it
            _stamp, overloads = pickle.loads(file.read())  # noqa: S301 - as above
        found.setdefault(f"{package}.{function}", []).extend(
            [write_type(kind) for kind in key[0]] for key in overloads
        )
    return {name: sorted(found[name], key=str) for name in sorted(found)}


def import_name(name: str) -> Any:  # noqa: ANN401 - a function or a class
    """Return what a module holds, by its full name."""
    module, _, inside = name.rpartition(".")
    return getattr(importlib.import_module(module), inside)


def format_list(found: dict[str, list[Spelled]]) -> str:
    """Write the list, with the types of one function in a line."""
    lines = (f" {json.dumps(name)}: {json.dumps(found[name])}" for name in found)
    return "{\n" + ",\n".join(lines) + "\n}\n"


def compile_for(stage: str) -> int:
    """Compile the listed functions of a stage and of lib; return how many there were."""
    ours = {"contimg", f"contimg_{stage}"}
    listed = {
        name: kinds
        for name, kinds in json.loads(LIST.read_text()).items()
        if name.split(".")[0] in ours
    }
    if (
        not any(name.startswith(f"contimg_{stage}.") for name in listed)
        or importlib.util.find_spec("numba") is None
    ):
        return 0
    for name, kinds in listed.items():
        for arguments in kinds:
            import_name(name).compile(tuple(map(read_type, arguments)))
    return len(listed)


if __name__ == "__main__":
    if sys.argv[1] == "record":
        LIST.write_text(format_list(read_signatures(Path(sys.argv[2]))))
    else:
        print(f"{compile_for(sys.argv[2])} functions compiled")  # noqa: T201
