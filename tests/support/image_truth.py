"""An image against the simulated truth: peaks by a parabola through the logarithms of 9 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from chain import Chain

Array = np.ndarray[Any, Any]


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


def compare(chain: Chain) -> np.recarray[Any, Any]:
    """Compare the image of a group with the truth at sources inside the 20 % beam.

    The columns are `names`; `ratio`, flux after correction over the truth at the image's frequency,
    flux scale included; `snr` of the apparent peak; `offset_beams`, distance from the true place in
    units of the beam's geometric mean.
    """
    group = next(g for g in chain.truth["groups"] if g["id"] == metrics(chain.image)["group"])
    spectra = {source["name"]: source for source in chain.truth["sources"]}
    image, head = plane(chain.image, "image.fits")
    beam, rms = plane(chain.image, "beam.fits")[0], plane(chain.image, "rms.fits")[0]
    wcs, size = WCS(head, naxis=2), image.shape[0]
    reach = max(2, int(0.4 * head["BMIN"] / head["CDELT2"]))
    rows = []
    for here in group["sources"]:
        x, y = (float(v) for v in wcs.all_world2pix(here["ra_deg"], here["dec_deg"], 0))
        if not (reach + 2 < min(x, y) and max(x, y) < size - reach - 3):
            continue
        level = beam[round(y), round(x)]
        if level < 0.2:
            continue
        flux, px, py = peak(image, x, y, reach)
        # The group tells the flux at 1.4 GHz.
        spectrum, true = spectra[here["name"]], here["flux_jy"] * group["flux_scale"]
        if spectrum["polynomial"]:
            log_ghz = np.log10([head["RESTFRQ"] / 1e9, 1.4])
            shape = np.polyval(spectrum["polynomial"][::-1], log_ghz)
            true *= 10 ** (shape[0] - shape[1])
        else:
            log_nu = np.log(head["RESTFRQ"] / 1.4e9)
            true *= np.exp((spectrum["alpha"] + spectrum["curvature"] / 2 * log_nu) * log_nu)
        off = np.hypot(px - x, py - y) * head["CDELT2"] / np.sqrt(head["BMAJ"] * head["BMIN"])
        rows.append((here["name"], flux / level / true, flux / rms[round(y), round(x)], off))
    return np.rec.fromrecords(rows, names="names,ratio,snr,offset_beams")


def check_sources(found: np.recarray[Any, Any], least: int) -> None:
    """Check that sources of an apparent S/N of 20 have their true fluxes and positions."""
    bright = found[found.snr >= 20]
    assert len(bright) >= least
    assert abs(np.median(bright.ratio) - 1) <= 0.01
    wrong = np.abs(bright.ratio - 1) > 0.03 + 3 / bright.snr
    assert not wrong.any(), bright.names[wrong]
    assert np.median(bright.offset_beams) <= 0.03
    assert np.all(bright.offset_beams <= 0.05 + 1.5 / bright.snr)
