"""Selecting a set: phases are fitted to the field, and a set that does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.predict import PointSources, power_law
from contimg.astro.telescope import SITE
from contimg.runtime.errors import BadInputError, NoCalibrationError
from contimg_calibrate.sky_models import find_field_sources, merge_sources
from contimg_calibrate.solver import rank_references, split_intervals
from observed import FREQ_HZ, USED, SyntheticGroup, calibrate, load_factors, read_record

LATER_MJD = 61065.0922
"""An hour after 3C48's transit: 70 NVSS sources of 10 mJy and more in the beam, 5 Jy together."""
SIDEREAL_DAY = 0.99726957


def make_field(**changes: Any) -> SyntheticGroup:
    """Return a group on a field without a calibrator, with the sky of NVSS."""
    defaults = {"mjd": LATER_MJD, "name": "20260125t021221", "noise_jy": 0.3, "drift_deg": 5.0}
    made = SyntheticGroup(**{**defaults, **changes})
    first, last, dec_deg = made.mjds[0], made.mjds[-1], made.dec_deg
    return replace(made, sources=find_field_sources(first, last, dec_deg, SITE, FREQ_HZ))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a set that was solved on 3C48."""
    root = tmp_path_factory.mktemp("store")
    ms = SyntheticGroup(noise_jy=0.3).write(root)
    assert run(root, ms, model_source="calibrator")["metrics"]["solved"]
    return root


def run(store: Path, ms: str, /, **options: Any) -> dict[str, Any]:
    return calibrate(store, **{"ms": ms, "store": str(store), **options})


def phase_errors_deg(
    summary: dict[str, Any], group: SyntheticGroup, scratch: Path
) -> npt.NDArray[np.float64]:
    """Return the errors of the phases less one phase of all antennas.

    The shape is (times, stations, channels, polarizations).
    """
    factors = load_factors(summary["artifact"], scratch, group.mjds)
    ratio = factors.product()[:, USED] / group.truth[:, USED]
    common = np.angle(np.sum(ratio / np.abs(ratio), axis=1, keepdims=True))
    return np.degrees(np.angle(ratio * np.exp(-1j * common)))


def test_selected_set_gets_phases_of_the_field(store: Path, tmp_path: Path) -> None:
    group = make_field()
    ms = group.write(tmp_path)
    fitted, plain = run(store, ms, phase_solint_s=1e3), run(store, ms, field_phase="never")
    # Drawn with 5 deg an antenna. What stays is noise (as the stage itself estimates it, without
    # the allowance for faint sources, which these data lack), and the walk of 0.5 deg a step.
    before = np.std(phase_errors_deg(plain, group, tmp_path / "plain"))
    assert before == pytest.approx(5.0, rel=0.4)
    assert np.std(phase_errors_deg(fitted, group, tmp_path / "fitted")) < 1.5
    record = read_record(fitted)
    assert record.field_phase.done
    assert "NVSS sources suffice" in record.field_phase.reason
    assert record.field_phase.sources > 30
    assert record.field_phase.scale == pytest.approx(1.0, abs=0.02)
    assert [table.role for table in record.tables] == ["bandpass", "phase", "gain", "field"]
    assert "Not asked for" in read_record(plain).field_phase.reason


def test_uncatalogued_sources_do_not_shift_the_field(store: Path, tmp_path: Path) -> None:
    """A hundred sources of 20 to 50 mJy that the NVSS list lacks: 3.5 Jy, as in the true sky."""
    rng = np.random.default_rng(7)
    group = make_field(noise_jy=0.1)
    ra, dec = group.centre()
    faint = PointSources(
        ra_rad=ra + rng.normal(0, 0.015, 100) / np.cos(dec),
        dec_rad=dec + rng.normal(0, 0.015, 100),
        flux_jy=power_law(rng.uniform(0.02, 0.05, 100), 1.4e9, FREQ_HZ),
    )
    group.sources = merge_sources(group.sources, faint)
    summary = run(store, group.write(tmp_path), phase_solint_s=1e3)
    left = np.radians(phase_errors_deg(summary, group, tmp_path / "tables").mean(axis=(0, 2)))
    # The stage allows for 0.2 Jy of such sources; the stations here are 22, not 96.
    expected_deg = read_record(summary).field_phase.phase_error_deg
    assert expected_deg is not None
    assert np.degrees(np.std(left)) < 1.5 * expected_deg
    # A gradient of phase over the array shifts the image, by at most 0.03 of a 15 arcsec beam.
    where = group.uvw(group.mjd)[USED][:, :2] * 2 * np.pi * FREQ_HZ.mean() / SPEED_OF_LIGHT_M_S
    plane = np.column_stack([where, np.ones(USED.size)])
    shift = np.linalg.lstsq(plane, left, rcond=None)[0][:2]
    assert np.degrees(np.abs(shift)).max() * 3600 < 0.2


def test_record_names_set_and_source(store: Path, tmp_path: Path) -> None:
    record = read_record(run(store, make_field().write(tmp_path)))
    assert not record.solved
    assert record.rung == "SAME_DATE_VALID"
    assert record.source is not None
    assert record.source.group == "20260125t011431"
    assert (record.calibrator.name, record.flux_anchor) == ("3C48", "standard")
    assert record.mjd == pytest.approx(LATER_MJD)


@pytest.mark.parametrize("days", [-7, 7])
def test_set_of_another_date_is_borrowed_after_a_check(
    store: Path, tmp_path: Path, days: int
) -> None:
    # A sidereal week away the same field is overhead, and antennas have drifted far.
    changes = {"mjd": LATER_MJD + days * SIDEREAL_DAY, "name": "20260201t014500", "drift_deg": 60.0}
    record = read_record(run(store, make_field(**changes).write(tmp_path)))
    assert record.rung == "BORROWED_VALIDATED"
    assert record.field_phase.done
    assert record.field_phase.scale == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("factor", [0.06, 4.0])
def test_set_with_wrong_scale_is_refused(store: Path, tmp_path: Path, factor: float) -> None:
    wrong = make_field(scale=0.07 * np.sqrt(factor))
    with pytest.raises(NoCalibrationError, match=r"data are .* x the model") as caught:
        run(store, wrong.write(tmp_path))
    assert caught.value.exit == 15


def test_phases_are_kept_if_the_field_is_too_faint(store: Path, tmp_path: Path) -> None:
    ms = make_field(noise_jy=30.0, times=2).write(tmp_path)
    phase = read_record(run(store, ms)).field_phase
    assert not phase.done
    assert "do not suffice" in phase.reason
    assert phase.phase_error_deg is not None
    assert phase.phase_error_deg > 10.0


def test_set_of_another_date_is_refused_if_the_field_is_too_faint(
    store: Path, tmp_path: Path
) -> None:
    changes = {"mjd": LATER_MJD - 7 * SIDEREAL_DAY, "name": "20260118t014500"}
    group = make_field(noise_jy=3000.0, times=2, **changes)
    with pytest.raises(NoCalibrationError, match="too faint to tell"):
        run(store, group.write(tmp_path))


def test_set_of_the_same_date_passes_unchecked_with_a_warning(store: Path, tmp_path: Path) -> None:
    summary = run(store, make_field(noise_jy=3000.0, times=2).write(tmp_path))
    assert summary["qa"]["verdict"] == "warning"
    assert "could not be checked" in summary["qa"]["reasons"][0]
    assert read_record(summary).field_phase.scale is None


def test_calibration_option_takes_solved_sets_only(store: Path, tmp_path: Path) -> None:
    records = (store / "calibrated").glob("*/calibration.json")
    [solved] = [path.parent for path in records if '"solved": true' in path.read_text()]
    ms = make_field().write(tmp_path)
    summary = run(tmp_path, ms, calibration=str(solved), store=None)
    source = read_record(summary).source
    assert source is not None
    assert source.key == solved.name
    with pytest.raises(BadInputError, match="not solved on its own group"):
        run(tmp_path, ms, calibration=summary["artifact"], store=None)


@pytest.mark.parametrize(
    ("solint_s", "count"), [(10.0, 24), (60.0, 4), (100.0, 2), (1e9, 1), (1.0, 24)]
)
def test_split_intervals_have_equal_lengths(solint_s: float, count: int) -> None:
    times = 10.0 * np.arange(24)
    middle, part = split_intervals(times, 10.0, solint_s)
    assert middle.size == count
    assert np.all(np.diff(part) >= 0)
    assert middle == pytest.approx([times[part == k].mean() for k in range(count)])


def test_rank_references_prefers_healthy_outriggers() -> None:
    names = tuple(str(number) for number in range(1, 118))
    health = np.full(117, 0.9)
    health[102], health[103], health[105], health[0] = 0.0, 0.4, 0.95, 0.99
    assert rank_references("DSA_110", names, health)[:3] == ["106", "105", "107"]
    assert rank_references("DSA_110", names, health, "7")[:2] == ["7", "106"]
    assert rank_references("VLA", names, health)[0] == "1"
    assert rank_references("DSA_110", ("1", "2"), np.array([0.0, 0.1])) == ["2"]
