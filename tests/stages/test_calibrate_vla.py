"""Data of the VLA: 3C286 in casadata's NGC5921.fits, calibrated by the stage and with casatasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import numpy.typing as npt
import pytest

from contimg.astro.gains import apply_block
from contimg.astro.measures import casa_environment
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, UsageError
from contimg_calibrate.foreign import copy_field
from contimg_calibrate.options import IMPORT_MS, ImportOptions
from observed import calibrate, load_factors, read_record

ComplexArray = npt.NDArray[np.complex64]
BoolArray = npt.NDArray[np.bool_]

FIELD = "1331+30500002_0"
BY_HAND = """
import os, shutil, casadata
from casatasks import importuvfits, setjy, gaincal, bandpass, applycal
importuvfits(fitsfile=os.path.join(casadata.datapath, "demo/NGC5921.fits"), vis="vla.ms")
shutil.copytree("vla.ms", "hand.ms")
setjy("hand.ms", field="0", standard="Perley-Butler 2017", usescratch=True)
solve = dict(vis="hand.ms", field="0", refant="1", minsnr=3, minblperant=4)
whole = dict(solint="inf", combine="scan")
gaincal(caltable="pre.G", solint="30s", calmode="p", spw="0:29~33", **solve)
bandpass(caltable="band.B", solnorm=True, gaintable=["pre.G"], fillgaps=3, **solve, **whole)
gaincal(caltable="phase.G", solint="60s", calmode="p", gaintable=["band.B"], **solve)
gaincal(caltable="gain.G", calmode="ap", gaintable=["band.B", "phase.G"], **solve, **whole)
tables = ["band.B", "phase.G", "gain.G"]
interp = ["nearest", "linear", "linear"]
applycal("hand.ms", field="0", gaintable=tables, interp=interp, calwt=False)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vla")
    env = casa_environment(dict(os.environ))
    argv = [sys.executable, "-c", BY_HAND]
    done = subprocess.run(argv, cwd=made, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return made


def run(folder: Path, **options: Any) -> dict[str, Any]:
    defaults = {"calibrator": "3C286", "reference_antenna": "1"}
    return calibrate(folder, **{**defaults, **options})


@pytest.fixture(scope="module")
def imported(folder: Path) -> str:
    options = ImportOptions(path=str(folder / "vla.ms"), field=FIELD, out=str(folder / "imported"))
    summary = contract.run(IMPORT_MS, options, dict(os.environ), Console("import-ms", {}))
    return str(summary["artifact"])


def correct(summary: dict[str, Any], ms: Path, scratch: Path) -> tuple[ComplexArray, BoolArray]:
    """Apply the tables of a calibrate artifact; return data and flags."""
    with MeasurementSet(ms) as table:
        data, flags, rows = table.read("DATA"), table.read("FLAG"), table.rows
        freq_hz = table.header.frequencies_hz
    times, index = np.unique(rows.time_s, return_inverse=True)
    factors = load_factors(summary["artifact"], scratch, times / 86400, freq_hz)
    apply_block(data, flags, rows.antenna1, rows.antenna2, index, factors)
    return data, flags


def test_stage_equals_casatasks_by_hand(folder: Path, imported: str, tmp_path: Path) -> None:
    summary = run(folder, plain_ms=str(folder / "vla.ms"), field=FIELD)
    record = read_record(summary)
    assert (record.rung, record.calibrator.name) == ("PRIMARY_TRANSIT_GENERATED", "3C286")
    assert record.reference_antenna == "1"
    # Perley & Butler 2017 at 1.413 GHz.
    assert record.calibrator.flux_jy == pytest.approx(15.016, rel=1e-3)

    field = copy_field(folder / "vla.ms", FIELD, tmp_path / "field.ms")
    ours, our_flags = correct(summary, field, tmp_path / "tables")
    with (
        ct.table(str(folder / "hand.ms"), ack=False) as table,
        table.query("FIELD_ID==0", sortlist="TIME,ANTENNA1,ANTENNA2") as rows,
    ):
        theirs, model = rows.getcol("CORRECTED_DATA"), rows.getcol("MODEL_DATA")
        cross = rows.getcol("ANTENNA1") != rows.getcol("ANTENNA2")
        assert np.array_equal(our_flags, rows.getcol("FLAG"))
    good = ~our_flags & cross[:, None, None]
    # Flux scale, and single visibilities: theirs weigh all baselines alike, ours by their noise; a
    # visibility's noise is 1 %.
    assert np.mean(ours[good].real) == pytest.approx(np.mean(theirs[good].real), rel=5e-4)
    assert np.mean(ours[good].real) == pytest.approx(np.mean(model[good].real), rel=5e-3)
    assert np.sqrt(np.mean(np.abs(ours[good] / theirs[good] - 1) ** 2)) < 5e-3

    again, _ = correct(run(folder, ms=imported, flags=imported), field, tmp_path / "again")
    assert np.abs(again[good] / ours[good] - 1).max() < 1e-5
    assert np.array_equal(read_flags(Path(imported) / "flags.bin"), ~good)


def test_import_records_telescope_and_field(folder: Path, imported: str) -> None:
    metrics = json.loads((Path(imported) / "manifest.json").read_text())["metrics"]
    assert (metrics["telescope"], metrics["field"], metrics["channels"]) == ("VLA", FIELD, 63)
    assert (metrics["ra_deg"], metrics["dec_deg"]) == pytest.approx((202.7845, 30.5092), abs=1e-3)
    assert 0 < metrics["mjd_end"] - metrics["mjd_start"] < 0.01
    with MeasurementSet(copy_field(folder / "vla.ms", "2", folder / "two.ms")) as ms:
        assert ms.header.field == "N5921_2"
        assert ms.header.correlations == (5, 8)
        assert np.all(np.diff(ms.header.frequencies_hz) > 0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"calibrator": None}, UsageError, "needs a calibrator's name"),
        ({"calibrator": "100.0,30.0"}, UsageError, "a known flux"),
        ({"field": "3C48"}, BadInputError, r"1331.*N5921_2"),
    ],
    ids=["no calibrator", "unknown flux", "no such field"],
)
def test_plain_ms_is_refused(
    folder: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(folder, plain_ms=str(folder / "vla.ms"), **options)
