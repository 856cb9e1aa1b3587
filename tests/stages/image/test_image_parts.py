"""Tiers, masks, noise, FITS files, the thumbnail and quality checks, each by itself."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from pydantic import ValidationError

from contimg.astro.catalogues import Catalogue
from contimg.astro.telescope import SITE
from contimg.records.calibration import Calibration, CalibratorRecord
from contimg.records.images import Beam, bilinear
from contimg.runtime.errors import BadImageError
from contimg_image import masks, product, quality, tiers
from contimg_image.beam_check import BeamErrors
from contimg_image.cleaning import ExpectedSky
from contimg_image.diagnostics import AntennaPhases
from contimg_image.frame import Frame
from contimg_image.imagers import Cleaned, ImagerJob, write_mask, wsclean_command
from contimg_image.observation import ImagingInput
from contimg_image.options import ImageOptions
from image_arrays import BEAM, DEC_DEG, averaged, header, imaging_field

Array = np.ndarray[Any, Any]
FRAME = Frame(ra_deg=38.9, dec_deg=32.886, size=600, cell_arcsec=9.0)
HEADER = header(np.array([1.4986e9]), 1e6)


def options(**chosen: Any) -> ImageOptions:
    return ImageOptions(ms="m", flags="f", calibration="c", out="o", **chosen)


def test_standard_tier_covers_the_field() -> None:
    found = tiers.choose_settings(options(), HEADER, 2602.0)
    assert (found.cell_arcsec, found.robust) == (4.5, 0.5)
    assert found.size * found.cell_arcsec / 3600 >= 4.5
    assert found.deterministic
    assert tiers.TIERS["high_precision"].deterministic
    # Options take precedence.
    chosen = options(size=1000, robust=-0.5, threshold=4.0)
    found = tiers.choose_settings(chosen, HEADER, 2602.0)
    assert (found.size, found.robust, found.threshold, found.cell_arcsec) == (1000, -0.5, 4.0, 4.5)


def vla(dish_m: float) -> Any:
    antennas = replace(HEADER.antennas, diameters_m=np.full(117, dish_m))
    return replace(HEADER, telescope="VLA", frequencies_hz=np.array([1.414e9]), antennas=antennas)


def test_another_telescope_gets_its_own_field() -> None:
    """The VLA in D configuration at 1.4 GHz: a beam of 45 arcsec, a primary beam of half a deg."""
    found = tiers.choose_settings(options(), vla(25.0), 1000.0)
    assert 3 < 45 / found.cell_arcsec < 8
    assert 0.5 < found.size * found.cell_arcsec / 3600 < 1.2
    assert found.longest_m > 1e6
    assert found.taper_arcsec == 0


@pytest.mark.parametrize(("least", "size"), [(10, 128), (129, 144), (1001, 1024), (5399, 5400)])
def test_size_is_even_and_smooth(least: int, size: int) -> None:
    # Fields of `least` cells of 8.4 arcsec.
    dish_m = tiers.FIELD_PER_LOBE * 0.2120173 / np.radians((least + 0.5) * 8.4 / 3600)
    found = tiers.choose_settings(options(), vla(dish_m), 1000.0)
    assert (found.cell_arcsec, found.size) == (8.4, size)


@pytest.mark.parametrize(
    "wrong",
    [{"size": 10}, {"cell_arcsec": 0}, {"robust": 3}, {"tier": "best"}, {"backend": "aips"}],
    ids=str,
)
def test_absurd_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**wrong)


def test_wsclean_command_is_deterministic() -> None:
    tier = tiers.TIERS["standard"]
    job = ImagerJob((), tier, (68.0, 37.0, 90.0), FRAME, "wsclean", timeout_s=1.0)
    argv = wsclean_command(job, None, Path("/s"))
    assert "-use-wgridder" in argv  # the default of 3.1 loses 4 % of a source at 1.1 deg
    assert argv[argv.index("-j") + 1] == "1"  # two threads sum in any order
    assert "-no-update-model-required" in argv


def test_frame_pixels_equal_wcs() -> None:
    """RA grows to the left, the phase centre is pixel size / 2: as astropy reads the header."""
    wcs = WCS(fits.Header.fromstring(write_fits(np.ones((600, 600)))), naxis=2)
    ra, dec = np.array([38.9, 39.2, 38.5]), np.array([32.886, 33.3, 32.4])
    x, y = FRAME.pixels(ra, dec)
    assert np.array([x, y]) == pytest.approx(np.array(wcs.all_world2pix(ra, dec, 0)), abs=1e-6)
    assert (x[0], y[0]) == pytest.approx((300, 300), abs=1e-9)
    assert x[1] < 300 < x[2]
    behind, _ = FRAME.pixels(np.array([38.9 + 180]), np.array([-32.886]))
    assert np.isnan(behind[0])


def test_discs_are_round_and_stop_at_the_edge() -> None:
    mask = masks.draw_discs(FRAME, np.array([300.25, 2.0]), np.array([100.5, 598.0]), 10.0)
    # The number of lattice points in a disc: pi r^2 within a per cent or two.
    assert np.count_nonzero(mask[:200]) == pytest.approx(np.pi * 100, rel=0.03)
    rows, columns = np.nonzero(mask[:200])
    assert np.hypot(columns - 300.25, rows - 100.5).max() <= 10
    assert mask[599, 0]
    assert not mask[588:, 13:].any()


def test_uncatalogued_sources_are_found_once_each() -> None:
    residual = np.zeros((600, 600), np.float32)
    residual[100:103, 200:203] = 30.0
    residual[101, 201], residual[101, 200] = 50.0, 40.0
    residual[400, 50], residual[300, 300], residual[500, 500] = 20.0, 99.0, 11.0
    known = masks.draw_discs(FRAME, np.array([300.0]), np.array([300.0]), 5.0)
    rms = np.ones_like(residual)
    x, y = masks.uncatalogued_sources(residual, rms, known, 5.0)
    # The parabola through 40, 50 and 30 has its top a sixth of a pixel to the left.
    assert (x, y) == (pytest.approx([201 - 1 / 6, 50]), pytest.approx([101, 400]))
    x, _ = masks.uncatalogued_sources(residual, 5 * rms, known, 5.0)
    assert not x.size, "10 sigma"


def test_highest_sidelobe_is_outside_the_main_lobe() -> None:
    psf = np.zeros((100, 100), np.float32)
    psf[50, 50], psf[50, 54], psf[20, 30] = 1.0, 0.7, -0.4
    assert masks.highest_sidelobe(psf, 6.0) == pytest.approx(0.4)


def test_mask_file_has_grid_of_image(tmp_path: Path) -> None:
    mask = masks.draw_discs(FRAME, np.array([10.0]), np.array([20.0]), 3.0)
    with fits.open(write_mask(tmp_path / "m.fits", mask, FRAME)) as file:
        assert file[0].data.shape == (1, 1, 600, 600)
        assert file[0].data[0, 0, 20, 10] == 1
        assert WCS(file[0].header, naxis=2).wcs.crval == pytest.approx([38.9, 32.886])


def test_rms_map_follows_noise_and_not_sources() -> None:
    rng = np.random.default_rng(1)
    level = np.broadcast_to(1.0 + np.linspace(0, 1, 600), (600, 600))
    plane = (rng.normal(size=(600, 600)) * level).astype(np.float32)
    sources = masks.draw_discs(FRAME, rng.uniform(0, 600, 40), rng.uniform(0, 600, 40), 12.0)
    plane[sources] += 100
    found = masks.rms_map(plane, sources, beam_px=3.0)
    # Boxes of 42 pixels, every pixel used, 2.5 % each; the level changes by 4 % within half a box.
    np.testing.assert_allclose(found[:, 30:-30], level[:, 30:-30], rtol=0.15)
    assert np.median(found / level) == pytest.approx(1.0, abs=0.01)


def test_rms_map_fills_boxes_full_of_sources() -> None:
    plane = np.random.default_rng(2).normal(size=(600, 600)).astype(np.float32)
    sources = np.zeros((600, 600), bool)
    sources[200:300, 200:300] = True
    plane[sources] = 1e3
    assert masks.rms_map(plane, sources, beam_px=3.0).max() < 1.3


def test_rms_map_of_small_image_has_one_level() -> None:
    plane = np.random.default_rng(3).normal(size=(128, 128)).astype(np.float32)
    found = masks.rms_map(plane, np.zeros((128, 128), bool), beam_px=10.0)
    assert found.shape == (128, 128)
    assert np.ptp(found) == 0
    assert np.isnan(masks.robust_rms(np.array([np.nan])))


def write_fits(plane: Array, *, corrected: bool = False) -> bytes:
    calibrator = CalibratorRecord.model_construct(name="3C48")
    known = {"rung": "SAME_GROUP", "mjd": 61065.05, "source": None, "calibrator": calibrator}
    given = {"calibration": Calibration.model_construct(**known), "calibration_key": "0123456789"}
    given |= {"mjd_start": 61065.09, "mjd_end": 61065.0936, "group": "20260125t021221"}
    given |= {"header": HEADER, "pointing_dec_deg": 33.0, "site": SITE, "beam": BEAM}
    nothing: dict[str, Any] = dict.fromkeys(("path", "flags", "gains", "channels", "longest_m"))
    observation = ImagingInput(**nothing, **given)
    field = replace(imaging_field(averaged(every=24)), frame=FRAME)
    common = product.make_header(observation, field, cleaned(), robust=0.5, rms_jy=2e-4)
    return product.to_fits(plane, common, "Jy/beam", "clean image", corrected=corrected)


def test_header_has_conventional_keywords() -> None:
    made = fits.Header.fromstring(write_fits(np.ones((600, 600)), corrected=True))
    wanted = """BUNIT BMAJ BMIN BPA RADESYS SPECSYS RESTFRQ DATE-OBS DATE-BEG DATE-END DATE-AVG
        MJD-OBS TIMESYS TELESCOP GROUPID PBCOR"""
    assert not [key for key in wanted.split() if key not in made]
    assert (made["BUNIT"], made["RADESYS"], made["PBCOR"]) == ("Jy/beam", "ICRS", True)
    assert made["DATE-OBS"] == "2026-01-25T02:09:36.000"
    assert "DATE" not in made
    assert product.format_time(61065.05196817219) == "2026-01-25T01:14:50.050"


def test_fits_has_checksums_and_same_bytes() -> None:
    plane = np.arange(600 * 600, dtype=np.float32).reshape(600, 600)
    data = write_fits(plane)
    assert data == write_fits(plane)
    with fits.open(io.BytesIO(data), checksum=True) as file:
        file.verify("exception")
        assert file[0].verify_checksum() == file[0].verify_datasum() == 1
        assert file[0].data.shape == (1, 1, 600, 600)
        assert np.array_equal(file[0].data.squeeze(), plane)


def test_cut_psf_keeps_place_of_peak() -> None:
    psf = np.zeros((2400, 2400), np.float32)
    psf[1200, 1200] = 1
    part = product.cut_psf(psf)
    made = fits.Header.fromstring(write_fits(part))
    assert part.shape == (600, 600)
    assert part[int(made["CRPIX2"]) - 1, int(made["CRPIX1"]) - 1] == 1


def test_thumbnail_keeps_point_sources_and_bytes() -> None:
    plane = np.random.default_rng(4).normal(0, 1e-3, (2000, 2000)).astype(np.float32)
    plane[77, 1234] = 1.0
    small, factor = product.shrink_to_maxima(plane)
    assert (factor, small.shape) == (3, (666, 666))
    assert small.max() == 1.0
    png, again = (product.draw_thumbnail(cleaned(image=plane), 1.0, "a field") for _ in range(2))
    assert png.startswith(b"\x89PNG")
    assert png == again
    assert len(png) < 2_000_000


def cleaned(beam_arcsec: tuple[float, float] = (68, 37), **planes: Any) -> Cleaned:
    plane = np.random.default_rng(5).normal(size=(600, 600)).astype(np.float32)
    beam = Beam(beam_arcsec[0] / 3600, beam_arcsec[1] / 3600, 90.0)
    given = dict.fromkeys(("image", "residual", "psf"), plane) | planes
    return Cleaned(**given, beam=beam, cell_deg=9 / 3600, band_hz=(1.4e9, 1.9e8), keywords={})


def matches(count: int, presence: float) -> quality.CatalogueMatches:
    return quality.CatalogueMatches(count, flux_ratio=1.0, presence=presence, mirrored=0.0)


def test_checks_accept_good_images() -> None:
    quality.check_planes("x", cleaned())
    quality.check_phases("x", AntennaPhases(80.0, 79.5))  # noise alone: nothing can be said
    quality.check_phases("x", AntennaPhases(float("nan"), float("nan")))
    for found in (matches(0, np.nan), matches(3, 0.9), matches(2, 0.02)):
        quality.check_sky("x", 2e-4, 2e-4, found)
        quality.check_sky("x", 40 * 2e-4, 2e-4, found)


@pytest.mark.parametrize(
    ("check", "found", "words"),
    [
        ("planes", [cleaned(image=np.array([[np.nan]]))], "has 1 pixels that are not finite"),
        ("planes", [cleaned(image=np.array([[np.inf]]))], "has 1 pixels that are not finite"),
        ("planes", [cleaned(image=np.zeros((600, 600)))], "and 0 not zero"),
        ("planes", [cleaned((68, 5))], "It must be between"),
        ("planes", [cleaned((0.3 * 3600, 37))], "It must be between"),
        ("planes", [cleaned((0.14 * 3600, 18))], "It must be between"),
        ("phases", [AntennaPhases(20.0, 4.0)], r"beyond the 4\.0 deg of noise"),
        ("sky", [2e-4, 2e-4, matches(3, 0.02)], "Phases, phase centre or times are wrong"),
        ("sky", [60 * 2e-4, 2e-4, matches(0, np.nan)], "more than 50 x the thermal"),
    ],
)
def test_checks_refuse_bad_images(check: str, found: list[Any], words: str) -> None:
    with pytest.raises(BadImageError, match=words):
        getattr(quality, f"check_{check}")("x", *found)


@pytest.mark.parametrize("fainter", [0.01, 0.2])
def test_catalogue_matches_are_medians(fainter: float) -> None:
    """One of three sources may have faded."""
    image = np.zeros((100, 100), np.float32)
    image[20, 20], image[40, 40], image[60, 60] = 0.9, 0.5, fainter
    places = np.array([20.0, 40.0, 60.0])
    found = quality.catalogue_matches(image, places, places, np.array([1.0, 0.5, 0.2]), 3.0)
    assert found == (3, pytest.approx(0.9 if fainter < 0.1 else 1.0), found.flux_ratio, 0.0)


def test_catalogue_matches_show_mirrored_sky() -> None:
    image = np.zeros((600, 600), np.float32)
    image[200, 600 - 100] = 1.0
    found = quality.catalogue_matches(image, np.array([100.0]), np.array([200.0]), np.ones(1), 3.0)
    assert (found.flux_ratio, found.mirrored) == (0, 1)


def test_catalogue_matches_of_noise_are_no_sources() -> None:
    """The highest pixel near a position is never near zero; the brightness at the position is."""
    rng = np.random.default_rng(5)
    image = rng.normal(0, 0.4, (400, 400)).astype(np.float32)
    x, y = rng.uniform(20, 380, (2, 50))
    found = quality.catalogue_matches(image, x, y, np.ones(50), 3.0)
    assert found.flux_ratio > 0.5
    assert abs(found.presence) < 0.2
    with pytest.raises(BadImageError, match="50 catalogue sources"):
        quality.check_sky("x", 2e-4, 2e-4, found)


@pytest.mark.parametrize(("hz", "sources"), [(887.5e6, 4), (150e6, 0)])
@pytest.mark.parametrize("dec_deg", [DEC_DEG, None])
def test_far_frequencies_and_unknown_beams_refuse_no_image(
    hz: float, sources: int, dec_deg: float | None
) -> None:
    field = imaging_field(averaged(), dec_deg, size=256)
    ra = field.frame.ra_deg + np.linspace(-0.1, 0.1, 4)
    flux = np.full(4, 1.0 * (hz / field.weights.frequency_hz) ** -0.7)
    nothing = np.full(4, np.nan)
    listed = Catalogue("c", hz, ra, np.full(4, field.frame.dec_deg), flux, *[nothing] * 3)
    sky = ExpectedSky.of(listed, field)
    assert sky.expected_jy == pytest.approx(bilinear(sky.effective, sky.x, sky.y))
    noise = np.random.default_rng(1).normal(0, 1e-3, (2, *sky.effective.shape))
    beam = Beam(200 / 3600, 150 / 3600, 0.0)
    cell_deg = field.frame.cell_deg
    blank = Cleaned(*noise.astype(np.float32), sky.effective, beam, cell_deg, (1.4e9, 1e8), {})
    local_rms = np.full_like(sky.effective, 1e-3)
    if sources and dec_deg is not None:
        with pytest.raises(BadImageError, match="At the positions of 4 catalogue sources"):
            quality.measure_quality("x", blank, local_rms, sky, field)
    else:
        assert quality.measure_quality("x", blank, local_rms, sky, field)["sightings"] == 0


GOOD = {"noise_ratio": 1.2, "sightings": 9.0, "flux_ratio": 0.98, "smearing_loss": 0.005}
GOOD |= {"strangers": 0.0, "phase_error_deg": 0.5, "diverged": 0.0}
GOOD |= BeamErrors(np.zeros(3), np.full(3, 0.01), 0.1, 40).numbers()


@pytest.mark.parametrize(
    ("wrong", "known_beam", "words"),
    [
        ({}, True, ""),
        ({"noise_ratio": 4.0}, True, "4.0 x thermal"),
        ({"noise_ratio": float("nan")}, True, "thermal noise is not known"),
        ({"diverged": 1.0}, True, "cleaning raised the noise"),
        ({"phase_error_deg": 7.0}, True, "antenna phases are off by 7.0 deg"),
        ({"sightings": 0.0, "flux_ratio": float("nan")}, True, "no catalogue source"),
        ({"flux_ratio": 0.7}, True, "0.70 of their flux"),
        ({"smearing_loss": 0.019}, True, "1.9% at the edge"),
        ({"strangers": 2.0}, True, "2 bright sources"),
        ({}, False, "primary beam is not known"),
        ({"beam_width": -0.14}, True, "primary_beam: fluxes of 40 sources want another beam"),
        ({"beam_east_deg": 0.15}, True, "axis by +0.15 ± 0.01 deg to the east"),
        ({"beam_width": float("nan")}, True, ""),
    ],
)
def test_warnings_name_each_defect(wrong: dict[str, float], known_beam: Any, words: str) -> None:
    found = quality.assess_quality(GOOD | wrong, known_beam=known_beam)
    assert found.verdict == ("warning" if words else "good")
    assert len(found.reasons) == bool(words)
    assert words in " ".join(found.reasons)
