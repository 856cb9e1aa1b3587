"""Artifacts to report on: a simulated group, and a run of 26 epochs whose fluxes are made here and go through the real stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import Chain, contimg
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.store import open_store
from contimg_simulate.lightcurves import Flare, Lens

EPOCHS, SOURCES, FIRST_MJD, RMS_MJY = 26, 40, 61065.05, 1.0
LENSED, FLARING, FAINT = 3, 7, 39
FREQUENCY_HZ = np.array([1.405e9])


@dataclass(frozen=True)
class Run:
    """A run's artifacts."""

    normalize: str
    variability: str


def sources() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    ra, dec = 38.9 + rng.uniform(-1, 1, SOURCES), 33.0 + rng.uniform(-0.8, 0.8, SOURCES)
    flux = np.geomspace(400, 80, SOURCES)
    flux[FAINT] = 4.0
    return [
        {
            "source": f"DSA J0235{k:02d}.0+330000",
            "ra": float(ra[k]),
            "dec": float(dec[k]),
            "flux": float(flux[k]),
        }
        for k in range(SOURCES)
    ]


def variation(k: int, mjd: float) -> float:
    if k == LENSED:
        return float(Lens(centre_mjd=FIRST_MJD + 100).factor(mjd, FREQUENCY_HZ)[0])
    if k == FLARING:
        return float(Flare(peak_mjd=FIRST_MJD + 75).factor(mjd, FREQUENCY_HZ)[0])
    return 1.0


def epoch_rows(epoch: int, rng: np.random.Generator) -> tuple[str, list[dict[str, Any]]]:
    mjd = FIRST_MJD + 6 * epoch * 0.99726957  # sidereal days: the field is on the meridian
    group, scale = f"epoch{epoch:02d}", 1 + 0.05 * rng.standard_normal()
    rows = []
    for k, source in enumerate(sources()):
        flux = scale * source["flux"] * variation(k, mjd) + RMS_MJY * rng.standard_normal()
        found = flux / RMS_MJY >= 5
        measured = {
            "flux_peak": flux,
            "flux_peak_err": RMS_MJY,
            "flux_fit": flux,
            "flux_fit_err": RMS_MJY,
            "flux_ratio": flux / source["flux"],
        }
        rows.append(
            {
                "source": source["source"],
                "ra": source["ra"],
                "dec": source["dec"],
                "group": group,
                "image": "0" * 16,
                "mjd": mjd,
                "strip": 33.0,
                "beam": 1.0,
                "flux_forced": flux,
                "local_rms": RMS_MJY,
                "flux_fit_rms": RMS_MJY,
                "flux_scale_err": 0.05,
                "background": 0.0,
                "snr": flux / RMS_MJY,
                "upper_limit": not found,
                "compactness": 1.0,
                "blend": 1,
                "catalogue_flux": source["flux"],
                **(measured if found else {"flux_limit": max(flux, 0) + 3 * RMS_MJY}),
            }
        )
    return group, rows


@pytest.fixture(scope="session")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one lens, one flare, 5 % errors of the flux scale and one source that is mostly too faint."""
    store = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(8)
    for epoch in range(EPOCHS):
        group, rows = epoch_rows(epoch, rng)
        open_store(str(store / "tables")).put(
            f"photometry/date=2026-01-25/{group}.parquet",
            PHOTOMETRY.to_bytes(PHOTOMETRY.rows(rows)),
        )
    made = contimg("normalize", tables=store / "tables", strip=33.0, out=store / "normalize")[
        "artifact"
    ]
    found = contimg(
        "variability", normalized=made, tables=store / "tables", out=store / "variability"
    )["artifact"]
    return Run(made, found)


@pytest.fixture(scope="session")
def group_options(small_chain: Chain) -> dict[str, str]:
    """The artifacts of a small simulated group, as options of the report."""
    return {
        "convert": small_chain.ms,
        "flag": small_chain.flags,
        "calibrate": small_chain.calibration,
        "image": small_chain.image,
        "photometry": small_chain.photometry,
    }


@pytest.fixture(scope="session")
def group_page(group_options: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a group."""
    return (
        Path(contimg("report", out=tmp_path_factory.mktemp("group"), **group_options)["artifact"])
        / "report.html"
    )


@pytest.fixture(scope="session")
def run_page(
    epochs: Run, group_options: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page of a run."""
    groups = ",".join(group_options.values())
    out = tmp_path_factory.mktemp("page")
    made = contimg(
        "report", normalize=epochs.normalize, variability=epochs.variability, groups=groups, out=out
    )
    return Path(made["artifact"]) / "report.html"
