"""The figures, from solutions, images and tables whose content is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from matplotlib.patches import Ellipse

from contimg.astro.telescope import stations
from contimg.records.images import SkyImage, read_image
from contimg_report import (
    figure,
    plots_calibration,
    plots_flags,
    plots_fluxes,
    plots_image,
    plots_run,
)

pytestmark = pytest.mark.usefixtures("page_style")
ANTENNAS, CHANNELS = 6, 32


def solutions(
    times: int, roles: tuple[str, ...] = ("bandpass", "phase", "gain")
) -> dict[str, np.ndarray]:
    """Solutions of six stations, the fifth missing; each phase turns by 5 degrees."""
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {"antenna": np.array(["1", "2", "3", "101", "102", "103"])}
    for role in roles:
        channels = CHANNELS if role == "bandpass" else 1
        count = 1 if role == "bandpass" else times
        shape = (count, ANTENNAS, channels, 2)
        turn = np.exp(1j * np.deg2rad(5.0) * np.arange(count)[:, None, None, None])
        value = (1 + 0.05 * rng.standard_normal(shape)) * turn
        flag = np.zeros(shape, bool)
        flag[:, 4] = True
        arrays[f"{role}_value"], arrays[f"{role}_flag"] = value.astype(np.complex64), flag
        arrays[f"{role}_time_s"] = 5.27e9 + 60.0 * np.arange(count)
        arrays[f"{role}_freq_hz"] = np.linspace(1.31e9, 1.5e9, channels)
    return arrays


def test_bandpass_leaves_out_stations_that_do_not_exist() -> None:
    amplitude, phase = plots_calibration.draw_bandpass(solutions(1))
    assert "5 antennas, 32 channels, 0.00 % flagged" in amplitude.alt
    assert "5 antennas" in phase.alt


def test_bandpass_counts_flagged_channels() -> None:
    arrays = solutions(1)
    arrays["bandpass_flag"][:, 0, :16] = True
    amplitude, _ = plots_calibration.draw_bandpass(arrays)
    assert "10.00 % flagged" in amplitude.alt


def test_phases_are_drawn_against_time_if_there_are_several() -> None:
    drawn = {one.name: one for one in plots_calibration.draw_gains(solutions(4))}
    change = "relative to the first of 4 solutions; largest change 15.0 degrees"
    assert change in drawn["gain-phase"].alt
    drawn = {one.name: one for one in plots_calibration.draw_gains(solutions(1))}
    assert "one solution" in drawn["gain-phase"].caption


@pytest.mark.parametrize(
    ("roles", "names"),
    [
        (("bandpass", "gain"), ["gain-amplitude", "gain-phase"]),
        (("bandpass", "phase", "gain", "field"), ["gain-amplitude", "gain-phase", "field-phase"]),
    ],
)
def test_gains_are_drawn_of_the_roles_that_exist(roles: tuple[str, ...], names: list[str]) -> None:
    assert [one.name for one in plots_calibration.draw_gains(solutions(2, roles))] == names


def test_no_bandpass_draws_nothing() -> None:
    assert plots_calibration.draw_bandpass({"gain_value": np.ones(1)}) == []
    assert plots_calibration.draw_bandpass_lines({}) == []


def flagging(count: int) -> dict[str, Any]:
    places = zip(stations().number, stations().active, strict=True)
    names = [str(number) for number, active in places if active][:count]
    antennas: list[dict[str, Any]] = [
        {"index": k, "name": name, "fraction": [0.1, 0.3], "dead": []}
        for k, name in enumerate(names)
    ]
    antennas[2]["dead"] = ["YY"]
    return {
        "antennas": antennas,
        "frequency_first_hz": 1.311e9,
        "channel_width_hz": 1e6,
        "channel_fraction": [0.0, 0.25, 0.1],
        "integration_mjd": [61000.0, 61000.00015, 61000.0003],
        "integration_fraction": [0.0, 0.1, 0.02],
    }


def test_flags_are_drawn_over_frequency_time_and_the_array() -> None:
    given = flagging(20)
    over_frequency = plots_flags.draw_flags_over_frequency(given)
    assert "median 10.00 %, most 25.0 % at 1312.0 MHz" in over_frequency.alt
    over_time = plots_flags.draw_flags_over_time(given)
    assert "each of 3 integrations: from 0.00 to 10.00 %" in over_time.alt
    over_array = plots_flags.draw_flags_over_array(given)
    assert "Map of 20 antennas" in over_array.alt
    assert f"dead: {given['antennas'][2]['name']}" in over_array.alt


def test_map_of_the_array_leaves_out_antennas_of_another_telescope() -> None:
    given = flagging(5)
    given["antennas"].append({"index": 9, "name": "ea07", "fraction": [1.0, 1.0], "dead": []})
    assert "Map of 5 antennas" in plots_flags.draw_flags_over_array(given).alt


def sky_image(
    path: Path, pixels: np.ndarray, *, beam: bool = True, pa_deg: float = 30.0
) -> SkyImage:
    header = fits.Header()
    for axis, (size, value, kind) in enumerate(
        zip(pixels.shape[::-1], (38.9, 33.0), ("RA---SIN", "DEC--SIN"), strict=True), start=1
    ):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = kind, "deg"
        header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = value, size / 2 + 1
        header[f"CDELT{axis}"] = (-3 if axis == 1 else 3) / 3600
    header["RADESYS"], header["BUNIT"] = "ICRS", "Jy/beam"
    if beam:
        header.update({"BMAJ": 68 / 3600, "BMIN": 37 / 3600, "BPA": pa_deg})
    fits.writeto(path, pixels.astype(np.float32), header)
    return read_image(path)


class Planes:
    """An image artifact's stand-in: the planes that exist and its metrics."""

    def __init__(self, folder: Path, *names: str, beam: bool = True) -> None:
        rng = np.random.default_rng(1)
        self.metrics = {"rms_jy": 1e-3}
        self.planes = {}
        for name in (f"{name}.fits" for name in names):
            pixels = 1e-3 * rng.standard_normal((600, 600))
            self.planes[name] = sky_image(folder / name, pixels, beam=beam)

    def has(self, name: str) -> bool:
        return name in self.planes

    def image(self, name: str) -> SkyImage:
        return self.planes[name]


def test_planes_that_exist_are_drawn_with_their_beam(tmp_path: Path) -> None:
    names = ("image", "residual", "rms", "beam", "psf")
    drawn = plots_image.draw_planes(Planes(tmp_path, *names))  # type: ignore[arg-type]
    assert [one.name for one in drawn] == [f"sky-{name}" for name in names]
    assert "Beam 68″ × 37″ at 30°" in drawn[0].caption
    assert "0.5 by 0.5 degrees" in drawn[0].alt
    alone = plots_image.draw_planes(Planes(tmp_path / "..", "image"))  # type: ignore[arg-type]
    assert [one.name for one in alone] == ["sky-image"]


def test_image_without_a_beam_in_its_header_has_no_ellipse(tmp_path: Path) -> None:
    planes = Planes(tmp_path, "rms", "psf", beam=False)
    drawn = plots_image.draw_planes(planes)  # type: ignore[arg-type]
    assert "Beam" not in drawn[0].caption
    assert len(drawn) == 2


@pytest.mark.parametrize("pa_deg", [0.0, 30.0, 93.0])
def test_ellipse_leans_from_north_through_east(tmp_path: Path, pa_deg: float) -> None:
    image = sky_image(tmp_path / "image.fits", np.zeros((64, 64)) + 1, pa_deg=pa_deg)
    _, (axes,) = figure.new_figure()
    plots_image.draw_beam(axes, image.beam, (0.88, -0.88))
    (patch,) = [one for one in axes.patches if isinstance(one, Ellipse)]
    vertex = patch.get_patch_transform().transform((0, 1)) - np.array(patch.get_center())
    # Coordinates are degrees east and north: the major axis points to (sin PA, cos PA).
    assert np.degrees(np.arctan2(*vertex)) % 180 == pytest.approx(pa_deg % 180, abs=1e-6)
    assert np.hypot(*vertex) == pytest.approx(5 * 68 / 3600 / 2)


def test_east_is_to_the_left(tmp_path: Path) -> None:
    image = sky_image(tmp_path / "image.fits", np.random.default_rng(1).normal(size=(64, 64)))
    svg = plots_image.draw_plane("rms", image, 1.0).svg
    labels = re.findall(r' x="([\d.]+)"[^>]*>(−?[\d.]+)</text>', svg[: svg.index("East")])
    place = {text: float(x) for x, text in labels}
    assert place["0.02"] < place["0.00"] < place["−0.02"]


def photometry(count: int, snr: float, blend: int = 1) -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table(
        {
            "source": [f"s{k}" for k in range(count)],
            "flux_ratio": 0.97 + 0.02 * rng.standard_normal(count),
            "snr": np.full(count, snr),
            "blend": np.full(count, blend, np.int16),
            "catalogue_flux": np.geomspace(50, 900, count),
            "flux_forced": np.geomspace(50, 900, count),
            "flux_peak_err": np.ones(count),
            "beam": np.full(count, 0.5),
            "ra_offset": 0.5 + 0.1 * rng.standard_normal(count),
            "dec_offset": -0.2 + 0.1 * rng.standard_normal(count),
        }
    )


def test_flux_ratio_and_offsets_say_their_medians() -> None:
    table = photometry(40, 100.0)
    ratio, offsets = plots_fluxes.draw_fluxes(table)
    assert f"median {np.median(table['flux_ratio']):.3f}" in ratio.alt
    median = [float(np.median(table[name])) for name in ("ra_offset", "dec_offset")]
    assert f"({median[0]:+.2f}″, {median[1]:+.2f}″)" in offsets.alt


def test_faint_or_blended_sources_are_not_compared() -> None:
    assert plots_fluxes.draw_fluxes(photometry(40, 10.0)) == []
    assert plots_fluxes.draw_fluxes(photometry(5, 100.0, blend=2)) == []


def test_brightest_sources_come_first() -> None:
    rows = plots_fluxes.brightest_rows(photometry(40, 100.0))
    assert len(rows) == plots_fluxes.TABLE_ROWS
    assert rows[0]["source"] == "s39"
    assert rows[0]["flux"] == "900.0"


def factor_table(factor: list[float | None], fields: str) -> pa.Table:
    return pa.table(
        {
            "mjd": [61000.0, 61006.0, 61000.1, 61006.1][: len(factor)],
            "factor": pa.array(factor, pa.float64()),
            "factor_err": pa.array([value and 0.01 for value in factor], pa.float64()),
            "field": list(fields),
        }
    )


def test_each_field_has_its_factors() -> None:
    (drawn,) = plots_run.draw_factors(factor_table([1.05, 0.95, 1.0, None], "aabb"))
    assert "4 epochs, median 1.000, scatter 5.0 %" in drawn.alt
    assert "Field" in drawn.svg


def test_missing_factors_are_said() -> None:
    assert "no epoch has a factor" in plots_run.draw_factors(factor_table([None], "a"))[0].alt


def statistics(eta: list[float | None], candidate: list[bool]) -> pa.Table:
    count = len(eta)
    return pa.table(
        {
            "source": [f"s{k}" for k in range(count)],
            "eta_peak": pa.array(eta, pa.float64()),
            "v_peak": pa.array([0.1] * count, pa.float64()),
            "flux_mean": np.arange(1.0, count + 1),
            "ese_candidate": candidate,
            "reference": [k % 2 == 0 for k in range(count)],
        }
    )


def curve_table(names: list[str], flux: float) -> pa.Table:
    """Three epochs of each source."""
    count = 3 * len(names)
    return pa.table(
        {
            "source": np.repeat(names, 3).tolist(),
            "mjd": [61000.0, 61001.0, 61002.0] * len(names),
            "flux": [flux] * count,
            "flux_err": [1.0] * count,
            "upper_limit": [False] * count,
            "model": pa.array([None] * count, pa.float64()),
        }
    )


def test_eta_v_names_the_candidates() -> None:
    stats = statistics([1.0, 2.0, 50.0, None], [False, False, True, False])
    (drawn,) = plots_run.draw_eta_v(stats)
    assert "of 3 sources" in drawn.alt
    assert "Candidates: s2." in drawn.alt
    assert plots_run.draw_eta_v(statistics([None, None], [False, False])) == []


def test_most_variable_sources_and_brightest_references_are_shown_once_each() -> None:
    stats = statistics([float(k) for k in range(1, 13)], [False] * 11 + [True])
    curves = curve_table(stats["source"].to_pylist(), 10.0)
    found, others = plots_run.draw_light_curves(curves, stats)
    assert [one.caption.split(":")[0] for one in found] == ["s11"]
    shown = [one.caption.split(":")[0] for one in others]
    assert shown[: plots_run.VARIABLE_CURVES] == ["s10", "s9", "s8", "s7", "s6", "s5"]
    assert shown[plots_run.VARIABLE_CURVES :] == ["s4", "s2"]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize(("flux", "unit"), [(120.0, "mJy"), (16200.0, "Jy")])
def test_bright_light_curve_is_in_jansky(flux: float, unit: str) -> None:
    stats = statistics([1.0], [False])
    _, (drawn,) = plots_run.draw_light_curves(curve_table(["s0"], flux), stats)
    assert f"Flux ({unit}/beam)" in drawn.svg
    assert f"from {flux:.1f} to {flux:.1f} mJy per beam" in drawn.alt
