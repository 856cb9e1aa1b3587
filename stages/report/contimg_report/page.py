"""The page: its banner, its tables of groups and of steps, and the templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import Manifest
from contimg_report.artifacts import ReportArtifact
from contimg_report.formatting import FILTERS
from contimg_report.sections import GROUP_SECTIONS, RUN_SECTIONS, Tile, describe_other


@dataclass(frozen=True)
class Banner:
    """What an operator needs to know first: whether all is good, and if not, why."""

    good: bool
    headline: str
    sentence: str
    reasons: tuple[tuple[str, str], ...]
    """Title of the stage, and its reason."""


def make_page(
    artifacts: Mapping[str, ReportArtifact], group_manifests: Iterable[Manifest] = ()
) -> tuple[str, Literal["group", "run"], Banner]:
    """Return the page as HTML, what it is of, and its banner.

    Raises
    ------
    BadInputError
        If there are artifacts of a group and of a run, or if it cannot be told.
    """
    of_group, of_run = (
        ", ".join(sorted(artifacts.keys() & known)) for known in (GROUP_SECTIONS, RUN_SECTIONS)
    )
    if of_group and of_run:
        problem = f"Some are of a group ({of_group}) and some of a run over epochs ({of_run})."
        raise BadInputError("--artifacts", problem, "Give those of one or of the other.")
    if not of_run and "convert" not in artifacts:
        problem = "A group's page needs its convert artifact, and a run's page that of normalize "
        problem += f"or variability; there are only artifacts of {', '.join(artifacts)}."
        raise BadInputError("--artifacts", problem, "Add one of these artifacts.")
    kind: Literal["group", "run"] = "run" if of_run else "group"
    banner = judge(artifacts, kind)
    groups = group_rows(group_manifests)
    durations = [sum(artifact.manifest.seconds.values()) for artifact in artifacts.values()]
    content: dict[str, Any] = {"title": "Light curves", "banner": banner, "tiles": [], "others": []}
    content |= {"groups": groups, "steps": list(artifacts.values())}
    content |= {"slowest": max(durations), "total": sum(durations)}
    known = {**GROUP_SECTIONS, **RUN_SECTIONS}
    for stage, artifact in artifacts.items():
        section = known.get(stage, describe_other)(artifact)
        content["tiles"] += section.pop("tiles")
        if stage in known:
            content |= section
        else:
            content["others"].append(section)
    if groups:
        doubtful = sum(not row["good"] for row in groups)
        note = f"{doubtful} with warnings" if doubtful else "all good"
        content["tiles"].append(Tile("Groups", str(len(groups)), note, not doubtful))
    return render(f"{kind}.html.j2", content), kind, banner


def judge(artifacts: Mapping[str, ReportArtifact], kind: Literal["group", "run"]) -> Banner:
    """Say whether every step is good, and how many candidates a run has."""
    good = all(artifact.good for artifact in artifacts.values())
    reasons = tuple(
        (stage.capitalize(), reason)
        for stage, artifact in artifacts.items()
        for reason in artifact.manifest.qa.reasons
    )
    if kind == "group":
        count = "1 thing" if len(reasons) == 1 else f"{len(reasons)} things"
        headline = "Good" if good else f"Look at {count}" if reasons else "Look at this"
        state = "No step has warnings" if good else "The products exist, but with warnings"
        return Banner(good, headline, f"{state}: {', '.join(artifacts)}.", reasons)
    found, names = "No search for scattering events", []
    if "variability" in artifacts:
        metrics = artifacts["variability"].manifest.metrics
        number, names = metrics["candidates"], metrics.get("candidate_names", [])
        found = {0: "No candidate", 1: "1 candidate"}.get(number, f"{number} candidates")
    sentence = "No stage has warnings." if good else "Read the warnings before you use the results."
    if names:
        looks = "looks" if len(names) == 1 else "look"
        sentence = f"{', '.join(names)} {looks} like a plasma lens passing by. {sentence}"
    return Banner(good, found if good else f"{found}, with warnings", sentence, reasons)


def group_rows(manifests: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Return one row per group from manifests of any of its stages, in the order of time."""
    rows: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        group = str(manifest.metrics.get("group", "?"))
        row = rows.setdefault(group, {"group": group, "good": True, "reasons": [], "metrics": {}})
        row["good"] &= manifest.qa.verdict == "good"
        row["reasons"] += manifest.qa.reasons
        row["metrics"] |= {f"{manifest.stage}_{key}": v for key, v in manifest.metrics.items()}
    return [rows[group] for group in sorted(rows)]


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill a template; a name that is missing is an error, not an empty place."""
    environment = Environment(
        loader=PackageLoader("contimg_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in FILTERS}
    return environment.get_template(template).render(content)
