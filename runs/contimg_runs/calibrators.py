"""Which groups have a calibrator in the beam; they come first, and leave sets for the others."""

from collections.abc import Iterable

from contimg.records.groups import GroupRecord
from contimg.runtime.config import Document
from contimg_runs.pipelines import PROCESS_GROUP

CALIBRATE = "calibrate"
"""The step that takes over what other groups solved."""
MIN_CENTRAL_BEAM = 0.5
"""Level of the primary beam. Nearer to its edge, a set of the calibrator's transit is expected to
be better than a solve, so such a group waits for that set."""


def find_calibrator_groups(records: Iterable[GroupRecord], document: Document) -> frozenset[str]:
    """Return the ids of groups with a calibrator that is bright enough and well inside the beam.

    `document` holds the options of calibrate: the primary beam, and the smallest apparent fluxes.
    MissingError or BadInputError if the beam is a file that cannot be read.
    """
    from contimg.astro.beam_files import read_beam
    from contimg.astro.catalogues import calibrators_in_beam  # slow to import
    from contimg.astro.telescope import SITE

    chosen = document.get(CALIBRATE, {})
    fields = PROCESS_GROUP.specs[CALIBRATE].options.model_fields
    beam, standard_jy, other_jy = (
        chosen.get(name, fields[name].default)
        for name in ("beam", "min_primary_jy", "min_bright_jy")
    )
    shape, found = read_beam(str(beam)), set()
    for record in records:
        if record.dec_deg is None:
            continue
        inside = calibrators_in_beam(record.mjd_start, record.mjd_end, record.dec_deg, SITE, shape)
        if any(
            one.apparent_jy >= float(standard_jy if one.is_standard else other_jy)
            for one in inside
            if one.beam >= MIN_CENTRAL_BEAM
        ):
            found.add(record.id)
    return frozenset(found)
