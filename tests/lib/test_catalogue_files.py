"""Catalogues as published, and bad ones."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from contimg.astro.catalogue_files import Survey, parse_degrees, read_catalogue
from contimg.astro.catalogues import load
from contimg.runtime.errors import BadFileError, BadInputError, Exit, UsageError
from outside import outside_data

RA, DEC = np.array([202.784533, 24.422081, 0.001]), np.array([30.509155, -33.159759, -0.01])
# Units such as mJy/bm and h:m:s, which VizieR writes, are the point.
pytestmark = pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")


def write(made: Table, form: str) -> bytes:
    """Return the file of a table; `form` is fits, votable or ascii.csv."""
    sink = io.StringIO() if form == "ascii.csv" else io.BytesIO()
    made.write(sink, format=form)
    content = sink.getvalue()
    return content.encode() if isinstance(content, str) else content


def survey_table(survey: str) -> Table:
    """Make a few rows as the survey publishes them, in mJy and arcsec."""
    flux = np.array([15000.0, 2.5, 70.0])
    units: dict[str, str] = {}
    if survey == "nvss":  # VizieR VIII/65
        place = SkyCoord(RA, DEC, unit=u.deg)
        columns: dict[str, Any] = {
            "NVSS": ["133108+303032", "013741-330935", "000000-000036"],
            "RAJ2000": place.ra.to_string(u.hour, sep=" ", precision=5),
            "DEJ2000": place.dec.to_string(u.deg, sep=" ", precision=4, alwayssign=True),
        }
        columns |= {"S1.4": flux, "e_S1.4": flux * 0.03, "PA": [1.0, 2.0, 3.0]}
        columns |= {"MajAxis": [16.0, 20.0, 30.0], "MinAxis": [15.0, 19.0, 29.0]}
        units = {"RAJ2000": "h:m:s", "DEJ2000": "d:m:s"}
    elif survey == "first":  # the catalogue of December 2017
        columns = {"RA": RA, "DEC": DEC, "SIDEPROB": [0.0] * 3, "FPEAK": flux * 0.9, "FINT": flux}
        columns |= {"RMS": [0.15] * 3, "MAJOR": [1.0, 2.0, 0.0], "MINOR": [0.5, 1.0, 0.0]}
        columns |= {"POSANG": [10.0, 20.0, 0.0], "FITTED_MAJOR": [5.5, 5.6, 5.4]}
    elif survey == "racs":  # RACS-low, Hale et al. 2021
        columns = {"Source_Name": ["RACS_1", "RACS_2", "RACS_3"], "RA": RA, "Dec": DEC}
        columns |= {"Total_flux_Source": flux, "E_Total_flux_Source": flux * 0.05}
        columns |= {"Peak_flux": flux * 0.95, "Maj": np.full(3, 25.0)}
        columns |= {"DC_Maj": [2.0, 0.0, 9.0], "DC_Min": [1.0, 0.0, 8.0]}
        units = {"RA": "deg", "Dec": "deg", "Peak_flux": "mJy/beam"}
        units |= dict.fromkeys(("Total_flux_Source", "E_Total_flux_Source"), "mJy")
        units |= dict.fromkeys(("Maj", "DC_Maj", "DC_Min"), "arcsec")
    else:  # VLASS, CIRADA's component table
        columns = {"Component_name": [f"VLASS1QLCIR J{n}" for n in (1, 2, 3)], "RA": RA, "DEC": DEC}
        columns |= {"Total_flux": flux, "E_Total_flux": flux * 0.1, "Peak_flux": flux * 0.8}
        columns |= {"DC_Maj": [1.0, 2.0, 3.0], "DC_Min": [0.1, 0.2, 0.3], "DC_PA": [1.0, 2.0, 3.0]}
        columns["Duplicate_flag"] = [0, 1, 0]
    return Table(columns, units=units)


FIRST = survey_table("first")


class TestSurveys:
    @pytest.mark.parametrize("form", ["fits", "votable", "ascii.csv"])
    @pytest.mark.parametrize(
        ("survey", "hz"),
        [("nvss", 1.4e9), ("first", 1.4e9), ("racs", 887.5e6), ("vlass", 2.987741e9)],
    )
    def test_all_formats_are_read_alike(self, survey: Survey, hz: float, form: str) -> None:
        given_hz = hz if survey == "racs" else None
        found = read_catalogue(write(survey_table(survey), form), "file", survey, given_hz)
        # Sexagesimal texts have 1e-5 s of RA and 1e-4 arcsec; the others are doubles.
        np.testing.assert_allclose(found["ra"], RA, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found["dec"], DEC, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found["flux"], [15.0, 2.5e-3, 0.07], rtol=1e-12)
        assert set(found["frequency"]) == {hz}
        assert len(set(found["name"])) == 3

    def test_details_of_surveys(self) -> None:
        first = read_catalogue(write(FIRST, "fits"), "file", "first")
        assert first["flux_peak"] == pytest.approx([13.5, 2.25e-3, 0.063])
        assert first["major"].tolist() == [1.0, 2.0, 0.0]  # deconvolved, not FITTED_MAJOR
        assert first["name"][0] == "FIRST J133108+303032"
        racs = read_catalogue(write(survey_table("racs"), "fits"), "file", "racs", 887.5e6)
        assert racs["major"].tolist() == [2.0, 0.0, 9.0]  # DC_Maj, not Maj
        assert racs["flux_err"] == pytest.approx([0.75, 1.25e-4, 3.5e-3])
        nvss = read_catalogue(write(survey_table("nvss"), "votable"), "file", "nvss")
        assert nvss["name"][0] == "133108+303032"
        made = survey_table("vlass")
        made["Duplicate_flag"] = [0, 2, 1]  # 2: measured better in another row
        names = read_catalogue(write(made, "fits"), "file", "vlass")["name"]
        assert names == ["VLASS1QLCIR J1", "VLASS1QLCIR J3"]

    def test_fitted_sizes_of_nrao_nvss(self) -> None:
        # AIPS's catalogue: flux is the peak times the fitted area over that of the 45 arcsec beam,
        # sizes are not deconvolved.
        sizes = {"MAJOR AX": np.array([45.0, 90.0, 45.0]) / 3600, "MINOR AX": [45.0 / 3600] * 3}
        made = Table({"RA(2000)": RA, "DEC(2000)": DEC, "PEAK INT": [1.0, 2.0, 3.0]} | sizes)
        for name in made.colnames:
            made[name].unit = "JY/BEAM" if name == "PEAK INT" else "DEGREE"
        found = read_catalogue(write(made, "fits"), "file", "nvss")
        assert found["flux"] == pytest.approx([1.0, 4.0, 3.0])
        assert np.isnan(found["major"]).all()

    def test_obit_nvss_is_read(self) -> None:
        found = read_catalogue(outside_data("NVSSVZ.FIT.gz").read_bytes(), "file", "nvss")
        brightest = np.argsort(found["flux"])[::-1][:200]
        assert len(found["name"]) == 125_309
        assert "NVSS J133108+303032" in [found["name"][i] for i in brightest]


class TestFormats:
    @pytest.mark.parametrize(
        ("text", "survey", "column", "expected"),
        [
            (b"ra,dec,flux_mjy\n10,20,3\n", "other", "flux", [0.003]),
            (b"# from a page\n#\nRA,DEC,FINT\n10,20,3\n", "first", "ra", [10.0]),
            (b"ra,dec,flux_jy,freq_mhz\n10,20,3,1000.5\n", "other", "frequency", [1.0005e9]),
            (b"ra,dec,flux_jy\n-10,20,3\n", "nvss", "ra", [350.0]),
        ],
        ids=["unit-in-name", "comments", "frequency", "negative-ra"],
    )
    def test_csv_spellings(
        self, text: bytes, survey: Survey, column: str, expected: list[float]
    ) -> None:
        found = read_catalogue(text, "f.csv", survey, 1e9 if survey == "other" else None)
        assert found[column].tolist() == pytest.approx(expected)

    def test_units_behind_names(self) -> None:
        text = b"ra [deg],dec (deg),flux [uJy],alpha\n10,20,3000,-0.7\n"
        found = read_catalogue(text, "f.csv", "other", 1e9)
        assert found["flux"] == pytest.approx([0.003])
        assert found["spectral_index"] == pytest.approx([-0.7])
        assert found["name"] == ["CAT J004000+200000"]

    def test_gzip_and_missing_values(self) -> None:
        data = gzip.compress(write(FIRST, "ascii.csv"))
        assert len(read_catalogue(data, "f.csv", "first")["ra"]) == 3
        made = Table(FIRST, masked=True)
        made["FINT"].mask = [False, True, False]
        assert len(read_catalogue(write(made, "votable"), "file", "first")["ra"]) == 2
        # Rows without a position or a flux are left out.
        rows = b"10,20,3 ,20,3 10,,3 10,20, 10,20,-1 10,-99,3 -999,0,3 10,20,nan"
        text = b"ra,dec,flux_jy\n" + rows.replace(b" ", b"\n") + b"\n"
        assert len(read_catalogue(text, "f.csv", "nvss")["ra"]) == 1


def fits_image() -> bytes:
    sink = io.BytesIO()
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(sink)
    return sink.getvalue()


class TestBadInput:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is empty"),
            (fits_image(), "no table extension"),
            (b"  \n", "is empty"),
            (write(FIRST, "fits")[:6000], "not a whole FITS file"),
            (write(FIRST, "votable")[:1500], "not a whole VOTable"),
            (
                gzip.compress(write(FIRST, "ascii.csv"))[:-20],
                "not a whole gzip file",
            ),
            (b"ra,dec,flux\n1,2\n", "neither FITS nor VOTable nor CSV"),
            (b"\x00\x01\x02" * 300, "neither FITS nor VOTable nor CSV"),
        ],
    )
    def test_damaged_files(self, data: bytes, message: str) -> None:
        with pytest.raises(BadFileError, match=message) as caught:
            read_catalogue(data, "/here/it.is", "first")
        assert str(caught.value).startswith("/here/it.is: ")
        assert caught.value.exit == Exit.BAD_FILE

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("ra,flux_jy\n1,2\n", r"dec: one of .*the file has ra, flux_jy"),
            ("ra,dec\n1,2\n", r"flux: one of .*the file has ra, dec"),
            ("RAB1875,DEB1875,flux_jy\n1,2,3\n", "positions must be J2000"),
            ("ra,dec,flux\n1,2,3\n", r"Column flux has no unit.*flux \[mJy\]"),
            ("ra,dec,flux [arcsec]\n1,2,3\n", "in arcsec, which cannot be converted to Jy"),
            ("ra,dec,flux [furlong]\n1,2,3\n", "in furlong, which cannot be converted to Jy"),
            ("ra [h:m:s],dec,flux_jy\n1,2,3\n", r"Column ra has numbers in h:m:s.*in degrees"),
            (
                "ra,dec,flux_jy\n1,2,bright\n",
                "column flux_jy: Row 1 has 'bright', which is not a number",
            ),
            ("ra,dec,flux_jy\n12 34,5,3\n", "Row 1 has '12 34', which is not a valid RA"),
            ("ra,dec,flux_jy\n12h4-m1s,5,3\n", "'12h4-m1s', which is not a valid RA"),
            ("ra,dec,flux_jy\nhere,5,3\n", "Row 1 has 'here'"),
            ("ra,dec,flux_jy\n,5,3\n1,2,\n", "None of 2 rows has a position and a flux"),
        ],
    )
    def test_bad_columns_are_named(self, text: str, message: str) -> None:
        with pytest.raises(BadInputError, match=message):
            read_catalogue(text.encode(), "file", "other", 1.4e9)

    @pytest.mark.parametrize("survey", ["racs", "other"])
    def test_unknown_frequency(self, survey: Survey) -> None:
        with pytest.raises(UsageError, match="--frequency-mhz"):
            read_catalogue(b"ra,dec,flux_jy\n1,2,3\n", "file", survey)


def test_sexagesimal_spellings_signs_and_speed() -> None:
    words = np.array(["12 34 56.7", "12:34:56.7", "12h34m56.7s", " 12 34  56.7 ", "188.73625"])
    assert parse_degrees(words, axis="ra") == pytest.approx(188.73625, abs=1e-12)
    words = np.array([b"-00 00 36", b"+00 00 36", b"-12d30m00s", b"-12.5"])
    found = parse_degrees(words.astype(str), axis="dec")
    assert found.tolist() == pytest.approx([-0.01, 0.01, -12.5, -12.5])
    # Full NVSS has 1.8 million rows; astropy's Angle takes minutes for them.
    words = np.array(["12 34 56.7"] * 100_000)
    assert parse_degrees(words, axis="ra").size == 100_000


def contimg(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [Path(sys.executable).parent / "contimg", "catalogue", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


class TestCatalogueCommand:
    def test_added_catalogue_is_loaded(self, tmp_path: Path) -> None:
        file, store = tmp_path / "first_14dec17.fits", tmp_path / "store"
        file.write_bytes(write(FIRST, "fits"))
        done = contimg("add", file, "--catalogue", "first", "--store", store)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["sources"] == 3
        assert summary["catalogue"] == f"{store}/catalogues/first.parquet"
        found = load(summary["catalogue"])
        assert found.title == "first"
        assert found.within(RA[0], DEC[0], 0.001).flux_jy.tolist() == [15.0]

    def test_names(self, tmp_path: Path) -> None:
        (tmp_path / "Mine.csv").write_bytes(b"ra,dec,flux_jy\n1,2,3\n")
        words = ("add", tmp_path / "Mine.csv", "--store", tmp_path, "--frequency-mhz", 1400)
        for name, expected in (((), "mine"), (("--name", "deep"), "deep")):
            uri = json.loads(contimg(*words, *name).stdout)["catalogue"]
            assert uri.endswith(f"/catalogues/{expected}.parquet")
        assert contimg(*words, "--name", "../deep").returncode == Exit.USAGE

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ("add absent.fits", Exit.NOT_FOUND, "absent.fits: There is no such catalogue file."),
            ("add .", Exit.BAD_FILE, "The file cannot be read"),
            ("add", Exit.USAGE, "--file"),
            ("remove", Exit.USAGE, "--action: Input should be 'add'"),
            ("", Exit.USAGE, "--action is required"),
            ("add absent.fits --catalogue iras", Exit.USAGE, "--catalogue"),
        ],
    )
    def test_failures_have_codes(
        self, tmp_path: Path, words: str, code: Exit, message: str
    ) -> None:
        store = ["--store", str(tmp_path)] if words.startswith("add") else []
        done = contimg(*words.split(), *store)
        assert done.returncode == code
        assert message in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_help_and_bad_file(self, tmp_path: Path) -> None:
        (tmp_path / "bad.csv").write_bytes(b"ra,dec\n1,2\n")
        done = contimg("add", tmp_path / "bad.csv", "--store", tmp_path / "store")
        assert done.returncode == Exit.BAD_INPUT
        assert not (tmp_path / "store").exists()
        assert "contimg catalogue add FILE" in contimg("--help").stdout
        assert "--frequency-mhz" in contimg("add", "--help").stdout
