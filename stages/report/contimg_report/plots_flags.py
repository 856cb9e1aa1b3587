"""Figures of the flags."""

from __future__ import annotations

from typing import Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.astro.telescope import SITE, stations
from contimg_report.figure import BLUE, INK, ORANGE, Array, Picture, Style, finish, new_figure

EARTH_RADIUS_KM = 6371


def draw_flags(flagging: dict[str, Any]) -> list[Picture]:
    """Draw the flagged fractions of the channels and integrations, and of the stations on a map."""
    fraction = 100 * np.array(flagging["channel_fraction"])
    offset_hz = flagging["channel_width_hz"] * np.arange(fraction.size)
    frequency = (flagging["frequency_first_hz"] + offset_hz) / 1e6
    figure, (axes,) = new_figure(2.4)
    axes.step(frequency, fraction, where="mid", color=BLUE)
    axes.fill_between(frequency, fraction, step="mid", color=BLUE, alpha=0.25)
    axes.set(xlabel="Frequency (MHz)", xlim=(frequency[0], frequency[-1]))
    axes.set(ylabel="Flagged (%)", ylim=(0, axis_top(fraction)))
    worst = int(np.argmax(fraction))
    most = f"most {fraction[worst]:.1f} % at {frequency[worst]:.1f} MHz"
    alt = f"Flagged fraction against frequency: median {np.median(fraction):.2f} %, {most}."
    caption = "Flagged fraction of the cross-correlations in each channel."
    pictures = [finish(figure, "flag-frequency", alt, caption)]

    fraction = 100 * np.array(flagging["integration_fraction"])
    seconds = DAY_S * (np.array(flagging["integration_mjd"]) - flagging["integration_mjd"][0])
    width = 0.8 * (seconds[1] - seconds[0] if seconds.size > 1 else 1.0)
    figure, (axes,) = new_figure(2.4)
    axes.bar(seconds, fraction, width=width, color=BLUE, alpha=0.7)
    axes.set(xlabel="Seconds after the first integration")
    axes.set(ylabel="Flagged (%)", ylim=(0, axis_top(fraction)))
    span = f"from {fraction.min():.2f} to {fraction.max():.2f} %"
    alt = f"Flagged fraction of each of {fraction.size} integrations: {span}."
    caption = "Flagged fraction of the cross-correlations in each integration."
    pictures.append(finish(figure, "flag-time", alt, caption))

    places = stations()
    where = {str(number): k for k, number in enumerate(places.number)}
    known = [item for item in flagging["antennas"] if item["name"] in where]
    index = np.array([where[item["name"]] for item in known], int)
    scale = EARTH_RADIUS_KM * np.cos(np.radians(SITE.lat_deg))
    east = scale * np.radians(places.lon_deg - np.median(places.lon_deg))
    north = EARTH_RADIUS_KM * np.radians(places.lat_deg - np.median(places.lat_deg))
    lost = np.array([100 * float(np.mean(item["fraction"])) for item in known])
    figure, (axes,) = new_figure(4.0, bar="right")
    colours: Style = {"c": lost, "cmap": "cividis", "vmin": 0, "vmax": axis_top(lost)}
    shown = axes.scatter(east[index], north[index], s=16, edgecolors=INK, linewidths=0.4, **colours)
    axes.set(xlabel="East (km)", ylabel="North (km)", aspect="equal")
    figure.colorbar(shown, ax=axes, label="Flagged (%)", fraction=0.045, pad=0.03)
    dead = [item["name"] for item in known if item["dead"]]
    ring: Style = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.5}
    label: Style = {"xytext": (6, 4), "textcoords": "offset points", "fontsize": 8}
    for name in dead:  # with a ring
        place = east[where[name]], north[where[name]]
        axes.plot(*place, "o", markeredgecolor=ORANGE, **ring)
        axes.annotate(name, place, color=ORANGE, **label)
    text = f"dead: {', '.join(dead)}" if dead else "none dead"
    span = f"from {lost.min():.1f} to {lost.max():.1f} %"
    alt = f"Map of {len(known)} antennas coloured by flagged fraction, {span}; {text}."
    caption = f"Flagged fraction of the {len(known)} antennas on the ground ({text})."
    return [*pictures, finish(figure, "flag-array", alt, caption)]


def axis_top(percentages: Array) -> float:
    """Return the upper end of an axis of percentages."""
    return max(1.0, 1.1 * float(np.max(percentages, initial=0.0)))
