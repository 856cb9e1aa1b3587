"""What `contimg export-ms` makes opens in CASA, and CASA sees the sky in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest

from chain import Chain
from contimg.astro.measures import casa_environment
from contimg.runtime import child
from contimg.runtime.errors import Exit

BIN = Path(sys.executable).parent
CASA = """
import json, sys
from casatasks import flagdata, imstat, tclean, visstat
from casatools import table
ms = sys.argv[1]
tb = table(); tb.open(ms); columns, rows = tb.colnames(), tb.nrows(); tb.close()
flags = flagdata(ms, mode="summary")
amplitude = visstat(ms, axis="amp", datacolumn="corrected")
tclean(ms, imagename=sys.argv[2], datacolumn="corrected", imsize=512, cell="6arcsec", niter=0, weighting="natural", stokes="I")
image = imstat(sys.argv[2] + ".image")
print(json.dumps({
    "columns": columns, "rows": rows, "flagged": flags["flagged"], "total": flags["total"],
    "amplitude": [float(value["mean"]) for value in amplitude.values()], "peak": float(image["max"][0]), "at": image["maxposf"],
}))
"""


def contimg(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "contimg", *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, two_sources: Any) -> tuple[str, Any]:
    """Return a convert artifact of one source, and what was observed."""
    folder = tmp_path_factory.mktemp("export")
    seen = two_sources.but(sources=((0.2, 0.12, 2.0),))
    record = seen.write(folder / "store", tuple(range(15)))
    argv = [sys.executable, "-m", "contimg_convert", "--group", record, "--out", folder / "out"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["artifact"], seen


def degrees(position: str) -> tuple[float, float]:
    """Read what CASA prints: 22:54:15.1, +32.58.01.2, I, 1.4e9Hz."""
    ra, dec = (word.strip() for word in position.split(",")[:2])
    hours, minutes, seconds = map(float, ra.split(":"))
    whole, arcmin, arcsec = map(float, dec.lstrip("+-").split(".", 2))
    size = whole + arcmin / 60 + arcsec / 3600
    return 15 * (hours + minutes / 60 + seconds / 3600), -size if dec.startswith("-") else size


def test_casa_opens_it_and_sees_the_source(artifact: tuple[str, Any], tmp_path: Path) -> None:
    uri, seen = artifact
    done = contimg("export-ms", uri, tmp_path / "classic")
    assert done.returncode == 0, done.stderr
    assert "not calibrated" in done.stderr
    ms = json.loads(done.stdout)["ms"]
    log = tmp_path / "casa.log"
    child.run(
        [sys.executable, "-c", CASA, ms, str(tmp_path / "dirty")],
        log,
        120,
        casa_environment(os.environ),
        cwd=tmp_path,
    )
    found = json.loads(log.read_text().splitlines()[-1])
    assert {"DATA", "MODEL_DATA", "CORRECTED_DATA", "WEIGHT_SPECTRUM", "FLAG"} <= set(
        found["columns"]
    )
    assert found["rows"] == 55 * seen.integrations
    # One of sixteen subbands is missing.
    assert found["flagged"] / found["total"] == pytest.approx(1 / 16)
    # XX is 2 Jy, YY 4 Jy, in every visibility.
    assert found["amplitude"][0] == pytest.approx(3.0, rel=1e-3)
    # tclean leaves w out, which takes 2 % here; a mirrored source would be 48' away.
    assert found["peak"] == pytest.approx(3.0, rel=0.05)
    ra, dec, _ = seen.sky[0]
    at = degrees(found["at"])
    assert (at[0] - np.degrees(ra)) * np.cos(dec) == pytest.approx(0, abs=6 / 3600)
    assert at[1] - np.degrees(dec) == pytest.approx(0, abs=6 / 3600)


def test_it_does_not_write_over_one(artifact: tuple[str, Any], tmp_path: Path) -> None:
    uri, _ = artifact
    assert contimg("export-ms", uri, tmp_path).returncode == 0
    again = contimg("export-ms", uri, tmp_path)
    assert again.returncode == Exit.USAGE
    assert "expected no such folder, found one. Remove it" in again.stderr
    assert not list(tmp_path.glob(".part-*"))


def test_a_model_of_nothing_is_refused(artifact: tuple[str, Any], tmp_path: Path) -> None:
    done = contimg("export-ms", artifact[0], tmp_path, "--model", "field", "--least-mjy", "1e6")
    assert done.returncode == Exit.NO_SOURCES
    assert "Lower --least-mjy" in done.stderr
    assert not list(tmp_path.iterdir())


def test_flags_of_another_group_are_refused(
    artifact: tuple[str, Any], small_chain: Chain, tmp_path: Path
) -> None:
    done = contimg("export-ms", artifact[0], tmp_path, "--flags", small_chain.flags)
    assert done.returncode == Exit.BAD_INPUT
    assert "Name the flags of this group" in done.stderr


def test_calibrated_data_agree_with_the_model(small_chain: Chain, tmp_path: Path) -> None:
    words = [
        "--flags",
        small_chain.flags,
        "--calibration",
        small_chain.calibration,
        "--model",
        "field",
        "--least-mjy",
        "100",
    ]
    done = contimg("export-ms", small_chain.ms, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    with ct.table(json.loads(done.stdout)["ms"], ack=False) as table:
        good = (
            ~table.getcol("FLAG")
            & (table.getcol("ANTENNA1") != table.getcol("ANTENNA2"))[:, None, None]
        )
        corrected, model, data = (
            table.getcol(name)[good] for name in ("CORRECTED_DATA", "MODEL_DATA", "DATA")
        )
        assert np.all(table.getcol("WEIGHT_SPECTRUM") > 0)
    assert good.mean() > 0.5
    # 3C48 is 15 Jy of the model, NVSS's 16.4 Jy/beam at 1.4 GHz against Perley-Butler's 16.3 in the solve, with another spectrum.
    assert np.vdot(model, corrected) / np.vdot(model, model) == pytest.approx(1, abs=0.03)
    assert abs(np.vdot(model, data) / np.vdot(model, model)) < 0.05, "raw data are no Jy"


@pytest.mark.parametrize(
    ("words", "code"), [([], Exit.USAGE), (["--help"], Exit.DONE), (["only-one-word"], Exit.USAGE)]
)
def test_it_says_how_it_is_called(words: list[str], code: int) -> None:
    done = contimg("export-ms", *words)
    assert done.returncode == code
    assert "export-ms" in done.stdout + done.stderr
