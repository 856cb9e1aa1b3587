"""Figures as inline SVG that follow the page's light or dark colours; the same data make the same bytes."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

INK, FAINT = "#010101", "#020202"
BLUE, ORANGE, GREEN, PINK = "#030303", "#040404", "#050505", "#060606"
"""Placeholders: the page's style sheet gives each a colour for light and one for dark, after Okabe and Ito."""
SOFT_BLUE, SOFT_ORANGE = "#5b9bc7", "#d8935a"
"""For what is drawn as pixels, which no style sheet reaches: seen on light and on dark."""
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PINK: "--pink",
}
WIDTH_IN = 4.6
"""About 440 CSS pixels at full size: text stays readable on a phone."""
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN, BAR_IN = 0.62, 0.12, 0.46, 0.26, 0.55
"""Margins, and the margin on the side of a colour bar."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "image.interpolation": "none",
    "image.origin": "lower",
    "axes.formatter.useoffset": False,
    "path.simplify": True,
}
COLOURS = 256
"""Most colours of a palette image."""


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    svg: str
    alt: str
    """What a person who does not see it needs to know."""
    caption: str


def new(
    height_in: float = 3.0, columns: int = 1, *, bar: Literal["none", "right", "bottom"] = "none"
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, side by side, with room for titles, labels and a colour bar.

    The margins are fixed: matplotlib's own layout draws every figure twice, which is half of the stage's time.
    """
    figure = Figure(figsize=(WIDTH_IN, height_in))
    figure.subplots_adjust(
        left=LEFT_IN / WIDTH_IN,
        right=1 - (BAR_IN if bar == "right" else RIGHT_IN) / WIDTH_IN,
        bottom=(BAR_IN if bar == "bottom" else BOTTOM_IN) / height_in,
        top=1 - TOP_IN / height_in,
    )
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes.ravel())


def style() -> AbstractContextManager[None]:
    """Draw in the page's style while this context lasts."""
    return mpl.rc_context(STYLE)


class _Plain(LogFormatter):
    """Labels of a logarithmic axis where matplotlib has them, as plain numbers: its formulas take a parser and 0.1 s a page."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plain(*axes: Axis) -> None:
    """Label logarithmic axes 0.1, 1, 10, …; after their scale and limits are set."""
    for axis in axes:
        axis.set_major_formatter(_Plain())
        axis.set_minor_formatter(_Plain())


def picture(figure: Figure, name: str, alt: str, caption: str, *, largest: float = 1.0) -> Picture:
    """Draw a figure, shown at most `largest` times its size; `name` makes the SVG's identifiers unique on the page."""
    sink = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            sink,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return Picture(name, _inline(sink.getvalue(), name, alt, largest), alt, caption)


def _inline(svg: str, name: str, alt: str, largest: float) -> str:
    """Make matplotlib's SVG fit to stand in a page: scaled by the page, coloured by it, labelled, without clashing identifiers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    size = f' style="max-width:{largest * float(width.group(1)) * 96 / 72:.0f}px"' if width else ""
    label = f' role="img" aria-label="{_escaped(alt)}"'
    svg = svg.replace("<svg", f"<svg{label}{size}", 1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font: ([^;\"]*?) ?([\d.]+px) [^;\"]*", r"font: \1 \2 var(--font)", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return re.sub(
        r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", lambda found: _smaller(found.group(1)), svg
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _smaller(encoded: str) -> str:
    """Write an image of few colours with a palette: a quarter of the bytes."""
    data = base64.b64decode(encoded)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    flat = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
    colours, indices = np.unique(flat, return_inverse=True)
    if colours.size <= COLOURS:
        table = colours.view(np.uint8).reshape(-1, 4)
        made = Image.fromarray(indices.reshape(flat.shape).astype(np.uint8), mode="P")
        made.putpalette(table[:, :3].tobytes())
        sink = io.BytesIO()
        made.save(sink, format="PNG", optimize=True, transparency=table[:, 3].tobytes())
        data = min(data, sink.getvalue(), key=len)
    return "data:image/png;base64," + base64.b64encode(data).decode()
