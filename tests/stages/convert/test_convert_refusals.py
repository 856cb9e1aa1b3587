"""What convert must not take: each with the file, what was expected, what was found and what to do, and nothing left behind."""

from __future__ import annotations

import json
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


@pytest.fixture
def store(group: Path, tmp_path: Path) -> Path:
    """Copy the good group to where it may be spoilt."""
    shutil.copytree(group.parent.parent, tmp_path / "store")
    return tmp_path / "store"


def file_of(store: Path, index: int = SPOILT) -> Path:
    (path,) = (store / "incoming").rglob(f"*_sb{index:02d}.hdf5")
    return path


def record_of(store: Path) -> Path:
    (path,) = (store / "groups").glob("*.json")
    return path


def resize(store: Path) -> None:
    """Make the record agree with the sizes, as watch would have listed them."""
    record = json.loads(record_of(store).read_text())
    for subband in record["subbands"]:
        subband["size"] = (store / subband["uri"]).stat().st_size
    record_of(store).write_text(json.dumps(record))


def edit(store: Path, change: Callable[[h5py.File], None], *indices: int) -> None:
    for index in indices or (SPOILT,):
        with h5py.File(file_of(store, index), "r+") as file:
            change(file)
    resize(store)


def replace(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = value


def truncate(store: Path) -> None:
    data = file_of(store).read_bytes()
    file_of(store).write_bytes(data[: len(data) * 9 // 10])
    resize(store)


def empty(store: Path) -> None:
    file_of(store).write_bytes(b"")
    resize(store)


def wrong_size(store: Path) -> None:
    with file_of(store).open("ab") as stream:
        stream.write(b"more")


def not_hdf5(store: Path) -> None:
    file_of(store).write_bytes(b"SIMPLE  =                    T" * 1000)
    resize(store)


def no_header(store: Path) -> None:
    with h5py.File(file_of(store), "w") as file:
        file["other"] = 1
    resize(store)


def short_data(store: Path) -> None:
    def cut(file: h5py.File) -> None:
        replace(file, "Data/flags", file["Data/flags"][:-1])

    edit(store, cut)


def other_telescope(store: Path) -> None:
    edit(store, lambda file: replace(file, "Header/telescope_name", np.bytes_(b"HERA")))


def other_instrument(store: Path) -> None:
    edit(store, lambda file: replace(file, "Header/instrument", np.bytes_(b"LWA352")))


def already_phased(store: Path) -> None:
    edit(store, lambda file: replace(file, "Header/phase_type", np.bytes_(b"phased")))


def stokes(store: Path) -> None:
    edit(store, lambda file: replace(file, "Header/polarization_array", np.array([1, 2])))


def mixed_dec(store: Path) -> None:
    edit(
        store,
        lambda file: replace(file, "Header/extra_keywords/phase_center_dec", np.radians(33.002)),
    )


def mixed_times(store: Path) -> None:
    def later(file: h5py.File) -> None:
        file["Header/time_array"][:] += 12.88 / 86400

    edit(store, later)


def shuffled_rows(store: Path) -> None:
    def shuffle(file: h5py.File) -> None:
        file["Header/time_array"][:] = file["Header/time_array"][:][::-1]

    edit(store, shuffle)


def other_antennas(store: Path) -> None:
    def move(file: h5py.File) -> None:
        file["Header/antenna_positions"][0] += 1.0

    edit(store, move)


def unknown_antenna(store: Path) -> None:
    def rename(file: h5py.File) -> None:
        file["Header/antenna_numbers"][2] = 500

    edit(store, rename)


def ascending(store: Path) -> None:
    edit(
        store,
        lambda file: replace(file, "Header/freq_array", file["Header/freq_array"][()][:, ::-1]),
    )


def gap(store: Path) -> None:
    def shift(file: h5py.File) -> None:
        file["Header/freq_array"][:] -= 1e6

    edit(store, shift)


def duplicate_content(store: Path) -> None:
    shutil.copy(file_of(store, SPOILT - 1), file_of(store))


def duplicate_index(store: Path) -> None:
    record = json.loads(record_of(store).read_text())
    record["subbands"].append(record["subbands"][SPOILT])
    record_of(store).write_text(json.dumps(record))


def no_subband(store: Path) -> None:
    record = json.loads(record_of(store).read_text())
    record_of(store).write_text(json.dumps({**record, "subbands": [], "missing": list(range(16))}))


def other_id(store: Path) -> None:
    record = json.loads(record_of(store).read_text())
    record_of(store).write_text(json.dumps({**record, "id": "20260125t222700"}))


def no_record(store: Path) -> None:
    record_of(store).write_text("{}")


def lost(store: Path) -> None:
    file_of(store).unlink()


def mirrored_uvw(store: Path) -> None:
    def mirror(file: h5py.File) -> None:
        file["Header/uvw_array"][:] *= -1

    edit(store, mirror, 0)


def absurd_samples(store: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["Data/nsamples"][:] = -1.2e12

    edit(store, spoil)


def undefined_samples(store: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["Data/nsamples"][40, 0, 2, 1] = np.nan

    edit(store, spoil)


def undefined(store: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["Data/visdata"][:] = np.nan

    edit(store, spoil, *range(5))


def zeros(store: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["Data/visdata"][:] = 0

    edit(store, spoil, *range(16))


def zeros_and_noise(store: Path) -> None:
    def spoil(file: h5py.File) -> None:
        shape = file["Data/visdata"].shape
        draw = np.random.default_rng(int(file["Header/freq_array"][0, 0]))
        noise = draw.normal(size=shape) + 1j * draw.normal(size=shape)
        file["Data/visdata"][:] = noise * (draw.random(shape) > 0.3)

    edit(store, spoil, *range(16))


REFUSED: list[tuple[Callable[[Path], None], type[ContimgError], str]] = [
    (
        truncate,
        BadFileError,
        r"_sb07\.hdf5: expected a whole UVH5 file, found a truncated file of \d+ bytes .*Copy",
    ),
    (empty, BadFileError, r"_sb07\.hdf5: .*an empty file"),
    (
        wrong_size,
        BadFileError,
        r"_sb07\.hdf5: expected \d+ bytes, as the group's record says, found \d+ bytes.*watch",
    ),
    (not_hdf5, BadFileError, r"_sb07\.hdf5: .*no HDF5 file"),
    (no_header, BadFileError, r"_sb07\.hdf5: expected a UVH5 file"),
    (
        short_data,
        BadFileError,
        r"_sb07\.hdf5: expected arrays of shape \(275, 6, 2\).*\(274, 6, 2\)",
    ),
    (
        other_telescope,
        WrongTelescopeError,
        r"_sb07\.hdf5: expected telescope OVRO_MMA, instrument DSA, found HERA, DSA",
    ),
    (other_instrument, WrongTelescopeError, r"_sb07\.hdf5: .*LWA352"),
    (already_phased, BadFileError, r"_sb07\.hdf5: expected phase_type drift.*found phased"),
    (stokes, BadFileError, r"_sb07\.hdf5: expected polarizations.*found \(1, 2\)"),
    (
        mixed_dec,
        InconsistentGroupError,
        r"_sb07\.hdf5: expected the pointing of .*_sb00\.hdf5 .*33\.0000.*found .*33\.0020",
    ),
    (mixed_times, InconsistentGroupError, r"_sb07\.hdf5: expected the time axis of .*_sb00\.hdf5"),
    (shuffled_rows, BadFileError, r"_sb07\.hdf5: expected integrations in order of time"),
    (
        other_antennas,
        InconsistentGroupError,
        r"_sb07\.hdf5: expected antennas and baselines of .*_sb00\.hdf5",
    ),
    (
        unknown_antenna,
        BadFileError,
        r"_sb07\.hdf5: expected number, name and position of every antenna, found antennas \[2\]",
    ),
    (
        ascending,
        InconsistentGroupError,
        r"_sb07\.hdf5: expected channels that descend by 1953125 Hz",
    ),
    (
        gap,
        InconsistentGroupError,
        r"_sb07\.hdf5: expected subband 7 to begin at 1415\.757445 MHz.*found 1414\.757445 MHz",
    ),
    (duplicate_content, InconsistentGroupError, r"_sb07\.hdf5: expected subband 7 to begin at"),
    (duplicate_index, InconsistentGroupError, r"_sb07\.hdf5: expected one subband 7"),
    (no_subband, InconsistentGroupError, r"expected subbands, found none"),
    (
        other_id,
        InconsistentGroupError,
        r"_sb00\.hdf5: expected a first integration at 20260125t222700",
    ),
    (no_record, BadInputError, r"groups/.*: expected a group record"),
    (lost, MissingError, r"_sb07\.hdf5: expected a subband, found none"),
    (
        mirrored_uvw,
        InconsistentGroupError,
        r"_sb00\.hdf5: expected uvw_array that follows from the antenna positions",
    ),
    (absurd_samples, NoSignalError, r"_sb07\.hdf5: expected nsamples from 0 to .*found -1\.2e\+12"),
    (undefined_samples, NoSignalError, r"_sb07\.hdf5: .*found nan"),
    (undefined, NoSignalError, r"20260125t222624-a1: .*not finite, found 31\.2%"),
    (zeros, NoSignalError, r"20260125t222624-a1: .*100\.0% zeros"),
    (zeros_and_noise, NoSignalError, r"20260125t222624-a1: .*(29|30)\.\d% zeros and a coherence"),
]


@pytest.mark.parametrize(
    ("spoil", "error", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", "")
)
def test_it_is_refused_with_a_reason(
    store: Path,
    run_convert: Callable[..., Any],
    spoil: Callable[[Path], None],
    error: type[ContimgError],
    message: str,
) -> None:
    spoil(store)
    with pytest.raises(error, match=message) as caught:
        run_convert(record_of(store))
    assert caught.value.args[2], "a remedy"
    assert not list(store.parent.rglob("ms.tar"))


def test_zeros_beside_fringes_are_no_reason(store: Path, run_convert: Callable[..., Any]) -> None:
    def spoil(file: h5py.File) -> None:
        shape = file["Data/visdata"].shape
        file["Data/visdata"][:] *= np.random.default_rng(1).random(shape) > 0.3

    edit(store, spoil, *range(16))
    made = run_convert(record_of(store))
    assert made.outcome.metrics["zeros_fraction"] == pytest.approx(0.3, abs=0.01)
    assert made.outcome.qa.verdict == "warning"


def test_the_executable_says_it_with_its_exit_code(store: Path, tmp_path: Path) -> None:
    truncate(store)
    argv = [
        sys.executable,
        "-m",
        "contimg_convert",
        "--group",
        str(record_of(store)),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == BadFileError.exit
    assert "truncated" in done.stderr
    assert not list((tmp_path / "out").rglob("manifest.json"))
