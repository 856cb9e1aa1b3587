"""Small simulated groups, kept under .cache/cluster, and their way into a bucket."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from chain import ROOT, contimg, locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from contimg.runtime.store import Store

CACHE = ROOT / ".cache" / "cluster"
CALIBRATOR = {"ra_deg": 24.4221, "dec_deg": 33.0}
"""3C48 at its transit: every group solves by itself, so that their order does not matter."""

WRONG_TELESCOPE = 11
"""Exit code of convert on a group of another telescope."""


@dataclass(frozen=True)
class Night:
    """The group of one date."""

    date: str
    ra_deg: float = CALIBRATOR["ra_deg"]
    dec_deg: float = CALIBRATOR["dec_deg"]
    telescope: str = ""
    """What the headers say, where they do not say DSA-110: convert refuses such a group."""

    @property
    def folder(self) -> Path:
        """Where it was made."""
        return CACHE / f"{self.date}-{self.ra_deg}-{self.dec_deg}{self.telescope}"

    @cached_property
    def truth(self) -> dict[str, Any]:
        """What the simulator knows of it."""
        with locked(CACHE / "lock"):
            said = contimg(
                "simulate",
                out=self.folder / "products",
                incoming=self.folder / "incoming",
                scale="small",
                seed=1,
                date=self.date,
                ra_deg=self.ra_deg,
                dec_deg=self.dec_deg,
            )
            if self.telescope:
                relabel((self.folder / "incoming").rglob("*.hdf5"), self.telescope)
        answer: dict[str, Any] = json.loads((Path(said["artifact"]) / "truth.json").read_text())
        return answer

    @property
    def id(self) -> str:
        """The group's id."""
        return str(self.truth["groups"][0]["id"])

    @property
    def files(self) -> list[Path]:
        """The 16 subbands, by index."""
        assert self.truth
        found = sorted((self.folder / "incoming").rglob("*.hdf5"), key=lambda path: path.name[-9:])
        assert len(found) == 16
        return found


def relabel(files: Iterable[Path], telescope: str) -> None:
    """Let subbands say that they come from another telescope."""
    for path in files:
        with h5py.File(path, "r+") as file:
            name = file["Header/telescope_name"]
            if name.asstr()[()] != telescope:
                del file["Header/telescope_name"]
                file["Header/telescope_name"] = telescope


def key_of(path: Path) -> str:
    """Return the key that a subband has in a store: incoming/DATE/NAME."""
    return f"incoming/{path.name[:10]}/{path.name}"


def upload(store: Store, files: Iterable[Path]) -> None:
    """Copy files into the bucket as any S3 client does."""
    for path in files:
        store.put(key_of(path), path.read_bytes())


def shuffled(nights: Sequence[Night], seed: int) -> list[Path]:
    """Return all files of several groups in a random order."""
    files = [path for night in nights for path in night.files]
    random.Random(seed).shuffle(files)  # noqa: S311 - a shuffle, repeatable
    return files
