"""The field that is imaged: its visibilities, their weights, the pointing and the pixel grid."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import Site, direction_cosines, icrs_of_hadec
from contimg.astro.telescope import NAMES
from contimg.records.ms import STOKES_I, MSHeader, Rows, create
from contimg_image.averaging import AveragedBaselines, AveragedVisibilities
from contimg_image.frame import Floats, Frame
from contimg_image.weights import ImagingWeights


@dataclass(frozen=True, eq=False)
class Pointing:
    """Where the dishes point at each integration."""

    cosines: Floats
    """Shape (T, 3): l, m, n - 1 about the phase centre."""
    known_beam: bool
    """Whether the primary beam is that of our dishes; otherwise it is taken as 1."""

    @classmethod
    def of(
        cls, header: MSHeader, times_s: Floats, apparent_dec_deg: float | None, site: Site
    ) -> Pointing:
        """Return the pointing: on the meridian for our telescope, else at the phase centre."""
        if header.telescope not in NAMES or apparent_dec_deg is None:
            return cls(np.zeros((times_s.size, 3)), known_beam=False)
        ra, dec = icrs_of_hadec(0.0, np.radians(apparent_dec_deg), times_s / DAY_S, site)
        cosines = direction_cosines(ra, dec, header.ra_rad, header.dec_rad)
        return cls(np.stack(cosines, axis=1), known_beam=True)


@dataclass(frozen=True, eq=False)
class ImagingField:
    """The visibilities of a field and how they are imaged."""

    data: AveragedVisibilities
    """Bright sources are subtracted from these visibilities in place."""
    weights: ImagingWeights
    pointing: Pointing
    frame: Frame

    def write_sets(self, folder: Path) -> tuple[Path, ...]:
        """Write the visibilities as Measurement Sets, replacing earlier ones."""
        paths = tuple(folder / f"{part.name}.ms" for part in self.data.sets)
        for path, part in zip(paths, self.data.sets, strict=True):
            shutil.rmtree(path, ignore_errors=True)
            write_set(path, self.data, part)
        return paths


def write_set(path: Path, data: AveragedVisibilities, part: AveragedBaselines) -> Path:
    """Write averaged Stokes I visibilities as a Measurement Set."""
    header = dataclasses.replace(
        data.header,
        frequencies_hz=part.frequencies_hz,
        channel_width_hz=part.width_hz * part.factor,
        correlations=(STOKES_I,),
    )
    rows = Rows(
        time_s=data.times_s[part.time_index],
        interval_s=part.interval_s,
        antenna1=part.antenna1.astype(np.int32),
        antenna2=part.antenna2.astype(np.int32),
        uvw_m=part.uvw_m,
        weight=part.weight.sum(axis=1, dtype=np.float64)[:, None].astype(np.float32),
    )
    weight = part.weight[..., None]
    columns = {"DATA": part.vis[..., None], "WEIGHT_SPECTRUM": weight, "FLAG": weight == 0}
    with create(path, header, rows, ("DATA", "WEIGHT_SPECTRUM")) as writer:
        writer.put(0, columns)
    return path
