"""Figures of the flags: over frequency and time, and over the array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.telescope import stations
from contimg_report.figure import BLUE, INK, ORANGE, Picture, new, picture
from contimg_report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUBBANDS = 16
HIGH = 0.3
"""Flagged fraction from which an antenna is worth naming."""


def over_frequency(flagging: dict[str, Any]) -> Picture:
    """Draw the flagged fraction of each channel."""
    fraction = 100 * np.array(flagging["channel_fraction"])
    frequency = (
        flagging["frequency_first_hz"] + flagging["channel_width_hz"] * np.arange(fraction.size)
    ) / 1e6
    figure, (axes,) = new(2.4)
    axes.step(frequency, fraction, where="mid", color=BLUE)
    axes.fill_between(frequency, fraction, step="mid", color=BLUE, alpha=0.25)
    axes.set(
        xlabel="Frequency (MHz)",
        ylabel="Flagged (%)",
        ylim=(0, _top(fraction)),
        xlim=(frequency[0], frequency[-1]),
    )
    worst = int(np.argmax(fraction))
    alt = f"Flagged fraction against frequency: median {np.median(fraction):.2f} %, most {fraction[worst]:.1f} % at {frequency[worst]:.1f} MHz."
    return picture(
        figure, "flag-frequency", alt, "Flagged fraction of the cross-correlations in each channel."
    )


def over_time(flagging: dict[str, Any]) -> Picture:
    """Draw the flagged fraction of each integration."""
    fraction = 100 * np.array(flagging["integration_fraction"])
    seconds = 86400 * (np.array(flagging["integration_mjd"]) - flagging["integration_mjd"][0])
    width = 0.8 * (seconds[1] - seconds[0] if seconds.size > 1 else 1.0)
    figure, (axes,) = new(2.4)
    axes.bar(seconds, fraction, width=width, color=BLUE, alpha=0.7)
    axes.set(
        xlabel="Seconds after the first integration", ylabel="Flagged (%)", ylim=(0, _top(fraction))
    )
    alt = f"Flagged fraction of each of {fraction.size} integrations: from {fraction.min():.2f} to {fraction.max():.2f} %."
    return picture(
        figure, "flag-time", alt, "Flagged fraction of the cross-correlations in each integration."
    )


def over_array(flagging: dict[str, Any]) -> Picture:
    """Draw the array, each station coloured by what it lost."""
    places = stations()
    where = {str(number): k for k, number in enumerate(places.number)}
    known = [item for item in flagging["antennas"] if item["name"] in where]
    index = np.array([where[item["name"]] for item in known], int)
    east = np.radians(places.lon_deg - np.median(places.lon_deg)) * np.cos(np.radians(37.2)) * 6371
    north = np.radians(places.lat_deg - np.median(places.lat_deg)) * 6371
    lost = np.array([100 * float(np.mean(item["fraction"])) for item in known])
    figure, (axes,) = new(4.0, bar="right")
    shown = axes.scatter(
        east[index],
        north[index],
        c=lost,
        cmap="cividis",
        vmin=0,
        vmax=_top(lost),
        s=16,
        edgecolors=INK,
        linewidths=0.4,
    )
    axes.set(xlabel="East (km)", ylabel="North (km)", aspect="equal")
    figure.colorbar(shown, ax=axes, label="Flagged (%)", fraction=0.045, pad=0.03)
    dead = [item["name"] for item in known if item["dead"]]
    _ring(axes, [(east[where[name]], north[where[name]], name) for name in dead])
    text = f"dead: {', '.join(dead)}" if dead else "none dead"
    alt = f"Map of {len(known)} antennas coloured by flagged fraction, from {lost.min():.1f} to {lost.max():.1f} %; {text}."
    return picture(
        figure, "flag-array", alt, f"Health of the {len(known)} antennas on the ground ({text})."
    )


def bad_antennas(flagging: dict[str, Any]) -> list[dict[str, str]]:
    """Return rows for the antennas that are dead or lost much."""
    rows = [item for item in flagging["antennas"] if item["dead"] or max(item["fraction"]) > HIGH]
    rows.sort(key=lambda item: -max(item["fraction"]))
    return [
        {
            "name": item["name"],
            "dead": ", ".join(item["dead"]) or "–",
            "fraction": " / ".join(percent(f) for f in item["fraction"]),
        }
        for item in rows
    ]


def _ring(axes: Axes, dead: list[tuple[float, float, str]]) -> None:
    for x, y, name in dead:
        axes.plot(
            x,
            y,
            "o",
            markersize=8,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            markeredgewidth=1.5,
        )
        axes.annotate(
            name, (x, y), xytext=(6, 4), textcoords="offset points", color=ORANGE, fontsize=8
        )


def _top(percentages: np.ndarray[Any, Any]) -> float:
    return max(1.0, 1.1 * float(np.max(percentages, initial=0.0)))
