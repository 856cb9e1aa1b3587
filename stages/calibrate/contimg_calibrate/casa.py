"""CASA's solver on small Measurement Sets; runs in a child. The calibrater tool itself: casatasks only adds 1.8 s of imports."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.records.ms import Rows, create
from contimg.runtime.errors import SolveFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from contimg.records.ms import MSHeader

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

FIXED_SHAPE = 5
"""casacore's ColumnDesc::Direct | FixedShape."""


@dataclass(frozen=True)
class Solvable:
    """Data over model, as CASA is given it: data X/Y, model 1, weight Y."""

    times_s: FloatArray
    """Shape (R,); rows of one time are one solution."""
    interval_s: float
    ant1: IntArray
    ant2: IntArray
    top: npt.NDArray[np.complex64]
    """X, shape (R, C, P)."""
    bottom: npt.NDArray[np.float32]
    """Y, the inverse variance of the real part of X/Y; 0 where there are no data."""


@dataclass(frozen=True)
class Limits:
    """What every solve is told."""

    refant: str
    minsnr: float
    minblperant: int


def write_solvable(path: Path, header: MSHeader, freq_hz: FloatArray, given: Solvable) -> None:
    """Write a Measurement Set for one solve: DATA = X/Y, MODEL_DATA = 1, WEIGHT and WEIGHT_SPECTRUM = Y."""
    data = np.divide(given.top, given.bottom, out=np.zeros_like(given.top), where=given.bottom > 0)
    bottom = given.bottom
    filled = np.count_nonzero(bottom > 0, axis=1)
    weight = np.divide(
        bottom.sum(axis=1), filled, out=np.zeros(filled.shape, np.float32), where=filled > 0
    )
    still = replace(header, frequencies_hz=freq_hz, channel_width_hz=_width(freq_hz, header))
    count = given.times_s.size
    rows = Rows(
        given.times_s,
        np.full(count, given.interval_s),
        given.ant1.astype(np.int32),
        given.ant2.astype(np.int32),
        np.zeros((count, 3)),
        weight.astype(np.float32),
    )
    with create(path, still, rows, ("DATA", "MODEL_DATA", "WEIGHT_SPECTRUM")) as writer:
        model = np.ones_like(data)
        writer.put(
            0, {"DATA": data, "MODEL_DATA": model, "WEIGHT_SPECTRUM": bottom, "FLAG": bottom <= 0}
        )


def _width(freq_hz: FloatArray, header: MSHeader) -> float:
    return (
        header.channel_width_hz
        if freq_hz.size > 1
        else header.channel_width_hz * len(header.frequencies_hz)
    )


def solve(
    ms: Path,
    table: Path,
    limits: Limits,
    apply: Sequence[Path] = (),
    **solving: Any,  # noqa: ANN401
) -> Path:
    """Solve one caltable; `solving` are the arguments of calibrater.setsolve (type, apmode, solnorm, …).

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
        for path in apply:
            tool.setapply(table=str(path), interp="linear", calwt=False)
        tool.setsolve(
            table=str(table),
            refant=limits.refant,
            minsnr=limits.minsnr,
            minblperant=limits.minblperant,
            t="int",
            append=False,
            **solving,
        )
        tool.solve()
    finally:
        tool.close()
    if not (table / "table.dat").exists():
        raise SolveFailedError(
            ms.name,
            f"expected solutions of type {solving['type']}, found none.",
            "Look at the flags and at the model's flux.",
        )
    _settle(table)
    return table


def reference(table: Path) -> str:
    """Return the name of the antenna that most solutions of a caltable refer to: CASA passes over one that has none."""
    import casacore.tables as ct

    with ct.table(str(table), ack=False, lockoptions="usernoread") as solutions:
        used = solutions.getcol("ANTENNA2")
    with ct.table(f"{table}::ANTENNA", ack=False, lockoptions="usernoread") as antennas:
        return str(antennas.getcell("NAME", int(np.bincount(used[used >= 0]).argmax())))


def _settle(path: Path) -> None:
    """Write a caltable anew in columns of fixed shape, where casacore leaves no random bytes between arrays."""
    loose = path.with_name(f"{path.name}.loose")
    path.rename(loose)
    _write_anew(loose, path)
    shutil.rmtree(loose)


def _write_anew(loose: Path, path: Path) -> None:
    """Copy a table and its subtables; a column without values is left out."""
    import casacore.tables as ct

    with ct.table(str(loose), ack=False, lockoptions="usernoread") as old:
        filled = [name for name in old.colnames() if old.nrows() and old.iscelldefined(name, 0)]
        description = {
            name: old.getcoldesc(name) for name in (filled if old.nrows() else old.colnames())
        }
        for name in filled:
            if description[name].get("ndim"):
                shape = list(np.shape(old.getcell(name, 0)))
                description[name].update(ndim=len(shape), shape=shape, option=FIXED_SHAPE)
        with ct.table(str(path), description, nrow=old.nrows(), ack=False) as new:
            for name in filled:
                new.putcol(name, old.getcol(name))
            new.putinfo(old.info())
            for name, value in old.getkeywords().items():
                subtable = isinstance(value, str) and value.startswith("Table: ")
                if subtable:
                    _write_anew(loose / name, path / name)
                new.putkeyword(name, f"Table: {path / name}" if subtable else value)
