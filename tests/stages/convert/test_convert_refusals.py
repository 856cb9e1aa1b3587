"""Groups whose files were edited: values go where they belong, and bad input is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.time import Time

from contimg.records.schemas.ms import MS
from contimg.runtime import errors
from contimg.runtime.errors import ContimgError
from relist import relist

SPOILT, BAD = 7, "_sb07.hdf5"
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


def edit(change: Callable[[h5py.File], Any], *indices: int) -> Spoil:
    """Return what changes some files in place."""

    def spoil(store: Path) -> None:
        for index in indices or (SPOILT,):
            with h5py.File(file_of(store, index), "r+") as file:
                change(file)
        relist(record_of(store))

    return spoil


def replace(name: str, value: Any, *indices: int) -> Spoil:
    """Return what replaces a dataset; `value` may be a function of the old content."""

    def change(file: h5py.File) -> None:
        new = value(file[name][()]) if callable(value) else value
        del file[name]
        file[name] = new

    return edit(change, *indices)


def delete(name: str) -> Spoil:
    return edit(lambda file: file.__delitem__(name))


def rewrite(change: Callable[[bytes], bytes], *, listed: bool = True) -> Spoil:
    def spoil(store: Path) -> None:
        file_of(store).write_bytes(change(file_of(store).read_bytes()))
        if listed:
            relist(record_of(store))

    return spoil


def put(name: str, where: Any, value: Any, *indices: int) -> Spoil:
    return edit(lambda file: file[name].__setitem__(where, value), *indices)


def noise_with_zeros(file: h5py.File) -> None:
    shape = file["Data/visdata"].shape
    draw = np.random.default_rng(int(file["Header/freq_array"][0, 0]))
    noise = draw.normal(size=shape) + 1j * draw.normal(size=shape)
    file["Data/visdata"][:] = noise * (draw.random(shape) > 0.3)


def unknown_filter(store: Path) -> None:
    """Write compressed data, and change the number of their filter to that of bitshuffle."""
    with h5py.File(file_of(store), "r+") as file:
        values = file["Data/visdata"][()]
        del file["Data/visdata"]
        file["Data"].create_dataset("visdata", data=values, chunks=True, compression="gzip")
    data = file_of(store).read_bytes()
    at = data.index(b"deflate\0")
    file_of(store).write_bytes(data[: at - 8] + (32008).to_bytes(2, "little") + data[at - 6 :])
    relist(record_of(store))


def empty_hdf5(store: Path) -> None:
    with h5py.File(file_of(store), "w") as file:
        file["other"] = 1
    relist(record_of(store))


def sidereal_times(late_s: float) -> Spoil:
    """Return what writes lst_array, by astropy, for times that are later than those in the file."""

    def change(file: h5py.File) -> None:
        times = Time(file["Header/time_array"][()] + late_s / 86400, format="jd")
        longitude = float(file["Header/longitude"][()])
        file["Header/lst_array"] = times.sidereal_time("apparent", f"{longitude}d").rad

    return edit(change)


def repeat_baseline(store: Path) -> None:
    """Give the second baseline the antennas of the third, the other way round."""

    def change(file: h5py.File) -> None:
        one, two = (file[f"Header/ant_{n}_array"][()] for n in (1, 2))
        count = one.size // np.unique(file["Header/time_array"]).size
        old = one.copy()
        one[1::count], two[1::count] = two[2::count], old[2::count]
        file["Header/ant_1_array"][:], file["Header/ant_2_array"][:] = one, two

    edit(change)(store)


def copy_previous(store: Path) -> None:
    shutil.copy(file_of(store, SPOILT - 1), file_of(store))
    relist(record_of(store))


EVERYTHING = np.s_[:]
TIMES, FREQUENCIES, UVW = (f"Header/{name}_array" for name in ("time", "freq", "uvw"))
ANTENNAS, POINTING = "Header/antenna_", "Header/extra_keywords/phase_center_dec"
TRUNCATED = rewrite(lambda data: data[: len(data) * 9 // 10])
GROUP, FIRST = "20260125t222624-a1", "_sb00.hdf5"
REFUSED: dict[tuple[type[ContimgError], str], dict[str, Spoil]] = {
    (errors.BadFileError, BAD): {
        r"The file of \d+ bytes is truncated .*Copy": TRUNCATED,
        "The file is empty": rewrite(lambda _: b""),
        r"The file has \d+ bytes, but the group's record says \d+ bytes.*watch": rewrite(
            lambda data: data + b"more", listed=False
        ),
        "The file was replaced after the group's record was written.*watch": lambda store: os.utime(
            file_of(store), (1e9, 1e9)
        ),
        "The file of 30000 bytes is not an HDF5 file": rewrite(
            lambda _: b"SIMPLE  =                    T" * 1000
        ),
        "The file is not a UVH5 file .*Header": empty_hdf5,
        r"compressed with deflate \(32008\), which is not installed.*plugin": unknown_filter,
        r"shape \(274, 6, 2\), but its header says \(275, 6, 2\)": replace(
            "Data/flags", lambda flags: flags[:-1]
        ),
        "The data are phased .*expected drift": replace("Header/phase_type", np.bytes_("phased")),
        "The header has neither phase_type nor readable phase centres": delete("Header/phase_type"),
        "The header does not say where the fringes were stopped": delete(POINTING),
        r"The polarizations are \(1, 2\)": put("Header/polarization_array", EVERYTHING, [1, 2]),
        r"phase_center_app_dec is 33\.7000 deg": edit(
            lambda file: file["Header"].create_dataset(
                "phase_center_app_dec", data=np.full(275, np.radians(33.7))
            )
        ),
        "The integrations last 12.8849 to 25.7698 s": put(
            "Header/integration_time", np.s_[100:], 25.769804
        ),
        r"The integrations of 6\.000 s follow each other after": put(
            "Header/integration_time", EVERYTHING, 6.0
        ),
        r"The integrations of .* follow each other after .* to 15\.": replace(
            TIMES, lambda jd: jd + 3.5e-5 * (jd > np.median(jd))
        ),
        "The 275 rows are not integrations in order of time": replace(TIMES, np.flip),
        r"Every antenna needs a number of its own, a name and a position; antennas \[2\]": put(
            f"{ANTENNAS}numbers", 2, 500
        ),
        "timesys is 'TAI'; contimg reads 'utc'": edit(
            lambda file: file["Header"].__setitem__("timesys", np.bytes_("TAI"))
        ),
        "vis_units is 'K str'": edit(
            lambda file: file["Header"].__setitem__("vis_units", np.bytes_("K str"))
        ),
        "several spectral windows": replace("Header/Nspws", 2),
        r"lst_array is \+6\.[45] s from the times": sidereal_times(6.442),
        "1 baselines of an integration are there twice": repeat_baseline,
    },
    (errors.WrongTelescopeError, BAD): {
        "The file is from telescope HERA, instrument DSA, not the DSA-110": replace(
            "Header/telescope_name", np.bytes_("HERA")
        ),
        "LWA352": replace("Header/instrument", np.bytes_("LWA352")),
    },
    (errors.InconsistentGroupError, BAD): {
        r"The pointing .*33\.0020 deg\) differs from .*_sb00\.hdf5 .*33\.0000 deg": replace(
            POINTING, np.radians(33.002)
        ),
        r"The time axis .* differs from that of .*_sb00\.hdf5": replace(
            TIMES, lambda jd: jd + 12.88 / 86400
        ),
        r"The set of antennas and baselines .* differs from that of .*_sb00\.hdf5": replace(
            f"{ANTENNAS}positions", lambda xyz: xyz + np.eye(len(xyz), 3)
        ),
        r"The set of antennas and baselines .* differs from that .*_sb00\.hdf5": replace(
            f"{ANTENNAS}names", np.flip
        ),
        "The channels step by .* they must descend by 1953125 Hz": replace(FREQUENCIES, np.fliplr),
        r"Subband 7 begins at 1414\.757445 MHz.*at 1415\.757445 MHz": replace(
            FREQUENCIES, lambda hz: hz - 1e6
        ),
        "Subband 7 begins at": copy_previous,
        "The group has subband 7 twice": edit_record(
            lambda record: record["subbands"].append(record["subbands"][SPOILT])
        ),
    },
    (errors.InconsistentGroupError, GROUP): {
        "The group has no subbands": edit_record(
            lambda record: record.update(subbands=[], missing=list(ALL))
        )
    },
    (errors.InconsistentGroupError, FIRST): {
        r"The first integration is at 20260125t22\d+, .* says 20260125t222700": edit_record(
            lambda record: record.update(id="20260125t222700")
        ),
        r"uvw_array is off by up to [\d.]+ m from the antenna positions": replace(
            UVW, np.negative, 0
        ),
        r"uvw_array is off by up to \d\.\d+ m": replace(
            POINTING, lambda dec: dec + np.radians(0.05), *ALL
        ),
    },
    (errors.BadInputError, GROUP): {"group record": edit_record(lambda record: record.clear())},
    (errors.MissingError, BAD): {
        "The subband does not exist": lambda store: file_of(store).unlink()
    },
    (errors.NoSignalError, BAD): {
        r"nsamples must be 0 to .*100\.0% of them": put("Data/nsamples", EVERYTHING, -1.2e12),
    },
    (errors.NoSignalError, GROUP): {
        r"31\.2% of the visibilities are not finite": put(
            "Data/visdata", EVERYTHING, np.nan, *range(5)
        ),
        r"100\.0% of .* zeros": put("Data/visdata", EVERYTHING, 0, *ALL),
        r"(29|30)\.\d% of .* zeros .* no fringes: the coherence": edit(noise_with_zeros, *ALL),
    },
}
"""By error and what its message names: what the message says, and how to cause it."""
CASES = [(*key, *case) for key, cases in REFUSED.items() for case in cases.items()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}: {case[2]}")
def test_bad_input_is_refused(store: Path, run_convert: Any, case: tuple[Any, ...]) -> None:
    error, where, message, spoil = case
    spoil(store)
    with pytest.raises(error, match=message) as caught:
        run_convert(record_of(store))
    named, _, remedy = caught.value.args
    assert where in named
    assert remedy
    assert not list(store.parent.rglob("ms.tar"))


def test_right_sidereal_times_are_accepted(store: Path, run_convert: Any) -> None:
    sidereal_times(0.0)(store)
    assert run_convert(record_of(store))


def test_zeros_beside_fringes_are_accepted(store: Path, run_convert: Any) -> None:
    def spoil(file: h5py.File) -> None:
        shape = file["Data/visdata"].shape
        file["Data/visdata"][:] *= np.random.default_rng(1).random(shape) > 0.3

    edit(spoil, *ALL)(store)
    made = run_convert(record_of(store))
    assert made.outcome.metrics["zeros_fraction"] == pytest.approx(0.3, abs=0.01)
    assert made.outcome.qa.verdict == "warning"


def test_weights_are_mean_nsamples(store: Path, run_convert: Any) -> None:
    put("Data/nsamples", np.s_[:, :, :3, 0], 0.5, *ALL)(store)
    made = run_convert(record_of(store))
    weights = made.rows.weight
    np.testing.assert_allclose(weights, np.broadcast_to([0.75, 1.0], weights.shape), rtol=1e-6)
    np.testing.assert_allclose(made.read("SIGMA"), weights**-0.5, rtol=1e-6)


def test_flags_and_weights_follow_visibilities(store: Path, run_convert: Any) -> None:
    """Flagged samples are marked by zeros, and nsamples by the amplitude of their row."""

    def mark(file: h5py.File) -> None:
        shape = file["Data/visdata"].shape
        number = np.arange(1, 2 * shape[0] + 1, dtype=float).reshape(shape[0], 1, 1, 2)
        flags = np.random.default_rng(shape[2]).random(shape) > 0.9
        file["Data/nsamples"][:] = np.broadcast_to(number, shape)
        file["Data/flags"][:] = flags
        file["Data/visdata"][:] = np.where(flags, 0, number).astype(complex)

    edit(mark, *ALL)(store)
    made = run_convert(record_of(store))
    flags, amplitude = made.read("FLAG"), np.abs(made.read("DATA"))
    np.testing.assert_array_equal(flags, amplitude == 0)
    np.testing.assert_allclose(amplitude.max(axis=1), made.rows.weight, rtol=1e-6)
    assert 0.09 < flags.mean() < 0.11


@pytest.mark.parametrize("value", [0, -1e-3, np.nan, np.inf, 1.1e9, 1e-9])
def test_visibility_without_samples_is_flagged(store: Path, run_convert: Any, value: float) -> None:
    put("Data/nsamples", (7, 0, 2, 1), value, 3)(store)
    made = run_convert(record_of(store))
    (where,) = np.argwhere(made.read("FLAG"))
    assert tuple(where[1:]) == (15 * 6 + 5 - (3 * 6 + 2), 1)
    np.testing.assert_allclose(made.rows.weight, 1, rtol=1e-6)
    assert made.outcome.qa.verdict == "warning"


def test_subband_without_samples_is_flagged(store: Path, run_convert: Any, tmp_path: Path) -> None:
    put("Data/nsamples", EVERYTHING, 0, 3)(store)
    flags = run_convert(record_of(store), tables=f"{tmp_path}/tables").read("FLAG")
    assert flags[:, 72:78].all()
    assert flags.mean() == pytest.approx(1 / 16)
    (path,) = tmp_path.glob("tables/ms/date=*/*.parquet")
    (row,) = MS.read(path.read_bytes(), "ms").to_pylist()
    assert row["unsampled_fraction"] == pytest.approx(1 / 16, rel=0.05)  # of cross-correlations


def test_lost_integration_is_named(store: Path, run_convert: Any) -> None:
    replace(TIMES, lambda jd: jd + 12.884902 / 86400 * (jd > np.median(jd)), *ALL)(store)
    made = run_convert(record_of(store))
    assert made.outcome.metrics["lost_integrations"] == 1
    assert "1 integrations are missing" in made.outcome.qa.reasons[0]


def test_clock_off_its_names_is_named(store: Path, run_convert: Any) -> None:
    for path in list((store / "incoming").rglob("*.hdf5")):
        path.rename(path.with_name(path.name.replace("22:26:", "22:25:")))
    record = record_of(store)
    record.write_text(record.read_text().replace("T22:26:24_sb", "T22:25:24_sb"))
    made = run_convert(record)
    assert made.outcome.metrics["name_offset_s"] == pytest.approx(-60, abs=1)
    assert "clock: the names of the subbands are -60 s" in made.outcome.qa.reasons[0]


@pytest.mark.parametrize(("days", "verdict"), [(400, "good"), (300, "good"), (80, "warning")])
def test_end_of_earth_orientation_is_said_a_year_before(
    store: Path, run_convert: Any, monkeypatch: pytest.MonkeyPatch, days: float, verdict: str
) -> None:
    """The table cannot be shortened for a test, so its end is moved near the group."""
    last = h5py.File(next((store / "incoming").rglob("*.hdf5")))["Header/time_array"][-1]
    end = float(last) - 2400000.5 + days
    monkeypatch.setattr("contimg_convert.stage.earth_orientation_end", lambda: end)
    outcome = run_convert(record_of(store)).outcome
    assert outcome.metrics["earth_orientation_days"] == pytest.approx(days, abs=1e-3)
    assert outcome.qa.verdict == verdict
    said = [reason for reason in outcome.qa.reasons if reason.startswith("earth_orientation")]
    assert len(said) == (days < 365)
    assert all(f"{days} days after this group" in reason for reason in said)


def test_raw_flag_is_carried(store: Path, run_convert: Any) -> None:
    put("Data/flags", (7, 0, 2, 1), True, 3)(store)  # noqa: FBT003
    (where,) = np.argwhere(run_convert(record_of(store)).read("FLAG"))
    # Channel 2 of subband 3, from above; the row is one of the first integration.
    assert tuple(where[1:]) == (15 * 6 + 5 - (3 * 6 + 2), 1)
    assert where[0] < 55


def test_nonfinite_values_become_flagged_zeros(store: Path, run_convert: Any) -> None:
    put("Data/visdata", (9, 0, 4, 0), complex(np.nan, 0), 0)(store)
    put("Data/visdata", (9, 0, 5, 1), complex(0, np.inf), 0)(store)
    made = run_convert(record_of(store))
    flags, values = made.read("FLAG"), made.read("DATA")
    assert flags.sum() == 2
    assert np.isfinite(values).all()
    assert not values[flags].any()
    assert made.outcome.qa.verdict == "warning"


def test_executable_exits_with_code_of_error(store: Path, tmp_path: Path) -> None:
    TRUNCATED(store)
    words = ["--group", str(record_of(store)), "--out", str(tmp_path / "out")]
    argv = [sys.executable, "-m", "contimg_convert", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == errors.BadFileError.exit
    assert "truncated" in done.stderr
    assert not list((tmp_path / "out").rglob("manifest.json"))
