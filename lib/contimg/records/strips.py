"""Declination strips: pointings that belong together, and their names."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from contimg.records.groups import GroupRecord

STRIP_GAP_DEG = 0.25
"""Pointings farther apart belong to different strips; within a strip they agree to 0.001."""


def strips(records: Iterable[GroupRecord]) -> list[float]:
    """Return the pointing Declinations of groups, degrees, each strip once, rounded to a tenth."""
    decs = sorted(record.dec_deg for record in records if record.dec_deg is not None)
    runs: list[list[float]] = []
    for dec in decs:
        if runs and dec - runs[-1][-1] < STRIP_GAP_DEG:
            runs[-1].append(dec)
        else:
            runs.append([dec])
    return [round(median(run), 1) for run in runs]


def strip_name(dec_deg: float) -> str:
    """Return the name of a strip, which is legal for Kubernetes: dec-p33.0, dec-m05.2."""
    return f"dec-{'m' if dec_deg < 0 else 'p'}{abs(dec_deg):04.1f}"


def table_unit(dec_deg: float, setup: int = 0) -> str:
    """Return the name of a strip's file in the tables of light curves: strip+33.00.

    Setups other than the first, such as another frequency, have files of their own.
    """
    return f"strip{dec_deg:+06.2f}" + (f"-setup{setup}" if setup else "")
