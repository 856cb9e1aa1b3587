"""Catalogues as plain text: between blanks, under dashes, with positions in six columns."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from contimg.astro.catalogue_files import read_catalogue
from contimg.runtime.errors import BadFileError, BadInputError

RA, DEC = [202.784533, 24.4220833], [-0.5091556, 33.1597500]
"""Of 13 31 08.288, -00 30 32.96 and 01 37 41.3, +33 09 35.1."""
SIX = "RAh,RAm,RAs,DE-,DEd,DEm,DEs,flux_mjy\n"
VIZIER = """#
#   VizieR Astronomical Server vizier.cds.unistra.fr
#Coosys\tJ2000:\teq_FK5 J2000
#Column\tRAJ2000\t(A11)\tRight Ascension (J2000)\t[ucd=pos.eq.ra;meta.main]

"""
TSV = VIZIER + (
    'RAJ2000\tDEJ2000\tflux\n"h:m:s"\t"d:m:s"\tmJy\n-----------\t-----------\t------\n'
    "13 31 08.288\t-00 30 32.96\t1500.0\n01 37 41.300\t+33 09 35.10\t  16.0\n\n#END#\n"
)
ASCII = VIZIER + (
    'RAJ2000      DEJ2000        flux\n"h:m:s"      "d:m:s"         mJy\n'
    "------------ ------------ ------\n13 31 08.288 -00 30 32.96 1500.0\n"
    "01 37 41.300 +33 09 35.10   16.0\n\n#END#\n"
)
IPAC = (
    "\\fixlen = T\n|   ra      |  dec     | flux   |\n| double    | double   | double |\n"
    "| deg       | deg      | mJy    |\n"
    " 202.784533  -0.5091556 1500.0  \n  24.4220833  33.15975  16.0    \n"
)
MRT = """Title: A catalogue
Authors: Someone
Table: Sources
================================================================================
Byte-by-byte Description of file: table1.dat
--------------------------------------------------------------------------------
   Bytes Format Units   Label   Explanations
--------------------------------------------------------------------------------
   1-  2 I2     h       RAh     Hour of Right Ascension (J2000)
   4-  5 I2     min     RAm     Minute of Right Ascension (J2000)
   7- 12 F6.3   s       RAs     Second of Right Ascension (J2000)
  14     A1     ---     DE-     Sign of the Declination (J2000)
  15- 16 I2     deg     DEd     Degree of Declination (J2000)
  18- 19 I2     arcmin  DEm     Arcminute of Declination (J2000)
  21- 25 F5.2   arcsec  DEs     Arcsecond of Declination (J2000)
  27- 32 F6.1   mJy     Flux    Flux at 1.4 GHz
--------------------------------------------------------------------------------
13 31 08.288 -00 30 32.96 1500.0
01 37 41.300 +33 09 35.10   16.0
"""
DEGREES = "202.784533 -0.5091556 1500.0 A\n 24.4220833   33.15975  16.0 B\n"


def read(data: str | bytes, **given: Any) -> dict[str, Any]:
    content = data if isinstance(data, bytes) else data.encode()
    return read_catalogue(content, "file", "other", 1.4e9, **given)


def six_columns(*, sign: bool) -> bytes:
    """Return a FITS table of whole degrees, in which -0 is 0."""
    values = {"RAh": [13, 1], "RAm": [31, 37], "RAs": [8.288, 41.3]}
    values |= {"DEd": [0, 33], "DEm": [30, 9], "DEs": [32.96, 35.1], "flux": [1500.0, 16.0]}
    forms = {"RAs": "D", "DEs": "D", "flux": "D"}
    columns = [
        fits.Column(name, forms.get(name, "J"), unit="mJy" if name == "flux" else None, array=array)
        for name, array in values.items()
    ]
    columns += [fits.Column("DE-", "A1", array=["-", "+"])] if sign else []
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        f"{SIX}13,31,08.288,-,00,30,32.96,1500\n01,37,41.3,+,33,09,35.1,16\n",
        SIX.replace("DE-,", "") + "13,31,08.288,-00,30,32.96,1500\n01,37,41.3,33,09,35.1,16\n",
        SIX.replace("DE-,", "") + "13,31,08.288,\u221200,30,32.96,1500\n1,37,41.3,33,9,35.1,16\n",
        ("ra_h ra_m ra_s dec_sign dec_d dec_m dec_s flux_mjy\n13 31 8.288 - 0 30 32.96 1500\n"
        "1 37 41.3 + 33 9 35.1 16\n"),
        ("ra_deg,ra_min,ra_sec,dec_deg,dec_min,dec_sec,flux_mjy\n"
        "202,47,4.3188,-00,30,32.96,1500\n24,25,19.5,33,09,35.1,16\n"),
        six_columns(sign=True),
        TSV,
        ASCII,
        IPAC,
        MRT,
        "ra dec flux_mjy name\n" + DEGREES,
        "# made by TOPCAT\n# ra             dec            flux_mjy name\n" + DEGREES,
        ('#RA\tDec flux_mjy name\n13:31:08.288 -00:30:32.96 1500 "NVSS J1"\n'
        '01:37:41.3 33:09:35.1 16 "NVSS J2"\n'),
        "# ra,dec,flux_mjy\n202.784533,-0.5091556,1500\n24.4220833,33.15975,16\n",
    ],
)  # fmt: skip
def test_published_texts_are_read(data: str | bytes) -> None:
    found = read(data)
    assert found["ra"] == pytest.approx(RA, abs=1e-6)
    assert found["dec"] == pytest.approx(DEC, abs=1e-6)
    assert found["flux"] == pytest.approx([1.5, 0.016])


def test_all_southern_signs_are_not_nulls() -> None:
    assert read(f"{SIX}13,31,08.288,-,00,30,32.96,1500\n")["dec"] == pytest.approx(DEC[:1])


def test_parts_of_1950_are_turned_and_whole_positions_preferred() -> None:
    old = SIX.replace("RA", "RAB").replace("DE", "DEB") + "13,28,49.657,+,30,45,58.64,1\n"
    true = SkyCoord("13h28m49.657s +30d45m58.64s", frame="fk4").icrs
    found = read(old)
    assert (found["ra"][0], found["dec"][0]) == pytest.approx((true.ra.deg, true.dec.deg), abs=1e-9)
    both = f"RAJ2000,DEJ2000,{SIX}202.7,30.5,13,31,08.288,+,30,30,32.96,1500\n"
    assert (read(both)["ra"][0], read(both)["dec"][0]) == (202.7, 30.5)


def test_empty_position_is_left_out() -> None:
    notes: list[str] = []
    found = read(f"{SIX},,,,,,,4\n13,31,08.288,-,00,30,32.96,1500\n", notes=notes)
    assert np.isfinite(found["dec"]).tolist() == [True]
    assert notes == ["1 of 2 rows left out: no position"]


ECSV = "# %ECSV 1.0\n# ---\n# datatype:\n" + "".join(
    f"# - {{name: {name}, unit: {unit}, datatype: float64}}\n"
    for name, unit in (("ra", "deg"), ("dec", "deg"), ("flux", "Jy"), ("flux", "Jy"))
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (six_columns(sign=False), "Row 1 has 0 degrees without a sign, which may be north or"),
        (f"{SIX}13,61,08.288,-,00,30,32.96,1\n", "Row 1 has '13 61 08.288', which is no position"),
        (f"{SIX}24,31,08.288,-,00,30,32.96,1\n", "Row 1 has '24 31 08.288', which is no position"),
        (f"{SIX}13,31,,-,00,30,32.96,1\n", "Row 1 has '13 31 ', which is no position"),
        (f"{SIX}13,31,08.2,S,00,30,32.96,1\n", "Row 1 has 'S 00 30 32.96', which is no position"),
        (f"{SIX}13,31,08.2,-,-10,30,32.9,1\n", "Row 1 has '- -10 30 32.9', which is no position"),
        ("h,m,s,d,m,s,flux_mjy\n13,31,8.2,-0,30,32,1\n", "Parts of positions are called RAh, RAm"),
        ("RA Dec flux_mjy\n13 31 08.3 -00 30 33 1\n", "Line 2 has 7 words, the first one 3"),
        ("00 00 04.98 -80 30 41.8  1.5  1.6   22.1   1.0\n", "Line 1 has numbers, where the names"),
        ("#  RA  Dec(2000)  Fpeak\n00 00 00.2 +13 38 31.2  1.0\n", "no comment has 7 names"),
        ("10.0,20.0,1.5\n11,21,3\n", "Line 1 has numbers, where the names"),
        (ASCII.replace("10   16.0", "10116.055"), "Line 10 does not fit the columns under the"),
        (f"# FK4 B1950\n{SIX}13,31,08.2,-,10,30,32.9,1\n", "comments mention FK4 1950"),
        (f"{ECSV}ra dec flux flux\n1 2 3 4\n", "Several columns have one name"),
        (IPAC.replace(" dec ", " ra  "), "Several columns have one name"),
    ],
)
def test_what_may_be_misread_is_refused(data: str | bytes, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        read(data)


@pytest.mark.parametrize(
    "data",
    ["# ra dec flux\n", f"{TSV}ra\tdec\n", " ra | dec | flux_mjy \n----+-----+----\n 1 | 2 | 3\n"],
)
def test_other_texts_are_no_tables(data: str) -> None:
    with pytest.raises(BadFileError):
        read(data)
