"""Make simulated groups inside the test's own process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg_simulate.observe import Group, prepare
from contimg_simulate.options import STAGE, SimulateOptions
from contimg_simulate.schedule import plans
from contimg_simulate.sky import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

BARE: dict[str, Any] = {"nvss": False, "gains": "unit", "sefd_jy": 0.0}
"""No catalogue, gains of one, no noise: what is left is the sky."""


@dataclass(frozen=True)
class Made:
    """What one run of the stage left."""

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


def simulate(folder: Path, sky: Sequence[Source] = (), **chosen: Any) -> Made:
    """Run the stage with the options `chosen`, and with a list of sources of our own if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    if sky:
        (folder / "sources.json").write_text(
            json.dumps([source.model_dump(mode="json") for source in sky])
        )
        chosen["sources"] = str(folder / "sources.json")
    chosen.setdefault("incoming", str(folder / "incoming"))
    options = SimulateOptions(out=str(folder / "products"), **chosen)
    summary = contract.run(STAGE, options, {}, Console("simulate", {}))
    return Made(folder / "incoming", Path(summary["artifact"]), summary)


def group(sources: Sequence[Source], **chosen: Any) -> Group:
    """Return a group of a given sky, all of it, without writing anything."""
    options = SimulateOptions(out="nowhere", incoming="nowhere", **chosen)
    return prepare(plans(options)[0], options, list(sources))


def off_axis(east_deg: float, north_deg: float, flux_jy: float = 1.0, alpha: float = 0.0) -> Source:
    """Return a source near the default pointing (3C48's Right Ascension, apparent Declination 33)."""
    dec = 32.8646 + north_deg
    ra = 24.4223 + east_deg / np.cos(np.deg2rad(dec))
    return Source(
        name=f"S{east_deg:+.3f}{north_deg:+.3f}",
        ra_deg=float(ra),
        dec_deg=dec,
        flux_jy=flux_jy,
        alpha=alpha,
    )
