"""Rounds of cleaning: inside of discs on the catalogue's sources, and again while sources are found that it lacks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from contimg.records.images import Beam
from contimg.records.ms import STOKES_I, MSHeader, Rows, create
from contimg_image import bright, masks, noise, tclean, wsclean

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from contimg.runtime.context import Context
    from contimg_image.averaging import Averaged, Baselines
    from contimg_image.beam import Pointing
    from contimg_image.bright import Bright
    from contimg_image.frame import Frame
    from contimg_image.options import Backend
    from contimg_image.weights import ImagingWeights
    from contimg_image.wsclean import Cleaned, Job

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

CUT = 0.2
"""Beam below which nothing is corrected, judged or promised."""
DISC_BEAMS = 1.0
"""Radius of a mask's disc in units of the beam's major axis."""
BLIND_THRESHOLD = 5.0
"""Multiple of the noise at which cleaning ends where no mask guides it."""
BLIND_NITER = 10_000
ROUNDS = 2
"""Most rounds of cleaning that follow the first, when sources are found that the catalogue lacks."""


@dataclass(frozen=True, eq=False)
class Sky:
    """What the image should show, on its grid."""

    effective: Singles
    """Effective beam."""
    known_beam: bool
    x: Floats
    y: Floats
    expected_jy: Floats


@dataclass(eq=False)
class Field:
    """The visibilities of a field, and what has been taken out of them."""

    data: Averaged
    weights: ImagingWeights
    where: Pointing
    frame: Frame
    taken: list[tuple[Bright, Floats]] = field(default_factory=list)
    """Sources with their apparent fluxes, Jy."""

    def take_out(self, sources: Bright) -> None:
        """Subtract sources from the visibilities."""
        self.taken.append((sources, bright.take_out(self.data, self.weights, self.where, sources)))

    @property
    def sources(self) -> int:
        """How many sources have been taken out, with a flux."""
        return sum(int(np.count_nonzero(apparent_jy)) for _, apparent_jy in self.taken)

    def take_out_also(self, sources: Bright) -> None:
        """Subtract further sources, and what the earlier ones then lack: without these in the fit, those took their place."""
        self.take_out(bright.together([before for before, _ in self.taken] + [sources]))

    def put_back(self, made: Cleaned) -> None:
        """Add all that was taken out to an image, as the restoring beam has it."""
        restoring = Beam(made.bmaj_deg, made.bmin_deg, made.bpa_deg)
        for sources, apparent_jy in self.taken:
            bright.put_back(made.image, sources, apparent_jy, restoring, self.frame.cell_deg)

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write the visibilities as Measurement Sets, in place of earlier ones."""
        paths = tuple(folder / f"{part.name}.ms" for part in self.data.sets)
        for path, part in zip(paths, self.data.sets, strict=True):
            shutil.rmtree(path, ignore_errors=True)
            write_set(path, self.data, part)
        return paths


def write_set(path: Path, data: Averaged, part: Baselines) -> Path:
    """Write averaged Stokes I visibilities as a Measurement Set."""
    header = MSHeader(
        data.header.telescope,
        data.header.field,
        data.header.ra_rad,
        data.header.dec_rad,
        part.frequencies_hz,
        part.width_hz * part.factor,
        data.header.antennas,
        (STOKES_I,),
    )
    weight = part.weight.sum(axis=1, dtype=np.float64)[:, None].astype(np.float32)
    rows = Rows(
        data.times_s[part.time_index],
        part.interval_s,
        part.antenna1.astype(np.int32),
        part.antenna2.astype(np.int32),
        part.uvw_m,
        weight,
    )
    with create(path, header, rows, ("DATA", "WEIGHT_SPECTRUM")) as writer:
        writer.put(
            0,
            {
                "DATA": part.vis[..., None],
                "WEIGHT_SPECTRUM": part.weight[..., None],
                "FLAG": part.weight[..., None] == 0,
            },
        )
    return path


def clean(
    backend: Backend, context: Context, job: Job, sky: Sky, seen: Field
) -> tuple[Cleaned, Mask, int]:
    """Clean inside of discs on the catalogue's sources; again if bright sources are found that it lacks.

    Returns
    -------
    The planes, the mask, and how many sources the catalogue lacks.
    """
    imager = wsclean.clean if backend == "wsclean" else tclean.clean
    radius_px = DISC_BEAMS * job.beam[0] / job.frame.cell_arcsec
    mask = masks.discs(job.frame, sky.x, sky.y, radius_px)
    if not mask.any():
        return imager(context, blind(job), None), mask, 0
    made = imager(context, job, mask)
    if not job.settings.niter:
        return made, mask, 0
    if not np.isfinite(made.residual).all():
        context.log.warning(
            "cleaning inside of the catalogue's discs diverged: it lacks a bright source"
        )
        made = imager(context, replace(job, settings=replace(job.settings, niter=0)), None)
    found = 0
    for _ in range(ROUNDS):
        local = noise.rms_map(made.residual, mask, beam_px(made, job.frame))
        lobe = masks.sidelobe(made.psf, radius_px)
        x, y = masks.strangers(made.residual, local, mask | (sky.effective < CUT), radius_px, lobe)
        if not x.size:
            break
        context.log.info("%d bright sources are in no catalogue: clean again with them", x.size)
        mask |= masks.discs(job.frame, x, y, radius_px)
        seen.take_out_also(bright.at(job.frame, x, y))
        seen.write(context.scratch)
        made = imager(context, job, mask)
        found += int(x.size)
    return made, mask, found


def blind(job: Job) -> Job:
    """Return the job without the help of a mask: it ends early, before it makes sources of noise."""
    given = job.settings
    least = max(given.threshold, BLIND_THRESHOLD)
    return replace(
        job, settings=replace(given, threshold=least, niter=min(given.niter, BLIND_NITER))
    )


def beam_px(made: Cleaned, frame: Frame) -> float:
    """Return the geometric mean of the beam's axes, pixels."""
    return float(np.sqrt(made.bmaj_deg * made.bmin_deg) / frame.cell_deg)
