"""CASA offline and silent: a private folder of casacore's measures with today's Earth orientation, and the environment for it.

The wheel casadata is 844 MB and stale: its predictions of UT1 end, after which CASA silently takes UT1 = UTC (0.05 s wrong,
0.8 arcsec, by the end of 2026), and it warns at every use. This module copies the 61 MB that calibrating and imaging need and
writes the Earth orientation of astropy-iers-data into the copy, so that CASA, astropy and contimg agree.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.coordinates import earth_orientation
from contimg.runtime.blas_env import LINEAR_ALGEBRA
from contimg.runtime.errors import BadInputError, NoRoomError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

RECIPE = 1
"""Version of what `_build` does; another one makes another folder."""
COPIED = (
    "geodetic",
    "nrao",
    "ephemerides/DE200",
    "ephemerides/DE405",
    "ephemerides/Lines",
    "ephemerides/Sources",
)
"""Of casadata: Earth orientation and observatories, flux standards, planets and line rest frequencies."""
EXPECTED = ("alma", "catalogs", "demo", "ephemerides", "geodetic", "gui", "nrao")
"""CASA complains unless its data folder has these; they may be empty."""
ROOM = 80_000_000
"""Bytes that the folder takes, with some to spare."""
CONFIG = """\
measurespath = {measures!r}
datapath = [measurespath]
measures_auto_update = False
data_auto_update = False
telemetry_enabled = False
logfile = "/dev/null"
log2term = False
nologger = True
nogui = True
agg = True
"""


def casa_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment for a child that imports CASA: offline, silent, one thread.

    Parameters
    ----------
    env
        The environment of this process, which is not read otherwise. ``CONTIMG_MEASURES`` says where the measures folder is
        kept (by default in a folder of this user's in the temporary folder); ``TMPDIR`` and ``HOME`` mean what they always do.

    Raises
    ------
    BadInputError, NoRoomError
        If casadata is not installed, or there is no room for the copy.
    """
    own = _own_folder(env)
    chosen = env.get("CONTIMG_MEASURES")
    folder = measures_folder(_folder(Path(chosen).absolute()) if chosen else own)
    # Without .pyc files the import of casatasks takes 5.5 s instead of 2.2 s and prints warnings.
    made = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Not below CONTIMG_MEASURES: that may be baked into an image whose root is read-only.
    made |= {
        **LINEAR_ALGEBRA,
        "CASASITECONFIG": str(folder / "casasiteconfig.py"),
        "MPLCONFIGDIR": str(_folder(own / "matplotlib")),
        "MPLBACKEND": "Agg",
    }
    home = env.get("HOME", "")
    if not (home and os.access(home, os.W_OK)):
        made["HOME"] = str(_folder(own / "home"))
    return made


def measures_folder(root: Path) -> Path:
    """Return the measures folder below `root`; build it if it is not there.

    Its name tells the versions of what it is made of. It appears whole, by one rename; of several who build at once one wins
    and the others take the winner's. It is never changed afterwards.
    """
    folder = root / f"measures-{RECIPE}-{_version('casadata')}-{_version('astropy-iers-data')}"
    if not folder.is_dir():
        _build_aside(folder)
    return folder


def _own_folder(env: Mapping[str, str]) -> Path:
    """Return this user's folder in the temporary folder."""
    # The user's number keeps users of one machine apart, and is checked: anyone may make folders in /tmp.
    own = _folder(
        Path(env.get("TMPDIR") or tempfile.gettempdir()).absolute() / f"contimg-{os.getuid()}"
    )
    if own.stat().st_uid != os.getuid():
        raise BadInputError(
            str(own),
            "expected a folder of this user, found another user's.",
            "Set TMPDIR to a folder of yours.",
        )
    return own


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoRoomError(
            str(path),
            f"expected a writable folder, found {error!s}.",
            "Set CONTIMG_MEASURES to one.",
        ) from error
    return path


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError as error:
        raise BadInputError(
            "this Python",
            f"expected {distribution}, found none.",
            f"Install {distribution}; CASA has no data without it.",
        ) from error


def _build_aside(folder: Path) -> None:
    room = shutil.disk_usage(folder.parent).free
    if room < ROOM:
        remedy = "Free space, or set CONTIMG_MEASURES to a folder with more."
        raise NoRoomError(
            str(folder.parent),
            f"expected {ROOM / 1000000.0:.0f} MB free, found {room / 1000000.0:.0f} MB.",
            remedy,
        )
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as aside:
        part = Path(aside) / "measures"
        _build(part, folder)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first; its folder is the same
                raise


def _build(part: Path, final: Path) -> None:
    spec = find_spec("casadata")
    if spec is None or spec.origin is None:
        raise BadInputError(
            "this Python",
            "expected casadata, found none.",
            "Install casadata; CASA has no data without it.",
        )
    source = Path(spec.origin).parent / "__data__"
    for name in EXPECTED:
        (part / name).mkdir(parents=True)
    for name in COPIED:
        # Modes are not copied: the source may be read-only.
        shutil.copytree(
            source / name, part / name, dirs_exist_ok=True, copy_function=shutil.copyfile
        )
    renew(part / "geodetic")
    (part / "casasiteconfig.py").write_text(CONFIG.format(measures=str(final)))


def renew(geodetic: Path) -> None:
    """Write the installed Earth orientation into casacore's tables, and say that the leap seconds are good.

    CASA takes IERSeop97 (IERSeop2000) for dates that it has and IERSpredict for later ones; their overlapping rows are
    rewritten, because the last months of either were preliminary or predicted when casadata was made.
    """
    table = earth_orientation()
    mjd = np.asarray(table["MJD"].value, np.float64)
    values = {
        "x": table["PM_x"].to_value("arcsec"),
        "y": table["PM_y"].to_value("arcsec"),
        "dUT1": table["UT1_UTC"].to_value("s"),
    }
    for name in ("IERSeop97", "IERSeop2000", "IERSpredict"):
        _rewrite(geodetic / name, mjd, values, append=name == "IERSpredict")
    # casacore finds the table out of date 180 days after this. It holds at least to the expiry of the list that we have.
    expiry = _leap_second_expiry()
    _with_table(geodetic / "TAI_UTC", lambda leap: leap.putkeyword("VS_DATE", expiry))


def _rewrite(
    path: Path, mjd: FloatArray, values: Mapping[str, FloatArray], *, append: bool
) -> None:
    def change(table: Any) -> None:  # noqa: ANN401 - python-casacore has no types
        held = table.getcol("MJD")
        both = np.isin(held, mjd)
        at = np.searchsorted(mjd, held[both])
        for name, value in values.items():
            column = table.getcol(name)
            column[both] = value[at]
            table.putcol(name, column)
        if append:
            _append(table, mjd, values, mjd > held[-1])

    _with_table(path, change)


def _append(
    table: Any,  # noqa: ANN401
    mjd: FloatArray,
    values: Mapping[str, FloatArray],
    new: npt.NDArray[np.bool_],
) -> None:
    start, count = table.nrows(), int(np.count_nonzero(new))
    if not count:
        return
    table.addrows(count)
    for name in table.colnames():
        # Errors and nutation offsets are not used by CASA's defaults; zero is what casadata writes for predictions.
        source = mjd if name == "MJD" else values.get(name, np.zeros_like(mjd))
        table.putcol(name, source[new], start, count)


def _with_table(path: Path, change: Any) -> None:  # noqa: ANN401 - a function of a table
    from casacore import tables

    table = tables.table(str(path), readonly=False, ack=False)
    try:
        change(table)
    finally:
        table.close()


def _leap_second_expiry() -> str:
    import astropy_iers_data
    from astropy.utils.iers import LeapSeconds

    expires = LeapSeconds.open(astropy_iers_data.IERS_LEAP_SECOND_FILE).expires
    return str(expires.strftime("%Y/%m/%d/%H:%M"))
