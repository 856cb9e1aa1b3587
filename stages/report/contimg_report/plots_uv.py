"""Figures of the imaged visibilities: uv coverage, and amplitude against uv distance."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm

from contimg_report.artifacts import ReportArtifact
from contimg_report.figure import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SOFT_BLUE,
    Array,
    Picture,
    Style,
    draw_map,
    finish,
    label_plainly,
    new_figure,
)

Arrays = dict[str, Array]
WAVELENGTHS_PER_KILO = 1e3
DISTANCE_BINS = 14
"""Bins of uv distance, with as many baselines each."""
MIN_COVERAGE = 1e-3
"""Lower end of the colour scale, a fraction of the fullest cell."""


def draw_visibilities(artifact: ReportArtifact) -> list[Picture]:
    """Draw coverage and amplitudes, if the image was made with them."""
    if not artifact.has("uv.npz"):
        return []
    arrays = artifact.arrays("uv.npz")
    return [draw_coverage(arrays), draw_amplitudes(arrays)]


def draw_coverage(arrays: Arrays) -> Picture:
    """Draw the sum of weights in each cell of the uv plane, both halves."""
    upper = arrays["coverage"].astype(np.float64)
    cell = float(arrays["cell_wavelengths"]) / WAVELENGTHS_PER_KILO
    whole = mirror_plane(upper) / upper.max()
    y, x = np.indices(upper.shape) + 0.5
    longest = float(arrays["uv_wavelengths"].max()) / WAVELENGTHS_PER_KILO
    filled = float(np.mean(upper[np.hypot(x - upper.shape[0], y) * cell <= longest] > 0))
    reach = upper.shape[0] * cell
    pixels, extent = np.where(whole > 0, whole, np.nan), (-reach, reach, -reach, reach)
    labels = ("u (kλ)", "v (kλ)", "Weight of a cell / of the fullest")
    figure, _, bar = draw_map(pixels, extent, labels, LogNorm(MIN_COVERAGE, 1))
    label_plainly(bar.ax.yaxis)
    baselines, size = arrays["samples"].size, f"{1e3 * cell:.0f}"
    alt = f"Coverage of the uv plane by {baselines} baselines out to {longest:.1f} kilowavelengths"
    alt += f"; {100 * filled:.0f} % of the cells of {size} wavelengths hold data."
    caption = f"uv coverage, all channels and times, in cells of {size}\u00a0λ."
    return finish(figure, "uv-coverage", alt, caption, largest=1.5)


def mirror_plane(upper: Array) -> Array:
    """Return the whole plane from its half of v > 0: (-u, -v) holds the same as (u, v)."""
    return np.vstack([upper[::-1, ::-1], upper])


def bin_power(distance: Array, power: Array, bins: int = DISTANCE_BINS) -> tuple[Array, Array]:
    """Return median distance and root of the median power of groups of baselines, nearest first.

    NaN where noise made the median power negative.
    """
    order = np.argsort(distance, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    level = np.array([np.median(power[part]) for part in parts])
    middle = np.array([np.median(distance[part]) for part in parts])
    return middle, np.sqrt(np.where(level > 0, level, np.nan))


def draw_amplitudes(arrays: Arrays) -> Picture:
    """Draw each baseline's amplitude against its length; medians of data, model and residual."""
    distance = arrays["uv_wavelengths"].astype(np.float64) / WAVELENGTHS_PER_KILO
    power, has_model = arrays["power_jy2"].astype(np.float64), bool(np.any(arrays["model_jy2"] > 0))
    figure, (axes,) = new_figure(3.9)
    seen = power > 0
    dots: Style = {"color": SOFT_BLUE, "alpha": 0.35, "markersize": 1.6, "rasterized": True}
    axes.plot(distance[seen], np.sqrt(power[seen]), ".", **dots)
    x, data = bin_power(distance, power)
    axes.plot(x, data, "o", color=BLUE, markersize=4, label="data, median")
    levels = [data]
    text = "no model, because the primary beam is not known"
    note = " The primary beam is unknown: no model."
    if has_model:
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
        sources = int(arrays["sources"])
        note = f" Model: {sources} sources at catalogue positions, with fitted fluxes."
    noise = float(np.sqrt(np.median(arrays["noise_jy2"] / np.sqrt(arrays["samples"]))))
    if np.isfinite(noise):
        line: Style = {"linewidth": 0.8, "linestyle": ":", "label": "noise of a baseline, 1σ"}
        axes.axhline(noise, color=INK, **line)
        levels.append(np.array([noise]))
    every = np.concatenate(levels)
    brightest = np.sqrt(np.quantile(np.maximum(power, 0), 0.99))
    top = 3 * np.nanmax([np.nanmax(every), brightest])
    axes.set(xscale="log", xlabel="uv distance (kλ)")
    axes.set(yscale="log", ylabel="rms amplitude (Jy)", ylim=(0.4 * np.nanmin(every), top))
    label_plainly(axes.xaxis, axes.yaxis)
    axes.legend(loc="lower left", ncols=2)
    span = f"from {distance.min():.2f} to {distance.max():.1f} kilowavelengths"
    alt = f"Amplitude against uv distance of {distance.size} baselines, {span}: {text}."
    caption = "Amplitude against uv distance: each dot is a baseline's rms over times and "
    caption += f"channels without its noise.{note}"
    if np.isnan(every).any():
        caption += " Where a line has a gap, there is only noise."
    return finish(figure, "uv-amplitude", alt, caption, largest=1.5)
