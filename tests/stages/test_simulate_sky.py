"""The simulated sky: fluxes, light curves, lists, and where sources stand."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import EarthLocation, HADec, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from astropy_iers_data import IERS_A_FILE
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.astro.counts import count_per_deg2
from contimg.astro.standards import standard
from contimg.runtime.errors import BadInputError
from contimg_simulate import sky, telescope
from contimg_simulate.sky import (
    Flare,
    Lens,
    SkySource,
    draw_counts,
    lens_gain,
    nvss,
    standards,
)
from contimg_simulate.telescope import unit_vectors

BULLETIN = iers.IERS_A.open(IERS_A_FILE)
MAS = np.deg2rad(1e-3 / 3600)
HEAD = "name,ra_deg,dec_deg,flux_jy"
SITE = EarthLocation.from_geodetic(-118.283 * u.deg, 37.234 * u.deg, 1188 * u.m)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 359.9), st.floats(-30, 85), st.floats(59000, 61300))
def test_hadec_matches_astropy(ra: float, dec: float, mjd: float) -> None:
    with iers.earth_orientation_table.set(BULLETIN):
        horizon = HADec(obstime=Time(mjd, format="mjd", scale="utc"), location=SITE)
        seen = SkyCoord(ra * u.deg, dec * u.deg).transform_to(horizon)
        ha, declination = telescope.hadec(np.deg2rad([ra]), np.deg2rad([dec]), np.array([mjd]))
        apart = np.remainder(ha[0, 0] - seen.ha.rad + np.pi, 2 * np.pi) - np.pi
        # UT1 between days is interpolated alike to a microsecond, 15 microarcseconds.
        assert abs(apart * np.cos(seen.dec.rad)) < MAS
        assert abs(declination[0, 0] - seen.dec.rad) < MAS


def test_icrs_of_meridian_inverts_hadec() -> None:
    mjd = np.array([61065.05, 61100.7])
    ra, dec = telescope.icrs_of_meridian(np.deg2rad(33.0), mjd)
    ha, declination = telescope.hadec(ra, dec, mjd)
    assert np.abs(np.diag(ha)).max() < MAS
    assert np.abs(np.diag(declination) - np.deg2rad(33.0)).max() < MAS


def test_hour_angle_is_zero_at_transit() -> None:
    ra, dec = np.deg2rad([[24.4221], [33.16]])
    mjd = telescope.transit_mjd(ra[0], dec[0], 61065.0)
    assert 0 <= mjd - 61065.0 < 1
    ha, _ = telescope.hadec(ra, dec, np.array([mjd]))
    # A millisecond is 15 mas.
    assert abs(ha[0, 0]) < 15 * MAS


def test_standards_match_perley_butler_2017() -> None:
    by_name = {source.name: source for source in standards()}
    # CASA's setjy gives 15.016 Jy for 3C286 at 1.4126 GHz.
    flux_jy = by_name["3C286"].spectrum_jy(np.array([1.4126e9]), 0.0)
    assert flux_jy == pytest.approx([15.016], rel=1e-3)
    # NVSS: 16.394 Jy/beam at 1.4 GHz, 3 % its own calibration.
    assert by_name["3C48"].flux_jy == pytest.approx(16.394, rel=0.03)


def test_standards_match_those_of_stages() -> None:
    # The table was copied twice, independently; a slip in either shows here.
    frequency = np.array([1.31e9, 1.405e9, 1.499e9])
    for source in standards():
        expected = standard(source.name).flux_jy(frequency)
        assert source.spectrum_jy(frequency, 0.0) == pytest.approx(expected, rel=1e-6)


def test_listed_source_replaces_catalogue_row() -> None:
    catalogue = nvss(24.4221, 33.16, 1.0, seed=1)
    brightest = max(catalogue, key=lambda source: source.flux_jy)
    assert brightest.flux_jy == pytest.approx(16.4, rel=0.01)
    names = [source.name for source in sky.merge_sources(standards(), catalogue)]
    assert brightest.name not in names
    assert "3C48" in names
    assert len(names) == len(catalogue) - 1 + len(standards())


def test_catalogue_source_keeps_its_spectrum() -> None:
    one, other = nvss(24.4, 33.2, 1.0, seed=1), nvss(24.9, 33.0, 1.0, seed=1)
    index = {source.name: source.alpha for source in one}
    common = [source for source in other if source.name in index]
    assert common
    assert all(source.alpha == index[source.name] for source in common)
    assert 0.1 < np.std([source.alpha for source in nvss(24.4, 33.2, 8.0, seed=1)]) < 0.3


def test_lists_are_read_from_json_and_csv() -> None:
    text = """[{"name": "A", "ra_deg": 10.0, "dec_deg": 33.0, "flux_jy": 0.5, "alpha": -0.8},
        {"name": "B", "ra_deg": 11.0, "dec_deg": 32.0, "flux_jy": 0.1,
         "curve": {"kind": "flare", "peak_mjd": 61100.0}}]"""
    curve = '"{""kind"": ""flare"", ""peak_mjd"": 61100}"'
    table = f"{HEAD},alpha,curve\nA,10,33,0.5,-0.8,\nB,11,32,0.1,,{curve}\n"
    from_json = sky.read_sources(text.encode(), "list.json")
    assert from_json == sky.read_sources(table.encode(), "list.csv")
    assert from_json[1].curve == Flare(peak_mjd=61100.0)
    assert from_json[0].curve == sky.Steady()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"name,ra_deg\nA,10\n", "dec_deg"),
        (b'[{"name": "A"}]', "ra_deg"),
        (b"[{]", "Expecting"),
        (b'[{"name": "A", "ra_deg": 1, "ra_deg": 2}]', "the key 'ra_deg' is given 2 times"),
        (f"{HEAD},flux_jy\nA,10,9,1,2\n".encode(), "the column 'flux_jy' is given 2 times"),
        (f"{HEAD}\nA,10,9,1,2\n".encode(), "row 1 has 5 cells under 4 names"),
        (b"\xff\xfe\x00", "decode"),
        (f"{HEAD}\nA,10,95,1\n".encode(), "less than or equal to 90"),
        (f'{HEAD},curve\nA,10,9,1,"{{""kind"": ""wobble""}}"\n'.encode(), "wobble"),
    ],
)
def test_bad_list_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadInputError, match=r"sky\.csv") as caught:
        sky.read_sources(data, "sky.csv")
    assert reason in str(caught.value)


def test_flare_is_achromatic_and_asymmetric() -> None:
    flare, band = Flare(peak_mjd=100.0, amplitude=0.6), np.array([1.3e9, 1.5e9])
    assert flare.factor(100.0, band) == pytest.approx([1.6, 1.6])
    assert flare.factor(95.0, band)[0] == pytest.approx(1 + 0.6 / np.e)
    assert flare.factor(112.0, band)[0] == pytest.approx(1 + 0.6 / np.e)


# The lens is that of Clegg, Fey & Lazio 1998; equations are theirs.
def test_distant_lens_has_no_effect() -> None:
    gain = lens_gain(np.array([-12.0, 12.0]), np.array([1.2, 1.2]), 0.3)
    assert gain == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("strength", [0.5, 1.2, 2.0])
def test_small_source_is_dimmed_by_equation_8(strength: float) -> None:
    # Gain 1 / (1 + alpha) at u = 0; a source of 0.01 sees 1e-4 of the curvature.
    gain = lens_gain(np.array([0.0]), np.array([strength]), 0.01)
    assert gain == pytest.approx([1 / (1 + strength)], rel=1e-3)


@pytest.mark.parametrize("strength", [0.8, 1.2, 5.0])
def test_lens_conserves_flux(strength: float) -> None:
    offset = np.arange(-14, 14, 0.05)
    gain = lens_gain(offset, np.full(offset.size, strength), 0.3)
    # A sum over a grid of a sixth of the source is exact to rounding; the tails hold 1e-4.
    assert np.sum(gain - 1) * 0.05 == pytest.approx(0.0, abs=2e-3)


def test_gain_is_smoothed_sum_over_images() -> None:
    """Solve equations 6 to 10 directly: rays, sum of gains, smoothing with the source."""
    strength, size = 1.2, 0.4
    rays = np.linspace(-12, 12, 400_001)
    landing = rays * (1 + strength * np.exp(-(rays**2)))
    assert np.all(np.diff(landing) > 0), "one image everywhere: alpha is below 2.24"
    fine = np.linspace(-10, 10, 20_001)
    image = np.interp(fine, landing, rays)
    gain = 1 / (1 + (1 - 2 * image**2) * strength * np.exp(-(image**2)))
    for offset in (0.0, 0.7, 1.5, 2.5):
        weight = np.exp(-0.5 * ((fine - offset) / size) ** 2)
        found = lens_gain(np.array([offset]), np.array([strength]), size)
        assert found == pytest.approx([np.average(gain, weights=weight)], rel=1e-4)


def test_dip_is_deeper_at_low_frequency() -> None:
    lens, band = Lens(centre_mjd=0.0), np.array([1.31e9, 1.5e9])
    days = np.arange(-80.0, 80.5, 1.0)
    low, high = np.array([lens.factor(float(day), band) for day in days]).T
    middle = np.abs(days) < 10
    assert low[80] < high[80] < 0.65
    assert low.max() > 1.1
    assert np.all(np.abs(days[low > 1.1]) > 13)
    assert np.all(low[middle] < high[middle])
    assert low == pytest.approx(low[::-1], rel=1e-6)


def test_strength_goes_with_wavelength_squared() -> None:
    lens = Lens(centre_mjd=0.0, source_size=0.02, strength=1.0)
    assert lens.factor(0.0, np.array([1.4e9, 0.7e9])) == pytest.approx([1 / 2, 1 / 5], rel=5e-3)


def test_spectrum_is_power_law_without_polynomial() -> None:
    source = SkySource(name="A", ra_deg=1, dec_deg=2, flux_jy=2.0, alpha=-0.7)
    assert source.spectrum_jy(np.array([1.4e9, 2.8e9]), 0.0) == pytest.approx([2.0, 2.0 * 2**-0.7])


def test_drawn_sources_follow_count_over_sky() -> None:
    drawn = draw_counts(100.0, 40.0, 5.0, seed=1, faintest_jy=5e-4)
    offset = unit_vectors(*np.radians([-drawn.ra_deg, drawn.dec_deg]))
    centre = unit_vectors(*np.radians([-100.0, 40.0]))
    inside = offset @ centre > np.cos(np.radians(5.0))
    area_deg2 = 2 * np.pi * (1 - np.cos(np.radians(5.0))) * np.degrees(1) ** 2
    for limit in (5e-4, 2e-3, 1e-2):
        expected = area_deg2 * count_per_deg2(limit, 0.05)
        found = np.sum(inside & (drawn.flux_jy > limit))
        assert found == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert drawn.flux_jy.max() < 0.05
    assert len(set(drawn.name)) == len(drawn.name)
    assert drawn.alpha.mean() == pytest.approx(-0.7, abs=0.02)
    assert drawn.alpha.std() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(359.8, 33.0), (100.0, 71.6), (10.0, 88.0)])
def test_neighbouring_groups_share_drawn_sources(ra_deg: float, dec_deg: float) -> None:
    one = draw_counts(ra_deg, dec_deg, 3.0, seed=1, faintest_jy=1e-3)
    other = draw_counts((ra_deg + 2) % 360, dec_deg, 3.0, seed=1, faintest_jy=5e-3)
    rows = [dict(zip(d.name, zip(*d[1:], strict=True), strict=True)) for d in (one, other)]
    shared = 0
    # What is near enough to both and bright enough for both is the same source.
    for name, row in rows[1].items():
        if _separation_deg(row, (ra_deg, dec_deg)) < 3:
            assert rows[0][name] == row
            shared += 1
    assert shared > 50


def _separation_deg(row: tuple[float, ...], place: tuple[float, float]) -> float:
    one, two = (unit_vectors(*np.radians([-ra, dec])) for ra, dec in (row[:2], place))
    return float(np.degrees(np.arccos(np.clip(one @ two, -1, 1))))


def test_curvature_changes_spectral_index() -> None:
    source = SkySource(name="A", ra_deg=1, dec_deg=2, flux_jy=1.0, alpha=-0.7, curvature=-0.2)
    low, high = np.log(source.spectrum_jy(1.4e9 * np.exp([-0.05, 0.05]), 0.0))
    assert (high - low) / 0.1 == pytest.approx(-0.7, abs=1e-9)
    steeper = np.log(source.spectrum_jy(1.4e9 * np.exp([0.95, 1.05]), 0.0))
    assert np.diff(steeper)[0] / 0.1 == pytest.approx(-0.9, abs=1e-9)
