"""Tables that lib ships (stations, NVSS, VLA calibrators) and the form of every other catalogue."""

from __future__ import annotations

from importlib.resources import files

import pyarrow as pa

from contimg.records.tables import FLUX, Schema, parse_columns

RA = "ra | float64 | deg | pos.eq.ra;meta.main | Right ascension, ICRS (or FK5 J2000, \
    within 0.03 arcsec)"
DEC = "dec | float64 | deg | pos.eq.dec;meta.main | Declination, ICRS (or FK5 J2000)"

STATIONS = Schema(
    name="stations",
    version=1,
    sort=("station",),
    meaning="Stations of the DSA-110, derived from the telescope's public station list "
    "(WGS84 positions, arm, active flag).",
    columns=parse_columns("""
    station | int16 | | meta.id;meta.main | Number of the station; the antenna's name
    arm | string | | meta.code | ew, ns or outrigger
    active | bool | | meta.code.status | Correlated since the array was commissioned
    lat | float64 | deg | pos.earth.lat | Geodetic latitude, WGS84
    lon | float64 | deg | pos.earth.lon | Longitude, east positive, WGS84
    height | float64 | m | pos.earth.altitude | Height; station 117 has none, 116's is taken
    x | float64 | m | pos.cartesian.x;pos.earth | ITRF position
    y | float64 | m | pos.cartesian.y;pos.earth | ITRF position
    z | float64 | m | pos.cartesian.z;pos.earth | ITRF position
    """),
)

NVSS = Schema(
    name="nvss",
    version=1,
    sort=("dec", "ra"),
    meaning="NVSS sources with a peak above 50 mJy/beam, derived from NRAO's NVSS "
    "catalogue (Condon et al. 1998, AJ 115, 1693) as Obit packs it (NVSSVZ.FIT). "
    "Positions are rounded to 2^-20 deg (3.4 mas).",
    columns=parse_columns(f"""
    {RA}
    {DEC}
    flux_peak | float32 | Jy/beam | {FLUX};stat.max | Peak at 1.4 GHz in a 45 arcsec beam
    quality | uint8 | | meta.code.qual | Field quality of the source table; 0 is best
    """),
)

VLA_CALIBRATORS = Schema(
    name="vla_calibrators",
    version=1,
    sort=("dec", "ra"),
    meaning="Sources of the VLA Calibrator Manual (NRAO) with what is known of them at 20 cm; "
    "codes for the VLA's configurations: P under 3 % closure errors, S 3-10 %, W 10 % or more, "
    "C confused, X do not use, ? unknown.",
    columns=parse_columns(f"""
    name | string | | meta.id;meta.main | J2000 name in the list
    alias | string | | meta.id | Other name, or empty
    {RA}
    {DEC}
    position_code | string | | meta.code.error;pos.eq | A < 0.002, B < 0.01, C < 0.15, T > 0.15 \
        arcsec
    code_c | string | | meta.code.qual | Code at 20 cm in configuration C (to 3.4 km), or empty
    code_d | string | | meta.code.qual | Code at 20 cm in configuration D (to 1.0 km), or empty
    flux_20cm | float32? | Jy | {FLUX} | Flux density at 20 cm; null if the list has none
    flux_6cm | float32? | Jy | phot.flux.density;em.radio.3-6GHz | Flux density at 6 cm
    uv_max | float32? | | instr.baseline;stat.max | Use no longer baselines at 20 cm; 1000 \
        wavelengths
    """),
)

CATALOGUE = Schema(
    name="catalogue",
    version=1,
    sort=("dec", "ra"),
    meaning="Sources of a radio survey, in contimg's names and units.",
    columns=parse_columns(f"""
    name | string | | meta.id;meta.main | Name in the survey, or one made from the position
    {RA}
    {DEC}
    flux | float64 | Jy | phot.flux.density;em.radio | Integrated flux density, else the peak
    flux_err | float64? | Jy | stat.error;phot.flux.density;em.radio | 1 sigma
    flux_peak | float64? | Jy/beam | phot.flux.density;em.radio;stat.max | Peak flux density
    major | float32? | arcsec | phys.angSize.smajAxis | Deconvolved FWHM; sometimes an upper limit
    minor | float32? | arcsec | phys.angSize.sminAxis | Deconvolved minor axis, FWHM
    position_angle | float32? | deg | pos.posAng | Of the major axis, north through east
    spectral_index | float32? | | spect.index | alpha, S ~ nu^alpha
    frequency | float64 | Hz | em.freq;em.radio | Of the flux densities
    """),
)


def read_shipped(schema: Schema) -> pa.Table:
    """Read the table of a schema from the package's data."""
    file = f"{schema.name}.parquet"
    return schema.read(
        (files("contimg.astro") / "data" / file).read_bytes(), f"package data {file}"
    )
