"""Figures as inline SVG in the page's light or dark colours; the same data make the same bytes."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

Array = np.ndarray[Any, Any]
Style = dict[str, Any]

PLACEHOLDERS = ("#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
INK, _, BLUE, ORANGE, GREEN, PINK = PLACEHOLDERS
"""The style sheet gives each a colour for light and one for dark (Okabe and Ito)."""
VARIABLES = ("ink", "faint", "blue", "orange", "green", "pink")
SOFT_BLUE, SOFT_ORANGE = "#5b9bc7", "#d8935a"
"""For what is drawn as pixels, which no style sheet reaches: visible on light and on dark."""
WIDTH_IN = 4.6
"""About 440 CSS pixels at full size: text stays readable on a phone."""
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN, BAR_IN = 0.62, 0.12, 0.46, 0.26, 0.55
"""Margins, and the margin on the side of a colour bar."""
STYLE = Path(__file__).with_name("figure.mplstyle")
"""Every figure is drawn in ``mpl.rc_context(fname=STYLE)``."""
PALETTE_COLOURS = 256
"""Largest palette of a PNG."""
SVG_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
SVG_EDITS = (
    (r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", ""),
    (r'<g id="[^"]*"', "<g"),
    (r'(<svg[^>]*?) height="[^"]*"', r"\1"),
    (r'(<svg[^>]*?) width="[^"]*"', r"\1"),
    (r"font: ([^;\"]*?) ?([\d.]+px) [^;\"]*", r"font: \1 \2 var(--font)"),
)
"""Leave out comments, metadata, groups' identifiers and the size; take the font of the page."""


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    svg: str
    alt: str
    """What a person who does not see it needs to know."""
    caption: str


def new_figure(
    height_in: float = 3.0, columns: int = 1, *, bar: Literal["none", "right", "bottom"] = "none"
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, side by side, with margins for labels and a colour bar.

    The margins are fixed: matplotlib's own layout draws every figure twice, which is half of the
    stage's time.
    """
    figure = Figure(figsize=(WIDTH_IN, height_in))
    right = 1 - (BAR_IN if bar == "right" else RIGHT_IN) / WIDTH_IN
    bottom = (BAR_IN if bar == "bottom" else BOTTOM_IN) / height_in
    figure.subplots_adjust(LEFT_IN / WIDTH_IN, bottom, right, 1 - TOP_IN / height_in)
    return figure, list(figure.subplots(1, columns, squeeze=False).ravel())


def draw_map(
    pixels: Array,
    extent: tuple[float, ...],
    labels: tuple[str, str, str],
    norm: Normalize,
    cmap: str = "cividis",
) -> tuple[Figure, Axes, Colorbar]:
    """Draw a plane with a colour bar; `labels` are those of x, y and the bar."""
    figure, (axes,) = new_figure(3.9, bar="right")
    shown = axes.imshow(pixels, extent=extent, cmap=cmap, norm=norm)  # type: ignore[arg-type]
    axes.grid(visible=False)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    bar = figure.colorbar(shown, ax=axes, label=labels[2], fraction=0.045, pad=0.03)
    return figure, axes, bar


class PlainFormatter(LogFormatter):
    """Labels a logarithmic axis with plain numbers: formulas need a parser and 0.1 s a page."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of x; empty where matplotlib has none."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def label_plainly(*axes: Axis) -> None:
    """Label logarithmic axes 0.1, 1, 10, …; call it after their scale and limits are set."""
    for axis in axes:
        axis.set_major_formatter(PlainFormatter())
        axis.set_minor_formatter(PlainFormatter())


def finish(figure: Figure, name: str, alt: str, caption: str, *, largest: float = 1.0) -> Picture:
    """Make a figure's SVG fit to stand in a page.

    It is scaled by the page (to at most `largest` times its size), coloured by it, labelled, and
    `name` makes its identifiers unique.
    """
    sink = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(sink, format="svg", metadata=SVG_METADATA)
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in SVG_EDITS:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    for colour, variable in zip(PLACEHOLDERS, VARIABLES, strict=True):
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    size = f"max-width:{largest * figure.get_figwidth() * 96:.0f}px"
    label = f'<svg role="img" aria-label="{escape(alt)}" style="{size}"'
    svg = svg.replace("<svg", label, 1)
    png = r"data:image/png;base64,([A-Za-z0-9+/=\s]+)"
    svg = re.sub(png, lambda found: embed_png(base64.b64decode(found.group(1))), svg)
    return Picture(name, svg, alt, caption)


def embed_png(data: bytes) -> str:
    """Return a PNG as a data URI; one of few colours gets a palette, a quarter of the bytes."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    flat = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
    colours, indices = np.unique(flat, return_inverse=True)
    if colours.size <= PALETTE_COLOURS:
        table = colours.view(np.uint8).reshape(-1, 4)
        image = Image.fromarray(indices.reshape(flat.shape).astype(np.uint8), mode="P")
        image.putpalette(table[:, :3].tobytes())
        sink = io.BytesIO()
        image.save(sink, format="PNG", optimize=True, transparency=table[:, 3].tobytes())
        data = min(data, sink.getvalue(), key=len)
    return "data:image/png;base64," + base64.b64encode(data).decode()
