"""Make simulated groups inside the test's own process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg_simulate.observe import SimulatedGroup, prepare_group
from contimg_simulate.options import STAGE, SimulateOptions
from contimg_simulate.schedule import plan_groups
from contimg_simulate.sky import SkySource

BARE: dict[str, Any] = {"nvss": False, "gains": "unit", "sefd_jy": 0.0}
"""No catalogue, gains of one, no noise: only the sky is left."""


@dataclass(frozen=True)
class SimulatedRun:
    """The result of one run of the stage."""

    incoming: Path
    artifact: Path
    summary: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The subbands, by their index."""
        return sorted(self.incoming.rglob("*.hdf5"), key=lambda path: (path.name[-9:], path.name))

    @property
    def truth(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.artifact / "truth.json").read_text())
        return answer

    @property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return dict(np.load(self.artifact / "truth.npz"))


def simulate(folder: Path, sky: Sequence[SkySource] = (), **options: Any) -> SimulatedRun:
    """Run the stage with `options`, and with a list of sources if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    if sky:
        (folder / "sources.json").write_text(
            json.dumps([source.model_dump(mode="json") for source in sky])
        )
        options["sources"] = str(folder / "sources.json")
    options.setdefault("incoming", str(folder / "incoming"))
    parsed = SimulateOptions(out=str(folder / "products"), **options)
    summary = contract.run(STAGE, parsed, {}, Console("simulate", {}))
    return SimulatedRun(folder / "incoming", Path(summary["artifact"]), summary)


def group(sources: Sequence[SkySource], **options: Any) -> SimulatedGroup:
    """Return a group of a given sky without writing anything."""
    parsed = SimulateOptions(out="nowhere", incoming="nowhere", **options)
    return prepare_group(plan_groups(parsed)[0], parsed, list(sources))


def off_axis(
    east_deg: float, north_deg: float, flux_jy: float = 1.0, alpha: float = 0.0
) -> SkySource:
    """Return a source near the default pointing (RA of 3C48, apparent Declination 33)."""
    dec = 32.8646 + north_deg
    ra = 24.4223 + east_deg / np.cos(np.deg2rad(dec))
    return SkySource(
        name=f"S{east_deg:+.3f}{north_deg:+.3f}",
        ra_deg=float(ra),
        dec_deg=dec,
        flux_jy=flux_jy,
        alpha=alpha,
    )
