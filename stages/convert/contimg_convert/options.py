"""Options of the convert stage."""

from __future__ import annotations

from pydantic import Field

from contimg.records.groups import GroupURI
from contimg.runtime.options import StageOptions
from contimg.runtime.stage import Resources, StageSpec


class ConvertOptions(StageOptions):
    """Make one Measurement Set of a group of UVH5 subbands: one field, one phase centre, one spectral window."""

    group: GroupURI
    """URI of the group's record, STORE/groups/ID-aN.json."""
    tables: str | None = None
    """URI of the folder of tables; rows go to TABLES/ms and TABLES/subbands, date=YYYY-MM-DD/GROUP.parquet. Without it, none."""
    max_zeros: float = Field(default=0.25, gt=0, le=1)
    """Refuse a group without fringes when at least this fraction of its cross-correlations is exactly zero."""
    max_invalid: float = Field(default=0.25, gt=0, le=1)
    """Refuse a group when at least this fraction of its visibilities is not finite; fewer are flagged."""


STAGE = StageSpec(
    name="convert",
    options=ConvertOptions,
    tools=("python-casacore", "numba", "h5py", "pyerfa", "astropy-iers-data"),
    resources=Resources(deadline_s=1200, memory_mi=5120, scratch_mi=3840),
)
