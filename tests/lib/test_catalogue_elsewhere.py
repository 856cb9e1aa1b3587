"""Catalogues as people bring them: what a file says of itself is used, or the file is refused."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.io.votable.tree import CooSys, Info
from astropy.table import QTable, Table

from contimg.astro.catalogue_check import compare_with_nvss, find_faults
from contimg.astro.catalogue_files import UserStatements, read_catalogue
from contimg.astro.catalogue_positions import parse_degrees
from contimg.astro.catalogues import Catalogue, nvss
from contimg.runtime.errors import BadFileError, BadInputError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
TRUTH = SkyCoord("13h31m08.288s +30d30m32.96s")
OLD, GAL = TRUTH.transform_to("fk4"), TRUTH.galactic
UNITS = {"ra": "deg", "dec": "deg", "flux": "Jy"}


def one(ra: float = 202.784533, dec: float = 30.509155, **more: Any) -> Table:
    columns = {"ra": [ra], "dec": [dec], "flux": [15.0]} | {k: [v] for k, v in more.items()}
    return Table(columns, units=UNITS)


def votable(*tables: Table, frames: tuple[tuple[str, str, str], ...] = (), **info: str) -> bytes:
    """Return a VOTable; frames are system, equinox and the names of fields that refer to it."""
    made = from_table(tables[0])
    resource = made.resources[0]
    for table in tables[1:]:
        resource.tables.append(from_table(table).resources[0].tables[0])
    for number, (system, equinox, names) in enumerate(frames):
        resource.coordinate_systems.append(
            CooSys(ID=f"f{number}", system=system, equinox=equinox or None)
        )
        for field in resource.tables[0].fields:
            if field.name in names.split():
                field.ref = f"f{number}"
    for name, value in info.items():
        resource.infos.append(Info(name=name, value=value))
    sink = io.BytesIO()
    made.to_xml(sink)
    return sink.getvalue()


def fits_table(*tables: Table, primary: dict[str, Any] | None = None, **cards: Any) -> bytes:
    units = [fits.table_to_hdu(table) for table in tables]
    units[0].header.update(cards)
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary or {})), *units]).writeto(sink)
    return sink.getvalue()


def ecsv(table: Table, **meta: Any) -> bytes:
    table.meta.update(meta)
    sink = io.StringIO()
    table.write(sink, format="ascii.ecsv", delimiter=",")
    return sink.getvalue().encode()


def described(table: Table, text: str) -> Table:
    table["ra"].description = table["dec"].description = text
    return table


def read(data: bytes, **given: str) -> dict[str, Any]:
    return read_catalogue(data, "file", "other", 1.4e9, given=UserStatements(**given))


B1950 = one(OLD.ra.deg, OLD.dec.deg)
GALACTIC = one(GAL.l.deg, GAL.b.deg)


@pytest.mark.parametrize(
    "data",
    [
        votable(one()),
        votable(B1950, frames=(("eq_FK4", "B1950", "ra dec"),)),
        votable(B1950, frames=(("FK4", "1950.0", ""),)),
        votable(B1950, frames=(("eq_FK4", "B1950", "ra dec"), ("ICRS", "", "flux"))),
        votable(GALACTIC, frames=(("galactic", "", "ra dec"),)),
        votable(one(), frames=(("ICRS", "", "ra dec"), ("eq_FK4", "B1950", "flux"))),
        fits_table(B1950, RADESYS="FK4"),
        fits_table(B1950, EQUINOX=1950.0),
        fits_table(B1950, primary={"RADESYS": "FK4", "EQUINOX": 1950.0}),
        fits_table(B1950, RADECSYS="FK4", EPOCH=1950.0),
        fits_table(B1950, RADE1="FK4", EQUI1=1950.0, RADE2="FK4", EQUI2=1950.0),
        fits_table(one(), primary={"EPOCH": 1950.0}),
        fits_table(B1950, TCOMM1="RA (B1950)", TCOMM2="Declination (B1950)"),
        fits_table(GALACTIC, TUCD1="pos.galactic.lon", TUCD2="pos.galactic.lat"),
        ecsv(B1950.copy(), RADESYS="FK4", EQUINOX=1950.0),
        ecsv(one(), RADESYS="FK5", EQUINOX="J2000"),
        ecsv(described(B1950.copy(), "Right ascension, equinox B1950")),
        f"RA (B1950),Dec (B1950),flux_jy\n{OLD.ra.deg},{OLD.dec.deg},1\n".encode(),
        f"RA (J2000),Dec (J2000),flux_jy\n{TRUTH.ra.deg},{TRUTH.dec.deg},1\n".encode(),
        f"ra,dec,equinox,flux_jy\n{OLD.ra.deg},{OLD.dec.deg},1950,1\n".encode(),
        f"ra,dec,frame,flux_jy\n{OLD.ra.deg},{OLD.dec.deg},FK4,1\n".encode(),
        f"RAB1950,DEB1950,flux_jy\n{OLD.ra.deg},{OLD.dec.deg},1\n".encode(),
        f"GLON,GLAT,flux_jy\n{GAL.l.deg},{GAL.b.deg},1\n".encode(),
        f"l,b,flux_jy\n{GAL.l.deg},{GAL.b.deg},1\n".encode(),
        votable(B1950, equinox="B1950"),
        ecsv(QTable({"place": TRUTH.reshape(1).fk4, "flux": [15.0] * u.Jy})),
    ],
)
def test_positions_are_those_of_the_stated_frame(data: bytes) -> None:
    found = read(data)
    away = TRUTH.separation(SkyCoord(found["ra"], found["dec"], unit="deg")).arcsec[0]
    assert away < 0.1  # positions have 1e-6 deg; FK5 and ICRS differ by 0.03 arcsec


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (votable(one(), frames=(("ecl_FK5", "J2000", "ra dec"),)), "frame 'ecl_FK5'"),
        (votable(one(), frames=(("eq_FK4", "", "ra"), ("ICRS", "", "dec"))), "contradictory"),
        (votable(one(), frames=(("eq_FK4", "", ""), ("ICRS", "", ""))), "Say with --frame"),
        (fits_table(one(), RADESYS="GAPPT"), "frame 'GAPPT'"),
        (fits_table(one(), RADESYS="FK5", TCOMM1="RA (1950)"), "contradictory"),
        (b"# positions are FK4, B1950\nra,dec,flux_jy\n1,2,3\n", "comments mention FK4 1950"),
        (ecsv(one(), comments=["precessed from B1950"]), "comments mention FK4 1950"),
        (b"elon,elat,flux_jy\n1,2,3\n", "Columns are missing"),
        (b"# coordinates: Galactic\nra,dec,flux_jy\n1,2,3\n", "comments mention GALACTIC"),
        (b"ra,dec,frame,flux_jy\n1,2,FK4,3\n1,3,ICRS,3\n", "frame differs between rows"),
        (b"ra,dec,flux,unit\n1,2,3,Jy\n1,3,3,mJy\n", "unit differs between rows"),
    ],
)
def test_unknown_and_contradictory_frames_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        read(data)


def test_frame_may_be_given() -> None:
    data = b"# FK4, B1950\nra,dec,flux_jy\n" + f"{OLD.ra.deg},{OLD.dec.deg},3\n".encode()
    found = read(data, frame="fk4")
    assert found["ra"][0] == pytest.approx(TRUTH.ra.deg, abs=3e-5)


@pytest.mark.parametrize(
    ("text", "axis", "unit", "degrees"),
    [
        ("\u221233 09 35.1", "dec", "", -33.15975),
        ("\u201333.16", "dec", "", -33.16),
        ("\u2014" + "33:09:35.1", "dec", "", -33.15975),
        ("33 09 35.1 S", "dec", "", -33.15975),
        ("33 09 35.1N", "dec", "", 33.15975),
        ("\u221233\u00b009\u203235.1\u2033", "dec", "", -33.15975),
        ("12d30m00s", "ra", "", 12.5),
        ("12h30m00s", "ra", "", 187.5),
        ("12 30 00", "ra", "deg", 12.5),
        ("12\u00a030 00", "ra", "h:m:s", 187.5),
        ("12.5h", "ra", "", 187.5),
        ("", "dec", "", np.nan),
        ("12h30m00s", "dec", "", None),
        ("12d30m00s", "ra", "h:m:s", None),
        ("12h30m00s", "ra", "deg", None),
        ("12 60 00", "ra", "", None),
        ("12 30 60.0", "dec", "", None),
        ("24 00 00", "ra", "", None),
        ("-12 00 00", "ra", "", None),
        ("-33 09 35 S", "dec", "", None),
        ("33 09 35 E", "dec", "", None),
        ("33 09 35.1s", "dec", "", None),
        ("12 30 00 N", "ra", "", None),
        ("33,16", "dec", "", None),
        ("33:09 35", "dec", "", None),
        ("33 09", "dec", "", None),
        ("~33.1", "dec", "", None),
        ("3\uff13.1", "dec", "", None),
    ],
)
def test_texts_of_positions_are_understood_or_refused(
    text: str, axis: str, unit: str, degrees: float | None
) -> None:
    words = np.array(["", text])
    if degrees is None:
        with pytest.raises(BadInputError, match=r"Row 2 has '.+', which is not a valid"):
            parse_degrees(words, axis=axis, unit=unit)
        return
    found = parse_degrees(words, axis=axis, unit=unit)[1]
    assert found == pytest.approx(degrees, abs=1e-9, nan_ok=True)


ROW = b"ra,dec,flux [Jy],e_flux [Jy],major [arcsec],spectral_index\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"ra,dec,flux\ndeg,deg,mJy\n10,20,1500\n", 1.5),
        (b"ra,dec,flux\n[deg],[deg],[mJy]\n10,20,1500\n", 1.5),
        (b"\xef\xbb\xbf# made by hand\nra,dec,flux {mJy}\n10,20,1500\n", 1.5),
        ("ra,dec,flux [mJy]\n10,20,1500\n".encode("utf-16"), 1.5),
        (b"ra,dec,flux [mJy]\r10,20,1500\r", 1.5),
        (b"ra\tdec\tflux\ndeg\tdeg\tmJy\n---\t---\t---\n10\t20\t1500\n", 1.5),
        (b"ra;dec;flux [MJY]\n10;20;1500\n", 1.5),
        (b"ra,dec,flux,flux_unit\n10,20,1500,mJy\n# one row\n", 1.5),
        (b"# names truncated to 8 characters\nra,dec,flux_mjy\n10,20,1500\n", 1.5),
        ("ra,dec,flux [\u00b5Jy]\n10,20,1500000\n".encode(), 1.5),
        (b"ra,dec,flux [10-3Jy]\n10,20,1500\n", 1.5),
        (b"ra,dec,peak_flux [mJy beam-1]\n10,20,1500\n", 1.5),
        (b'ra,dec,flux [mJy]\n10,20,"1500"\n10,21,--\n', 1.5),
        (b"ra [h],dec,flux [mJy]\n0.66666666667,20,1500\n", 1.5),
        (b"ra,dec,flux_jy,freq [mhz]\n10,20,1.5,1400\n", 1.5),
        (fits_table(Table({"ra": [10.0], "dec": [20.0], "flux": ["1500"]}, units={"flux": "mJy"})),
         1.5),
        (votable(Table({"ra": [10.0], "dec": [20.0], "flux": ["1500"]}, units={"flux": "mJy"})),
         1.5),
    ],
)  # fmt: skip
def test_units_and_encodings(data: bytes, expected: float) -> None:
    found = read(data)
    assert found["flux"].tolist() == pytest.approx([expected])
    assert found["ra"] == pytest.approx([10.0])
    assert found["frequency"].tolist() == [1.4e9]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"ra,dec,flux [MJy]\n10,20,1\n", BadInputError, "beyond what is possible"),
        (b"ra,dec,flux_jy,freq [mHz]\n10,20,1,1400\n", BadInputError, "mHz are millihertz"),
        (b"ra,dec,flux_jy,freq\n10,20,1,1400\n", BadInputError, r"'freq \[MHz\]'"),
        (b"ra,dec,flux [mag]\n10,20,1\n", BadInputError, "cannot be converted to Jy"),
        (fits_table(one()).replace(b"'Jy      '", b"'dex(Jy) '"), BadInputError, "cannot be"),
        (b"ra,dec,flux\ndeg,deg,[Jy]\n10,20,1\n", BadInputError, "cannot be converted to Jy"),
        (b"ra,dec,flux_mjy [Jy]\n10,20,1\n", BadInputError, "its name says otherwise"),
        (fits_table(one(), TUCD3="em.radio.100-200MHz"), BadInputError, "UCD says em.radio"),
        (b"# limited to 1000 rows\nra,dec,flux_jy\n10,20,1\n", BadFileError, "not whole"),
        (b"ra,dec,flux\n10,20,1\n", BadInputError, "--flux-unit"),
        (b"ra,dec,flux_jy\n10,91,1\n", BadInputError, "Row 1 has 91 deg"),
        (b"ra,dec,flux_jy\n10,20,1\n400,20,1\n", BadInputError, "Row 2 has 400 deg"),
        (b"ra,dec,flux_jy,flux_jy\n10,20,1,2\n", BadInputError, "2 columns of one name"),
        (b"ra,dec,flux_jy\n10,20,<1.5\n", BadInputError, "Row 1 has '<1.5'"),
        (b"ra;dec;flux_jy\n10,5;20;1\n", BadInputError, "Row 1 has '10,5'"),
        (b"ra,dec,flux_jy\n10,20,2020-01-01\n", BadInputError, "is not numeric"),
        (b"ra,dec,flux_jy\n10,20,true\n", BadInputError, "is not numeric"),
        ("ra,dec,flux_jy\n10,20,1\u00e9\n".encode("latin-1"), BadFileError, "Line 2 is not text"),
        (b"# truncated: limit of rows reached\nra,dec,flux_jy\n10,20,1\n", BadFileError, "whole"),
        (votable(one(), QUERY_STATUS="OVERFLOW"), BadFileError, "not whole"),
        (
            votable(one()).replace(b"<TABLE>", b'<TABLE nrows="5">'),
            BadFileError,
            "by its nrows it had 5",
        ),
        (votable(one(), QUERY_STATUS="ERROR"), BadFileError, "answered with an error"),
        (votable(one(), one(30.0)), UsageError, "2 tables with positions"),
        (fits_table(one(), one(30.0)), UsageError, "2 tables with positions"),
        (fits_table(one(flux_err=[1.0, 2.0])), BadInputError, "flux_err has 2 numbers a row"),
        (fits_table(one(freq=1j)), BadInputError, "is not numeric: it has"),
        (ecsv(one(flux_err=[1.0, 2.0])), BadInputError, "flux_err has 2 numbers a row"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read(data)


def test_table_may_be_chosen_and_others_are_named() -> None:
    second = one(30.0)
    for data in (votable(one(), second), fits_table(one(), second)):
        assert read(data, table="2")["ra"] == pytest.approx([30.0])
        with pytest.raises(UsageError, match="no table '3'"):
            read(data, table="3")
    notes: list[str] = []
    history = Table({"text": ["made by hand"]})
    found = read_catalogue(fits_table(history, one()), "file", "other", 1.4e9, notes=notes)
    assert found["flux"].tolist() == [15.0]
    assert notes == ["the file has 2 tables, one with positions was read"]


def test_trailing_overflow_is_seen() -> None:
    data = votable(one()).replace(
        b"</RESOURCE>", b'<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>'
    )
    with pytest.raises(BadFileError, match="OVERFLOW"):
        read(data)


def test_fluxes_of_other_programs() -> None:
    aegean = Table({"ra": [10.0], "dec": [20.0], "int_flux": [16.2], "peak_flux": [15.9]})
    aegean["uuid"] = ["a"]
    plain = aegean["ra", "dec", "int_flux", "peak_flux"]
    for survey in ("racs", "other"):
        found = read_catalogue(fits_table(aegean), "f", survey, 887.5e6)
        assert found["flux"].tolist() == [16.2]
        with pytest.raises(BadInputError, match="int_flux has no unit"):
            read_catalogue(fits_table(plain), "f", survey, 887.5e6)
    given = UserStatements(flux_unit="mJy")
    found = read_catalogue(fits_table(plain), "f", "racs", 887.5e6, given=given)
    assert found["flux"] == pytest.approx([0.0162])
    pybdsf = b"RA,DEC,Total_flux,Isl_Total_flux\n10,20,16.2,16.2\n"
    with pytest.raises(BadInputError, match="Total_flux has no unit"):
        read_catalogue(pybdsf, "f", "vlass")


def test_nulls_of_all_kinds() -> None:
    rows = (
        b"10,20,1.5,-1,-1,-99\n-999,-999,1,1,1,1\n11,20,-999,1,1,1\n,20,1,1,1,1\n12,20,NaN,,,\n"
        b"13,20,2.0,0.1,5,-0.5\n"
    )
    notes: list[str] = []
    found = read_catalogue(ROW + rows, "f", "other", 1.4e9, notes=notes)
    assert found["flux"].tolist() == [1.5, 2.0]
    for name, value in (("flux_err", 0.1), ("major", 5.0), ("spectral_index", -0.5)):
        assert found[name] == pytest.approx([np.nan, value], nan_ok=True), name
    assert notes == [
        "2 of 6 rows left out: no position",
        "2 of 6 rows left out: no positive flux",
    ]


def test_fits_scaling_and_nulls() -> None:
    columns = [
        fits.Column("ra", "D", unit="deg", array=[10.0, 11.0, 12.0]),
        fits.Column("dec", "J", unit="deg", array=[20, -99999, 30], null=-99999),
        fits.Column("flux", "I", unit="mJy", array=np.array([14000, 19000, 24000])),
    ]
    unit = fits.BinTableHDU.from_columns(columns)
    unit.header.update(TSCAL3=0.1, TZERO3=100.0)
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(sink)
    assert read(sink.getvalue())["flux"] == pytest.approx([1.5, 2.5])
    text = [fits.Column("ra", "F8.3", array=[10.0, 11.0]), fits.Column("flux", "F8.3", unit="Jy")]
    text.insert(1, fits.Column("dec", "F8.3", array=[20.0, 30.0], null="---"))
    text[2] = fits.Column("flux", "F8.3", unit="Jy", array=[1.5, 2.5])
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(text)]).writeto(sink)
    blanked = sink.getvalue().replace(b"  30.000", b"     ---")
    assert read(blanked)["flux"].tolist() == [1.5]


def test_votable_nulls_and_groups() -> None:
    made = Table(one(n=3), masked=True)
    made.add_row([40.0, 20.0, 2.0, 4])
    made["dec"].mask = [False, True]
    assert read(votable(made))["flux"].tolist() == [15.0]


@pytest.mark.parametrize(
    ("data", "note"),
    [
        ("ra,dec,flux_jy\n10,20,1\n10.0001,20,1.1\n", "2 rows are within 1 arcsec of others"),
        ("ra,dec,flux_jy,pmra\n10,20,1,5000\n", "proper motions are not used"),
        ("ra,dec,flux_jy,alpha\n" + "10,{},1,0.8\n" * 10, "the median spectral index is \\+0.8"),
        ("ra,dec,flux_jy\n" + "10,{},1\n" * 50, "exactly 50 rows: was the answer"),
    ],
)
def test_what_is_odd_is_told(data: str, note: str) -> None:
    notes: list[str] = []
    read_catalogue(data.format(*range(50)).encode(), "f", "other", 1.4e9, notes=notes)
    assert len(notes) == 1
    assert re.match(note, notes[0])


def test_name_of_several_sources_is_no_name() -> None:
    found = read(b"ra,dec,flux_jy,name\n10,20,1,A\n11,20,2,A\n12,20,2,B\n")
    assert found["name"] == ["CAT J004000+200000", "CAT J004400+200000", "B"]


def test_limits_and_repeated_rows_are_no_sources() -> None:
    rows = b"ra,dec,S1.4,l_S1.4\n10,20,1.5,\n11,20,2.5,<\n10,20,1.5,\n"
    notes: list[str] = []
    found = read_catalogue(rows, "f", "nvss", notes=notes)
    assert found["flux"].tolist() == [0.0015]
    assert notes == [
        "1 of 3 rows left out: a limit for a flux",
        "1 of 3 rows left out: repeated",
    ]


@pytest.mark.parametrize(
    ("text", "survey", "given_hz"),
    [
        (b"ra,dec,flux_jy,freq_mhz\n10,20,1,887.5\n", "other", 150e6),
        (b"ra,dec,flux_jy\n10,20,1\n", "nvss", 150e6),
        (b"ra,dec,S1.4 [mJy]\n10,20,1\n", "other", 150e6),
    ],
)
def test_contradictory_frequency_is_refused(text: bytes, survey: Any, given_hz: float) -> None:
    with pytest.raises(UsageError, match="150 MHz were given"):
        read_catalogue(text, "f", survey, given_hz)


def listed(hz: float = 887.5e6, factor: float = 1.0, **changed: Any) -> Catalogue:
    """Return what a survey at a frequency would list of a field, with alpha = -0.7."""
    part = nvss().within(180.0, 30.0, 4.0)
    nothing = np.full(len(part), np.nan)
    values = {"ra_deg": part.ra_deg, "dec_deg": part.dec_deg}
    values |= {"flux_jy": part.flux_jy * factor * (hz / 1.4e9) ** -0.7, "peak_jy": nothing}
    values |= {"major_arcsec": nothing, "spectral_index": nothing} | changed
    return Catalogue("new", hz, **values)


@pytest.mark.parametrize("hz", [150e6, 887.5e6, 2.99e9])
def test_good_list_compares_well_with_nvss(hz: float) -> None:
    seen = compare_with_nvss(listed(hz))
    assert seen.flux_ratio == pytest.approx(1.0, abs=1e-3)
    assert seen.matches == seen.possible > 50
    assert (seen.ra_offset_arcsec, seen.dec_offset_arcsec) == (0.0, 0.0)
    assert find_faults(seen, listed(hz)) == ([], [])


def test_few_matches_tell_a_wrong_unit() -> None:
    few = listed(factor=1e3).select(np.arange(1))
    assert "is the unit wrong" in find_faults(compare_with_nvss(few), few)[0][0]
    away = listed(dec_deg=listed().dec_deg + 0.1)
    lost = away.select(np.argsort(-away.flux_jy)[:2])
    assert "none of 2 sources" in find_faults(compare_with_nvss(lost), lost)[1][0]


def old_positions() -> dict[str, Any]:
    part = nvss().within(180.0, 30.0, 4.0)
    old = SkyCoord(part.ra_deg, part.dec_deg, unit=u.deg).transform_to("fk4")
    return {"ra_deg": old.ra.deg, "dec_deg": old.dec.deg}


@pytest.mark.parametrize(
    ("new", "wrong", "doubtful"),
    [
        (listed(factor=1e3), "is the unit wrong", ""),
        (listed(factor=1e-3), "is the unit wrong", ""),
        (listed(factor=2.0), "", r"median flux is 2 of NVSS's"),
        (listed(dec_deg=listed().dec_deg + 5 / 3600), "", "median offset from NVSS is .*, 5 arc"),
        (listed(**old_positions()), r"are if they are in FK4 B1950 \(--frame fk4\)", ""),
        (listed(dec_deg=-listed().dec_deg), "with the opposite sign of Dec", ""),
    ],
)
def test_faulty_list_is_told_by_nvss(new: Catalogue, wrong: str, doubtful: str) -> None:
    found = find_faults(compare_with_nvss(new), new)
    for texts, words in zip(found, (wrong, doubtful), strict=True):
        assert bool(texts) == bool(words), texts
        assert re.search(words, " ".join(texts))
