"""A small picture of an image: corrected nowhere, colours that everyone can tell apart, a colour bar and the beam's ellipse."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_image.frame import Frame

PIXELS = 900
"""Most pixels along a side."""
LOW, HIGH = -3.0, 25.0
"""Ends of the colour scale, in units of the rms."""
TO_MJY = 1e3


def thumbnail(
    image: npt.NDArray[np.float32],
    frame: Frame,
    rms_jy: float,
    beam_deg: tuple[float, float, float],
    title: str,
) -> bytes:
    """Return a PNG of an image, Jy/beam; the same image makes the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    small, factor = shrink(image)
    half = small.shape[0] * factor * frame.cell_deg / 2
    figure = Figure(figsize=(7.2, 6.2), dpi=110)
    axes = figure.add_axes((0.1, 0.09, 0.74, 0.86))
    shown = axes.imshow(
        small * TO_MJY,
        origin="lower",
        extent=(half, -half, -half, half),
        cmap="cividis",
        interpolation="nearest",
        vmin=LOW * rms_jy * TO_MJY,
        vmax=HIGH * rms_jy * TO_MJY,
    )
    figure.colorbar(
        shown, cax=figure.add_axes((0.86, 0.09, 0.03, 0.86)), label="mJy/beam", extend="both"
    )
    axes.set(xlabel="offset in RA, deg", ylabel="offset in Dec, deg", title=title)
    major, minor, angle = beam_deg
    # Ten times its size, or nobody would see it.
    scale = 10.0
    corner = 0.88 * half
    axes.add_patch(
        Ellipse(
            (corner, -corner),
            scale * minor,
            scale * major,
            angle=-angle,
            fc="none",
            ec="white",
            lw=1.2,
        )
    )
    axes.text(0.72 * half, -corner, f"beam × {scale:.0f}", color="white", va="center", fontsize=8)
    FigureCanvasAgg(figure)
    sink = BytesIO()
    # Noise does not compress: the usual level 6 takes two and a half times as long, to save 5 %.
    figure.savefig(
        sink, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4}
    )
    return sink.getvalue()


def shrink(image: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], int]:
    """Return the brightest pixel of each square, so that no point source is lost, and the squares' side."""
    factor = max(1, -(-image.shape[0] // PIXELS))
    kept = image.shape[0] // factor * factor
    first = (image.shape[0] - kept) // 2
    part = image[first : first + kept, first : first + kept]
    return part.reshape(kept // factor, factor, kept // factor, factor).max(axis=(1, 3)), factor
