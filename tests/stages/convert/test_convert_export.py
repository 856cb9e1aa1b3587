"""`contimg export-ms`: CASA opens its MS and sees the sky in it."""

import json
import os
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from chain import Chain, contimg
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
def seen(two_sources: Any) -> Any:
    return two_sources.but(sources=((0.2, 0.12, 2.0),))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, seen: Any) -> str:
    """Return a convert artifact of one source; one of sixteen subbands is missing."""
    folder = tmp_path_factory.mktemp("export")
    record = seen.write(folder / "store", tuple(range(15)))
    return str(contimg("convert", group=record, out=folder / "out")["artifact"])


def test_casa_sees_source_in_export(uri: str, seen: Any, tmp_path: Path, capsys: Any) -> None:
    ms = export(uri, tmp_path / "classic")
    assert "not calibrated" in capsys.readouterr().err
    log = tmp_path / "casa.log"
    argv = [sys.executable, "-c", CASA, str(ms), str(tmp_path / "dirty")]
    child.run(argv, log, 120, casa_environment(os.environ), cwd=tmp_path)
    found = json.loads(log.read_text().splitlines()[-1])
    assert {*COLUMNS, "FLAG"} <= set(found["columns"])
    assert found["rows"] == 55 * seen.integrations
    assert found["flagged"] / found["total"] == pytest.approx(1 / 16)
    # XX is 2 Jy, YY 4 Jy, in every visibility.
    assert found["amplitude"][0] == pytest.approx(3.0, rel=1e-3)
    # tclean leaves w out, which takes 2 % here; a mirrored source would be 48' away.
    assert found["peak"] == pytest.approx(3.0, rel=0.05)
    # CASA prints 22:54:15.1, +32.58.01.2, I, 1.4e9Hz.
    ra, dec = (word.strip() for word in found["at"].split(",")[:2])
    at = SkyCoord(ra, dec.replace(".", ":", 2), unit=("hourangle", "deg"))
    assert at.separation(SkyCoord(*seen.sky[0][:2], unit="rad")).arcsec < 6


def test_existing_ms_is_not_overwritten(uri: str, tmp_path: Path) -> None:
    export(uri, tmp_path)
    with pytest.raises(UsageError, match=r"The folder exists already\. Remove it"):
        export(uri, tmp_path)
    assert not list(tmp_path.glob(".part-*"))


def test_model_without_sources_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(NoSourcesError, match="Lower --least-mjy"):
        export(uri, tmp_path, model="field", least_mjy=1e6)
    assert not list(tmp_path.iterdir())


def test_flags_of_other_group_are_refused(uri: str, small_chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Name the flags of this group"):
        export(uri, tmp_path, flags=small_chain.flags)


def test_calibrated_data_agree_with_model(small_chain: Chain, tmp_path: Path) -> None:
    used = {"flags": small_chain.flags, "calibration": small_chain.calibration}
    ms = export(small_chain.ms, tmp_path, model="field", least_mjy=100, **used)
    with ct.table(str(ms), ack=False) as table:
        cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
        good = ~table.getcol("FLAG") & cross[:, None, None]
        data, model, corrected = (table.getcol(name)[good] for name in COLUMNS[:3])
        assert np.all(table.getcol("WEIGHT_SPECTRUM") > 0)
    assert good.mean() > 0.5
    # 3C48 is 15 Jy of the model, NVSS's 16.4 Jy/beam at 1.4 GHz against Perley-Butler's 16.3 in the
    # solve, with another spectrum.
    assert np.vdot(model, corrected) / np.vdot(model, model) == pytest.approx(1, abs=0.03)
    assert abs(np.vdot(model, data) / np.vdot(model, model)) < 0.05, "raw data are not in Jy"


@pytest.mark.parametrize(
    ("words", "code"), [("", Exit.USAGE), ("--help", Exit.DONE), ("only-one-word", Exit.USAGE)]
)
def test_wrong_words_print_usage(words: str, code: int, capsys: Any) -> None:
    prog = f"contimg {EXPORT_MS.name}"
    with pytest.raises(SystemExit) as caught:
        parse(EXPORT_MS.options, words.split(), prog, "1", positional=EXPORT_MS.positional)
    assert caught.value.code == code
    assert prog in "".join(capsys.readouterr())


def test_words_are_artifact_and_folder(uri: str, tmp_path: Path) -> None:
    words = [uri, str(tmp_path), "--model", "field"]
    found = parse(EXPORT_MS.options, words, "contimg export-ms", "1", positional=("ms", "folder"))
    assert found == ExportOptions(ms=uri, folder=tmp_path, model="field")
    assert resolve_name(EXPORT_MS.run) is run
