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
    positions = np.random.default_rng(1).normal(size=(12, 3)) * 1000
    antennas = Antennas(tuple(f"{n + 1}" for n in range(12)), positions, np.full(12, 4.65))
    freq = 1.311e9 + 244140.625 * np.arange(CHANNELS)
    made = MSHeader("DSA_110", "20260125t222605", 5.99, 0.574, freq, 244140.625, antennas)
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
    data, small = visibilities(len(correlations)), rows(len(correlations))
    whole = dict.fromkeys(columns, 2 * data) | {"DATA": data, "FLAG": data.real > 1}
    if "WEIGHT_SPECTRUM" in columns:
        whole["WEIGHT_SPECTRUM"] = np.abs(data)
    head = header(correlations=correlations)
    with create(path, head, small, ("DATA", *columns)) as writer:
        for first in range(0, N, 100):
            writer.put(first, {name: values[first : first + 100] for name, values in whole.items()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "a.ms")
    return tmp_path / "a.ms"


def test_written_content_round_trip(path: Path) -> None:
    with MeasurementSet(path) as ms:
        for name, value in vars(header()).items():
            if name != "antennas":
                np.testing.assert_array_equal(getattr(ms.header, name), value, err_msg=name)
        for name, value in vars(header().antennas).items():
            np.testing.assert_array_equal(getattr(ms.header.antennas, name), value, err_msg=name)
        for name, value in vars(rows()).items():
            np.testing.assert_array_equal(getattr(ms.rows, name), value, err_msg=name)
        np.testing.assert_array_equal(ms.read("DATA"), visibilities())
        np.testing.assert_array_equal(ms.read("FLAG", 250, 100), visibilities()[250:350].real > 1)
        assert len(ms) == N
        parts = [np.arange(N)[part] for part in ms.blocks(100)]
    assert np.concatenate(parts).tolist() == list(range(N))
    assert max(map(len, parts)) == 100


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


def test_phase_centre_is_icrs(path: Path) -> None:
    with ct.table(f"{path}::FIELD", ack=False) as field:
        for name in ("PHASE_DIR", "REFERENCE_DIR", "DELAY_DIR"):
            np.testing.assert_allclose(field.getcol(name), [[[5.99, 0.574]]])
            assert field.getcolkeyword(name, "MEASINFO")["Ref"] == "ICRS"
    with ct.table(f"{path}::SPECTRAL_WINDOW", ack=False) as window:
        assert window.getcol("NUM_CHAN").tolist() == [CHANNELS]
    with ct.table(str(path), ack=False) as main:
        assert main.getcolkeyword("TIME", "MEASINFO")["Ref"] == "UTC"
        assert main.getcolkeyword("UVW", "QuantumUnits") == ["m", "m", "m"]


def packed(path: Path) -> io.BytesIO:
    sink = io.BytesIO()
    pack(path, sink)
    sink.seek(0)
    return sink


def test_nothing_is_lost_without_lock_files(path: Path, tmp_path: Path) -> None:
    """casacore counts rows that are added later only in table.lock, which a tar leaves out."""
    back = unpack(packed(path), tmp_path / "b")
    assert not list(back.rglob("table.lock"))
    names = "ANTENNA FEED FIELD SPECTRAL_WINDOW POLARIZATION DATA_DESCRIPTION OBSERVATION STATE"
    for folder in ("", *names.split()):
        before, after = (ct.table(str(top / folder), ack=False) for top in (path, back))
        with before, after:
            assert after.nrows() == before.nrows() > 0, folder


def test_same_rows_make_same_bytes(tmp_path: Path) -> None:
    """In other processes, whose fresh memory the C library fills with a pattern."""
    digests, script = set(), SCRIPT.format(folder=str(Path(__file__).parent))
    for number, pattern in enumerate(("0", "85", "170")):
        path = tmp_path / str(number) / "a.ms"
        path.parent.mkdir()
        env = {**os.environ, "MALLOC_PERTURB_": pattern}
        subprocess.run([sys.executable, "-c", script, path], env=env, check=True)
        digests.add(hashlib.sha256(packed(path).getvalue()).hexdigest())
    assert len(digests) == 1


def test_unfit_sets_are_refused(path: Path, tmp_path: Path) -> None:
    down = create(tmp_path / "b.ms", header(frequencies_hz=header().frequencies_hz[::-1]), rows())
    with pytest.raises(BadInputError, match="do not ascend"), down:
        pass
    with pytest.raises(BadInputError, match="a Measurement Set"):
        MeasurementSet(tmp_path)
    with ct.table(f"{path}::FIELD", readonly=False, ack=False) as field:
        field.addrows(1)
    message = "2 fields, not one of each"
    with MeasurementSet(path) as ms, pytest.raises(BadInputError, match=message):
        _ = ms.header
