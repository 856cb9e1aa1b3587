"""Figures of one image's fluxes and positions against the catalogue."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_report.artifacts import column
from contimg_report.figure import BLUE, INK, ORANGE, Picture, finish, label_plainly, new_figure

MIN_SNR = 20.0
"""Noise dominates the flux ratio of fainter sources."""


def draw_fluxes(table: pa.Table) -> list[Picture]:
    """Draw flux ratios and position offsets to the catalogue; empty without bright sources."""
    ratio, snr = column(table, "flux_ratio"), column(table, "snr")
    good = np.isfinite(ratio) & (snr >= MIN_SNR) & (column(table, "blend") == 1)
    if not good.any():
        return []
    ratio, catalogue_mjy = ratio[good], column(table, "catalogue_flux")[good]
    median = float(np.median(ratio))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(ratio - median)))
    figure, (axes,) = new_figure(3.0)
    axes.axhspan(median - scatter, median + scatter, color=BLUE, alpha=0.15, linewidth=0)
    axes.axhline(median, color=BLUE)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.plot(catalogue_mjy, ratio, "o", color=BLUE, alpha=0.8)
    reach = max(0.2, float(np.quantile(np.abs(ratio - 1), 0.98)) * 1.2)
    axes.set(xscale="log", xlabel="Catalogue flux (mJy)")
    axes.set(ylabel="Our peak / catalogue", ylim=(1 - reach, 1 + reach))
    label_plainly(axes.xaxis)
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
    figure, (axes,) = new_figure(3.4)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.plot(east, north, "o", color=BLUE, alpha=0.8)
    axes.plot(x, y, "+", color=ORANGE, markersize=14, markeredgewidth=2)
    axes.set(xlabel="East offset (arcsec)", ylabel="North offset (arcsec)", aspect="equal")
    axes.set(xlim=(reach, -reach), ylim=(-reach, reach))
    text = f"{east.size} sources: median ({x:+.2f}″, {y:+.2f}″), "
    text += f"median distance {float(np.median(distance)):.2f}″"
    caption = f"Positions against NVSS, {text}. The cross is the median."
    alt = f"Positions against the catalogue, {text}."
    return [*pictures, finish(figure, "offsets", alt, caption)]
