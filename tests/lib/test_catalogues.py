"""Shipped catalogues: known sources, known fluxes, and no assumed flux."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from contimg.astro import catalogues
from contimg.astro.beam_files import read_beam
from contimg.astro.catalogues import Catalogue, calibrators, load, nvss, source_names
from contimg.astro.coordinates import apparent_hadec, icrs_of_hadec, separation_rad
from contimg.astro.standards import STANDARDS, standard
from contimg.astro.telescope import SITE, band_hz
from contimg.records.schemas.shipped import CATALOGUE
from contimg.runtime.errors import BadInputError, MissingError, UsageError

C286, C48, C454 = (202.784533, 30.509155), (24.422081, 33.159759), (343.490616, 16.148211)
BEAM = read_beam("airy:4.65")
GROUP_D = 24 * 12.884902 / 86400


class TestNVSS:
    def test_nvss_is_whole_and_small(self) -> None:
        assert len(nvss()) == 125_309
        assert nvss().dec_deg.min() == pytest.approx(-40.4, abs=0.05)
        assert nvss().flux_jy.min() > 0.0499  # the list is cut at 50 mJy; some have 49.99
        assert np.isnan(nvss().spectral_index).all()
        assert np.isnan(nvss().major_arcsec).all()
        assert len((files("contimg.astro") / "data" / "nvss.parquet").read_bytes()) < 2.5e6

    @pytest.mark.parametrize(("place", "flux_jy"), [(C286, 15.425), (C48, 16.394), (C454, 12.680)])
    def test_known_sources(self, place: tuple[float, float], flux_jy: float) -> None:
        # Peaks are published to 1 mJy; the quasars are stronger than anything near them.
        near = nvss().within(*place, 0.02)
        brightest = int(np.argmax(near.flux_jy))
        assert near.flux_jy[brightest] == pytest.approx(flux_jy, abs=6e-4)
        assert near.separation_deg(*place)[brightest] * 3600 < 1.0

    def test_names_are_those_of_the_survey(self) -> None:
        assert nvss().within(*C286, 0.001).name.tolist() == ["NVSS J133108+303032"]
        assert nvss().within(*C48, 0.001).name.tolist() == ["NVSS J013741+330935"]
        made = source_names("DSA", [202.78499, 0.0, 359.999], [30.50999, -0.0001, -89.9999])
        assert made.tolist() == ["DSA J133108+303035", "DSA J000000-000000", "DSA J235959-895959"]


def test_fluxes_are_scaled_in_frequency_with_an_error() -> None:
    index, flat = np.array([0.5, np.nan]), np.zeros(2)
    hz = np.array([0.7e9, 2.8e9])
    made = Catalogue("mine", 0.0, flat, flat, np.ones(2), np.ones(2), flat, index, hz)
    found = made.at_frequency(1.4e9)
    assert found.flux_jy == pytest.approx([2**0.5, 2**0.7])
    assert found.peak_jy == pytest.approx(found.flux_jy)
    assert found.freq_hz == 1.4e9
    assert found.scaling_error(1.4e9).tolist() == [0, 0]
    assert made.scaling_error(1.4e9) == pytest.approx(np.log(2) * np.array([0.1, 0.25]))


class TestWithin:
    @pytest.mark.parametrize("centre", [(0.01, 33.0), (359.99, -5.0), (120.0, 89.5), (210.0, 71.6)])
    @pytest.mark.parametrize("radius", [0.0, 0.7, 2.5, 181.0])
    def test_calibrators_equal_exhaustive_search(
        self, centre: tuple[float, float], radius: float
    ) -> None:
        whole, there = nvss(), SkyCoord(*centre, unit=u.deg)
        away = SkyCoord(whole.ra_deg, whole.dec_deg, unit=u.deg).separation(there).deg
        found = whole.within(*centre, radius)
        assert len(found) == np.count_nonzero(away <= radius)
        np.testing.assert_array_equal(found.ra_deg, whole.ra_deg[away <= radius])

    def test_within_is_fast(self) -> None:
        nvss().within(100.0, 33.0, 2.5)
        start = time.process_time()
        for ra in range(10):
            nvss().within(float(ra), 33.0, 2.5)
        # 1.5 ms of a processor here, whatever else runs
        assert (time.process_time() - start) / 10 < 0.03

    def test_all_arrays_are_cut_alike(self) -> None:
        part = calibrators().within(*C286, 0.01)
        assert len(part) == part.flux_jy.size == part.code_c.size == part.unit_vectors.shape[0] == 1
        assert part.name.tolist() == ["1331+305"]
        assert part.alias.tolist() == ["3C286"]


BY_NAME = {source.name: source for source in STANDARDS}


class TestStandards:
    def test_published_fluxes(self) -> None:
        # setjy's answer for 3C286 in the file NGC5921.fits.
        assert BY_NAME["3C286"].flux_jy(1.4127e9) == pytest.approx(15.016, abs=1e-3)
        # At 1 GHz only the first coefficient counts: 10 to the table's 1.2481, ...
        for name, flux in {
            "3C286": 17.705,
            "3C48": 21.149,
            "3C147": 28.288,
            "3C123": 63.34,
        }.items():
            assert BY_NAME[name].flux_jy(1e9) == pytest.approx(flux, rel=1e-4), name

    @pytest.mark.parametrize("name", ["3C48", "3C147", "3C196", "3C286", "3C295"])
    def test_nvss_measured_about_the_same(self, name: str) -> None:
        # NVSS is on the scale of Baars et al. 1977, 2 % from this one there, with errors of 3 %;
        # all fit in its beam.
        source = BY_NAME[name]
        measured = nvss().within(source.ra_deg, source.dec_deg, 0.01).flux_jy.max()
        assert measured == pytest.approx(float(source.flux_jy(1.4e9)), rel=0.05)

    def test_polynomials_equal_casa(self) -> None:
        casadata = pytest.importorskip("casadata")
        tables = pytest.importorskip("casacore.tables")
        path = f"{casadata.datapath}/nrao/VLA/standards/PerleyButler2017Coeffs"
        with tables.table(path, ack=False) as table:
            last = table.nrows() - 1
            assert table.getcell("Epoch", last) == 2017.0
            for source in STANDARDS:
                theirs = table.getcell(f"{source.name.upper().replace(' ', '_')}_coeffs", last)
                found = list(source.coefficients)
                assert found == pytest.approx(list(theirs), abs=1e-6), source.name

    def test_names_and_positions_lead_to_the_same(self) -> None:
        for source in STANDARDS:
            assert standard(source.name) is standard((source.ra_deg, source.dec_deg)) is source
            assert all(standard(alias.lower()) is source for alias in source.aliases)
        for name in ("3C454.3", "2253+161", "3C84", "Vega", "", C454):
            assert standard(name) is None

    def test_compact_ones_are_where_the_calibrators_are(self) -> None:
        for name in ("3C48", "3C138", "3C147", "3C196", "3C286", "3C295", "3C380"):
            source = BY_NAME[name]
            listed = calibrators().select(calibrators().alias == name)
            assert float(listed.separation_deg(source.ra_deg, source.dec_deg)[0]) * 3600 < 0.01

    def test_large_ones_are_where_nvss_has_them(self) -> None:
        # NVSS splits what is larger than its beam: something bright is within a few arcmin.
        gone = {"Cassiopeia A", "Fornax A"}  # too large for the VLA's shortest baselines
        for source in STANDARDS:
            if source.dec_deg > -40 and source.name not in gone:
                near = nvss().within(source.ra_deg, source.dec_deg, 0.12)
                assert near.flux_jy.max(initial=0) > 1.0, source.name

    def test_anchors(self) -> None:
        anchors = {source.name for source in STANDARDS if source.anchor}
        assert anchors == {"3C48", "3C147", "3C196", "3C286", "3C295"}

    @pytest.mark.parametrize(("name", "ghz"), [("3C286", 51.0), ("Fornax A", 1.4), ("3C138", 0.1)])
    def test_frequencies_of_polynomial(self, name: str, ghz: float) -> None:
        with pytest.raises(UsageError, match="GHz"):
            BY_NAME[name].flux_jy([0.3e9, ghz * 1e9])
        assert BY_NAME["3C286"].flux_jy(band_hz()).shape == (768,)
        assert BY_NAME["3C286"].flux_jy(1.4e9).shape == ()


class TestCalibrators:
    def test_list_is_read_right(self) -> None:
        assert len(calibrators()) == 1028
        assert np.all(calibrators().flux_jy > 0)
        source = calibrators().select(calibrators().alias == "3C48")
        assert source.name.tolist() == ["0137+331"]
        assert source.flux_jy.tolist() == [16.5]
        assert (source.code_c[0], source.code_d[0], source.uv_max_klambda[0]) == ("P", "P", 40)
        assert source.ra_deg[0] == pytest.approx(15 * (1 + 37 / 60 + 41.299431 / 3600), abs=1e-9)
        assert source.dec_deg[0] == pytest.approx(33 + 9 / 60 + 35.132990 / 3600, abs=1e-9)
        index = np.log(5.48 / 16.5) / np.log(4.8601 / 1.4649)
        assert source.spectral_index[0] == pytest.approx(index, abs=1e-6)
        southern = calibrators().select(calibrators().alias == "3C446")
        assert southern.dec_deg[0] == pytest.approx(-(4 + 57 / 60), abs=0.02)

    def test_positions_and_fluxes_agree_with_nvss(self) -> None:
        # B1950 would be off by half a degree: nearly all strong calibrators of the north are in
        # NVSS within its error. Quasars vary, and years lie between: the median ratio to NVSS must
        # still be near one.
        listed = calibrators()
        bright = listed.select((listed.flux_jy > 1.0) & (listed.dec_deg > -39))
        places = zip(bright.ra_deg, bright.dec_deg, strict=True)
        peaks = [nvss().within(*place, 0.005).flux_jy.max(initial=0) for place in places]
        found = np.array(peaks) > 0
        assert np.mean(found) > 0.97
        ratio = (bright.flux_jy / np.where(found, peaks, np.nan))[found & bright.usable]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
        usable = set(calibrators().select(calibrators().usable).name)
        assert {"0137+331", "1331+305", "0542+498", "1411+522", "0813+482"} <= usable
        assert not usable & {"2253+161", "1229+020", "0319+415"}  # a blazar, and two coded X


def transit(place: tuple[float, float], day: float) -> float:
    """MJD after `day` at which a place is on the meridian, to a second."""
    moment = day
    for _ in range(5):
        ra, _ = icrs_of_hadec(0.0, np.radians(place[1]), moment, SITE)
        late = float((np.radians(place[0]) - ra + np.pi) % (2 * np.pi) - np.pi)
        moment += late / (2 * np.pi) * 0.99727
    return moment


def in_group(middle: float, dec_deg: float) -> list[catalogues.CalibratorInBeam]:
    return catalogues.calibrators_in_beam(
        middle - GROUP_D / 2, middle + GROUP_D / 2, dec_deg, SITE, BEAM
    )


class TestInBeam:
    def test_3c286_in_transit(self) -> None:
        first = in_group(transit(C286, 61065.5), C286[1])[0]
        assert first.name == "3C286"
        assert first.is_standard
        assert first.compact
        assert first.flux_jy == pytest.approx(float(BY_NAME["3C286"].flux_jy(np.mean(band_hz()))))
        assert first.apparent_jy == pytest.approx(first.flux_jy * first.beam)
        # PB17's slope there: -0.4507 - 2 * 0.1798 * log10(1.405) + ...
        assert first.spectral_index == pytest.approx(-0.503, abs=0.005)
        later = in_group(transit(C286, 61065.5) + 1 / 24 + GROUP_D / 2, C286[1])
        assert "3C286" not in [c.name for c in later]

    def test_mean_beam_is_that_of_the_drift(self) -> None:
        # The dishes stand still, the source moves by 15.04 deg/h cos(dec): 1.11 deg in a group
        # here. Its apparent Declination is 0.14 deg from the J2000 one, which is put in.
        middle = transit(C286, 61065.5)
        assert (transit(C286, 61066.5) - middle) * 86400 == pytest.approx(86164.1, abs=1.0)
        moments = middle + GROUP_D * (np.linspace(0, 1, 201) - 0.5)
        away = separation_rad(
            *apparent_hadec(*np.radians(C286), moments, SITE), 0.0, np.radians(C286[1])
        )
        oracle = BEAM.at_radius(away[:, None], band_hz()[::16]).mean()
        found = in_group(middle, C286[1])[0]
        # 13 midpoints of a smooth function, second derivative 0.1: the rest is below 1e-3.
        assert found.beam == pytest.approx(float(oracle), abs=1e-3)
        assert 0.9 < found.beam < 0.99

    def test_order_and_cut(self) -> None:
        for hour in range(24):
            found = in_group(61065 + hour / 24, 33.0)
            apparent = [c.apparent_jy for c in found]
            assert apparent == sorted(apparent, reverse=True)
            assert all(c.beam >= catalogues.MIN_BEAM and c.flux_jy > 0 for c in found)

    def test_strips_without_standard(self) -> None:
        def anchors(dec: float) -> dict[str, float]:
            groups = [in_group(61065.0 + i / 288, dec) for i in range(288)]
            return {c.name: c.beam for group in groups for c in group if c.is_standard}

        # +65.7 and +71.6 have none, +54.6 has 3C295 far out in the beam.
        assert anchors(65.7) == anchors(71.6) == {}
        assert set(anchors(54.6)) == {"3C295"}
        assert anchors(54.6)["3C295"] < 0.1
        # The blazar is no calibrator.
        found = in_group(transit(C454, 61065.0), C454[1])
        assert not [c for c in found if abs(c.ra_deg - C454[0]) < 0.1]

    def test_catalogue_fluxes_are_of_mid_band(self) -> None:
        source = calibrators().select(calibrators().name == "0834+555")
        middle = transit((float(source.ra_deg[0]), float(source.dec_deg[0])), 61065.5)
        first = in_group(middle, 55.5)[0]
        assert (first.name, first.is_standard) == ("0834+555", False)
        expected = source.flux_jy[0] * (np.mean(band_hz()) / 1.4649e9) ** source.spectral_index[0]
        assert first.flux_jy == pytest.approx(float(expected))


class TestLoad:
    @pytest.fixture
    def columns(self) -> dict[str, list[object]]:
        found: dict[str, list[object]] = {c.name: [0.5, None] for c in CATALOGUE.columns}
        found |= {"name": ["a", "b"], "ra": [10.0, 20.0], "dec": [5.0, -5.0]}
        return found | {"flux": [1.0, 2.0], "major": [3.0, None], "frequency": [1.4e9, 1.4e9]}

    def test_stored_catalogue(self, tmp_path: Path, columns: dict[str, list[object]]) -> None:
        (tmp_path / "mine.parquet").write_bytes(CATALOGUE.to_bytes(columns))
        found = load(str(tmp_path / "mine.parquet"))
        assert isinstance(found, Catalogue)
        assert (found.title, found.freq_hz, len(found)) == ("mine", 1.4e9, 2)
        assert found.name.tolist() == ["b", "a"]  # by Declination
        assert found.flux_jy.tolist() == [2.0, 1.0]
        assert found.major_arcsec.tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)
        columns["frequency"] = [1e9, 2e9]
        (tmp_path / "mine.parquet").write_bytes(CATALOGUE.to_bytes(columns))
        assert load(str(tmp_path / "mine.parquet")).freq_hz == 0.0

    def test_bad_or_empty_catalogue_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            load(str(tmp_path / "absent.parquet"))
        (tmp_path / "odd.parquet").write_bytes(b"PAR1 or so")
        with pytest.raises(BadInputError, match="Parquet"):
            load(str(tmp_path / "odd.parquet"))
        (tmp_path / "empty.parquet").write_bytes(CATALOGUE.to_bytes(CATALOGUE.rows([])))
        with pytest.raises(BadInputError, match="has no sources"):
            load(str(tmp_path / "empty.parquet"))
