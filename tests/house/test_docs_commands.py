"""Commands in the docs run: each block marked `sh`, in one folder, the tutorial first.

A block ``{ .sh .REASON }`` is not run; `REASONS` says which reasons there are.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from chain import BIN, ENVIRONMENT, ROOT

REASONS = {
    "cluster": "needs Kubernetes, Argo, an S3 server, images or a running system",
    "download": "downloads packages or catalogues",
    "minutes": "takes minutes; make demo and the starter have tests of their own",
    "telescope": "needs subbands of the telescope, or URIs that only the reader has",
}
BLOCK = re.compile(r"^```(?: *\{ *\.sh +\.(\w+) *\}|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_SHELL = re.compile(r"^```.*\bsh\b.*$", re.MULTILINE)
TUTORIAL = ROOT / "docs/tutorial/first-light-curve.md"
PAGES = [TUTORIAL, *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page != TUTORIAL)]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return reason and text of each block of shell; the reason is empty for those that run."""
    return BLOCK.findall(page.read_text())


def test_blocks_are_marked_with_known_reasons() -> None:
    for page in PAGES:
        assert len(blocks(page)) == len(ANY_SHELL.findall(page.read_text())), page
        assert {reason for reason, _ in blocks(page)} <= {"", *REASONS}, page
    running = [text for page in PAGES for reason, text in blocks(page) if not reason]
    assert len(running) >= 8, "too much of the docs is marked as not to be run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of the tutorial."""
    folder = tmp_path_factory.mktemp("docs")
    run_blocks(TUTORIAL, folder)
    return folder


def run_blocks(page: Path, folder: Path) -> None:
    script = "\n".join(text for reason, text in blocks(page) if not reason)
    env = {**ENVIRONMENT, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    argv = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


WITH_COMMANDS = [page for page in PAGES[1:] if any(not reason for reason, _ in blocks(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands_run(folder: Path, page: Path) -> None:
    run_blocks(page, folder)


def test_tutorial_makes_what_it_shows(folder: Path) -> None:
    text = TUTORIAL.read_text()
    (record,) = (folder / "store/groups").iterdir()
    assert record.name in text
    (group,) = (path for path in (folder / "store/products").iterdir() if path.name != "simulate")
    assert {path.name for path in group.iterdir()} >= {"convert", "image", "report"}
    # Keys change with the code; subbands and group do not.
    for path in (folder / "store/incoming").rglob("*_sb03.hdf5"):
        assert path.name in text
