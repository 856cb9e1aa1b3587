"""Files of flags: one bit per visibility of a Measurement Set, packed and compressed.

A line of text, ``contimg-flags 1 ROWS CHANNELS CORRELATIONS``, is followed by one zstd frame of the
bits in C order, most significant bit first; True is flagged. Rows, channels and correlations are
those of the MS, in its order. The same flags make the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contimg.runtime.errors import BadInputError

BoolArray = npt.NDArray[np.bool_]

MAGIC = b"contimg-flags 1"
ZSTD_LEVEL = 3
"""Higher levels gain nothing on flags that look like noise."""
DIMENSIONS = 3


def read_flags(path: Path) -> BoolArray:
    """Read a file of flags, shape (rows, channels, correlations); errors as `unpack_flags`."""
    return unpack_flags(path.read_bytes(), str(path))


def pack_flags(flags: BoolArray, where: str = "flags") -> bytes:
    """Return the file of flags of shape (rows, channels, correlations); True is flagged.

    Raises BadInputError if the array has another number of dimensions.
    """
    if flags.ndim != DIMENSIONS:
        problem = f"The flags have shape {flags.shape}, not (rows, channels, correlations)."
        raise BadInputError(where, problem, "Correct the stage.")
    header = b" ".join([MAGIC, *(str(size).encode() for size in flags.shape)])
    codec = pa.Codec("zstd", ZSTD_LEVEL)
    return header + b"\n" + codec.compress(np.packbits(flags).tobytes(), asbytes=True)


def unpack_flags(data: bytes, where: str = "flags") -> BoolArray:
    """Return the flags in a file's bytes; `where` names it in errors.

    Raises BadInputError if the bytes are something else, or damaged.
    """
    header, _, packed = data.partition(b"\n")
    sizes = header.removeprefix(MAGIC + b" ").split()
    has_shape = len(sizes) == DIMENSIONS and all(size.isdigit() for size in sizes)
    if not header.startswith(MAGIC) or not has_shape:
        problem = f"This is not a flag file: it begins with {header[:40]!r}, not {MAGIC!r}."
        raise BadInputError(where, problem, "Name an artifact of contimg-flag.")
    shape = tuple(int(size) for size in sizes)
    count = int(np.prod(shape))
    try:
        bits = pa.Codec("zstd").decompress(packed, (count + 7) // 8, asbytes=True)
    except (OSError, pa.ArrowException) as error:
        problem = f"The file is damaged (flags of shape {shape}): {error}."
        raise BadInputError(where, problem, "Flag the group again.") from error
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=count)
    return flat.view(np.bool_).reshape(shape)
