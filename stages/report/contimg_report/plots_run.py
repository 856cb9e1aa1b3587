"""Figures of a run: the flux scale of each epoch, how variable the sources are, and light curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg_report.figure import BLUE, GREEN, INK, ORANGE, PINK, Picture, new, picture
from contimg_report.material import column
from contimg_report.words import number, utc

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes

COLOURS, MARKS = (BLUE, ORANGE, GREEN, PINK), "os^D"
VARIABLE_SHOWN, STEADY_SHOWN = 6, 2
"""Light curves beside the candidates': the most variable other sources, and the brightest references."""
EPSILON, LARGE, JANSKY_FROM = 1e-3, 1.4, 5000.0
Rows = list[dict[str, Any]]


def factors(table: pa.Table) -> list[Picture]:
    """Draw the normalisation factor of each epoch and field."""
    mjd, factor, error = (column(table, name) for name in ("mjd", "factor", "factor_err"))
    field = column(table, "field")
    names = sorted(set(field.tolist()))
    start = float(np.floor(np.min(mjd)))
    figure, (axes,) = new(3.0)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    for k, name in enumerate(names):
        mine = field == name
        style = {
            "fmt": MARKS[k % len(MARKS)],
            "color": COLOURS[k % len(COLOURS)],
            "markersize": 3.5,
            "linewidth": 0.8,
        }
        axes.errorbar(mjd[mine] - start, factor[mine], error[mine], label=name, **style)  # type: ignore[arg-type]
    axes.set(xlabel=f"MJD − {start:.0f} (days)", ylabel="Factor C")
    if len(names) > 1:
        axes.legend(title="Field")
    good = factor[np.isfinite(factor)]
    scatter = float(np.std(good, ddof=1)) if good.size > 1 else 0.0
    text = (
        f"{len(mjd)} epochs, median {np.median(good):.3f}, scatter {100 * scatter:.1f} %"
        if good.size
        else "no epoch has one"
    )
    return [
        picture(
            figure,
            "factors",
            f"Normalisation factor of each epoch: {text}.",
            f"Normalisation factor of each epoch ({text}).",
            largest=LARGE,
        )
    ]


def eta_v(stats: pa.Table) -> list[Picture]:
    """Draw the reduced chi-square against the modulation index of every source."""
    eta, modulation = column(stats, "eta_peak"), column(stats, "v_peak")
    candidate, reference = (
        column(stats, "ese_candidate").astype(bool),
        column(stats, "reference").astype(bool),
    )
    good = np.isfinite(eta) & np.isfinite(modulation)
    if not good.any():
        return []
    figure, (axes,) = new(3.0)
    kinds = (
        ("other sources", good & ~candidate & ~reference, BLUE, "o", 3.0),
        ("references", good & reference, GREEN, "s", 3.5),
        ("ESE candidates", good & candidate, ORANGE, "*", 12.0),
    )
    for label, mine, colour, mark, size in kinds:
        x, y = np.maximum(eta[mine], EPSILON), np.maximum(modulation[mine], EPSILON)
        axes.plot(
            x,
            y,
            mark,
            color=colour,
            markersize=size,
            label=f"{label} ({mine.sum()})",
            alpha=0.85,
            linestyle="none",
        )
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="η (reduced χ² about the mean)",
        ylabel="V (scatter / mean)",
    )
    axes.legend(loc="best")
    names = ", ".join(column(stats, "source")[candidate].tolist()) or "none"
    alt = f"Variability of {int(good.sum())} sources, eta against V; median eta {np.median(eta[good]):.2f}. Candidates: {names}."
    return [
        picture(
            figure,
            "eta-v",
            alt,
            "η–V: sources that vary lie to the upper right; the dotted line is noise alone.",
            largest=LARGE,
        )
    ]


def light_curves(curves: pa.Table, stats: pa.Table) -> tuple[list[Picture], list[Picture]]:
    """Draw the candidates' light curves, and those of the most variable and the steadiest of the rest."""
    name, eta = column(stats, "source"), np.nan_to_num(column(stats, "eta_peak"))
    candidate, reference = (
        column(stats, "ese_candidate").astype(bool),
        column(stats, "reference").astype(bool),
    )
    found = np.flatnonzero(candidate)
    rest = np.flatnonzero(~candidate)
    variable = rest[np.argsort(-eta[rest], kind="stable")][:VARIABLE_SHOWN]
    steady = np.setdiff1d(np.flatnonzero(reference & ~candidate), variable)
    steady = steady[np.argsort(-column(stats, "flux_mean")[steady], kind="stable")][:STEADY_SHOWN]
    arrays = {
        one: column(curves, one)
        for one in ("source", "mjd", "flux", "flux_err", "upper_limit", "model")
    }

    def draw(indices: np.ndarray[Any, Any], kind: str, largest: float = 1.0) -> list[Picture]:
        return [
            _light_curve(arrays, str(name[k]), f"{kind}, η {eta[k]:.1f}", f"curve-{k}", largest)
            for k in indices
        ]

    return draw(found, "candidate", LARGE), draw(variable, "most variable") + draw(
        steady, "reference"
    )


def _light_curve(
    arrays: dict[str, np.ndarray[Any, Any]], source: str, kind: str, name: str, largest: float
) -> Picture:
    mine = arrays["source"] == source
    mjd, flux, error, model = (arrays[one][mine] for one in ("mjd", "flux", "flux_err", "model"))
    limit = arrays["upper_limit"][mine].astype(bool)
    start = float(np.floor(np.min(arrays["mjd"])))
    part, unit = (
        (1e-3, "Jy") if np.median(flux) > JANSKY_FROM else (1.0, "mJy")
    )  # five digits have no room
    figure, (axes,) = new(2.5)
    axes.errorbar(
        mjd[~limit] - start,
        part * flux[~limit],
        part * error[~limit],
        fmt="o",
        color=BLUE,
        markersize=3.5,
        linewidth=0.9,
    )
    _limits(axes, mjd[limit] - start, part * (np.maximum(flux[limit], 0) + 3 * error[limit]))
    fitted = np.isfinite(model)
    if fitted.any():
        axes.plot(
            mjd[fitted] - start,
            part * model[fitted],
            color=ORANGE,
            linewidth=1.5,
            label="plasma lens, fitted",
        )
        axes.legend()
    axes.set(xlabel=f"MJD − {start:.0f} (days)", ylabel=f"Flux ({unit}/beam)", title=source)
    text = f"{source} ({kind}): {mine.sum()} epochs, {limit.sum()} upper limits, from {flux.min():.1f} to {flux.max():.1f} mJy per beam"
    return picture(figure, name, f"Light curve of {text}.", f"{source}: {kind}.", largest=largest)


def _limits(axes: Axes, days: np.ndarray[Any, Any], level: np.ndarray[Any, Any]) -> None:
    """Draw upper limits as arrows that point down."""
    if days.size:
        axes.errorbar(
            days,
            level,
            yerr=0.12 * level,
            uplims=True,
            fmt="none",
            color=BLUE,
            linewidth=0.9,
            capsize=2,
        )


def candidate_rows(table: pa.Table) -> Rows:
    """Return the rows of the table of candidates, most convincing first."""
    names = (
        "source",
        "ese_score",
        "ese_evidence",
        "ese_tau",
        "ese_amplitude",
        "n_epochs",
        "lens_mjd",
        "lens_depth",
        "flux_quiescent",
    )
    columns = {name: column(table, name) for name in names}
    order = np.argsort(-columns["ese_evidence"], kind="stable")
    return [
        {
            "source": str(columns["source"][k]),
            "score": number(columns["ese_score"][k]),
            "evidence": number(columns["ese_evidence"][k], 1),
            "tau": number(columns["ese_tau"][k], 0),
            "amplitude": number(columns["ese_amplitude"][k]),
            "epochs": f"{columns['n_epochs'][k]:.0f}",
            "when": utc(float(columns["lens_mjd"][k]))[:10],
            "depth": number(100 * columns["lens_depth"][k], 0),
            "flux": number(columns["flux_quiescent"][k], 1),
        }
        for k in order
    ]
