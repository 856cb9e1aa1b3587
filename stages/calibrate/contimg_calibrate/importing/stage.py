"""Copy one field of a Measurement Set into an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.flagfile import pack_flags
from contimg.records.ms import MeasurementSet
from contimg.runtime.context import StageResult
from contimg_calibrate.foreign import pick_field

if TYPE_CHECKING:
    from contimg.runtime.context import Context
    from contimg_calibrate.importing import ImportOptions


def run(options: ImportOptions, context: Context) -> StageResult:
    """Write ms.tar and flags.bin."""
    name = Path(options.path).stem
    path = pick_field(Path(options.path), options.field, context.scratch / f"{name}.ms")
    with MeasurementSet(path) as ms:
        header, rows = ms.header, ms.rows
        # The flag stage would flag the autos; what is imported comes with the flags of its own observatory.
        flags = ms.read("FLAG") | (rows.antenna1 == rows.antenna2)[:, None, None]
    context.write_tree("ms.tar", path)
    context.write("flags.bin", pack_flags(flags))
    half = rows.interval_s / 2
    metrics = {
        "group": name,
        "telescope": header.telescope,
        "field": header.field,
        "antennas": len(header.antennas.names),
        "channels": header.frequencies_hz.size,
        "rows": len(rows),
        "flagged": float(flags.mean()),
        "ra_deg": float(np.degrees(header.ra_rad)) % 360.0,
        "dec_deg": float(np.degrees(header.dec_rad)),
        "mjd": float(rows.time_s.mean()) / DAY_S,
        "mjd_start": float(np.min(rows.time_s - half)) / DAY_S,
        "mjd_end": float(np.max(rows.time_s + half)) / DAY_S,
    }
    return StageResult(metrics=metrics)
