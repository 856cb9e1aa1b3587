"""The telescope against its data sheet, and its beam against a diffraction integral."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from contimg.astro.telescope import (
    CHANNEL_WIDTH_HZ,
    DISH_M,
    N_CHANNELS,
    N_SUBBANDS,
    SITE,
    SPEED_OF_LIGHT_M_S,
    band_hz,
    beam_fwhm_rad,
    primary_beam,
    stations,
    subband_frequencies_hz,
)
from contimg.runtime.errors import UsageError

LIST = Path(__file__).parents[3] / "shared" / "data" / "dsa110_stations.csv"
MIDDLE_HZ = 1.405e9


class TestBand:
    def test_first_channel_of_each_subband(self) -> None:
        # The header's formula in MHz: 1498.643188 - 11.71875 k - 0.24414063 j; it is rounded to 10
        # Hz, 47 channels on.
        for k in range(N_SUBBANDS):
            formula = (1498.643188 - 11.71875 * k - 0.24414063 * np.arange(48)) * 1e6
            np.testing.assert_allclose(subband_frequencies_hz(k), formula, rtol=0, atol=1.0)

    def test_a_file_descends_and_subband_0_is_the_highest(self) -> None:
        assert np.all(np.diff(subband_frequencies_hz(0)) < 0)
        assert subband_frequencies_hz(0).min() > subband_frequencies_hz(1).max()

    def test_subbands_are_contiguous(self) -> None:
        for one, two in pairwise(map(subband_frequencies_hz, range(N_SUBBANDS))):
            assert one[-1] - two[0] == pytest.approx(CHANNEL_WIDTH_HZ, abs=1e-3)

    def test_whole_band_ascends_between_the_published_edges(self) -> None:
        band = band_hz()
        assert band.size == N_CHANNELS == 768
        assert np.all(np.diff(band) > 0)
        # The telescope's description gives the outer edges to 1 kHz.
        assert band[0] - CHANNEL_WIDTH_HZ / 2 == pytest.approx(1311.265e6, abs=500)
        assert band[-1] + CHANNEL_WIDTH_HZ / 2 == pytest.approx(1498.765e6, abs=500)

    def test_whole_band_is_the_subbands_turned_round(self) -> None:
        files = np.concatenate([subband_frequencies_hz(k) for k in range(N_SUBBANDS)])
        np.testing.assert_array_equal(band_hz(), files[::-1])

    @pytest.mark.parametrize("subband", [-1, 16])
    def test_no_such_subband(self, subband: int) -> None:
        with pytest.raises(UsageError, match=f"There is no subband {subband};"):
            subband_frequencies_hz(subband)


class TestStations:
    def test_numbers(self) -> None:
        assert stations().number.tolist() == list(range(1, 118))
        assert stations().names[:2] == ("1", "2")
        assert stations().active.sum() == 96

    def test_arms(self) -> None:
        arm, active = np.array(stations().arm), stations().active
        number = stations().number
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
        longest = np.linalg.norm(active[:, None] - active, axis=-1).max()
        assert 2600 < longest < 2700

    def test_positions_are_the_geodetic_ones_in_itrf(self) -> None:
        from astropy.coordinates import EarthLocation

        s = stations()
        oracle = EarthLocation.from_geodetic(s.lon_deg, s.lat_deg, s.height_m)
        # They are rounded to 0.1 mm.
        np.testing.assert_allclose(
            s.itrf_m,
            np.stack([oracle.x.value, oracle.y.value, oracle.z.value], axis=1),
            rtol=0,
            atol=1e-4,
        )

    def test_the_array_is_where_the_data_say(self) -> None:
        # The reference point of the headers is among the stations: nearer than the array is large.
        assert np.linalg.norm(stations().itrf_m - SITE.itrf_m, axis=1).min() < 500

    def test_shared_arrays_are_read_only(self) -> None:
        with pytest.raises(ValueError, match="read-only"):
            stations().itrf_m[0, 0] = 0.0

    @pytest.mark.skipif(
        not LIST.exists(), reason="the telescope's station list is not beside the project"
    )
    def test_they_are_those_of_the_public_list(self) -> None:
        with LIST.open() as source:
            rows = list(csv.DictReader(source))
        s = stations()
        assert [row["arm"] for row in rows] == list(s.arm)
        assert [row["active"] == "1" for row in rows] == s.active.tolist()
        assert [float(row["latitude_deg"]) for row in rows] == s.lat_deg.tolist()
        assert [float(row["longitude_deg"]) for row in rows] == s.lon_deg.tolist()


def aperture_power(separation_rad: float, freq_hz: float) -> float:
    """Far-field power of a uniformly lit disc, as a sum over its strips."""
    # Chebyshev nodes of the second kind integrate sqrt(1 - x^2) f(x) exactly for smooth f.
    count = 400
    node = np.cos(np.pi * np.arange(1, count + 1) / (count + 1))
    weight = np.sin(np.pi * np.arange(1, count + 1) / (count + 1)) ** 2
    phase = np.pi * DISH_M * freq_hz / SPEED_OF_LIGHT_M_S * np.sin(separation_rad) * node
    return float((np.sum(weight * np.cos(phase)) / np.sum(weight)) ** 2)


class TestBeam:
    def test_centre_and_half_power(self) -> None:
        assert primary_beam(0.0, MIDDLE_HZ) == 1.0
        for freq in (1.311e9, MIDDLE_HZ, 1.499e9):
            # Half power to the rounding of doubles through one arcsine and one Bessel function.
            assert primary_beam(beam_fwhm_rad(freq) / 2, freq) == pytest.approx(0.5, abs=1e-12)

    @pytest.mark.parametrize(
        ("freq_hz", "fwhm_deg"), [(1.311e9, 2.90), (1.405e9, 2.71), (1.499e9, 2.54)]
    )
    def test_width_is_the_published_one(self, freq_hz: float, fwhm_deg: float) -> None:
        assert np.degrees(beam_fwhm_rad(freq_hz)) == pytest.approx(
            fwhm_deg, abs=0.006
        )  # given to 0.01 deg

    def test_it_is_the_diffraction_of_a_disc(self) -> None:
        for separation in np.radians([1e-6, 0.1, 0.7, 1.35, 2.0, 3.0, 4.1, 6.0]):
            assert primary_beam(separation, MIDDLE_HZ) == pytest.approx(
                aperture_power(separation, MIDDLE_HZ), abs=1e-10
            )

    def test_first_null_and_sidelobe(self) -> None:
        wavelength = SPEED_OF_LIGHT_M_S / MIDDLE_HZ
        null = np.arcsin(1.2196699 * wavelength / DISH_M)  # the first zero of J1 is 3.8317
        assert primary_beam(null, MIDDLE_HZ) == pytest.approx(0.0, abs=1e-10)
        beyond = primary_beam(np.linspace(null, np.radians(6.0), 2000), MIDDLE_HZ)
        assert beyond.max() == pytest.approx(0.0175, abs=1e-4)  # -17.57 dB, every optics book

    def test_twenty_per_cent_radius(self) -> None:
        radius = np.radians(np.linspace(0, 3, 30001))
        at = [
            np.degrees(radius[np.argmax(primary_beam(radius, f) < 0.2)]) for f in (1.405e9, 1.311e9)
        ]
        assert at == pytest.approx([1.98, 2.12], abs=0.006)  # to 0.01 deg

    def test_small_arguments_join_smoothly(self) -> None:
        around = np.array([0.99e-4, 1.01e-4]) * SPEED_OF_LIGHT_M_S / (np.pi * DISH_M * MIDDLE_HZ)
        one, two = primary_beam(around, MIDDLE_HZ)
        assert one - two == pytest.approx(
            1e-10, abs=2e-11
        )  # the slope there; the quotient has 1e-11 of noise

    def test_it_broadcasts_and_is_even(self) -> None:
        made = primary_beam(np.radians([[0.5], [-0.5]]), np.array([1.4e9, 1.45e9, 1.5e9]))
        assert made.shape == (2, 3)
        np.testing.assert_array_equal(made[0], made[1])
