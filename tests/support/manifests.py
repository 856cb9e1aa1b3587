"""Manifests of artifacts that no stage made."""

from datetime import datetime
from typing import Any

from contimg.runtime.manifest import QA, Input, Manifest


def make_manifest(
    stage: str, created: datetime, key: str = "k", inputs: dict[str, str] | None = None, **more: Any
) -> Manifest:
    """Make a manifest that says little; inputs are URIs by name."""
    given = [Input(name=name, uri=uri, digest="0") for name, uri in (inputs or {}).items()]
    own = {"stage": stage, "version": "0", "key": key, "created": created, "qa": QA()}
    empty = {name: {} for name in ("options", "tools", "metrics", "seconds")}
    return Manifest(**{**own, **empty, "inputs": tuple(given), "outputs": (), **more})
