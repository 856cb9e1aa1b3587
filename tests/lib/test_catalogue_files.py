"""Catalogues as published, and bad ones."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from contimg.astro.catalogue_files import parse_degrees, read_catalogue
from contimg.astro.catalogues import load
from contimg.runtime.errors import BadFileError, BadInputError, Exit, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from contimg.astro.catalogue_files import Survey

RA, DEC = np.array([202.784533, 24.422081, 0.001]), np.array([30.509155, -33.159759, -0.01])
SHARED = Path(__file__).parents[3] / "shared" / "data"


def table(**columns: Any) -> Table:
    made = Table()
    for name, value in columns.items():
        values, unit = value if isinstance(value, tuple) else (value, None)
        made[name] = values
        if unit:
            made[name].unit = unit
    return made


def as_fits(made: Table) -> bytes:
    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # units such as mJy/bm are the point
        fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(made)]).writeto(sink)
    return sink.getvalue()


def as_votable(made: Table) -> bytes:
    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as h:m:s, which VizieR writes
        made.write(sink, format="votable")
    return sink.getvalue()


def as_csv(made: Table) -> bytes:
    sink = io.StringIO()
    made.write(sink, format="ascii.csv")
    return sink.getvalue().encode()


FORMATS = pytest.mark.parametrize("write", [as_fits, as_votable, as_csv])


def survey_table(survey: Survey) -> Table:
    """Make a few rows as the survey publishes them, in mJy and arcsec."""
    ra, dec, flux = RA, DEC, np.array([15000.0, 2.5, 70.0])
    sexagesimal = SkyCoord(ra, dec, unit=u.deg)
    if survey == "nvss":  # VizieR VIII/65
        return table(
            NVSS=["133108+303032", "013741-330935", "000000-000036"],
            RAJ2000=(sexagesimal.ra.to_string(u.hour, sep=" ", precision=5), "h:m:s"),
            DEJ2000=(
                sexagesimal.dec.to_string(u.deg, sep=" ", precision=4, alwayssign=True),
                "d:m:s",
            ),
            **{
                "S1.4": flux,
                "e_S1.4": flux * 0.03,
                "MajAxis": [16.0, 20.0, 30.0],
                "MinAxis": [15.0, 19.0, 29.0],
                "PA": [1.0, 2.0, 3.0],
            },
        )
    if survey == "first":  # the catalogue of December 2017
        return table(
            RA=ra,
            DEC=dec,
            SIDEPROB=[0.0] * 3,
            FPEAK=flux * 0.9,
            FINT=flux,
            RMS=[0.15] * 3,
            MAJOR=[1.0, 2.0, 0.0],
            MINOR=[0.5, 1.0, 0.0],
            POSANG=[10.0, 20.0, 0.0],
            FITTED_MAJOR=[5.5, 5.6, 5.4],
        )
    if survey == "racs":  # RACS-low, Hale et al. 2021
        return table(
            Source_Name=["RACS_1", "RACS_2", "RACS_3"],
            RA=(ra, "deg"),
            Dec=(dec, "deg"),
            Total_flux_Source=(flux, "mJy"),
            E_Total_flux_Source=(flux * 0.05, "mJy"),
            Peak_flux=(flux * 0.95, "mJy/beam"),
            Maj=(np.full(3, 25.0), "arcsec"),
            DC_Maj=(np.array([2.0, 0.0, 9.0]), "arcsec"),
            DC_Min=(np.array([1.0, 0.0, 8.0]), "arcsec"),
        )
    return table(  # VLASS, CIRADA's component table
        Component_name=["VLASS1QLCIR J1", "VLASS1QLCIR J2", "VLASS1QLCIR J3"],
        RA=ra,
        DEC=dec,
        Total_flux=flux,
        E_Total_flux=flux * 0.1,
        Peak_flux=flux * 0.8,
        DC_Maj=[1.0, 2.0, 3.0],
        DC_Min=[0.1, 0.2, 0.3],
        DC_PA=[1.0, 2.0, 3.0],
        Duplicate_flag=[0, 1, 0],
    )


class TestSurveys:
    @FORMATS
    @pytest.mark.parametrize(
        ("survey", "hz"),
        [("nvss", 1.4e9), ("first", 1.4e9), ("racs", 887.5e6), ("vlass", 2.987741e9)],
    )
    def test_it_is_read_alike_from_all_formats(
        self, survey: Survey, hz: float, write: Callable[[Table], bytes]
    ) -> None:
        found = read_catalogue(
            write(survey_table(survey)), "file", survey, 887.5e6 if survey == "racs" else None
        )
        # Sexagesimal texts have 1e-5 s of RA and 1e-4 arcsec; the others are doubles.
        np.testing.assert_allclose(found["ra"], RA, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found["dec"], DEC, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found["flux"], [15.0, 2.5e-3, 0.07], rtol=1e-12)
        assert set(found["frequency"]) == {hz}
        assert len(set(found["name"])) == 3

    def test_what_they_tell_beyond(self) -> None:
        first = read_catalogue(as_fits(survey_table("first")), "file", "first")
        assert first["flux_peak"] == pytest.approx([13.5, 2.25e-3, 0.063])
        assert first["major"].tolist() == [1.0, 2.0, 0.0]  # deconvolved, not FITTED_MAJOR
        assert first["name"][0] == "FIRST J133108+303032"
        racs = read_catalogue(as_fits(survey_table("racs")), "file", "racs", 887.5e6)
        assert racs["major"].tolist() == [2.0, 0.0, 9.0]  # DC_Maj, not Maj
        assert racs["flux_err"] == pytest.approx([0.75, 1.25e-4, 3.5e-3])
        nvss = read_catalogue(as_votable(survey_table("nvss")), "file", "nvss")
        assert nvss["name"][0] == "133108+303032"

    def test_duplicates_of_vlass_are_left_out(self) -> None:
        made = survey_table("vlass")
        made["Duplicate_flag"] = [0, 2, 1]
        assert read_catalogue(as_fits(made), "file", "vlass")["name"] == [
            "VLASS1QLCIR J1",
            "VLASS1QLCIR J3",
        ]

    def test_nrao_s_own_nvss_has_fitted_sizes(self) -> None:
        # AIPS's catalogue: flux is the peak times the fitted area over that of the 45 arcsec beam,
        # sizes are not deconvolved.
        made = table(
            **{
                "RA(2000)": (RA, "DEGREE"),
                "DEC(2000)": (DEC, "DEGREE"),
                "PEAK INT": ([1.0, 2.0, 3.0], "JY/BEAM"),
                "MAJOR AX": (np.array([45.0, 90.0, 45.0]) / 3600, "DEGREE"),
                "MINOR AX": (np.full(3, 45.0 / 3600), "DEGREE"),
            }
        )
        found = read_catalogue(as_fits(made), "file", "nvss")
        assert found["flux"] == pytest.approx([1.0, 4.0, 3.0])
        assert np.isnan(found["major"]).all()

    @pytest.mark.skipif(
        not SHARED.exists(), reason="the public catalogues are not beside the project"
    )
    def test_the_real_nvss_of_obit(self) -> None:
        found = read_catalogue((SHARED / "NVSSVZ.FIT.gz").read_bytes(), "file", "nvss")
        brightest = np.argsort(found["flux"])[::-1][:200]
        assert len(found["name"]) == 125_309
        assert "NVSS J133108+303032" in [found["name"][i] for i in brightest]


class TestFormats:
    def test_gzip_by_content(self) -> None:
        assert (
            len(
                read_catalogue(gzip.compress(as_csv(survey_table("first"))), "f.csv", "first")["ra"]
            )
            == 3
        )

    def test_units_behind_names(self) -> None:
        found = read_catalogue(
            b"ra [deg],dec (deg),flux [uJy],alpha\n10,20,3000,-0.7\n", "f.csv", "other", 1e9
        )
        assert found["flux"] == pytest.approx([0.003])
        assert found["spectral_index"] == pytest.approx([-0.7])
        assert found["name"] == ["CAT J004000+200000"]

    def test_units_in_names(self) -> None:
        assert read_catalogue(b"ra,dec,flux_mjy\n10,20,3\n", "f.csv", "other", 1e9)[
            "flux"
        ] == pytest.approx([0.003])

    def test_comments_before_a_header(self) -> None:
        assert (
            len(read_catalogue(b"# from a page\n#\nRA,DEC,FINT\n10,20,3\n", "f.csv", "first")["ra"])
            == 1
        )

    def test_a_frequency_column(self) -> None:
        found = read_catalogue(b"ra,dec,flux_jy,freq_mhz\n10,20,3,1367.5\n", "f.csv", "other")
        assert found["frequency"] == pytest.approx([1.3675e9])

    def test_negative_right_ascensions_are_turned(self) -> None:
        assert read_catalogue(b"ra,dec,flux_jy\n-10,20,3\n", "f.csv", "nvss")["ra"].tolist() == [
            350.0
        ]

    def test_masked_values_of_a_votable(self) -> None:
        made = Table(survey_table("first"), masked=True)
        made["FINT"].mask = [False, True, False]
        assert len(read_catalogue(as_votable(made), "file", "first")["ra"]) == 2

    def test_rows_without_position_or_flux_are_left_out(self) -> None:
        rows = b"10,20,3 ,20,3 10,,3 10,20, 10,20,-1 10,91,3 400,0,3 10,20,nan"
        text = b"ra,dec,flux_jy\n" + rows.replace(b" ", b"\n") + b"\n"
        assert len(read_catalogue(text, "f.csv", "nvss")["ra"]) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is empty"),
            (b"  \n", "is empty"),
            (as_fits(survey_table("first"))[:6000], "not a whole FITS file"),
            (as_votable(survey_table("first"))[:1500], "not a whole VOTable"),
            (gzip.compress(as_csv(survey_table("first")))[:-20], "not a whole gzip file"),
            (b"ra,dec,flux\n1,2\n", "neither FITS nor VOTable nor CSV"),
            (b"\x00\x01\x02" * 300, "neither FITS nor VOTable nor CSV"),
        ],
    )
    def test_damaged_files(self, data: bytes, message: str) -> None:
        with pytest.raises(BadFileError, match=message) as caught:
            read_catalogue(data, "/here/it.is", "first")
        assert str(caught.value).startswith("/here/it.is: ")
        assert caught.value.exit == Exit.BAD_FILE

    def test_a_fits_image(self) -> None:
        sink = io.BytesIO()
        fits.PrimaryHDU(np.zeros((4, 4))).writeto(sink)
        with pytest.raises(BadFileError, match="no table extension"):
            read_catalogue(sink.getvalue(), "file", "first")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"ra,flux_jy\n1,2\n", r"dec: one of .*the file has ra, flux_jy"),
            (b"ra,dec\n1,2\n", r"flux: one of .*the file has ra, dec"),
            (b"RAB1950,DEB1950,flux_jy\n1,2,3\n", "positions must be J2000"),
            (b"ra,dec,flux\n1,2,3\n", r"Column flux has no unit.*flux \[mJy\]"),
            (
                b"ra,dec,flux [arcsec]\n1,2,3\n",
                "flux is in arcsec, which cannot be converted to Jy",
            ),
            (
                b"ra,dec,flux [furlong]\n1,2,3\n",
                "flux is in furlong, which cannot be converted to Jy",
            ),
            (b"ra [h:m:s],dec,flux_jy\n1,2,3\n", r"Column ra has numbers in h:m:s.*in degrees"),
            (b"ra,dec,flux_jy\n1,2,bright\n", "Column flux_jy is not numeric"),
            (b"ra,dec,flux_jy\n12 34,5,3\n", "A position is '12 34', not degrees or three parts"),
            (b"ra,dec,flux_jy\n12h4-m1s,5,3\n", "A position is not numeric"),
            (b"ra,dec,flux_jy\nhere,5,3\n", "A position is 'here'"),
            (b"ra,dec,flux_jy\n,5,3\n1,2,\n", "None of 2 rows has a position and a flux"),
        ],
    )
    def test_columns(self, text: bytes, message: str) -> None:
        with pytest.raises(BadInputError, match=message):
            read_catalogue(text, "file", "other", 1.4e9)

    @pytest.mark.parametrize("survey", ["racs", "other"])
    def test_an_unknown_frequency(self, survey: Survey) -> None:
        with pytest.raises(UsageError, match="--frequency-mhz"):
            read_catalogue(b"ra,dec,flux_jy\n1,2,3\n", "file", survey)


class TestSexagesimal:
    def test_spellings(self) -> None:
        words = np.array(["12 34 56.7", "12:34:56.7", "12h34m56.7s", " 12 34  56.7 ", "188.73625"])
        assert parse_degrees(words, hours=True, where="x") == pytest.approx(188.73625, abs=1e-12)

    def test_signs(self) -> None:
        words = np.array([b"-00 00 36", b"+00 00 36", b"-12d30m00s", b"-12.5"])
        assert parse_degrees(words, hours=False, where="x").tolist() == pytest.approx(
            [-0.01, 0.01, -12.5, -12.5]
        )

    def test_a_million_take_seconds(self) -> None:
        # Full NVSS has 1.8 million rows; astropy's Angle takes minutes for them.
        words = np.array(["12 34 56.7"] * 100_000)
        assert parse_degrees(words, hours=True, where="x").size == 100_000


def contimg(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "contimg", "catalogue", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class TestCatalogueCommand:
    def test_add_and_load(self, tmp_path: Path) -> None:
        (tmp_path / "first_14dec17.fits").write_bytes(as_fits(survey_table("first")))
        done = contimg(
            "add",
            str(tmp_path / "first_14dec17.fits"),
            "--catalogue",
            "first",
            "--store",
            str(tmp_path / "store"),
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["sources"] == 3
        assert summary["catalogue"] == f"{tmp_path}/store/catalogues/first.parquet"
        found = load(summary["catalogue"])
        assert found.title == "first"
        assert found.within(RA[0], DEC[0], 0.001).flux_jy.tolist() == [15.0]

    def test_names(self, tmp_path: Path) -> None:
        (tmp_path / "Mine.csv").write_bytes(b"ra,dec,flux_jy\n1,2,3\n")
        words = (
            "add",
            str(tmp_path / "Mine.csv"),
            "--store",
            str(tmp_path),
            "--frequency-mhz",
            "1400",
        )
        assert json.loads(contimg(*words).stdout)["catalogue"].endswith("/catalogues/mine.parquet")
        assert json.loads(contimg(*words, "--name", "deep").stdout)["catalogue"].endswith(
            "/catalogues/deep.parquet"
        )
        assert contimg(*words, "--name", "../deep").returncode == Exit.USAGE

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (
                ["add", "absent.fits"],
                Exit.NOT_FOUND,
                "absent.fits: There is no such catalogue file.",
            ),
            (["add", "."], Exit.BAD_FILE, "The file cannot be read"),
            (["add"], Exit.USAGE, "--file"),
            (["remove"], Exit.USAGE, "--action: Input should be 'add'"),
            ([], Exit.USAGE, "--action is required"),
            (["add", "absent.fits", "--catalogue", "iras"], Exit.USAGE, "--catalogue"),
        ],
    )
    def test_failures_have_codes(
        self, tmp_path: Path, words: list[str], code: Exit, message: str
    ) -> None:
        done = contimg(*words, *(["--store", str(tmp_path)] if words[:1] == ["add"] else []))
        assert done.returncode == code
        assert message in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_bad_file_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "bad.csv").write_bytes(b"ra,dec\n1,2\n")
        done = contimg("add", str(tmp_path / "bad.csv"), "--store", str(tmp_path / "store"))
        assert done.returncode == Exit.BAD_INPUT
        assert not (tmp_path / "store").exists()

    def test_help(self) -> None:
        assert "contimg catalogue add FILE" in contimg("--help").stdout
        assert "--frequency-mhz" in contimg("add", "--help").stdout
