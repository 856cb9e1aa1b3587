"""The telescope against its data sheet, and its beam against a diffraction integral."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from contimg.astro import telescope
from contimg.astro.beam_files import read_beam
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.telescope import DISH_M, SITE, band_hz, stations
from outside import outside_data

BEAM = read_beam("airy:4.65")
MIDDLE_HZ = 1.405e9


class TestBand:
    def test_channels_follow_header_formula(self) -> None:
        # In MHz: 1498.643188 - 11.71875 k - 0.24414063 j; it is rounded to 10 Hz, 47 channels on.
        subband, channel = np.mgrid[: telescope.N_SUBBANDS, :48]
        formula = (1498.643188 - 11.71875 * subband - 0.24414063 * channel).ravel()[::-1] * 1e6
        np.testing.assert_allclose(band_hz(), formula, rtol=0, atol=1.0)

    def test_edges_are_the_published_ones(self) -> None:
        band = band_hz()
        assert band.size == telescope.N_CHANNELS == 768
        assert np.diff(band) == pytest.approx(telescope.CHANNEL_WIDTH_HZ, abs=1e-3)
        # The telescope's description gives the outer edges to 1 kHz.
        assert band[0] - telescope.CHANNEL_WIDTH_HZ / 2 == pytest.approx(1311.265e6, abs=500)
        assert band[-1] + telescope.CHANNEL_WIDTH_HZ / 2 == pytest.approx(1498.765e6, abs=500)


class TestStations:
    def test_numbers_and_arms(self) -> None:
        arm, active, number = np.array(stations().arm), stations().active, stations().number
        assert number.tolist() == list(range(1, 118))
        assert stations().names[:2] == ("1", "2")
        assert active.sum() == 96
        with pytest.raises(ValueError, match="read-only"):
            stations().itrf_m[0, 0] = 0.0
        assert set(number[(arm == "ew") & active]) == set(range(1, 52)) - {10, 21, 22, 23}
        assert set(number[(arm == "ns") & active]) == set(range(68, 103))
        assert set(number[(arm == "outrigger") & active]) == set(range(103, 117))

    def test_spacings_and_longest_baseline(self) -> None:
        at = stations().itrf_m
        step = np.linalg.norm(np.diff(at, axis=0), axis=1)
        # The list's 1e-7 deg is 1 cm, twice.
        assert step[:8] == pytest.approx(5.75, abs=0.02)
        assert step[68:100] == pytest.approx(8.65, abs=0.02)
        active = at[stations().active]
        assert 2600 < np.linalg.norm(active[:, None] - active, axis=-1).max() < 2700

    def test_itrf_follows_from_geodetic_positions(self) -> None:
        from astropy.coordinates import EarthLocation

        s = stations()
        # The reference point is nearer to a station than the array is large.
        assert np.linalg.norm(s.itrf_m - SITE.itrf_m, axis=1).min() < 500
        there = EarthLocation.from_geodetic(s.lon_deg, s.lat_deg, s.height_m)
        expected = np.stack([there.x.value, there.y.value, there.z.value], axis=1)
        # They are rounded to 0.1 mm.
        np.testing.assert_allclose(s.itrf_m, expected, rtol=0, atol=1e-4)

    def test_stations_equal_the_public_list(self) -> None:
        text = outside_data("dsa110_stations.csv").read_text()
        rows, s = list(csv.DictReader(text.splitlines())), stations()
        assert [row["arm"] for row in rows] == list(s.arm)
        assert [row["active"] == "1" for row in rows] == s.active.tolist()
        assert [float(row["latitude_deg"]) for row in rows] == s.lat_deg.tolist()
        assert [float(row["longitude_deg"]) for row in rows] == s.lon_deg.tolist()


def aperture_power(separation_rad: float, freq_hz: float) -> float:
    """Far-field power of a uniformly lit disc, as a sum over its strips."""
    # Chebyshev nodes of the second kind integrate sqrt(1 - x^2) f(x) exactly for smooth f.
    angle = np.pi * np.arange(1, 401) / 401
    node, weight = np.cos(angle), np.sin(angle) ** 2
    phase = np.pi * DISH_M * freq_hz / SPEED_OF_LIGHT_M_S * np.sin(separation_rad) * node
    return float((np.sum(weight * np.cos(phase)) / np.sum(weight)) ** 2)


class TestBeam:
    @pytest.mark.parametrize(
        ("freq_hz", "fwhm_deg", "fifth_deg"),
        [(1.311e9, 2.90, 2.12), (1.405e9, 2.71, 1.98), (1.499e9, 2.54, None)],
    )
    def test_widths_are_the_published_ones(
        self, freq_hz: float, fwhm_deg: float, fifth_deg: float | None
    ) -> None:
        radius = np.linspace(0, 3, 30001)
        beam = BEAM.at_radius(np.radians(radius), freq_hz)
        # The full width at half power and the radius at 20 % are given to 0.01 deg.
        assert 2 * radius[np.argmax(beam < 0.5)] == pytest.approx(fwhm_deg, abs=0.006)
        if fifth_deg is not None:
            assert radius[np.argmax(beam < 0.2)] == pytest.approx(fifth_deg, abs=0.006)

    def test_beam_is_diffraction_of_disc(self) -> None:
        for separation in np.radians([0.0, 1e-6, 0.1, 0.7, 1.35, 2.0, 3.0, 4.1, 6.0]):
            expected = aperture_power(separation, MIDDLE_HZ)
            assert BEAM.at_radius(separation, MIDDLE_HZ) == pytest.approx(expected, abs=1e-10)
        assert BEAM.at_radius(0.0, MIDDLE_HZ) == 1.0

    def test_first_null_and_sidelobe(self) -> None:
        # The first zero of J1 is 3.8317.
        null = np.arcsin(1.2196699 * SPEED_OF_LIGHT_M_S / MIDDLE_HZ / DISH_M)
        assert BEAM.at_radius(null, MIDDLE_HZ) == pytest.approx(0.0, abs=1e-10)
        beyond = BEAM.at_radius(np.linspace(null, np.radians(6.0), 2000), MIDDLE_HZ)
        assert beyond.max() == pytest.approx(0.0175, abs=1e-4)  # -17.57 dB, every optics book

    def test_beam_is_smooth_and_even(self) -> None:
        around = np.array([0.99e-4, 1.01e-4]) * SPEED_OF_LIGHT_M_S / (np.pi * DISH_M * MIDDLE_HZ)
        one, two = BEAM.at_radius(around, MIDDLE_HZ)
        # 1e-10 is the slope there; the quotient has 1e-11 of noise.
        assert one - two == pytest.approx(1e-10, abs=2e-11)
        made = BEAM.at_radius(np.radians([[0.5], [-0.5]]), np.array([1.4e9, 1.45e9, 1.5e9]))
        assert made.shape == (2, 3)
        np.testing.assert_array_equal(made[0], made[1])
