"""Constants that more than one package uses, each with its unit."""

SPEED_OF_LIGHT_M_S = 299_792_458.0
DAY_S = 86_400.0
MAD_TO_SIGMA = 1.4826022185056018
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / Φ⁻¹(3/4)."""
NVSS_HZ = 1.4e9
"""Frequency at which NVSS fluxes are given."""
DEFAULT_SPECTRAL_INDEX = -0.7
"""Of a source of which only one flux is known, and of the spectrum for which effective beams are
right: the mean of NVSS."""
