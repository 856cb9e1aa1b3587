"""CASA's calibrater tool, in a child; casatasks around it would only add 1.8 s of imports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from contimg.records.ms import FIXED_SHAPE_OPTION
from contimg.runtime.errors import SolveFailedError


def solve(ms: Path, table: Path, **arguments: Any) -> Path:  # noqa: ANN401
    """Solve one caltable; `arguments` are those of calibrater.setsolve (type, refant, …).

    Raises
    ------
    SolveFailedError
        If CASA finds no solution at all.
    """
    import casatools

    tool = casatools.calibrater()
    tool.open(str(ms), addcorr=False, addmodel=False)
    try:
        tool.selectvis()
        tool.setsolve(table=str(table), t="int", append=False, **arguments)
        tool.solve()
    finally:
        tool.close()
    if not (table / "table.dat").exists():
        problem = f"CASA found no solutions of type {arguments['type']}."
        raise SolveFailedError(ms.name, problem, "Look at the flags and at the model's flux.")
    original = table.rename(table.with_name(f"{table.name}.original"))
    rewrite_table(original, table)
    shutil.rmtree(original)
    return table


def read_reference_antenna(table: Path) -> str:
    """Return the antenna that most solutions refer to: CASA skips one that has no solution."""
    import casacore.tables as ct

    with ct.table(str(table), ack=False, lockoptions="usernoread") as solutions:
        used = solutions.getcol("ANTENNA2")
    with ct.table(f"{table}::ANTENNA", ack=False, lockoptions="usernoread") as antennas:
        return str(antennas.getcell("NAME", int(np.bincount(used[used >= 0]).argmax())))


def rewrite_table(source: Path, target: Path) -> None:
    """Copy a table and its subtables into columns of fixed shape; empty columns are dropped.

    Between arrays of variable shape casacore leaves random bytes.
    """
    import casacore.tables as ct

    with ct.table(str(source), ack=False, lockoptions="usernoread") as old:
        filled = [name for name in old.colnames() if old.nrows() and old.iscelldefined(name, 0)]
        kept = filled if old.nrows() else old.colnames()
        description = {name: old.getcoldesc(name) for name in kept}
        for name in filled:
            if description[name].get("ndim"):
                shape = list(np.shape(old.getcell(name, 0)))
                description[name].update(ndim=len(shape), shape=shape, option=FIXED_SHAPE_OPTION)
        with ct.table(str(target), description, nrow=old.nrows(), ack=False) as new:
            for name in filled:
                new.putcol(name, old.getcol(name))
            new.putinfo(old.info())
            for name, value in old.getkeywords().items():
                subtable = isinstance(value, str) and value.startswith("Table: ")
                if subtable:
                    rewrite_table(source / name, target / name)
                new.putkeyword(name, f"Table: {target / name}" if subtable else value)
