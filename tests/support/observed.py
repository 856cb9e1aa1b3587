"""Measurement Sets with known gains, written as convert artifacts: a direct sum over sources."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.astro import coordinates
from contimg.astro.beam_files import read_beam
from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import apparent_hadec
from contimg.astro.gains import Factors, load_gains
from contimg.astro.predict import PointSources
from contimg.astro.standards import standard
from contimg.astro.telescope import SITE, stations
from contimg.records.calibration import Calibration
from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg.runtime.manifest import MANIFEST, QA, Manifest, Output
from contimg.runtime.tar import pack
from contimg_calibrate.options import STAGE, CalibrateOptions

FloatArray = npt.NDArray[np.float64]

BEAM = read_beam("airy:4.65")
INTEGRATION_S = 12.884902
STATIONS = (1, 2, 5, 9, 14, 19, 25, 31, 37, 44, 51, 68, 73, 79, 85, 92, 98, 102, 103, 105, 109, 114)
"""Some of each arm, and outriggers."""
USED = np.array(STATIONS) - 1
"""Their rows in the ANTENNA table."""
FREQ_HZ = 1.4e9 + 0.5e6 * np.arange(32)
"""Narrow channels, because these data have no smearing in frequency."""


def three_c_48(freq_hz: FloatArray = FREQ_HZ) -> PointSources:
    ra_rad, dec_rad = np.radians([[24.42208096], [33.15975916]])
    return PointSources(ra_rad, dec_rad, standard("3C48").flux_jy(freq_hz)[None])


@dataclass
class SyntheticGroup:
    """One group; every array can be changed before it is written."""

    sources: PointSources = field(default_factory=three_c_48)
    mjd: float = 61065.05196817219
    """Midpoint; 3C48 transits then."""
    dec_deg: float = 33.0
    times: int = 6
    seed: int = 1
    noise_jy: float = 0.05
    """Rms of the real part of one sample."""
    drift_deg: float = 0.0
    """Rms phase of each antenna, in addition to that of the seed."""
    name: str = "20260125t011431"
    freq_hz: FloatArray = field(default_factory=FREQ_HZ.copy)
    scale: float = 0.07
    off_deg: tuple[float, float] = (0.0, 0.0)
    """East and north of the beam from where the array is said to point."""
    deaf: tuple[int, ...] = ()
    """Stations that deliver noise but no sky."""

    def __post_init__(self) -> None:
        steps = np.arange(self.times) - (self.times - 1) / 2
        self.mjds = self.mjd + steps * INTEGRATION_S / DAY_S
        rng = np.random.default_rng(self.seed)
        shape, x = (117, 1, 2), np.linspace(-1, 1, self.freq_hz.size)[:, None]
        self.delay_ns = rng.normal(0, 3, shape)
        size = self.scale * (1 + 0.1 * rng.normal(size=shape) + 0.05 * rng.normal(size=shape) * x)
        offset_hz = self.freq_hz[:, None] - 1.4e9
        turn = rng.uniform(-np.pi, np.pi, shape) + 2 * np.pi * 1e-9 * self.delay_ns * offset_hz
        self.band = size * np.exp(1j * turn)
        drift = np.radians(0.5) * np.cumsum(rng.normal(size=(self.times, 117, 1, 2)), axis=0)
        steady = np.random.default_rng([self.seed, round(self.mjd * 100)]).normal(size=shape)
        self.gain = np.exp(1j * (drift + steady * np.radians(self.drift_deg)))
        """Shape (times, 117, channels or 1, 2); times the bandpass, it is the truth."""
        self.flag: npt.NDArray[np.bool_] | None = None
        """Shape (rows, channels, 2), in addition to the autos."""
        first, second = np.triu_indices(len(STATIONS))
        self.ant1, self.ant2 = USED[first], USED[second]

    @property
    def truth(self) -> npt.NDArray[np.complex128]:
        """Shape (times, 117, channels, 2)."""
        return self.band[None] * self.gain

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, channels, correlations."""
        return self.times * self.ant1.size, self.freq_hz.size, 2

    def centre(self) -> tuple[float, float]:
        ra, dec = coordinates.icrs_of_hadec(0.0, np.radians(self.dec_deg), self.mjd, SITE)
        return float(ra), float(dec)

    def uvw(self, mjd: float) -> FloatArray:
        """Return x of all stations, m, in the frame of UVW: a row has x[ant2] - x[ant1]."""
        hour_angle, dec = (float(a) for a in apparent_hadec(*self.centre(), mjd, SITE))
        h = np.radians(SITE.lon_deg) - hour_angle
        east = [-np.sin(h), np.cos(h), 0]
        north = [-np.sin(dec) * np.cos(h), -np.sin(dec) * np.sin(h), np.cos(dec)]
        towards = [np.cos(dec) * np.cos(h), np.cos(dec) * np.sin(h), np.sin(dec)]
        return (stations().itrf_m - SITE.itrf_m) @ np.array([east, north, towards]).T

    def visibilities(self, mjd: float) -> npt.NDArray[np.complex128]:
        """Return the true visibilities of one integration, shape (pairs, channels)."""
        sources, where = self.sources, self.uvw(mjd)
        place = sources.ra_rad, sources.dec_rad, *self.centre()
        lmn = np.stack(coordinates.direction_cosines(*place))
        hour_angle, dec = apparent_hadec(sources.ra_rad, sources.dec_rad, mjd, SITE)
        east, north = np.radians(self.off_deg)
        axis = -east / np.cos(np.radians(self.dec_deg)), np.radians(self.dec_deg) + north
        away = coordinates.separation_rad(hour_angle, dec, *axis)
        flux = sources.flux_jy * BEAM.at_radius(np.minimum(away, 1.5)[:, None], self.freq_hz)
        path_m = (where[self.ant2] - where[self.ant1]) @ lmn
        turns = path_m[:, :, None] * self.freq_hz / SPEED_OF_LIGHT_M_S
        return np.einsum("sf,rsf->rf", flux, np.exp(2j * np.pi * turns))

    def data(self) -> npt.NDArray[np.complex64]:
        rng = np.random.default_rng([self.seed, round(self.mjd * 1000)])
        truth, ant1, ant2, made = self.truth, self.ant1, self.ant2, []
        hears = ~(np.isin(ant1 + 1, self.deaf) | np.isin(ant2 + 1, self.deaf))
        shape = (ant1.size, self.freq_hz.size, 2)
        for k, mjd in enumerate(self.mjds):
            sky = (self.visibilities(mjd) * hears[:, None])[:, :, None]
            noise = self.noise_jy * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
            made.append((sky + noise) * truth[k, ant1] * truth[k, ant2].conj())
        return np.concatenate(made).astype(np.complex64)

    def write(self, store: Path) -> str:
        """Write the artifact STORE/products/NAME/convert/KEY and return its URI."""
        folder = store / "products" / self.name / "convert" / "0123456789abcdef"
        folder.mkdir(parents=True)
        self.write_ms(folder / f"{self.name}.ms")
        half = INTEGRATION_S / DAY_S / 2
        metrics: dict[str, Any] = {"group": self.name, "mjd": self.mjd}
        metrics |= {"mjd_start": self.mjds[0] - half, "mjd_end": self.mjds[-1] + half}
        metrics |= {"pointing_dec_deg": self.dec_deg, "height_m": SITE.height_m}
        metrics |= {"lat_deg": SITE.lat_deg, "lon_deg": SITE.lon_deg}
        write_artifact(folder, "convert", metrics, {"ms.tar": packed(folder / f"{self.name}.ms")})
        return str(folder)

    def write_ms(self, path: Path) -> None:
        ant1, ant2 = self.ant1, self.ant2
        ra, dec = self.centre()
        header = MSHeader(
            telescope="DSA_110",
            field="field",
            ra_rad=ra,
            dec_rad=dec,
            frequencies_hz=self.freq_hz,
            channel_width_hz=float(self.freq_hz[1] - self.freq_hz[0]),
            antennas=Antennas(tuple(stations().names), stations().itrf_m, np.full(117, 4.65)),
        )
        rows = Rows(
            time_s=np.repeat(self.mjds, ant1.size) * DAY_S,
            interval_s=np.full(self.shape[0], INTEGRATION_S),
            antenna1=np.tile(ant1, self.times).astype(np.int32),
            antenna2=np.tile(ant2, self.times).astype(np.int32),
            uvw_m=np.concatenate([self.uvw(mjd)[ant2] - self.uvw(mjd)[ant1] for mjd in self.mjds]),
            weight=np.ones((self.shape[0], 2), np.float32),
        )
        flags = np.zeros(self.shape, bool) if self.flag is None else self.flag.copy()
        flags[rows.antenna1 == rows.antenna2] = True
        with create(path, header, rows) as writer:
            writer.put(0, {"DATA": self.data(), "FLAG": flags})


def calibrate(store: Path, /, **options: Any) -> dict[str, Any]:
    """Run the calibrate stage in this process, into STORE/calibrated; return its summary."""
    made = CalibrateOptions(**{"out": str(store / "calibrated"), **options})
    return contract.run(STAGE, made, dict(os.environ), Console("calibrate", {}))


def read_record(summary: dict[str, Any]) -> Calibration:
    """Read calibration.json of a calibrate artifact."""
    return Calibration.model_validate_json(
        (Path(summary["artifact"]) / "calibration.json").read_text()
    )


def load_factors(
    artifact: str, scratch: Path, mjds: FloatArray, freq_hz: FloatArray = FREQ_HZ
) -> Factors:
    """Evaluate all tables of a calibrate artifact; `scratch` is a folder for them."""
    scratch.mkdir(exist_ok=True)
    gains = load_gains(Context(str(scratch / "none"), scratch, (), {}), artifact)
    return gains.evaluate(mjds * DAY_S, freq_hz)


def write_artifact(
    folder: Path, stage: str, metrics: dict[str, Any], files: dict[str, bytes]
) -> Manifest:
    """Write an artifact of small files, with the manifest that the contract would write."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        outputs.append(Output(name=name, bytes=len(content), sha256=sha256))
    empty: dict[str, Any] = {"options": {}, "inputs": (), "tools": {}, "seconds": {}, "qa": QA()}
    fixed = empty | {"version": "0", "created": datetime(2026, 1, 1, tzinfo=UTC)}
    made = Manifest(stage=stage, key=folder.name, outputs=tuple(outputs), metrics=metrics, **fixed)
    (folder / MANIFEST).write_text(made.model_dump_json())
    return made


def packed(path: Path) -> bytes:
    """Return a folder as a tar."""
    sink = io.BytesIO()
    pack(path, sink)
    return sink.getvalue()
