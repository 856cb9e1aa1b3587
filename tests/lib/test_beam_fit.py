"""The beam from drifting sources: a known beam, measured from fluxes that have all their faults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contimg.astro import beam_cli, beam_fit
from contimg.astro.beam_cli import BeamOptions
from contimg.astro.beam_files import read_beam
from contimg.astro.beam_fit import DriftingFluxes, fit_beam, sample_band
from contimg.astro.catalogues import Catalogue, nvss
from contimg.astro.coordinates import drift_offsets, icrs_of_hadec
from contimg.astro.primary_beam import PrimaryBeam
from contimg.astro.telescope import SITE
from contimg.records.groups import utc_of_mjd
from contimg.records.schemas.images import IMAGES
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.store import open_store

GROUP_D, DEC_DEG, MJD = 309.24 / 86400, 33.0, 61065.0
NOISE_JY = 4e-4
BAND_HZ = 1.3112e9, 1.4988e9, 1.402e9
"""Edges, and the mean with an image's weights."""
Band = tuple[float, float, float]


def exact_level(
    beam: PrimaryBeam, ra: np.ndarray, dec: np.ndarray, start: float, band_hz: Band
) -> np.ndarray:
    """Return the mean over 24 integrations and 48 channels."""
    moments = start + GROUP_D * (np.arange(24) + 0.5) / 24
    offset = drift_offsets(np.radians(ra), np.radians(dec), moments, np.radians(DEC_DEG), SITE)
    low_hz, high_hz, mean_hz = band_hz
    freq_hz = np.linspace(low_hz, high_hz, 48)
    tilt = 1 + (freq_hz - freq_hz.mean()) * (mean_hz - freq_hz.mean()) / freq_hz.var()
    weight = tilt * (freq_hz / mean_hz) ** -0.7
    level = beam.level(offset[:, :, None], freq_hz).mean(axis=1)
    return np.asarray(level @ weight / weight.sum())


def observe(
    true: PrimaryBeam,
    assumed: PrimaryBeam,
    groups: int,
    seed: int,
    band_hz: Band = BAND_HZ,
    noise_jy: float = NOISE_JY,
) -> tuple[DriftingFluxes, Catalogue]:
    """Return fluxes of sources, whose true ones scatter about NVSS's, and the sources."""
    rng = np.random.default_rng(seed)
    listed = nvss()
    flux = listed.flux_jy * np.exp(rng.normal(0, 0.18, len(listed)))
    varies = rng.uniform(size=len(listed)) < 0.1
    columns: list[list[np.ndarray]] = [[] for _ in range(7)]
    freq_hz, band_weight = sample_band(*band_hz)
    for group in range(groups):
        start = MJD + group * GROUP_D
        ra, dec = icrs_of_hadec(0.0, np.radians(DEC_DEG), start + GROUP_D / 2, SITE)
        away = listed.separation_deg(float(np.degrees(ra)), float(np.degrees(dec)))
        near = np.flatnonzero(away < 2.8)
        place = listed.ra_deg[near], listed.dec_deg[near]
        level, divisor = (exact_level(one, *place, start, band_hz) for one in (true, assumed))
        now = flux[near] * np.exp(rng.normal(0, 0.25, near.size) * varies[near])
        seen = now * level * np.exp(rng.normal(0, 0.03)) + rng.normal(0, noise_jy, near.size)
        good = (divisor >= 0.1) & (seen > 20 * noise_jy)
        moments = beam_fit.sample_times(start, start + GROUP_D)
        at = [np.radians(one[good]) for one in place]
        offset = drift_offsets(*at, moments, np.radians(DEC_DEG), SITE)
        error = noise_jy / seen[good]
        values = (near[good], np.full(good.sum(), group), np.log((seen / divisor)[good]), error)
        wide = (np.tile(freq_hz, (good.sum(), 1)), np.tile(band_weight, (good.sum(), 1)))
        for column, value in zip(columns, (*values, offset, *wide), strict=True):
            column.append(value)
    source, group_index, log_flux, error, offset, freqs, weights = map(np.concatenate, columns)
    held, source = np.unique(source, return_inverse=True)
    made = DriftingFluxes(
        source=source,
        group=group_index,
        log_flux=log_flux,
        error=error,
        log_catalogue=np.log(listed.flux_jy[held]),
        offset=offset,
        freq_hz=freqs,
        weight=weights,
        log_assumed=np.zeros(source.size),
    )
    return replace(made, log_assumed=made.log_level(assumed)), listed.select(held)


@pytest.mark.parametrize(
    ("change", "assumed"),
    [
        ({"width": 0.97, "east_deg": 0.08, "north_deg": -0.06}, "airy:4.65"),
        ({"width": 1.0, "east_deg": 0.0, "north_deg": 0.15}, "gaussian:3.13@1405MHz"),
    ],
)
def test_40_groups_give_width_to_half_a_per_cent(change: dict[str, float], assumed: str) -> None:
    base = read_beam("airy:4.65")
    fluxes, _ = observe(base.changed(**change), read_beam(assumed), groups=40, seed=5)
    found = fit_beam(fluxes, base)
    assert found.width == pytest.approx(change["width"], rel=0.005)
    assert found.east_deg == pytest.approx(change["east_deg"], abs=0.02)
    assert found.north_deg == pytest.approx(change["north_deg"], abs=0.02)
    for name in ("width", "east", "north"):
        suffix = "" if name == "width" else "_deg"
        value, error = getattr(found, f"{name}{suffix}"), getattr(found, f"{name}_error{suffix}")
        assert abs(value - change[f"{name}{suffix}"]) < 4 * error
        assert error < (0.005 if name == "width" else 0.02)


def test_wrong_model_shows_in_residuals() -> None:
    fluxes, _ = observe(read_beam("airy:4.65"), read_beam("airy:4.65"), groups=12, seed=6)
    right, wrong = (fit_beam(fluxes, read_beam(b)) for b in ("airy:4.65", "gaussian:3.13@1405MHz"))
    worst = [
        max(abs(mean) / error for _, mean, error, _ in one.residuals) for one in (right, wrong)
    ]
    assert worst[0] < 4 < worst[1]
    # An Airy pattern is 2.71 deg wide, and falls faster than a Gaussian farther out.
    assert 0.78 < wrong.width < 2.71 / 3.13


def test_too_few_groups_are_refused() -> None:
    fluxes, _ = observe(read_beam("airy:4.65"), read_beam("airy:4.65"), groups=2, seed=7)
    with pytest.raises(BadInputError, match="in 2 groups"):
        fit_beam(fluxes, read_beam("airy:4.65"))


def write_tables(
    store: Path,
    fluxes: DriftingFluxes,
    place: Catalogue,
    beam: PrimaryBeam,
    band_hz: Band = BAND_HZ,
) -> None:
    """Write what the stages write of these fluxes."""
    put = open_store(str(store)).put
    for group in range(int(fluxes.group.max()) + 1):
        start, mine = MJD + group * GROUP_D, np.flatnonzero(fluxes.group == group)
        day, key = utc_of_mjd(start).date().isoformat(), f"{group:016d}"
        image: dict[str, Any] = {c.name: 0 for c in IMAGES.columns if not c.nullable}
        image |= dict.fromkeys(("ms", "backend", "calibration", "calibrator", "rung"), "x")
        image |= {"flux_anchor": "x", "verdict": "good", "tier": "standard"}
        image |= {"group": f"g{group}", "image": key, "artifact": f"products/{key}"}
        image |= {"mjd": start, "mjd_start": start, "mjd_end": start + GROUP_D, "strip": DEC_DEG}
        image |= dict(zip(("freq_min", "freq_max", "frequency"), band_hz, strict=True))
        image |= {"primary_beam": beam.name}
        put(f"tables/images/date={day}/g{group}.parquet", IMAGES.to_bytes(IMAGES.rows([image])))
        put(f"products/{key}/primary_beam.json", json.dumps(beam.dump()).encode())
        measured: list[dict[str, Any]] = []
        for row in mine:
            source, snr = fluxes.source[row], 1 / fluxes.error[row]
            flux = {"ra": place.ra_deg[source], "dec": place.dec_deg[source], "snr": snr}
            flux |= {"catalogue_flux": 1e3 * place.flux_jy[source], "blend": 1}
            flux |= {"beam": np.exp(fluxes.log_assumed[row])}
            flux |= {"flux_forced": 1e3 * np.exp(fluxes.log_flux[row])}
            flux |= {"source": f"s{source}", "group": f"g{group}", "image": key}
            measured.append(flux | {"mjd": start, "upper_limit": False})
        table = PHOTOMETRY.to_bytes(PHOTOMETRY.rows(measured))
        put(f"tables/photometry/date={day}/g{group}.parquet", table)


def test_command_writes_a_beam_file_that_the_option_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The assumed beam is a file, whose offset and width are changed once more."""
    first = {"model": "airy:4.65", "offset_deg": [0.05, 0.0], "widths": [[1405.0, 1.02]]}
    (tmp_path / "first.json").write_text(json.dumps(first))
    assumed = read_beam(str(tmp_path / "first.json"))
    true = read_beam("airy:4.65").changed(width=0.98, east_deg=-0.06)
    fluxes, place = observe(true, assumed, groups=6, seed=8)
    write_tables(tmp_path, fluxes, place, assumed)
    unplaced = {"image": "old", "primary_beam": assumed.name, "strip": None}
    table, *_ = IMAGES.read_days(str(tmp_path))
    row = table.to_pylist()[0] | unplaced
    key = "tables/images/date=2026-01-25/old.parquet"
    open_store(str(tmp_path)).put(key, IMAGES.to_bytes(IMAGES.rows([row])))
    file, console = tmp_path / "found.json", Console("beam", {})
    options = BeamOptions(action="fit", file=file, store=str(tmp_path))
    assert beam_cli.run(options, console, {})["groups"] == 6
    assert "1 images that do not state their strip left out" in capsys.readouterr().err
    found = read_beam(str(file))
    half = found.radius_rad(0.5, 1.405e9) / read_beam("airy:4.65").radius_rad(0.5, 1.405e9)
    assert half == pytest.approx(0.98, rel=0.005)
    assert found.offset_deg == pytest.approx((-0.06, 0.0), abs=0.05)
    with pytest.raises(MissingError, match="no image of a group"):
        beam_cli.run(options.model_copy(update={"strip": 54.0}), console, {})


def test_parts_of_the_band_have_their_own_widths(tmp_path: Path) -> None:
    """Images of the lowest and of the highest subband, with four times the noise."""
    base = read_beam("airy:4.65")
    widths = ((1.311e9, 1.02), (1.499e9, 0.98))
    true = replace(base, widths=widths).changed(east_deg=0.05)
    file, stores = tmp_path / "found.json", []
    for name, low_hz in (("low", 1.3112e9), ("high", 1.4871e9)):
        band_hz = low_hz, low_hz + 11.7e6, low_hz + 6e6
        fluxes, place = observe(true, base, 20, 9, band_hz, noise_jy=4 * NOISE_JY)
        write_tables(tmp_path / name, fluxes, place, base, band_hz)
        stores.append(str(tmp_path / name))
    options = BeamOptions(action="fit", file=file, store=",".join(stores))
    found = beam_cli.run(options, Console("beam", {}), {})
    assert found["east_deg"] == pytest.approx(0.05, abs=0.02)
    made = json.loads(file.read_text())
    assert [mhz for mhz, _ in made["widths"]] == pytest.approx([1317.2, 1493.1])
    expected = [float(true.width_factor(np.array(mhz * 1e6))) for mhz, _ in made["widths"]]
    assert [width for _, width in made["widths"]] == pytest.approx(expected, rel=0.005)
    assert [band["mhz"] for band in made["fit"]["bands"]] == pytest.approx([1317.2, 1493.1])
    assert max(band["width_error"] for band in made["fit"]["bands"]) < 0.005
    assert read_beam(str(file)).offset_deg[0] == pytest.approx(0.05, abs=0.02)
