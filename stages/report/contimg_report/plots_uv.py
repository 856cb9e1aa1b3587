"""Figures of the visibilities that were imaged: uv coverage, and amplitude against uv distance with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm

from contimg_report.figure import BLUE, GREEN, INK, ORANGE, SOFT_BLUE, Picture, new, picture, plain

if TYPE_CHECKING:
    from contimg_report.material import Artifact

Arrays = dict[str, np.ndarray[Any, Any]]
KILO = 1e3
BINS = 14
"""Bins of uv distance, with as many baselines each."""
FAINTEST = 1e-3
"""Coverage below this part of the fullest cell looks like no coverage."""


def pictures(artifact: Artifact) -> list[Picture]:
    """Draw coverage and amplitudes; nothing for an image that was made without them."""
    if not artifact.has("uv.npz"):
        return []
    arrays = artifact.arrays("uv.npz")
    return [coverage(arrays), amplitudes(arrays)]


def coverage(arrays: Arrays) -> Picture:
    """Draw the sum of weights in each cell of the uv plane, both halves."""
    upper, cell = arrays["coverage"].astype(np.float64), float(arrays["cell_wavelengths"]) / KILO
    whole = both_halves(upper) / upper.max()
    y, x = np.indices(upper.shape) + 0.5
    longest = float(arrays["uv_wavelengths"].max()) / KILO
    filled = float(np.mean(upper[np.hypot(x - upper.shape[0], y) * cell <= longest] > 0))
    reach = upper.shape[0] * cell
    figure, (axes,) = new(3.9, bar="right")
    shown = axes.imshow(
        np.where(whole > 0, whole, np.nan),
        extent=(-reach, reach, -reach, reach),
        cmap="cividis",
        norm=LogNorm(FAINTEST, 1),
    )
    axes.grid(visible=False)
    axes.set(xlabel="u (kλ)", ylabel="v (kλ)")
    bar = figure.colorbar(
        shown, ax=axes, label="Weight of a cell / of the fullest", fraction=0.045, pad=0.03
    )
    plain(bar.ax.yaxis)
    alt = (
        f"Coverage of the uv plane by {arrays['samples'].size} baselines out to {longest:.1f} kilowavelengths; "
        f"{100 * filled:.0f} % of the cells of {1e3 * cell:.0f} wavelengths hold data."
    )
    return picture(
        figure,
        "uv-coverage",
        alt,
        f"uv coverage, all channels and times, in cells of {1e3 * cell:.0f}\u00a0λ.",
        largest=1.5,
    )


def both_halves(upper: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the whole plane from its half of v > 0: what lies at (u, v) lies at (-u, -v), too."""
    return np.vstack([upper[::-1, ::-1], upper])


def binned(
    distance: np.ndarray[Any, Any], power: np.ndarray[Any, Any], bins: int = BINS
) -> tuple[np.ndarray[Any, Any], ...]:
    """Return median distance and root of the median power of groups of baselines, nearest first; NaN where noise made it negative."""
    parts = [
        part for part in np.array_split(np.argsort(distance, kind="stable"), bins) if part.size
    ]
    middle = np.array([np.median(distance[part]) for part in parts])
    level = np.array([np.median(power[part]) for part in parts])
    return middle, np.sqrt(np.where(level > 0, level, np.nan))


def amplitudes(arrays: Arrays) -> Picture:
    """Draw each baseline's amplitude against its length, and medians of data, model and what is left."""
    distance, power = (
        arrays["uv_wavelengths"].astype(np.float64) / KILO,
        arrays["power_jy2"].astype(np.float64),
    )
    modelled, sources = bool(np.any(arrays["model_jy2"] > 0)), int(arrays["sources"])
    figure, (axes,) = new(3.9)
    seen = power > 0
    axes.plot(
        distance[seen],
        np.sqrt(power[seen]),
        ".",
        color=SOFT_BLUE,
        alpha=0.35,
        markersize=1.6,
        rasterized=True,
    )
    x, data = binned(distance, power)
    axes.plot(x, data, "o", color=BLUE, markersize=4, label="data, median")
    level = [data]
    if modelled:
        _, model = binned(distance, arrays["model_jy2"])
        _, left = binned(distance, arrays["left_jy2"])
        axes.plot(x, model, "-", color=ORANGE, linewidth=1.6, label="model")
        axes.plot(x, left, "s--", color=GREEN, markersize=3, linewidth=0.9, label="data − model")
        level += [model, left]
    floor = np.sqrt(np.median(arrays["noise_jy2"] / np.sqrt(arrays["samples"])))
    if np.isfinite(floor):
        axes.axhline(
            float(floor), color=INK, linewidth=0.8, linestyle=":", label="noise of a baseline, 1σ"
        )
        level.append(np.array([float(floor)]))
    every = np.concatenate(level)
    axes.set(xscale="log", yscale="log", xlabel="uv distance (kλ)", ylabel="rms amplitude (Jy)")
    axes.set_ylim(
        0.4 * np.nanmin(every),
        3 * np.nanmax([np.nanmax(every), np.sqrt(np.quantile(np.maximum(power, 0), 0.99))]),
    )
    plain(axes.xaxis, axes.yaxis)
    axes.legend(loc="lower left", ncols=2)
    words = (
        _ratio(x, data, model) if modelled else "no model, because the primary beam is not known"
    )
    alt = f"Amplitude against uv distance of {distance.size} baselines, from {distance.min():.2f} to {distance.max():.1f} kilowavelengths: {words}."
    caption = "Amplitude against uv distance: a dot is a baseline's rms over times and channels, its noise taken off."
    about = (
        f" Model: {sources} sources at catalogue places, their fluxes fitted."
        if modelled
        else " The primary beam is unknown: no model."
    )
    gaps = " Where a line has a gap, noise is all there is." if np.isnan(every).any() else ""
    return picture(figure, "uv-amplitude", alt, caption + about + gaps, largest=1.5)


def _ratio(x: np.ndarray[Any, Any], data: np.ndarray[Any, Any], model: np.ndarray[Any, Any]) -> str:
    """Say how the model compares at both ends."""
    good = np.flatnonzero(np.isfinite(data) & np.isfinite(model))
    if not good.size:
        return "no signal above the noise"
    ends = (good[0], good[-1])
    return " and ".join(
        f"{data[k]:.2f} Jy (model {model[k]:.2f} Jy) at {x[k]:.2f} kilowavelengths" for k in ends
    )
