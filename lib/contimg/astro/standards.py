"""Flux density standards: the polynomials of Perley & Butler 2017, and which of the sources may anchor a flux scale here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.coordinates import separation_rad
from contimg.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

SAME_SOURCE_ARCSEC = 30.0
"""A position this near to a standard is the standard; no other source of their brightness is so near to any."""


@dataclass(frozen=True)
class Standard:
    """One source of Perley & Butler 2017 (ApJS 230, 7): table 6, coefficients of log10 S(Jy) in powers of log10 nu(GHz)."""

    name: str
    aliases: tuple[str, ...]
    ra_deg: float
    """J2000; of the brightest part where the source is large."""
    dec_deg: float
    coefficients: tuple[float, ...]
    low_ghz: float
    high_ghz: float
    """The polynomial holds between these frequencies."""
    size_arcsec: float
    """Largest angular size (their table 1, and NED for the largest)."""
    anchor: bool
    """Whether it may set the flux scale at 1.4 GHz: steady, and near enough to a point for 16 arcsec."""
    remark: str = ""

    def flux_jy(self, freq_hz: npt.ArrayLike) -> FloatArray:
        """Return the flux density at frequencies, Jy, of the shape of `freq_hz`.

        Raises
        ------
        UsageError
            If a frequency is outside the range in which the polynomial was fitted.
        """
        ghz = np.asarray(freq_hz, np.float64) / 1e9
        if not np.all((ghz >= self.low_ghz) & (ghz <= self.high_ghz)):
            found = f"{np.min(ghz):g} to {np.max(ghz):g} GHz"
            raise UsageError(
                self.name,
                f"expected frequencies within {self.low_ghz:g} to {self.high_ghz:g} GHz, found {found}.",
                "Correct them.",
            )
        return np.asarray(
            10.0 ** np.polynomial.polynomial.polyval(np.log10(ghz), self.coefficients)
        )


def _hms(text: str) -> tuple[float, float]:
    """Read ``hh mm ss.s +dd mm ss.s`` as degrees."""
    hours, minutes, seconds, degrees, arcmin, arcsec = text.split()
    sign = -1.0 if degrees.startswith("-") else 1.0
    dec = sign * (abs(float(degrees)) + float(arcmin) / 60 + float(arcsec) / 3600)
    return 15 * (float(hours) + float(minutes) / 60 + float(seconds) / 3600), dec


def _make(
    names: str,
    position: str,
    coefficients: tuple[float, ...],
    ghz: tuple[float, float],
    size_arcsec: float,
    anchor: str = "",
) -> Standard:
    """Make a standard; `anchor` is a remark that begins with "yes" or "no"."""
    name, *aliases = names.split(",")
    ra, dec = _hms(position)
    return Standard(
        name,
        tuple(aliases),
        ra,
        dec,
        coefficients,
        *ghz,
        size_arcsec,
        anchor.startswith("yes"),
        anchor.partition(": ")[2],
    )


WIDE = (0.05, 50.0)
RESOLVED = "no: resolved"
STANDARDS: tuple[Standard, ...] = (
    _make(
        "3C48,J0137+3309,0137+331",
        "01 37 41.299431 +33 09 35.13299",
        (1.3253, -0.7553, -0.1914, 0.0498),
        WIDE,
        1.2,
        "yes: rises by a few per cent since 2018 above 5 GHz; steady at 1.4 GHz",
    ),
    _make(
        "3C123,J0437+2940,0437+296",
        "04 37 04.375 +29 40 13.82",
        (1.8017, -0.7884, -0.1035, -0.0248, 0.0090),
        WIDE,
        44,
        RESOLVED,
    ),
    _make(
        "3C138,J0521+1638,0521+166",
        "05 21 09.886021 +16 38 22.05122",
        (1.0088, -0.4981, -0.1552, -0.0102, 0.0223),
        (0.2, 50.0),
        0.7,
        "no: variable (flares since 2003, several per cent at 1.4 GHz)",
    ),
    _make(
        "3C147,J0542+4951,0542+498",
        "05 42 36.137916 +49 51 07.23356",
        (1.4516, -0.6961, -0.2007, 0.0640, -0.0464, 0.0289),
        WIDE,
        0.9,
        "yes: ",
    ),
    _make(
        "3C196,J0813+4813,0813+482",
        "08 13 36.0518 +48 13 02.262",
        (1.2872, -0.8530, -0.1534, -0.0200, 0.0201),
        WIDE,
        7,
        "yes: a 6 arcsec double, partly resolved beyond 1 km",
    ),
    _make(
        "3C286,J1331+3030,1331+305",
        "13 31 08.287984 +30 30 32.95885",
        (1.2481, -0.4507, -0.1798, 0.0357),
        WIDE,
        3,
        "yes: ",
    ),
    _make(
        "3C295,J1411+5212,1411+522",
        "14 11 20.6477 +52 12 09.141",
        (1.4701, -0.7658, -0.2780, -0.0347, 0.0399),
        WIDE,
        5,
        "yes: a 5 arcsec double, partly resolved beyond 1 km",
    ),
    _make(
        "3C380,J1829+4844,1829+487",
        "18 29 31.7832 +48 44 46.161",
        (1.2320, -0.7909, 0.0947, 0.0976, -0.1794, -0.1566),
        (0.05, 4.0),
        20,
        "no: resolved, with a variable core",
    ),
    _make(
        "J0133-3629",
        "01 33 57.6 -36 29 35.0",
        (1.0440, -0.6619, -0.2252),
        (0.2, 4.0),
        840,
        RESOLVED,
    ),
    _make(
        "Fornax A,J0322-3712",
        "03 22 41.7 -37 12 30.0",
        (2.2175, -0.6606),
        (0.2, 0.5),
        3000,
        RESOLVED,
    ),
    _make(
        "J0444-2809", "04 44 37.7 -28 09 54.0", (0.9710, -0.8938, -0.1176), (0.2, 2.0), 90, RESOLVED
    ),
    _make(
        "Pictor A,J0519-4546",
        "05 19 49.7 -45 46 44.0",
        (1.9380, -0.7470, -0.0739),
        (0.2, 4.0),
        480,
        RESOLVED,
    ),
    _make(
        "Taurus A,3C144,Crab,J0534+2200",
        "05 34 31.9 +22 00 52.0",
        (2.9516, -0.2173, -0.0473, -0.0674),
        (0.05, 4.0),
        480,
        RESOLVED,
    ),
    _make(
        "Hydra A,3C218,J0918-1205",
        "09 18 05.7 -12 05 44.0",
        (1.7795, -0.9176, -0.0843, -0.0139, 0.0295),
        (0.05, 12.0),
        480,
        RESOLVED,
    ),
    _make(
        "Virgo A,3C274,M87,J1230+1223",
        "12 30 49.4 +12 23 28.0",
        (2.4466, -0.8116, -0.0483),
        (0.05, 3.0),
        840,
        RESOLVED,
    ),
    _make(
        "Hercules A,3C348,J1651+0459",
        "16 51 08.1 +04 59 33.0",
        (1.8298, -1.0247, -0.0951),
        (0.2, 12.0),
        190,
        RESOLVED,
    ),
    _make(
        "3C353,J1720-0058",
        "17 20 28.2 -00 58 47.0",
        (1.8627, -0.6938, -0.0998, -0.0732),
        (0.2, 4.0),
        320,
        RESOLVED,
    ),
    _make(
        "Cygnus A,3C405,J1959+4044",
        "19 59 28.4 +40 44 02.0",
        (3.3498, -1.0022, -0.2246, 0.0227, 0.0425),
        (0.05, 12.0),
        115,
        RESOLVED,
    ),
    _make(
        "3C444,J2214-1701",
        "22 14 25.7 -17 01 36.0",
        (1.1064, -1.0052, -0.0750, -0.0767),
        (0.2, 12.0),
        120,
        RESOLVED,
    ),
    _make(
        "Cassiopeia A,3C461,J2323+5848",
        "23 23 24.0 +58 48 54.0",
        (3.3584, -0.7518, -0.0347, -0.0705),
        (0.2, 4.0),
        480,
        "no: resolved, and fading",
    ),
)
"""All twenty; 3C454.3 is not among them: it is a variable blazar."""


def standard(name_or_position: str | tuple[float, float]) -> Standard | None:
    """Return a source of Perley & Butler 2017 by its name or by its position (RA, Dec in degrees, J2000); None if it is none.

    Look at its `anchor` before a flux scale is hung on it.
    """
    if isinstance(name_or_position, str):
        wanted = _plain(name_or_position)
        return next(
            (s for s in STANDARDS if wanted in {_plain(n) for n in (s.name, *s.aliases)}), None
        )
    ra, dec = np.radians(name_or_position)
    away = separation_rad(
        ra,
        dec,
        np.radians([s.ra_deg for s in STANDARDS]),
        np.radians([s.dec_deg for s in STANDARDS]),
    )
    nearest = int(np.argmin(away))
    return STANDARDS[nearest] if away[nearest] <= np.radians(SAME_SOURCE_ARCSEC / 3600) else None


def standard_flux_jy(name: str, freq_hz: npt.ArrayLike) -> FloatArray:
    """Return the flux density of a source of Perley & Butler 2017 at frequencies, Jy, of the shape of `freq_hz`.

    Raises
    ------
    UsageError
        If the source has no polynomial, or not at these frequencies. There is no default flux.
    """
    found = standard(name)
    if found is None:
        known = ", ".join(s.name for s in STANDARDS)
        raise UsageError(
            "flux standard",
            f"expected one of {known}, found {name}.",
            "Name one of them; no flux is ever assumed.",
        )
    return found.flux_jy(freq_hz)


def _plain(name: str) -> str:
    return name.upper().replace(" ", "").replace("_", "")
