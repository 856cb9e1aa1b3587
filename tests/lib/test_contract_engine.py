"""Hand-over of a stage to its engine: views, usage, and the reason of a failure."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import toys
from contimg.runtime.contract import REASON_BYTES
from contimg.runtime.errors import Exit
from contimg.runtime.manifest import MANIFEST, Manifest, read_manifest
from toys import summary

KILLED = "NO_ROOM: sh -c kill -9 $$: The program was killed (SIGKILL), probably out of memory."


def toy(folder: Path, *words: str, **env: str) -> toys.Done:
    """Run the toy stage for an engine that reads `handed` and `log` in a folder."""
    places = {"CONTIMG_OUTPUTS": f"{folder}/handed", "CONTIMG_TERMINATION_LOG": f"{folder}/log"}
    return toys.toy("--out", f"{folder}/out", *words, **places | env)


def handed(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "handed").iterdir()}


def test_views_are_handed_over_made_or_cached(tmp_path: Path) -> None:
    for cached in ("false", "true"):
        said = summary(toy(tmp_path, "--do", "view"))
        files = handed(tmp_path)
        assert (files["view.png"], files["view.html"], files["cached"]) == ("png", "<html>", cached)
        assert files["artifact"] == said["artifact"]
        assert float(files["seconds"]) == said["seconds"]
        assert "word.txt" not in files
        for path in (tmp_path / "handed").iterdir():
            path.unlink()
    assert not (tmp_path / "log").exists()


def test_artifact_uri_is_handed_over_unescaped(tmp_path: Path) -> None:
    # What comes after it opens the very path: no escape of JSON may stand in it.
    folder = tmp_path / 'Häuser "am" 天 \\u'
    folder.mkdir()
    said = summary(toy(folder))
    assert handed(folder)["artifact"] == said["artifact"]
    assert Path(said["artifact"], MANIFEST).is_file()


def test_usage_is_in_manifest_and_summary(tmp_path: Path) -> None:
    said = summary(toy(tmp_path))
    used = read_manifest(said["artifact"]).usage
    assert used is not None
    assert said["usage"] == used.model_dump(mode="json")
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
    used = json.loads(toys.run(sys.executable, "-c", code, check=True).stdout)
    assert used["peak_memory_bytes"] > 200_000_000
    assert used["cpu_s"] > 0.1
    assert used["wall_s"] > 0.1


def test_manifest_without_usage_is_read(tmp_path: Path) -> None:
    path = Path(summary(toy(tmp_path))["artifact"]) / MANIFEST
    old = json.loads(path.read_text())
    del old["usage"]
    path.write_text(json.dumps(old))
    assert read_manifest(str(path.parent)).usage is None
    assert summary(toy(tmp_path))["cached"] is True
    assert Manifest.model_validate(old).digest == read_manifest(str(path.parent)).digest


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("--do data", 10, "BAD_FILE: x.hdf5: expected 145 bytes, found 0 bytes. Send it again."),
        ("--do full", 22, "NO_ROOM: [Errno 28] No space left on device"),
        ("--do bug", 70, "BUG: ZeroDivisionError: no"),
        ("--do dance", 2, "USAGE: --do: Input should be"),
        ("--loud perhaps", 2, "USAGE: --loud: Input should be a valid boolean"),
        ("--wrod x", 2, "USAGE: unrecognized arguments: --wrod x"),
        ("--out=", 2, "USAGE: --out is required"),
        ("--do killed", 22, KILLED),
        ("--source /nowhere/KEY", 25, "NOT_FOUND: /nowhere/KEY"),
    ],
)
def test_failure_has_code_and_reason(tmp_path: Path, words: str, code: int, line: str) -> None:
    done = toy(tmp_path, *words.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert not list(tmp_path.rglob(MANIFEST))
    told = (tmp_path / "log").read_text()
    assert told.startswith(line)
    assert "\n" not in told
    failure = json.loads(handed(tmp_path)["failure.json"])
    assert failure["exit"] == code
    assert told == " ".join(f"{failure['name']}: {failure['reason']}".split())[:REASON_BYTES]
    if code == Exit.USAGE:
        assert "usage:" in done.stderr
        assert failure["reason"] in done.stderr
    else:
        logged = json.loads(done.stderr.splitlines()[-1])
        assert (logged["code"], logged["message"]) == (failure["name"], failure["reason"])
        assert ("Traceback" in logged.get("trace", "")) == ("trace" in logged) == (code == Exit.BUG)


def test_unwritable_places_leave_exit_code(tmp_path: Path) -> None:
    # A file in the place of the folder refuses as a full disk does, also where root may write
    # everything.
    place = tmp_path / "full"
    place.write_text("")
    for words, code in (("--do data", 10), ("--do full", 22), ("--wrod x", 2)):
        for name, path in (("CONTIMG_OUTPUTS", place), ("CONTIMG_TERMINATION_LOG", place / "log")):
            done = toy(tmp_path, *words.split(), **{name: str(path)})
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr


def test_full_outputs_folder_ends_with_no_room(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    folder = tmp_path / "handed"
    folder.mkdir()
    (folder / "summary.json").symlink_to("/dev/full")
    done = toy(tmp_path)
    assert done.returncode == 22, done.stderr
    assert "No space left on device" in (tmp_path / "log").read_text()
    (folder / "summary.json").unlink()
    assert summary(toy(tmp_path))["cached"] is True


def test_template_of_another_version_is_refused(tmp_path: Path) -> None:
    done = toy(tmp_path, CONTIMG_TEMPLATE_VERSION="9.9.9")
    mine = version("contimg")
    assert done.returncode == 2
    reason = (tmp_path / "log").read_text()
    assert f"The template was rendered by contimg 9.9.9, but this image has {mine}." in reason
    assert f"Use the images of 9.9.9, or install the chart of {mine}." in reason
    assert summary(toy(tmp_path, CONTIMG_TEMPLATE_VERSION=mine))["cached"] is False


def test_reuse_hands_on_artifact_unchanged(tmp_path: Path) -> None:
    kept = summary(toy(tmp_path, "--word", "kept"))["artifact"]
    # Neither other options nor an input that is gone matter.
    said = summary(toy(tmp_path, "--word", "other", "--source", "/nowhere/KEY", "--reuse", kept))
    assert said["artifact"] == handed(tmp_path)["artifact"] == kept
    assert said["cached"] is True
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert summary(toy(tmp_path, "--word", "other", "--reuse", ""))["artifact"] != kept


def test_reuse_leaves_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(toys.PACKAGES))
    from toy.options import STAGE, ToyOptions

    keys = {STAGE.key(ToyOptions(out="x", reuse=reuse), ()) for reuse in (None, "/a/KEY")}
    assert len(keys) == 1


def test_reuse_needs_complete_artifact_of_same_stage(tmp_path: Path) -> None:
    assert toy(tmp_path, "--reuse", str(tmp_path / "none")).returncode == 25
    kept = Path(summary(toy(tmp_path))["artifact"])
    manifest = json.loads((kept / MANIFEST).read_text())
    (kept / MANIFEST).write_text(json.dumps({**manifest, "stage": "image"}))
    assert toy(tmp_path, "--reuse", str(kept)).returncode == 2
    assert "This is an artifact of image, not of toy." in (tmp_path / "log").read_text()


def test_kernels_of_image_are_copied_to_cache(tmp_path: Path) -> None:
    shipped, cache = tmp_path / "kernels/contimg_0", tmp_path / "numba"
    shipped.mkdir(parents=True)
    (shipped / "f.nbc").write_bytes(b"code")
    env = {"CONTIMG_KERNELS": str(shipped.parent), "NUMBA_CACHE_DIR": str(cache)}
    summary(toy(tmp_path, **env))
    assert (cache / "contimg_0/f.nbc").read_bytes() == b"code"
    (cache / "contimg_0/f.nbc").write_bytes(b"ours")
    summary(toy(tmp_path, "--word", "other", **env))
    assert (cache / "contimg_0/f.nbc").read_bytes() == b"ours"
    assert {path.name for path in tmp_path.iterdir()} == {"kernels", "numba", "out", "handed"}


def test_image_without_kernels_makes_no_cache(tmp_path: Path) -> None:
    for shipped in ("", str(tmp_path / "none")):
        env = {"CONTIMG_KERNELS": shipped, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
        summary(toy(tmp_path, "--word", f"w{len(shipped)}", **env))
    assert not (tmp_path / "numba").exists()
