"""``contimg import-ms``: one field of any Measurement Set becomes an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contimg.runtime.options import StageOptions
from contimg.runtime.stage import Resources, StageSpec

if TYPE_CHECKING:
    from contimg.runtime.manifest import Input


class ImportOptions(StageOptions):
    """Import one field of any Measurement Set. Give the artifact as --ms and as --flags."""

    path: str
    """Folder of the Measurement Set."""
    field: str = "0"
    """The field, by number or name."""


STAGE = StageSpec(
    name="import-ms",
    options=ImportOptions,
    resources=Resources(deadline_s=2400, memory_mi=8192),
    package="contimg_calibrate",
    module="contimg_calibrate.foreign",
    tools=("python-casacore",),
    resolver="contimg_calibrate.importing:resolve",
)


def resolve(options: ImportOptions) -> list[Input]:
    """Digest the folder."""
    from contimg_calibrate.selection import describe_plain_ms

    return [describe_plain_ms(options.path)]
