"""Real data of another telescope: 3C286 in casadata's NGC5921.fits, calibrated by the stage and by hand with casatasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from contimg.astro.gains import apply_block
from contimg.astro.measures import casa_environment
from contimg.records.calibration import Calibration, load_gains
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, UsageError
from contimg_calibrate.foreign import copy_field
from contimg_calibrate.importing import ImportOptions, import_ms
from contimg_calibrate.options import STAGE, CalibrateOptions

if TYPE_CHECKING:
    import numpy.typing as npt

FIELD = "1331+30500002_0"
BY_HAND = """
import os, casadata
from casatasks import importuvfits, setjy, gaincal, bandpass, applycal
importuvfits(fitsfile=os.path.join(casadata.datapath, "demo/NGC5921.fits"), vis="vla.ms")
import shutil; shutil.copytree("vla.ms", "hand.ms")
setjy("hand.ms", field="0", standard="Perley-Butler 2017", usescratch=True)
refant = dict(refant="1", minsnr=3, minblperant=4)
gaincal("hand.ms", "pre.G", field="0", solint="30s", calmode="p", spw="0:29~33", **refant)
bandpass("hand.ms", "band.B", field="0", solint="inf", combine="scan", solnorm=True, gaintable=["pre.G"], fillgaps=3, **refant)
gaincal("hand.ms", "phase.G", field="0", solint="60s", calmode="p", gaintable=["band.B"], **refant)
gaincal("hand.ms", "gain.G", field="0", solint="inf", combine="scan", calmode="ap", gaintable=["band.B", "phase.G"], **refant)
applycal("hand.ms", field="0", gaintable=["band.B", "phase.G", "gain.G"], interp=["nearest", "linear", "linear"], calwt=False)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vla")
    env = casa_environment(dict(os.environ))
    done = subprocess.run(
        [sys.executable, "-c", BY_HAND],
        cwd=made,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return made


def calibrate(folder: Path, **chosen: Any) -> dict[str, Any]:
    options = CalibrateOptions(
        **{"out": str(folder / "out"), "calibrator": "3C286", "reference_antenna": "1", **chosen}
    )
    return contract.run(STAGE, options, dict(os.environ), Console("calibrate", {}))


@pytest.fixture(scope="module")
def imported(folder: Path) -> str:
    options = ImportOptions(path=str(folder / "vla.ms"), field=FIELD, out=str(folder / "imported"))
    return str(import_ms(options, Console("import-ms", {}), dict(os.environ))["artifact"])


def corrected(
    said: dict[str, Any], ms: Path, scratch: Path
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_]]:
    scratch.mkdir()
    gains = load_gains(Context(str(scratch / "none"), scratch, (), {}), said["artifact"])
    with MeasurementSet(ms) as table:
        data, flags, rows, freq = (
            table.read("DATA"),
            table.read("FLAG"),
            table.rows,
            table.header.frequencies_hz,
        )
    times, index = np.unique(rows.time_s, return_inverse=True)
    apply_block(data, flags, rows.antenna1, rows.antenna2, index, gains.evaluate(times, freq))
    return data, flags


def cross(ms: Path) -> npt.NDArray[np.bool_]:
    """Say which rows are of two antennas."""
    with MeasurementSet(ms) as table:
        return (table.rows.antenna1 != table.rows.antenna2)[:, None, None]


def by_hand(
    folder: Path,
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_], npt.NDArray[np.complex64]]:
    import casacore.tables as ct

    with (
        ct.table(str(folder / "hand.ms"), ack=False) as table,
        table.query("FIELD_ID==0", sortlist="TIME,ANTENNA1,ANTENNA2") as rows,
    ):
        return rows.getcol("CORRECTED_DATA"), rows.getcol("FLAG"), rows.getcol("MODEL_DATA")


def test_it_equals_casatasks_by_hand(folder: Path, imported: str, tmp_path: Path) -> None:
    said = calibrate(folder, plain_ms=str(folder / "vla.ms"), field=FIELD)
    found = Calibration.model_validate_json(
        (Path(said["artifact"]) / "calibration.json").read_text()
    )
    assert (found.rung, found.calibrator.name, found.reference_antenna) == (
        "PRIMARY_TRANSIT_GENERATED",
        "3C286",
        "1",
    )
    assert found.calibrator.flux_jy == pytest.approx(
        15.016, rel=1e-3
    )  # Perley & Butler 2017 at 1.413 GHz

    ours, our_flags = corrected(
        said, copy_field(folder / "vla.ms", FIELD, tmp_path / "field.ms"), tmp_path / "tables"
    )
    theirs, their_flags, model = by_hand(folder)
    assert np.array_equal(our_flags, their_flags)
    good = ~our_flags & cross(tmp_path / "field.ms")
    # Flux scale, and single visibilities: theirs weigh all baselines alike, ours by their noise; a visibility's noise is 1 %.
    assert np.mean(ours[good].real) == pytest.approx(np.mean(theirs[good].real), rel=5e-4)
    assert np.mean(ours[good].real) == pytest.approx(np.mean(model[good].real), rel=5e-3)
    assert np.sqrt(np.mean(np.abs(ours[good] / theirs[good] - 1) ** 2)) < 5e-3

    said_of_import = calibrate(folder, ms=imported, flags=imported)
    again, _ = corrected(said_of_import, tmp_path / "field.ms", tmp_path / "again")
    assert np.abs(again[good] / ours[good] - 1).max() < 1e-5
    assert np.array_equal(read_flags(Path(imported) / "flags.bin"), ~good)


def test_an_imported_field_says_what_it_is(folder: Path, imported: str) -> None:
    metrics = json.loads((Path(imported) / "manifest.json").read_text())["metrics"]
    assert (metrics["telescope"], metrics["field"], metrics["channels"]) == ("VLA", FIELD, 63)
    assert (metrics["ra_deg"], metrics["dec_deg"]) == pytest.approx((202.7845, 30.5092), abs=1e-3)
    assert 0 < metrics["mjd_end"] - metrics["mjd_start"] < 0.01
    with MeasurementSet(copy_field(folder / "vla.ms", "2", folder / "two.ms")) as ms:
        assert ms.header.field == "N5921_2"
        assert ms.header.correlations == (5, 8)
        assert np.all(np.diff(ms.header.frequencies_hz) > 0)


def test_another_telescope_needs_a_calibrators_name(folder: Path) -> None:
    with pytest.raises(UsageError, match="needs a calibrator's name"):
        calibrate(folder, plain_ms=str(folder / "vla.ms"), calibrator=None)


def test_no_flux_is_ever_assumed(folder: Path) -> None:
    with pytest.raises(UsageError, match="a known flux"):
        calibrate(folder, plain_ms=str(folder / "vla.ms"), calibrator="100.0,30.0")


def test_what_is_no_field_is_refused(folder: Path) -> None:
    with pytest.raises(BadInputError, match=r"1331.*N5921_2"):
        calibrate(folder, plain_ms=str(folder / "vla.ms"), field="3C48")
