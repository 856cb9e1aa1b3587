# ruff: noqa: INP001 - a script, not a package
"""Derive the data that lib ships from public sources: ``python lib/derive/package_data.py FOLDER``.

FOLDER holds

* ``dsa110_stations.csv``: the telescope's public station list;
* ``NVSSVZ.FIT.gz``: NRAO's NVSS catalogue above 50 mJy, packed by Obit;
* ``vlacalibrators.txt``: the VLA Calibrator Manual's list, NRAO.

The files it makes are committed; the sources are not. The same sources make the same bytes.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import astropy.units as u
import erfa
import numpy as np
from astropy.coordinates import Angle
from astropy.io import fits

from contimg.records.schemas.shipped import NVSS, STATIONS, VLA_CALIBRATORS

DATA = Path(__file__).parents[1] / "contimg" / "astro" / "data"
BINARY_DIGITS = 20
"""Binary digits of a degree in NVSS positions (3.4 mas); the rest is incompressible noise."""
SOURCE = re.compile(
    r"""^\s*(?P<name>\S+)\s+J2000\s+(?P<code>[A-Z])?\s+(?P<ra>\d+h\d+m[\d.]+s)\s+(?P<dec>-?\d+d\d+'[\d.]+")(?P<rest>.*)$"""
)
BAND = re.compile(
    r"^\s*(?P<band>20|6)\s*cm\s+\S\s+(?P<codes>[PSXWC?](?:\s+[PSXWC?]){3})\s+(?P<flux>[\d.]+|\?)(?P<rest>.*)$"
)
REFERENCE_DATE = re.compile(r"^(?:[A-Z][a-z]{2}\d\d|GVAR|USNO)$")
FLUX_END, UV_MAX_START = 36, 44
"""Columns of the list: UVMIN stands between them, UVMAX behind."""


def stations(path: Path) -> dict[str, Any]:
    """Read the station list and add ITRF positions."""
    with path.open() as source:
        rows = list(csv.DictReader(source))
    height = [float(row["elevation_m"] or rows[i - 1]["elevation_m"]) for i, row in enumerate(rows)]
    lat = np.array([float(row["latitude_deg"]) for row in rows])
    lon = np.array([float(row["longitude_deg"]) for row in rows])
    itrf = erfa.gd2gc(erfa.WGS84, np.radians(lon), np.radians(lat), height)
    # 0.1 mm: the list has 1 cm.
    x, y, z = np.round(itrf, 4).T
    return {
        "station": [int(row["station"]) for row in rows],
        "arm": [row["arm"] for row in rows],
        "active": [row["active"] == "1" for row in rows],
        "lat": lat,
        "lon": lon,
        "height": height,
        "x": x,
        "y": y,
        "z": z,
    }


def nvss(path: Path) -> dict[str, Any]:
    """Read the AIPS VZ table; its positions are J2000, whatever the primary header's EPOCH says."""
    table = fits.getdata(path, extname="AIPS VZ")
    scale = 2.0**BINARY_DIGITS
    return {
        "ra": np.round(table["RA(2000)"] * scale) / scale,
        "dec": np.round(table["DEC(2000)"] * scale) / scale,
        "flux_peak": table["PEAK INT"].astype(np.float32),
        "quality": table["QUAL"].astype(np.uint8),
    }


def vla_calibrators(path: Path) -> list[dict[str, Any]]:
    """Read the J2000 lines of the list and the bands after each; B1950 lines are left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(errors="replace").splitlines():
        if found := SOURCE.match(line):
            rows.append(_source(found))
        elif found := BAND.match(line):
            rows[-1].update(_band(line, found))
    return rows


def _source(found: re.Match[str]) -> dict[str, Any]:
    words = [
        word
        for word in found["rest"].split()
        if not REFERENCE_DATE.match(word) and word not in {"JVAS", "CJ2"}
    ]
    return {
        "name": found["name"],
        "alias": " ".join(words),
        "position_code": found["code"] or "",
        "ra": Angle(found["ra"]).to_value(u.deg),
        "dec": Angle(found["dec"].replace("'", "m").replace('"', "s")).to_value(u.deg),
        "code_c": "",
        "code_d": "",
    }


def _band(line: str, found: re.Match[str]) -> dict[str, Any]:
    flux = None if found["flux"] == "?" else float(found["flux"])
    if found["band"] == "6":
        return {"flux_6cm": flux}
    codes = found["codes"].split()
    numbers = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", line.expandtabs()[UV_MAX_START:])
    return {
        "code_c": codes[2],
        "code_d": codes[3],
        "flux_20cm": flux,
        "uv_max": float(numbers[0]) if numbers else None,
    }


def main(folder: Path) -> None:
    """Write the three files."""
    DATA.mkdir(exist_ok=True)
    tables = {
        "stations": STATIONS.to_bytes(stations(folder / "dsa110_stations.csv")),
        "nvss": NVSS.to_bytes(nvss(folder / "NVSSVZ.FIT.gz")),
        "vla_calibrators": VLA_CALIBRATORS.to_bytes(
            VLA_CALIBRATORS.rows(vla_calibrators(folder / "vlacalibrators.txt"))
        ),
    }
    for name, data in tables.items():
        (DATA / f"{name}.parquet").write_bytes(data)
        print(f"{name}: {len(data)} bytes")  # noqa: T201 - a script


if __name__ == "__main__":
    main(Path(sys.argv[1]))
