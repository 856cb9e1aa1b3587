"""MkDocs hook: computes the navigation and the reference from the code and the files.

A stage's page gets the table of its options. `reference/` gets pages on commands, tables,
exit codes, pipelines, the chart and the Python API. Nothing generated is committed.
"""

from __future__ import annotations

import html
import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import contimg.records.schemas
from contimg.records.tables import Schema
from contimg.runtime.command import commands
from contimg.runtime.errors import MEANING, Exit
from contimg.runtime.options import Options, choices, first_sentence, flag
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.stage import StageSpec, stage_specs
from contimg_runs.pipelines import PIPELINES

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "tutorial": "Tutorial",
    "how-to": "How-to guides",
    "stages": "Stages",
    "reference": "Reference",
    "explanation": "Explanation",
}
"""Folders of docs/ in the order of the navigation; pages are in alphabetical order."""
API = ("runtime", "astro", "records")
"""Packages of lib whose modules have a page of the Python API."""
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 110, 34, 46, 18
"""Sizes in a pipeline's graph, pixels."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and make the navigation from all pages."""
    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    config.nav = [{"Home": "index.md"}, {"Glossary": "glossary.md"}, *_sections(files)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append options to a stage's page, and to the overview stages that it lacks."""
    del config, files
    folder, _, name = page.file.src_uri.removesuffix(".md").rpartition("/")
    if page.file.src_uri == "stages/index.md":
        new = [one for one in stage_specs().values() if f"({one.name}.md)" not in markdown]
        rows = [(f"[{one.name}]({one.name}.md)", first_sentence(one.options)) for one in new]
        markdown += f"\n\n{table(('other stages', 'does'), rows)}\n" if rows else ""
    if folder == "stages" and name in stage_specs():
        markdown += f"\n\n## Options\n\n{stage_options(stage_specs()[name])}"
    return markdown


def _sections(files: Files) -> Iterator[dict[str, list[str]]]:
    for folder, title in SECTIONS.items():
        found = [file for file in files.documentation_pages() if file.src_uri.startswith(folder)]
        found.sort(key=lambda file: (not file.src_uri.endswith("index.md"), file.src_uri))
        yield {title: [file.src_uri for file in found]}


def generated_pages() -> dict[str, str]:
    """Return the text of every generated page by its path in docs/."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/tables.md": tables_page(),
        "reference/exit-codes.md": exit_codes_page(),
        "reference/pipelines.md": pipelines_page(),
        "reference/chart.md": chart_page(),
    }
    for package in API:
        pages[f"reference/api-{package}.md"] = api_page(f"contimg.{package}")
    return pages


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in Markdown; pipes in cells are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in lines
    )


def options_table(model: type[Options]) -> str:
    """Return the options of a model: flag, values, default and meaning."""
    rows = []
    for name, field in model.model_fields.items():
        values = ", ".join(f"`{value}`" for value in choices(field) or []) or _type_name(field)
        default = "required" if field.is_required() else _default(field.default)
        meaning = " ".join((field.description or "").split())
        rows.append((f"`{flag(name)}`", values, default, meaning))
    return table(("option", "value", "default", "meaning"), rows)


def _type_name(field: Any) -> str:  # noqa: ANN401 - a FieldInfo, or a stand-in
    if get_origin(field.annotation) is tuple:
        return "list, with commas"
    kinds = {"int": "integer", "float": "number", "bool": "`true`, `false`"}
    found = next((kinds[n] for n in kinds if re.search(rf"\b{n}\b", str(field.annotation))), "text")
    limits = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {getattr(mark, name)}"
        for mark in field.metadata
        for name, sign in limits.items()
        if getattr(mark, name, None) is not None
    ]
    return " ".join([found, ", ".join(bounds)]).strip()


def _default(value: object) -> str:
    return (
        ""
        if value in (None, ())
        else f"`{str(value).lower() if value in (True, False) else value}`"
    )


def stage_options(spec: StageSpec) -> str:
    """Return a stage's options, and below them what a pod of it may take."""
    resources = spec.resources
    facts = [
        ("time limit of one try", f"{resources.deadline_s} s"),
        ("memory limit", f"{resources.memory_mi} MiB, of which scratch {resources.scratch_mi} MiB"),
        ("cores requested", resources.cpu),
        ("semaphore", spec.semaphore or "none"),
        ("versions in its key", ", ".join(f"`{tool}`" for tool in spec.tools) or "none"),
    ]
    return f"{options_table(spec.options)}\n\n{table(('pod', ''), facts)}\n"


def commands_page() -> str:
    """Return the page on the commands ``contimg NAME``."""
    found = list(commands().values())
    rows = [
        (f"[`contimg {one.name}`](#contimg-{one.name})", first_sentence(one.options))
        for one in found
    ]
    parts = [
        "# Commands",
        (
            "`contimg NAME --help` prints the same. Every stage is a program, `contimg-NAME`; "
            "its options are on [its page](../stages/index.md)."
        ),
        table(("command", "does"), rows),
    ]
    for one in found:
        words = " ".join(name.upper() for name in one.positional)
        usage = f"contimg {one.name} {words}".strip()
        text = " ".join((one.options.__doc__ or "").split())
        parts += [
            f"## contimg {one.name}",
            f"`{usage} [options]`",
            text,
            options_table(one.options),
        ]
    return "\n\n".join(parts) + "\n"


def tables_page() -> str:
    """Return the page on the columns of every table."""
    found: dict[str, Schema] = {}
    package = contimg.records.schemas
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, Schema):
                found[value.name] = value
    parts = [
        "# Columns of the tables",
        (
            "How to read and join them: [Query the tables](../how-to/query-tables.md). "
            "Units are VOUnits, UCDs are UCD1+. Rows are sorted by the columns in *italics*."
        ),
    ]
    for schema in sorted(found.values(), key=lambda schema: schema.name):
        rows = [
            (
                f"*`{c.name}`*" if c.name in schema.sort else f"`{c.name}`",
                f"{c.type}{', nullable' if c.nullable else ''}",
                c.unit,
                f"`{c.ucd}`" if c.ucd else "",
                c.meaning,
            )
            for c in schema.columns
        ]
        parts += [
            f"## {schema.name}",
            f"Version {schema.version}. {schema.meaning}".strip(),
            table(("column", "type", "unit", "UCD", "meaning"), rows),
        ]
    return "\n\n".join(parts) + "\n"


def exit_codes_page() -> str:
    """Return the page on exit codes and retries."""
    names = {int(code): code.name for code in Exit}
    rows = [
        (
            str(int(code)),
            f"`{names[code]}`" if code in names else "(Argo, kernel)",
            meaning,
            f"{retry.limit} × after {retry.backoff_s:.0f} s, doubling" if retry.limit else "never",
        )
        for code, (meaning, retry) in MEANING.items()
    ]
    return (
        "# Exit codes\n\n"
        "The local runner and Argo's retry rules are made from `contimg.runtime.errors.MEANING`. "
        "Codes 10–19 mean unusable input data. Codes 20–29 mean that the infrastructure "
        "failed; these are retried.\n\n"
        + table(("code", "name", "meaning", "retried"), rows)
        + "\n"
    )


def pipelines_page() -> str:
    """Return the page on the pipelines: a graph, parameters and steps of each."""
    parts = [
        "# Pipelines",
        (
            "They are defined in `runs/contimg_runs/pipelines.py`. The local runner and the "
            "templates for Argo are made from these definitions."
        ),
    ]
    for pipeline in PIPELINES.values():
        parameters = [
            (
                f"`{one.name}`",
                "required" if one.default is None else f"`{one.default}`",
                one.description,
            )
            for one in pipeline.parameters
        ]
        shortcuts = [
            (f"`{one.name}`", "", "sets " + ", ".join(f"`{path}`" for path in one.sets))
            for one in pipeline.shortcuts
        ]
        parts += [
            f"## {pipeline.name}",
            pipeline.description,
            draw_pipeline(pipeline),
            table(("parameter", "default", "meaning"), parameters + shortcuts),
        ]
    return "\n\n".join(parts) + "\n"


def draw_pipeline(pipeline: Pipeline) -> str:
    """Return a pipeline as SVG: each step to the right of those that it reads from."""
    column: dict[str, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for name in pipeline.order:
        column[name] = 1 + max((column[need] for need in pipeline.needs[name]), default=-1)
        row = sum(other == column[name] for other in column.values()) - 1
        place[name] = (column[name] * (BOX_WIDTH + GAP_X), row * (BOX_HEIGHT + GAP_Y) + GAP_Y)
    width = max(x for x, _ in place.values()) + BOX_WIDTH + 2
    height = max(y for _, y in place.values()) + BOX_HEIGHT + GAP_Y
    lines, boxes = [], []
    for name, (x, y) in place.items():
        for need in pipeline.needs[name]:
            (from_x, from_y), steps = place[need], column[name] - column[need]
            if steps > 1:  # an arc from top to top, above the boxes between
                start, end = (from_x + BOX_WIDTH // 2, from_y), (x + BOX_WIDTH // 2, y)
            else:
                middle = BOX_HEIGHT // 2
                start, end = (from_x + BOX_WIDTH, from_y + middle), (x, y + middle)
            bend = (start[1] + end[1]) // 2 - (2 * GAP_Y * (steps - 1))
            path = f"M{start[0]} {start[1]} Q{(start[0] + end[0]) // 2} {bend} {end[0]} {end[1]}"
            lines.append(f'<path d="{path}" fill="none" stroke="currentColor" opacity=".4"/>')
        boxes.append(
            f'<rect x="{x + 1}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" '
            f'fill="none" stroke="currentColor"/>'
            f'<text x="{x + 1 + BOX_WIDTH // 2}" y="{y + BOX_HEIGHT // 2 + 5}" '
            f'text-anchor="middle" fill="currentColor" font-size="14">{html.escape(name)}</text>'
        )
    top = -GAP_Y * max(column.values())
    label = f"{pipeline.name}: {' → '.join(pipeline.order)}"
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 {top} {width} {height - top}" '
        f'style="max-width:{width}px;width:100%">{"".join(lines + boxes)}</svg>'
    )


def chart_page() -> str:
    """Return the page on the values of the Helm chart, from its README."""
    text = (ROOT / "charts/contimg/README.md").read_text(encoding="utf-8")
    return (
        "# Values of the chart\n\n`charts/contimg` installs everything into one namespace: "
        "[Install on a cluster](../how-to/install-on-a-cluster.md).\n"
        + text.partition("## Values\n")[2]
    )


def api_page(package: str) -> str:
    """Return the page on the modules of a package of lib."""
    folder = ROOT / "lib" / package.replace(".", "/")
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    parts = [f"# Python API: {package}"]
    parts += [f"::: {package}.{name}" for name in names]
    return "\n\n".join(parts) + "\n"
