"""Our chain of coordinates against astropy's and pyuvdata's, and against what a sphere must do."""

from __future__ import annotations

import socket
import time

import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, HADec, SkyCoord
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from contimg.astro import coordinates
from contimg.astro.coordinates import Site, apparent_hadec, earth_rotation, separation_rad
from contimg.astro.telescope import SITE
from contimg.records.groups import MJD_ZERO_JD
from contimg.runtime.errors import BadInputError

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
    coordinates.use_offline_iers()


def location(site: Site) -> EarthLocation:
    return EarthLocation.from_geodetic(site.lon_deg, site.lat_deg, site.height_m)


def sidereal_time(mjd: npt.ArrayLike) -> FloatArray:
    """Local apparent sidereal time by astropy, which adds the TIO locator (0.1 mas)."""
    found = Time(mjd, format="mjd", scale="utc").sidereal_time("apparent", SITE.lon_deg * u.deg)
    return np.asarray(found.rad)


def sky(count: int, seed: int = 1) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 2 * np.pi, count), np.arcsin(rng.uniform(-0.6, 0.999, count))


def wrapped(angle: FloatArray) -> FloatArray:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


class TestApparent:
    @pytest.mark.parametrize("site", [SITE, OTHER], ids=["ovro", "south"])
    def test_hadec_equals_astropy(self, site: Site) -> None:
        ra, dec = sky(50)
        for mjd in DATES:
            time = Time(mjd, format="mjd", scale="utc")
            frame = HADec(obstime=time, location=location(site), pressure=0 * u.hPa)
            oracle = SkyCoord(ra * u.rad, dec * u.rad, frame="icrs").transform_to(frame)
            ha, app_dec = apparent_hadec(ra, dec, mjd, site)
            # Both call SOFA; the rest is rounding of times (0.6 us is 0.01 mas).
            assert np.abs(wrapped(ha - oracle.ha.rad) * np.cos(dec)).max() < 1e-4 * ARCSEC
            assert np.abs(app_dec - oracle.dec.rad).max() < 1e-4 * ARCSEC

    def test_apparent_place_equals_pyuvdata(self) -> None:
        from pyuvdata.utils.phasing import calc_app_coords

        when = {"time_array": DATES + 2400000.5, "telescope_loc": location(SITE)}
        # pyuvdata finds one source at many times; it treats many sources at one time as one.
        for ra, dec in zip(*sky(20), strict=True):
            place = {"lon_coord": ra, "lat_coord": dec, "coord_frame": "icrs"}
            app_ra, app_dec = calc_app_coords(**place, **when)
            ha, ours = apparent_hadec(ra, dec, DATES, SITE)
            away = wrapped(sidereal_time(DATES) - app_ra - ha) * np.cos(dec)
            # pyuvdata's sidereal time knows no polar motion and no TIO locator: below 1 mas.
            assert np.abs(away).max() < 1e-3 * ARCSEC
            assert np.abs(app_dec - ours).max() < 1e-3 * ARCSEC

    def test_icrs_of_hadec_inverts(self) -> None:
        ra, dec = sky(300)
        ha, app_dec = apparent_hadec(ra, dec, DATES[:, None], SITE)
        ra2, dec2 = coordinates.icrs_of_hadec(ha, app_dec, DATES[:, None], SITE)
        assert ra2.shape == (DATES.size, 300)
        # SOFA inverts aberration by iteration to 1e-12; a microarcsecond is 5e-12.
        assert np.abs(wrapped(ra2 - ra) * np.cos(dec)).max() < 1e-11
        assert np.abs(dec2 - dec).max() < 1e-11

    def test_meridian_in_icrs_is_precessed(self) -> None:
        # 26 years of precession in RA, m + n sin(ra) tan(dec) = 46.1" + 20.0" sin tan a year, and
        # at most 20.5" of aberration and 17" of nutation: the 1200".
        mjd, dec = 61065.93, np.radians(33.0)
        lst = float(sidereal_time(mjd))
        ra, _ = coordinates.icrs_of_hadec(0.0, dec, mjd, SITE)
        years = (mjd - 51544.5) / 365.25
        expected = years * (46.1 + 20.04 * np.sin(lst) * np.tan(dec))
        assert wrapped(lst - ra) / ARCSEC == pytest.approx(expected, abs=45)
        # The hour angle grows with time, and is negative in the east.
        ra, dec = coordinates.icrs_of_hadec(0.0, 0.5, 61000.0, SITE)
        later, _ = apparent_hadec(ra, dec, 61000.0 + 1 / 24, SITE)
        assert later == pytest.approx(15.041 * np.pi / 180, abs=1e-5)
        east, _ = apparent_hadec(ra + 0.01, dec, 61000.0, SITE)
        assert east < 0

    def test_apparent_hadec_is_fast(self) -> None:
        # 24 integrations and 300 sources, many times a run, take 5 ms; a loop would take 0.3 s.
        ra, dec = sky(300)
        times = 61000.0 + np.arange(24)[:, None] * 1.5e-4
        apparent_hadec(ra, dec, times, SITE)
        start = time.process_time()
        for _ in range(5):
            apparent_hadec(ra, dec, times, SITE)
        assert (time.process_time() - start) / 5 < 0.05


class TestTime:
    def test_earth_rotation_is_of_today(self) -> None:
        dut1, x, y = earth_rotation(DATES)
        assert dut1 == pytest.approx(Time(DATES, format="mjd").delta_ut1_utc, abs=1e-7)
        assert np.all(np.hypot(x, y) < 0.7 * ARCSEC)
        assert np.ptp(dut1) > 0.1  # a table that ended long ago would stand still
        # A date in the predictions; with astropy's defaults this would ask for a newer table.
        assert abs(Time("2027-03-01").ut1.jd - Time("2027-03-01").utc.jd) < 1e-5

    def test_reader_equals_astropy_through_leap_seconds(self) -> None:
        mjd, table = np.linspace(41685.0, 61300.0, 5001), coordinates.earth_orientation()
        theirs = (table.ut1_utc(MJD_ZERO_JD, mjd), *table.pm_xy(MJD_ZERO_JD, mjd))
        for mine, value, unit in zip(earth_rotation(mjd), theirs, (u.s, u.rad, u.rad), strict=True):
            assert np.abs(mine - value.to_value(unit)).max() < 1e-12

    def test_earth_rotation_keeps_shapes(self) -> None:
        assert earth_rotation(61000.0)[0].shape == ()
        assert earth_rotation(np.full((2, 3), 61000.0))[1].shape == (2, 3)

    @pytest.mark.parametrize("mjd", [41000.0, 70000.0, np.nan])
    def test_dates_outside_table_are_refused(self, mjd: float) -> None:
        assert float(coordinates.earth_orientation()["MJD"][-1].value) > 61600  # a year ahead
        with pytest.raises(BadInputError, match="newer astropy-iers-data"):
            earth_rotation([61000.0, mjd])


class TestCosines:
    def test_signs_and_sizes(self) -> None:
        # Mindful of mirrored images: east (larger RA) is +l, north is +m.
        l_east, m_east, n_east = coordinates.direction_cosines(1.0 + 1e-3, 0.5, 1.0, 0.5)
        assert l_east == pytest.approx(1e-3 * np.cos(0.5), rel=1e-6)
        assert m_east == pytest.approx(0.5e-6 * np.sin(0.5) * np.cos(0.5), rel=1e-5)
        _, m_north, _ = coordinates.direction_cosines(1.0, 0.5 + 1e-3, 1.0, 0.5)
        assert m_north == pytest.approx(np.sin(1e-3), rel=1e-12)
        assert n_east < 0
        # 0.2" off the centre 1 - cos is 5e-13, of which 1 - n in doubles has three digits.
        _, _, less = coordinates.direction_cosines(2.0, 0.3 + 1e-6, 2.0, 0.3)
        assert less == pytest.approx(-0.5e-12, rel=1e-9)

    @given(st.floats(0, 6.28), st.floats(-1.5, 1.5), st.floats(0, 6.28), st.floats(-1.5, 1.5))
    def test_cosines_are_unit_vector_of_separation(
        self, ra: float, dec: float, ra0: float, dec0: float
    ) -> None:
        l, m, less = coordinates.direction_cosines(ra, dec, ra0, dec0)  # noqa: E741 - the field's own letter
        assert l**2 + m**2 + (1 + less) ** 2 == pytest.approx(1.0, abs=1e-14)
        away = separation_rad(ra, dec, ra0, dec0)
        assert np.hypot(l, m) == pytest.approx(np.sin(away), abs=1e-14)


class TestSphere:
    def test_separation_and_mean_across_zero(self) -> None:
        assert separation_rad(0.0, 0.0, 1e-9, 0.0) == pytest.approx(1e-9, rel=1e-12)
        assert separation_rad(0.0, 0.0, np.pi, 0.0) == pytest.approx(np.pi)
        assert separation_rad(1e-3, 0.0, 2 * np.pi - 1e-3, 0.0) == pytest.approx(2e-3)
        assert separation_rad(0.0, np.pi / 2, 3.0, np.pi / 2) == pytest.approx(0.0, abs=1e-15)
        assert separation_rad(np.zeros((4, 1)), 0.0, np.zeros(3), 0.1).shape == (4, 3)
        mean = coordinates.circular_mean_rad(np.radians([359.0, 3.0]))
        assert np.degrees(mean) == pytest.approx(1.0)

    @pytest.mark.parametrize(
        "angles", [[], [0.0, np.pi], [0.0, 2 * np.pi / 3, 4 * np.pi / 3], [np.nan]]
    )
    def test_angles_without_mean(self, angles: list[float]) -> None:
        with pytest.raises(BadInputError, match="mean direction"):
            coordinates.circular_mean_rad(angles)
