"""Tiers, masks, noise, headers, pictures and verdicts, each by itself."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from pydantic import ValidationError

from contimg.runtime.errors import BadImageError
from contimg_image import judge, masks, noise, tiers
from contimg_image.frame import Frame
from contimg_image.options import ImageOptions
from contimg_image.phases import Phases
from contimg_image.product import Description, cut_psf, header, iso, to_bytes
from contimg_image.thumbnail import shrink, thumbnail
from contimg_image.wsclean import Cleaned, Job, command, write_mask

FRAME = Frame(38.9, 32.886, 600, 9.0)


def options(**chosen: Any) -> ImageOptions:
    return ImageOptions(ms="m", flags="f", calibration="c", out="o", **chosen)


# Tiers


def test_the_standard_tier_is_what_measured_md_found_right() -> None:
    found = tiers.settings(options(), "DSA_110", 2602.0, 4.65, 1.4986e9)
    assert (found.cell_arcsec, found.robust) == (3.0, 0.5)
    assert found.size * found.cell_arcsec / 3600 >= 4.5
    assert found.deterministic
    assert tiers.TIERS["high_precision"].deterministic


def test_own_numbers_replace_the_tiers() -> None:
    found = tiers.settings(
        options(size=1000, robust=-0.5, threshold=4.0), "DSA_110", 2602.0, 4.65, 1.4986e9
    )
    assert (found.size, found.robust, found.threshold, found.cell_arcsec) == (1000, -0.5, 4.0, 3.0)


def test_another_telescope_gets_its_own_field() -> None:
    """The VLA in its D configuration: a beam of 45 arcsec and a primary beam of half a degree at 1.4 GHz."""
    found = tiers.settings(options(), "VLA", 1000.0, 25.0, 1.414e9)
    assert 3 < 45 / found.cell_arcsec < 8
    assert 0.5 < found.size * found.cell_arcsec / 3600 < 1.2
    assert found.longest_m > 1e6
    assert found.taper_arcsec == 0


@pytest.mark.parametrize(("least", "size"), [(10, 128), (129, 144), (1001, 1024), (5399, 5400)])
def test_good_sizes_are_even_and_smooth(least: int, size: int) -> None:
    assert tiers.good_size(least) == size


def test_nothing_absurd_can_be_asked_for() -> None:
    for wrong in (
        {"size": 10},
        {"cell_arcsec": 0},
        {"robust": 3},
        {"tier": "best"},
        {"backend": "aips"},
    ):
        with pytest.raises(ValidationError):
            options(**wrong)


def test_wsclean_is_told_what_it_must_never_forget() -> None:
    settings = tiers.TIERS["standard"]
    argv = command(
        Job((), settings, (68.0, 37.0, 90.0), FRAME, 1.0), None, __import__("pathlib").Path("/s")
    )
    assert "-use-wgridder" in argv  # the default of 3.1 loses 4 % of a source at 1.1 deg
    assert argv[argv.index("-j") + 1] == "1"  # two threads sum in any order
    assert "-no-update-model-required" in argv


# Frame and masks


def test_the_frame_is_that_of_wsclean() -> None:
    """RA grows to the left, the phase centre is pixel size / 2, SIN projection: as astropy reads the header."""
    wcs = WCS(header(description(), "Jy/beam", "x", corrected=False), naxis=2)
    ra, dec = np.array([38.9, 39.2, 38.5]), np.array([32.886, 33.3, 32.4])
    x, y = wcs.all_world2pix(ra, dec, 0)
    ours = FRAME.pixels(ra, dec)
    assert ours[0] == pytest.approx(x, abs=1e-6)
    assert ours[1] == pytest.approx(y, abs=1e-6)
    assert (ours[0][0], ours[1][0]) == pytest.approx((300, 300), abs=1e-9)
    assert ours[0][1] < 300 < ours[0][2]


def test_what_is_behind_has_no_pixel() -> None:
    x, _ = FRAME.pixels(np.array([38.9 + 180]), np.array([-32.886]))
    assert np.isnan(x[0])


def test_discs_are_round_and_stop_at_the_edge() -> None:
    mask = masks.discs(FRAME, np.array([300.25, 2.0]), np.array([100.5, 598.0]), 10.0)
    # The number of lattice points in a disc: pi r^2 within a per cent or two.
    assert np.count_nonzero(mask[:200]) == pytest.approx(np.pi * 100, rel=0.03)
    rows, columns = np.nonzero(mask[:200])
    assert np.hypot(columns - 300.25, rows - 100.5).max() <= 10
    assert mask[599, 0]
    assert not mask[588:, 13:].any()


def test_strangers_are_found_once_each() -> None:
    residual = np.zeros((600, 600), np.float32)
    residual[100:103, 200:203] = 30.0
    residual[101, 201], residual[101, 200] = 50.0, 40.0
    residual[400, 50] = 20.0
    residual[300, 300] = 99.0
    residual[500, 500] = 11.0
    known = masks.discs(FRAME, np.array([300.0]), np.array([300.0]), 5.0)
    local = np.ones_like(residual)
    x, y = masks.strangers(residual, local, known, 5.0, lobe=0.1)
    # The parabola through 40, 50 and 30 has its top a sixth of a pixel to the left.
    assert (x, y) == (pytest.approx([201 - 1 / 6, 50]), pytest.approx([101, 400]))
    assert len(masks.strangers(residual, local, known, 5.0, lobe=0.35)[0]) == 1, (
        "20 may be a sidelobe of 50"
    )
    assert len(masks.strangers(residual, 5 * local, known, 5.0, lobe=0.1)[0]) == 0, "10 sigma"


def test_sidelobes_are_looked_for_outside_of_the_main_lobe() -> None:
    psf = np.zeros((100, 100), np.float32)
    psf[50, 50], psf[50, 54], psf[20, 30] = 1.0, 0.7, -0.4
    assert masks.sidelobe(psf, 6.0) == pytest.approx(0.4)


def test_the_masks_file_has_the_images_place(tmp_path: Any) -> None:
    path = write_mask(
        tmp_path / "m.fits", masks.discs(FRAME, np.array([10.0]), np.array([20.0]), 3.0), FRAME
    )
    with fits.open(path) as file:
        assert file[0].data.shape == (1, 1, 600, 600)
        assert file[0].data[0, 0, 20, 10] == 1
        assert WCS(file[0].header, naxis=2).wcs.crval == pytest.approx([38.9, 32.886])


# Noise


def test_the_rms_map_follows_the_noise_and_not_the_sources() -> None:
    rng = np.random.default_rng(1)
    level = 1.0 + np.linspace(0, 1, 600)[None, :]
    plane = (rng.normal(size=(600, 600)) * level).astype(np.float32)
    sources = masks.discs(FRAME, rng.uniform(0, 600, 40), rng.uniform(0, 600, 40), 12.0)
    plane[sources] += 100
    found = noise.rms_map(plane, sources, beam_px=3.0)
    # Boxes of 42 pixels, every pixel used, 2.5 % each; the level changes by 4 % within half a box.
    np.testing.assert_allclose(
        found[:, 30:-30], np.broadcast_to(level, (600, 600))[:, 30:-30], rtol=0.15
    )
    assert np.median(found / level) == pytest.approx(1.0, abs=0.01)


def test_boxes_full_of_sources_take_their_neighbours_noise() -> None:
    plane = np.random.default_rng(2).normal(size=(600, 600)).astype(np.float32)
    sources = np.zeros((600, 600), bool)
    sources[200:300, 200:300] = True
    plane[sources] = 1e3
    assert noise.rms_map(plane, sources, beam_px=3.0).max() < 1.3


def test_a_small_image_has_one_level() -> None:
    plane = np.random.default_rng(3).normal(size=(128, 128)).astype(np.float32)
    found = noise.rms_map(plane, np.zeros((128, 128), bool), beam_px=10.0)
    assert found.shape == (128, 128)
    assert np.ptp(found) == 0


def test_no_pixels_no_rms() -> None:
    assert np.isnan(noise.robust_rms(np.array([np.nan])))


# Files


def description(**extra: Any) -> Description:
    return Description(
        FRAME,
        "DSA_110",
        (-2.4e6, -4.5e6, 3.8e6),
        "20260125t021221",
        61065.09,
        61065.0936,
        (1.405e9, 187.5e6),
        1.4051e9,
        (68 / 3600, 37 / 3600, 95.0),
        extra,
    )


def test_headers_say_what_conventions_md_asks_for() -> None:
    made = header(
        description(GROUPID=("20260125t021221", "group")), "Jy/beam", "clean image", corrected=True
    )
    for key in (
        "BUNIT",
        "BMAJ",
        "BMIN",
        "BPA",
        "RADESYS",
        "SPECSYS",
        "RESTFRQ",
        "DATE-OBS",
        "DATE-BEG",
        "DATE-END",
        "DATE-AVG",
        "MJD-OBS",
        "TIMESYS",
        "TELESCOP",
        "GROUPID",
        "PBCOR",
    ):
        assert key in made, key
    assert (made["BUNIT"], made["RADESYS"], made["PBCOR"]) == ("Jy/beam", "ICRS", True)
    assert made["DATE-OBS"] == "2026-01-25T02:09:36.000"
    assert "DATE" not in made


def test_files_have_checksums_and_the_same_bytes() -> None:
    plane = np.arange(600 * 600, dtype=np.float32).reshape(600, 600)
    made = header(description(), "Jy/beam", "x", corrected=False)
    data = to_bytes(plane, made)
    assert data == to_bytes(plane, header(description(), "Jy/beam", "x", corrected=False))
    with fits.open(io.BytesIO(data), checksum=True) as file:
        file.verify("exception")
        assert file[0].verify_checksum() == file[0].verify_datasum() == 1
        assert file[0].data.shape == (1, 1, 600, 600)
        assert np.array_equal(file[0].data.squeeze(), plane)


def test_the_psfs_middle_keeps_its_place() -> None:
    psf = np.zeros((2400, 2400), np.float32)
    psf[1200, 1200] = 1
    frame = Frame(38.9, 32.886, 2400, 3.0)
    of = description().__class__(**{**vars(description()), "frame": frame})
    part, made = cut_psf(psf, header(of, "Jy/beam", "psf", corrected=False))
    assert part.shape == (600, 600)
    assert part[int(made["CRPIX2"]) - 1, int(made["CRPIX1"]) - 1] == 1


def test_times_are_iso() -> None:
    assert iso(61065.05196817219) == "2026-01-25T01:14:50.050"


def test_the_picture_keeps_every_point_source_and_its_bytes() -> None:
    plane = np.random.default_rng(4).normal(0, 1e-3, (2000, 2000)).astype(np.float32)
    plane[77, 1234] = 1.0
    small, factor = shrink(plane)
    assert (factor, small.shape) == (3, (666, 666))
    assert small.max() == 1.0
    png = thumbnail(plane, FRAME, 1e-3, (0.02, 0.01, 30.0), "a field")
    assert png.startswith(b"\x89PNG")
    assert png == thumbnail(plane, FRAME, 1e-3, (0.02, 0.01, 30.0), "a field")
    assert len(png) < 2_000_000


# Verdicts


def cleaned(**chosen: Any) -> Cleaned:
    plane = np.random.default_rng(5).normal(size=(600, 600)).astype(np.float32)
    planes = {"image": plane, "residual": plane, "psf": plane, "model": plane} | chosen
    beam = {"bmaj_deg": 68 / 3600, "bmin_deg": 37 / 3600, "bpa_deg": 90.0} | {
        k: planes.pop(k) for k in ("bmaj_deg", "bmin_deg") if k in planes
    }
    return Cleaned(**planes, **beam, frequency_hz=1.4e9, bandwidth_hz=1.9e8, keywords={})


def test_a_good_image_passes() -> None:
    judge.check_planes("x", cleaned(), 9 / 3600)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_must_be_finite(value: float) -> None:
    plane = cleaned().image.copy()
    plane[3, 4] = value
    with pytest.raises(BadImageError, match="1 that are not"):
        judge.check_planes("x", cleaned(image=plane), 9 / 3600)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(BadImageError, match="0 that are not 0"):
        judge.check_planes("x", cleaned(image=np.zeros((600, 600), np.float32)), 9 / 3600)


@pytest.mark.parametrize(
    "beam",
    [{"bmin_deg": 5 / 3600}, {"bmaj_deg": 0.3}, {"bmaj_deg": 0.14, "bmin_deg": 0.005}],
    ids=["thin", "huge", "a line"],
)
def test_an_absurd_beam_is_refused(beam: dict[str, float]) -> None:
    with pytest.raises(BadImageError, match="a beam between"):
        judge.check_planes("x", cleaned(**beam), 9 / 3600)


def seen(expected: list[float], found: list[float]) -> judge.Sightings:
    return judge.Sightings(
        np.array(expected), np.array(found), np.array(found), np.zeros(len(found))
    )


def test_noise_far_above_thermal_is_refused() -> None:
    judge.check_sky("x", 40 * 2e-4, 2e-4, seen([], []))
    with pytest.raises(BadImageError, match="noise below 50 x"):
        judge.check_sky("x", 60 * 2e-4, 2e-4, seen([], []))


def test_sources_must_be_where_the_catalogue_has_them() -> None:
    judge.check_sky(
        "x", 2e-4, 2e-4, seen([1.0, 0.5, 0.2], [0.9, 0.5, 0.01])
    )  # one of them may have faded
    with pytest.raises(BadImageError, match="Phases, phase centre or times are wrong"):
        judge.check_sky("x", 2e-4, 2e-4, seen([1.0, 0.5, 0.2], [0.02, 0.01, 0.02]))


def test_two_sources_condemn_nothing() -> None:
    judge.check_sky("x", 2e-4, 2e-4, seen([1.0, 0.5], [0.02, 0.01]))


def test_a_mirrored_sky_shows_in_the_control() -> None:
    image = np.zeros((600, 600), np.float32)
    image[200, 600 - 100] = 1.0
    found = judge.sightings(image, np.array([100.0]), np.array([200.0]), np.array([1.0]), 3.0)
    assert (found.seen_jy[0], found.other_jy[0]) == (0, 1)


def test_phases_that_are_not_the_skys_are_refused() -> None:
    judge.check_phases("x", Phases(80.0, 79.5))  # noise alone: nothing can be said
    judge.check_phases("x", Phases(float("nan"), float("nan")))
    with pytest.raises(BadImageError, match=r"beyond the 4\.0 deg of noise"):
        judge.check_phases("x", Phases(20.0, 4.0))


def test_noise_alone_is_no_source() -> None:
    """Its highest pixel near a place is never near zero; its brightness at the place is."""
    rng = np.random.default_rng(5)
    image = rng.normal(0, 0.4, (400, 400)).astype(np.float32)
    x, y = rng.uniform(20, 380, (2, 50))
    found = judge.sightings(image, x, y, np.ones(50), 3.0)
    assert found.ratio > 0.5
    assert abs(found.presence) < 0.2
    with pytest.raises(BadImageError, match="50 catalogue sources"):
        judge.check_sky("x", 2e-4, 2e-4, found)


GOOD = {
    "noise_ratio": 1.2,
    "sightings": 9.0,
    "flux_ratio": 0.98,
    "smearing_loss": 0.005,
    "strangers": 0.0,
    "phase_error_deg": 0.5,
}


def test_a_clean_verdict() -> None:
    assert judge.verdict(GOOD, known_beam=True).verdict == "good"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"noise_ratio": 4.0}, "4.0 x thermal"),
        ({"noise_ratio": float("nan")}, "thermal noise is not known"),
        ({"phase_error_deg": 7.0}, "phases of antennas are off by 7.0 deg"),
        ({"sightings": 0.0, "flux_ratio": float("nan")}, "no catalogue source"),
        ({"flux_ratio": 0.7}, "0.70 of their flux"),
        ({"smearing_loss": 0.019}, "1.9% at the edge"),
        ({"strangers": 2.0}, "2 bright sources"),
    ],
)
def test_blemishes_are_named(wrong: dict[str, float], words: str) -> None:
    found = judge.verdict(GOOD | wrong, known_beam=True)
    assert found.verdict == "warning"
    assert words in " ".join(found.reasons)


def test_an_unknown_beam_is_said() -> None:
    assert "primary beam is not known" in judge.verdict(GOOD, known_beam=False).reasons[0]
