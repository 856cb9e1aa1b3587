"""Find the brightest pixel of an image."""

from __future__ import annotations

import json

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.records.images import FloatArray, Pixels, read_image
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadImageError
from contimg.runtime.manifest import QA
from contimg_starter.options import StarterOptions


def run(options: StarterOptions, context: Context) -> StageResult:
    """Read the image, find its brightest pixel, and write starter.json."""
    with context.step("read"):
        where = f"{options.image}/image.fits"
        image = read_image(context.fetch(options.image, "image.fits"), where)
    with context.step("measure"):
        peak, noise = measure_peak(image.pixels, where)
    metrics = {
        "group": context.manifest(options.image).metrics["group"],
        "peak_jy_beam": peak,
        "noise_jy_beam": noise,
        "snr": peak / noise,
    }
    with context.step("write"):
        context.write("starter.json", json.dumps(metrics, indent=1).encode())
    return StageResult(metrics=metrics, qa=judge_peak(peak / noise, options.min_snr))


def measure_peak(pixels: Pixels | FloatArray, where: str) -> tuple[float, float]:
    """Return the largest value of an image and its noise, in the unit of the pixels.

    The noise is the median absolute deviation, scaled to a standard deviation.

    Raises
    ------
    BadImageError
        If no pixel is finite, or all are equal.
    """
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        raise BadImageError(where, "No pixel is finite.", "Make the image again.")
    noise = MAD_TO_SIGMA * float(np.median(np.abs(finite - np.median(finite))))
    if noise == 0:
        raise BadImageError(where, "All pixels have the same value.", "Make the image again.")
    return float(finite.max()), noise


def judge_peak(snr: float, min_snr: float) -> QA:
    """Return the verdict on an image with a brightest pixel of this signal-to-noise ratio."""
    if snr >= min_snr:
        return QA()
    return QA(verdict="warning", reasons=(f"The brightest pixel has S/N {snr:.1f}.",))
