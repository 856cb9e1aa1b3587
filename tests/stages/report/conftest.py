"""Pages of a simulated group, of a run of 26 epochs, and of a stage without its own section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from chain import Chain, contimg
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.manifest import read_manifest
from contimg.runtime.store import open_store
from contimg_report.figure import STYLE
from contimg_simulate.sky import Flare, Lens
from report_pages import Run, make_report, png, write_artifact

EPOCHS, SOURCES, FIRST_MJD, RMS_MJY = 26, 40, 61065.05, 1.0
LENSED, FLARING, FAINT = 3, 7, 39
FREQUENCY_HZ = np.array([1.405e9])


@pytest.fixture
def page_style() -> Iterator[None]:
    with mpl.rc_context(fname=STYLE):
        yield


@pytest.fixture(scope="session")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one lens, one flare, 5 % errors of the flux scale and one faint source."""
    store = tmp_path_factory.mktemp("run")
    tables, rng, where = store / "tables", np.random.default_rng(8), np.random.default_rng(5)
    sources: dict[str, Any] = {"source": [f"DSA J0235{k:02d}.0+330000" for k in range(SOURCES)]}
    sources |= {"ra": 38.9 + where.uniform(-1, 1, SOURCES)}
    sources |= {"dec": 33.0 + where.uniform(-0.8, 0.8, SOURCES)}
    catalogue = np.geomspace(400, 80, SOURCES)
    catalogue[FAINT] = 4.0
    curves = {LENSED: Lens(centre_mjd=FIRST_MJD + 100), FLARING: Flare(peak_mjd=FIRST_MJD + 75)}
    for epoch in range(EPOCHS):
        mjd = FIRST_MJD + 6 * epoch * 0.99726957  # sidereal days: the field is on the meridian
        flux = (1 + 0.05 * rng.standard_normal()) * catalogue
        for k, curve in curves.items():
            flux[k] *= curve.factor(mjd, FREQUENCY_HZ)[0]
        flux += RMS_MJY * rng.standard_normal(SOURCES)
        found = flux / RMS_MJY >= 5
        group, fixed = f"epoch{epoch:02d}", dict.fromkeys(c.name for c in PHOTOMETRY.columns)
        fixed |= {"group": group, "image": "0" * 16, "mjd": mjd, "strip": 33.0, "beam": 1.0}
        fixed |= {"background": 0.0, "compactness": 1.0, "blend": 1, "flux_scale_err": 0.05}
        fixed |= {"local_rms": RMS_MJY, "flux_fit_rms": RMS_MJY}
        columns = {name: [value] * SOURCES for name, value in fixed.items()} | sources
        columns |= {"catalogue_flux": catalogue, "flux_forced": flux, "snr": flux / RMS_MJY}
        columns |= dict.fromkeys(("flux_peak", "flux_fit"), np.where(found, flux, np.nan))
        columns |= dict.fromkeys(("flux_peak_err", "flux_fit_err"), np.where(found, 1.0, np.nan))
        columns["flux_ratio"] = np.where(found, flux / catalogue, np.nan)
        columns["flux_limit"] = np.where(found, np.nan, np.maximum(flux, 0) + 3 * RMS_MJY)
        columns["upper_limit"] = ~found
        key = f"photometry/date=2026-01-25/{group}.parquet"
        open_store(str(tables)).put(key, PHOTOMETRY.to_bytes(columns))
    made = contimg("normalize", tables=tables, strip=33.0, out=store / "normalize")["artifact"]
    seen = contimg("variability", normalized=made, tables=tables, out=store / "variability")
    return Run(made, seen["artifact"])


@pytest.fixture(scope="session")
def group(small_chain: Chain) -> dict[str, str]:
    """The artifacts of a small simulated group by stage."""
    chain = small_chain
    uris = [chain.ms, chain.flags, chain.calibration, chain.image, chain.photometry]
    return {read_manifest(uri).stage: uri for uri in uris}


@pytest.fixture(scope="session")
def group_page(group: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a group."""
    return make_report(tmp_path_factory.mktemp("group"), *group.values())


@pytest.fixture(scope="session")
def run_page(epochs: Run, group: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run."""
    out = tmp_path_factory.mktemp("page")
    return make_report(out, epochs.normalize, epochs.variability, groups=tuple(group.values()))


@pytest.fixture(scope="session")
def spectra_page(group: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a group with a stage that the report does not know."""
    folder = tmp_path_factory.mktemp("spectra")
    metrics: dict[str, Any] = {"mjd": 61065.05, "peak_jy": 0.0123, "used_fraction": 0.93}
    files = {
        "spectra.json": b'{\n "greeting": "<b>spectra</b>"\n}',
        "large.json": b"[" + b"1," * 9000 + b"1]",
        "plot.png": png(np.arange(6000, dtype=np.uint8).reshape(60, 100)),
        "view.html": b"<p>spectra</p>",
        "data.bin": b"0" * 2_000_000,
    }
    spectra = write_artifact(folder, "spectra", metrics, files, "the peak is <i>low</i>")
    return make_report(folder / "report", spectra, group["convert"], group["flag"])
