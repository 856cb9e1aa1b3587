"""Figures of a run: the flux scale of each epoch, how variable sources are, and light curves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from contimg_report.artifacts import column
from contimg_report.figure import BLUE, GREEN, INK, ORANGE, PINK, Picture, Style, finish, new_figure

COLOURS, MARKERS = (BLUE, ORANGE, GREEN, PINK), "os^D"
VARIABLE_CURVES, REFERENCE_CURVES = 6, 2
"""Light curves beside the candidates': the most variable others, and the brightest references."""
MIN_SHOWN = 1e-3
"""Lower limit of η and V on their logarithmic axes."""
WIDE = 1.4
"""Largest size of a figure that stands alone."""
MIN_JANSKY_MJY = 5000.0
"""Brighter light curves are drawn in Jy, because five digits do not fit."""


def draw_factors(table: pa.Table) -> list[Picture]:
    """Draw the normalisation factor of each epoch and field."""
    mjd, factor, error = (column(table, name) for name in ("mjd", "factor", "factor_err"))
    field = column(table, "field")
    names = sorted(set(field.tolist()))
    start = float(np.floor(np.min(mjd)))
    figure, (axes,) = new_figure(3.0)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    for k, name in enumerate(names):
        mine, fmt = field == name, MARKERS[k % len(MARKERS)]
        style: Style = {"color": COLOURS[k % len(COLOURS)], "linewidth": 0.8, "fmt": fmt}
        axes.errorbar(mjd[mine] - start, factor[mine], error[mine], label=name, **style)
    axes.set(xlabel=f"MJD − {start:.0f} (days)", ylabel="Factor C")
    if len(names) > 1:
        axes.legend(title="Field")
    good = factor[np.isfinite(factor)]
    scatter = float(np.std(good, ddof=1)) if good.size > 1 else 0.0
    text = "no epoch has a factor"
    if good.size:
        text = f"{len(mjd)} epochs, median {np.median(good):.3f}, scatter {100 * scatter:.1f} %"
    label = "Normalisation factor of each epoch"
    return [finish(figure, "factors", f"{label}: {text}.", f"{label} ({text}).", largest=WIDE)]


def draw_eta_v(stats: pa.Table) -> list[Picture]:
    """Draw the reduced chi-square against the modulation index of every source."""
    eta, modulation = column(stats, "eta_peak"), column(stats, "v_peak")
    candidate = column(stats, "ese_candidate").astype(bool)
    reference = column(stats, "reference").astype(bool)
    good = np.isfinite(eta) & np.isfinite(modulation)
    if not good.any():
        return []
    figure, (axes,) = new_figure(3.0)
    for label, mine, colour, marker, size in (
        ("other sources", good & ~candidate & ~reference, BLUE, "o", 3.0),
        ("references", good & reference, GREEN, "s", 3.5),
        ("ESE candidates", good & candidate, ORANGE, "*", 12.0),
    ):
        x, y = np.maximum(eta[mine], MIN_SHOWN), np.maximum(modulation[mine], MIN_SHOWN)
        name = f"{label} ({mine.sum()})"
        axes.plot(x, y, marker, color=colour, markersize=size, label=name, alpha=0.85)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="η (reduced χ² about the mean)")
    axes.set(yscale="log", ylabel="V (scatter / mean)")
    axes.legend(loc="best")
    names = ", ".join(column(stats, "source")[candidate].tolist()) or "none"
    alt = f"Variability of {int(good.sum())} sources, eta against V; "
    alt += f"median eta {np.median(eta[good]):.2f}. Candidates: {names}."
    caption = "η–V: sources that vary lie to the upper right; the dotted line is noise alone."
    return [finish(figure, "eta-v", alt, caption, largest=WIDE)]


def draw_light_curves(curves: pa.Table, stats: pa.Table) -> tuple[list[Picture], list[Picture]]:
    """Draw the light curves of candidates with their lens, and of others: variable, references."""
    eta, flux = np.nan_to_num(column(stats, "eta_peak")), column(stats, "flux_mean")
    candidate = column(stats, "ese_candidate").astype(bool)
    rest = np.flatnonzero(~candidate)
    variable = rest[np.argsort(-eta[rest], kind="stable")][:VARIABLE_CURVES]
    references = np.flatnonzero(column(stats, "reference").astype(bool) & ~candidate)
    steady = np.setdiff1d(references, variable)
    steady = steady[np.argsort(-flux[steady], kind="stable")][:REFERENCE_CURVES]
    kinds = dict.fromkeys(np.flatnonzero(candidate), "candidate")
    kinds |= dict.fromkeys(variable, "most variable") | dict.fromkeys(steady, "reference")
    names = ("mjd", "flux", "flux_err", "model", "upper_limit")
    columns = {name: column(curves, name) for name in ("source", *names)}
    start = float(np.floor(np.min(columns["mjd"])))
    candidates: list[Picture] = []
    others: list[Picture] = []
    for k, kind in kinds.items():
        source = stats["source"][int(k)].as_py()
        mine = columns["source"] == source
        mjd, flux, error, model, limit = (columns[name][mine] for name in names)
        days, limit, fitted = mjd - start, limit.astype(bool), np.isfinite(model)
        scale, unit = (1e-3, "Jy") if np.median(flux) > MIN_JANSKY_MJY else (1.0, "mJy")
        figure, (axes,) = new_figure(2.5)
        style: Style = {"color": BLUE, "linewidth": 0.9}
        axes.errorbar(days[~limit], scale * flux[~limit], scale * error[~limit], fmt="o", **style)
        if limit.any():  # as arrows that point down
            level = scale * (np.maximum(flux[limit], 0) + 3 * error[limit])
            style |= {"yerr": 0.12 * level, "uplims": True, "capsize": 2, "fmt": "none"}
            axes.errorbar(days[limit], level, **style)
        if fitted.any():
            lens: Style = {"color": ORANGE, "linewidth": 1.5, "label": "plasma lens, fitted"}
            axes.plot(days[fitted], scale * model[fitted], **lens)
            axes.legend()
        axes.set(xlabel=f"MJD − {start:.0f} (days)", ylabel=f"Flux ({unit}/beam)", title=source)
        text = f"{kind}, η {eta[k]:.1f}"
        span = f"from {flux.min():.1f} to {flux.max():.1f} mJy per beam"
        alt = f"Light curve of {source} ({text}): {mine.sum()} epochs, {limit.sum()} upper limits, "
        largest, drawn = (WIDE, candidates) if candidate[k] else (1.0, others)
        name, caption = f"curve-{k}", f"{source}: {text}."
        drawn.append(finish(figure, name, f"{alt}{span}.", caption, largest=largest))
    return candidates, others
