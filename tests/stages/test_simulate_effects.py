"""Effects and faults of the simulator, each against a known answer."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.coordinates import get_sun
from astropy.time import Time

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.groups import group_id, utc_of_jd
from contimg.runtime.errors import UsageError
from contimg_simulate import sky
from contimg_simulate.effects import EFFECTS, FAULTS, parse_effects
from contimg_simulate.instrument import airy_power
from contimg_simulate.observe import simulate_subband
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import plan_groups
from contimg_simulate.sky import SkySource, apply_effects, far_sources
from contimg_simulate.stage import build_sky
from contimg_simulate.telescope import dsa110
from contimg_simulate.visibilities import predict
from simulated import BARE, group, off_axis, simulate

ARRAY = dsa110()
FIRST, SECOND = ARRAY.pairs
CROSS = FIRST != SECOND
AUTO = int(np.flatnonzero(~CROSS)[0])
SUBBAND = 6


def centre(**changes: object) -> SkySource:
    """Return a source of 1 Jy very near the phase centre."""
    ra_deg, dec_deg = group([off_axis(0.0, 0.0)], **BARE).plan.centre_deg
    place = {"ra_deg": ra_deg, "dec_deg": dec_deg}
    return off_axis(0.0, 0.0).model_copy(update=place | changes)


@pytest.mark.parametrize("pa_deg", [0.0, 30.0, 110.0])
def test_gaussian_source_has_gaussian_visibility(pa_deg: float) -> None:
    shape = {"major_arcsec": 40.0, "minor_arcsec": 15.0, "pa_deg": pa_deg}
    made = group([centre(**shape)], beam="uniform", smearing=False, **BARE)
    found = np.abs(simulate_subband(made, SUBBAND)[1, :, :, 0])
    u, v, _ = ARRAY.uvw_m(made.plan.dec_rad).T
    angle = np.deg2rad(pa_deg)
    along, across = u * np.sin(angle) + v * np.cos(angle), u * np.cos(angle) - v * np.sin(angle)
    wide, narrow = np.deg2rad(np.array([40.0, 15.0]) / 3600)
    waves = made.plan.scale.frequencies_hz(SUBBAND) / SPEED_OF_LIGHT_M_S
    power = ((along * wide) ** 2 + (across * narrow) ** 2)[:, None] * waves**2
    # Fourier transform of a Gaussian of that full width. The slope over a subband is linear.
    expected = np.exp(-(np.pi**2) / (4 * np.log(2)) * power)
    assert np.abs(found - expected).max() < 2e-3
    assert expected.min() < 0.01


def test_polarised_source_differs_between_xx_and_yy() -> None:
    made = group([centre(polarisation=0.1, flux_jy=2.0), off_axis(0.5, 0.5)], **BARE)
    power = simulate_subband(made, SUBBAND)[:, AUTO].real
    plain = made.apparent_jy(made.plan.scale.frequencies_hz(SUBBAND))
    assert power[..., 0] == pytest.approx(plain[0] * 1.1 + plain[1], rel=1e-4)
    assert power[..., 1] == pytest.approx(plain[0] * 0.9 + plain[1], rel=1e-4)


@pytest.mark.parametrize(("east", "north"), [(0.15, 0.0), (0.0, -0.2)])
def test_pointing_error_moves_beam(east: float, north: float) -> None:
    made = group([centre()], effects=f"pointing:{east}:{north}", **BARE)
    power = simulate_subband(made, SUBBAND)[:, AUTO, :, 0].real
    # The source is at the centre at mid-time and drifts by 54 arcsec each way.
    drift = np.array([-1.5, -0.5, 0.5, 1.5]) * 12.8849 * 15.041 / 3600 * np.cos(np.deg2rad(33))
    away = np.deg2rad(np.hypot(-drift - east, north))
    beam = airy_power(away[:, None], made.plan.scale.frequencies_hz(SUBBAND))
    assert power == pytest.approx(beam, rel=2e-4)


def test_beam_is_that_of_option() -> None:
    source, frequency = off_axis(0.0, 1.0), np.array([1.405e9])
    level = {
        beam: float(group([source], beam=beam, **BARE).beam(frequency).mean())
        for beam in ("airy:4.65", "airy:4", "gaussian:3.13@1405MHz", "uniform")
    }
    assert level["uniform"] == 1
    radius = float(group([source], **BARE).separation_rad.mean())
    assert level["airy:4"] == pytest.approx(float(airy_power(radius, 1.405e9, 4.0)), abs=1e-3)
    half = (np.degrees(radius) / 3.13) ** 2
    assert level["gaussian:3.13@1405MHz"] == pytest.approx(2 ** (-4 * half), abs=1e-3)


def test_beam_is_that_of_file(tmp_path: Path) -> None:
    path = tmp_path / "beam.json"
    path.write_text('{"model": "airy:4.65", "offset_deg": [0.3, 0.0]}')
    moved, still = (group([off_axis(1.0, 0.0)], beam=b, **BARE) for b in (str(path), "airy:4.65"))
    frequency = np.array([1.405e9])
    nearer = np.maximum(still.separation_rad - np.deg2rad(0.3), 0)
    expected = airy_power(nearer[..., None], frequency)
    assert moved.beam(frequency) == pytest.approx(expected, rel=2e-3)


def test_antenna_position_errors_turn_phases() -> None:
    made = group([centre()], effects="positions:0.01", beam="uniform", **BARE)
    data = simulate_subband(made, SUBBAND)[0, CROSS, :, 0]
    plain = simulate_subband(group([centre()], beam="uniform", **BARE), SUBBAND)[0, CROSS, :, 0]
    turned = np.angle(data / plain)
    # A path of 1 cm times a component of each of two antennas: 0.0141 m / 0.21 m of a turn.
    expected = 2 * np.pi * 0.01 * np.sqrt(2) * 1.42e9 / SPEED_OF_LIGHT_M_S
    assert turned.std() == pytest.approx(expected, rel=0.2)


def test_screen_phase_goes_with_wavelength_and_slowly() -> None:
    made = group([centre(), off_axis(0.0, 2.0)], effects="ionosphere:30", scale="full", **BARE)
    plain = group(made.sources, scale="full", **BARE)
    phase = {}
    for hertz in (1.32e9, 1.48e9):
        frequency, jy = hertz + 1e6 * np.arange(3.0), np.ones((2, 3), np.float32)
        for k, t in ((0, 0), (0, 23), (1, 0)):
            only = np.arange(2) == k
            with_it, without = (
                predict(g.paths(t, hertz).select(only), jy[:1], frequency, ARRAY.pairs, (0.0, 0.0))
                for g in (made, plain)
            )
            phase[hertz, k, t] = np.angle(with_it[:, 0] / without[:, 0])
    near = np.abs(phase[1.32e9, 0, 0]) < 2.5
    one, other = phase[1.32e9, 0, 0][near], phase[1.48e9, 0, 0][near]
    assert np.abs(other * 1.48 - one * 1.32).max() < 1e-3
    assert 0.05 < one.std() < 1
    assert 0 < np.std(phase[1.32e9, 0, 23][near] - one) < one.std() * 2
    assert np.std(phase[1.32e9, 1, 0][near] - one) > 0.02 * one.std()


def test_sun_stands_where_astropy_has_it() -> None:
    (sun,) = far_sources({"sun": (1e-4,)}, 61065.05)
    expected = get_sun(Time(61065.05, format="mjd"))
    # astropy's place has the aberration, 20 arcsec; the Sun is 1900 arcsec wide.
    assert abs(sun.dec_deg - expected.dec.deg) < 0.01
    assert abs(sun.ra_deg - expected.ra.deg) < 0.01


def test_a_team_has_published_fluxes() -> None:
    found = {source.name: source for source in far_sources({"a-team": (1e-4,)}, 61065.05)}
    # Baars et al. 1977 at 1.4 GHz. Cas A and Tau A fade by 0.7 and 0.2 % a year.
    published = {"Cyg A": 1590.0, "Tau A": 930.0, "Vir A": 214.0}
    assert {n: found[n].flux_jy for n in published} == pytest.approx(published, rel=0.12)
    assert 1500 < found["Cas A"].flux_jy < 2200


def test_far_source_is_seen_at_its_level_above_horizon() -> None:
    options = SimulateOptions(
        out="", incoming="", counts=False, effects="sun:1e-3,a-team", date="2026-06-25"
    )
    plan = plan_groups(options)[0]
    far = [source for source in build_sky(plan, options, []) if source.sidelobe]
    # 3C48 transits in California's morning in June; Vir A is 11 h away from it.
    assert {"Sun", "Cas A", "Tau A"} <= {source.name for source in far}
    assert "Vir A" not in {source.name for source in far}
    made = group(far[:1], effects="sun:1e-3,a-team", **BARE)
    apparent = made.apparent_jy(np.array([1.4e9]))
    assert apparent == pytest.approx(far[0].flux_jy * far[0].sidelobe, rel=1e-6)
    assert not made.is_faint.any()


def test_effects_change_their_share_of_sources() -> None:
    plain = sky.nvss(24.4, 33.0, 12.0, seed=1)
    effects = parse_effects(["resolved:0.4", "variable:0.3:0.15", "polarised:0.2:0.1"], EFFECTS)
    made = apply_effects(plain, effects, seed=1)
    share = {
        "resolved": np.mean([source.major_arcsec > 0 for source in made]),
        "variable": np.mean([source.curve.kind == "wander" for source in made]),
        "polarised": np.mean([source.polarisation != 0 for source in made]),
    }
    assert share == pytest.approx({"resolved": 0.4, "variable": 0.3, "polarised": 0.2}, abs=0.05)
    size = [s.major_arcsec / (2 * (1e3 * s.flux_jy) ** 0.3) for s in made if s.major_arcsec]
    assert np.median(size) == pytest.approx(1.0, rel=0.2)
    assert max(abs(source.polarisation) for source in made) <= 0.1
    varying = [
        s.curve.factor(day, np.ones(1))[0]
        for s in made
        for day in (1.0, 2.0, 3.0)
        if s.curve.kind == "wander"
    ]
    assert np.log(varying).std() == pytest.approx(0.15, rel=0.1)
    assert apply_effects(plain, effects, seed=1) == made


def test_mirror_and_gain_step() -> None:
    sources = [off_axis(0.7, 0.4)]
    plain, mirrored, stepped = (
        simulate_subband(group(sources, faults=f, **BARE), SUBBAND)
        for f in ((), "mirror", "gain-step:1.5")
    )
    assert np.array_equal(mirrored, plain.conj())
    assert stepped[:2] == pytest.approx(plain[:2], rel=1e-5)
    assert stepped[2:] == pytest.approx(1.5 * plain[2:], rel=1e-5)


def test_exchanged_antennas() -> None:
    made = group([off_axis(0.7, 0.4)], faults="swap-antennas:5:110", **BARE)
    found = simulate_subband(made, SUBBAND)[1, ..., 0]
    plain = simulate_subband(group(made.sources, **BARE), SUBBAND)[1, ..., 0]
    row = {
        (int(i) + 1, int(j) + 1): k
        for k, (i, j) in enumerate(zip(ARRAY.first, ARRAY.second, strict=True))
    }

    def value(data: np.ndarray, i: int, j: int) -> np.ndarray:
        return data[row[i, j]] if (i, j) in row else data[row[j, i]].conj()

    for other in (1, 50, 90, 114):
        assert value(found, 5, other) == pytest.approx(value(plain, 110, other))
        assert value(found, 110, other) == pytest.approx(value(plain, 5, other))
    assert value(found, 5, 110) == pytest.approx(value(plain, 110, 5))
    assert value(found, 1, 50) == pytest.approx(value(plain, 1, 50))


def test_exchanged_polarisations_lose_sky_and_take_gains() -> None:
    made = group([centre()], nvss=False, sefd_jy=0.0, faults="swap-polarisations:7")
    data, plain = (
        simulate_subband(g, SUBBAND) for g in (made, group([centre()], nvss=False, sefd_jy=0.0))
    )
    has_it = (ARRAY.first == 6) != (ARRAY.second == 6)
    assert np.all(data[:, has_it] == 0)
    auto = (ARRAY.first == 6) & (ARRAY.second == 6)
    assert data[:, auto] == pytest.approx(plain[:, auto, :, ::-1], rel=1e-5)
    assert np.array_equal(data[:, ~has_it & ~auto], plain[:, ~has_it & ~auto])


def test_half_of_antennas_dead() -> None:
    data = simulate_subband(group([centre()], faults="half-dead", **BARE), SUBBAND)
    # 48 of 96 antennas are left: 48 x 49 / 2 of 4656 baselines.
    assert np.mean(data[0, :, 0, 0] != 0) == pytest.approx(48 * 49 / 2 / 4656)


def test_header_states_wrong_time_and_declination(tmp_path: Path) -> None:
    made = simulate(tmp_path, [centre()], faults="time:60,declination:0.7", **BARE)
    plain = plan_groups(SimulateOptions(out="", incoming=""))[0]
    with h5py.File(made.files[3]) as file:
        first = float(file["Header/time_array"][0])
        dec_rad = float(file["Header/extra_keywords/phase_center_dec"][()])
        uvw = file["Header/uvw_array"][:4656]
    assert (first - plain.time_jd[0]) * 86400 == pytest.approx(60, abs=1e-3)
    assert np.degrees(dec_rad) == pytest.approx(33.7)
    # The visibilities and uvw stay those of the true time and Declination.
    assert uvw == pytest.approx(ARRAY.uvw_m(np.deg2rad(33.0)), abs=2e-4)
    told = made.truth["groups"][0]
    assert told["id"] == group_id(utc_of_jd(first))
    assert told["faults"] == {"time": [60.0], "declination": [0.7]}


def test_brightest_source_flares() -> None:
    options = {"out": "", "incoming": "", "counts": False, "dec_deg": 33.0}
    plain, flaring = (SimulateOptions(**options, faults=f) for f in ((), "flare:1.3"))
    plan = plan_groups(plain)[0]
    before, after = ({s.name: s for s in build_sky(plan, o, [])} for o in (plain, flaring))
    changed = [name for name, source in after.items() if source != before[name]]
    assert changed == ["3C48"]
    band = np.array([1.31e9, 1.49e9])
    ratio = after["3C48"].spectrum_jy(band, 0.0) / before["3C48"].spectrum_jy(band, 0.0)
    assert ratio == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("kind", "share"), [("radar", 0.0068), ("satellite", 0.03), ("broadband", 1.0)]
)
def test_emitters_are_where_truth_has_them(kind: str, share: float) -> None:
    made = group([centre(flux_jy=0.01)], rfi=kind, beam="uniform", **BARE)
    (emitter,) = made.emitters
    assert np.linalg.norm(emitter.direction) == pytest.approx(1)
    assert 0.3 * share < emitter.on.mean() <= 2 * share
    power = np.concatenate(
        [simulate_subband(made, k)[:, AUTO, :, 0].real for k in range(15, -1, -1)], axis=1
    )
    # Channels of a file descend.
    power = power.reshape(4, 16, 12)[:, :, ::-1].reshape(4, 192)
    assert np.all((power > 0.5) == emitter.on)


def test_coupled_baselines_have_signal_of_their_own() -> None:
    made, plain = (group([centre()], rfi=kind, **BARE) for kind in ("baseline", ()))
    differs = [
        np.abs(simulate_subband(made, k) - simulate_subband(plain, k)).max(axis=(0, 2, 3)) > 1
        for k in range(16)
    ]
    rows = np.flatnonzero(np.any(differs, axis=0))
    assert rows.tolist() == sorted(row for row, _, _ in made.coupled)
    assert len(rows) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"effects": "magic"},
        {"effects": "pointing:1:2:3"},
        {"effects": "sun:bright"},
        {"faults": "resolved"},
        {"rfi": "both"},
    ],
)
def test_unknown_effect_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        group([centre()], **options, **BARE)


def test_effects_have_defaults() -> None:
    assert parse_effects(["time", "gain-step:2"], FAULTS) == {"time": (60.0,), "gain-step": (2.0,)}
