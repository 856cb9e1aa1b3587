"""Numbers and times as people read them; the templates' filters."""

from __future__ import annotations

import math
from datetime import timedelta

from contimg.records.groups import utc_of_mjd

TINY_PERCENT = 0.005
MINUTE_S = 120.0
KILO = 1000.0
NOTHING = "–"


def percent(fraction: float | None) -> str:
    """Return a fraction as a percentage with as many digits as it is worth."""
    if fraction is None or not math.isfinite(fraction):
        return NOTHING
    value = 100 * fraction
    if 0 < value < TINY_PERCENT:
        return "< 0.01 %"
    return f"{value:.2f} %" if value < 1 else f"{value:.1f} %"


def seconds(value: float) -> str:
    """Return a duration."""
    return f"{value:.1f} s" if value < MINUTE_S else f"{int(value // 60)} min {value % 60:02.0f} s"


def megabytes(value: float) -> str:
    """Return a size in MB."""
    return f"{value / 1e6:.1f} MB"


def utc(mjd: float | None) -> str:
    """Return an MJD as UTC to the second."""
    if mjd is None:
        return NOTHING
    return (utc_of_mjd(mjd) + timedelta(seconds=0.5)).strftime("%Y-%m-%d %H:%M:%S")


def day(mjd: float) -> str:
    """Return an MJD's UTC day."""
    return utc_of_mjd(mjd).strftime("%Y-%m-%d")


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed digits."""
    return (
        NOTHING
        if value is None or not math.isfinite(value)
        else f"{value:,.{digits}f}".replace(",", "\u2009")
    )


def flux(jy: float | None) -> str:
    """Return a flux density (a beam) in the unit that suits it."""
    if jy is None or not math.isfinite(jy):
        return NOTHING
    return f"{jy:.2f} Jy" if abs(jy) >= 1 else f"{jy * KILO:.3g} mJy"


def right_ascension(ra_deg: float) -> str:
    """Return a Right Ascension as hours, minutes, seconds."""
    tenths = round(ra_deg % 360 / 15 * 36000)
    return f"{tenths // 36000 % 24:02d}h{tenths // 600 % 60:02d}m{tenths % 600 / 10:04.1f}s"


def declination(dec_deg: float) -> str:
    """Return a Declination as degrees, minutes, seconds."""
    total = round(abs(dec_deg) * 3600)
    return (
        f"{'−' if dec_deg < 0 else '+'}{total // 3600:02d}°{total // 60 % 60:02d}′{total % 60:02d}″"
    )
