"""Whether a task's product exists, found without starting a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contimg.runtime.contract import find_existing
from contimg.runtime.errors import ContimgError
from contimg.runtime.options import is_optional
from contimg_workflows.stages import stage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

    from contimg_workflows.compiled import Job


@dataclass(frozen=True)
class Found:
    """An artifact that was made before."""

    artifact: str
    seconds: float
    """What its stage spent on it."""

    @property
    def outputs(self) -> dict[str, str]:
        """What the stage would hand over."""
        return {"artifact": self.artifact, "cached": "true", "seconds": str(self.seconds)}


class Cache:
    """Asks the store as the stage itself would."""

    def find(self, job: Job, values: Mapping[str, str]) -> Found | None:
        """Return the artifact that the task would make, if it is there; None also where only the stage can say why not."""
        stage = stage_of(job.program)
        if stage is None or "artifact" not in job.outputs:
            return None
        try:
            options = stage.options.model_validate(_given(stage.options.model_fields, values))
            artifact, manifest = find_existing(
                stage, options, () if options.reuse else stage.inputs(options)
            )
        except (ContimgError, ValidationError):
            return None
        return (
            None if manifest is None else Found(artifact, round(sum(manifest.seconds.values()), 3))
        )


def _given(fields: Mapping[str, FieldInfo], values: Mapping[str, str]) -> dict[str, str | None]:
    """Read words as the command line does: an optional option that is empty has no value."""
    return {
        name: None if value == "" and is_optional(fields[name]) else value
        for name, value in values.items()
    }
