"""`contimg export-ms`: CASA opens its MS and sees the sky in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest

from chain import Chain
from contimg.astro.measures import casa_environment
from contimg.runtime import child
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, Exit, NoSourcesError, UsageError
from contimg.runtime.options import parse
from contimg_convert.export import COLUMNS, run
from contimg_convert.options import EXPORT_MS, ExportOptions

CASA = """
import json, sys
from casatasks import flagdata, imstat, tclean, visstat
from casatools import table
ms = sys.argv[1]
tb = table(); tb.open(ms); columns, rows = tb.colnames(), tb.nrows(); tb.close()
flags = flagdata(ms, mode="summary")
amplitude = visstat(ms, axis="amp", datacolumn="corrected")
tclean(ms, imagename=sys.argv[2], datacolumn="corrected", imsize=512, cell="6arcsec", niter=0,
       weighting="natural", stokes="I")
image = imstat(sys.argv[2] + ".image")
print(json.dumps({
    "columns": columns, "rows": rows, "flagged": flags["flagged"], "total": flags["total"],
    "amplitude": [float(value["mean"]) for value in amplitude.values()],
    "peak": float(image["max"][0]), "at": image["maxposf"],
}))
"""


def export(ms: str, folder: Path, **options: Any) -> Path:
    """Export in this process; return the MS."""
    chosen = ExportOptions(ms=ms, folder=folder, **options)
    return Path(run(chosen, Console("export-ms", {}), os.environ)["ms"])


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


def test_casa_sees_source_in_export(
    artifact: tuple[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, seen = artifact
    ms = export(uri, tmp_path / "classic")
    assert "not calibrated" in capsys.readouterr().err
    log = tmp_path / "casa.log"
    argv = [sys.executable, "-c", CASA, str(ms), str(tmp_path / "dirty")]
    child.run(argv, log, 120, casa_environment(os.environ), cwd=tmp_path)
    found = json.loads(log.read_text().splitlines()[-1])
    assert {*COLUMNS, "FLAG"} <= set(found["columns"])
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


def test_existing_ms_is_not_overwritten(artifact: tuple[str, Any], tmp_path: Path) -> None:
    export(artifact[0], tmp_path)
    with pytest.raises(UsageError, match=r"The folder exists already\. Remove it"):
        export(artifact[0], tmp_path)
    assert not list(tmp_path.glob(".part-*"))


def test_model_without_sources_is_refused(artifact: tuple[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NoSourcesError, match="Lower --least-mjy"):
        export(artifact[0], tmp_path, model="field", least_mjy=1e6)
    assert not list(tmp_path.iterdir())


def test_flags_of_other_group_are_refused(
    artifact: tuple[str, Any], small_chain: Chain, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match="Name the flags of this group"):
        export(artifact[0], tmp_path, flags=small_chain.flags)


def test_calibrated_data_agree_with_model(small_chain: Chain, tmp_path: Path) -> None:
    ms = export(
        small_chain.ms,
        tmp_path,
        flags=small_chain.flags,
        calibration=small_chain.calibration,
        model="field",
        least_mjy=100,
    )
    with ct.table(str(ms), ack=False) as table:
        cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
        good = ~table.getcol("FLAG") & cross[:, None, None]
        corrected, model, data = (
            table.getcol(name)[good] for name in ("CORRECTED_DATA", "MODEL_DATA", "DATA")
        )
        assert np.all(table.getcol("WEIGHT_SPECTRUM") > 0)
    assert good.mean() > 0.5
    # 3C48 is 15 Jy of the model, NVSS's 16.4 Jy/beam at 1.4 GHz against Perley-Butler's 16.3 in the
    # solve, with another spectrum.
    assert np.vdot(model, corrected) / np.vdot(model, model) == pytest.approx(1, abs=0.03)
    assert abs(np.vdot(model, data) / np.vdot(model, model)) < 0.05, "raw data are not in Jy"


@pytest.mark.parametrize(
    ("words", "code"), [([], Exit.USAGE), (["--help"], Exit.DONE), (["only-one-word"], Exit.USAGE)]
)
def test_wrong_words_print_usage(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prog = f"contimg {EXPORT_MS.name}"
    with pytest.raises(SystemExit) as caught:
        parse(EXPORT_MS.options, words, prog, "1", positional=EXPORT_MS.positional)
    assert caught.value.code == code
    assert prog in "".join(capsys.readouterr())


def test_words_are_artifact_and_folder(artifact: tuple[str, Any], tmp_path: Path) -> None:
    words = [artifact[0], str(tmp_path), "--model", "field"]
    found = parse(EXPORT_MS.options, words, "contimg export-ms", "1", positional=("ms", "folder"))
    assert found == ExportOptions(ms=artifact[0], folder=tmp_path, model="field")
    assert resolve_name(EXPORT_MS.run) is run
