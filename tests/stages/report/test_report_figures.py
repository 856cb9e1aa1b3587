"""The figures, from solutions, images and tables whose content is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from matplotlib.colors import Normalize
from matplotlib.patches import Ellipse

from contimg.astro.telescope import stations
from contimg.records.images import read_image
from contimg_report import (
    figure,
    plots_calibration,
    plots_flags,
    plots_fluxes,
    plots_image,
    plots_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from contimg.records.images import SkyImage

ANTENNAS, CHANNELS = 6, 32


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with figure.style():
        yield


def solutions(
    times: int, roles: tuple[str, ...] = ("bandpass", "phase", "gain")
) -> dict[str, np.ndarray]:
    """Solutions of six stations of which the fifth does not exist; phases that turn by 5 degrees a solution."""
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {"antenna": np.array(["1", "2", "3", "101", "102", "103"])}
    for role in roles:
        channels = CHANNELS if role == "bandpass" else 1
        count = 1 if role == "bandpass" else times
        shape = (count, ANTENNAS, channels, 2)
        turn = np.deg2rad(5.0) * np.arange(count)[:, None, None, None]
        arrays[f"{role}_value"] = (
            (1 + 0.05 * rng.standard_normal(shape)) * np.exp(1j * turn)
        ).astype(np.complex64)
        flag = np.zeros(shape, bool)
        flag[:, 4] = True
        arrays[f"{role}_flag"], arrays[f"{role}_time_s"] = flag, 5.27e9 + 60.0 * np.arange(count)
        arrays[f"{role}_freq_hz"] = np.linspace(1.31e9, 1.5e9, channels)
    return arrays


def test_stations_that_do_not_exist_are_in_no_solution() -> None:
    amplitude, phase = plots_calibration.bandpass(solutions(1))
    assert "5 antennas, 32 channels, 0.00 % flagged" in amplitude.alt
    assert "5 antennas" in phase.alt


def test_a_flagged_channel_counts() -> None:
    arrays = solutions(1)
    arrays["bandpass_flag"][:, 0, :16] = True
    amplitude, _ = plots_calibration.bandpass(arrays)
    assert "10.00 % flagged" in amplitude.alt


def test_phases_are_drawn_against_time_if_there_is_more_than_one() -> None:
    drawn = {one.name: one for one in plots_calibration.gains(solutions(4))}
    assert (
        "relative to the first of 4 solutions; largest change 15.0 degrees"
        in drawn["gain-phase"].alt
    )
    drawn = {one.name: one for one in plots_calibration.gains(solutions(1))}
    assert "one solution" in drawn["gain-phase"].caption


def test_phases_solved_again_are_a_figure_of_their_own() -> None:
    names = [
        one.name
        for one in plots_calibration.gains(solutions(2, ("bandpass", "phase", "gain", "field")))
    ]
    assert names == ["gain-amplitude", "gain-phase", "field-phase"]


def test_a_set_without_gains_or_bandpass_draws_what_there_is() -> None:
    assert [one.name for one in plots_calibration.gains(solutions(2, ("bandpass", "gain")))] == [
        "gain-amplitude",
        "gain-phase",
    ]
    assert plots_calibration.bandpass({"gain_value": np.ones(1)}) == []
    assert plots_calibration.bandpass_lines({}) == []


def flagging(count: int) -> dict[str, Any]:
    names = [
        str(number)
        for number, active in zip(stations().number, stations().active, strict=True)
        if active
    ][:count]
    antennas = [
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
    assert "median 10.00 %, most 25.0 % at 1312.0 MHz" in plots_flags.over_frequency(given).alt
    assert "each of 3 integrations: from 0.00 to 10.00 %" in plots_flags.over_time(given).alt
    drawn = plots_flags.over_array(given)
    assert "Map of 20 antennas" in drawn.alt
    assert f"dead: {given['antennas'][2]['name']}" in drawn.alt


def test_antennas_of_another_telescope_have_no_place_on_the_map() -> None:
    given = flagging(5)
    given["antennas"].append({"index": 9, "name": "ea07", "fraction": [1.0, 1.0], "dead": []})
    assert "Map of 5 antennas" in plots_flags.over_array(given).alt


def sky_image(
    path: Path, pixels: np.ndarray, *, beam: bool = True, pa_deg: float = 30.0
) -> SkyImage:
    header = fits.Header()
    height, width = pixels.shape
    header.update(
        {
            "CTYPE1": "RA---SIN",
            "CTYPE2": "DEC--SIN",
            "CRVAL1": 38.9,
            "CRVAL2": 33.0,
            "CRPIX1": width / 2 + 1,
            "CRPIX2": height / 2 + 1,
            "CDELT1": -3 / 3600,
            "CDELT2": 3 / 3600,
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "RADESYS": "ICRS",
            "BUNIT": "Jy/beam",
        }
    )
    if beam:
        header.update({"BMAJ": 68 / 3600, "BMIN": 37 / 3600, "BPA": pa_deg})
    fits.writeto(path, pixels.astype(np.float32), header)
    return read_image(path)


class Planes:
    """An image artifact's stand-in: the planes that exist and its metrics."""

    def __init__(self, folder: Path, names: tuple[str, ...], *, beam: bool = True) -> None:
        rng = np.random.default_rng(1)
        self.metrics = {"rms_jy": 1e-3}
        self.planes = {
            f"{name}.fits": sky_image(
                folder / f"{name}.fits", 1e-3 * rng.standard_normal((600, 600)), beam=beam
            )
            for name in names
        }

    def has(self, name: str) -> bool:
        return name in self.planes

    def picture(self, name: str) -> SkyImage:
        return self.planes[name]


def test_the_planes_that_exist_are_drawn_with_their_beam(tmp_path: Path) -> None:
    drawn = plots_image.pictures(Planes(tmp_path, ("image", "residual", "rms", "beam", "psf")))  # type: ignore[arg-type]
    assert [one.name for one in drawn] == [
        "sky-image",
        "sky-residual",
        "sky-rms",
        "sky-beam",
        "sky-psf",
    ]
    assert "Beam 68″ × 37″ at 30°" in drawn[0].caption
    assert "0.5 by 0.5 degrees" in drawn[0].alt
    assert [one.name for one in plots_image.pictures(Planes(tmp_path / "..", ("image",)))] == [
        "sky-image"
    ]  # type: ignore[arg-type]


def test_an_image_without_a_beam_in_its_header_is_drawn_without_an_ellipse(tmp_path: Path) -> None:
    drawn = plots_image.pictures(Planes(tmp_path, ("rms", "psf"), beam=False))  # type: ignore[arg-type]
    assert "Beam" not in drawn[0].caption
    assert len(drawn) == 2


@pytest.mark.parametrize("pa_deg", [0.0, 30.0, 93.0])
def test_the_ellipse_leans_from_north_through_east(tmp_path: Path, pa_deg: float) -> None:
    image = sky_image(tmp_path / "image.fits", np.zeros((64, 64)) + 1, pa_deg=pa_deg)
    _, (axes,) = figure.new()
    plots_image._ellipse(axes, image, 1.0, 1.0)  # noqa: SLF001 - its angle is a convention that nothing else shows
    (patch,) = [one for one in axes.patches if isinstance(one, Ellipse)]
    vertex = patch.get_patch_transform().transform((0, 1)) - np.array(patch.get_center())
    # Coordinates are degrees east and north: the major axis points to (sin PA, cos PA).
    assert np.degrees(np.arctan2(*vertex)) % 180 == pytest.approx(pa_deg % 180, abs=1e-6)
    assert np.hypot(*vertex) == pytest.approx(5 * 68 / 3600 / 2)


def test_east_is_to_the_left(tmp_path: Path) -> None:
    image = sky_image(tmp_path / "image.fits", np.zeros((64, 64)) + 1)
    drawn = plots_image._sky(  # noqa: SLF001
        "trial", image, np.ones((8, 8)), Normalize(0, 1), "x", "Trial.", "Trial."
    )
    along = drawn.svg[: drawn.svg.index("East")]
    place = {
        text: float(x) for x, text in re.findall(r' x="([\d.]+)"[^>]*>(−?[\d.]+)</text>', along)
    }
    assert place["0.02"] < place["0.00"] < place["−0.02"]


def photometry(count: int, snr: float) -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table(
        {
            "source": [f"s{k}" for k in range(count)],
            "flux_ratio": 0.97 + 0.02 * rng.standard_normal(count),
            "snr": np.full(count, snr),
            "blend": np.ones(count, np.int16),
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
    ratio, offsets = plots_fluxes.pictures(table)
    assert f"median {np.median(table['flux_ratio']):.3f}" in ratio.alt
    assert (
        f"({np.median(table['ra_offset']):+.2f}″, {np.median(table['dec_offset']):+.2f}″)"
        in offsets.alt
    )


def test_faint_or_blended_sources_are_not_compared() -> None:
    assert plots_fluxes.pictures(photometry(40, 10.0)) == []
    table = photometry(5, 100.0)
    blended = table.set_column(
        table.column_names.index("blend"), "blend", pa.array([2] * 5, pa.int16())
    )
    assert plots_fluxes.pictures(blended) == []


def test_the_brightest_sources_come_first() -> None:
    rows = plots_fluxes.brightest(photometry(40, 100.0))
    assert len(rows) == plots_fluxes.SHOWN
    assert rows[0]["source"] == "s39"
    assert rows[0]["flux"] == "900.0"


def test_each_field_has_its_factors() -> None:
    table = pa.table(
        {
            "mjd": [61000.0, 61006.0, 61000.1, 61006.1],
            "factor": [1.05, 0.95, 1.0, None],
            "factor_err": [0.01, 0.01, 0.01, None],
            "field": ["a", "a", "b", "b"],
        }
    )
    (drawn,) = plots_run.factors(table)
    assert "4 epochs, median 1.000, scatter 5.0 %" in drawn.alt
    assert "Field" in drawn.svg


def test_an_epoch_scale_that_is_nowhere_known_is_said() -> None:
    table = pa.table(
        {
            "mjd": [61000.0],
            "factor": pa.array([None], pa.float64()),
            "factor_err": pa.array([None], pa.float64()),
            "field": ["a"],
        }
    )
    assert "no epoch has one" in plots_run.factors(table)[0].alt


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


def test_eta_and_v_name_the_candidates() -> None:
    (drawn,) = plots_run.eta_v(statistics([1.0, 2.0, 50.0, None], [False, False, True, False]))
    assert "of 3 sources" in drawn.alt
    assert "Candidates: s2." in drawn.alt
    assert plots_run.eta_v(statistics([None, None], [False, False])) == []


def test_the_most_variable_and_the_brightest_references_are_shown_once_each() -> None:
    stats = statistics([float(k) for k in range(1, 13)], [False] * 11 + [True])
    rows = [
        (name, 61000.0 + k, 10.0, 1.0, False, None)
        for name in stats["source"].to_pylist()
        for k in range(3)
    ]
    names = ("source", "mjd", "flux", "flux_err", "upper_limit", "model")
    curves = pa.table(
        {
            name: pa.array(values, pa.float64() if name == "model" else None)
            for name, values in zip(names, zip(*rows, strict=True), strict=True)
        }
    )
    found, others = plots_run.light_curves(curves, stats)
    assert [one.caption.split(":")[0] for one in found] == ["s11"]
    shown = [one.caption.split(":")[0] for one in others]
    assert shown[: plots_run.VARIABLE_SHOWN] == ["s10", "s9", "s8", "s7", "s6", "s5"]
    assert shown[plots_run.VARIABLE_SHOWN :] == ["s4", "s2"]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize(("flux", "unit"), [(120.0, "mJy"), (16200.0, "Jy")])
def test_a_bright_light_curve_is_in_jansky(flux: float, unit: str) -> None:
    curves = pa.table(
        {
            "source": ["s0"] * 3,
            "mjd": [61000.0, 61001.0, 61002.0],
            "flux": [flux] * 3,
            "flux_err": [1.0] * 3,
            "upper_limit": [False] * 3,
            "model": pa.array([None] * 3, pa.float64()),
        }
    )
    _, (drawn,) = plots_run.light_curves(curves, statistics([1.0], [False]))
    assert f"Flux ({unit}/beam)" in drawn.svg
    assert f"from {flux:.1f} to {flux:.1f} mJy per beam" in drawn.alt
