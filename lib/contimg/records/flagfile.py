"""Flags of a Measurement Set outside of it: one bit a visibility, packed and compressed; the same flags make the same bytes.

A line of text says what follows: ``contimg-flags 1 ROWS CHANNELS CORRELATIONS``. Then comes one zstd frame of the bits in C order,
most significant bit first; True is flagged. Rows, channels and correlations are those of the MS, in its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]

MAGIC = b"contimg-flags 1"
LEVEL = 3
"""zstd level: higher ones gain nothing on flags that look like noise."""
DIMENSIONS = 3


def write_flags(path: Path, flags: BoolArray) -> None:
    """Write flags of shape (rows, channels, correlations), True is flagged.

    Raises
    ------
    BadInputError
        If the array has another number of dimensions.
    """
    path.write_bytes(pack_flags(flags, str(path)))


def read_flags(path: Path) -> BoolArray:
    """Read the flags that `write_flags` wrote, shape (rows, channels, correlations).

    Raises
    ------
    BadInputError
        If the file is something else, or damaged.
    """
    return unpack_flags(path.read_bytes(), str(path))


def pack_flags(flags: BoolArray, where: str = "flags") -> bytes:
    """Return the file's bytes; `where` names it in errors."""
    if flags.ndim != DIMENSIONS:
        raise BadInputError(
            where,
            f"expected flags of shape (rows, channels, correlations), found shape {flags.shape}.",
            "Correct the stage.",
        )
    header = b" ".join([MAGIC, *(str(size).encode() for size in flags.shape)])
    packed: bytes = pa.Codec("zstd", LEVEL).compress(np.packbits(flags).tobytes(), asbytes=True)
    return header + b"\n" + packed


def unpack_flags(data: bytes, where: str = "flags") -> BoolArray:
    """Return the flags in a file's bytes; `where` names it in errors.

    Raises
    ------
    BadInputError
        If the bytes are something else, or damaged.
    """
    header, _, packed = data.partition(b"\n")
    sizes = header.removeprefix(MAGIC + b" ").split()
    if (
        not header.startswith(MAGIC)
        or len(sizes) != DIMENSIONS
        or not all(size.isdigit() for size in sizes)
    ):
        raise BadInputError(
            where,
            f"expected a flag file ({MAGIC.decode()} …), found {header[:40]!r}.",
            "Name an artifact of contimg-flag.",
        )
    shape = tuple(int(size) for size in sizes)
    count = int(np.prod(shape))
    try:
        bits = pa.Codec("zstd").decompress(packed, (count + 7) // 8, asbytes=True)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(
            where,
            f"expected flags of shape {shape}, found {error!s}.",
            "The file is damaged; flag the group again.",
        ) from error
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=count)
    return flat.view(np.bool_).reshape(shape)
