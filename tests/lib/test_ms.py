"""The one writer and reader of Measurement Sets."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest

from contimg.records.ms import STOKES_I, Antennas, MeasurementSet, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError
from contimg.runtime.tar import pack, unpack

CHANNELS = 20
TIMES, BASELINES = 7, 66
N = TIMES * BASELINES
SCRIPT = """
import sys; from pathlib import Path
sys.path.insert(0, {folder!r})
from test_ms import write
write(Path(sys.argv[1]))
"""


def header(**changes: Any) -> MSHeader:
    rng = np.random.default_rng(1)
    antennas = Antennas(
        tuple(f"{n + 1}" for n in range(12)), rng.normal(size=(12, 3)) * 1000, np.full(12, 4.65)
    )
    made = MSHeader(
        "DSA_110",
        "20260125t222605",
        5.99,
        0.574,
        1.311e9 + 244140.625 * np.arange(CHANNELS),
        244140.625,
        antennas,
    )
    return replace(made, **changes)


def rows(correlations: int = 2) -> Rows:
    rng = np.random.default_rng(2)
    one, two = np.triu_indices(12, 1)
    return Rows(
        time_s=np.repeat(5.3e9 + 12.88 * np.arange(TIMES), BASELINES),
        interval_s=np.full(N, 12.88),
        antenna1=np.tile(one, TIMES).astype(np.int32),
        antenna2=np.tile(two, TIMES).astype(np.int32),
        uvw_m=rng.normal(size=(N, 3)),
        weight=rng.uniform(0.5, 2, (N, correlations)).astype(np.float32),
    )


def visibilities(correlations: int = 2) -> np.ndarray:
    rng = np.random.default_rng(3)
    shape = (N, CHANNELS, correlations)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def write(path: Path, *columns: str, correlations: tuple[int, ...] = (9, 12)) -> None:
    data = visibilities(len(correlations))
    flags = data.real > 1
    with create(
        path, header(correlations=correlations), rows(len(correlations)), ("DATA", *columns)
    ) as writer:
        for first in range(0, N, 100):
            part = slice(first, first + 100)
            writer.put(first, {"DATA": data[part], "FLAG": flags[part]})
            for name in columns:
                writer.put(
                    first,
                    {name: np.abs(data[part]) if name == "WEIGHT_SPECTRUM" else 2 * data[part]},
                )


def test_written_content_round_trip(tmp_path: Path) -> None:
    write(tmp_path / "a.ms")
    with MeasurementSet(tmp_path / "a.ms") as ms:
        given, found = header(), ms.header
        assert (found.telescope, found.field, found.correlations) == (
            "DSA_110",
            "20260125t222605",
            (9, 12),
        )
        assert found.antennas.names == given.antennas.names
        np.testing.assert_array_equal(found.antennas.positions_m, given.antennas.positions_m)
        np.testing.assert_array_equal(found.antennas.diameters_m, given.antennas.diameters_m)
        np.testing.assert_array_equal(found.frequencies_hz, given.frequencies_hz)
        assert (found.ra_rad, found.dec_rad, found.channel_width_hz) == (
            given.ra_rad,
            given.dec_rad,
            given.channel_width_hz,
        )
        for name, value in vars(rows()).items():
            np.testing.assert_array_equal(getattr(ms.rows, name), value, err_msg=name)
        np.testing.assert_array_equal(ms.read("DATA"), visibilities())
        np.testing.assert_array_equal(ms.read("FLAG", 250, 100), visibilities()[250:350].real > 1)
        assert len(ms) == N


def test_blocks_cover_all_rows_once(tmp_path: Path) -> None:
    write(tmp_path / "a.ms")
    with MeasurementSet(tmp_path / "a.ms") as ms:
        assert np.concatenate([np.arange(N)[part] for part in ms.blocks(100)]).tolist() == list(
            range(N)
        )
        assert max(part.stop - part.start for part in ms.blocks(100)) == 100


def test_other_columns_and_correlations(tmp_path: Path) -> None:
    write(tmp_path / "a.ms", "MODEL_DATA", "WEIGHT_SPECTRUM", correlations=(STOKES_I,))
    with MeasurementSet(tmp_path / "a.ms") as ms:
        assert ms.header.correlations == (STOKES_I,)
        np.testing.assert_array_equal(ms.read("MODEL_DATA"), 2 * visibilities(1))
        np.testing.assert_allclose(ms.read("WEIGHT_SPECTRUM"), np.abs(visibilities(1)), rtol=1e-7)
        assert {"MODEL_DATA", "WEIGHT_SPECTRUM"} <= set(ms.columns)


def test_sigma_follows_from_weight(tmp_path: Path) -> None:
    heavy = rows()
    heavy.weight[3] = 0
    with create(tmp_path / "a.ms", header(), heavy) as writer:
        writer.put_weight(10, np.full((5, 2), 4, np.float32))
    with MeasurementSet(tmp_path / "a.ms") as ms:
        sigma = ms.read("SIGMA")
    np.testing.assert_array_equal(sigma[3], 0)
    np.testing.assert_array_equal(sigma[10:15], 0.5)
    np.testing.assert_allclose(sigma[20:], heavy.weight[20:] ** -0.5, rtol=1e-6)


def test_one_phase_centre_in_icrs(tmp_path: Path) -> None:
    write(tmp_path / "a.ms")
    with ct.table(f"{tmp_path}/a.ms::FIELD", ack=False) as field:
        for name in ("PHASE_DIR", "REFERENCE_DIR", "DELAY_DIR"):
            np.testing.assert_allclose(field.getcol(name), [[[5.99, 0.574]]])
            assert field.getcolkeyword(name, "MEASINFO")["Ref"] == "ICRS"
    with ct.table(f"{tmp_path}/a.ms::SPECTRAL_WINDOW", ack=False) as window:
        assert window.getcol("NUM_CHAN").tolist() == [CHANNELS]
    with ct.table(f"{tmp_path}/a.ms", ack=False) as main:
        assert main.getcolkeyword("TIME", "MEASINFO")["Ref"] == "UTC"
        assert main.getcolkeyword("UVW", "QuantumUnits") == ["m", "m", "m"]


def test_nothing_is_lost_without_lock_files(tmp_path: Path) -> None:
    """casacore counts rows that are added later only in table.lock, which a tar leaves out."""
    write(tmp_path / "a.ms")
    sink = io.BytesIO()
    pack(tmp_path / "a.ms", sink)
    sink.seek(0)
    back = unpack(sink, tmp_path / "b")
    assert not list(back.rglob("table.lock"))
    for folder in (
        "",
        "ANTENNA",
        "FEED",
        "FIELD",
        "SPECTRAL_WINDOW",
        "POLARIZATION",
        "DATA_DESCRIPTION",
        "OBSERVATION",
        "STATE",
    ):
        with (
            ct.table(str(tmp_path / "a.ms" / folder), ack=False) as before,
            ct.table(str(back / folder), ack=False) as after,
        ):
            assert after.nrows() == before.nrows() > 0, folder


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    """In other processes, whose fresh memory the C library fills with a pattern."""
    digests = set()
    for number, pattern in enumerate(("0", "85", "170")):
        path = tmp_path / str(number) / "a.ms"
        path.parent.mkdir()
        script = SCRIPT.format(folder=str(Path(__file__).parent))
        subprocess.run(
            [sys.executable, "-c", script, path],
            env={**os.environ, "MALLOC_PERTURB_": pattern},
            check=True,
        )
        sink = io.BytesIO()
        pack(path, sink)
        digests.add(hashlib.sha256(sink.getvalue()).hexdigest())
    assert len(digests) == 1


def test_channels_must_ascend(tmp_path: Path) -> None:
    down = header(frequencies_hz=header().frequencies_hz[::-1])
    with (
        pytest.raises(BadInputError, match="do not ascend"),
        create(tmp_path / "a.ms", down, rows()),
    ):
        pass


def test_other_folder_is_not_a_measurement_set(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="a Measurement Set"):
        MeasurementSet(tmp_path)


def test_several_fields_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.ms")
    with ct.table(f"{tmp_path}/a.ms::FIELD", readonly=False, ack=False) as field:
        field.addrows(1)
    with (
        MeasurementSet(tmp_path / "a.ms") as ms,
        pytest.raises(BadInputError, match="2 fields, not one of each"),
    ):
        _ = ms.header
