"""Whether calibrated phases are those of the sky: each antenna's visibilities against the sources that were fitted to all.

Places alone enter this, no catalogue's fluxes: an error of any caltable's phases shows as a phase of the antenna that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_image.averaging import Averaged

    Complexes = npt.NDArray[np.complex64]
    Sample = tuple[Complexes, ...]

SAMPLES = 200_000
"""Visibilities that are looked at."""
BINS = 8
"""Parts of the band that have a phase each: a wrong delay or bandpass is not seen in the mean."""


@dataclass(frozen=True)
class Phases:
    """Phases of antennas in parts of the band, against the fitted sources; both polarizations' mean."""

    rms_deg: float
    """Root of their mean square; about 80 for phases at random; NaN where no source was fitted."""
    noise_deg: float
    """What of that the noise of the visibilities makes."""

    @property
    def error_deg(self) -> float:
        """The rms without the noise."""
        return (
            float(np.sqrt(max(self.rms_deg**2 - self.noise_deg**2, 0.0)))
            if np.isfinite(self.rms_deg)
            else float("nan")
        )


def sample(visibilities: tuple[Complexes, ...]) -> Sample:
    """Return a copy of every so many visibilities, shape (rows, channels), of each set."""
    some = _some(visibilities)
    return tuple(whole[some].copy() for whole in visibilities)


def _some(visibilities: tuple[Complexes, ...]) -> tuple[slice, slice]:
    step = max(1, int(np.sqrt(sum(whole.size for whole in visibilities) / SAMPLES)))
    return slice(None, None, step), slice(step // 2, None, step)


def against_sources(data: Averaged, before: Sample) -> Phases:
    """Compare a sample from before sources were taken out with what is left of it: the difference is the sources."""
    some = _some(tuple(part.vis for part in data.sets))
    shape = BINS, len(data.header.antennas.names)
    cross, power = np.zeros(shape, complex), np.zeros(shape)
    for part, seen in zip(data.sets, before, strict=True):
        model, weight = seen - part.vis[some], part.weight[some]
        top, bottom = weight * seen * model.conj(), weight * np.abs(model) ** 2
        bins = np.arange(part.frequencies_hz.size)[some[1]] * BINS // part.frequencies_hz.size
        one, other = part.antenna1[some[0]], part.antenna2[some[0]]
        for number in np.unique(bins):
            turned, strength = (plane[:, bins == number].sum(axis=1) for plane in (top, bottom))
            np.add.at(cross[number], one, turned)
            np.add.at(cross[number], other, turned.conj())
            np.add.at(power[number], one, strength)
            np.add.at(power[number], other, strength)
    known = power > 0
    if not known.any():
        return Phases(float("nan"), float("nan"))
    unit = data.variance_jy2 if np.isfinite(data.variance_jy2) else 0.0
    rms, noise = (
        np.sqrt(np.mean(np.angle(cross[known]) ** 2)),
        np.sqrt(np.mean(unit / power[known])),
    )
    return Phases(float(np.degrees(rms)), float(np.degrees(noise)))
