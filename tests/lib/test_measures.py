"""CASA in a child: silent, offline, and of one mind with astropy about the Earth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.time import Time

from contimg.astro import coordinates, measures
from contimg.astro.constants import DAY_S
from contimg.astro.measures import casa_environment, measures_folder
from contimg.astro.telescope import SITE
from contimg.runtime import child
from contimg.runtime.errors import BadInputError, NoRoomError

FloatArray = npt.NDArray[np.float64]

# Not importorskip: an import without the environment that is tested here fails, and asks the
# network.
pytestmark = pytest.mark.skipif(find_spec("casatools") is None, reason="casatools is not installed")

ARCSEC = np.pi / 180 / 3600
LAT = np.radians(SITE.lat_deg)
# Measured values, rows that casadata held as predictions (2025-08 to -12), and dates after its end.
DATES = [60676.1, 60900.25, 60930.5, 60950.25, 61000.3, 61029.5, 61040.1, 61065.7]
DATES += [61100.5, 61300.25, 61400.75, 61571.6]
PLACES = [(0.42625, 0.57875), (3.5392, 0.53248), (3.7146, 0.91081), (1.0, 0.2845), (5.0, 1.2497)]
# What a child does; strace is not everywhere, but a Python that may not open sockets is.
CHILD = """
import socket, sys
def refuse(*_):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
"""
ASK = """
import json
from casatools import measures, quanta
me, qa = measures(), quanta()
given = json.loads(sys.argv[1])
place = [qa.quantity(v, u) for v, u in zip(given["site"], ("deg", "deg", "m"))]
site = me.position("WGS84", *place)
me.doframe(site)
answer = {"dut1_s": [], "hadec": []}
for mjd in given["dates"]:
    utc = me.epoch("UTC", qa.quantity(repr(mjd) + "d"))
    me.doframe(utc)
    answer["dut1_s"].append((me.measure(utc, "UT1")["m0"]["value"] - mjd) * 86400)
    for ra, dec in given["places"]:
        place = me.direction("ICRS", qa.quantity(ra, "rad"), qa.quantity(dec, "rad"))
        seen = me.measure(place, "HADEC")
        answer["hadec"].append([seen["m0"]["value"], seen["m1"]["value"]])
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measures")


@pytest.fixture(scope="module")
def environment(root: Path) -> dict[str, str]:
    folders = {"CONTIMG_MEASURES": str(root), "TMPDIR": str(root / "tmp")}
    return casa_environment({"PATH": os.defpath, "HOME": "/nonexistent", **folders})


def run(code: str, environment: dict[str, str], cwd: Path, *words: str) -> tuple[str, str]:
    argv = [sys.executable, "-c", CHILD + code, *words]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(argv, env=environment, cwd=cwd, check=True, **options)
    return done.stdout, done.stderr


def vectors(ha: FloatArray, dec: FloatArray) -> FloatArray:
    """Unit vectors to meridian, east and pole."""
    return np.stack([np.cos(dec) * np.cos(ha), -np.cos(dec) * np.sin(ha), np.sin(dec)], axis=-1)


def test_hadec_equals_casa_after_two_corrections(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Show that casacore's HADEC differs from SOFA's by up to 1.2": frames are not left to CASA.

    casacore turns the polar motion by the local sidereal time instead of the longitude, and moves
    sources by the diurnal aberration towards the zenith instead of the east. With both corrected
    the rest is IAU 1976/1980 precession and nutation, which is off by 0.1" these years.
    """
    given = {"site": [SITE.lon_deg, SITE.lat_deg, SITE.height_m], "dates": DATES, "places": PLACES}
    out, err = run(ASK, environment, tmp_path, json.dumps(given))
    assert err == ""
    answers = json.loads(out)
    # 1e-4 s is 1.5 mas; the epoch as one double has 0.6 us.
    assert answers["dut1_s"] == pytest.approx(coordinates.earth_rotation(DATES)[0], abs=1e-4)
    theirs = np.array(answers["hadec"]).reshape(len(DATES), len(PLACES), 2)
    mjd = np.array(DATES)[:, None]
    ours = vectors(*coordinates.apparent_hadec(*np.array(PLACES).T, mjd, SITE))
    zenith, east = np.array([np.cos(LAT), 0.0, np.sin(LAT)]), np.array([0.0, 1.0, 0.0])
    velocity = (
        2 * np.pi * coordinates.SIDEREAL_RATE / DAY_S * np.hypot(*SITE.itrf_m[:2]) / 299792458.0
    )
    slip = velocity * (zenith / np.cos(LAT) - east)  # casacore's has no cosine of the latitude
    # To first order a displacement is its part across the line of sight.
    moved = ours + slip - ours * (ours @ slip)[..., None]
    _, x, y = coordinates.earth_rotation(mjd)
    coordinates.use_offline_iers()
    sidereal = Time(mjd, format="mjd", scale="utc").sidereal_time("apparent", SITE.lon_deg * u.deg)
    turned = np.exp(-1j * sidereal.rad) - np.exp(-1j * np.radians(SITE.lon_deg))
    turn = 1j * (x - 1j * y) * turned
    moved += np.cross(np.stack([turn.real, turn.imag, np.zeros_like(x)], axis=-1), ours)
    away = np.linalg.norm(moved - vectors(theirs[..., 0], theirs[..., 1]), axis=-1)
    assert away.max() < 0.15 * ARCSEC


def test_tasks_import_silently(environment: dict[str, str], tmp_path: Path) -> None:
    out, err = run("import casatasks; print(casatasks.version_string())", environment, tmp_path)
    assert err == ""
    assert len(out.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    log = tmp_path / "casa.log"
    assert child.call("casatools:version_string", {}, log, 60, environment)
    assert log.read_text() == ""
    # setjy finds its standards.
    path = "nrao/VLA/standards/PerleyButler2017Coeffs"
    names = f"from casatools import ctsys; print(ctsys.resolve({path!r}))"
    assert run(names, environment, tmp_path)[0].startswith(environment["CONTIMG_MEASURES"])


class TestEnvironment:
    def test_environment_is_whole(self, root: Path) -> None:
        given = {"PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp", "A": "b"}
        given["CONTIMG_MEASURES"] = str(root)
        before = dict(given)
        made = casa_environment(given)
        assert {"PATH": "/bin", "HOME": "/tmp", "A": "b"}.items() <= made.items()
        assert made.items() >= child.LINEAR_ALGEBRA.items()
        assert "PYTHONDONTWRITEBYTECODE" not in made
        assert given == before

    def test_named_paths_exist(self, environment: dict[str, str], root: Path) -> None:
        assert Path(environment["CASASITECONFIG"]).is_file()
        assert Path(environment["CASASITECONFIG"]).is_absolute()
        assert os.access(environment["MPLCONFIGDIR"], os.W_OK)
        assert os.access(environment["HOME"], os.W_OK)  # the one given does not exist
        # In an image they lie on a read-only root.
        assert {path.name for path in root.iterdir()} == {"tmp", measures_folder(root).name}
        assert Path(environment["MPLCONFIGDIR"]).is_relative_to(root / "tmp")
        assert Path(environment["HOME"]).is_relative_to(root / "tmp")

    def test_default_and_unusable_folders(self, tmp_path: Path) -> None:
        made = casa_environment({"TMPDIR": str(tmp_path)})
        assert Path(made["CASASITECONFIG"]).is_relative_to(tmp_path / f"contimg-{os.getuid()}")
        (tmp_path / "file").write_text("")
        below = {"CONTIMG_MEASURES": str(tmp_path / "file" / "below"), "TMPDIR": str(tmp_path)}
        with pytest.raises(NoRoomError, match="CONTIMG_MEASURES"):
            casa_environment(below)


class TestFolder:
    def test_folder_is_small_and_built_once(self, root: Path) -> None:
        folder = measures_folder(root)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert 20e6 < size < 80e6
        before = folder.stat().st_mtime_ns
        assert measures_folder(root) == folder
        assert folder.stat().st_mtime_ns == before

    def test_recipe_is_in_name(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = measures_folder(root).name
        monkeypatch.setattr(measures, "RECIPE_VERSION", 999)
        monkeypatch.setattr(measures, "COPIED_FOLDERS", ())
        monkeypatch.setattr(measures, "renew", lambda _: None)
        assert measures_folder(root).name != before

    def test_concurrent_builds_make_one_folder(self, tmp_path: Path) -> None:
        code = "import pathlib; from contimg.astro import measures;"
        code += f"print(measures.measures_folder(pathlib.Path({str(tmp_path)!r})))"

        def build(_: int) -> str:
            argv, options = [sys.executable, "-c", code], {"text": True, "timeout": 120}
            return subprocess.check_output(argv, **options)

        with ThreadPoolExecutor(3) as pool:
            found = set(pool.map(build, range(3)))
        assert len(found) == 1
        # Nothing half-built is left.
        assert [path.name for path in tmp_path.iterdir()] == [Path(found.pop().strip()).name]

    def test_folder_cannot_be_built(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measures, "FOLDER_BYTES", 1 << 60)
        with pytest.raises(NoRoomError, match="MB are free"):
            measures_folder(tmp_path)
        monkeypatch.setattr(measures, "find_spec", lambda _: None)
        with pytest.raises(BadInputError, match="Install casadata"):
            measures_folder(tmp_path)
        assert list(tmp_path.iterdir()) == []
