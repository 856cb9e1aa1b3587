"""Predicted visibilities against direct sums of the formula, integral by integral."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from contimg.astro import coordinates
from contimg.astro import predict as prediction
from contimg.astro.beam_files import read_beam
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.predict import PointSources, SkyModel, power_law, predict, predict_rows
from contimg.astro.telescope import SITE
from contimg.runtime.errors import BadInputError

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complexfloating]

BEAM = read_beam("airy:4.65")
MJD = 61065.05
DEC = np.radians(33.0)
FREQ = 1.405e9 + 0.9765625e6 * np.arange(-8, 8)
WIDTH, INTEGRATION = 0.9765625e6, 12.884902
RA0, DEC0 = (float(angle) for angle in coordinates.icrs_of_hadec(0.0, DEC, MJD, SITE))
ANT1, ANT2 = np.triu_indices(7)
POSITIONS = np.random.default_rng(1).normal(size=(7, 3)) * [900.0, 900.0, 50.0]
EARTH_RATE_RAD_S = 2 * np.pi * 1.00273781191135448 / 86400


def sources(count: int = 5, spread_rad: float = 0.02) -> PointSources:
    rng = np.random.default_rng(2)
    ra = RA0 + rng.normal(0, spread_rad, count) / np.cos(DEC0)
    dec = DEC0 + rng.normal(0, spread_rad, count)
    return PointSources(ra, dec, power_law(rng.uniform(0.5, 3, count), 1.4e9, FREQ))


def at_centre(flux_jy: float) -> PointSources:
    return PointSources(np.array([RA0]), np.array([DEC0]), np.full((1, FREQ.size), flux_jy))


def sky(**changes: object) -> SkyModel:
    made = SkyModel(sources(), RA0, DEC0, FREQ, 0.0, 0.0, BEAM, SITE, DEC)
    return replace(made, **changes)  # type: ignore[arg-type]


def smearing_sky(**changes: object) -> SkyModel:
    return sky(width_hz=WIDTH, integration_s=INTEGRATION, **changes)


def rows(seen: SkyModel, where: FloatArray = POSITIONS, mjd: float = MJD) -> ComplexArray:
    return predict_rows(seen, where, mjd, ANT1, ANT2)


def worst(one: ComplexArray, two: ComplexArray) -> float:
    return float(np.abs(one - two).max())


def geometry(seen: SkyModel, mjd: float) -> tuple[FloatArray, FloatArray]:
    """Return l, m, n - 1 of the sources, (S, 3), and their apparent fluxes, (S, channels)."""
    ra, dec = seen.sources.ra_rad, seen.sources.dec_rad
    hour_angle, apparent_dec = coordinates.apparent_hadec(ra, dec, mjd, SITE)
    away = coordinates.separation_rad(hour_angle, apparent_dec, 0.0, DEC)
    beam = BEAM.at_radius(away[:, None], FREQ[None, :])
    cosines = np.stack(coordinates.direction_cosines(ra, dec, RA0, DEC0), axis=1)
    return cosines, seen.sources.flux_jy * beam


def direct(seen: SkyModel, where: FloatArray = POSITIONS, mjd: float = MJD) -> ComplexArray:
    """Sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c) over the sources, without smearing."""
    total = np.zeros((ANT1.size, FREQ.size), complex)
    for direction, flux in zip(*geometry(seen, mjd), strict=True):
        path = (where[ANT2] - where[ANT1]) @ direction
        total += flux * np.exp(2j * np.pi * path[:, None] * FREQ / SPEED_OF_LIGHT_M_S)
    return total


def smeared(seen: SkyModel, mjd: float, parts: int = 15) -> ComplexArray:
    """Average over integration and channel by brute force, as a correlator on the meridian does.

    The Earth turns the baselines; the correlator holds the phase of the direction that is on the
    meridian at the middle, and each sample is then turned to the phase centre by one phase.
    """
    where, places = POSITIONS, list(zip(*geometry(seen, mjd), strict=True))
    on_meridian = coordinates.icrs_of_hadec(0.0, DEC, mjd, SITE)
    centre = np.array(coordinates.direction_cosines(*on_meridian, RA0, DEC0))
    pole = np.array([0.0, np.cos(DEC0), np.sin(DEC0)])
    total = np.zeros((ANT1.size, FREQ.size), complex)
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    for late in offsets * INTEGRATION:
        turn = EARTH_RATE_RAD_S * late
        across, back = np.cross(pole, where), np.cross(pole, np.cross(pole, where))
        turned = where + across * np.sin(turn) + back * (1 - np.cos(turn))
        for high in offsets * WIDTH:
            for direction, flux in places:
                away = (turned[ANT2] - turned[ANT1]) @ (direction - centre)
                held = (where[ANT2] - where[ANT1]) @ centre
                phase = away[:, None] * (FREQ + high) + held[:, None] * FREQ
                total += flux * np.exp(2j * np.pi * phase / SPEED_OF_LIGHT_M_S) / parts**2
    return total


def test_prediction_is_direct_sum() -> None:
    expected = direct(sky())
    # complex64 carries 6e-8 of each source, and five of them add.
    assert worst(rows(sky()), expected) < 1e-5 * np.abs(expected).max()


def test_stations_without_rows_change_nothing() -> None:
    kept = (ANT1 != 3) & (ANT2 != 3)
    ant1, ant2 = ANT1[kept], ANT2[kept]
    everything = predict(smearing_sky(), POSITIONS, MJD)[:, ant1, ant2].T
    found = predict_rows(smearing_sky(), POSITIONS, MJD, ant1, ant2)
    # Sums of another size may round otherwise.
    assert worst(found, everything) < 1e-6 * np.abs(everything).max()


def test_off_axis_sources_are_not_mirrored() -> None:
    ra, dec, flux = vars(sources()).values()
    found = rows(sky(sources=PointSources(2 * RA0 - ra, 2 * DEC0 - dec, flux)))
    expected = direct(sky())
    assert worst(found, expected) > 0.5 * np.abs(expected).max()


def test_w_term_matters_and_is_there() -> None:
    flat, deep = POSITIONS * [1.0, 1.0, 0.0], POSITIONS * [1.0, 1.0, 10.0]
    assert worst(direct(sky(), deep), direct(sky(), flat)) > 0.1
    assert worst(rows(sky(), deep), direct(sky(), deep)) < 1e-4


@pytest.mark.parametrize("seconds", [-150.0, 0.0, 150.0])
def test_beam_drifts(seconds: float) -> None:
    found = predict(sky(sources=at_centre(1.0)), POSITIONS, MJD + seconds / 86400)[:, 0, 1]
    # The source is at the phase centre, so its phase is zero and its size is the beam, moved 15
    # arcsec a second.
    away = abs(seconds) * EARTH_RATE_RAD_S * np.cos(DEC)
    assert found.real == pytest.approx(BEAM.at_radius(away, FREQ), abs=1e-4)
    assert np.abs(found.imag).max() < 1e-6


def test_smearing_is_mean_over_integration_and_channel() -> None:
    seen, mjd = smearing_sky(), MJD + 140.0 / 86400
    expected = smeared(seen, mjd)
    lost = worst(direct(sky(), mjd=mjd), expected)
    # Two Gauss nodes are exact to the fourth order of a smearing of a few per cent; the brute sum
    # has steps of 1/15.
    assert worst(rows(seen, mjd=mjd), expected) < 0.05 * lost
    assert lost > 0.02


def test_smearing_is_left_out_where_it_cannot_matter() -> None:
    ra, dec, flux = vars(sources()).values()
    faint = flux * np.array([100.0, 1e-3, 1e-3, 1e-3, 1e-3])[:, None]
    seen = smearing_sky(sources=PointSources(ra, dec, faint))
    expected = smeared(seen, MJD)
    assert worst(rows(seen), expected) < 2e-3 * np.abs(expected).max()


def test_without_site_beam_is_one_and_centre_is_tracked() -> None:
    seen = SkyModel(at_centre(15.0), RA0, DEC0, FREQ, WIDTH, INTEGRATION, BEAM)
    assert np.abs(predict(seen, POSITIONS, 0.0) - 15.0).max() < 1e-4


def test_uneven_channels_are_predicted_one_by_one() -> None:
    freq = FREQ + np.linspace(0, 1e5, FREQ.size) ** 1.1
    seen = SkyModel(sources(), RA0, DEC0, freq, 0.0, 0.0, BEAM)
    whole = predict(seen, POSITIONS, MJD)
    for f in (0, 7, 15):
        part = replace(sources(), flux_jy=sources().flux_jy[:, f : f + 1])
        one = predict(replace(seen, sources=part, freq_hz=freq[f : f + 1]), POSITIONS, MJD)
        assert worst(one[0], whole[f]) < 1e-5 * np.abs(whole).max()


def test_spectra_are_power_laws() -> None:
    spectra = power_law([2.0, 1.0], 1.4e9, np.array([1.4e9, 2.8e9]))
    ratio = 2**prediction.DEFAULT_SPECTRAL_INDEX
    assert spectra == pytest.approx(np.array([[2.0, 2.0 * ratio], [1.0, ratio]]))


def test_antennas_are_found_from_uvw() -> None:
    uvw = POSITIONS[ANT2] - POSITIONS[ANT1]
    found = prediction.antenna_positions(uvw, ANT1, ANT2, 9)
    assert np.abs((found[:7] - found[0]) - (POSITIONS - POSITIONS[0])).max() < 1e-9
    assert not found[7:].any()
    uvw[3, 0] += 5.0
    with pytest.raises(BadInputError, match="differences of antenna positions"):
        prediction.antenna_positions(uvw, ANT1, ANT2, 7)
