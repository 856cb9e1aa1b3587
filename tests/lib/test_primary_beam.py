"""The primary beam as data: models, files, refusals, and the name that says what was used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from pydantic import ValidationError

from contimg.astro.beam_files import read_beam
from contimg.astro.predict import PointSources, SkyModel
from contimg.astro.primary_beam import PrimaryBeam, check_same_beam
from contimg.astro.telescope import SITE
from contimg.runtime.errors import BadInputError, MissingError
from contimg_image.options import STAGE, ImageOptions

HZ = 1.405e9
RADIUS_DEG = np.linspace(0, 2.2, 23)
AIRY = read_beam("airy:4.65")
CSV = "radius_deg_ghz,level\n"


def write_json(path: Path, **changes: Any) -> str:
    content = {"model": "airy:4.65", "offset_deg": [0.1, -0.05]}
    path.write_text(json.dumps({**content, **changes}))
    return str(path)


def write_csv(path: Path) -> str:
    radius = np.linspace(0, 6.0, 241)
    level = AIRY.at_radius(np.radians(radius / 1.405), HZ)
    path.write_text(CSV + "".join(f"{r},{one}\n" for r, one in zip(radius, level, strict=True)))
    return str(path)


def write_cube(path: Path, **cards: Any) -> str:
    """Write an Airy beam at three frequencies, 0.3 deg to the east, which is left."""
    freq_hz = 1.311e9 + 94e6 * np.arange(3)
    x, y = np.meshgrid(np.arange(101), np.arange(101))
    east, north = -(x - 50) * 0.06, (y - 50) * 0.06
    radius = np.radians(np.hypot(east - 0.3, north))
    level = np.stack([AIRY.at_radius(radius, one) for one in freq_hz])
    header = fits.Header({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CTYPE3": "FREQ"})
    header.update({"CRPIX1": 51, "CRPIX2": 51, "CDELT1": -0.06, "CDELT2": 0.06, "CUNIT1": "deg"})
    header.update({"CUNIT2": "deg", "CRPIX3": 1, "CRVAL3": 1.311e9, "CDELT3": 94e6, "CUNIT3": "Hz"})
    header.update(cards)
    for name in [name for name, value in cards.items() if value is None]:
        del header[name]
    fits.writeto(path, level, header)
    return str(path)


class TestModels:
    def test_gaussian_has_its_width_at_its_frequency(self) -> None:
        beam = read_beam("gaussian:3.13@1405MHz")
        assert beam.at_radius(np.radians(3.13 / 2), HZ) == pytest.approx(0.5, rel=1e-12)
        assert beam.at_radius(np.radians(3.13 / 4), 2 * HZ) == pytest.approx(0.5, rel=1e-12)
        # The ratios to the Airy pattern of 4.65 m that were measured from outside: 19 and 64 %.
        for radius_deg, ratio in ((1.35, 1.19), (1.98, 1.64)):
            levels = [one.at_radius(np.radians(radius_deg), HZ) for one in (beam, AIRY)]
            assert levels[0] / levels[1] == pytest.approx(ratio, abs=0.02)

    def test_text_has_one_normal_form(self) -> None:
        options = {"ms": "a", "flags": "b", "calibration": "c", "out": "d"}
        for text, normal in (
            ("airy:4.650", "airy:4.65"),
            ("airy:4.65m", "airy:4.65"),
            ("gaussian:3.130@1.405GHz", "gaussian:3.13@1405MHz"),
            ("", "airy:4.65"),
        ):
            given = ImageOptions.drop_empty({"beam": text})
            assert ImageOptions.model_validate({**options, **given}).beam == normal
            assert read_beam(normal).name == normal

    @pytest.mark.parametrize(
        "text",
        ["airy", "airy:465", "airy:4,65", "airy:-4.65", "gaussian:3.13", "gaussian:3.13@1405",
         "gaussian:0.05@1405MHz", "gaussian:188@1405MHz", "Airy:4.65", "beam.txt", "airy:nan",
         "gaussian:3.13@1405kHz", "4.65", "airy:0"],
    )  # fmt: skip
    def test_other_texts_are_refused_at_once(self, text: str) -> None:
        with pytest.raises(ValidationError, match=r"expected airy|half maximum"):
            ImageOptions(ms="a", flags="b", calibration="c", out="d", beam=text)

    def test_offset_moves_the_axis_to_the_east(self, tmp_path: Path) -> None:
        beam = read_beam(write_json(tmp_path / "b.json", offset_deg=[0.5, 0.0]))
        east = [np.array([np.sin(x), 0.0, np.cos(x) - 1]) for x in np.radians([0.5, 0.0, -0.5])]
        levels = [float(beam.level(one, HZ)) for one in east]
        expected = AIRY.at_radius(np.radians([0.0, 0.5, 1.0]), HZ)
        np.testing.assert_allclose(levels, expected, rtol=1e-9)

    def test_offset_reaches_the_model_of_the_sky(self, tmp_path: Path) -> None:
        """A source that has passed the meridian is west, where a beam pointing west sees more."""
        mjd, ra = 61065.05, np.radians([24.0])
        beam = read_beam(write_json(tmp_path / "b.json", offset_deg=[-0.5, 0.0]))
        near = []
        for one in (AIRY, beam):
            sources = PointSources(ra, np.radians([33.0]), np.ones((1, 1)))
            sky = SkyModel(
                sources=sources,
                ra0_rad=float(ra[0]),
                dec0_rad=float(np.radians(33.0)),
                freq_hz=np.array([HZ]),
                width_hz=0.0,
                integration_s=0.0,
                primary_beam=one,
                site=SITE,
                pointing_dec_rad=float(np.radians(33.0)),
            )
            moments = mjd + np.linspace(-0.02, 0.02, 401)
            near.append(moments[np.argmax([sky.beam(float(one))[0, 0] for one in moments])])
        drift_deg_per_day = 361.0 * np.cos(np.radians(33.0))
        assert (near[1] - near[0]) * drift_deg_per_day == pytest.approx(0.5, abs=0.04)

    def test_widths_interpolate_in_frequency(self, tmp_path: Path) -> None:
        widths = [[1311.0, 1.02], [1499.0, 0.98]]
        beam = read_beam(write_json(tmp_path / "b.json", widths=widths, offset_deg=[0, 0]))
        for hz, factor in ((1.2e9, 1.02), (HZ, 1.0), (1.499e9, 0.98)):
            found = beam.radius_rad(0.5, hz) / AIRY.radius_rad(0.5, hz)
            assert found == pytest.approx(factor, abs=3e-4)


class TestFiles:
    @pytest.mark.parametrize("kind", ["csv", "fits", "cube"])
    def test_files_give_the_pattern_that_they_hold(self, kind: str, tmp_path: Path) -> None:
        uri = write_csv(tmp_path / "b.csv")
        east_deg = 0.0
        if kind == "fits":
            table = np.genfromtxt(uri, delimiter=",", names=True)
            fits.BinTableHDU(table).writeto(tmp_path / "b.fits")
            uri = str(tmp_path / "b.fits")
        elif kind == "cube":
            uri, east_deg = write_cube(tmp_path / "b.fits"), 0.3
        beam = read_beam(uri)
        for hz in (1.33e9, HZ, 1.48e9):
            for direction in ((1, 0), (-1, 0), (0, 1)):
                x, y = np.sin(np.radians(RADIUS_DEG[:, None] * np.array(direction))).T
                found = beam.level(np.stack([x, y, np.sqrt(1 - x**2 - y**2) - 1], axis=1), hz)
                away = np.hypot(np.degrees(x) - east_deg, np.degrees(y))
                expected = AIRY.at_radius(np.radians(away), hz)
                np.testing.assert_allclose(found, expected, atol=2e-3)
        assert beam.name.startswith(("table#", "map#"))
        again = PrimaryBeam.load(json.loads(json.dumps(beam.dump())))
        offset = np.array([[0.01, 0.02, -2.5e-4]])
        np.testing.assert_array_equal(again.level(offset, HZ), beam.level(offset, HZ))

    def test_name_tells_files_apart_but_not_the_same_beam(self, tmp_path: Path) -> None:
        one = read_beam(write_json(tmp_path / "one.json", offset_deg=[0.1, 0]))
        two = read_beam(write_json(tmp_path / "two.json", offset_deg=[0.2, 0]))
        same = read_beam(write_json(tmp_path / "same.json", offset_deg=[0, 0]))
        assert one.name != two.name
        assert one.name.startswith("airy:4.65#")
        assert same.name == "airy:4.65"

    def test_errors_of_a_fit_survive_a_child(self, tmp_path: Path) -> None:
        fit = {"width": 0.98, "width_error": 0.0049}
        fit |= {"east_error_deg": 0.01, "north_error_deg": 0.02}
        beam = read_beam(write_json(tmp_path / "one.json", fit=fit))
        assert beam.errors == pytest.approx((0.005, 0.01, 0.02))
        again = PrimaryBeam.load(json.loads(json.dumps(beam.changed(1.01).dump())))
        assert again.errors == beam.errors

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("b.json", "[]", "not a beam file"),
            ("b.json", '{"model": "bessel:4"}', "not known"),
            ("b.json", '{"model": "airy:4.65", "model": "airy:5"}', "'model' is given 2 times"),
            ("b.csv", "radius_deg_ghz,level,level\\n0,1,1\\n", "columns are .*level, level"),
            ("b.json", '{"model": "airy:4.65", "ofset_deg": [0, 0]}', "ofset_deg"),
            ("b.json", '{"model": "airy:4.65", "offset_deg": [9, 0]}', "offset is"),
            ("b.json", '{"model": "airy:4.65", "offset_deg": [NaN, 0]}', "offset is|finite"),
            ("b.json", '{"model": "airy:4.65", "widths": [[1.4e9, 1]]}', "Widths must be"),
            ("b.json", '{"model": "airy:4.65", "widths": [[1400, 3]]}', "Widths must be"),
            ("b.json", '{"model": "airy:4.65", "fit": {"width_error": 0.01}}', "states errors"),
            ("b.csv", "radius,level\n0,1\n", "columns are radius"),
            ("b.csv", f"{CSV}0,1\n1,0.9\n2,0.6\n3,0.3\n", "ends at a level of 0.3"),
            ("b.csv", f"{CSV}0,0.5\n1,0.4\n2,0.3\n3,0.1\n", "on the axis is 0.5"),
            ("b.csv", f"{CSV}0,0\n1,-1\n2,-3\n3,-30\n", "between 0 and 1"),
            ("b.csv", f"{CSV}0,1\n2,0.9\n1,0.6\n3,0.1\n", "ascend"),
            ("b.csv", f"{CSV}0,1\n1,x\n2,0.6\n3,0.1\n", "cannot be read"),
            ("b.csv", f"{CSV}0,1,7\n1,0.9,7\n2,0.6,7\n3,0.1,7\n", "cannot be read|columns"),
            ("b.fits", "SIMPLE", "not a whole FITS"),
        ],
    )
    def test_files_that_say_something_else_are_refused(
        self, name: str, text: str, words: str, tmp_path: Path
    ) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInputError, match=words):
            read_beam(str(tmp_path / name))

    @pytest.mark.parametrize(
        ("cards", "words"),
        [
            ({"CTYPE1": "GLON-SIN"}, "axes are GLON"),
            ({"CUNIT1": "arcsec"}, "units of the axes"),
            ({"CUNIT3": "MHz"}, "units of the axes"),
            ({"CRVAL3": 1311.0}, "frequencies are"),
            ({"CRPIX1": 400}, "outside of the map"),
            ({"PC1_2": 0.2}, "PC1_2"),
            ({"CTYPE3": "STOKES"}, "axes are RA"),
            ({"CTYPE1": "DEC--SIN", "CTYPE2": "RA---SIN"}, "axes are DEC"),
            ({"BUNIT": "dB"}, "unit is dB"),
            ({"CDELT1": None}, "CDELT1"),
        ],
    )
    def test_maps_with_other_axes_are_refused(
        self, cards: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(BadInputError, match=words):
            read_beam(write_cube(tmp_path / "b.fits", **cards))

    def test_absent_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            read_beam(str(tmp_path / "none.json"))


def test_key_follows_the_content_of_a_beam_file(tmp_path: Path) -> None:
    paths = {"ms": "a", "flags": "b", "calibration": "c", "out": "d"}

    def key(beam: str) -> str:
        options = ImageOptions(**paths, beam=beam)
        marks = {n: f for n, f in ImageOptions.model_fields.items() if n == "beam"}
        mark = next(one for one in marks["beam"].metadata if hasattr(one, "describe"))
        return STAGE.key(options, [mark.describe("beam", options.beam)])

    first = write_json(tmp_path / "one.json")
    copy = write_json(tmp_path / "copy.json")
    other = write_json(tmp_path / "other.json", offset_deg=[0, 0.3])
    assert key(first) == key(copy) != key(other)
    assert len({key("airy:4.65"), key("airy:4.7"), key("gaussian:3.13@1405MHz")}) == 3


def test_calibration_of_another_beam_is_refused() -> None:
    check_same_beam("x", "airy:4.65", "airy:4.65", allowed=False)
    check_same_beam("x", "airy:4.65", "airy:4.7", allowed=True)
    with pytest.raises(BadInputError, match=r"primary beam airy:4\.65, not airy:4\.7"):
        check_same_beam("x", "airy:4.65", "airy:4.7", allowed=False)
