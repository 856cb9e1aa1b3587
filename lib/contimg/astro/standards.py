"""Flux density standards of Perley & Butler 2017, and which of them may set a flux scale here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contimg.astro.coordinates import separation_rad
from contimg.runtime.errors import UsageError

FloatArray = npt.NDArray[np.float64]

SAME_SOURCE_ARCSEC = 30.0
"""A position this near to a standard is that source: no other source is so bright and so near."""


@dataclass(frozen=True, kw_only=True)
class Standard:
    """One source of Perley & Butler 2017 (ApJS 230, 7), table 6."""

    name: str
    aliases: tuple[str, ...]
    ra_deg: float
    """J2000; of the brightest part where the source is large."""
    dec_deg: float
    coefficients: tuple[float, ...]
    """Of log10 S(Jy) in powers of log10 nu(GHz)."""
    low_ghz: float
    high_ghz: float
    """The polynomial holds between these frequencies."""
    anchor: bool
    """Whether it may set the flux scale at 1.4 GHz: steady, and a point for 16 arcsec."""

    def flux_jy(self, freq_hz: npt.ArrayLike) -> FloatArray:
        """Return the flux density at frequencies, Jy, of the shape of `freq_hz`.

        Raises UsageError if a frequency is outside the range in which the polynomial was fitted.
        """
        ghz = np.asarray(freq_hz, np.float64) / 1e9
        if not np.all((ghz >= self.low_ghz) & (ghz <= self.high_ghz)):
            asked = f"{np.min(ghz):g} to {np.max(ghz):g} GHz"
            problem = (
                f"Its polynomial holds from {self.low_ghz:g} to {self.high_ghz:g} GHz, not {asked}."
            )
            raise UsageError(self.name, problem, "Correct the frequencies.")
        log_flux = np.polynomial.polynomial.polyval(np.log10(ghz), self.coefficients)
        return np.asarray(10.0**log_flux)


def _parse_standards(text: str) -> tuple[Standard, ...]:
    """Read a table of ``NAMES; POSITION; COEFFICIENTS; GHZ GHZ; ANCHOR``."""
    found = []
    for line in text.strip().splitlines():
        names, position, coefficients, ghz, anchor = line.split(";")
        name, *aliases = (word.strip() for word in names.split(","))
        hours, minutes, seconds, degrees, arcmin, arcsec = position.split()
        dec = abs(float(degrees)) + float(arcmin) / 60 + float(arcsec) / 3600
        low, high = map(float, ghz.split())
        found.append(
            Standard(
                name=name,
                aliases=(*aliases, f"J{hours}{minutes}{degrees}{arcmin}"),
                ra_deg=15 * (float(hours) + float(minutes) / 60 + float(seconds) / 3600),
                dec_deg=-dec if degrees.startswith("-") else dec,
                coefficients=tuple(map(float, coefficients.split())),
                low_ghz=low,
                high_ghz=high,
                anchor=anchor.strip() == "yes",
            )
        )
    return tuple(found)


# Of those that are no anchors 3C138 is variable (flares since 2003, several per cent at 1.4 GHz),
# and the others are resolved; 3C380 has a variable core, and Cassiopeia A fades. 3C48 has risen by
# a few per cent since 2018 above 5 GHz, but is steady at 1.4 GHz. 3C196 and 3C295 are doubles of 6
# and 5 arcsec, partly resolved beyond 1 km.
STANDARDS = _parse_standards("""
3C48, 0137+331; 01 37 41.299431 +33 09 35.13299; 1.3253 -0.7553 -0.1914 0.0498; 0.05 50; yes
3C123, 0437+296; 04 37 04.375 +29 40 13.82; 1.8017 -0.7884 -0.1035 -0.0248 0.0090; 0.05 50; no
3C138, 0521+166; 05 21 09.886021 +16 38 22.05122; 1.0088 -0.4981 -0.1552 -0.0102 0.0223; 0.2 50; no
3C147, 0542+498; 05 42 36.137916 +49 51 07.23356; \
    1.4516 -0.6961 -0.2007 0.0640 -0.0464 0.0289; 0.05 50; yes
3C196, 0813+482; 08 13 36.0518 +48 13 02.262; 1.2872 -0.8530 -0.1534 -0.0200 0.0201; 0.05 50; yes
3C286, 1331+305; 13 31 08.287984 +30 30 32.95885; 1.2481 -0.4507 -0.1798 0.0357; 0.05 50; yes
3C295, 1411+522; 14 11 20.6477 +52 12 09.141; 1.4701 -0.7658 -0.2780 -0.0347 0.0399; 0.05 50; yes
3C380, 1829+487; 18 29 31.7832 +48 44 46.161; \
    1.2320 -0.7909 0.0947 0.0976 -0.1794 -0.1566; 0.05 4; no
J0133-3629; 01 33 57.6 -36 29 35.0; 1.0440 -0.6619 -0.2252; 0.2 4; no
Fornax A; 03 22 41.7 -37 12 30.0; 2.2175 -0.6606; 0.2 0.5; no
J0444-2809; 04 44 37.7 -28 09 54.0; 0.9710 -0.8938 -0.1176; 0.2 2; no
Pictor A; 05 19 49.7 -45 46 44.0; 1.9380 -0.7470 -0.0739; 0.2 4; no
Taurus A, 3C144, Crab; 05 34 31.9 +22 00 52.0; 2.9516 -0.2173 -0.0473 -0.0674; 0.05 4; no
Hydra A, 3C218; 09 18 05.7 -12 05 44.0; 1.7795 -0.9176 -0.0843 -0.0139 0.0295; 0.05 12; no
Virgo A, 3C274, M87; 12 30 49.4 +12 23 28.0; 2.4466 -0.8116 -0.0483; 0.05 3; no
Hercules A, 3C348; 16 51 08.1 +04 59 33.0; 1.8298 -1.0247 -0.0951; 0.2 12; no
3C353; 17 20 28.2 -00 58 47.0; 1.8627 -0.6938 -0.0998 -0.0732; 0.2 4; no
Cygnus A, 3C405; 19 59 28.4 +40 44 02.0; 3.3498 -1.0022 -0.2246 0.0227 0.0425; 0.05 12; no
3C444; 22 14 25.7 -17 01 36.0; 1.1064 -1.0052 -0.0750 -0.0767; 0.2 12; no
Cassiopeia A, 3C461; 23 23 24.0 +58 48 54.0; 3.3584 -0.7518 -0.0347 -0.0705; 0.2 4; no
""")
"""All twenty; 3C454.3 is not among them: it is a variable blazar."""

POLARIZED = {"3C138": 0.075, "3C286": 0.095}
"""Linear polarisation at 1.4 GHz of the standards that have more than 0.6 % (Perley & Butler 2013,
ApJS 206, 16, table 5)."""


def standard(name_or_position: str | tuple[float, float]) -> Standard | None:
    """Return a source of Perley & Butler 2017; None if it is not one.

    It is found by any of its names, or by RA and Dec, J2000, degrees.
    """
    if isinstance(name_or_position, str):
        plain = str.maketrans("", "", " _")
        wanted = name_or_position.upper().translate(plain)
        named = {n.upper().translate(plain): s for s in STANDARDS for n in (s.name, *s.aliases)}
        return named.get(wanted)
    ra, dec = np.radians(name_or_position)
    ras, decs = np.radians([(s.ra_deg, s.dec_deg) for s in STANDARDS]).T
    distance = separation_rad(ra, dec, ras, decs)
    nearest = int(np.argmin(distance))
    is_same = distance[nearest] <= np.radians(SAME_SOURCE_ARCSEC / 3600)
    return STANDARDS[nearest] if is_same else None
