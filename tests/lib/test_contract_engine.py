"""Hand-over of a stage to its engine: views, usage, and the reason of a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime.contract import REASON_BYTES
from contimg.runtime.manifest import MANIFEST, Manifest, read_manifest

PACKAGES = Path(__file__).parents[1] / "support" / "packages"


def stage(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    handed = {
        "CONTIMG_OUTPUTS": str(folder / "handed"),
        "CONTIMG_TERMINATION_LOG": str(folder / "log"),
        **env,
    }
    argv = [sys.executable, "-m", "toy", "--out", str(folder / "out"), *words]
    whole = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGES), "TMPDIR": "/tmp", **handed}
    return subprocess.run(argv, env=whole, capture_output=True, text=True, timeout=120, check=False)


def handed(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "handed").iterdir()}


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_views_are_handed_over_made_or_cached(tmp_path: Path) -> None:
    for cached in ("false", "true"):
        answer = said(stage(tmp_path, "--do", "view"))
        files = handed(tmp_path)
        assert (files["view.png"], files["view.html"], files["cached"]) == ("png", "<html>", cached)
        assert (files["artifact"], float(files["seconds"])) == (
            answer["artifact"],
            answer["seconds"],
        )
        assert "word.txt" not in files
        for path in (tmp_path / "handed").iterdir():
            path.unlink()
    assert not (tmp_path / "log").exists()


def test_artifact_uri_is_handed_over_unescaped(tmp_path: Path) -> None:
    # What comes after it opens the very path: no escape of JSON may stand in it.
    folder = tmp_path / 'Häuser "am" 天 \\u'
    folder.mkdir()
    answer = said(stage(folder))
    assert handed(folder)["artifact"] == answer["artifact"]
    assert Path(answer["artifact"], MANIFEST).is_file()


def test_usage_is_in_manifest_and_summary(tmp_path: Path) -> None:
    answer = said(stage(tmp_path))
    used = read_manifest(answer["artifact"]).usage
    assert used is not None
    assert answer["usage"] == used.model_dump(mode="json")
    # A Python that imports numpy and pydantic: some tenths of a second, some tens of MB; twice that
    # with a child of the same size.
    assert 0.05 < used.cpu_s < 60
    assert 0.05 < used.wall_s < 100
    assert 10e6 < used.peak_memory_bytes < 1e9


def test_children_are_in_the_usage() -> None:
    code = (
        "import subprocess, sys; from contimg.runtime.manifest import Usage;"
        "work = 'b = bytearray(200_000_000); sum(range(10_000_000))';"
        "subprocess.run([sys.executable, '-c', work], check=True);"
        "print(Usage.measure().model_dump_json())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = json.loads(done.stdout)
    assert used["peak_memory_bytes"] > 200_000_000
    assert used["cpu_s"] > 0.1
    assert used["wall_s"] > 0.1


def test_manifest_without_usage_is_read(tmp_path: Path) -> None:
    path = Path(said(stage(tmp_path))["artifact"]) / MANIFEST
    old = json.loads(path.read_text())
    del old["usage"]
    path.write_text(json.dumps(old))
    assert read_manifest(str(path.parent)).usage is None
    assert said(stage(tmp_path))["cached"] is True
    assert Manifest.model_validate(old).digest == read_manifest(str(path.parent)).digest


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--do", "data"], 10, "BAD_FILE: x.hdf5: expected 145 bytes, found none. Send it again."),
        (["--do", "bug"], 70, "BUG: ZeroDivisionError: no"),
        (["--do", "dance"], 2, "USAGE: --do: Input should be"),
        (["--wrod", "x"], 2, "USAGE: unrecognized arguments: --wrod x"),
        (
            ["--do", "killed"],
            22,
            "NO_ROOM: sh -c kill -9 $$: The program was killed (SIGKILL), probably out of memory.",
        ),
        (["--source", "/nowhere/KEY"], 25, "NOT_FOUND: /nowhere/KEY"),
    ],
)
def test_reason_is_in_termination_log(
    tmp_path: Path, words: list[str], code: int, line: str
) -> None:
    assert stage(tmp_path, *words).returncode == code
    told = (tmp_path / "log").read_text()
    assert told.startswith(line.replace("found none", "found 0 bytes"))
    assert "\n" not in told
    failure = json.loads(handed(tmp_path)["failure.json"])
    assert failure["exit"] == code
    assert told == " ".join(f"{failure['name']}: {failure['reason']}".split())[:REASON_BYTES]


def test_unwritable_termination_log_is_ignored(tmp_path: Path) -> None:
    assert (
        stage(
            tmp_path, "--do", "data", CONTIMG_TERMINATION_LOG=str(tmp_path / "no" / "log")
        ).returncode
        == 10
    )


def test_unwritable_outputs_leave_exit_code(tmp_path: Path) -> None:
    # A file in the place of the folder refuses as a full disk does, also where root may write
    # everything.
    place = tmp_path / "full"
    place.write_text("")
    for words, code in ((["--do", "data"], 10), (["--do", "full"], 22), (["--wrod", "x"], 2)):
        done = stage(tmp_path, *words, CONTIMG_OUTPUTS=str(place))
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_full_outputs_folder_ends_with_no_room(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    folder = tmp_path / "handed"
    folder.mkdir()
    (folder / "summary.json").symlink_to("/dev/full")
    done = stage(tmp_path)
    assert done.returncode == 22, done.stderr
    assert "No space left on device" in (tmp_path / "log").read_text()
    (folder / "summary.json").unlink()
    assert said(stage(tmp_path))["cached"] is True


def test_a_template_of_another_version_is_refused(tmp_path: Path) -> None:
    done = stage(tmp_path, CONTIMG_TEMPLATE_VERSION="9.9.9")
    mine = version("contimg")
    assert done.returncode == 2
    words = (tmp_path / "log").read_text()
    assert f"The template was rendered by contimg 9.9.9, but this image has {mine}." in words
    assert f"Use the images of 9.9.9, or install the chart of {mine}." in words
    assert said(stage(tmp_path, CONTIMG_TEMPLATE_VERSION=mine))["cached"] is False


# Reuse


def test_reuse_hands_on_artifact_unchanged(tmp_path: Path) -> None:
    kept = said(stage(tmp_path, "--word", "kept"))["artifact"]
    # Neither other options nor an input that is gone matter.
    answer = said(stage(tmp_path, "--word", "other", "--source", "/nowhere/KEY", "--reuse", kept))
    assert (answer["artifact"], answer["cached"], handed(tmp_path)["artifact"]) == (
        kept,
        True,
        kept,
    )
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert said(stage(tmp_path, "--word", "other", "--reuse", ""))["artifact"] != kept


def test_reuse_is_not_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGES))
    from toy.options import STAGE, ToyOptions

    keys = {STAGE.key(ToyOptions(out="x", reuse=reuse), ()) for reuse in (None, "/a/KEY")}
    assert len(keys) == 1


def test_reuse_needs_complete_artifact_of_same_stage(tmp_path: Path) -> None:
    assert stage(tmp_path, "--reuse", str(tmp_path / "none")).returncode == 25
    kept = Path(said(stage(tmp_path))["artifact"])
    manifest = json.loads((kept / MANIFEST).read_text())
    (kept / MANIFEST).write_text(json.dumps({**manifest, "stage": "image"}))
    assert stage(tmp_path, "--reuse", str(kept)).returncode == 2
    assert "This is an artifact of image, not of toy." in (tmp_path / "log").read_text()


def test_kernels_of_an_image_are_copied_to_cache(tmp_path: Path) -> None:
    brought, place = tmp_path / "kernels/contimg_0", tmp_path / "numba"
    brought.mkdir(parents=True)
    (brought / "f.nbc").write_bytes(b"code")
    env = {"CONTIMG_KERNELS": str(brought.parent), "NUMBA_CACHE_DIR": str(place)}
    said(stage(tmp_path, **env))
    assert (place / "contimg_0/f.nbc").read_bytes() == b"code"
    (place / "contimg_0/f.nbc").write_bytes(b"ours")
    said(stage(tmp_path, "--word", "other", **env))
    assert (place / "contimg_0/f.nbc").read_bytes() == b"ours"
    assert {path.name for path in tmp_path.iterdir()} == {"kernels", "numba", "out", "handed"}


def test_no_kernels_of_an_image_make_no_cache(tmp_path: Path) -> None:
    for brought in ("", str(tmp_path / "none")):
        env = {"CONTIMG_KERNELS": brought, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
        said(stage(tmp_path, "--word", f"w{len(brought)}", **env))
    assert not (tmp_path / "numba").exists()
