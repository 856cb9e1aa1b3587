"""Positions written as hours, minutes and seconds, by the million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

PARTS = 3


def degrees_of_words(words: npt.NDArray[Any], *, hours: bool, where: str) -> FloatArray:
    """Return degrees of texts such as ``12 34 56.7``, ``-01:02:03`` or ``12h34m56.7s``; a plain number is degrees.

    Parameters
    ----------
    words
        Texts or bytes, shape (N,).
    hours
        Whether the first of three parts is hours (Right Ascension) or degrees.
    where
        The file, for messages.

    Raises
    ------
    BadInputError
        If one has neither one part nor three, or no numbers; it is quoted.
    """
    text = pa.array(
        [w.decode() if isinstance(w, bytes) else str(w) for w in words.tolist()], pa.string()
    )
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"[^0-9.+\-eE]+", " "))
    pieces = pc.split_pattern(spaced, " ")
    counts = np.asarray(pc.list_value_length(pieces))
    wrong = np.flatnonzero((counts != PARTS) & (counts != 1))
    if wrong.size:
        raise BadInputError(
            where,
            f"expected positions as degrees or as three parts, found {text[int(wrong[0])].as_py()!r}.",
            "Correct them.",
        )
    try:
        numbers = pc.cast(pc.list_flatten(pieces), pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise BadInputError(
            where, f"expected numbers in positions, found {error!s}.", "Correct them."
        ) from error
    return _degrees(numbers, counts, np.asarray(pc.starts_with(spaced, "-")), hours=hours)


def _degrees(
    numbers: FloatArray,
    counts: npt.NDArray[np.int64],
    negative: npt.NDArray[np.bool_],
    *,
    hours: bool,
) -> FloatArray:
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    degrees: FloatArray = numbers[first]
    triple = counts == PARTS
    at = first[triple]
    size = np.abs(numbers[at]) + numbers[at + 1] / 60 + numbers[at + 2] / 3600
    # The sign of "-00 12 34" is in the text alone.
    degrees[triple] = np.where(negative[triple], -size, size) * (15.0 if hours else 1.0)
    return degrees
