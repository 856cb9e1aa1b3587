"""Selecting a set: phases are fitted to the field, and a set that does not fit is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from contimg.astro.catalogues import standard_flux_jy
from contimg.astro.predict import PointSources, power_law
from contimg.astro.telescope import SITE
from contimg.records.calibration import Calibration, load_gains
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoCalibrationError
from contimg_calibrate.options import STAGE, CalibrateOptions
from contimg_calibrate.sky import find_field_sources, merge_sources
from contimg_calibrate.solver import rank_references, split_intervals
from observed import FREQ_HZ, STATIONS, Observed

if TYPE_CHECKING:
    from numpy.typing import NDArray

THREE_C_48 = PointSources(
    np.radians([24.42208096]), np.radians([33.15975916]), standard_flux_jy("3C48", FREQ_HZ)[None]
)
LATER = 61065.0922
"""An hour after 3C48's transit: 70 NVSS sources of 10 mJy and more in the beam, 5 Jy together."""
USED = np.array(STATIONS) - 1


def target(**changes: Any) -> Observed:
    plain = Observed(
        THREE_C_48,
        **{"mjd": LATER, "name": "20260125t021221", "noise_jy": 0.3, "drift_deg": 5.0, **changes},
    )
    return replace(
        plain,
        sources=find_field_sources(
            plain.mjds[0], plain.mjds[-1], np.radians(plain.dec_deg), SITE, FREQ_HZ
        ),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a set that was solved on 3C48."""
    root = tmp_path_factory.mktemp("store")
    said = run(root, Observed(THREE_C_48, noise_jy=0.3).write(root), model_source="calibrator")
    assert said["metrics"]["solved"]
    return root


def run(root: Path, ms: str, **chosen: Any) -> dict[str, Any]:
    options = CalibrateOptions(
        **{"ms": ms, "out": str(root / "calibrated"), "store": str(root), **chosen}
    )
    return contract.run(STAGE, options, dict(os.environ), Console("calibrate", {}))


def record(said: dict[str, Any]) -> Calibration:
    return Calibration.model_validate_json(
        (Path(said["artifact"]) / "calibration.json").read_text()
    )


def phase_errors(said: dict[str, Any], seen: Observed, scratch: Path) -> NDArray[np.float64]:
    """Return the phases' errors, degrees, less one for all antennas, shape (times, stations, channels, polarizations)."""
    context = Context(str(scratch / "none"), scratch, (), {})
    ratio = (
        load_gains(context, said["artifact"])
        .evaluate(seen.mjds * 86400, FREQ_HZ)
        .product()[:, USED]
        / seen.truth[:, USED]
    )
    common = np.angle(np.sum(ratio / np.abs(ratio), axis=1, keepdims=True))
    return np.degrees(np.angle(ratio * np.exp(-1j * common)))


def test_phases_are_fitted_to_the_field(store: Path, tmp_path: Path) -> None:
    seen = target()
    ms = seen.write(tmp_path)
    fitted, plain = run(store, ms, phase_solint_s=1e3), run(store, ms, field_phase="never")
    for folder in ("fitted", "plain"):
        (tmp_path / folder).mkdir()
    before = np.std(phase_errors(plain, seen, tmp_path / "plain"))
    after = np.std(phase_errors(fitted, seen, tmp_path / "fitted"))
    # Drawn with 5 deg an antenna; what noise leaves (said by the stage itself, without the allowance for faint sources,
    # of which these data have none), and the walk of 0.5 deg a step inside the group.
    assert before == pytest.approx(5.0, rel=0.4)
    assert after < 1.5
    said = record(fitted)
    assert said.field_phase.done
    assert "NVSS sources suffice" in said.field_phase.reason
    assert said.field_phase.sources > 30
    assert said.field_phase.scale == pytest.approx(1.0, abs=0.02)
    assert [table.role for table in said.tables] == ["bandpass", "phase", "gain", "field"]
    assert "Not asked for" in record(plain).field_phase.reason


def test_sources_that_the_catalogue_lacks_move_nothing(store: Path, tmp_path: Path) -> None:
    """A hundred sources of 20 to 50 mJy that NVSS above 50 mJy does not have: 3.5 Jy more, as in the true sky."""
    rng = np.random.default_rng(7)
    seen = target(noise_jy=0.1)
    ra, dec = seen.centre()
    faint = PointSources(
        ra + rng.normal(0, 0.015, 100) / np.cos(dec),
        dec + rng.normal(0, 0.015, 100),
        power_law(rng.uniform(0.02, 0.05, 100), 1.4e9, FREQ_HZ),
    )
    seen.sources = merge_sources(seen.sources, faint)
    said = run(store, seen.write(tmp_path), phase_solint_s=1e3)
    (tmp_path / "tables").mkdir()
    left = np.radians(phase_errors(said, seen, tmp_path / "tables").mean(axis=(0, 2)))
    # The stage allows for 0.2 Jy of such sources; the stations here are 22, not 96.
    foretold = record(said).field_phase.phase_error_deg
    assert foretold is not None
    assert np.degrees(np.std(left)) < 1.5 * foretold
    # A gradient of phase over the array is a shift of the image: at most 0.03 of a 15 arcsec beam is asked for.
    where = seen.uvw(seen.mjd)[USED][:, :2] * 2 * np.pi * FREQ_HZ.mean() / 299792458.0
    plane = np.column_stack([where, np.ones(USED.size)])
    shift = np.linalg.lstsq(plane, left, rcond=None)[0][:2]
    assert np.degrees(np.abs(shift)).max() * 3600 < 0.2


def test_the_record_names_the_set_and_the_rung(store: Path, tmp_path: Path) -> None:
    said = record(run(store, target().write(tmp_path)))
    assert not said.solved
    assert said.rung == "SAME_DATE_VALID"
    assert said.source is not None
    assert said.source.group == "20260125t011431"
    assert (said.calibrator.name, said.flux_anchor) == ("3C48", "standard")
    assert said.mjd == pytest.approx(LATER)


@pytest.mark.parametrize("days", [-7, 7])
def test_another_date_is_borrowed_after_a_check(store: Path, tmp_path: Path, days: int) -> None:
    # A sidereal week away the same field is overhead, and antennas have drifted far: the phases are new.
    seen = target(mjd=LATER + days * 0.99726957, name="20260201t014500", drift_deg=60.0)
    said = record(run(store, seen.write(tmp_path)))
    assert said.rung == "BORROWED_VALIDATED"
    assert said.field_phase.done
    assert said.field_phase.scale == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("factor", [0.06, 4.0])
def test_a_set_that_does_not_fit_is_refused(store: Path, tmp_path: Path, factor: float) -> None:
    wrong = target(scale=0.07 * np.sqrt(factor))
    with pytest.raises(NoCalibrationError, match=r"data are .* x the model") as caught:
        run(store, wrong.write(tmp_path))
    assert caught.value.exit == 15


def test_phases_are_kept_where_the_field_is_too_faint(store: Path, tmp_path: Path) -> None:
    said = run(store, target(noise_jy=30.0, times=2).write(tmp_path))
    phase = record(said).field_phase
    assert not phase.done
    assert "do not suffice" in phase.reason
    assert phase.phase_error_deg is not None
    assert phase.phase_error_deg > 10.0


def test_a_named_set_is_taken(store: Path, tmp_path: Path) -> None:
    [solved] = [
        path.parent
        for path in (store / "calibrated").glob("*/calibration.json")
        if '"solved": true' in path.read_text()
    ]
    ms = target().write(tmp_path)
    said = run(tmp_path, ms, calibration=str(solved), store=None)
    assert record(said).source.key == solved.name  # type: ignore[union-attr]
    with pytest.raises(BadInputError, match="not solved on its own group"):
        run(tmp_path, ms, calibration=said["artifact"], store=None)


def test_interval_borders() -> None:
    times = 10.0 * np.arange(24)
    for solint, count in ((10.0, 24), (60.0, 4), (100.0, 2), (1e9, 1), (1.0, 24)):
        middle, part = split_intervals(times, 10.0, solint)
        assert middle.size == count
        assert np.all(np.diff(part) >= 0)
        assert middle == pytest.approx([times[part == k].mean() for k in range(count)])


def test_reference_antennas_are_healthy_outriggers_first() -> None:
    names = tuple(str(number) for number in range(1, 118))
    health = np.full(117, 0.9)
    health[102], health[103], health[105], health[0] = 0.0, 0.4, 0.95, 0.99
    assert rank_references("DSA_110", names, health)[:3] == ["106", "105", "107"]
    assert rank_references("DSA_110", names, health, "7")[:2] == ["7", "106"]
    assert rank_references("VLA", names, health)[0] == "1"
    assert rank_references("DSA_110", ("1", "2"), np.array([0.0, 0.1])) == ["2"]


def test_a_set_of_another_date_must_be_seen_to_fit(store: Path, tmp_path: Path) -> None:
    seen = target(mjd=LATER - 7 * 0.99726957, name="20260118t014500", noise_jy=3000.0, times=2)
    with pytest.raises(NoCalibrationError, match="too faint to tell"):
        run(store, seen.write(tmp_path))


def test_a_set_of_the_same_date_may_go_unseen(store: Path, tmp_path: Path) -> None:
    said = run(store, target(noise_jy=3000.0, times=2).write(tmp_path))
    assert said["qa"]["verdict"] == "warning"
    assert "could not be checked" in said["qa"]["reasons"][0]
    assert record(said).field_phase.scale is None
