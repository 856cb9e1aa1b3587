"""Measurement Sets with gains that the test knows, written as convert artifacts: a direct sum over sources, small arrays."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import (
    apparent_hadec,
    direction_cosines,
    icrs_of_hadec,
    separation_rad,
)
from contimg.astro.telescope import SITE, primary_beam, stations
from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime.manifest import MANIFEST, Manifest, Output
from contimg.runtime.tar import pack

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from contimg.astro.predict import PointSources

    FloatArray = npt.NDArray[np.float64]

STEP_S = 12.884902
STATIONS = (1, 2, 5, 9, 14, 19, 25, 31, 37, 44, 51, 68, 73, 79, 85, 92, 98, 102, 103, 105, 109, 114)
"""Some of each arm, and outriggers."""
FREQ_HZ = 1.4e9 + 0.5e6 * np.arange(32)
"""Narrow channels: smearing in frequency, which these data do not have, is nothing then."""


@dataclass
class Observed:
    """One group to be written; every array can be changed before that."""

    sources: PointSources
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
    deaf: tuple[int, ...] = ()
    """Stations that deliver noise but no sky."""

    def __post_init__(self) -> None:
        self.mjds = self.mjd + (np.arange(self.times) - (self.times - 1) / 2) * STEP_S / 86400
        self.index = np.array(STATIONS) - 1
        rng = np.random.default_rng(self.seed)
        shape, x = (117, 1, 2), np.linspace(-1, 1, self.freq_hz.size)[:, None]
        self.delay_ns = rng.normal(0, 3, shape)
        size = self.scale * (1 + 0.1 * rng.normal(size=shape) + 0.05 * rng.normal(size=shape) * x)
        turn = rng.uniform(-np.pi, np.pi, shape) + 2 * np.pi * 1e-9 * self.delay_ns * (
            self.freq_hz[:, None] - 1.4e9
        )
        self.band = size * np.exp(1j * turn)
        drift = np.radians(0.5) * np.cumsum(rng.normal(size=(self.times, 117, 1, 2)), axis=0)
        steady = np.random.default_rng([self.seed, round(self.mjd * 100)]).normal(
            size=(117, 1, 2)
        ) * np.radians(self.drift_deg)
        self.gain = np.exp(1j * (drift + steady))
        """Shape (times, 117, channels or 1, 2); times the bandpass, it is the truth."""
        self.flag: npt.NDArray[np.bool_] | None = None
        """Shape (rows, channels, 2), by default the autos alone."""

    @property
    def truth(self) -> npt.NDArray[np.complex128]:
        """Shape (times, 117, channels, 2)."""
        return self.band[None] * self.gain

    @property
    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first, second = np.triu_indices(len(STATIONS))
        return self.index[first], self.index[second]

    def centre(self) -> tuple[float, float]:
        ra, dec = icrs_of_hadec(0.0, np.radians(self.dec_deg), self.mjd, SITE)
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
        ant1, ant2 = self.pairs
        where = self.uvw(mjd)
        lmn = np.stack(direction_cosines(self.sources.ra_rad, self.sources.dec_rad, *self.centre()))
        hour_angle, dec = apparent_hadec(self.sources.ra_rad, self.sources.dec_rad, mjd, SITE)
        away = separation_rad(hour_angle, dec, 0.0, np.radians(self.dec_deg))
        flux = self.sources.flux_jy * primary_beam(np.minimum(away, 1.5)[:, None], self.freq_hz)
        path = (where[ant2] - where[ant1]) @ lmn
        return np.einsum(
            "sf,rsf->rf",
            flux,
            np.exp(2j * np.pi / SPEED_OF_LIGHT_M_S * path[:, :, None] * self.freq_hz),
        )

    def data(self) -> npt.NDArray[np.complex64]:
        rng = np.random.default_rng([self.seed, round(self.mjd * 1000)])
        (ant1, ant2), truth, made = self.pairs, self.truth, []
        for k, mjd in enumerate(self.mjds):
            hears = ~(np.isin(ant1 + 1, self.deaf) | np.isin(ant2 + 1, self.deaf))
            sky = (self.visibilities(mjd) * hears[:, None])[:, :, None]
            noise = self.noise_jy * (
                rng.normal(size=(*sky.shape[:2], 2)) + 1j * rng.normal(size=(*sky.shape[:2], 2))
            )
            made.append((sky + noise) * truth[k, ant1] * truth[k, ant2].conj())
        return np.concatenate(made).astype(np.complex64)

    def write(self, store: Path) -> str:
        """Write the artifact STORE/products/NAME/convert/KEY and return its URI."""
        folder = store / "products" / self.name / "convert" / "0123456789abcdef"
        folder.mkdir(parents=True)
        self.write_ms(folder / f"{self.name}.ms")
        with (folder / "ms.tar").open("wb") as sink:
            size, digest = pack(folder / f"{self.name}.ms", sink)
        half = STEP_S / 86400 / 2
        metrics = {
            "group": self.name,
            "mjd": self.mjd,
            "mjd_start": self.mjds[0] - half,
            "mjd_end": self.mjds[-1] + half,
            "pointing_dec_deg": self.dec_deg,
            "lat_deg": SITE.lat_deg,
            "lon_deg": SITE.lon_deg,
            "height_m": SITE.height_m,
        }
        write_manifest(
            folder, "convert", metrics, [Output(name="ms.tar", bytes=size, sha256=digest)]
        )
        return str(folder)

    def write_ms(self, path: Path) -> None:
        ant1, ant2 = self.pairs
        uvw = np.concatenate([self.uvw(mjd)[ant2] - self.uvw(mjd)[ant1] for mjd in self.mjds])
        dishes = Antennas(tuple(stations().names), stations().itrf_m, np.full(117, 4.65))
        ra, dec = self.centre()
        header = MSHeader(
            "DSA_110",
            "field",
            ra,
            dec,
            self.freq_hz,
            float(self.freq_hz[1] - self.freq_hz[0]),
            dishes,
        )
        count = self.times * ant1.size
        rows = Rows(
            np.repeat(self.mjds, ant1.size) * 86400,
            np.full(count, STEP_S),
            np.tile(ant1, self.times).astype(np.int32),
            np.tile(ant2, self.times).astype(np.int32),
            uvw,
            np.ones((count, 2), np.float32),
        )
        data = self.data()
        autos = np.zeros(data.shape, bool) | (rows.antenna1 == rows.antenna2)[:, None, None]
        with create(path, header, rows) as writer:
            writer.put(0, {"DATA": data, "FLAG": autos if self.flag is None else autos | self.flag})


def write_manifest(
    folder: Path, stage: str, metrics: dict[str, Any], outputs: list[Output]
) -> Manifest:
    """Write a manifest as the contract would."""
    made = Manifest(
        stage=stage,
        version="0",
        key=folder.name,
        options={},
        inputs=(),
        tools={},
        outputs=tuple(outputs),
        metrics=metrics,
        qa={"verdict": "good"},
        seconds={},
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )  # type: ignore[arg-type]
    (folder / MANIFEST).write_text(made.model_dump_json())
    return made


def write_artifact(
    folder: Path, stage: str, metrics: dict[str, Any], files: dict[str, bytes]
) -> Manifest:
    """Write an artifact of small files."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        outputs.append(
            Output(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        )
    return write_manifest(folder, stage, metrics, outputs)


def packed(path: Path) -> bytes:
    """Return a folder as a tar."""
    sink = io.BytesIO()
    pack(path, sink)
    return sink.getvalue()
