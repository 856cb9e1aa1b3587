"""Figures of one image's fluxes against the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_report.figure import BLUE, INK, ORANGE, Picture, new, picture, plain
from contimg_report.material import column
from contimg_report.words import number

if TYPE_CHECKING:
    import pyarrow as pa

BRIGHT_SNR = 20.0
"""Fainter sources tell noise from the flux scale no better."""
SHOWN = 15
"""Rows of the table of sources."""


def pictures(table: pa.Table) -> list[Picture]:
    """Draw the flux ratio and the offsets, if there are bright single sources."""
    ratio, snr = column(table, "flux_ratio"), column(table, "snr")
    good = np.isfinite(ratio) & (snr >= BRIGHT_SNR) & (column(table, "blend") == 1)
    if not good.any():
        return []
    made = [_ratio(ratio[good], column(table, "catalogue_flux")[good])]
    east, north = column(table, "ra_offset"), column(table, "dec_offset")
    placed = np.isfinite(east) & np.isfinite(north)
    if placed.any():
        made.append(_offsets(east[placed], north[placed]))
    return made


def _ratio(ratio: np.ndarray[Any, Any], catalogue_mjy: np.ndarray[Any, Any]) -> Picture:
    median = float(np.median(ratio))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(ratio - median)))
    figure, (axes,) = new(3.0)
    axes.axhspan(median - scatter, median + scatter, color=BLUE, alpha=0.15, linewidth=0)
    axes.axhline(median, color=BLUE)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.plot(catalogue_mjy, ratio, "o", color=BLUE, markersize=3.5, alpha=0.8)
    reach = max(0.2, float(np.quantile(np.abs(ratio - 1), 0.98)) * 1.2)
    axes.set(
        xscale="log",
        xlabel="Catalogue flux (mJy)",
        ylabel="Our peak / catalogue",
        ylim=(1 - reach, 1 + reach),
    )
    plain(axes.xaxis)
    alt = f"Flux ratio to the catalogue of {ratio.size} bright single sources: median {median:.3f}, scatter {scatter:.3f} (1.4826 MAD)."
    return picture(
        figure,
        "flux-ratio",
        alt,
        f"Flux ratio to NVSS, {ratio.size} sources: median {median:.3f}, scatter {scatter:.3f} (band).",
    )


def _offsets(east: np.ndarray[Any, Any], north: np.ndarray[Any, Any]) -> Picture:
    middle = float(np.median(east)), float(np.median(north))
    size = float(np.median(np.hypot(east, north)))
    reach = max(2.0, 1.1 * float(np.quantile(np.hypot(east, north), 0.98)))
    figure, (axes,) = new(3.4)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.plot(east, north, "o", color=BLUE, markersize=3.5, alpha=0.8)
    axes.plot(*middle, "+", color=ORANGE, markersize=14, markeredgewidth=2)
    axes.set(
        xlabel="East offset (arcsec)",
        ylabel="North offset (arcsec)",
        aspect="equal",
        xlim=(reach, -reach),
        ylim=(-reach, reach),
    )
    text = f"{east.size} sources: median ({middle[0]:+.2f}″, {middle[1]:+.2f}″), median distance {size:.2f}″"
    return picture(
        figure,
        "offsets",
        f"Positions against the catalogue, {text}.",
        f"Positions against NVSS, {text}. The cross is the median.",
    )


def brightest(table: pa.Table) -> list[dict[str, str]]:
    """Return rows for the brightest sources."""
    columns = {
        name: column(table, name)
        for name in (
            "source",
            "flux_forced",
            "flux_peak_err",
            "snr",
            "beam",
            "catalogue_flux",
            "flux_ratio",
        )
    }
    order = np.argsort(-columns["flux_forced"])[:SHOWN]
    return [
        {
            "source": str(columns["source"][k]),
            "flux": number(columns["flux_forced"][k], 1),
            "error": number(columns["flux_peak_err"][k], 1),
            "snr": number(columns["snr"][k], 0),
            "beam": number(columns["beam"][k]),
            "catalogue": number(columns["catalogue_flux"][k], 1),
            "ratio": number(columns["flux_ratio"][k], 3),
        }
        for k in order
    ]
