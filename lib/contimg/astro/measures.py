"""CASA offline and silent: a private copy of casacore's measures with current Earth orientation.

The wheel casadata is 844 MB and stale: its predictions of UT1 end, after which CASA silently takes
UT1 = UTC (0.05 s wrong, 0.8 arcsec, by the end of 2026), and it warns at every use. This module
copies the 61 MB that calibrating and imaging need and writes the Earth orientation of
astropy-iers-data into the copy, so that CASA, astropy and contimg agree.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from contimg.astro.coordinates import earth_orientation
from contimg.runtime import child
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoRoomError

RECIPE_VERSION = 1
"""Version of how the folder is made; another one makes another folder."""
EPHEMERIDES = tuple(f"ephemerides/{name}" for name in ("DE200", "DE405", "Lines", "Sources"))
COPIED_FOLDERS = ("geodetic", "nrao", *EPHEMERIDES)
"""Of casadata: Earth orientation, observatories, flux standards, planets, rest frequencies."""
CASA_FOLDERS = ("alma", "catalogs", "demo", "ephemerides", "geodetic", "gui", "nrao")
"""CASA complains unless its data folder has these; they may be empty."""
FOLDER_BYTES = 80_000_000
"""Size of the folder, rounded up."""
NO_DATA = "{} is not installed; CASA has no data without it."
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


def call_casa(context: Context, function: str, timeout_s: float, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
    """Call ``module:function`` in a child Python with CASA offline; all values are JSON."""
    log = context.scratch / "casa.log"
    return child.call(function, arguments, log, timeout_s, casa_environment(context.env))


def casa_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment for a child that imports CASA: offline, silent, one thread.

    `env` is that of this process. Its ``CONTIMG_MEASURES`` is the folder for the measures, by
    default one of this user's in the temporary folder. Raises BadInputError if casadata is not
    installed, NoRoomError if there is no room for the copy.
    """
    # One folder a user, whose owner is checked: anyone may make folders in /tmp.
    temporary = Path(env.get("TMPDIR") or tempfile.gettempdir()).absolute()
    own = _make_folder(temporary / f"contimg-{os.getuid()}")
    if own.stat().st_uid != os.getuid():
        problem = "This folder belongs to another user."
        raise BadInputError(str(own), problem, "Set TMPDIR to a folder of yours.")
    chosen = env.get("CONTIMG_MEASURES")
    folder = measures_folder(_make_folder(Path(chosen).absolute()) if chosen else own)
    # Without .pyc files the import of casatasks takes 5.5 s, not 2.2 s, and prints warnings.
    made = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    made |= child.LINEAR_ALGEBRA | {"CASASITECONFIG": str(folder / "casasiteconfig.py")}
    # Not below CONTIMG_MEASURES: that may be part of an image whose root is read-only.
    made |= {"MPLCONFIGDIR": str(_make_folder(own / "matplotlib")), "MPLBACKEND": "Agg"}
    if not os.access(env.get("HOME") or "/nowhere", os.W_OK):
        made["HOME"] = str(_make_folder(own / "home"))
    return made


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"The folder cannot be made: {error}."
        raise NoRoomError(str(path), problem, "Set CONTIMG_MEASURES to a writable one.") from error
    return path


def measures_folder(root: Path) -> Path:
    """Return the measures folder below `root`; build it if it does not exist.

    Its name has the versions of its sources. It appears whole, by one rename; of several processes
    that build it one succeeds, and the others use its folder. It is never changed afterwards.
    """
    try:
        versions = [version(name) for name in ("casadata", "astropy-iers-data")]
    except PackageNotFoundError as error:
        problem, remedy = NO_DATA.format(error.name), f"Install {error.name}."
        raise BadInputError("this Python", problem, remedy) from error
    folder = root / "-".join(["measures", str(RECIPE_VERSION), *versions])
    if folder.is_dir():
        return folder
    spec = find_spec("casadata")
    if spec is None or spec.origin is None:
        raise BadInputError("this Python", NO_DATA.format("casadata"), "Install casadata.")
    free = shutil.disk_usage(root).free
    if free < FOLDER_BYTES:
        problem = f"{FOLDER_BYTES / 1e6:.0f} MB are needed, but {free / 1e6:.0f} MB are free."
        remedy = "Free space, or set CONTIMG_MEASURES to a folder with more."
        raise NoRoomError(str(root), problem, remedy)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=root) as temporary:
        source, part = Path(spec.origin).parent / "__data__", Path(temporary) / "measures"
        for name in CASA_FOLDERS:
            (part / name).mkdir(parents=True)
        for name in COPIED_FOLDERS:
            # Modes are not copied: the source may be read-only.
            copy = {"dirs_exist_ok": True, "copy_function": shutil.copyfile}
            shutil.copytree(source / name, part / name, **copy)  # type: ignore[arg-type]
        renew(part / "geodetic")
        (part / "casasiteconfig.py").write_text(CONFIG.format(measures=str(folder)))
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first with the same folder
                raise
    return folder


def renew(geodetic: Path) -> None:
    """Write the installed Earth orientation and the expiry of leap seconds into casacore's tables.

    CASA takes IERSeop97 (IERSeop2000) for the dates in it and IERSpredict for later ones; their
    overlapping rows are rewritten, because the last months of either were preliminary or predicted
    when casadata was made.
    """
    import astropy_iers_data
    from astropy.utils.iers import LeapSeconds
    from casacore import tables

    orientation = earth_orientation()
    mjd = np.asarray(orientation["MJD"].value, np.float64)
    sources = (("x", "PM_x", "arcsec"), ("y", "PM_y", "arcsec"), ("dUT1", "UT1_UTC", "s"))
    values = {name: orientation[source].to_value(unit) for name, source, unit in sources}
    for name in ("IERSeop97", "IERSeop2000", "IERSpredict"):
        with tables.table(str(geodetic / name), readonly=False, ack=False) as table:
            held = table.getcol("MJD")
            both, new = np.isin(held, mjd), mjd > held[-1]
            for column, value in values.items():
                content = table.getcol(column)
                content[both] = value[np.searchsorted(mjd, held[both])]
                table.putcol(column, content)
            if name == "IERSpredict" and new.any():
                table.addrows(int(np.count_nonzero(new)))
                for column in table.colnames():
                    # CASA does not use errors and nutation; casadata has zeros in predictions.
                    source = mjd if column == "MJD" else values.get(column, np.zeros_like(mjd))
                    table.putcol(column, source[new], held.size, int(np.count_nonzero(new)))
    # casacore finds leap seconds out of date 180 days after this.
    expires = LeapSeconds.open(astropy_iers_data.IERS_LEAP_SECOND_FILE).expires
    with tables.table(str(geodetic / "TAI_UTC"), readonly=False, ack=False) as table:
        table.putkeyword("VS_DATE", str(expires.strftime("%Y/%m/%d/%H:%M")))
