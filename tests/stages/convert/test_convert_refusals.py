"""Input that convert must refuse: the message names the file and the remedy, nothing is left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from contimg.runtime.errors import (
    BadFileError,
    BadInputError,
    ContimgError,
    InconsistentGroupError,
    MissingError,
    NoSignalError,
    WrongTelescopeError,
)

SPOILT = 7
"""The subband that most tests spoil."""
ALL = range(16)
Spoil = Callable[[Path], None]


@pytest.fixture
def store(group: Path, tmp_path: Path) -> Path:
    """Copy the good group, so that it can be spoilt."""
    shutil.copytree(group.parent.parent, tmp_path / "store")
    return tmp_path / "store"


def file_of(store: Path, index: int = SPOILT) -> Path:
    (path,) = (store / "incoming").rglob(f"*_sb{index:02d}.hdf5")
    return path


def record_of(store: Path) -> Path:
    (path,) = (store / "groups").glob("*.json")
    return path


def edit_record(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(store: Path) -> None:
        record = json.loads(record_of(store).read_text())
        change(record)
        record_of(store).write_text(json.dumps(record))

    return spoil


def resize(store: Path) -> None:
    """Make the record agree with the sizes, as watch would have listed them."""

    def change(record: dict[str, Any]) -> None:
        for subband in record["subbands"]:
            subband["size"] = (store / subband["uri"]).stat().st_size

    edit_record(change)(store)


def edit(change: Callable[[h5py.File], Any], *indices: int) -> Spoil:
    """Return what changes some files in place."""

    def spoil(store: Path) -> None:
        for index in indices or (SPOILT,):
            with h5py.File(file_of(store, index), "r+") as file:
                change(file)
        resize(store)

    return spoil


def replace(name: str, value: Any, *indices: int) -> Spoil:
    """Return what replaces a dataset; `value` may be a function of the old content."""

    def change(file: h5py.File) -> None:
        new = value(file[name][()]) if callable(value) else value
        del file[name]
        file[name] = new

    return edit(change, *indices)


def rewrite(change: Callable[[bytes], bytes], *, listed: bool = True) -> Spoil:
    def spoil(store: Path) -> None:
        file_of(store).write_bytes(change(file_of(store).read_bytes()))
        if listed:
            resize(store)

    return spoil


def put(name: str, where: Any, value: Any, *indices: int) -> Spoil:
    return edit(lambda file: file[name].__setitem__(where, value), *indices)


def add(name: str, where: Any, value: float, *indices: int) -> Spoil:
    return edit(lambda file: file[name].__setitem__(where, file[name][where] + value), *indices)


def noise_with_zeros(file: h5py.File) -> None:
    shape = file["Data/visdata"].shape
    draw = np.random.default_rng(int(file["Header/freq_array"][0, 0]))
    noise = draw.normal(size=shape) + 1j * draw.normal(size=shape)
    file["Data/visdata"][:] = noise * (draw.random(shape) > 0.3)


def empty_hdf5(store: Path) -> None:
    with h5py.File(file_of(store), "w") as file:
        file["other"] = 1
    resize(store)


EVERYTHING = np.s_[:]
KEYWORDS, TIMES, FREQUENCIES = (
    f"Header/{name}" for name in ("extra_keywords", "time_array", "freq_array")
)
REFUSED: dict[type[ContimgError], dict[str, tuple[Spoil, str]]] = {
    BadFileError: {
        "truncated": (
            rewrite(lambda data: data[: len(data) * 9 // 10]),
            r"The file of \d+ bytes is truncated .*Copy",
        ),
        "empty": (rewrite(lambda _: b""), "The file is empty"),
        "wrong size": (
            rewrite(lambda data: data + b"more", listed=False),
            r"The file has \d+ bytes, but the group's record says \d+ bytes.*watch",
        ),
        "no HDF5": (
            rewrite(lambda _: b"SIMPLE  =                    T" * 1000),
            "The file of 30000 bytes is not an HDF5 file",
        ),
        "no header": (empty_hdf5, "The file is not a UVH5 file .*Header"),
        "short data": (
            replace("Data/flags", lambda flags: flags[:-1]),
            r"shape \(274, 6, 2\), but its header says \(275, 6, 2\)",
        ),
        "phased": (
            replace("Header/phase_type", np.bytes_(b"phased")),
            "The data are phased .*expected drift",
        ),
        "no phase type": (
            edit(lambda file: file.__delitem__("Header/phase_type")),
            "The header has neither phase_type nor readable phase centres",
        ),
        "no pointing": (
            edit(lambda file: file.__delitem__(f"{KEYWORDS}/phase_center_dec")),
            "The header does not say where the fringes were stopped",
        ),
        "Stokes": (
            put("Header/polarization_array", EVERYTHING, [1, 2]),
            r"The polarizations are \(1, 2\)",
        ),
        "shuffled rows": (
            replace(TIMES, lambda times: times[::-1]),
            "The 275 rows are not integrations in order of time",
        ),
        "unknown antenna": (
            put("Header/antenna_numbers", 2, 500),
            r"Every antenna needs a number, a name and a position; antennas \[2\]",
        ),
    },
    WrongTelescopeError: {
        "other telescope": (
            replace("Header/telescope_name", np.bytes_(b"HERA")),
            "The file is from telescope HERA, instrument DSA, not the DSA-110",
        ),
        "other instrument": (replace("Header/instrument", np.bytes_(b"LWA352")), "LWA352"),
    },
    InconsistentGroupError: {
        "mixed Dec": (
            replace(f"{KEYWORDS}/phase_center_dec", np.radians(33.002)),
            r"The pointing .*33\.0020 deg\) differs from .*_sb00\.hdf5 .*33\.0000 deg",
        ),
        "mixed times": (
            add(TIMES, EVERYTHING, 12.88 / 86400),
            r"The time axis .* differs from that of .*_sb00\.hdf5",
        ),
        "other antennas": (
            add("Header/antenna_positions", 0, 1.0),
            r"The set of antennas and baselines .* differs from that of .*_sb00\.hdf5",
        ),
        "ascending": (
            replace(FREQUENCIES, lambda frequencies: frequencies[:, ::-1]),
            "The channels step by .* they must descend by 1953125 Hz",
        ),
        "gap": (
            add(FREQUENCIES, EVERYTHING, -1e6),
            r"Subband 7 begins at 1414\.757445 MHz.*at 1415\.757445 MHz",
        ),
        "duplicate content": (
            lambda store: shutil.copy(file_of(store, SPOILT - 1), file_of(store)) and None,
            "Subband 7 begins at",
        ),
        "duplicate index": (
            edit_record(lambda record: record["subbands"].append(record["subbands"][SPOILT])),
            "The group has subband 7 twice",
        ),
        "no subband": (
            edit_record(lambda record: record.update(subbands=[], missing=list(range(16)))),
            "The group has no subbands",
        ),
        "other id": (
            edit_record(lambda record: record.update(id="20260125t222700")),
            r"The first integration is at 20260125t22\d+, .* says 20260125t222700",
        ),
        "mirrored uvw": (
            replace("Header/uvw_array", np.negative, 0),
            r"uvw_array is off by up to [\d.]+ m from the antenna positions",
        ),
    },
    BadInputError: {"no record": (edit_record(lambda record: record.clear()), "group record")},
    MissingError: {"lost": (lambda store: file_of(store).unlink(), "The subband does not exist")},
    NoSignalError: {
        "impossible nsamples": (
            put("Data/nsamples", EVERYTHING, -1.2e12),
            r"nsamples must be 0 to .*found -1\.2e\+12",
        ),
        **{
            f"nsamples {value:g}": (
                put("Data/nsamples", (40, 0, 2, 1), value),
                re.escape(f"nsamples must be 0 to 1e+09; found {value:g} (1 such"),
            )
            for value in (-1e-3, np.nan, np.inf, 1.1e9)
        },
        "undefined": (
            put("Data/visdata", EVERYTHING, np.nan, *range(5)),
            r"31\.2% of the visibilities are not finite",
        ),
        "zeros": (put("Data/visdata", EVERYTHING, 0, *ALL), r"100\.0% of .* zeros"),
        "zeros and noise": (
            edit(noise_with_zeros, *ALL),
            r"(29|30)\.\d% of .* zeros .* no fringes: the coherence",
        ),
    },
}
GROUP = "20260125t222624-a1"
WHERE = {
    **dict.fromkeys(("no subband", "no record", "undefined", "zeros", "zeros and noise"), GROUP),
    **dict.fromkeys(("other id", "mirrored uvw"), "_sb00.hdf5"),
}
"""What the message names if it is not the spoilt subband."""
CASES = [(error, name, *case) for error, cases in REFUSED.items() for name, case in cases.items()]


@pytest.mark.parametrize(
    ("error", "name", "spoil", "message"), CASES, ids=[name for _, name, *_ in CASES]
)
def test_bad_input_is_refused_with_reason(
    store: Path,
    run_convert: Callable[..., Any],
    error: type[ContimgError],
    name: str,
    spoil: Spoil,
    message: str,
) -> None:
    spoil(store)
    with pytest.raises(error, match=message) as caught:
        run_convert(record_of(store))
    where, _, remedy = caught.value.args
    assert WHERE.get(name, f"_sb{SPOILT:02d}.hdf5") in where
    assert remedy
    assert not list(store.parent.rglob("ms.tar"))


def test_zeros_beside_fringes_are_accepted(store: Path, run_convert: Callable[..., Any]) -> None:
    def spoil(file: h5py.File) -> None:
        shape = file["Data/visdata"].shape
        file["Data/visdata"][:] *= np.random.default_rng(1).random(shape) > 0.3

    edit(spoil, *ALL)(store)
    made = run_convert(record_of(store))
    assert made.outcome.metrics["zeros_fraction"] == pytest.approx(0.3, abs=0.01)
    assert made.outcome.qa.verdict == "warning"


def test_executable_exits_with_code_of_error(store: Path, tmp_path: Path) -> None:
    REFUSED[BadFileError]["truncated"][0](store)
    words = ["--group", str(record_of(store)), "--out", str(tmp_path / "out")]
    argv = [sys.executable, "-m", "contimg_convert", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == BadFileError.exit
    assert "truncated" in done.stderr
    assert not list((tmp_path / "out").rglob("manifest.json"))
