"""The page: templates, and the rows of tables that need more than a manifest's numbers."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import DictLoader, Environment, StrictUndefined

from contimg_report import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from contimg.runtime.manifest import Manifest
    from contimg_report.material import Artifact

SUBBANDS = 16
FILTERS = (
    "percent",
    "seconds",
    "megabytes",
    "utc",
    "number",
    "flux",
    "right_ascension",
    "declination",
    "day",
)


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill a template; a name that is missing is an error, not an empty place."""
    folder = files("contimg_report") / "templates"
    sources = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith((".j2", ".css"))
    }
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in FILTERS}
    return environment.get_template(template).render(content)


def subband_rows(convert: Artifact) -> list[dict[str, Any]]:
    """Return one row a subband, highest frequency first: where it is in the band, and what came."""
    said = convert.metrics
    top, width = (
        said["freq_max_hz"] / 1e6,
        (said["freq_max_hz"] - said["freq_min_hz"]) / 1e6 / SUBBANDS,
    )
    came = (
        {item["index"]: item for item in convert.json("subbands.json")}
        if convert.has("subbands.json")
        else {}
    )
    return [
        {
            "index": index,
            "high": top - width * index,
            "low": top - width * (index + 1),
            "missing": index in said["missing_subbands"],
            "file": came.get(index),
        }
        for index in range(SUBBANDS)
    ]


def run_title(artifacts: Mapping[str, Artifact]) -> str:
    """Return the title of a run's page: the strip and its last day."""
    said = artifacts["normalize"].metrics if "normalize" in artifacts else {}
    if "strip_deg" not in said:
        return "Light curves"
    return f"Light curves of the strip at Dec {said['strip_deg']:+.2f}° up to {words.day(said['last_mjd'])}"


def group_rows(manifests: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Return one row a group from manifests of any of its stages, in the order of time."""
    rows: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        group = str(manifest.metrics.get("group", "?"))
        row = rows.setdefault(group, {"group": group, "good": True, "reasons": [], "metrics": {}})
        row["good"] &= manifest.qa.verdict == "good"
        row["reasons"] += manifest.qa.reasons
        row["metrics"] |= {
            f"{manifest.stage}_{name}": value for name, value in manifest.metrics.items()
        }
    return [rows[group] for group in sorted(rows)]
