"""The figures, from solutions, images, visibilities and tables whose content is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from matplotlib.patches import Ellipse

from contimg.astro.telescope import stations
from contimg.records.images import SkyImage, read_image
from contimg.runtime.manifest import read_manifest
from contimg_report import figure, page, plots_calibration, plots_image, plots_run
from contimg_report.plots_flags import draw_flags
from report_pages import FakeArtifact, artifact

pytestmark = pytest.mark.usefixtures("page_style")
BASELINES = 280


def solutions(times: int, roles: tuple[str, ...] = ("bandpass", "phase", "gain")) -> dict[str, Any]:
    """Solutions of six stations, the fifth missing; each phase turns by 5 degrees."""
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {"antenna": np.array(["1", "2", "3", "101", "102", "103"])}
    for role in roles:
        count, channels = (1, 32) if role == "bandpass" else (times, 1)
        shape = (count, 6, channels, 2)
        turn = np.exp(1j * np.deg2rad(5.0) * np.arange(count)[:, None, None, None])
        value = (1 + 0.05 * rng.standard_normal(shape)) * turn
        flag = np.zeros(shape, bool)
        flag[:, 4] = True
        arrays[f"{role}_value"], arrays[f"{role}_flag"] = value.astype(np.complex64), flag
        arrays[f"{role}_time_s"] = 5.27e9 + 60.0 * np.arange(count)
        arrays[f"{role}_freq_hz"] = np.linspace(1.31e9, 1.5e9, channels)
    return arrays


def test_bandpass_leaves_out_missing_stations() -> None:
    lines, amplitude, phase = plots_calibration.draw_bandpass(solutions(1))
    assert "5 antennas, 32 channels, 0.00 % flagged" in amplitude.alt
    assert all("5 antennas" in picture.alt for picture in (lines, phase))


def test_bandpass_counts_flagged_channels() -> None:
    arrays = solutions(1)
    arrays["bandpass_flag"][:, 0, :16] = True
    assert "10.00 % flagged" in plots_calibration.draw_bandpass(arrays)[1].alt


def test_several_phases_are_drawn_against_time() -> None:
    draw_gains = plots_calibration.draw_gains
    (several,) = (one for one in draw_gains(solutions(4)) if one.name == "gain-phase")
    assert "first of 4 solutions; largest change 15.0 degrees" in several.alt
    (single,) = (one for one in draw_gains(solutions(1)) if one.name == "gain-phase")
    assert "one solution" in single.caption


def test_gains_are_drawn_by_role() -> None:
    names = ["gain-amplitude", "gain-phase"]
    drawn = plots_calibration.draw_gains(solutions(2, ("bandpass", "gain")))
    assert [one.name for one in drawn] == names
    drawn = plots_calibration.draw_gains(solutions(2, ("bandpass", "phase", "gain", "field")))
    assert [one.name for one in drawn] == [*names, "field-phase"]


def test_no_bandpass_draws_nothing() -> None:
    assert plots_calibration.draw_bandpass({"gain_value": np.ones(1)}) == []


def flagging(count: int) -> dict[str, Any]:
    places = zip(stations().number, stations().active, strict=True)
    names = [str(number) for number, active in places if active][:count]
    antennas: list[Any] = [{"name": name, "fraction": [0.1, 0.3], "dead": []} for name in names]
    antennas[2]["dead"] = ["YY"]
    return {
        "antennas": antennas,
        "frequency_first_hz": 1.311e9,
        "channel_width_hz": 1e6,
        "channel_fraction": [0.0, 0.25, 0.1],
        "integration_mjd": [61000.0, 61000.00015, 61000.0003],
        "integration_fraction": [0.0, 0.1, 0.02],
    }


def test_flags_say_their_extremes() -> None:
    given = flagging(20)
    over_frequency, over_time, over_array = draw_flags(given)
    assert "median 10.00 %, most 25.0 % at 1312.0 MHz" in over_frequency.alt
    assert "each of 3 integrations: from 0.00 to 10.00 %" in over_time.alt
    assert "Map of 20 antennas" in over_array.alt
    assert f"dead: {given['antennas'][2]['name']}" in over_array.alt


def test_array_map_leaves_out_unknown_antennas() -> None:
    given = flagging(5)
    given["antennas"].append({"name": "ea07", "fraction": [1.0, 1.0], "dead": []})
    assert "Map of 5 antennas" in draw_flags(given)[2].alt


def sky_image(path: Path, pixels: np.ndarray, pa_deg: float | None = 30.0) -> SkyImage:
    """Write and read an image; without a position angle its header has no beam."""
    (height, width), header = pixels.shape, fits.Header()
    header.update({"CTYPE1": "RA---SIN", "CRVAL1": 38.9, "CRPIX1": width / 2 + 1})
    header.update({"CTYPE2": "DEC--SIN", "CRVAL2": 33.0, "CRPIX2": height / 2 + 1})
    header.update({"CDELT1": -3 / 3600, "CDELT2": 3 / 3600, "CUNIT1": "deg", "CUNIT2": "deg"})
    header.update({"RADESYS": "ICRS", "BUNIT": "Jy/beam"})
    if pa_deg is not None:
        header.update({"BMAJ": 68 / 3600, "BMIN": 37 / 3600, "BPA": pa_deg})
    fits.writeto(path, pixels.astype(np.float32), header)
    return read_image(path)


def image_artifact(folder: Path, *names: str, pa_deg: float | None = 30.0) -> FakeArtifact:
    rng, planes = np.random.default_rng(1), {}
    for name in (f"{name}.fits" for name in names):
        planes[name] = sky_image(folder / name, 1e-3 * rng.standard_normal((600, 600)), pa_deg)
    return artifact("image", {"rms_jy": 1e-3}, files=planes)


def test_existing_planes_are_drawn_with_beam(tmp_path: Path) -> None:
    names = ("image", "residual", "rms", "beam", "psf")
    made = image_artifact(tmp_path, *names)
    drawn = plots_image.draw_planes(made)
    assert [one.name for one in drawn] == [f"sky-{name}" for name in names]
    assert "Beam 68″ × 37″ at 30°" in drawn[0].caption
    assert "0.5 by 0.5 degrees" in drawn[0].alt
    alone = artifact("image", {"rms_jy": 1e-3}, files={"image.fits": made.files["image.fits"]})
    assert [one.name for one in plots_image.draw_planes(alone)] == ["sky-image"]


def test_image_without_beam_has_no_ellipse(tmp_path: Path) -> None:
    drawn = plots_image.draw_planes(image_artifact(tmp_path, "rms", "psf", pa_deg=None))
    assert "Beam" not in drawn[0].caption
    assert len(drawn) == 2


@pytest.mark.parametrize("pa_deg", [0.0, 30.0, 93.0])
def test_ellipse_leans_from_north_through_east(tmp_path: Path, pa_deg: float) -> None:
    image = sky_image(tmp_path / "image.fits", np.ones((64, 64)), pa_deg)
    _, (axes,) = figure.new_figure()
    plots_image.draw_beam(axes, image.beam, (0.88, -0.88))
    (patch,) = [one for one in axes.patches if isinstance(one, Ellipse)]
    vertex = patch.get_patch_transform().transform((0, 1)) - np.array(patch.get_center())
    # Coordinates are degrees east and north: the major axis points to (sin PA, cos PA).
    assert np.degrees(np.arctan2(*vertex)) % 180 == pytest.approx(pa_deg % 180, abs=1e-6)
    assert np.hypot(*vertex) == pytest.approx(5 * 68 / 3600 / 2)


def test_east_is_to_the_left(tmp_path: Path) -> None:
    image = sky_image(tmp_path / "image.fits", np.random.default_rng(1).normal(size=(64, 64)))
    svg = plots_image.draw_plane("rms", image, None, 1.0).svg
    labels = re.findall(r' x="([\d.]+)"[^>]*>(−?[\d.]+)</text>', svg[: svg.index("East")])
    place = {text: float(x) for x, text in labels}
    assert place["0.02"] < place["0.00"] < place["−0.02"]


def photometry(count: int, snr: float, blend: int = 1) -> pa.Table:
    rng = np.random.default_rng(7)
    columns = {"snr": np.full(count, snr), "blend": np.full(count, blend, np.int16)}
    columns |= dict.fromkeys(("catalogue_flux", "flux_forced"), np.geomspace(50, 900, count))
    columns |= dict.fromkeys(("flux_peak_err", "beam"), np.ones(count))
    columns["source"] = np.array([f"s{k:02d}" for k in range(count)])
    columns["flux_ratio"] = 0.97 + 0.02 * rng.standard_normal(count)
    columns["ra_offset"] = 0.5 + 0.1 * rng.standard_normal(count)
    columns["dec_offset"] = -0.2 + 0.1 * rng.standard_normal(count)
    return pa.table(columns)


def test_fluxes_say_their_medians() -> None:
    table = photometry(40, 100.0)
    ratio, offsets = plots_image.draw_fluxes(table)
    assert f"median {np.median(table['flux_ratio']):.3f}" in ratio.alt
    median = [float(np.median(table[name])) for name in ("ra_offset", "dec_offset")]
    assert f"({median[0]:+.2f}″, {median[1]:+.2f}″)" in offsets.alt


def test_faint_or_blended_sources_are_not_compared() -> None:
    assert plots_image.draw_fluxes(photometry(40, 10.0)) == []
    assert plots_image.draw_fluxes(photometry(5, 100.0, blend=2)) == []


def test_tables_are_sorted_and_formatted(group: dict[str, str]) -> None:
    given = flagging(3) | {"steps": []}
    for antenna, lost in zip(given["antennas"], (0.1, 0.5, 1.0), strict=True):
        antenna["fraction"] = [lost, 0.1]
    files = {"flagging.json": json.dumps(given), "photometry.parquet": photometry(40, 100.0)}
    manifest = read_manifest(group["convert"]).model_copy(update={"outputs": ()})
    made = {"convert": replace(artifact("convert", {}), manifest=manifest)}
    made["flag"] = artifact("flag", {"fraction": 0.1}, files=files)
    made["photometry"] = artifact("photometry", {"sources": 40}, files=files)
    html, _, _ = page.make_page(made)
    _, middle, worst = (antenna["name"] for antenna in given["antennas"])
    rows = re.findall(r'row">(\d+)</th><td>(.*?)</td>', html)
    assert rows == [(worst, "YY"), (middle, "–")]
    rows = re.findall(r'row">(s\d\d)</th><td class="n">(.*?)</td>', html)
    assert rows[0] == ("s39", "900.0")
    assert len(rows) == 15


@pytest.mark.parametrize(
    ("factor", "fields", "text"),
    [
        ([1.05, 0.95, 1.0, None], "aabb", "4 epochs, median 1.000, scatter 5.0 %"),
        ([None], "a", "no epoch has a factor"),
    ],
)
def test_factors_are_drawn_by_field(factor: list[float | None], fields: str, text: str) -> None:
    error = pa.array([value and 0.01 for value in factor], pa.float64())
    columns = {"factor": pa.array(factor, pa.float64()), "factor_err": error}
    columns |= {"mjd": [61000.0, 61006.0, 61000.1, 61006.1][: len(factor)], "field": list(fields)}
    (drawn,) = plots_run.draw_factors(pa.table(columns))
    assert text in drawn.alt
    assert ("Field" in drawn.svg) == ("b" in fields)


def statistics(eta: list[float | None], candidate: list[bool]) -> pa.Table:
    k = np.arange(len(eta))
    columns = {"source": [f"s{n}" for n in k], "eta_peak": pa.array(eta, pa.float64())}
    columns |= {"v_peak": 0.1 + 0.0 * k, "flux_mean": 1.0 + k}
    return pa.table(columns | {"ese_candidate": candidate, "reference": k % 2 == 0})


def curve_table(names: list[str], flux: list[float], limits: int = 0) -> pa.Table:
    """Light curves of the same fluxes, the first of which are upper limits."""
    epochs, count = len(flux), len(flux) * len(names)
    columns = {"source": np.repeat(names, epochs).tolist(), "flux": flux * len(names)}
    columns |= {"mjd": (61000.0 + np.arange(epochs)).tolist() * len(names)}
    columns |= {"flux_err": [1.0] * count, "model": pa.array([None] * count, pa.float64())}
    columns["upper_limit"] = (np.arange(epochs) < limits).tolist() * len(names)
    return pa.table(columns)


def test_eta_v_names_candidates() -> None:
    stats = statistics([1.0, 2.0, 50.0, None], [False, False, True, False])
    (drawn,) = plots_run.draw_eta_v(stats)
    assert "of 3 sources" in drawn.alt
    assert "Candidates: s2." in drawn.alt
    assert plots_run.draw_eta_v(statistics([None, None], [False, False])) == []


def test_light_curves_are_shown_once() -> None:
    stats = statistics([float(k) for k in range(1, 13)], [False] * 11 + [True])
    curves = curve_table(stats["source"].to_pylist(), [10.0] * 3)
    found, others = plots_run.draw_light_curves(curves, stats)
    assert [one.caption.split(":")[0] for one in found] == ["s11"]
    shown = [one.caption.split(":")[0] for one in others]
    assert shown[: plots_run.VARIABLE_CURVES] == ["s10", "s9", "s8", "s7", "s6", "s5"]
    assert shown[plots_run.VARIABLE_CURVES :] == ["s4", "s2"]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize(("flux", "unit"), [(120.0, "mJy"), (16200.0, "Jy")])
def test_bright_light_curve_is_in_jansky(flux: float, unit: str) -> None:
    stats = statistics([1.0], [False])
    _, (drawn,) = plots_run.draw_light_curves(curve_table(["s0"], [flux] * 3), stats)
    assert f"Flux ({unit}/beam)" in drawn.svg
    assert f"from {flux:.1f} to {flux:.1f} mJy per beam" in drawn.alt


def test_upper_limits_are_counted() -> None:
    curves = curve_table(["s0"], [float(k) for k in range(8)], limits=3)
    found, (drawn,) = plots_run.draw_light_curves(curves, statistics([3.0], [False]))
    assert found == []
    assert "8 epochs, 3 upper limits" in drawn.alt
    assert "plasma lens" not in drawn.svg


def visibilities(model_jy: float = 2.0, left_jy2: float = 0.01) -> dict[str, Any]:
    """Baselines of 0.1 to 10 kilowavelengths that all see 2 Jy; one uv cell to the upper right."""
    covered = np.zeros((102, 204), np.float32)
    covered[40, 102 + 70] = 3.0
    power = {"power_jy2": 4.0, "model_jy2": model_jy**2, "left_jy2": left_jy2, "noise_jy2": 9.0}
    arrays = {name: np.full(BASELINES, value, np.float32) for name, value in power.items()}
    arrays["uv_wavelengths"] = np.geomspace(100, 10_000, BASELINES).astype(np.float32)
    arrays |= {"samples": np.full(BASELINES, 10_000, np.int32), "coverage": covered}
    return arrays | {"cell_wavelengths": np.float64(50.0), "sources": np.int64(20)}


def test_visibilities_are_drawn_if_saved() -> None:
    drawn = plots_image.draw_visibilities(artifact("image", {}, files={"uv.npz": visibilities()}))
    assert [one.name for one in drawn] == ["uv-coverage", "uv-amplitude"]
    assert plots_image.draw_visibilities(artifact("image", {})) == []


def test_coverage_has_its_mirror_image(monkeypatch: pytest.MonkeyPatch) -> None:
    planes, draw_map = [], plots_image.draw_map
    monkeypatch.setattr(
        plots_image, "draw_map", lambda plane, *rest: planes.append(plane) or draw_map(plane, *rest)
    )
    plots_image.draw_coverage(visibilities())
    y, x = np.nonzero(np.isfinite(planes[0]))
    assert planes[0].shape == (204, 204)
    # The middle of the plane lies between cells 101 and 102: a cell and its image add up to 203.
    assert (y.sum(), x.sum()) == (203, 203)
    assert (102 + 40, 102 + 70) in set(zip(y.tolist(), x.tolist(), strict=True))


def test_coverage_says_its_reach() -> None:
    drawn = plots_image.draw_coverage(visibilities())
    assert "280 baselines out to 10.0 kilowavelengths" in drawn.alt
    assert "kλ" in drawn.svg
    assert "in cells of 50\u00a0λ" in drawn.caption


def test_amplitudes_are_roots_of_median_powers() -> None:
    drawn = plots_image.draw_amplitudes(visibilities())
    assert "2.00 Jy (model 2.00 Jy) at 0.1" in drawn.alt
    assert drawn.caption.endswith("20 sources at catalogue positions, with fitted fluxes.")
    labels = {"data, median", "model", "data − model", "noise of a baseline, 1σ"}
    labels |= {"uv distance (kλ)", "rms amplitude (Jy)"}
    assert labels <= set(re.findall(r">([^<>]+)</text>", drawn.svg))


def test_outliers_do_not_move_medians() -> None:
    arrays = visibilities()
    arrays["power_jy2"][::20] = 1e6
    assert "2.00 Jy (model 2.00 Jy) at 0.1" in plots_image.draw_amplitudes(arrays).alt


def test_negative_power_is_left_out() -> None:
    distance = np.geomspace(0.1, 10, 28)
    power = np.where(distance < 1, -0.5, 4.0)
    x, level = plots_image.bin_power(distance, power, 14)
    assert np.isnan(level[x < 0.8]).all()
    assert level[x > 1.3] == pytest.approx(2.0)
    arrays = visibilities() | {"power_jy2": np.full(BASELINES, -1.0, np.float32)}
    assert "no signal" in plots_image.draw_amplitudes(arrays).alt


def test_gap_is_explained() -> None:
    assert "gap" in plots_image.draw_amplitudes(visibilities(left_jy2=-0.01)).caption


def test_no_model_has_no_line() -> None:
    drawn = plots_image.draw_amplitudes(visibilities(model_jy=0.0))
    assert "primary beam is unknown" in drawn.caption
    assert "data − model" not in drawn.svg


def test_unknown_noise_is_not_drawn() -> None:
    arrays = visibilities() | {"noise_jy2": np.full(BASELINES, np.nan, np.float32)}
    assert "1σ" not in plots_image.draw_amplitudes(arrays).svg
