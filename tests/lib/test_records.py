"""Records and files that stages exchange: calibrations, partial groups, flags, odd images."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from math import prod
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
from contimg.records.flagfile import pack_flags, unpack_flags
from contimg.records.groups import GroupRecord, Subband, mjd_of
from contimg.records.images import FOUR_LN2, Beam, bilinear, read_image
from contimg.runtime.context import Context
from contimg.runtime.errors import BadFileError, BadImageError, BadInputError, MissingError
from contimg.runtime.manifest import MANIFEST, QA, Manifest
from contimg.runtime.store import open_store

CALIBRATOR = {
    "name": "3C48",
    "ra_deg": 24.4221,
    "dec_deg": 33.1598,
    "flux_jy": 16.0,
    "apparent_jy": 15.5,
    "standard": True,
}
WHOLE: dict[str, Any] = {
    "group": "20260125t222605",
    "mjd": 61065.93,
    "dec_deg": 33.0,
    "tables": [
        {"role": "bandpass", "kind": "B", "file": "bandpass.tar", "interp": "nearest"},
        {"role": "gain", "kind": "G", "file": "gain.tar", "interp": "linear"},
    ],
    "rung": "PRIMARY_TRANSIT_GENERATED",
    "solved": True,
    "calibrator": CALIBRATOR,
    "flux_anchor": "standard",
    "valid_from_mjd": 61065.4,
    "valid_to_mjd": 61066.4,
    "reference_antenna": "103",
    "flag_fraction": 0.01,
    "field_phase": {"done": False, "reason": "solved here"},
}


@pytest.fixture
def reader(tmp_path: Path) -> Context:
    (tmp_path / "scratch").mkdir()
    return Context(str(tmp_path / "next"), tmp_path / "scratch", (), {})


def calibrate(tmp_path: Path, record: bytes) -> str:
    """Write an artifact as calibrate does, with caltables that are folders of one file."""
    (tmp_path / "made").mkdir()
    writer = Context(str(tmp_path / "store/k"), tmp_path / "made", (), {})
    writer.write(RECORD, record)
    for name in ("bandpass", "gain"):
        folder = tmp_path / "made" / f"g.{name}"
        folder.mkdir()
        (folder / "table.dat").write_text(name)
        writer.write_tree(f"{name}.tar", folder)
    whole = Manifest(
        stage="calibrate",
        version="1",
        key="k",
        options={},
        inputs=(),
        tools={},
        outputs=tuple(writer.outputs),
        metrics={},
        qa=QA(),
        seconds={},
        created=datetime.now(UTC),
    )
    open_store(writer.artifact).put(MANIFEST, whole.model_dump_json().encode())
    return writer.artifact


class TestCalibration:
    def test_calibration_record_round_trip(self, reader: Context, tmp_path: Path) -> None:
        record = Calibration.model_validate(WHOLE)
        uri = calibrate(tmp_path, record.model_dump_json().encode())
        assert read_calibration(reader, uri) == read_calibration(reader, uri + "/") == record

    def test_tables_come_in_the_order_of_the_record(self, reader: Context, tmp_path: Path) -> None:
        turned = Calibration.model_validate(WHOLE | {"tables": WHOLE["tables"][::-1]})
        folders = fetch_tables(
            reader, calibrate(tmp_path, turned.model_dump_json().encode()), turned
        )
        assert [(folder / "table.dat").read_text() for folder in folders] == ["gain", "bandpass"]

    def test_a_table_that_the_artifact_lacks_is_named(
        self, reader: Context, tmp_path: Path
    ) -> None:
        delay = {"role": "delay", "kind": "K", "file": "delay.tar", "interp": "nearest"}
        record = Calibration.model_validate(WHOLE | {"tables": [delay]})
        with pytest.raises(
            BadInputError,
            match=r"There is no delay.tar, only calibration.json, bandpass.tar, gain.tar",
        ):
            fetch_tables(reader, calibrate(tmp_path, record.model_dump_json().encode()), record)

    @pytest.mark.parametrize(
        "content",
        [b"", b"{}", b"\xff\xfe", b"[]", json.dumps(WHOLE | {"schema_version": 2}).encode()],
    )
    def test_bad_calibration_record_is_refused(
        self, reader: Context, tmp_path: Path, content: bytes
    ) -> None:
        with pytest.raises(
            BadInputError,
            match=r"(?s)k/calibration.json: This is not a calibration record.*contimg-calibrate",
        ):
            read_calibration(reader, calibrate(tmp_path, content))

    def test_missing_calibration_record_is_named(self, reader: Context, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match=RECORD):
            read_calibration(reader, str(tmp_path / "nothing"))

    @pytest.mark.parametrize(
        "change",
        [
            {"rung": "GUESSED"},
            {"flux_anchor": "hope"},
            {"surprise": 1},
            {"calibrator": {"name": "3C48"}},
            {"tables": [WHOLE["tables"][0] | {"kind": "D"}]},
            {"tables": [WHOLE["tables"][0] | {"interp": "cubic"}]},
            {"mjd": "yesterday"},
        ],
    )
    def test_invalid_calibration_values_are_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Calibration.model_validate(WHOLE | change)

    @pytest.mark.parametrize("name", [name for name in WHOLE if name != "schema_version"])
    def test_calibration_fields_are_required(self, name: str) -> None:
        with pytest.raises(ValidationError, match=name):
            Calibration.model_validate({key: value for key, value in WHOLE.items() if key != name})

    def test_calibration_is_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Calibration.model_validate(WHOLE).flux_anchor = "nvss"


class TestGroupTimes:
    T0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)

    def record(self, duration_s: float) -> GroupRecord:
        one = Subband(index=0, uri="incoming/x", size=1, modified=self.T0)
        return GroupRecord(
            id="20260125t222605",
            attempt=1,
            t0=self.T0,
            duration_s=duration_s,
            dec_deg=None,
            subbands=(one,),
            missing=(1, 2),
        )

    def test_start_and_end_are_integrations_midpoints(self) -> None:
        # 24 integrations of 12.8849 s: 23 steps from the first midpoint to the last.
        found = self.record(23 * 12.884902)
        assert found.mjd_start == mjd_of(self.T0)
        assert (found.mjd_end - found.mjd_start) * 86400 == pytest.approx(
            23 * 12.884902, abs=2e-6
        )  # a step of float64 is 0.6 us

    def test_record_survives_json(self) -> None:
        found = self.record(1.5)
        assert GroupRecord.model_validate_json(found.model_dump_json()) == found
        assert not found.complete


@given(
    st.tuples(st.integers(0, 9), st.integers(0, 17), st.integers(1, 4)).flatmap(
        lambda shape: st.tuples(
            st.just(shape), st.binary(min_size=prod(shape), max_size=prod(shape))
        )
    )
)
def test_flags_of_any_shape_return(drawn: tuple[tuple[int, int, int], bytes]) -> None:
    flags = (np.frombuffer(drawn[1], np.uint8) > 127).reshape(drawn[0])
    back = unpack_flags(pack_flags(flags))
    assert back.shape == flags.shape
    assert np.array_equal(back, flags)
    assert pack_flags(np.asfortranarray(flags)) == pack_flags(flags), (
        "the bytes do not depend on the array's memory"
    )


@pytest.mark.parametrize(
    "header",
    [
        b"contimg-flags 10 2 2 2",
        b"contimg-flags 12 2 2",
        b"contimg-flags 1 2 2",
        b"contimg-flags 1 2 -2 2",
        b"contimg-flags 1 2 2.0 2",
        b"\x89HDF",
    ],
)
def test_other_header_is_refused(header: bytes) -> None:
    with pytest.raises(BadInputError, match="This is not a flag file"):
        unpack_flags(header + b"\n" + pack_flags(np.zeros((2, 2, 2), np.bool_)).partition(b"\n")[2])


class TestRestoringBeam:
    @given(st.floats(10, 100), st.floats(0.2, 1.0), st.floats(-180, 180))
    def test_it_is_half_at_half_its_width_along_its_axes(
        self, major: float, ratio: float, angle: float
    ) -> None:
        beam = Beam(major / 3600, ratio * major / 3600, angle)
        a, b, c = beam.form(-3 / 3600, 3 / 3600)
        for width, towards in ((major, angle), (ratio * major, angle + 90)):
            # From north (up) through east (left): east is at smaller x.
            dx, dy = (
                width
                / 2
                / 3
                * np.array([-np.sin(np.radians(towards)), np.cos(np.radians(towards))])
            ).tolist()
            assert np.exp(-(a * dx**2 + 2 * b * dx * dy + c * dy**2)) == pytest.approx(
                0.5, rel=1e-9
            )

    def test_a_round_beam_has_no_angle(self) -> None:
        forms = [Beam(0.01, 0.01, angle).form(-0.001, 0.001) for angle in (0, 30, 90)]
        assert np.allclose(forms, [(FOUR_LN2 / 100, 0, FOUR_LN2 / 100)] * 3, atol=1e-15)


class TestBilinear:
    def test_a_plane_is_exact_and_outside_is_nan(self) -> None:
        y, x = np.mgrid[:5, :7].astype(np.float32)
        plane = 2 * x - 3 * y + 1
        at_x, at_y = np.array([0.0, 6.0, 2.25, 5.999, 3.0]), np.array([0.0, 4.0, 1.5, 3.999, 4.0])
        assert bilinear(plane, at_x, at_y) == pytest.approx(2 * at_x - 3 * at_y + 1)
        out_x, out_y = np.array([-0.01, 6.01, 3, 3, np.nan]), np.array([1, 1, -0.01, 4.01, 1])
        assert np.isnan(bilinear(plane, out_x, out_y)).all()

    def test_nan_pixel_affects_only_its_neighbours(self) -> None:
        plane = np.ones((4, 4), np.float32)
        plane[1, 1] = np.nan
        found = bilinear(plane, np.array([0.5, 1.5, 2.5]), np.array([0.5, 1.5, 2.5]))
        assert np.isnan(found).tolist() == [True, True, False]


class TestImages:
    def header(self) -> fits.Header:
        cards = {
            "CTYPE1": "RA---SIN",
            "CTYPE2": "DEC--SIN",
            "CRVAL1": 38.9,
            "CRVAL2": 33.0,
            "CRPIX1": 9,
            "CRPIX2": 9,
        }
        return fits.Header(
            cards | {"CDELT1": -0.001, "CDELT2": 0.001, "CUNIT1": "deg", "CUNIT2": "deg"}
        )

    def test_a_file_that_ends_too_early_is_bad(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.fits"
        fits.PrimaryHDU(np.ones((600, 600), np.float32), self.header()).writeto(path)
        path.write_bytes(path.read_bytes()[:20_000])
        with (
            pytest.warns(AstropyUserWarning, match="truncated"),
            pytest.raises(BadFileError, match=r"s3://b/image.fits"),
        ):
            read_image(path, "s3://b/image.fits")

    def test_cube_is_refused(self, tmp_path: Path) -> None:
        fits.PrimaryHDU(np.ones((3, 20, 20), np.float32), self.header()).writeto(
            tmp_path / "cube.fits"
        )
        with pytest.raises(BadImageError, match=r"its shape is \(3, 20, 20\)"):
            read_image(tmp_path / "cube.fits")

    def test_the_reference_pixel_is_the_reference_position(self, tmp_path: Path) -> None:
        fits.PrimaryHDU(np.ones((17, 17), np.float32), self.header()).writeto(tmp_path / "a.fits")
        found = read_image(tmp_path / "a.fits")
        assert found.centre_deg == (38.9, 33.0)
        assert found.cell_deg == pytest.approx((-0.001, 0.001))
        # CRPIX counts from one.
        assert np.array(
            found.to_pixels(np.array([38.9]), np.array([33.0]))
        ).ravel() == pytest.approx([8, 8])
