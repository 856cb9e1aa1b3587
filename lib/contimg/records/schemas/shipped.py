"""Tables that lib ships: stations, NVSS and the VLA calibrators; and the form of every other catalogue."""

from __future__ import annotations

import pyarrow as pa

from contimg.records.tables import Column, Schema

FLUX_L = "phot.flux.density;em.radio.750-1500MHz"

STATIONS = Schema(
    "stations",
    version=1,
    sort=("station",),
    meaning="Stations of the DSA-110, derived from the telescope's public station list (WGS84 positions, arm, active flag).",
    columns=(
        Column(
            "station",
            pa.int16(),
            "",
            "meta.id;meta.main",
            "Number of the station; the antenna's name",
            nullable=False,
        ),
        Column("arm", pa.string(), "", "meta.code", "ew, ns or outrigger", nullable=False),
        Column(
            "active",
            pa.bool_(),
            "",
            "meta.code.status",
            "Correlated since the array was commissioned",
            nullable=False,
        ),
        Column(
            "lat", pa.float64(), "deg", "pos.earth.lat", "Geodetic latitude, WGS84", nullable=False
        ),
        Column(
            "lon",
            pa.float64(),
            "deg",
            "pos.earth.lon",
            "Longitude, east positive, WGS84",
            nullable=False,
        ),
        Column(
            "height",
            pa.float64(),
            "m",
            "pos.earth.altitude",
            "Height; station 117 has none, 116's is taken",
            nullable=False,
        ),
        Column(
            "x", pa.float64(), "m", "pos.cartesian.x;pos.earth", "ITRF position", nullable=False
        ),
        Column(
            "y", pa.float64(), "m", "pos.cartesian.y;pos.earth", "ITRF position", nullable=False
        ),
        Column(
            "z", pa.float64(), "m", "pos.cartesian.z;pos.earth", "ITRF position", nullable=False
        ),
    ),
)

RA = Column(
    "ra",
    pa.float64(),
    "deg",
    "pos.eq.ra;meta.main",
    "Right ascension, ICRS (or FK5 J2000, within 0.03 arcsec)",
    nullable=False,
)
DEC = Column(
    "dec",
    pa.float64(),
    "deg",
    "pos.eq.dec;meta.main",
    "Declination, ICRS (or FK5 J2000)",
    nullable=False,
)

NVSS = Schema(
    "nvss",
    version=1,
    sort=("dec", "ra"),
    meaning="NVSS sources with a peak above 50 mJy/beam, derived from NRAO's NVSS catalogue (Condon et al. 1998, AJ 115, 1693) "
    "as Obit packs it (NVSSVZ.FIT). Positions are rounded to 2^-20 deg (3.4 mas).",
    columns=(
        RA,
        DEC,
        Column(
            "flux_peak",
            pa.float32(),
            "Jy/beam",
            f"{FLUX_L};stat.max",
            "Peak at 1.4 GHz in a 45 arcsec beam",
            nullable=False,
        ),
        Column(
            "quality",
            pa.uint8(),
            "",
            "meta.code.qual",
            "Field quality of the source table; 0 is best",
            nullable=False,
        ),
    ),
)

VLA_CALIBRATORS = Schema(
    "vla_calibrators",
    version=1,
    sort=("dec", "ra"),
    meaning="Sources of the VLA Calibrator Manual (NRAO) with what is known of them at 20 cm; "
    "codes for the VLA's configurations: P under 3 % closure errors, S 3-10 %, W 10 % or more, C confused, X do not use, ? unknown.",
    columns=(
        Column(
            "name", pa.string(), "", "meta.id;meta.main", "J2000 name in the list", nullable=False
        ),
        Column("alias", pa.string(), "", "meta.id", "Other name, or empty", nullable=False),
        RA,
        DEC,
        Column(
            "position_code",
            pa.string(),
            "",
            "meta.code.error;pos.eq",
            "A < 0.002, B < 0.01, C < 0.15, T > 0.15 arcsec",
            nullable=False,
        ),
        Column(
            "code_c",
            pa.string(),
            "",
            "meta.code.qual",
            "Code at 20 cm in configuration C (to 3.4 km), or empty",
            nullable=False,
        ),
        Column(
            "code_d",
            pa.string(),
            "",
            "meta.code.qual",
            "Code at 20 cm in configuration D (to 1.0 km), or empty",
            nullable=False,
        ),
        Column(
            "flux_20cm",
            pa.float32(),
            "Jy",
            FLUX_L,
            "Flux density at 20 cm; null if the list has none",
        ),
        Column(
            "flux_6cm",
            pa.float32(),
            "Jy",
            "phot.flux.density;em.radio.3-6GHz",
            "Flux density at 6 cm",
        ),
        Column(
            "uv_max",
            pa.float32(),
            "",
            "instr.baseline;stat.max",
            "Use no longer baselines at 20 cm; 1000 wavelengths",
        ),
    ),
)

CATALOGUE = Schema(
    "catalogue",
    version=1,
    sort=("dec", "ra"),
    meaning="Sources of a radio survey, in contimg's names and units.",
    columns=(
        Column(
            "name",
            pa.string(),
            "",
            "meta.id;meta.main",
            "Name in the survey, or one made from the position",
            nullable=False,
        ),
        RA,
        DEC,
        Column(
            "flux",
            pa.float64(),
            "Jy",
            "phot.flux.density;em.radio",
            "Integrated flux density; the peak where none is given",
            nullable=False,
        ),
        Column("flux_err", pa.float64(), "Jy", "stat.error;phot.flux.density;em.radio", "1 sigma"),
        Column(
            "flux_peak",
            pa.float64(),
            "Jy/beam",
            "phot.flux.density;em.radio;stat.max",
            "Peak flux density",
        ),
        Column(
            "major",
            pa.float32(),
            "arcsec",
            "phys.angSize.smajAxis",
            "Deconvolved major axis, FWHM; an upper limit in some surveys",
        ),
        Column(
            "minor", pa.float32(), "arcsec", "phys.angSize.sminAxis", "Deconvolved minor axis, FWHM"
        ),
        Column(
            "position_angle",
            pa.float32(),
            "deg",
            "pos.posAng",
            "Of the major axis, north through east",
        ),
        Column("spectral_index", pa.float32(), "", "spect.index", "alpha, S ~ nu^alpha"),
        Column(
            "frequency",
            pa.float64(),
            "Hz",
            "em.freq;em.radio",
            "Of the flux densities",
            nullable=False,
        ),
    ),
)
