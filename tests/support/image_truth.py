"""An image against the simulated truth: peaks by a parabola through the logarithms of 9 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from chain import Chain
from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.counts import confusion_jy

Array = np.ndarray[Any, Any]
ISOLATION_BEAMS, ISOLATION = 1.5, 0.01
FAINTEST_JY = 5e-4
"""Of the simulated sky."""
SYSTEMATIC = 0.005
"""Relative error of every flux beyond noise: beam and smearing between pixels and integrations."""
CLEANED_SIGMA = 5.0
"""Sources above this multiple of the noise are cleaned, fainter ones are confusion."""


def plane(artifact: str, name: str) -> tuple[Array, fits.Header]:
    with fits.open(Path(artifact) / name, memmap=False) as file:
        return file[0].data.squeeze().astype(float), file[0].header


def metrics(artifact: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((Path(artifact) / "manifest.json").read_text())["metrics"]
    return answer


def peak(image: Array, x: float, y: float, reach: int) -> tuple[float, float, float]:
    """Return height and place of the peak near a pixel."""
    row, column = round(y), round(x)
    part = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    dy, dx = np.unravel_index(part.argmax(), part.shape)
    row, column = row + int(dy) - reach, column + int(dx) - reach
    v, u = (axis.ravel() for axis in np.mgrid[-1:2, -1:2])
    terms = np.stack([np.ones(9), u, v, u * u, u * v, v * v], axis=1)
    near = np.maximum(image[row - 1 : row + 2, column - 1 : column + 2].ravel(), 1e-12)
    c = np.linalg.lstsq(terms, np.log(near))[0]
    step = -np.linalg.solve([[2 * c[3], c[4]], [c[4], 2 * c[5]]], c[1:3])
    return float(np.exp(c[0] + 0.5 * c[1:3] @ step)), column + float(step[0]), row + float(step[1])


def compare(chain: Chain, artifact: str = "") -> np.recarray[Any, Any]:
    """Compare the image of a group, or another of the same group, with the truth.

    Rows are sources of a true apparent S/N above 10 inside the 20 % beam. The columns are `names`;
    `east_deg` of the image's centre; `ratio`, flux after correction over the truth at the image's
    frequency, flux scale included; `snr` of the apparent peak; `offset_beams`, distance from the
    true place in units of the beam's geometric mean; `isolated`: its neighbours within
    ISOLATION_BEAMS major axes have together less than ISOLATION of its apparent flux.
    """
    artifact = artifact or chain.image
    group = next(g for g in chain.truth["groups"] if g["id"] == metrics(artifact)["group"])
    spectra = {source["name"]: source for source in chain.truth["sources"]}
    image, head = plane(artifact, "image.fits")
    beam, rms = plane(artifact, "beam.fits")[0], plane(artifact, "rms.fits")[0]
    wcs, size = WCS(head, naxis=2), image.shape[0]
    every = [(s["ra_deg"], s["dec_deg"], s["apparent_jy"]) for s in group["sources"]]
    ra_deg, dec_deg, apparent_jy = np.array(every).T
    xs, ys = wcs.all_world2pix(ra_deg, dec_deg, 0)
    reach = max(2, int(0.4 * head["BMIN"] / head["CDELT2"]))
    rows = []
    for here, x, y in zip(group["sources"], xs, ys, strict=True):
        if not (reach + 2 < min(x, y) and max(x, y) < size - reach - 3):
            continue
        level, noise = beam[round(y), round(x)], rms[round(y), round(x)]
        if level < 0.2 or here["apparent_jy"] < 10 * noise:
            continue
        near = np.hypot(xs - x, ys - y) * head["CDELT2"] < ISOLATION_BEAMS * head["BMAJ"]
        added = float(apparent_jy[near].sum()) / here["apparent_jy"] - 1
        flux, px, py = peak(image, x, y, reach)
        # The group tells the flux at 1.4 GHz.
        spectrum, true = spectra[here["name"]], here["flux_jy"] * group["flux_scale"]
        if spectrum["polynomial"]:
            log_ghz = np.log10([head["RESTFRQ"] / 1e9, 1.4])
            slope = np.polyval(spectrum["polynomial"][::-1], log_ghz)
            true *= 10 ** (slope[0] - slope[1])
        else:
            log_nu = np.log(head["RESTFRQ"] / 1.4e9)
            true *= np.exp((spectrum["alpha"] + spectrum["curvature"] / 2 * log_nu) * log_nu)
        off = np.hypot(px - x, py - y) * head["CDELT2"] / np.sqrt(head["BMAJ"] * head["BMIN"])
        east = (size / 2 - x) * head["CDELT2"]
        row = (here["name"], east, flux / level / true, flux / noise, off, added < ISOLATION)
        rows.append(row)
    return np.rec.fromrecords(rows, names="names,east_deg,ratio,snr,offset_beams,isolated")


def check_sources(found: np.recarray[Any, Any], least: int) -> None:
    """Check that isolated sources of an apparent S/N of 20 have true fluxes and positions."""
    bright = found[(found.snr >= 20) & found.isolated]
    assert len(bright) >= least
    median = np.median(bright.ratio)
    print(
        f"{len(bright)} of {np.count_nonzero(found.snr >= 20)} sources: flux over truth "
        f"{median:.4f}, farthest off {100 * np.abs(bright.ratio - 1).max():.1f} %; positions off "
        f"by {np.median(bright.offset_beams):.4f} beam, at most {bright.offset_beams.max():.4f}"
    )
    assert abs(median - 1) <= 0.01
    wrong = np.abs(bright.ratio - 1) > 0.03 + 3 / bright.snr
    assert not wrong.any(), bright.names[wrong]
    assert np.median(bright.offset_beams) <= 0.03
    assert np.all(bright.offset_beams <= 0.05 + 1.5 / bright.snr)


def check_scatter(*images: np.recarray[Any, Any]) -> None:
    """Check the scatter of the fluxes of isolated sources in several images against their errors.

    The scatter of the hundred sources of one image is itself known to 7 or 12 % only (standard
    deviation, median absolute deviation): that of all is judged, by both.
    """
    pulls = []
    for found in images:
        bright = found[(found.snr >= 20) & found.isolated]
        off = bright.ratio - np.median(bright.ratio)
        pulls.append(off / np.hypot(1 / bright.snr, SYSTEMATIC))
    both = [
        (float(np.std(part)), float(MAD_TO_SIGMA * np.median(np.abs(part))))
        for part in (*pulls, np.concatenate(pulls))
    ]
    words = [f"{deviation:.2f} ({median:.2f})" for deviation, median in both]
    print(f"scatter over errors (by the median) of each image and of all: {', '.join(words)}")
    assert max(both[-1]) <= 1.2


def check_noise(artifact: str) -> None:
    """Check the noise of an image against thermal noise and confusion.

    Confusion is that of the sources below CLEANED_SIGMA times both.
    """
    known = metrics(artifact)
    beam_deg2 = np.pi / (4 * np.log(2)) * known["bmaj_arcsec"] * known["bmin_arcsec"] / 3600**2
    thermal_jy = expected_jy = known["thermal_rms_jy"]
    for _ in range(5):
        confusion = confusion_jy(beam_deg2, CLEANED_SIGMA * expected_jy, FAINTEST_JY)
        expected_jy = float(np.hypot(thermal_jy, confusion))
    print(
        f"rms {1e3 * known['rms_jy']:.3f} mJy: {known['rms_jy'] / thermal_jy:.2f} x thermal, "
        f"{known['rms_jy'] / expected_jy:.2f} x thermal and confusion"
    )
    assert known["rms_jy"] <= 1.25 * expected_jy


def check_agreement(one: np.recarray[Any, Any], other: np.recarray[Any, Any]) -> None:
    """Check that sources have the same flux in two images, with 3 sigma of their noise."""
    kept = [found[(found.snr >= 20) & found.isolated] for found in (one, other)]
    names, first, second = np.intersect1d(*(found.names for found in kept), return_indices=True)
    a, b = kept[0][first], kept[1][second]
    log, sigma = np.log(b.ratio / a.ratio), np.hypot(1 / a.snr, 1 / b.snr)
    mean, mean_error = np.average(log, weights=sigma**-2), np.sum(sigma**-2) ** -0.5
    print(
        f"{names.size} sources at {np.median(a.east_deg):+.2f} and {np.median(b.east_deg):+.2f} "
        f"deg east: fluxes differ by {100 * mean:+.2f} +- {100 * mean_error:.2f} %, each by "
        f"{100 * np.abs(log).max():.1f} % at most"
    )
    assert names.size >= 5
    assert abs(mean) <= 0.01
    assert np.all(np.abs(log) <= 0.01 + 3 * sigma), names[np.abs(log) > 0.01 + 3 * sigma]
