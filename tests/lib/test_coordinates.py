"""Our chain of coordinates against astropy's and pyuvdata's, and against what a sphere must do."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contimg.astro.coordinates import (
    MJD_ZERO_JD,
    Site,
    apparent_hadec,
    circular_mean_rad,
    direction_cosines,
    direction_of_cosines,
    earth_orientation,
    earth_rotation,
    icrs_of_hadec,
    local_sidereal_time_rad,
    separation_rad,
    use_offline_iers,
)
from contimg.astro.telescope import SITE
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

ARCSEC = np.pi / 180 / 3600
# 2025-01-01 to 2027-06: all dates of the data and a year of predictions.
DATES = np.array([60676.1, 60750.9, 60900.25, 61065.93, 61200.4, 61366.77, 61500.05, 61571.6])
OTHER = Site(lat_deg=-33.3, lon_deg=149.6, height_m=237.0)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever needs the network fails at once."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    use_offline_iers()


def sky(count: int, seed: int = 1) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 2 * np.pi, count), np.arcsin(rng.uniform(-0.6, 0.999, count))


def wrapped(angle: FloatArray) -> FloatArray:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


class TestApparent:
    @pytest.mark.parametrize("site", [SITE, OTHER], ids=["ovro", "south"])
    def test_it_is_the_hadec_of_astropy(self, site: Site) -> None:
        from astropy import units as u
        from astropy.coordinates import HADec, SkyCoord
        from astropy.time import Time

        ra, dec = sky(50)
        where = _location(site)
        for mjd in DATES:
            frame = HADec(
                obstime=Time(mjd, format="mjd", scale="utc"), location=where, pressure=0 * u.hPa
            )
            oracle = SkyCoord(ra * u.rad, dec * u.rad, frame="icrs").transform_to(frame)
            ha, app_dec = apparent_hadec(ra, dec, mjd, site)
            # Both call SOFA; the rest is rounding of times (0.6 us is 0.01 mas).
            assert np.abs(wrapped(ha - oracle.ha.rad) * np.cos(dec)).max() < 1e-4 * ARCSEC
            assert np.abs(app_dec - oracle.dec.rad).max() < 1e-4 * ARCSEC

    def test_it_is_the_apparent_place_of_pyuvdata(self) -> None:
        from pyuvdata.utils.phasing import calc_app_coords

        # pyuvdata finds one source at many times; it treats many sources at one time as one.
        for ra, dec in zip(*sky(20), strict=True):
            app_ra, app_dec = calc_app_coords(
                lon_coord=ra,
                lat_coord=dec,
                coord_frame="icrs",
                time_array=DATES + 2400000.5,
                telescope_loc=_location(SITE),
            )
            ha, ours = apparent_hadec(ra, dec, DATES, SITE)
            # pyuvdata's sidereal time knows no polar motion and no TIO locator: below 1 mas.
            assert (
                np.abs(
                    wrapped(local_sidereal_time_rad(DATES, SITE) - app_ra - ha) * np.cos(dec)
                ).max()
                < 1e-3 * ARCSEC
            )
            assert np.abs(app_dec - ours).max() < 1e-3 * ARCSEC

    def test_there_and_back(self) -> None:
        ra, dec = sky(300)
        ha, app_dec = apparent_hadec(ra, dec, DATES[:, None], SITE)
        ra2, dec2 = icrs_of_hadec(ha, app_dec, DATES[:, None], SITE)
        assert ra2.shape == (DATES.size, 300)
        # SOFA inverts aberration by iteration to 1e-12; a microarcsecond is 5e-12.
        assert np.abs(wrapped(ra2 - ra) * np.cos(dec)).max() < 1e-11
        assert np.abs(dec2 - dec).max() < 1e-11

    def test_meridian_in_icrs_is_not_the_sidereal_time(self) -> None:
        # 26 years of precession in RA, m + n sin(ra) tan(dec) = 46.1" + 20.0" sin tan a year, and
        # at most 20.5" of aberration
        # and 17" of nutation: the 1200".
        mjd, dec = 61065.93, np.radians(33.0)
        lst = float(local_sidereal_time_rad(mjd, SITE))
        ra, _ = icrs_of_hadec(0.0, dec, mjd, SITE)
        years = (mjd - 51544.5) / 365.25
        expected = years * (46.1 + 20.04 * np.sin(lst) * np.tan(dec))
        assert wrapped(lst - ra) / ARCSEC == pytest.approx(expected, abs=45)

    def test_ha_grows_with_time_and_westward(self) -> None:
        ra, dec = icrs_of_hadec(0.0, 0.5, 61000.0, SITE)
        later, _ = apparent_hadec(ra, dec, 61000.0 + 1 / 24, SITE)
        assert later == pytest.approx(15.041 * np.pi / 180, abs=1e-5)
        east, _ = apparent_hadec(ra + 0.01, dec, 61000.0, SITE)
        assert east < 0

    def test_it_is_fast(self) -> None:
        # A group of 24 integrations and 300 sources is done many times a run; it takes 5 ms here, a
        # loop would take 0.3 s.
        ra, dec = sky(300)
        times = 61000.0 + np.arange(24)[:, None] * 1.5e-4
        apparent_hadec(ra, dec, times, SITE)
        start = time.process_time()
        for _ in range(5):
            apparent_hadec(ra, dec, times, SITE)
        assert (time.process_time() - start) / 5 < 0.05


class TestTime:
    def test_sidereal_time_is_astropys(self) -> None:
        from astropy import units as u
        from astropy.time import Time

        oracle = (
            Time(DATES, format="mjd", scale="utc")
            .sidereal_time("apparent", SITE.lon_deg * u.deg)
            .rad
        )
        # astropy adds the TIO locator (0.1 mas) to the longitude.
        assert np.abs(wrapped(local_sidereal_time_rad(DATES, SITE) - oracle)).max() < 1e-3 * ARCSEC

    def test_earth_orientation_is_of_today(self) -> None:
        from astropy.time import Time

        dut1, x, y = earth_rotation(DATES)
        assert dut1 == pytest.approx(Time(DATES, format="mjd").delta_ut1_utc, abs=1e-7)
        assert np.all(np.hypot(x, y) < 0.7 * ARCSEC)
        assert np.ptp(dut1) > 0.1  # a table that ended long ago would stand still

    def test_the_reader_equals_astropys_through_leap_seconds(self) -> None:
        from astropy import units as u

        mjd = np.linspace(41685.0, 61300.0, 5001)
        dut1, (x, y) = (
            earth_orientation().ut1_utc(MJD_ZERO_JD, mjd),
            earth_orientation().pm_xy(MJD_ZERO_JD, mjd),
        )
        for mine, theirs, unit in zip(
            earth_rotation(mjd), (dut1, x, y), (u.s, u.rad, u.rad), strict=True
        ):
            assert np.abs(mine - theirs.to_value(unit)).max() < 1e-12

    def test_shapes_are_kept(self) -> None:
        assert earth_rotation(61000.0)[0].shape == ()
        assert earth_rotation(np.full((2, 3), 61000.0))[1].shape == (2, 3)

    @pytest.mark.parametrize("mjd", [41000.0, 70000.0, np.nan])
    def test_dates_outside_the_table_are_refused(self, mjd: float) -> None:
        with pytest.raises(BadInputError, match="newer astropy-iers-data"):
            earth_rotation([61000.0, mjd])

    def test_the_table_reaches_a_year_ahead(self) -> None:
        assert float(earth_orientation()["MJD"][-1].value) > 61600


class TestCosines:
    def test_signs_and_sizes(self) -> None:
        # Mindful of mirrored images: east (larger RA) is +l, north is +m.
        l_east, m_east, n_east = direction_cosines(1.0 + 1e-3, 0.5, 1.0, 0.5)
        assert l_east == pytest.approx(1e-3 * np.cos(0.5), rel=1e-6)
        assert m_east == pytest.approx(0.5e-6 * np.sin(0.5) * np.cos(0.5), rel=1e-5)
        _, m_north, _ = direction_cosines(1.0, 0.5 + 1e-3, 1.0, 0.5)
        assert m_north == pytest.approx(np.sin(1e-3), rel=1e-12)
        assert n_east < 0

    @given(st.floats(0, 6.28), st.floats(-1.5, 1.5), st.floats(0, 6.28), st.floats(-1.5, 1.5))
    def test_they_are_a_unit_vector_with_the_separation(
        self, ra: float, dec: float, ra0: float, dec0: float
    ) -> None:
        l, m, less = direction_cosines(ra, dec, ra0, dec0)  # noqa: E741 - the field's own letter
        assert l**2 + m**2 + (1 + less) ** 2 == pytest.approx(1.0, abs=1e-14)
        assert np.hypot(l, m) == pytest.approx(
            np.sin(separation_rad(ra, dec, ra0, dec0)), abs=1e-14
        )

    def test_n_minus_one_keeps_its_digits(self) -> None:
        # 0.2" off the centre 1 - cos is 5e-13; a difference of doubles near 1 would have three
        # digits of it.
        _, _, less = direction_cosines(2.0, 0.3 + 1e-6, 2.0, 0.3)
        assert less == pytest.approx(-0.5e-12, rel=1e-9)

    @given(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05), st.floats(0, 6.28), st.floats(-1.5, 1.5))
    def test_directions_come_back(self, east: float, north: float, ra0: float, dec0: float) -> None:
        l, m, _ = direction_cosines(*direction_of_cosines(east, north, ra0, dec0), ra0, dec0)  # noqa: E741
        assert (float(l), float(m)) == pytest.approx((east, north), abs=1e-14)

    def test_beyond_the_horizon_is_nan(self) -> None:
        assert np.isnan(direction_of_cosines(0.9, 0.9, 0.0, 0.0)).all()


class TestSphere:
    def test_separation_near_far_and_across_zero(self) -> None:
        assert separation_rad(0.0, 0.0, 1e-9, 0.0) == pytest.approx(1e-9, rel=1e-12)
        assert separation_rad(0.0, 0.0, np.pi, 0.0) == pytest.approx(np.pi)
        assert separation_rad(1e-3, 0.0, 2 * np.pi - 1e-3, 0.0) == pytest.approx(2e-3)
        assert separation_rad(0.0, np.pi / 2, 3.0, np.pi / 2) == pytest.approx(0.0, abs=1e-15)

    def test_separation_broadcasts(self) -> None:
        assert separation_rad(np.zeros((4, 1)), 0.0, np.zeros(3), 0.1).shape == (4, 3)

    def test_mean_across_zero(self) -> None:
        assert np.degrees(circular_mean_rad(np.radians([359.0, 3.0]))) == pytest.approx(1.0)
        # Vectors of 2 and 1: their mean is 0 deg but for (sin 2 - 2 sin 1) / 3 = 1e-4 deg.
        assert wrapped(
            np.array(circular_mean_rad(np.radians([359.0, 2.0]), [2.0, 1.0]))
        ) == pytest.approx(0.0, abs=1e-5)

    @pytest.mark.parametrize(
        "angles", [[], [0.0, np.pi], [0.0, 2 * np.pi / 3, 4 * np.pi / 3], [np.nan]]
    )
    def test_no_mean(self, angles: list[float]) -> None:
        with pytest.raises(BadInputError, match="mean direction"):
            circular_mean_rad(angles)


def test_astropy_itself_stays_offline() -> None:
    from astropy.time import Time

    # A date in the predictions; with astropy's defaults this would ask for a newer table.
    assert abs(Time("2027-03-01").ut1.jd - Time("2027-03-01").utc.jd) < 1e-5


def _location(site: Site) -> object:
    from astropy.coordinates import EarthLocation

    return EarthLocation.from_geodetic(site.lon_deg, site.lat_deg, site.height_m)
