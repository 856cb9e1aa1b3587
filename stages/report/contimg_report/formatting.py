"""Numbers and times as people read them: the templates' filters, and metrics by their units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from contimg.records.groups import utc_of_mjd

MIN_PERCENT = 0.005
MAX_PLAIN_S = 120.0
MIN_MEGABYTES = 100_000
NOTHING = "–"
MAX_TEXT_LENGTH = 300


def percent(fraction: float | None) -> str:
    """Return a fraction as a percentage, with two digits below 1 %."""
    if fraction is None or not math.isfinite(fraction):
        return NOTHING
    value = 100 * fraction
    if 0 < value < MIN_PERCENT:
        return "< 0.01 %"
    return f"{value:.2f} %" if value < 1 else f"{value:.1f} %"


def seconds(value: float) -> str:
    """Return a duration."""
    minutes = f"{int(value // 60)} min {value % 60:02.0f} s"
    return f"{value:.1f} s" if value < MAX_PLAIN_S else minutes


def megabytes(value: float) -> str:
    """Return a size in MB, or in kB if it is small."""
    return f"{value / 1e6:.1f} MB" if value >= MIN_MEGABYTES else f"{value / 1e3:.1f} kB"


def utc(mjd: float | None) -> str:
    """Return an MJD as UTC to the second."""
    if mjd is None:
        return NOTHING
    return (utc_of_mjd(mjd) + timedelta(seconds=0.5)).strftime("%Y-%m-%d %H:%M:%S")


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.{digits}f}".replace(",", "\u2009")


def flux(jy: float | None) -> str:
    """Return a flux density (a beam) in the unit that suits it."""
    if jy is None or not math.isfinite(jy):
        return NOTHING
    return f"{jy:.2f} Jy" if abs(jy) >= 1 else f"{jy * 1e3:.3g} mJy"


def right_ascension(ra_deg: float) -> str:
    """Return a Right Ascension as hours, minutes, seconds."""
    tenths = round(ra_deg % 360 / 15 * 36000)
    return f"{tenths // 36000 % 24:02d}h{tenths // 600 % 60:02d}m{tenths % 600 / 10:04.1f}s"


def declination(dec_deg: float) -> str:
    """Return a Declination as degrees, minutes, seconds."""
    total, sign = round(abs(dec_deg) * 3600), "−" if dec_deg < 0 else "+"
    return f"{sign}{total // 3600:02d}°{total // 60 % 60:02d}′{total % 60:02d}″"


FILTERS = (percent, seconds, megabytes, utc, number, flux, right_ascension, declination)
UNITS: dict[str, Callable[[float], str]] = {
    "fraction": percent,
    "mjd": utc,
    "bytes": megabytes,
    "jy": flux,
    "mjy": lambda value: flux(value / 1e3),
    "hz": lambda value: f"{value / 1e6:.4g} MHz",
    "s": seconds,
    "days": lambda value: f"{value:.4g} d",
    "deg": lambda value: f"{value:.4f}°",
    "arcsec": lambda value: f"{value:.2f}″",
    "m": lambda value: f"{number(value, 1)} m",
}
"""How a metric is shown, by the last word of its name."""


def describe_metric(name: str, value: Any) -> tuple[str, str]:  # noqa: ANN401 - JSON
    """Return a metric's label and its value in the unit that stands at the end of its name."""
    words = name.split("_")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    missing = value is None or (is_number and not math.isfinite(value))
    if is_number and not missing and words[-1] in UNITS:
        text = UNITS[words[-1]](value)
        kept = {"fraction": "fraction", "mjd": "UTC"}.get(words[-1])
        words = [*words[:-1], kept] if kept else words[:-1] or words
    elif missing or value == []:
        text = NOTHING
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif is_number:
        text = number(value, 0) if isinstance(value, int) else f"{value:.4g}"
    elif isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        text = ", ".join(describe_metric("", part)[1] for part in value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    label = " ".join(words)
    text = text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…"
    return label[:1].upper() + label[1:], text
