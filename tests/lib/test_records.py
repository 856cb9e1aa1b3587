"""Records and files that stages exchange: calibrations, partial groups, flags, odd images."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.records.calibration import RECORD, Calibration, fetch_tables, read_calibration
from contimg.records.images import FOUR_LN2, Beam, bilinear, read_image
from contimg.runtime.context import Context
from contimg.runtime.errors import BadFileError, BadImageError, BadInputError, MissingError
from contimg.runtime.manifest import MANIFEST, QA, Manifest
from contimg.runtime.store import open_store

CALIBRATOR = {"name": "3C48", "ra_deg": 24.4221, "dec_deg": 33.1598, "flux_jy": 16.0}
BANDPASS = {"role": "bandpass", "kind": "B", "file": "bandpass.tar", "interp": "nearest"}
WHOLE: dict[str, Any] = {
    "group": "20260125t222605",
    "mjd": 61065.93,
    "dec_deg": 33.0,
    "tables": [BANDPASS, {"role": "gain", "kind": "G", "file": "gain.tar", "interp": "linear"}],
    "rung": "PRIMARY_TRANSIT_GENERATED",
    "solved": True,
    "calibrator": {**CALIBRATOR, "apparent_jy": 15.5, "standard": True},
    "flux_anchor": "standard",
    "valid_from_mjd": 61065.4,
    "valid_to_mjd": 61066.4,
    "reference_antenna": "103",
    "flag_fraction": 0.01,
    "field_phase": {"done": False, "reason": "solved here"},
}
MANIFEST_CONTENT: dict[str, Any] = {"stage": "calibrate", "version": "1", "key": "k", "inputs": ()}
MANIFEST_CONTENT |= {"options": {}, "tools": {}, "metrics": {}, "seconds": {}, "qa": QA()}


@pytest.fixture
def reader(tmp_path: Path) -> Context:
    (tmp_path / "scratch").mkdir()
    return Context(str(tmp_path / "next"), tmp_path / "scratch", (), {})


def calibrate(tmp_path: Path, record: Calibration | bytes) -> str:
    """Write an artifact as calibrate does, with caltables that are folders of one file."""
    (tmp_path / "made").mkdir()
    writer = Context(str(tmp_path / "store/k"), tmp_path / "made", (), {})
    content = record if isinstance(record, bytes) else record.model_dump_json().encode()
    writer.write(RECORD, content)
    for name in ("bandpass", "gain"):
        folder = tmp_path / "made" / f"g.{name}"
        folder.mkdir()
        (folder / "table.dat").write_text(name)
        writer.write_tree(f"{name}.tar", folder)
    outputs, created = tuple(writer.outputs), datetime.now(UTC)
    whole = Manifest(outputs=outputs, created=created, **MANIFEST_CONTENT)
    open_store(writer.artifact).put(MANIFEST, whole.model_dump_json().encode())
    return writer.artifact


class TestCalibration:
    def test_calibration_record_round_trip(self, reader: Context, tmp_path: Path) -> None:
        record = Calibration.model_validate(WHOLE)
        uri = calibrate(tmp_path, record)
        with pytest.raises(ValidationError, match="frozen"):
            record.flux_anchor = "nvss"
        assert read_calibration(reader, uri) == read_calibration(reader, uri + "/") == record
        with pytest.raises(MissingError, match=RECORD):
            read_calibration(reader, str(tmp_path / "nothing"))

    def test_tables_come_in_order_of_record(self, reader: Context, tmp_path: Path) -> None:
        turned = Calibration.model_validate(WHOLE | {"tables": WHOLE["tables"][::-1]})
        folders = fetch_tables(reader, calibrate(tmp_path, turned), turned)
        assert [(folder / "table.dat").read_text() for folder in folders] == ["gain", "bandpass"]

    def test_missing_table_is_named(self, reader: Context, tmp_path: Path) -> None:
        delay = {"role": "delay", "kind": "K", "file": "delay.tar", "interp": "nearest"}
        record = Calibration.model_validate(WHOLE | {"tables": [delay]})
        message = r"There is no delay.tar, only calibration.json, bandpass.tar, gain.tar"
        with pytest.raises(BadInputError, match=message):
            fetch_tables(reader, calibrate(tmp_path, record), record)

    @pytest.mark.parametrize(
        "content",
        [b"", b"{}", b"\xff\xfe", b"[]", json.dumps(WHOLE | {"schema_version": 2}).encode()],
    )
    def test_bad_calibration_record_is_refused(
        self, reader: Context, tmp_path: Path, content: bytes
    ) -> None:
        message = r"(?s)k/calibration.json: This is not a calibration record.*contimg-calibrate"
        with pytest.raises(BadInputError, match=message):
            read_calibration(reader, calibrate(tmp_path, content))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("rung", "GUESSED"), ("flux_anchor", "hope"), ("surprise", 1), ("mjd", "yesterday")),
            *(("tables", [BANDPASS | {key: "D"}]) for key in ("kind", "interp")),
            ("calibrator", {"name": "3C48"}),
        ],
    )
    def test_invalid_calibration_values_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(ValidationError):
            Calibration.model_validate(WHOLE | {name: value})

    @pytest.mark.parametrize("name", WHOLE)
    def test_calibration_fields_are_required(self, name: str) -> None:
        with pytest.raises(ValidationError, match=name):
            Calibration.model_validate({key: value for key, value in WHOLE.items() if key != name})


class TestRestoringBeam:
    @given(st.floats(10, 100), st.floats(0.2, 1.0), st.floats(-180, 180))
    def test_beam_is_half_at_half_width(self, major: float, ratio: float, angle: float) -> None:
        beam = Beam(major / 3600, ratio * major / 3600, angle)
        a, b, c = beam.form(-3 / 3600, 3 / 3600)
        for width, towards in ((major, angle), (ratio * major, angle + 90)):
            # From north (up) through east (left): east is at smaller x.
            dx = -width / 2 / 3 * np.sin(np.radians(towards))
            dy = width / 2 / 3 * np.cos(np.radians(towards))
            value = np.exp(-(a * dx**2 + 2 * b * dx * dy + c * dy**2))
            assert value == pytest.approx(0.5, rel=1e-9)

    def test_round_beam_has_no_angle(self) -> None:
        forms = [Beam(0.01, 0.01, angle).form(-0.001, 0.001) for angle in (0, 30, 90)]
        assert np.allclose(forms, [(FOUR_LN2 / 100, 0, FOUR_LN2 / 100)] * 3, atol=1e-15)


def test_bilinear_is_exact_on_a_plane_and_nan_outside() -> None:
    y, x = np.mgrid[:5, :7].astype(np.float32)
    plane = 2 * x - 3 * y + 1
    at_x, at_y = np.array([0.0, 6.0, 2.25, 5.999, 3.0]), np.array([0.0, 4.0, 1.5, 3.999, 4.0])
    assert bilinear(plane, at_x, at_y) == pytest.approx(2 * at_x - 3 * at_y + 1)
    out_x, out_y = np.array([-0.01, 6.01, 3, 3, np.nan]), np.array([1, 1, -0.01, 4.01, 1])
    assert np.isnan(bilinear(plane, out_x, out_y)).all()
    plane[1, 1] = np.nan  # affects only its neighbours
    found = bilinear(plane, np.array([0.5, 1.5, 2.5]), np.array([0.5, 1.5, 2.5]))
    assert np.isnan(found).tolist() == [True, True, False]


class TestImages:
    def write(self, path: Path, shape: tuple[int, ...]) -> Path:
        cards = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CUNIT1": "deg", "CUNIT2": "deg"}
        cards |= {"CRVAL1": 38.9, "CRVAL2": 33.0, "CRPIX1": 9, "CRPIX2": 9}
        cards |= {"CDELT1": -0.001, "CDELT2": 0.001}
        fits.PrimaryHDU(np.ones(shape, np.float32), fits.Header(cards)).writeto(path)
        return path

    def test_truncated_file_is_bad(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "cut.fits", (600, 600))
        path.write_bytes(path.read_bytes()[:20_000])
        bad = pytest.raises(BadFileError, match=r"s3://b/image.fits")
        with pytest.warns(AstropyUserWarning, match="truncated"), bad:
            read_image(path, "s3://b/image.fits")

    def test_cube_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "cube.fits", (3, 20, 20))
        with pytest.raises(BadImageError, match=r"its shape is \(3, 20, 20\)"):
            read_image(path)

    def test_reference_pixel_is_reference_position(self, tmp_path: Path) -> None:
        found = read_image(self.write(tmp_path / "a.fits", (17, 17)))
        assert found.centre_deg == (38.9, 33.0)
        assert found.cell_deg == pytest.approx((-0.001, 0.001))
        # CRPIX counts from one.
        x, y = found.to_pixels(np.array([38.9]), np.array([33.0]))
        assert (x[0], y[0]) == pytest.approx((8, 8))
