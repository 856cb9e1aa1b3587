"""A small picture of an image: apparent flux, a perceptually uniform colour scale, the beam."""

from __future__ import annotations

from io import BytesIO

from contimg.records.images import Beam
from contimg_image.frame import Frame, Singles

MAX_WIDTH_PX = 900
COLOUR_RANGE_RMS = (-3.0, 25.0)
"""Ends of the colour scale, in units of the rms."""
MJY_PER_JY = 1e3
BEAM_MAGNIFICATION = 10.0
"""The beam's ellipse is drawn this much larger: it would be too small to see."""


def draw_thumbnail(image: Singles, frame: Frame, rms_jy: float, beam: Beam, title: str) -> bytes:
    """Return a PNG of an image, Jy/beam; the same image makes the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    small, factor = shrink_to_maxima(image)
    half = small.shape[0] * factor * frame.cell_deg / 2
    low, high = (level * rms_jy * MJY_PER_JY for level in COLOUR_RANGE_RMS)
    figure = Figure(figsize=(7.2, 6.2), dpi=110)
    axes = figure.add_axes((0.1, 0.09, 0.74, 0.86))
    shown = axes.imshow(
        small * MJY_PER_JY,
        origin="lower",
        extent=(half, -half, -half, half),
        cmap="cividis",
        interpolation="nearest",
        vmin=low,
        vmax=high,
    )
    bar = figure.add_axes((0.86, 0.09, 0.03, 0.86))
    figure.colorbar(shown, cax=bar, label="mJy/beam", extend="both")
    axes.set(xlabel="offset in RA, deg", ylabel="offset in Dec, deg", title=title)
    corner = 0.88 * half
    width, height = BEAM_MAGNIFICATION * beam.minor_deg, BEAM_MAGNIFICATION * beam.major_deg
    place = (corner, -corner)
    axes.add_patch(Ellipse(place, width, height, angle=-beam.pa_deg, fc="none", ec="white", lw=1.2))
    label = f"beam × {BEAM_MAGNIFICATION:.0f}"
    axes.text(0.72 * half, -corner, label, color="white", va="center", fontsize=8)
    FigureCanvasAgg(figure)
    sink = BytesIO()
    # Noise does not compress: the usual level 6 takes two and a half times as long, to save 5 %.
    figure.savefig(
        sink, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4}
    )
    return sink.getvalue()


def shrink_to_maxima(image: Singles) -> tuple[Singles, int]:
    """Return the brightest pixel of each square, and the side of the squares.

    So no point source is lost.
    """
    factor = max(1, -(-image.shape[0] // MAX_WIDTH_PX))
    kept = image.shape[0] // factor * factor
    first = (image.shape[0] - kept) // 2
    part = image[first : first + kept, first : first + kept]
    return part.reshape(kept // factor, factor, kept // factor, factor).max(axis=(1, 3)), factor
