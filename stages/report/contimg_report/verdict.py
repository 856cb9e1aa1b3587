"""What an operator wants to know first: is it good, and if not, why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contimg_report.words import number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg_report.material import Artifact

SUBBANDS = 16
NAMES = {"normalize": "Normalise"}
"""Stages whose title is not their capitalized name."""
RUNGS = {
    "PRIMARY_TRANSIT_GENERATED": "solved on this group, on a flux standard",
    "BRIGHT_FALLBACK_GENERATED": "solved on this group, on a bright calibrator that is no standard",
    "SAME_DATE_VALID": "taken from a set of the same transit or date",
    "BORROWED_VALIDATED": "borrowed from another date, checked against the field's sources",
}
ANCHORS = {
    "standard": "a Perley–Butler 2017 standard",
    "catalogue": "a catalogue calibrator",
    "nvss": "the ensemble of NVSS sources",
}


@dataclass(frozen=True)
class Verdict:
    """The banner."""

    good: bool
    headline: str
    sentence: str
    reasons: tuple[tuple[str, str], ...]
    """Stage and reason."""


@dataclass(frozen=True)
class Tile:
    """One figure that sums up a step."""

    label: str
    value: str
    note: str = ""
    good: bool = True


def title(stage: str) -> str:
    """Return a stage's title."""
    return NAMES.get(stage, stage.capitalize())


def reasons(artifacts: Mapping[str, Artifact]) -> tuple[tuple[str, str], ...]:
    """Return every reason for a warning with the name of its stage."""
    return tuple(
        (title(stage), reason)
        for stage, one in artifacts.items()
        for reason in one.manifest.qa.reasons
    )


def good(artifacts: Mapping[str, Artifact]) -> bool:
    """Say whether all stages vouch for their products."""
    return all(one.manifest.qa.verdict == "good" for one in artifacts.values())


def of_group(artifacts: Mapping[str, Artifact]) -> Verdict:
    """Judge a group."""
    fine = good(artifacts)
    why = reasons(artifacts)
    count = "1 thing" if len(why) == 1 else f"{len(why)} things"
    headline = "Good" if fine else f"Look at {count}" if why else "Look at this"
    done = " → ".join(title(stage).lower() for stage in artifacts)
    return Verdict(
        fine,
        headline,
        f"{'All steps vouch for their products' if fine else 'The products exist, with reservations'}: {done}.",
        why,
    )


def of_run(artifacts: Mapping[str, Artifact], candidates: int | None) -> Verdict:
    """Judge a run."""
    fine = good(artifacts)
    found = {None: "No search for scattering events", 0: "No candidate", 1: "1 candidate"}.get(
        candidates, f"{candidates} candidates"
    )
    headline = found if fine else f"{found}, with reservations"
    text = (
        "All stages vouch for their products."
        if fine
        else "Read the reservations before you trust the light curves."
    )
    names = (
        artifacts["variability"].metrics.get("candidate_names")
        if "variability" in artifacts
        else None
    )
    if names:
        text = f"{', '.join(names)} {'looks' if len(names) == 1 else 'look'} like a plasma lens passing by. {text}"
    return Verdict(fine, headline, text, reasons(artifacts))


def group_tiles(artifacts: Mapping[str, Artifact]) -> list[Tile]:
    """Return the figures that sum up a group, of the steps that are there."""
    tiles = [_subbands(artifacts["convert"])]
    if "flag" in artifacts:
        dead = len(artifacts["flag"].metrics.get("dead_receptors", ()))
        note = f"{dead} dead receptor{'s' * (dead != 1)}"
        tiles.append(
            _tile(
                artifacts["flag"], "Flagged", percent(artifacts["flag"].metrics["fraction"]), note
            )
        )
    if "calibrate" in artifacts:
        said = artifacts["calibrate"].metrics
        note = RUNGS.get(said["provenance"], said["provenance"])
        tiles.append(_tile(artifacts["calibrate"], "Calibrated on", str(said["calibrator"]), note))
    if "image" in artifacts:
        tiles += _depth(artifacts["image"])
    if "photometry" in artifacts:
        tiles.append(_ratio(artifacts["photometry"]))
    return tiles


def run_tiles(
    artifacts: Mapping[str, Artifact], groups: Sequence[Mapping[str, Any]] = ()
) -> list[Tile]:
    """Return the figures that sum up a run; `groups` are the rows of its groups."""
    tiles = []
    if "normalize" in artifacts:
        one = artifacts["normalize"]
        said = one.metrics
        tiles.append(
            _tile(
                one,
                "Epochs",
                str(said["epochs"]),
                f"{said['sources']} sources, {said['references']} references",
            )
        )
        tiles.append(
            _tile(
                one,
                "Flux scale from epoch to epoch",
                percent(said["factor_scatter"]),
                "scatter that was taken out",
            )
        )
        if "scatter_median" in said:
            note = f"{number(said['scatter_over_noise'])} × what their errors predict"
            tiles.append(
                _tile(one, "Bright references scatter by", percent(said["scatter_median"]), note)
            )
    if "variability" in artifacts:
        one = artifacts["variability"]
        tiles.append(
            _tile(
                one, "Candidates", str(one.metrics["candidates"]), "for extreme scattering events"
            )
        )
    if groups:
        doubtful = sum(not row["good"] for row in groups)
        note = "all good" if not doubtful else f"{doubtful} with reservations"
        tiles.append(Tile("Groups", str(len(groups)), note, not doubtful))
    return tiles


def _tile(artifact: Artifact, label: str, value: str, note: str) -> Tile:
    return Tile(label, value, note, artifact.manifest.qa.verdict == "good")


def _subbands(convert: Artifact) -> Tile:
    missing = convert.metrics["missing_subbands"]
    text = (
        "all there"
        if not missing
        else "missing: " + ", ".join(f"sb{index:02d}" for index in missing)
    )
    return Tile("Subbands", f"{SUBBANDS - len(missing)} of {SUBBANDS}", text, not missing)


def _depth(image: Artifact) -> list[Tile]:
    said = image.metrics
    thermal = said.get("thermal_rms_jy")
    note = (
        f"per beam, {said['rms_jy'] / thermal:.2f} × the thermal noise" if thermal else "per beam"
    )
    beam = f"{said['bmaj_arcsec']:.0f}″ × {said['bmin_arcsec']:.0f}″"
    return [
        _tile(image, "Image rms", f"{1e3 * said['rms_jy']:.2f} mJy", note),
        _tile(image, "Beam", beam, f"at {said['bpa_deg']:.0f}°"),
    ]


def _ratio(photometry: Artifact) -> Tile:
    said: dict[str, Any] = photometry.metrics
    if said.get("ratio_median") is None:
        return _tile(photometry, "Flux / NVSS", "–", "no bright single source")
    note = f"± {number(said.get('ratio_scatter'))} scatter of {said.get('bright', 0)} sources"
    return _tile(photometry, "Flux / NVSS", number(said["ratio_median"], 3), note)
