"""Write the configuration of import-linter, from the packages that are in the repository.

imports.py    prints TOML; `make lint` gives it to lint-imports
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIB = ("contimg.astro", "contimg.records", "contimg.runtime")
"""The packages of lib; each imports only those to its right."""
ABOVE_STAGES = ("contimg_service", "contimg_workflows")
HEAVY = ("casatools", "casatasks", "casacore", "numba", "scipy", "h5py", "pyuvdata")
NOT_IN_LIB = ("casatools", "casatasks", "hera", "pyuvdata")
NOT_IN_SIMULATOR = tuple(
    f"contimg.astro.{name}" for name in ("coordinates", "predict", "gains", "measures")
)


def find_packages(root: Path) -> list[str]:
    """Return the names of the stages' packages, in alphabetical order."""
    return sorted(f"contimg_{path.parent.name}" for path in root.glob("stages/*/pyproject.toml"))


def write_config(root: Path) -> str:
    """Return the configuration: layers, and what some packages must not import.

    Raises
    ------
    SystemExit
        If there is no stage: the check would pass without checking anything.
    """
    stages = find_packages(root)
    if not stages:
        sys.exit(f"{root}/stages: There is no stage here. Run this in the repository.")
    above = [name for name in ABOVE_STAGES if (root / name.removeprefix("contimg_")).is_dir()]
    layers = [*above, " | ".join(stages), "contimg_runs", *LIB]
    contracts: list[dict[str, object]] = [
        {
            "name": "Imports point down only, and a stage never imports a stage",
            "type": "layers",
            "layers": layers,
        },
        {
            "name": "lib imports no CASA, no Hera and no pyuvdata",
            "type": "forbidden",
            "source_modules": ["contimg"],
            "forbidden_modules": NOT_IN_LIB,
        },
        {
            "name": "workflows and runs import no science",
            "type": "forbidden",
            "source_modules": [*above, "contimg_runs"],
            "forbidden_modules": HEAVY,
            "allow_indirect_imports": True,
        },
    ]
    if "contimg_simulate" in stages:
        contracts.append(
            {
                "name": "The simulator shares no beam, frame or prediction code with what it tests",
                "type": "forbidden",
                "source_modules": ["contimg_simulate"],
                "forbidden_modules": NOT_IN_SIMULATOR,
                "allow_indirect_imports": True,
            }
        )
    head = {
        "root_packages": ["contimg", "contimg_runs", *above, *stages],
        "include_external_packages": True,
    }
    lines = ["[tool.importlinter]", *_lines(head)]
    for contract in contracts:
        lines += ["", "[[tool.importlinter.contracts]]", *_lines(contract)]
    return "\n".join(lines) + "\n"


def _lines(table: dict[str, object]) -> list[str]:
    """Write one TOML table; JSON's strings, lists and truth values are TOML's as well."""
    return [f"{name} = {json.dumps(value)}" for name, value in table.items()]


if __name__ == "__main__":
    print(write_config(ROOT), end="")  # noqa: T201
