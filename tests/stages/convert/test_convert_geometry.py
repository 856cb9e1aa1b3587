"""The rotation from the meridian to ICRS, against astropy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import EarthLocation, HADec, SkyCoord
from astropy.time import Time

from contimg.astro.coordinates import Site, direction_cosines, use_offline_iers
from contimg_convert.geometry import meridian_uvw, rotate_to_icrs, sky_axes

SITE = Site(37.234, -118.283, 1188.0)
LOCATION = EarthLocation.from_geodetic(SITE.lon_deg, SITE.lat_deg, SITE.height_m)
DECS = (16.3, 33.0, 54.6, 71.6)
ANTENNAS_M = np.random.default_rng(8).uniform(-1300, 1300, (12, 3))
MAS = np.radians(1e-3 / 3600)


def times_jd(start: float = 2461066.435, count: int = 24) -> np.ndarray:
    return start + np.arange(count) * 12.884902000427246 / 86400


def phase_centre(times: np.ndarray, dec_deg: float = 33.0) -> tuple[float, float]:
    made = rotate_to_icrs(times, 0.0, np.radians(dec_deg), SITE, ANTENNAS_M)
    return made.ra_rad, made.dec_rad


def seen(direction: SkyCoord, when: Time) -> tuple[np.ndarray, np.ndarray]:
    """Hour angle and Declination by astropy, radians."""
    use_offline_iers()
    found = direction.transform_to(HADec(obstime=when, location=LOCATION))
    return found.ha.rad, found.dec.rad


@pytest.mark.parametrize("dec", DECS)
def test_phase_centre_crosses_meridian_at_mid_time(dec: float) -> None:
    times = times_jd()
    ra0, dec0 = phase_centre(times, dec)
    ha, seen_dec = seen(SkyCoord(ra0, dec0, unit="rad"), Time(times, format="jd", scale="utc"))
    # 20 mas: tracks of constant apparent Dec are no great circles in ICRS, which moves the mean.
    assert np.mean(ha) == pytest.approx(0, abs=20 * MAS)
    assert np.mean(seen_dec) == pytest.approx(np.radians(dec), abs=20 * MAS)
    # It drifts by 15" a second of sidereal time through the 24 integrations.
    assert np.ptp(ha) == pytest.approx(23 * 12.884902 * 1.0027379 * np.radians(15 / 3600), rel=1e-4)


def test_phase_centre_includes_precession() -> None:
    """Precession and aberration since J2000 are 1200 arcsec."""
    times = times_jd()
    ra0, _ = phase_centre(times, 33.0)
    use_offline_iers()
    moments = Time(times, format="jd", scale="utc")
    sidereal = moments.sidereal_time("apparent", longitude=SITE.lon_deg * units.deg).rad.mean()
    away_rad = (sidereal - ra0 + np.pi) % (2 * np.pi) - np.pi
    assert np.degrees(away_rad) * 3600 == pytest.approx(1200, abs=150)


def test_mean_right_ascension_survives_0h() -> None:
    """Take the time at which the meridian passes 0h: half of the integrations are at 359.x deg."""
    start = times_jd()[0]
    ra, _ = phase_centre(times_jd(start), 33.0)
    zero = start + (2 * np.pi - ra) / (2 * np.pi) / 1.0027379
    ra, _ = phase_centre(times_jd(zero), 33.0)
    # Precession since 2000, n sin(RA) tan(Dec), changes by 0.03 deg on the way there.
    assert abs((ra + np.pi) % (2 * np.pi) - np.pi) < np.radians(0.06)
    single = [phase_centre(times_jd(zero)[[i]], 33.0)[0] for i in (0, -1)]
    assert max(single) > 6
    assert min(single) < 0.1


@pytest.mark.parametrize("dec", DECS)
def test_uvw_gives_path_to_every_direction(dec: float) -> None:
    """astropy's path less that to the centre is u l + v m + w (n - 1), out to 2 degrees."""
    times, positions = times_jd(count=3), ANTENNAS_M
    made = rotate_to_icrs(times, 0.0, np.radians(dec), SITE, positions)
    moments = Time(times, format="jd", scale="utc")
    lon = np.radians(SITE.lon_deg)
    turn = np.array([[np.cos(lon), np.sin(lon), 0], [-np.sin(lon), np.cos(lon), 0], [0, 0, 1]])

    def path(direction: SkyCoord) -> np.ndarray:
        ha, seen_dec = seen(direction, moments)
        size = np.cos(seen_dec)
        towards = np.stack([size * np.cos(ha), -size * np.sin(ha), np.sin(seen_dec)], axis=-1)
        return towards @ (positions @ turn.T).T

    centre = SkyCoord(made.ra_rad, made.dec_rad, unit="rad")
    np.testing.assert_allclose(made.uvw_m[..., 2], path(centre), rtol=0, atol=1e-5)
    for angle in (0, 70, 200):
        source = centre.directional_offset_by(angle * units.deg, 2 * units.deg)
        cosines = direction_cosines(source.ra.rad, source.dec.rad, made.ra_rad, made.dec_rad)
        # The square of the aberration leaves 0.2 mm of 2 km in w at 2 deg: 1e-3 wavelengths.
        expected = path(source) - path(centre)
        np.testing.assert_allclose(made.uvw_m @ np.array(cosines), expected, rtol=0, atol=3e-4)


def test_delay_is_path_from_meridian_to_centre() -> None:
    times, positions = times_jd(), ANTENNAS_M
    made = rotate_to_icrs(times, 0.0, np.radians(33.0), SITE, positions)
    at_meridian = meridian_uvw(0.0, np.radians(33.0), SITE, positions)
    expected = made.uvw_m[..., 2] - at_meridian[:, 2]
    np.testing.assert_allclose(made.delay_m, expected, rtol=0, atol=1e-9)
    # At mid-time the centre is on the meridian, but for the bend of its track.
    middle = made.delay_m[11:13].mean(axis=0)
    assert np.abs(middle).max() < 0.01
    assert np.abs(made.delay_m[0]).max() > 1


def test_axes_are_right_handed() -> None:
    """u to the east, v to the north, w to the source; on the meridian east is east."""
    times = times_jd(count=1)
    ra0, dec0 = phase_centre(times, 33.0)
    (axes,) = sky_axes(ra0, dec0, times - 2400000.5, SITE)
    # To 0.6 per cent: the axes of ICRS and of date differ by precession.
    np.testing.assert_allclose(axes[0], [0, 1, 0], rtol=0, atol=0.006)
    np.testing.assert_allclose(np.cross(axes[0], axes[1]), axes[2], rtol=0, atol=3e-4)
    assert np.linalg.norm(axes[2]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dec", DECS)
def test_source_is_found(two_sources: Any, tmp_path: Path, run_convert: Any, dec: float) -> None:
    """North of the zenith, too, where azimuth turns round."""
    watched = two_sources.but(dec_deg=dec, sources=((0.8, -0.6, 1.0),), start_jd=2461130.27)
    made = run_convert(watched.write(tmp_path / "store"))
    found, fringe = made.read("DATA")[..., 0], made.fringes(*watched.sky[0][:2])
    # 0.01 rad is a hundredth of a fringe on the longest baseline: 0.03".
    np.testing.assert_allclose(found, fringe, rtol=0, atol=0.01)
