"""Measurement Sets from elsewhere: what they state of themselves is used, converted or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import FK4, SkyCoord
from astropy.time import Time

from contimg.records.ms import Antennas, MeasurementSet, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError
from contimg_calibrate.foreign import copy_field, describe_offset

FREQ_HZ = 1.4e9 + 1e6 * np.arange(4)
T0_S = 60000.5 * 86400
PLACE = 3.0, 0.5
UVW = np.array([[100.0, 20.0, 3.0], [250.0, -40.0, 7.0], [150.0, -60.0, 4.0]])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three baselines, two times, four channels, XX and YY; all data are 1."""
    names = ("a", "b", "c")
    antennas = Antennas(names, np.eye(3) * 6e6, np.full(3, 25.0))
    place: dict[str, Any] = {"ra_rad": PLACE[0], "dec_rad": PLACE[1]}
    header = MSHeader(
        "VLA", "x", **place, frequencies_hz=FREQ_HZ, channel_width_hz=1e6, antennas=antennas
    )
    one, two = np.array([0, 0, 1] * 2, np.int32), np.array([1, 2, 2] * 2, np.int32)
    times = T0_S + np.repeat([0.0, 10.0], 3)
    weight = np.full((6, 2), 4.0, np.float32)
    rows = Rows(times, np.full(6, 10.0), one, two, np.tile(UVW, (2, 1)), weight)
    with create(tmp_path / "a.ms", header, rows, ("DATA", "WEIGHT_SPECTRUM")) as writer:
        shape = (6, 4, 2)
        writer.put(0, {"DATA": np.ones(shape, np.complex64), "FLAG": np.zeros(shape, bool)})
        writer.put(0, {"WEIGHT_SPECTRUM": np.full(shape, 4, np.float32)})
    return tmp_path / "a.ms"


def change(path: Path, column: str, edit: Callable[[Any], Any], table: str = "") -> None:
    with ct.table(f"{path}{table}", readonly=False, ack=False) as opened:
        values = opened.getcol(column)
        opened.putcol(column, edit(values))


def set_keyword(path: Path, column: str, ref: str, table: str = "") -> None:
    with ct.table(f"{path}{table}", readonly=False, ack=False) as opened:
        info = opened.getcolkeyword(column, "MEASINFO")
        opened.putcolkeyword(column, "MEASINFO", {**info, "Ref": ref})


def put_at(where: Any, value: Any) -> Callable[[Any], Any]:
    def edit(values: Any) -> Any:
        values[where] = value
        return values

    return edit


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e-9])
def test_sample_without_weight_is_flagged(source: Path, tmp_path: Path, value: float) -> None:
    change(source, "WEIGHT_SPECTRUM", put_at(np.s_[1, 1:3, 0], value))
    copied = copy_field(source, "0", tmp_path / "b.ms")
    with MeasurementSet(copied.path) as ms:
        flags, weight = ms.read("FLAG"), ms.rows.weight
    assert np.argwhere(flags).tolist() == [[1, 1, 0], [1, 2, 0]]
    assert np.allclose(weight, 4)
    assert "4.17% of the samples" in copied.notes[0]


@pytest.mark.parametrize(
    ("column", "where", "value", "flagged"),
    [
        ("WEIGHT", np.s_[2], 0, 8),
        ("FLAG_ROW", np.s_[2], True, 8),
        ("DATA", np.s_[2, 0, 0], np.nan, 1),
        ("DATA", np.s_[2, 0, 0], 0, 1),
    ],
)
def test_what_marks_bad_data_becomes_a_flag(
    source: Path, tmp_path: Path, column: str, where: Any, value: Any, flagged: int
) -> None:
    change(source, column, put_at(where, value))
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        assert ms.read("FLAG").sum() == flagged
        assert np.isfinite(ms.read("DATA")).all()


def test_sigma_spectrum_stands_for_missing_weights(source: Path, tmp_path: Path) -> None:
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.removecols("WEIGHT_SPECTRUM")
        table.addcols(ct.maketabdesc([ct.makearrcoldesc("SIGMA_SPECTRUM", 0.0, 2)]))
        sigma = np.full((6, 4, 2), 0.1)
        sigma[0, 0, 0], sigma[0, 1, 0] = 0, 0.2
        table.putcol("SIGMA_SPECTRUM", sigma)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        assert np.argwhere(ms.read("FLAG")).tolist() == [[0, 0, 0]]
        assert ms.read("WEIGHT_SPECTRUM")[0, :2].ravel() == pytest.approx([0, 100, 25, 100])


def test_besselian_field_is_turned_to_icrs(source: Path, tmp_path: Path) -> None:
    for column, table in (("PHASE_DIR", "::FIELD"), ("UVW", "")):
        set_keyword(source, column, "B1950", table)
    frame = FK4(equinox="B1950", obstime="B1950")
    old = SkyCoord(*PLACE, unit="rad", frame=frame)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        header, uvw = ms.header, ms.rows.uvw_m
    centre = SkyCoord(header.ra_rad, header.dec_rad, unit="rad")
    assert centre.separation(old.icrs).arcsec < 0.01
    # A source somewhere in the field has the same delay before and after.
    before = np.array([0.003, 0.002])
    near = old.spherical_offsets_by(*(before * units.rad)).icrs
    after = np.array(
        [offset.rad for offset in centre.spherical_offsets_to(SkyCoord(near.ra, near.dec))]
    )
    assert (uvw[:3, :2] @ after) == pytest.approx(UVW[:, :2] @ before, abs=1e-4)
    assert (UVW[:, :2] @ after) != pytest.approx(UVW[:, :2] @ before, abs=1e-4)


def test_atomic_time_becomes_utc(source: Path, tmp_path: Path) -> None:
    set_keyword(source, "TIME", "TAI")
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        found = ms.rows.time_s[0]
    assert found == pytest.approx(T0_S - 37, abs=1e-3)
    assert Time(T0_S / 86400, format="mjd", scale="tai").utc.mjd * 86400 == pytest.approx(found)


REFUSED: dict[str, Callable[[Path], None]] = {
    "in the frame GALACTIC": lambda path: set_keyword(path, "PHASE_DIR", "GALACTIC", "::FIELD"),
    "in the frame AZEL": lambda path: set_keyword(path, "PHASE_DIR", "AZEL", "::FIELD"),
    "moves": lambda path: change(path, "NUM_POLY", lambda v: v + 1, "::FIELD"),
    "times are in LAST": lambda path: set_keyword(path, "TIME", "LAST"),
    "correlations are I, V": lambda path: change(
        path, "CORR_TYPE", lambda v: v * 0 + np.array([1, 4], np.int32), "::POLARIZATION"
    ),
    "frequencies are in frame 0": lambda path: change(
        path, "MEAS_FREQ_REF", lambda v: v * 0, "::SPECTRAL_WINDOW"
    ),
    "channels are 1e": lambda path: change(
        path, "CHAN_WIDTH", put_at(np.s_[0, 2], 3e6), "::SPECTRAL_WINDOW"
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_cannot_be_converted_is_refused(source: Path, tmp_path: Path, problem: str) -> None:
    REFUSED[problem](source)
    with pytest.raises(BadInputError, match=problem) as caught:
        copy_field(source, "0", tmp_path / "b.ms")
    assert caught.value.args[2]


@pytest.mark.parametrize(("away_deg", "says"), [(0.04, False), (0.06, True), (29.0, True)])
def test_calibrator_off_the_beam_is_named(source: Path, away_deg: float, *, says: bool) -> None:
    with MeasurementSet(source) as ms:
        header = ms.header  # 25 m at 1.4 GHz: FWHM 0.5 deg
    place = np.degrees(PLACE[0]), np.degrees(PLACE[1]) + away_deg
    assert bool(describe_offset(header, *place)) is says
