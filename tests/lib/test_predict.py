"""Predicted visibilities against direct sums of the formula, integral by integral."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import (
    apparent_hadec,
    direction_cosines,
    icrs_of_hadec,
    separation_rad,
)
from contimg.astro.predict import (
    DEFAULT_SPECTRAL_INDEX,
    PointSources,
    SkyModel,
    antenna_positions,
    power_law,
    predict,
    predict_rows,
)
from contimg.astro.telescope import SITE, primary_beam
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

MJD = 61065.05
DEC = np.radians(33.0)
FREQ = 1.405e9 + 0.9765625e6 * np.arange(-8, 8)
WIDTH, INTEGRATION = 0.9765625e6, 12.884902
RA0, DEC0 = (float(angle) for angle in icrs_of_hadec(0.0, DEC, MJD, SITE))
ANT1, ANT2 = np.triu_indices(7)


def positions() -> FloatArray:
    return np.random.default_rng(1).normal(size=(7, 3)) * [900.0, 900.0, 50.0]


def sources(count: int = 5, spread_rad: float = 0.02) -> PointSources:
    rng = np.random.default_rng(2)
    ra = RA0 + rng.normal(0, spread_rad, count) / np.cos(DEC0)
    return PointSources(
        ra,
        DEC0 + rng.normal(0, spread_rad, count),
        power_law(rng.uniform(0.5, 3, count), 1.4e9, FREQ),
    )


def sky(**changes: object) -> SkyModel:
    made = SkyModel(sources(), RA0, DEC0, FREQ, 0.0, 0.0, SITE, DEC)
    return replace(made, **changes)  # type: ignore[arg-type]


def beam(seen: SkyModel, mjd: float) -> FloatArray:
    hour_angle, dec = apparent_hadec(seen.sources.ra_rad, seen.sources.dec_rad, mjd, SITE)
    return primary_beam(separation_rad(hour_angle, dec, 0.0, DEC)[:, None], FREQ[None, :])


def direct(seen: SkyModel, where: FloatArray, mjd: float) -> npt.NDArray[np.complex128]:
    """Sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c) over the sources, without smearing."""
    east, north, towards = direction_cosines(seen.sources.ra_rad, seen.sources.dec_rad, RA0, DEC0)
    total = np.zeros((ANT1.size, FREQ.size), complex)
    apparent = seen.sources.flux_jy * beam(seen, mjd)
    for row, (i, j) in enumerate(zip(ANT1, ANT2, strict=True)):
        u, v, w = where[j] - where[i]
        for k in range(len(seen.sources)):
            path = u * east[k] + v * north[k] + w * towards[k]
            total[row] += apparent[k] * np.exp(2j * np.pi * path * FREQ / SPEED_OF_LIGHT_M_S)
    return total


def smeared(
    seen: SkyModel, where: FloatArray, mjd: float, parts: int = 15
) -> npt.NDArray[np.complex128]:
    """Average over integration and channel by brute force, as a correlator on the meridian does.

    The Earth turns the baselines; the correlator holds the phase of the direction that is on the
    meridian at the middle, and each sample is then turned to the phase centre by one phase.
    """
    east, north, towards = direction_cosines(seen.sources.ra_rad, seen.sources.dec_rad, RA0, DEC0)
    ra, dec = icrs_of_hadec(0.0, DEC, mjd, SITE)
    centre = np.array(direction_cosines(ra, dec, RA0, DEC0))
    apparent = seen.sources.flux_jy * beam(seen, mjd)
    pole = np.array([0.0, np.cos(DEC0), np.sin(DEC0)])
    total = np.zeros((ANT1.size, FREQ.size), complex)
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    for late in offsets * INTEGRATION:
        turn = 2 * np.pi * 1.00273781191135448 / 86400 * late
        turned = (
            where
            + np.cross(pole, where) * np.sin(turn)
            + np.cross(pole, np.cross(pole, where)) * (1 - np.cos(turn))
        )
        for high in offsets * WIDTH:
            for k in range(len(seen.sources)):
                direction = np.array([east[k], north[k], towards[k]])
                away = (turned[ANT2] - turned[ANT1]) @ (direction - centre)
                held = (where[ANT2] - where[ANT1]) @ centre
                phase = away[:, None] * (FREQ + high) + held[:, None] * FREQ
                total += apparent[k] * np.exp(2j * np.pi * phase / SPEED_OF_LIGHT_M_S) / parts**2
    return total


def test_it_is_the_direct_sum() -> None:
    found = predict_rows(sky(), positions(), MJD, ANT1, ANT2)
    expected = direct(sky(), positions(), MJD)
    # complex64 carries 6e-8 of each source, and five of them add.
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_stations_without_rows_change_nothing() -> None:
    kept = (ANT1 != 3) & (ANT2 != 3)
    ant1, ant2 = ANT1[kept], ANT2[kept]
    smeared = sky(width_hz=WIDTH, integration_s=INTEGRATION)
    everything = predict(smeared, positions(), MJD)[:, ant1, ant2].T
    found = predict_rows(smeared, positions(), MJD, ant1, ant2)
    # Sums of another size may round otherwise.
    assert np.abs(found - everything).max() < 1e-6 * np.abs(everything).max()


def test_an_off_axis_source_is_not_mirrored() -> None:
    mirrored = sources()
    mirrored = PointSources(
        2 * RA0 - mirrored.ra_rad, 2 * DEC0 - mirrored.dec_rad, mirrored.flux_jy
    )
    found = predict_rows(sky(sources=mirrored), positions(), MJD, ANT1, ANT2)
    expected = direct(sky(), positions(), MJD)
    assert np.abs(found - expected).max() > 0.5 * np.abs(expected).max()


def test_the_w_term_matters_and_is_there() -> None:
    flat = positions() * [1.0, 1.0, 0.0]
    deep = positions() * [1.0, 1.0, 10.0]
    assert np.abs(direct(sky(), deep, MJD) - direct(sky(), flat, MJD)).max() > 0.1
    assert (
        np.abs(predict_rows(sky(), deep, MJD, ANT1, ANT2) - direct(sky(), deep, MJD)).max() < 1e-4
    )


@pytest.mark.parametrize("seconds", [-150.0, 0.0, 150.0])
def test_the_beam_drifts(seconds: float) -> None:
    mjd = MJD + seconds / 86400
    alone = sky(sources=PointSources(np.array([RA0]), np.array([DEC0]), np.ones((1, FREQ.size))))
    found = predict(alone, positions(), mjd)[:, 0, 1]
    # The source is at the phase centre, so its phase is zero and its size is the beam, moved 15
    # arcsec a second.
    away = abs(seconds) * 2 * np.pi * 1.002738 / 86400 * np.cos(DEC)
    assert found.real == pytest.approx(primary_beam(away, FREQ), abs=1e-4)
    assert np.abs(found.imag).max() < 1e-6


def test_smearing_is_the_mean_over_integration_and_channel() -> None:
    seen = sky(width_hz=WIDTH, integration_s=INTEGRATION)
    mjd = MJD + 140.0 / 86400
    sharp, expected = direct(sky(), positions(), mjd), smeared(seen, positions(), mjd)
    found = predict_rows(seen, positions(), mjd, ANT1, ANT2)
    lost = np.abs(sharp - expected).max()
    # Two Gauss nodes are exact to the fourth order of a smearing of a few per cent; the brute sum
    # has steps of 1/15.
    assert np.abs(found - expected).max() < 0.05 * lost
    assert lost > 0.02


def test_smearing_is_left_out_where_it_cannot_matter() -> None:
    faint = sources()
    flux = faint.flux_jy * np.array([100.0, 1e-3, 1e-3, 1e-3, 1e-3])[:, None]
    seen = sky(
        sources=PointSources(faint.ra_rad, faint.dec_rad, flux),
        width_hz=WIDTH,
        integration_s=INTEGRATION,
    )
    expected = smeared(seen, positions(), MJD)
    found = predict_rows(seen, positions(), MJD, ANT1, ANT2)
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


def test_without_a_site_the_beam_is_one_and_the_centre_is_tracked() -> None:
    alone = PointSources(np.array([RA0]), np.array([DEC0]), np.full((1, FREQ.size), 15.0))
    found = predict(SkyModel(alone, RA0, DEC0, FREQ, WIDTH, INTEGRATION), positions(), 0.0)
    assert np.abs(found - 15.0).max() < 1e-4


def test_uneven_channels_are_predicted_one_by_one() -> None:
    freq = FREQ + np.linspace(0, 1e5, FREQ.size) ** 1.1
    seen = SkyModel(
        PointSources(sources().ra_rad, sources().dec_rad, sources().flux_jy),
        RA0,
        DEC0,
        freq,
        0.0,
        0.0,
    )
    whole = predict(seen, positions(), MJD)
    for f in (0, 7, 15):
        part = PointSources(
            seen.sources.ra_rad, seen.sources.dec_rad, seen.sources.flux_jy[:, f : f + 1]
        )
        one = predict(replace(seen, sources=part, freq_hz=freq[f : f + 1]), positions(), MJD)
        assert np.abs(one[0] - whole[f]).max() < 1e-5 * np.abs(whole).max()


def test_spectra_are_power_laws() -> None:
    spectra = power_law([2.0, 1.0], 1.4e9, np.array([1.4e9, 2.8e9]))
    assert spectra == pytest.approx(
        np.array([[2.0, 2.0 * 2**DEFAULT_SPECTRAL_INDEX], [1.0, 2**DEFAULT_SPECTRAL_INDEX]])
    )


def test_antennas_are_found_from_uvw() -> None:
    where = positions()
    found = antenna_positions(where[ANT2] - where[ANT1], ANT1, ANT2, 9)
    assert np.abs((found[:7] - found[0]) - (where - where[0])).max() < 1e-9
    assert not found[7:].any()


def test_uvw_that_are_no_differences_are_refused() -> None:
    where = positions()
    uvw = where[ANT2] - where[ANT1]
    uvw[3, 0] += 5.0
    with pytest.raises(BadInputError, match="differences of antenna positions"):
        antenna_positions(uvw, ANT1, ANT2, 7)
