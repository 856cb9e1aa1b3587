"""What may be asked of the simulator."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.astro.beam_text import DEFAULT_BEAM, BeamText
from contimg.runtime.options import ObjectURI, StageOptions, Words
from contimg.runtime.stage import Resources, StageSpec


class SimulateOptions(StageOptions):
    """Simulate groups of subbands as the DSA-110 writes them; the artifact is the truth."""

    incoming: str
    """URI of the folder for the subbands, INCOMING/DATE/NAME."""
    campaign: Literal["single", "demo"] = "single"
    """single: consecutive groups. demo: months of one Declination strip with a lens and a flare."""
    scale: Literal["small", "full"] = "small"
    """full is the telescope's size, 2.3 GB a group. small has 12 channels a subband and 4
    integrations, over the same band."""
    seed: int = Field(default=1, ge=0)
    """Same seed, same instrument and same bytes. Groups of one seed share gains, whichever is made
    first."""

    date: str = Field(default="2026-01-25", pattern=r"^\d{4}-\d\d-\d\d$")
    """First UTC day. A group is at the first transit of its Right Ascension after 0 h."""
    ra_deg: float = Field(default=24.4221, ge=0, lt=360)
    """ICRS Right Ascension on the meridian at the middle of the first group (default: 3C48),
    degrees; in a campaign the calibrator's."""
    dec_deg: float = Field(default=33.0, gt=-50, lt=90)
    """Apparent Declination of the pointing, degrees."""
    time: str = ""
    """UTC of the first integration's midpoint, such as 2026-01-25T22:26:05, instead of date and
    Right Ascension."""
    groups: int = Field(default=1, ge=1, le=250)
    """Consecutive groups of a single campaign, 309.24 s apart."""

    epochs: int = Field(default=26, ge=1, le=400)
    """Demo: how often the target field is observed."""
    days: int = Field(default=150, ge=1, le=1000)
    """Demo: days from the first epoch to the last."""
    calibrate_every: int = Field(default=4, ge=1)
    """Demo: the calibrator is observed in every so many-th epoch, the first one included."""
    target_ra_deg: float = Field(default=38.9, ge=0, lt=360)
    """Demo: ICRS Right Ascension of the target field, degrees."""

    nvss: bool = True
    """Fill the sky with the NVSS sources of the beam, and with the flux standards of Perley and
    Butler (2017)."""
    sources: ObjectURI = ""
    """URI of your own list of sources, JSON or CSV (docs/stages/simulate.md)."""
    counts: bool = True
    """Fill the sky below the shipped NVSS list's 50 mJy, too, from the 1.4 GHz source count of
    Hopkins et al. (2003); not with --nvss false."""
    faintest_counts_jy: float = Field(default=0.0005, ge=5e-5, le=0.05)
    """The faintest of these sources, Jy at 1.4 GHz, before the beam."""
    faintest_jy: float = Field(default=0.0002, ge=0)
    """Leave out sources whose flux, seen through the beam, is below this in every group, Jy."""
    beam: BeamText = DEFAULT_BEAM
    """True primary beam: airy:4.65 (dish, m), gaussian:3.13@1405MHz (full width at half maximum,
    deg), uniform, or the URI of a beam's file."""
    smearing: bool = True
    """Average over each integration and channel, as a correlator does."""

    sefd_jy: float = Field(default=6000.0, ge=0)
    """System equivalent flux density of an antenna, which sets the noise; 0 for no noise."""
    gains: Literal["drifting", "unit"] = "drifting"
    """Bandpass and drifting gains in correlator units, or data in Jy."""
    amplitude_drift: float = Field(default=0.01, ge=0)
    """Fractional drift of an antenna's gain, per square root of an hour."""
    phase_drift_deg: float = Field(default=5.0, ge=0)
    """Drift of an antenna's phase, degrees per square root of an hour."""
    memory_h: float = Field(default=48.0, gt=0, le=1000)
    """Hours after which a gain has forgotten where it was; over less it is a random walk."""
    delay_ns: float = Field(default=0.02, ge=0)
    """Rms of the antennas' residual delays, ns."""
    flux_scale_error: float = Field(default=0.05, ge=0)
    """Rms of the error of the flux scale that all sources of a target epoch share; calibrator
    groups have none."""

    effects: Words = ()
    """Effects of sky and instrument with their numbers, such as resolved:0.3,pointing:0.1:0.05
    (docs/stages/simulate.md)."""
    faults: Words = ()
    """Faults with their numbers, such as gain-step:1.5,mirror,time:60 (docs/stages/simulate.md)."""
    rfi: Words = ()
    """Interference: narrow carriers, a broad burst of one integration, radar, a satellite, weak
    broadband emission of the whole group, a signal in single baselines (baseline)."""
    dead_antennas: Words = ()
    """Stations (1 to 117) that deliver zeros."""
    deaf_antennas: Words = ()
    """Stations that deliver noise but no sky."""
    zeros: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the cross-correlations that lost packets made exact zeros."""
    missing_subbands: Words = ()
    """Subbands (0 to 15) of the first group that are not written."""
    truncated_subbands: Words = ()
    """Subbands of the first group that are cut off near their end."""
    empty_subbands: Words = ()
    """Subbands of the first group with 0 bytes."""


STAGE = StageSpec(
    name="simulate",
    options=SimulateOptions,
    tools=("numpy", "numba", "h5py", "pyerfa", "astropy-iers-data"),
    resources=Resources(deadline_s=1800, memory_mi=4096, scratch_mi=1024),
)
