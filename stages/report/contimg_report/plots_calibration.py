"""Figures of the solutions: bandpass by antenna, gains by antenna and against time."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from contimg_report import figure as fig
from contimg_report.figure import Array, Picture, Style, finish, new_figure

POLARIZATIONS, MARKERS = ("X", "Y"), "os"
COLOURS, SOFT_COLOURS = (fig.BLUE, fig.ORANGE), (fig.SOFT_BLUE, fig.SOFT_ORANGE)
Arrays = dict[str, Array]


def draw_bandpass(arrays: Arrays) -> list[Picture]:
    """Draw each polarization's bandpass: amplitudes as lines, amplitudes and phases by antenna."""
    value, flag = select_solutions(arrays, "bandpass")
    if value is None or flag is None:
        return []
    mean = value[0]  # a bandpass has one solution for the group
    frequency = arrays["bandpass_freq_hz"] / 1e6
    amplitude, phase = np.abs(mean), np.degrees(np.angle(mean))
    figure, panels = new_figure(2.6, 2)
    top = np.nanpercentile(amplitude, 99.9)
    thin: Style = {"alpha": 0.3, "linewidth": 0.4, "rasterized": True}
    for product in range(mean.shape[-1]):
        lines, axes = amplitude[:, :, product], panels[product]
        axes.plot(frequency, lines.T, color=SOFT_COLOURS[product], **thin)
        axes.plot(frequency, np.nanmedian(lines, axis=0), color=COLOURS[product], linewidth=1.8)
        axes.set(title=POLARIZATIONS[product], xlabel="MHz", ylim=(0, 1.05 * top))
    panels[0].set(ylabel="Amplitude")
    alt = f"Bandpass amplitudes of {len(mean)} antennas over frequency, X and Y apart, with "
    caption = "Bandpass amplitude of every antenna (thin) and their median (bold)."
    pictures = [finish(figure, "bandpass-lines", f"{alt}the median as a bold line.", caption)]
    low, high = np.nanpercentile(amplitude, [1, 99])
    turn = float(np.clip(np.nanpercentile(np.abs(phase), 99), 1, 180))
    shape = f"{mean.shape[0]} antennas, {mean.shape[1]} channels"
    text = f"of each antenna and polarization ({shape}, {100 * float(flag.mean()):.2f} % flagged)"
    spread = f"98 % lie between {low:.2f} and {high:.2f}"
    within = f"99 % are within {turn:.0f} degrees of 0"
    edges = (frequency[0], frequency[-1], -0.5, mean.shape[0] - 0.5)
    for quantity, values, cmap, (vmin, vmax), unit, note in (
        ("amplitude", amplitude, "cividis", (low, high), "", spread),
        ("phase", phase, "twilight_shifted", (-turn, turn), " (deg)", within),
    ):
        figure, panels = new_figure(3.4, 2, bar="bottom")
        for product, axes in enumerate(panels):
            plane = values[..., min(product, values.shape[-1] - 1)]
            shown = axes.imshow(plane, aspect="auto", extent=edges, cmap=cmap, vmin=vmin, vmax=vmax)
            axes.grid(visible=False)
            axes.set(title=POLARIZATIONS[product], xlabel="MHz")
        panels[0].set(ylabel="Antenna (in order of station)")
        panels[1].set_yticklabels([])
        bar: Style = {"location": "bottom", "shrink": 0.7, "aspect": 40, "pad": 0.19}
        label = quantity.capitalize() + unit
        figure.colorbar(shown, ax=panels, label=label, ticks=MaxNLocator(5), **bar)
        alt = f"Bandpass {quantity} {text}; {note}."
        pictures.append(finish(figure, f"bandpass-{quantity}", alt, f"{alt} White: no solution."))
    return pictures


def draw_gains(arrays: Arrays) -> list[Picture]:
    """Draw the gains' amplitude by antenna, and their phase against time or by antenna."""
    pictures = []
    value, _ = select_solutions(arrays, "gain")
    if value is not None:
        typical = np.nanmedian(np.abs(value), axis=(0, 2))
        low, middle, high = np.nanmin(typical), np.nanmedian(typical), np.nanmax(typical)
        alt = f"Gain amplitude of each antenna: median {middle:.4f}, from {low:.4f} to {high:.4f}."
        caption = "Gain amplitude of each antenna, X circles and Y squares, in correlator units."
        pictures.append(draw_by_antenna("gain-amplitude", typical, arrays, alt, caption))
    role = "phase" if "phase_value" in arrays else "gain"
    solved_once = "Gain phases, one solution for the group: nothing to draw against time."
    solved_again = "Phases solved again on the field: the drift since the calibrator."
    for source, name, caption in ((role, "gain", solved_once), ("field", "field", solved_again)):
        value, _ = select_solutions(arrays, source)
        if value is not None and name == "gain" and len(value) > 1:
            time_s = arrays[f"{role}_time_s"]
            # Relative to the first solution, so that it does not wrap.
            turned = np.degrees(np.angle(value * np.conj(value[0]) / np.abs(value[0])))
            figure, (axes,) = new_figure(2.6)
            line: Style = {"alpha": 0.35, "linewidth": 0.6, "marker": "o", "markersize": 1.5}
            for product in range(value.shape[-1]):
                phase = turned[:, :, 0, product]
                axes.plot((time_s - time_s[0]) / 60, phase, color=COLOURS[product], **line)
            axes.set(xlabel="Minutes after the first solution", ylabel="Phase change (deg)")
            drift = float(np.nanmax(np.abs(turned[:, :, 0])))
            alt = f"Phase of {value.shape[1]} antennas against time, relative to the first of "
            alt += f"{len(value)} solutions; largest change {drift:.1f} degrees."
            note = "Gain phases against time, every antenna, X and Y; relative to the first"
            pictures.append(finish(figure, "gain-phase", alt, f"{note} solution."))
        elif value is not None:
            phase = np.degrees(np.angle(np.nanmean(value, axis=(0, 2))))
            rms = f"rms {np.sqrt(np.nanmean(phase**2)):.1f} degrees"
            alt = f"Phases by antenna, X circles and Y squares: {rms}."
            pictures.append(draw_by_antenna(f"{name}-phase", phase, arrays, alt, caption))
    return pictures


def select_solutions(arrays: Arrays, role: str) -> tuple[Array | None, Array | None]:
    """Return values (T, antennas, channels, polarizations), NaN where flagged, and flags.

    Only of antennas that have data; None if there are no solutions of this role.
    """
    if f"{role}_value" not in arrays:
        return None, None
    value, flag = arrays[f"{role}_value"].astype(np.complex128), arrays[f"{role}_flag"].astype(bool)
    value[flag] = np.nan
    present = ~arrays["bandpass_flag"].all(axis=(0, 2, 3))
    return value[:, present], flag[:, present]


def draw_by_antenna(name: str, values: Array, arrays: Arrays, alt: str, caption: str) -> Picture:
    """Draw one value per antenna and polarization, shape (antennas, polarizations)."""
    figure, (axes,) = new_figure(2.6)
    for product, column in enumerate(values.T):
        style: Style = {"color": COLOURS[product], "label": POLARIZATIONS[product]}
        axes.plot(column, MARKERS[product], markersize=3, **style)
    is_phase = name.endswith("phase")
    axes.set(xlabel="Station", ylabel="Phase (deg)" if is_phase else "Gain amplitude")
    axes.set(ylim=None if is_phase else (0, None))
    names = arrays["antenna"][~arrays["bandpass_flag"].all(axis=(0, 2, 3))]
    ticks = np.arange(0, len(values), max(1, len(values) // 8))
    axes.set_xticks(ticks, [str(names[tick]) for tick in ticks])
    axes.legend(ncols=2, loc="best" if is_phase else "lower right")
    return finish(figure, name, alt, caption)
