"""Shipped catalogues: known sources, known fluxes, and no assumed flux."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from contimg.astro.catalogues import (
    MIN_BEAM,
    Catalogue,
    calibrators,
    calibrators_in_beam,
    load,
    nvss,
    source_names,
)
from contimg.astro.coordinates import icrs_of_hadec, local_sidereal_time_rad
from contimg.astro.standards import STANDARDS, standard, standard_flux_jy
from contimg.astro.telescope import SITE, band_hz, primary_beam
from contimg.records.schemas.shipped import CATALOGUE
from contimg.runtime.errors import BadInputError, MissingError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

C286, C48, C454 = (202.784533, 30.509155), (24.422081, 33.159759), (343.490616, 16.148211)
GROUP_D = 24 * 12.884902 / 86400


class TestNVSS:
    def test_it_is_whole(self) -> None:
        assert len(nvss()) == 125_309
        assert nvss().dec_deg.min() == pytest.approx(-40.4, abs=0.05)
        assert nvss().flux_jy.min() > 0.0499  # the list is cut at 50 mJy; some have 49.99

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

    def test_it_is_shipped_small(self) -> None:
        assert len((files("contimg.astro") / "data" / "nvss.parquet").read_bytes()) < 2.5e6

    def test_unknown_columns_are_nan(self) -> None:
        assert np.isnan(nvss().spectral_index).all()
        assert np.isnan(nvss().major_arcsec).all()


class TestWithin:
    @pytest.mark.parametrize("centre", [(0.01, 33.0), (359.99, -5.0), (120.0, 89.5), (210.0, 71.6)])
    @pytest.mark.parametrize("radius", [0.0, 0.7, 2.5, 181.0])
    def test_calibrators_equal_exhaustive_search(
        self, centre: tuple[float, float], radius: float
    ) -> None:
        whole = nvss()
        away = (
            SkyCoord(whole.ra_deg, whole.dec_deg, unit=u.deg)
            .separation(SkyCoord(*centre, unit=u.deg))
            .deg
        )
        found = whole.within(*centre, radius)
        assert len(found) == np.count_nonzero(away <= radius)
        np.testing.assert_array_equal(found.ra_deg, whole.ra_deg[away <= radius])

    def test_it_is_fast(self) -> None:
        nvss().within(100.0, 33.0, 2.5)
        start = time.process_time()
        for ra in range(10):
            nvss().within(float(ra), 33.0, 2.5)
        assert (
            time.process_time() - start
        ) / 10 < 0.03  # 1.5 ms of a processor here, whatever else runs

    def test_all_arrays_are_cut_alike(self) -> None:
        part = calibrators().within(*C286, 0.01)
        assert len(part) == part.flux_jy.size == part.code_c.size == part.unit_vectors.shape[0] == 1
        assert part.name.tolist() == ["1331+305"]
        assert part.alias.tolist() == ["3C286"]


class TestNames:
    def test_digits_are_cut(self) -> None:
        made = source_names("DSA", [202.78499, 0.0, 359.999], [30.50999, -0.0001, -89.9999])
        assert made.tolist() == ["DSA J133108+303035", "DSA J000000-000000", "DSA J235959-895959"]


class TestStandards:
    def test_casa_gives_the_same_flux(self) -> None:
        # setjy's answer for 3C286 in the file NGC5921.fits, at 1.4127 GHz, is 15.016.
        assert standard_flux_jy("3C286", 1.4127e9) == pytest.approx(15.016, abs=1e-3)

    @pytest.mark.parametrize(
        ("name", "flux_jy"),
        [("3C286", 17.705), ("3C48", 21.149), ("3C147", 28.288), ("3C123", 63.34)],
    )
    def test_at_1_ghz_only_the_first_coefficient_counts(self, name: str, flux_jy: float) -> None:
        assert standard_flux_jy(name, 1e9) == pytest.approx(
            flux_jy, rel=1e-4
        )  # 10 to the table's 1.2481, ...

    @pytest.mark.parametrize("name", ["3C48", "3C147", "3C196", "3C286", "3C295"])
    def test_nvss_measured_about_the_same(self, name: str) -> None:
        # NVSS is on the scale of Baars et al. 1977, 2 % from this one there, with errors of 3 %;
        # all fit in its beam.
        source = standard(name)
        assert source is not None
        measured = nvss().within(source.ra_deg, source.dec_deg, 0.01).flux_jy.max()
        assert measured == pytest.approx(float(source.flux_jy(1.4e9)), rel=0.05)

    def test_every_polynomial_is_the_one_that_casa_has(self) -> None:
        casadata = pytest.importorskip("casadata")
        tables = pytest.importorskip("casacore.tables")
        with tables.table(
            f"{casadata.datapath}/nrao/VLA/standards/PerleyButler2017Coeffs", ack=False
        ) as table:
            assert table.getcell("Epoch", table.nrows() - 1) == 2017.0
            for source in STANDARDS:
                column = f"{source.name.upper().replace(' ', '_')}_coeffs"
                theirs = table.getcell(column, table.nrows() - 1)
                assert list(source.coefficients) == pytest.approx(list(theirs), abs=1e-6), (
                    source.name
                )

    def test_names_and_positions_lead_to_the_same(self) -> None:
        for source in STANDARDS:
            assert standard(source.name) is standard((source.ra_deg, source.dec_deg)) is source
            assert all(standard(alias.lower()) is source for alias in source.aliases)

    def test_compact_ones_are_where_the_calibrators_are(self) -> None:
        for name in ("3C48", "3C138", "3C147", "3C196", "3C286", "3C295", "3C380"):
            source = standard(name)
            assert source is not None
            listed = calibrators().select(calibrators().alias == name)
            assert float(listed.separation_deg(source.ra_deg, source.dec_deg)[0]) * 3600 < 0.01

    def test_large_ones_are_where_nvss_has_them(self) -> None:
        # NVSS splits what is larger than its beam: something bright is within a few arcmin.
        gone = {"Cassiopeia A", "Fornax A"}  # too large for the VLA's shortest baselines
        for source in STANDARDS:
            if source.dec_deg > -40 and source.name not in gone:
                assert (
                    nvss().within(source.ra_deg, source.dec_deg, 0.12).flux_jy.max(initial=0) > 1.0
                ), source.name

    def test_anchors(self) -> None:
        assert {s.name for s in STANDARDS if s.anchor} == {
            "3C48",
            "3C147",
            "3C196",
            "3C286",
            "3C295",
        }
        assert all(s.remark for s in STANDARDS if not s.anchor)

    @pytest.mark.parametrize("name", ["3C454.3", "2253+161", "3C84", "Vega", ""])
    def test_other_sources_have_no_standard_flux(self, name: str) -> None:
        assert standard(name) is None
        with pytest.raises(UsageError, match="is not a flux standard; these are 3C48, "):
            standard_flux_jy(name, 1.4e9)

    def test_blazar_is_not_a_standard_by_position(self) -> None:
        assert standard(C454) is None

    @pytest.mark.parametrize(("name", "ghz"), [("3C286", 51.0), ("Fornax A", 1.4), ("3C138", 0.1)])
    def test_polynomials_end(self, name: str, ghz: float) -> None:
        with pytest.raises(UsageError, match="GHz"):
            standard_flux_jy(name, [0.3e9, ghz * 1e9])

    def test_shapes_are_kept(self) -> None:
        assert standard_flux_jy("3C286", band_hz()).shape == (768,)
        assert standard_flux_jy("3C286", 1.4e9).shape == ()


class TestCalibrators:
    def test_all_have_a_flux(self) -> None:
        assert len(calibrators()) == 1028
        assert np.all(calibrators().flux_jy > 0)

    def test_the_list_is_read_right(self) -> None:
        source = calibrators().select(calibrators().alias == "3C48")
        assert source.name.tolist() == ["0137+331"]
        assert source.flux_jy.tolist() == [16.5]
        assert (source.code_c[0], source.code_d[0], source.uv_max_klambda[0]) == ("P", "P", 40)
        assert source.ra_deg[0] == pytest.approx(15 * (1 + 37 / 60 + 41.299431 / 3600), abs=1e-9)
        assert source.dec_deg[0] == pytest.approx(33 + 9 / 60 + 35.132990 / 3600, abs=1e-9)
        assert source.spectral_index[0] == pytest.approx(
            np.log(5.48 / 16.5) / np.log(4.8601 / 1.4649), abs=1e-6
        )

    def test_southern_positions_have_their_sign(self) -> None:
        source = calibrators().select(calibrators().alias == "3C446")
        assert source.dec_deg[0] == pytest.approx(-(4 + 57 / 60), abs=0.02)

    def test_positions_are_j2000(self) -> None:
        # B1950 would be off by half a degree: nearly all strong calibrators of the north are in
        # NVSS within its error.
        bright = calibrators().select((calibrators().flux_jy > 1.0) & (calibrators().dec_deg > -39))
        near = [
            nvss().within(ra, dec, 0.005)
            for ra, dec in zip(bright.ra_deg, bright.dec_deg, strict=True)
        ]
        assert np.mean([len(found) > 0 for found in near]) > 0.97

    def test_fluxes_are_those_of_20_cm(self) -> None:
        # Quasars vary, and years lie between: the median ratio to NVSS must still be near one.
        bright = calibrators().select(
            calibrators().usable & (calibrators().flux_jy > 1.0) & (calibrators().dec_deg > -39)
        )
        ratios = []
        for ra, dec, flux in zip(bright.ra_deg, bright.dec_deg, bright.flux_jy, strict=True):
            found = nvss().within(ra, dec, 0.005)
            if len(found):
                ratios.append(flux / found.flux_jy.max())
        assert np.median(ratios) == pytest.approx(1.0, abs=0.1)

    def test_usable_ones(self) -> None:
        usable = set(calibrators().select(calibrators().usable).name)
        assert {"0137+331", "1331+305", "0542+498", "1411+522", "0813+482"} <= usable
        assert not usable & {"2253+161", "1229+020", "0319+415"}  # a blazar, and two coded X


def transit(place: tuple[float, float], day: float) -> float:
    """MJD after `day` at which a place is on the meridian, to a second."""
    moment = day
    for _ in range(5):
        ra, _ = icrs_of_hadec(0.0, np.radians(place[1]), moment, SITE)
        moment += (
            float((np.radians(place[0]) - ra + np.pi) % (2 * np.pi) - np.pi) / (2 * np.pi) * 0.99727
        )
    return moment


class TestInBeam:
    def test_3c286_in_transit(self) -> None:
        middle = transit(C286, 61065.5)
        first = calibrators_in_beam(middle - GROUP_D / 2, middle + GROUP_D / 2, C286[1], SITE)[0]
        assert first.name == "3C286"
        assert first.is_standard
        assert first.compact
        assert first.flux_jy == pytest.approx(float(standard_flux_jy("3C286", np.mean(band_hz()))))
        assert first.apparent_jy == pytest.approx(first.flux_jy * first.beam)
        # PB17's slope there: -0.4507 - 2 * 0.1798 * log10(1.405) + ...
        assert first.spectral_index == pytest.approx(-0.503, abs=0.005)

    def test_the_mean_beam_is_that_of_the_drift(self) -> None:
        # The dishes stand still, the source moves by 15.04 deg/h cos(dec): 1.11 deg in a group
        # here. Its apparent
        # Declination is 0.14 deg from the J2000 one, which is put in.
        middle = transit(C286, 61065.5)
        moments = middle + GROUP_D * (np.linspace(0, 1, 201) - 0.5)
        from contimg.astro.coordinates import apparent_hadec, separation_rad

        ha, dec = apparent_hadec(*np.radians(C286), moments, SITE)
        away = separation_rad(ha, dec, 0.0, np.radians(C286[1]))
        oracle = primary_beam(away[:, None], band_hz()[::16]).mean()
        found = calibrators_in_beam(middle - GROUP_D / 2, middle + GROUP_D / 2, C286[1], SITE)[0]
        # 13 midpoints of a smooth function of which the second derivative is 0.1: the rest is below
        # 1e-3.
        assert found.beam == pytest.approx(float(oracle), abs=1e-3)
        assert 0.9 < found.beam < 0.99

    def test_hours_later_it_is_gone(self) -> None:
        middle = transit(C286, 61065.5) + 1 / 24
        assert "3C286" not in [
            c.name for c in calibrators_in_beam(middle, middle + GROUP_D, C286[1], SITE)
        ]

    def test_order_and_cut(self) -> None:
        day = [
            calibrators_in_beam(61065 + h / 24, 61065 + h / 24 + GROUP_D, 33.0, SITE)
            for h in range(24)
        ]
        for found in day:
            apparent = [c.apparent_jy for c in found]
            assert apparent == sorted(apparent, reverse=True)
            assert all(c.beam >= MIN_BEAM and c.flux_jy > 0 for c in found)

    def test_strips_without_a_standard_have_none(self) -> None:
        # +65.7 and +71.6 have none, +54.6 has 3C295 far out in the beam.
        start = 61065.0

        def anchors(dec: float) -> dict[str, float]:
            groups = [
                calibrators_in_beam(start + i / 288, start + i / 288 + GROUP_D, dec, SITE)
                for i in range(288)
            ]
            return {c.name: c.beam for group in groups for c in group if c.is_standard}

        assert anchors(65.7) == {}
        assert anchors(71.6) == {}
        assert set(anchors(54.6)) == {"3C295"}
        assert anchors(54.6)["3C295"] < 0.1

    def test_blazar_is_not_a_calibrator(self) -> None:
        middle = transit(C454, 61065.0)
        found = calibrators_in_beam(middle - GROUP_D / 2, middle + GROUP_D / 2, C454[1], SITE)
        assert not [c for c in found if abs(c.ra_deg - C454[0]) < 0.1]

    def test_catalogue_fluxes_are_taken_to_the_middle_of_the_band(self) -> None:
        source = calibrators().select(calibrators().name == "0834+555")
        middle = transit((float(source.ra_deg[0]), float(source.dec_deg[0])), 61065.5)
        first = calibrators_in_beam(middle - GROUP_D / 2, middle + GROUP_D / 2, 55.5, SITE)[0]
        assert (first.name, first.is_standard) == ("0834+555", False)
        expected = source.flux_jy[0] * (np.mean(band_hz()) / 1.4649e9) ** source.spectral_index[0]
        assert first.flux_jy == pytest.approx(float(expected))

    def test_transits_move_with_the_sidereal_day(self) -> None:
        one, two = transit(C48, 61065.0), transit(C48, 61066.0)
        assert (two - one) * 86400 == pytest.approx(86164.1, abs=1.0)
        assert local_sidereal_time_rad(two, SITE) == pytest.approx(
            local_sidereal_time_rad(one, SITE), abs=1e-4
        )


class TestLoad:
    def columns(self) -> dict[str, list[object]]:
        return {
            "name": ["a", "b"],
            "ra": [10.0, 20.0],
            "dec": [5.0, -5.0],
            "flux": [1.0, 2.0],
            "flux_err": [0.1, None],
            "flux_peak": [0.9, None],
            "major": [3.0, None],
            "minor": [2.0, None],
            "position_angle": [10.0, None],
            "spectral_index": [-0.7, None],
            "frequency": [1.4e9, 1.4e9],
        }

    def test_a_catalogue_of_the_store(self, tmp_path: Path) -> None:
        (tmp_path / "mine.parquet").write_bytes(CATALOGUE.to_bytes(self.columns()))
        found = load(str(tmp_path / "mine.parquet"))
        assert isinstance(found, Catalogue)
        assert (found.title, found.freq_hz, len(found)) == ("mine", 1.4e9, 2)
        assert found.name.tolist() == ["b", "a"]  # by Declination
        assert found.flux_jy.tolist() == [2.0, 1.0]
        assert found.major_arcsec.tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)

    def test_catalogue_of_several_frequencies_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "mine.parquet").write_bytes(
            CATALOGUE.to_bytes(self.columns() | {"frequency": [1e9, 2e9]})
        )
        assert load(str(tmp_path / "mine.parquet")).freq_hz == 0.0

    def test_bad_or_empty_catalogue_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            load(str(tmp_path / "absent.parquet"))
        (tmp_path / "odd.parquet").write_bytes(b"PAR1 or so")
        with pytest.raises(BadInputError, match="Parquet"):
            load(str(tmp_path / "odd.parquet"))
        (tmp_path / "empty.parquet").write_bytes(CATALOGUE.to_bytes(CATALOGUE.empty()))
        with pytest.raises(BadInputError, match="has no sources"):
            load(str(tmp_path / "empty.parquet"))
