"""Figures of the image: planes, beams, the visibilities behind it, and fluxes measured on it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from matplotlib.patches import Ellipse

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.records.images import Beam, SkyImage
from contimg.runtime.errors import BadImageError
from contimg_report import figure as fig
from contimg_report.artifacts import ReportArtifact, column
from contimg_report.figure import GREEN, ORANGE, Array, Picture, Style, draw_map, finish

CONTOUR_COLOURS = ("#ffffff", "#ffffff", "#1c2530")
"""Visible on the dark and on the bright end of the map."""
MAX_PIXELS = 512
"""Pixels across on the page."""
BEAM_LEVELS = (0.2, 0.5, 0.8)
ELLIPSE_SCALE = 5
"""The restoring beam is drawn so much larger: at true size it would be a dot."""
DISTANCE_BINS = 14
"""Bins of uv distance, with as many baselines each."""
MIN_COVERAGE = 1e-3
"""Lower end of the colour scale of the uv coverage, a fraction of the fullest cell."""
MIN_SNR = 20.0
"""Noise dominates the flux ratio of fainter sources."""


def draw_planes(artifact: ReportArtifact) -> list[Picture]:
    """Draw the planes of an image artifact that are there."""
    pictures = []
    for plane in ("image", "residual", "rms", "beam", "psf"):
        if artifact.has(f"{plane}.fits"):
            image, beam = artifact.image(f"{plane}.fits"), None
            with suppress(BadImageError):  # a header without a beam
                beam = image.beam
            if plane == "psf":
                pictures.append(draw_psf(image, beam))
            else:
                rms_mjy = 1e3 * float(artifact.manifest.metrics["rms_jy"])
                pictures.append(draw_plane(plane, image, beam, rms_mjy))
    return pictures


def shrink(pixels: Array, size: int = MAX_PIXELS) -> Array:
    """Average blocks of pixels until at most `size` are left across; NaN are left out."""
    factor = -(-max(pixels.shape) // size)
    height, width = (length - length % factor for length in pixels.shape)
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor)
    good = np.isfinite(blocks)
    total, count = np.where(good, blocks, 0.0).sum(axis=(1, 3)), good.sum(axis=(1, 3))
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def draw_plane(plane: str, image: SkyImage, beam: Beam | None, rms_mjy: float) -> Picture:
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
    if beam is not None:
        draw_beam(axes, beam, (0.88 * half_x, -0.88 * half_y))
        size = f"{beam.major_deg * 3600:.0f}″ × {beam.minor_deg * 3600:.0f}″"
        caption += f" Beam {size} at {beam.pa_deg:.0f}° (ellipse, five times as large)."
    return finish(figure, f"sky-{plane}", alt, caption, largest=1.5)


def draw_psf(image: SkyImage, beam: Beam | None) -> Picture:
    """Draw the middle of the PSF; the rest is sidelobes."""
    cell_deg = abs(image.cell_deg[0])
    major_px = beam.major_deg / cell_deg if beam else 12
    half = int(min(min(image.pixels.shape) // 2, max(16, 4 * major_px)))
    y, x = (size // 2 for size in image.pixels.shape)
    middle = shrink(image.pixels[y - half : y + half, x - half : x + half], 256)
    outside, near = np.array(image.pixels), half // 2
    outside[y - near : y + near, x - near : x + near] = np.nan
    reach = half * cell_deg * 3600
    labels = ("East (arcsec)", "North (arcsec)", "Response (asinh scale)")
    norm = AsinhNorm(0.05, vmin=-1, vmax=1)
    figure, _, bar = draw_map(middle, (reach, -reach, -reach, reach), labels, norm, "PuOr_r")
    levels = (-1, -0.3, -0.1, 0, 0.1, 0.3, 1)
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
    bar.minorticks_off()
    alt = f"The point spread function out to {reach:.0f} arcsec; farther out its sidelobes reach "
    alt += f"{np.nanmax(np.abs(outside)):.2f}."
    caption = "Point spread function (dirty beam), its middle."
    return finish(figure, "sky-psf", alt, caption, largest=1.5)


def draw_beam(axes: Axes, beam: Beam, place: tuple[float, float]) -> None:
    """Draw the restoring beam; East is to the left, so the position angle changes its sign."""
    size = ELLIPSE_SCALE * beam.minor_deg, ELLIPSE_SCALE * beam.major_deg
    axes.add_patch(Ellipse(place, *size, angle=-beam.pa_deg, facecolor=ORANGE, edgecolor="none"))


def draw_visibilities(artifact: ReportArtifact) -> list[Picture]:
    """Draw coverage and amplitudes, if the image was made with them."""
    arrays = artifact.arrays("uv.npz") if artifact.has("uv.npz") else None
    return [draw_coverage(arrays), draw_amplitudes(arrays)] if arrays else []


def draw_coverage(arrays: dict[str, Array]) -> Picture:
    """Draw the sum of weights in each cell of the uv plane, from its half of v > 0."""
    upper = arrays["coverage"].astype(np.float64)
    cell = float(arrays["cell_wavelengths"]) / 1e3  # kilowavelengths, as all lengths here
    whole = np.vstack([upper[::-1, ::-1], upper]) / upper.max()  # (-u, -v) holds the same
    y, x = np.indices(upper.shape) + 0.5
    longest = float(arrays["uv_wavelengths"].max()) / 1e3
    filled = float(np.mean(upper[np.hypot(x - upper.shape[0], y) * cell <= longest] > 0))
    reach = upper.shape[0] * cell
    pixels, extent = np.where(whole > 0, whole, np.nan), (-reach, reach, -reach, reach)
    labels = ("u (kλ)", "v (kλ)", "Weight of a cell / of the fullest")
    figure, _, bar = draw_map(pixels, extent, labels, LogNorm(MIN_COVERAGE, 1))
    fig.label_plainly(bar.ax.yaxis)
    size = f"{1e3 * cell:.0f}"
    alt = f"Coverage of the uv plane by {arrays['samples'].size} baselines out to {longest:.1f} "
    alt += f"kilowavelengths; {100 * filled:.0f} % of the cells of {size} wavelengths hold data."
    caption = f"uv coverage, all channels and times, in cells of {size}\u00a0λ."
    return finish(figure, "uv-coverage", alt, caption, largest=1.5)


def bin_power(distance: Array, power: Array, bins: int = DISTANCE_BINS) -> tuple[Array, Array]:
    """Return median distance and root of the median power of groups of baselines, nearest first.

    NaN where noise made the median power negative.
    """
    order = np.argsort(distance, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    level = np.array([np.median(power[part]) for part in parts])
    middle = np.array([np.median(distance[part]) for part in parts])
    return middle, np.sqrt(np.where(level > 0, level, np.nan))


def draw_amplitudes(arrays: dict[str, Array]) -> Picture:
    """Draw each baseline's amplitude against its length; medians of data, model and residual."""
    distance = arrays["uv_wavelengths"].astype(np.float64) / 1e3
    power = arrays["power_jy2"].astype(np.float64)
    figure, (axes,) = fig.new_figure(3.9)
    seen = power > 0
    dots: Style = {"color": fig.SOFT_BLUE, "alpha": 0.35, "markersize": 1.6, "rasterized": True}
    axes.plot(distance[seen], np.sqrt(power[seen]), ".", **dots)
    x, data = bin_power(distance, power)
    axes.plot(x, data, "o", color=fig.BLUE, markersize=4, label="data, median")
    levels, note = [data], " The primary beam is unknown: no model."
    text = "no model, because the primary beam is not known"
    if np.any(arrays["model_jy2"] > 0):
        _, model = bin_power(distance, arrays["model_jy2"])
        _, left = bin_power(distance, arrays["left_jy2"])
        rest: Style = {"color": GREEN, "markersize": 3, "linewidth": 0.9, "label": "data − model"}
        axes.plot(x, model, "-", color=ORANGE, linewidth=1.6, label="model")
        axes.plot(x, left, "s--", **rest)
        levels += [model, left]
        good = np.flatnonzero(np.isfinite(data) & np.isfinite(model))
        ends = [
            f"{data[k]:.2f} Jy (model {model[k]:.2f} Jy) at {x[k]:.2f} kilowavelengths"
            for k in (good[:1].tolist() + good[-1:].tolist())
        ]
        text = " and ".join(ends) or "no signal above the noise"
        count = int(arrays["sources"])
        note = f" Model: {count} sources at catalogue positions, with fitted fluxes."
    noise = float(np.sqrt(np.median(arrays["noise_jy2"] / np.sqrt(arrays["samples"]))))
    if np.isfinite(noise):
        line: Style = {"linewidth": 0.8, "linestyle": ":", "label": "noise of a baseline, 1σ"}
        axes.axhline(noise, color=fig.INK, **line)
        levels.append(np.array([noise]))
    every = np.concatenate(levels)
    top = 3 * np.nanmax([*every, np.sqrt(np.quantile(np.maximum(power, 0), 0.99))])
    axes.set(xscale="log", xlabel="uv distance (kλ)")
    axes.set(yscale="log", ylabel="rms amplitude (Jy)", ylim=(0.4 * np.nanmin(every), top))
    fig.label_plainly(axes.xaxis, axes.yaxis)
    axes.legend(loc="lower left", ncols=2)
    span = f"from {distance.min():.2f} to {distance.max():.1f} kilowavelengths"
    alt = f"Amplitude against uv distance of {distance.size} baselines, {span}: {text}."
    caption = "Amplitude against uv distance: each dot is a baseline's rms over times and "
    caption += f"channels without its noise.{note}"
    if np.isnan(every).any():
        caption += " Where a line has a gap, there is only noise."
    return finish(figure, "uv-amplitude", alt, caption, largest=1.5)


def draw_fluxes(table: pa.Table) -> list[Picture]:
    """Draw flux ratios and position offsets to the catalogue; empty without bright sources."""
    ratio, snr = column(table, "flux_ratio"), column(table, "snr")
    good = np.isfinite(ratio) & (snr >= MIN_SNR) & (column(table, "blend") == 1)
    if not good.any():
        return []
    ratio, catalogue_mjy = ratio[good], column(table, "catalogue_flux")[good]
    median = float(np.median(ratio))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(ratio - median)))
    figure, (axes,) = fig.new_figure(3.0)
    axes.axhspan(median - scatter, median + scatter, color=fig.BLUE, alpha=0.15, linewidth=0)
    axes.axhline(median, color=fig.BLUE)
    axes.axhline(1, color=fig.INK, linewidth=0.8, linestyle=":")
    axes.plot(catalogue_mjy, ratio, "o", color=fig.BLUE, alpha=0.8)
    reach = max(0.2, float(np.quantile(np.abs(ratio - 1), 0.98)) * 1.2)
    axes.set(xscale="log", xlabel="Catalogue flux (mJy)")
    axes.set(ylabel="Our peak / catalogue", ylim=(1 - reach, 1 + reach))
    fig.label_plainly(axes.xaxis)
    text = f"median {median:.3f}, scatter {scatter:.3f}"
    alt = f"Flux ratio to the catalogue of {ratio.size} bright single sources: {text} (1.4826 MAD)."
    caption = f"Flux ratio to NVSS, {ratio.size} sources: {text} (band)."
    pictures = [finish(figure, "flux-ratio", alt, caption)]
    east, north = column(table, "ra_offset"), column(table, "dec_offset")  # arcsec
    measured = np.isfinite(east) & np.isfinite(north)
    if not measured.any():
        return pictures
    east, north = east[measured], north[measured]
    distance, x, y = np.hypot(east, north), float(np.median(east)), float(np.median(north))
    reach = max(2.0, 1.1 * float(np.quantile(distance, 0.98)))
    figure, (axes,) = fig.new_figure(3.4)
    axes.axhline(0, color=fig.INK, linewidth=0.6)
    axes.axvline(0, color=fig.INK, linewidth=0.6)
    axes.plot(east, north, "o", color=fig.BLUE, alpha=0.8)
    axes.plot(x, y, "+", color=ORANGE, markersize=14, markeredgewidth=2)
    axes.set(xlabel="East offset (arcsec)", ylabel="North offset (arcsec)", aspect="equal")
    axes.set(xlim=(reach, -reach), ylim=(-reach, reach))
    text = f"{east.size} sources: median ({x:+.2f}″, {y:+.2f}″), "
    text += f"median distance {float(np.median(distance)):.2f}″"
    caption = f"Positions against NVSS, {text}. The cross is the median."
    alt = f"Positions against the catalogue, {text}."
    return [*pictures, finish(figure, "offsets", alt, caption)]
