"""Figures of the image: what was cleaned, what is left, how deep it is, and the beams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.patches import Ellipse

from contimg.runtime.errors import BadImageError
from contimg_report.figure import ORANGE, Picture, new, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from contimg.records.images import SkyImage
    from contimg_report.material import Artifact

CONTOURS = ("#ffffff", "#ffffff", "#1c2530")
"""Seen on the dark and on the bright end of the map."""
SHOWN = 512
"""Pixels across on the page; more would be noise."""
Pixels = np.ndarray[Any, Any]


def pictures(artifact: Artifact) -> list[Picture]:
    """Draw the planes of an image artifact that are there."""
    rms_mjy = 1e3 * float(artifact.metrics["rms_jy"])
    made = []
    for name, draw in (
        ("image", _image),
        ("residual", _residual),
        ("rms", _rms),
        ("beam", _beam),
        ("psf", _psf),
    ):
        if artifact.has(f"{name}.fits"):
            made.append(draw(artifact.picture(f"{name}.fits"), rms_mjy))
    return made


def shrink(pixels: Pixels, to: int = SHOWN) -> Pixels:
    """Average blocks of pixels until at most `to` are left across; NaN are left out."""
    factor = -(-max(pixels.shape) // to)
    height, width = (size - size % factor for size in pixels.shape)
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor)
    good = np.isfinite(blocks)
    total, count = np.where(good, blocks, 0.0).sum(axis=(1, 3)), good.sum(axis=(1, 3))
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _image(image: SkyImage, rms_mjy: float) -> Picture:
    small = 1e3 * shrink(image.pixels)
    peak = float(np.nanmax(image.pixels)) * 1e3
    norm = AsinhNorm(
        linear_width=2 * rms_mjy, vmin=-3 * rms_mjy, vmax=max(0.3 * peak, 10 * rms_mjy)
    )
    alt = f"The cleaned image, {_extent(image)}; peak {peak:.1f} mJy per beam, rms {rms_mjy:.2f} mJy per beam."
    return _sky(
        "sky-image",
        image,
        small,
        norm,
        "mJy/beam (asinh scale)",
        alt,
        "Cleaned image, not corrected for the beam.",
    )


def _residual(image: SkyImage, rms_mjy: float) -> Picture:
    small = 1e3 * shrink(image.pixels)
    most = float(np.nanmax(np.abs(image.pixels))) * 1e3
    alt = f"The residual after cleaning; largest deviation {most:.2f} mJy per beam."
    norm = Normalize(-5 * rms_mjy, 5 * rms_mjy)
    return _sky(
        "sky-residual",
        image,
        small,
        norm,
        "mJy/beam",
        alt,
        "Residual, from −5 to +5 rms.",
        cmap="PuOr_r",
    )


def _rms(image: SkyImage, _: float) -> Picture:
    small = 1e3 * shrink(image.pixels)
    low, high = np.nanpercentile(small, [1, 99])
    alt = (
        f"Map of the local noise: from {low:.2f} to {high:.2f} mJy per beam over 98 % of the image."
    )
    return _sky(
        "sky-rms",
        image,
        small,
        Normalize(float(low), float(high)),
        "mJy/beam",
        alt,
        "Local rms.",
        cmap="cividis",
    )


def _beam(image: SkyImage, _: float) -> Picture:
    small = shrink(image.pixels, 256)
    alt = f"The effective beam, 1 at the centre, {np.nanmin(small):.2f} at its least; with contours at 0.2, 0.5 and 0.8."
    return _sky(
        "sky-beam",
        image,
        small,
        Normalize(0, 1),
        "Sensitivity",
        alt,
        "Effective beam: drift, channels and smearing in it.",
        cmap="cividis",
        contours=(0.2, 0.5, 0.8),
    )


def _psf(image: SkyImage, _: float) -> Picture:
    """Draw the middle of the PSF; the rest is sidelobes."""
    major_px = _major_deg(image) / abs(image.cell_deg[0])
    half = int(min(min(image.pixels.shape) // 2, max(16, 4 * major_px)))
    y, x = (size // 2 for size in image.pixels.shape)
    middle = shrink(image.pixels[y - half : y + half, x - half : x + half], 256)
    outside = np.array(image.pixels)
    outside[y - half // 2 : y + half // 2, x - half // 2 : x + half // 2] = np.nan
    figure, (axes,) = new(3.9, bar="right")
    reach = half * abs(image.cell_deg[0]) * 3600
    shown = axes.imshow(
        middle,
        extent=(reach, -reach, -reach, reach),
        cmap="PuOr_r",
        norm=AsinhNorm(0.05, vmin=-1, vmax=1),
    )
    axes.grid(visible=False)
    axes.set(xlabel="East (arcsec)", ylabel="North (arcsec)")
    bar = figure.colorbar(shown, ax=axes, label="Response (asinh scale)", fraction=0.045, pad=0.03)
    levels = (-1, -0.3, -0.1, 0, 0.1, 0.3, 1)
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
    bar.minorticks_off()
    alt = f"The point spread function out to {reach:.0f} arcsec; farther out its sidelobes reach {np.nanmax(np.abs(outside)):.2f}."
    return picture(
        figure, "sky-psf", alt, "Point spread function (dirty beam), its middle.", largest=1.5
    )


def _major_deg(image: SkyImage) -> float:
    try:
        return image.beam.major_deg
    except BadImageError:
        return 12 * abs(image.cell_deg[0])  # no fit in the header: show some pixels


def _sky(  # noqa: PLR0913 - one figure
    name: str,
    image: SkyImage,
    small: Pixels,
    norm: Normalize,
    label: str,
    alt: str,
    caption: str,
    *,
    cmap: str = "cividis",
    contours: tuple[float, ...] = (),
) -> Picture:
    figure, (axes,) = new(3.9, bar="right")
    half_x, half_y = (
        abs(cell) * size / 2
        for cell, size in zip(image.cell_deg, image.pixels.shape[::-1], strict=True)
    )
    extent = (half_x, -half_x, -half_y, half_y)
    shown = axes.imshow(small, extent=extent, cmap=cmap, norm=norm)
    if contours:
        axes.contour(small, contours, extent=extent, colors=CONTOURS, linewidths=0.9)
    axes.grid(visible=False)
    axes.set(xlabel="East of the centre (deg)", ylabel="North of the centre (deg)")
    bar = figure.colorbar(shown, ax=axes, label=label, fraction=0.045, pad=0.03)
    if isinstance(norm, AsinhNorm):
        decades = [
            value
            for value in 10.0 ** np.arange(-2, 6)
            if norm.linear_width < value < (norm.vmax or 0)
        ]
        bar.set_ticks(
            [0.0, *decades], labels=["0", *(f"{value:g}" for value in decades)], minor=False
        )
        bar.minorticks_off()
    _ellipse(axes, image, half_x, half_y)
    return picture(figure, name, alt, caption + _beam_words(image), largest=1.5)


def _ellipse(axes: Axes, image: SkyImage, half_x: float, half_y: float) -> None:
    """Draw the restoring beam in the corner, five times as large: at true size it would be a dot."""
    try:
        beam = image.beam
    except BadImageError:
        return
    place = (0.88 * half_x, -0.88 * half_y)
    # East is to the left: the axis runs backwards, so that position angles turn the right way.
    axes.add_patch(
        Ellipse(
            place,
            5 * beam.minor_deg,
            5 * beam.major_deg,
            angle=-beam.pa_deg,
            facecolor=ORANGE,
            edgecolor="none",
        )
    )


def _beam_words(image: SkyImage) -> str:
    try:
        beam = image.beam
    except BadImageError:
        return ""
    return f" Beam {beam.major_deg * 3600:.0f}″ × {beam.minor_deg * 3600:.0f}″ at {beam.pa_deg:.0f}° (ellipse, five times as large)."


def _extent(image: SkyImage) -> str:
    width, height = (
        abs(cell) * size
        for cell, size in zip(image.cell_deg, image.pixels.shape[::-1], strict=True)
    )
    return f"{width:.1f} by {height:.1f} degrees"
