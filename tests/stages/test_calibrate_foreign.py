"""Measurement Sets from elsewhere: what they state of themselves is used, converted or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import casacore.tables as ct
import erfa
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
    # What the UVW are the projection of, seen from the centre by an Earth without polar motion.
    ra, dec = PLACE
    east, north = [-np.sin(ra), np.cos(ra), 0], erfa.s2c(ra, dec + np.pi / 2)
    turn = erfa.c2t06a(2400000.5, T0_S / 86400, 2400000.5, T0_S / 86400, 0, 0)
    baselines = UVW[:2] @ np.array([east, north, erfa.s2c(ra, dec)]) @ turn.T
    positions = [6e6, 0, 0] - np.vstack([np.zeros(3), baselines])
    antennas = Antennas(names, positions, np.full(3, 25.0))
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


@pytest.mark.parametrize(
    ("table", "column", "unit", "size"),
    [
        ("::SPECTRAL_WINDOW", "CHAN_FREQ", "GHz", 1e9),
        ("::SPECTRAL_WINDOW", "CHAN_WIDTH", "kHz", 1e3),
        ("::FIELD", "PHASE_DIR", "deg", np.pi / 180),
        ("::ANTENNA", "POSITION", "km", 1e3),
        ("", "TIME", "d", 86400),
        ("", "INTERVAL", "min", 60),
        ("", "UVW", "km", 1e3),
    ],
)
def test_stated_units_are_converted(
    source: Path, tmp_path: Path, table: str, column: str, unit: str, size: float
) -> None:
    with MeasurementSet(copy_field(source, "0", tmp_path / "plain.ms").path) as ms:
        wanted = *vars(ms.header).values(), *vars(ms.rows).values()
    change(source, column, lambda values: values / size, table)
    with ct.table(f"{source}{table}", readonly=False, ack=False) as opened:
        count = len(np.atleast_1d(opened.getcolkeyword(column, "QuantumUnits")))
        opened.putcolkeyword(column, "QuantumUnits", [unit] * count)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        found = *vars(ms.header).values(), *vars(ms.rows).values()
    for one, other in zip(found, wanted, strict=True):
        if isinstance(one, Antennas):
            assert one.positions_m == pytest.approx(other.positions_m)
        elif not isinstance(one, str):
            assert np.asarray(one) == pytest.approx(np.asarray(other), rel=1e-12)


@pytest.mark.parametrize("frame", [1, 3, 4])
def test_frequencies_become_topocentric(source: Path, tmp_path: Path, frame: int) -> None:
    """The observer's speed by SOFA, and 20 km/s to 18h, +30 (B1900) for LSRK."""
    change(source, "MEAS_FREQ_REF", lambda values: values * 0 + frame, "::SPECTRAL_WINDOW")
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        found = ms.header.frequencies_hz
    mjd = T0_S / 86400
    x, y, _ = erfa.rz(-erfa.era00(2400000.5, mjd), np.eye(3)) @ [6e6, 0, 0]
    speed = np.array([-y, x, 0]) * 7.292115e-5
    if frame != 4:
        speed += erfa.epv00(2400000.5, mjd)[1]["v"] * 149597870700.0 / 86400
    if frame == 1:
        speed += 20e3 * erfa.s2c(*np.radians([270.9593, 30.0047]))
    wanted = FREQ_HZ * (1 + speed @ erfa.s2c(*PLACE) / 299792458.0)
    assert found == pytest.approx(wanted, rel=2e-8)  # classical Doppler shift; no precession


def add_row(path: Path, table: str, **values: Any) -> None:
    with ct.table(f"{path}::{table}", readonly=False, ack=False) as opened:
        opened.addrows(1)
        for column in opened.colnames():
            if opened.iscelldefined(column, 0):
                opened.putcell(column, 1, values.get(column, opened.getcell(column, 0)))


def test_fields_of_a_set_share_their_channels(source: Path, tmp_path: Path) -> None:
    """Else gains of a calibrator would not fit the channels of a target."""
    add_row(source, "FIELD", NAME="y", PHASE_DIR=np.array([[1.0, -0.2]]))
    change(source, "FIELD_ID", put_at(np.s_[3:], 1))
    change(source, "MEAS_FREQ_REF", lambda values: values * 0 + 1, "::SPECTRAL_WINDOW")
    found = []
    for name in ("x", "y"):
        with MeasurementSet(copy_field(source, name, tmp_path / f"{name}.ms").path) as ms:
            found.append(ms.header.frequencies_hz)
    assert found[0].tolist() == found[1].tolist() != FREQ_HZ.tolist()


def test_corrected_data_are_taken_where_asked_for(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no CORRECTED_DATA; its columns of data are DATA"):
        copy_field(source, "0", tmp_path / "b.ms", column="CORRECTED_DATA")
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.addcols(ct.maketabdesc([ct.makearrcoldesc("CORRECTED_DATA", 0j, 2)]))
        table.putcol("CORRECTED_DATA", 3 * table.getcol("DATA"))
    plain = copy_field(source, "0", tmp_path / "c.ms")
    assert plain.notes == ("its CORRECTED_DATA were not used, but DATA (--column chooses)",)
    copied = copy_field(source, "0", tmp_path / "d.ms", column="CORRECTED_DATA")
    assert not copied.notes
    with MeasurementSet(copied.path) as ms:
        assert np.unique(ms.read("DATA")).tolist() == [3]


def add_window(path: Path, first_hz: float, rows: int = 6, **setup: Any) -> None:
    """Add a window of as many channels, and its rows, whose data are 2."""
    add_row(path, "SPECTRAL_WINDOW", NAME="high", CHAN_FREQ=first_hz + FREQ_HZ - FREQ_HZ[0])
    add_row(path, "POLARIZATION", **setup)
    add_row(path, "DATA_DESCRIPTION", SPECTRAL_WINDOW_ID=1, POLARIZATION_ID=1)
    with ct.table(str(path), readonly=False, ack=False) as table:
        table.addrows(rows)
        for column in table.colnames():
            if table.iscelldefined(column, 0):
                table.putcol(column, table.getcol(column, 0, rows), 6, rows)
        table.putcol("DATA_DESC_ID", np.ones(rows, np.int32), 6, rows)
        table.putcol("DATA", 2 * table.getcol("DATA", 0, rows), 6, rows)


@pytest.mark.parametrize(("first_hz", "gap"), [(1.404e9, 0), (1.396e9, 0), (1.406e9, 2)])
def test_windows_are_joined(source: Path, tmp_path: Path, first_hz: float, gap: int) -> None:
    """Channels ascend in even steps, those of a gap are flagged; so is what one row lacks."""
    add_window(source, first_hz, rows=5)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        header, data, flags = ms.header, ms.read("DATA"), ms.read("FLAG")
        assert len(ms) == 6
    low = min(first_hz, FREQ_HZ[0])
    assert header.frequencies_hz == pytest.approx(low + 1e6 * np.arange(8 + gap), rel=1e-12)
    new = np.r_[0:4] if first_hz < FREQ_HZ[0] else np.r_[4 + gap : 8 + gap]
    old = np.setdiff1d(np.arange(8 + gap), [*new, *range(4, 4 + gap)])
    assert np.unique(data[:5, new]).tolist() == [2]
    assert np.unique(data[:, old]).tolist() == [1]
    assert not flags[:, old].any()
    assert not flags[:5, new].any()
    assert flags.sum() == 2 * (6 * gap + 4)


@pytest.mark.parametrize("window", ["1", "high"])
def test_window_may_be_chosen(source: Path, tmp_path: Path, window: str) -> None:
    add_window(source, 2e9)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms", windows=[window]).path) as ms:
        assert ms.header.frequencies_hz[0] == 2e9
        assert np.unique(ms.read("DATA")).tolist() == [2]
    listed = (
        r"no spectral window 7.* 0 \(DSA-110: 4 channels of 1 MHz, 1400 to 1403 MHz, XX YY\); 1"
    )
    with pytest.raises(BadInputError, match=listed):
        copy_field(source, "0", tmp_path / "c.ms", windows=["7"])


CIRCULAR = {"CORR_TYPE": np.array([5, 8], np.int32)}


@pytest.mark.parametrize(
    ("problem", "first_hz", "rows", "setup"),
    [
        ("overlap", 1.402e9, 6, {}),
        ("too far apart", 1.5e9, 6, {}),
        ("correlations of its spectral windows differ", 1.404e9, 6, CIRCULAR),
        ("not observed together: 42%", 1.404e9, 1, {}),
    ],
)
def test_windows_that_cannot_be_one_are_named(
    source: Path, tmp_path: Path, problem: str, first_hz: float, rows: int, setup: Any
) -> None:
    add_window(source, first_hz, rows, **setup)
    with pytest.raises(BadInputError, match=problem) as caught:
        copy_field(source, "0", tmp_path / "b.ms")
    assert "--windows 0" in str(caught.value)


def exchange_antennas(path: Path) -> None:
    with ct.table(str(path), readonly=False, ack=False) as table:
        one, two = table.getcol("ANTENNA1"), table.getcol("ANTENNA2")
        table.putcol("ANTENNA1", two)
        table.putcol("ANTENNA2", one)


@pytest.mark.parametrize(
    ("spoil", "share"),
    [
        (lambda path: change(path, "UVW", lambda uvw: -uvw), "100%"),
        (lambda path: change(path, "UVW", lambda uvw: uvw * np.array([[-1], [1], [1]] * 2)), "33%"),
        (exchange_antennas, "100%"),
    ],
)
def test_uvw_of_the_opposite_sign_are_refused(
    source: Path, tmp_path: Path, spoil: Callable[[Path], None], share: str
) -> None:
    assert not copy_field(source, "0", tmp_path / "b.ms").notes
    spoil(source)
    with pytest.raises(BadInputError, match=f"UVW of {share} of the rows have the opposite sign"):
        copy_field(source, "0", tmp_path / "c.ms")


@pytest.mark.parametrize("names", [["a", "a", "a"], ["", "", ""]])
def test_antennas_get_names_of_their_own(source: Path, tmp_path: Path, names: list[str]) -> None:
    change(source, "NAME", lambda _: names, "::ANTENNA")
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        assert len({*ms.header.antennas.names}) == 3


ODD_ROWS: dict[str, tuple[str, str, Any, float]] = {
    "are of antennas that are marked": ("::ANTENNA", "FLAG_ROW", [False, False, True], 2 / 3),
    "are not on the source": ("::STATE", "OBS_MODE", ["CALIBRATE_ATMOSPHERE#OFF_SOURCE"], 1.0),
    "have no UVW": ("", "UVW", np.vstack([UVW, UVW[:2], [[np.nan] * 3]]), 1 / 6),
    "have no weight": ("", "SIGMA", np.array([[0.0, 0]] + [[0.5, 0.5]] * 5), 1 / 6),
    "times as long as the baselines": ("", "UVW", np.tile(UVW, (2, 1)) / 0.21, 0.0),
    "deg away from what the antenna positions": ("", "TIME", T0_S + 3600 * np.ones(6).cumsum(), 0),
}


@pytest.mark.parametrize("note", ODD_ROWS)
def test_odd_rows_are_flagged_and_told(source: Path, tmp_path: Path, note: str) -> None:
    table, column, values, flagged = ODD_ROWS[note]
    change(source, column, lambda _: values, table)
    copied = copy_field(source, "0", tmp_path / "b.ms")
    with MeasurementSet(copied.path) as ms:
        assert ms.read("FLAG").mean() == pytest.approx(flagged)
        assert np.isfinite(ms.rows.uvw_m).all()
    assert any(note in one for one in copied.notes)


def test_exposure_stands_for_missing_interval(source: Path, tmp_path: Path) -> None:
    change(source, "INTERVAL", lambda values: values * 0)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        assert ms.rows.interval_s.tolist() == [10.0] * 6
    change(source, "EXPOSURE", lambda values: values * 0)
    with pytest.raises(BadInputError, match="Neither INTERVAL nor EXPOSURE"):
        copy_field(source, "0", tmp_path / "c.ms")


def test_field_of_ambiguous_name_is_refused(source: Path, tmp_path: Path) -> None:
    add_row(source, "FIELD", NAME="x")
    with pytest.raises(BadInputError, match=r"2 fields are called x; the fields are 0 \(x\), 1"):
        copy_field(source, "x", tmp_path / "b.ms")
    change(source, "NAME", lambda _: ["1", "y"], "::FIELD")
    with pytest.raises(BadInputError, match="2 fields are called 1"):
        copy_field(source, "1", tmp_path / "b.ms")
    with pytest.raises(BadInputError, match="No fields are called z"):
        copy_field(source, "z", tmp_path / "b.ms")


def test_telescope_is_that_of_the_rows(source: Path, tmp_path: Path) -> None:
    add_row(source, "OBSERVATION", TELESCOPE_NAME="ATCA")
    change(source, "OBSERVATION_ID", lambda values: values + 1)
    with MeasurementSet(copy_field(source, "0", tmp_path / "b.ms").path) as ms:
        assert ms.header.telescope == "ATCA"
    change(source, "OBSERVATION_ID", put_at(0, 0))
    with pytest.raises(BadInputError, match="observed with ATCA, VLA"):
        copy_field(source, "0", tmp_path / "c.ms")


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
    "positions are in the frame WGS84": lambda path: set_keyword(
        path, "POSITION", "WGS84", "::ANTENNA"
    ),
    "3 rows repeat the time": lambda path: change(path, "TIME", lambda v: v * 0 + T0_S),
    "antennas beyond the 3": lambda path: change(path, "ANTENNA2", put_at(0, 7)),
    "several feeds": lambda path: change(path, "FEED1", put_at(0, 1)),
    "not between 1970 and 2100": lambda path: change(path, "TIME", lambda v: v / 86400),
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
