"""Figures of the image: what was cleaned, what is left, how deep it is, and the beams."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.patches import Ellipse

from contimg.records.images import Beam, SkyImage
from contimg.runtime.errors import BadImageError
from contimg_report.artifacts import ReportArtifact
from contimg_report.figure import ORANGE, Array, Picture, Style, draw_map, finish

CONTOUR_COLOURS = ("#ffffff", "#ffffff", "#1c2530")
"""Visible on the dark and on the bright end of the map."""
MAX_PIXELS = 512
"""Pixels across on the page."""
BEAM_LEVELS = (0.2, 0.5, 0.8)
ELLIPSE_SCALE = 5
"""The restoring beam is drawn so much larger: at true size it would be a dot."""


def draw_planes(artifact: ReportArtifact) -> list[Picture]:
    """Draw the planes of an image artifact that are there."""
    rms_mjy = 1e3 * float(artifact.metrics["rms_jy"])
    pictures = []
    for plane in ("image", "residual", "rms", "beam", "psf"):
        if artifact.has(f"{plane}.fits"):
            image = artifact.image(f"{plane}.fits")
            pictures.append(
                draw_psf(image) if plane == "psf" else draw_plane(plane, image, rms_mjy)
            )
    return pictures


def shrink(pixels: Array, size: int = MAX_PIXELS) -> Array:
    """Average blocks of pixels until at most `size` are left across; NaN are left out."""
    factor = -(-max(pixels.shape) // size)
    height, width = (length - length % factor for length in pixels.shape)
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor)
    good = np.isfinite(blocks)
    total, count = np.where(good, blocks, 0.0).sum(axis=(1, 3)), good.sum(axis=(1, 3))
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def draw_plane(plane: str, image: SkyImage, rms_mjy: float) -> Picture:
    """Draw the image, its residual, the map of the local noise or that of the effective beam."""
    height, width = image.pixels.shape
    half_x, half_y = abs(image.cell_deg[0]) * width / 2, abs(image.cell_deg[1]) * height / 2
    label, cmap = "mJy/beam", "cividis"
    pixels = shrink(image.pixels, 256) if plane == "beam" else 1e3 * shrink(image.pixels)
    if plane == "image":
        peak = float(np.nanmax(image.pixels)) * 1e3
        top = max(0.3 * peak, 10 * rms_mjy)
        norm: Normalize = AsinhNorm(linear_width=2 * rms_mjy, vmin=-3 * rms_mjy, vmax=top)
        label = "mJy/beam (asinh scale)"
        alt = f"The cleaned image, {2 * half_x:.1f} by {2 * half_y:.1f} degrees; "
        alt += f"peak {peak:.1f} mJy per beam, rms {rms_mjy:.2f} mJy per beam."
        caption = "Cleaned image, not corrected for the beam."
    elif plane == "residual":
        most = float(np.nanmax(np.abs(image.pixels))) * 1e3
        norm, cmap = Normalize(-5 * rms_mjy, 5 * rms_mjy), "PuOr_r"
        alt = f"The residual after cleaning; largest deviation {most:.2f} mJy per beam."
        caption = "Residual, from −5 to +5 rms."
    elif plane == "rms":
        low, high = np.nanpercentile(pixels, [1, 99])
        norm = Normalize(float(low), float(high))
        alt = f"Map of the local noise: from {low:.2f} to {high:.2f} mJy per beam over 98 % of it."
        caption = "Local rms."
    else:
        norm, label = Normalize(0, 1), "Sensitivity"
        alt = f"The effective beam, 1 at the centre, {np.nanmin(pixels):.2f} at its least; "
        alt += "with contours at 0.2, 0.5 and 0.8."
        caption = "Effective beam, with drift, channels and smearing."
    extent = (half_x, -half_x, -half_y, half_y)
    labels = ("East of the centre (deg)", "North of the centre (deg)", label)
    figure, axes, bar = draw_map(pixels, extent, labels, norm, cmap)
    if plane == "beam":
        lines: Style = {"colors": CONTOUR_COLOURS, "linewidths": 0.9}
        axes.contour(pixels, BEAM_LEVELS, extent=extent, **lines)
    if isinstance(norm, AsinhNorm):
        decades = [v for v in 10.0 ** np.arange(-2, 6) if norm.linear_width < v < (norm.vmax or 0)]
        bar.set_ticks([0.0, *decades], labels=["0", *(f"{v:g}" for v in decades)])
        bar.minorticks_off()
    beam = restoring_beam(image)
    if beam is not None:
        draw_beam(axes, beam, (0.88 * half_x, -0.88 * half_y))
        size = f"{beam.major_deg * 3600:.0f}″ × {beam.minor_deg * 3600:.0f}″"
        caption += f" Beam {size} at {beam.pa_deg:.0f}° (ellipse, five times as large)."
    return finish(figure, f"sky-{plane}", alt, caption, largest=1.5)


def draw_psf(image: SkyImage) -> Picture:
    """Draw the middle of the PSF; the rest is sidelobes."""
    cell_deg, beam = abs(image.cell_deg[0]), restoring_beam(image)
    major_px = beam.major_deg / cell_deg if beam else 12
    half = int(min(min(image.pixels.shape) // 2, max(16, 4 * major_px)))
    y, x = (size // 2 for size in image.pixels.shape)
    middle = shrink(image.pixels[y - half : y + half, x - half : x + half], 256)
    outside = np.array(image.pixels)
    outside[y - half // 2 : y + half // 2, x - half // 2 : x + half // 2] = np.nan
    reach = half * cell_deg * 3600
    labels = ("East (arcsec)", "North (arcsec)", "Response (asinh scale)")
    norm = AsinhNorm(0.05, vmin=-1, vmax=1)
    figure, _, bar = draw_map(middle, (reach, -reach, -reach, reach), labels, norm, "PuOr_r")
    levels = (-1, -0.3, -0.1, 0, 0.1, 0.3, 1)
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
    bar.minorticks_off()
    sidelobe = f"{np.nanmax(np.abs(outside)):.2f}"
    alt = f"The point spread function out to {reach:.0f} arcsec; farther out its sidelobes reach "
    caption = "Point spread function (dirty beam), its middle."
    return finish(figure, "sky-psf", f"{alt}{sidelobe}.", caption, largest=1.5)


def restoring_beam(image: SkyImage) -> Beam | None:
    """Return the restoring beam; None if the header has none."""
    try:
        return image.beam
    except BadImageError:
        return None


def draw_beam(axes: Axes, beam: Beam, place: tuple[float, float]) -> None:
    """Draw the restoring beam; East is to the left, so the position angle changes its sign."""
    size = ELLIPSE_SCALE * beam.minor_deg, ELLIPSE_SCALE * beam.major_deg
    axes.add_patch(Ellipse(place, *size, angle=-beam.pa_deg, facecolor=ORANGE, edgecolor="none"))
