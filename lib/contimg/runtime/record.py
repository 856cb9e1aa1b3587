"""The base of the JSON files that stages exchange."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A JSON file with fixed fields, written once and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
