"""The row of an image in the table `images`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg.runtime.context import Context
    from contimg_image.observation import Observation
    from contimg_image.options import ImageOptions
    from contimg_image.tiers import Settings

COPIED = {
    "group": "group",
    "ra": "ra_deg",
    "dec": "dec_deg",
    "strip": "pointing_dec_deg",
    "mjd": "mjd",
    "mjd_start": "mjd_start",
    "mjd_end": "mjd_end",
    "frequency": "frequency_hz",
    "bmaj": "bmaj_arcsec",
    "bmin": "bmin_arcsec",
    "bpa": "bpa_deg",
    "smearing_loss": "smearing_loss",
    "used_fraction": "used_fraction",
    "antennas": "antennas",
    "flux_ratio": "flux_ratio",
}
"""Columns and the metrics that they hold; a metric that is not known is null."""
MJY = {"rms": "rms_jy", "thermal_rms": "thermal_rms_jy", "peak": "peak_jy"}
"""The same for those that change their unit."""


def image_row(
    context: Context,
    options: ImageOptions,
    seen: Observation,
    settings: Settings,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the row of the image that this run wrote, but for its verdict."""
    band, half = seen.header.frequencies_hz, seen.header.channel_width_hz / 2
    record = seen.calibration
    return {
        **{column: metrics.get(name) for column, name in COPIED.items()},
        **{
            column: None if metrics.get(name) is None else 1e3 * metrics[name]
            for column, name in MJY.items()
        },
        "image": context.key,
        "artifact": context.relative_uri(str(options.tables)),
        "ms": context.manifest(options.ms).key,
        "width": settings.size * settings.cell_arcsec / 3600,
        "cell": settings.cell_arcsec,
        "freq_min": float(band.min()) - half,
        "freq_max": float(band.max()) + half,
        "tier": options.tier,
        "backend": options.backend,
        "robust": settings.robust,
        "calibration": seen.calibration_key,
        "calibrator": record.calibrator.name,
        "calibrated": record.source.mjd if record.source else record.mjd,
        "rung": record.rung,
        "flux_anchor": record.flux_anchor,
    }
