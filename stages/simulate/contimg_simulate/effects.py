"""Effects and faults as options name them: NAME, or NAME:NUMBER:NUMBER."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contimg.runtime.errors import UsageError

EFFECTS: dict[str, tuple[float, ...]] = {
    "resolved": (0.3,),
    "variable": (0.1, 0.2),
    "polarised": (0.2, 0.05),
    "sun": (1e-4,),
    "a-team": (1e-4,),
    "ionosphere": (30.0,),
    "positions": (0.02,),
    "pointing": (0.1, 0.0),
}
"""What is true of sky and instrument, with the numbers that may be left out."""
FAULTS: dict[str, tuple[float, ...]] = {
    "gain-step": (1.5,),
    "flare": (1.3,),
    "mirror": (),
    "time": (60.0,),
    "declination": (0.7,),
    "swap-antennas": (5.0, 17.0),
    "swap-polarisations": (5.0,),
    "half-dead": (),
}
"""What went wrong without the telescope's knowing."""
RFI = ("narrow", "burst", "radar", "satellite", "broadband", "baseline")
"""Kinds of interference."""


def parse_effects(
    words: Sequence[str], known: Mapping[str, tuple[float, ...]]
) -> dict[str, tuple[float, ...]]:
    """Return the numbers of each effect that is asked for; missing ones have their default.

    Raises
    ------
    UsageError
        If an effect is unknown, or has too many numbers, or something else in their place.
    """
    found = {}
    for word in words:
        name, *given = word.split(":")
        default = known.get(name)
        try:
            numbers = tuple(float(number) for number in given)
        except ValueError:
            default = None
            numbers = ()
        if default is None or len(numbers) > len(default):
            forms = ", ".join(":".join([n, *(f"{x:g}" for x in d)]) for n, d in known.items())
            problem = f"{word} is unknown, or its numbers are; the defaults are {forms}."
            raise UsageError(
                "effects", problem, "Name one of these, with as many numbers or fewer."
            )
        found[name] = numbers + default[len(numbers) :]
    return found
