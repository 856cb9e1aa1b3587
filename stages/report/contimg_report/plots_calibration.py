"""Figures of the solutions: bandpass by antenna, gains by antenna and against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from contimg_report.figure import BLUE, ORANGE, SOFT_BLUE, SOFT_ORANGE, Picture, new, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POLARIZATIONS = ("X", "Y")
COLOURS, SOFT = (BLUE, ORANGE), (SOFT_BLUE, SOFT_ORANGE)
Arrays = dict[str, np.ndarray[Any, Any]]


def bandpass(arrays: Arrays) -> list[Picture]:
    """Draw amplitude and phase of the bandpass, one row an antenna and one panel a polarization."""
    value, flag = _good(arrays, "bandpass")
    if value is None or flag is None:
        return []
    mean = value[0]  # the first solution: a bandpass is one for the group
    frequency = arrays["bandpass_freq_hz"] / 1e6
    amplitude, phase = np.abs(mean), np.degrees(np.angle(mean))
    low, high = np.nanpercentile(amplitude, [1, 99])
    turn = float(np.clip(np.nanpercentile(np.abs(phase), 99), 1, 180))
    text = f"{mean.shape[0]} antennas, {mean.shape[1]} channels, {100 * float(flag.mean()):.2f} % flagged"
    return [
        _waterfall(
            "bandpass-amplitude",
            amplitude,
            frequency,
            "cividis",
            (float(low), float(high)),
            "Amplitude",
            f"Bandpass amplitude of each antenna and polarization ({text}); 98 % lie between {low:.2f} and {high:.2f}.",
        ),
        _waterfall(
            "bandpass-phase",
            phase,
            frequency,
            "twilight_shifted",
            (-turn, turn),
            "Phase (deg)",
            f"Bandpass phase of each antenna and polarization ({text}); 99 % are within {turn:.0f} degrees of 0.",
        ),
    ]


def bandpass_lines(arrays: Arrays) -> list[Picture]:
    """Draw the amplitudes of all antennas over frequency, and their median."""
    value, _ = _good(arrays, "bandpass")
    if value is None:
        return []
    frequency = arrays["bandpass_freq_hz"] / 1e6
    figure, panels = new(2.6, 2)
    top = np.nanpercentile(np.abs(value[0]), 99.9)
    for product in range(value.shape[-1]):
        lines, axes = np.abs(value[0, :, :, product]), panels[product]
        axes.plot(
            frequency, lines.T, color=SOFT[product], alpha=0.3, linewidth=0.4, rasterized=True
        )
        axes.plot(frequency, np.nanmedian(lines, axis=0), color=COLOURS[product], linewidth=1.8)
        axes.set(title=POLARIZATIONS[product], xlabel="MHz", ylim=(0, 1.05 * top))
    panels[0].set(ylabel="Amplitude")
    alt = f"Bandpass amplitudes of {value.shape[1]} antennas over frequency, with the median as a bold line, X and Y apart."
    return [
        picture(
            figure,
            "bandpass-lines",
            alt,
            "Bandpass amplitude of every antenna (thin) and their median (bold).",
        )
    ]


def gains(arrays: Arrays) -> list[Picture]:
    """Draw the gains' amplitude by antenna and their phase against time."""
    pictures = []
    value, _ = _good(arrays, "gain")
    if value is not None:
        pictures.append(_amplitude_by_antenna(np.abs(value), arrays))
    role = "phase" if "phase_value" in arrays else "gain"
    value, _ = _good(arrays, role)
    if value is not None and len(value) > 1:
        pictures.append(_phase_against_time(value, arrays[f"{role}_time_s"]))
    elif value is not None:
        pictures.append(
            _phase_by_antenna(
                "gain-phase",
                value,
                arrays,
                "Gain phases, one solution for the group: nothing to draw against time.",
            )
        )
    value, _ = _good(arrays, "field")
    if value is not None:
        caption = "Phases solved again on the field, after the set: the drift since the calibrator."
        pictures.append(_phase_by_antenna("field-phase", value, arrays, caption))
    return pictures


def _good(
    arrays: Arrays, role: str
) -> tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None]:
    """Return values (T, antennas, channels, polarizations), NaN where flagged, and flags; of the antennas that have data."""
    if f"{role}_value" not in arrays:
        return None, None
    value, flag = arrays[f"{role}_value"].astype(np.complex128), arrays[f"{role}_flag"].astype(bool)
    value[flag] = np.nan
    there = ~arrays["bandpass_flag"].all(axis=(0, 2, 3))
    return value[:, there], flag[:, there]


def _waterfall(
    name: str,
    values: np.ndarray[Any, Any],
    frequency_mhz: np.ndarray[Any, Any],
    cmap: str,
    limits: tuple[float, float],
    label: str,
    alt: str,
) -> Picture:
    figure, panels = new(3.4, 2, bar="bottom")
    edges = (float(frequency_mhz[0]), float(frequency_mhz[-1]), -0.5, values.shape[0] - 0.5)
    for product, axes in enumerate(panels):
        shown = axes.imshow(
            values[..., min(product, values.shape[-1] - 1)],
            aspect="auto",
            extent=edges,
            cmap=cmap,
            vmin=limits[0],
            vmax=limits[1],
        )
        axes.grid(visible=False)
        axes.set(title=POLARIZATIONS[product], xlabel="MHz")
    panels[0].set(ylabel="Antenna (in order of station)")
    panels[1].set_yticklabels([])
    figure.colorbar(
        shown,
        ax=panels,
        label=label,
        location="bottom",
        shrink=0.7,
        aspect=40,
        pad=0.19,
        ticks=MaxNLocator(5),
    )
    return picture(figure, name, alt, f"{alt} White: no solution.")


def _names(axes: Axes, arrays: Arrays, count: int) -> None:
    names = arrays["antenna"][~arrays["bandpass_flag"].all(axis=(0, 2, 3))]
    ticks = np.arange(0, count, max(1, count // 8))
    axes.set_xticks(ticks, [str(names[tick]) for tick in ticks])


def _amplitude_by_antenna(amplitude: np.ndarray[Any, Any], arrays: Arrays) -> Picture:
    typical = np.nanmedian(amplitude, axis=(0, 2))
    figure, (axes,) = new(2.6)
    for product in range(typical.shape[1]):
        name = POLARIZATIONS[product]
        axes.plot(
            typical[:, product],
            "os"[product],
            color=COLOURS[product],
            markersize=3,
            label=name,
            linestyle="none",
        )
    axes.set(xlabel="Station", ylabel="Gain amplitude", ylim=(0, None))
    _names(axes, arrays, typical.shape[0])
    axes.legend(ncols=2, loc="lower right")
    alt = f"Gain amplitude of each antenna: median {np.nanmedian(typical):.4f}, from {np.nanmin(typical):.4f} to {np.nanmax(typical):.4f}."
    return picture(
        figure,
        "gain-amplitude",
        alt,
        "Gain amplitude of each antenna, X circles and Y squares, in correlator units.",
    )


def _phase_against_time(value: np.ndarray[Any, Any], time_s: np.ndarray[Any, Any]) -> Picture:
    turned = (
        value * np.conj(value[0]) / np.abs(value[0])
    )  # phases relative to the first solution do not wrap
    phase = np.degrees(np.angle(turned)).reshape(len(value), value.shape[1], -1, value.shape[3])[
        :, :, 0
    ]
    minutes = (time_s - time_s[0]) / 60
    figure, (axes,) = new(2.6)
    for product in range(phase.shape[-1]):
        axes.plot(
            minutes,
            phase[..., product],
            color=COLOURS[product],
            alpha=0.35,
            linewidth=0.6,
            marker="o",
            markersize=1.5,
        )
    axes.set(xlabel="Minutes after the first solution", ylabel="Phase change (deg)")
    drift = float(np.nanmax(np.abs(phase))) if phase.size else 0.0
    alt = f"Phase of {phase.shape[1]} antennas against time, relative to the first of {len(minutes)} solutions; largest change {drift:.1f} degrees."
    return picture(
        figure,
        "gain-phase",
        alt,
        "Gain phases against time, every antenna, X and Y; relative to the first solution.",
    )


def _phase_by_antenna(
    name: str, value: np.ndarray[Any, Any], arrays: Arrays, caption: str
) -> Picture:
    mean = np.nanmean(value, axis=(0, 2))
    phase = np.degrees(np.angle(mean))
    figure, (axes,) = new(2.6)
    for product in range(phase.shape[1]):
        axes.plot(
            phase[:, product],
            "os"[product],
            color=COLOURS[product],
            markersize=3,
            linestyle="none",
            label=POLARIZATIONS[product],
        )
    axes.set(xlabel="Station", ylabel="Phase (deg)")
    _names(axes, arrays, phase.shape[0])
    axes.legend(ncols=2)
    alt = f"Phases by antenna, X circles and Y squares: rms {np.sqrt(np.nanmean(phase**2)):.1f} degrees."
    return picture(figure, name, alt, caption)
