"""How options name a primary beam: a model with its parameters, or the URI of a file."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

from contimg.runtime.manifest import Input, object_input
from contimg.runtime.options import InputKind

DEFAULT_BEAM = "airy:4.65"
"""An unblocked dish of the DSA-110."""
UNRECORDED_BEAM = "airy:4.65"
"""That of rows of tables that do not name one: they are older than the choice."""
NO_BEAM = "none"
"""The beam of another telescope: unknown, and taken as 1."""
FILE_ENDINGS = (".json", ".csv", ".fits")
FWHM_RANGE_DEG_GHZ = (2.0, 8.0)
"""Full width at half maximum times frequency; 3.8 for a dish of 4.65 m."""
AIRY_FWHM_DEG_GHZ = 17.68
"""The same for a dish of 1 m: 1.0290 c / D."""
NUMBER = r"\d+(?:\.\d*)?"
AIRY = re.compile(rf"airy:({NUMBER})m?")
GAUSSIAN = re.compile(rf"gaussian:({NUMBER})@({NUMBER})(MHz|GHz)")
FORMS = "airy:DIAMETER (m), gaussian:FWHM@FREQUENCY (deg, as gaussian:3.13@1405MHz), uniform"


class BeamModel(NamedTuple):
    """A primary beam that few parameters describe."""

    kind: Literal["airy", "gaussian", "uniform"]
    diameter_m: float = 0.0
    """Of an unblocked, uniformly lit aperture; 0 unless `kind` is airy."""
    fwhm_deg_ghz: float = 0.0
    """Full width at half maximum times frequency; 0 unless `kind` is gaussian."""
    text: str = "uniform"
    """As options name it, numbers without trailing zeros."""


def parse_model(text: str) -> BeamModel | None:
    """Return the model that a text describes; None if it has not the form of one.

    Raises ValueError if no 5 m dish could have such a beam: a number is in another unit.
    """
    if text == "uniform":
        return BeamModel("uniform")
    if match := AIRY.fullmatch(text):
        diameter_m = float(match[1])
        width = AIRY_FWHM_DEG_GHZ / diameter_m if diameter_m else 0.0
        model = BeamModel("airy", diameter_m=diameter_m, text=f"airy:{diameter_m:.10g}")
    elif match := GAUSSIAN.fullmatch(text):
        mhz = float(match[2]) * (1000.0 if match[3] == "GHz" else 1.0)
        width = float(match[1]) * mhz / 1000.0
        name = f"gaussian:{float(match[1]):.10g}@{mhz:.10g}MHz"
        model = BeamModel("gaussian", fwhm_deg_ghz=width, text=name)
    else:
        return None
    low, high = FWHM_RANGE_DEG_GHZ
    if not low <= width <= high:
        found = f"its full width at half maximum would be {width / 1.405:.3g} deg at 1405 MHz"
        raise ValueError(f"{found}; {low / 1.405:.1f} to {high / 1.405:.1f} deg are possible")
    return model


def check_beam(text: str) -> str:
    """Return the normal form of a beam's text; ValueError if it is neither model nor file."""
    model = parse_model(text)
    if model is not None:
        return model.text
    if text.lower().endswith(FILE_ENDINGS):
        return text
    raise ValueError(f"expected {FORMS}, or the URI of a file {', '.join(FILE_ENDINGS)}")


def beam_input(name: str, text: str) -> Input:
    """Describe a beam as an input: a file by its content, a model by its text."""
    if parse_model(text) is None:
        return object_input(name, text)
    return Input(name=name, uri=text, digest=hashlib.sha256(text.encode()).hexdigest())


BeamText = Annotated[str, AfterValidator(check_beam), InputKind("object", beam_input)]
"""A primary beam: a model with its parameters, or the URI of a file."""
