"""``contimg import-ms``: one field of any Measurement Set as an artifact that calibrate and image take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from contimg.runtime.contract import main as contract_main
from contimg.runtime.options import StageOptions
from contimg.runtime.stage import Resources, StageSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contimg.runtime.manifest import Input


class ImportOptions(StageOptions):
    """Bring one field of any Measurement Set into the store, with its flags; give the artifact as --ms and as --flags."""

    path: str
    """Folder of the Measurement Set."""
    field: str = "0"
    """The field, by number or name."""


def resolve(options: ImportOptions) -> list[Input]:
    """Digest the folder."""
    from contimg_calibrate.choose import plain_input

    return [plain_input(options.path)]


STAGE = StageSpec(
    name="import-ms",
    options=ImportOptions,
    resources=Resources(deadline_s=2400, memory_mi=8192),
    package="contimg_calibrate.importing",
    tools=("python-casacore",),
    resolver="contimg_calibrate.importing:resolve",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` are the words after its name."""
    contract_main(STAGE, sys.argv[1:] if argv is None else argv)
