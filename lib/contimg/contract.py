"""The contract of a stage: options in, artifact and manifest out, one exit code.

The only place that reads the environment, and the only one that catches every exception.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from contimg.console import Console
from contimg.context import Context, available_memory
from contimg.errors import ContimgError, Exit, MissingError, Stopped
from contimg.manifest import MANIFEST, Manifest, read_manifest
from contimg.options import Options, parse
from contimg.scratch import scratch_folder
from contimg.store import open_store
from contimg.versions import tool_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from contimg.manifest import Input
    from contimg.options import StageOptions
    from contimg.stage import Stage

Model = TypeVar("Model", bound=Options)
SHM = Path("/dev/shm")  # noqa: S108 - private folders are made in it
SHM_WORTH = 6 << 30
"""Bytes that memory must offer before it serves as scratch by default; a full-size MS and its averages fit."""


def main(stage: Stage, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a stage as its executable does, and exit."""
    options = parse(stage.options, sys.argv[1:] if argv is None else argv, stage.program, stage.version)
    env = dict(os.environ)
    console = Console(stage.name, env)
    sys.exit(guarded(lambda: run(stage, options, env, console), console, env))


def command(
    prog: str,
    model: type[Model],
    work: Callable[[Model, Console, Mapping[str, str]], dict[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command that makes no artifact, with a stage's options, log, signals and exit codes; return the code."""
    options = parse(model, sys.argv[1:] if argv is None else argv, prog, tool_version("contimg"))
    env = dict(os.environ)
    console = Console(prog.removeprefix("contimg").strip(" -"), env)
    return guarded(lambda: work(options, console, env), console, env)


def guarded(work: Callable[[], dict[str, Any]], console: Console, env: Mapping[str, str]) -> int:
    """Do the work, print its summary to stdout and map whatever goes wrong to an exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        summary = work()
    except Stopped:
        return _failed(console, env, Exit.TOLD_TO_STOP, "told to stop", trace=False)
    except ContimgError as error:
        return _failed(console, env, error.exit, str(error), trace=False)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
        return _failed(console, env, Exit.NO_ROOM if full else Exit.BUG, str(error), trace=not full)
    except MemoryError as error:
        return _failed(console, env, Exit.NO_ROOM, f"out of memory: {error}", trace=True)
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        return _failed(console, env, Exit.BUG, f"{type(error).__name__}: {error}", trace=True)
    _hand_over(env, "summary.json", json.dumps(summary))
    if "artifact" in summary:
        _hand_over(env, "artifact", str(summary["artifact"]))
    print(json.dumps(summary), flush=True)  # noqa: T201 - stdout carries the summary, nothing else
    return Exit.DONE


def run(stage: Stage, options: StageOptions, env: Mapping[str, str], console: Console) -> dict[str, Any]:
    """Make the artifact, or find it made; return the summary."""
    inputs = stage.inputs(options)
    key = stage.key(options, inputs)
    artifact = f"{options.out.rstrip('/')}/{key}"
    found = existing(artifact)
    if found is not None:
        console.log.info("cached: %s", artifact)
        return summarise(found, artifact, cached=True)
    with scratch_folder(scratch_root(env), stage.name) as folder:
        context = Context(artifact, folder, inputs, env, console)
        outcome = stage.load()(options, context)
        manifest = Manifest(
            stage=stage.name, version=stage.version, key=key, options=options.model_dump(mode="json"), inputs=inputs,
            tools=stage.tool_versions(), outputs=tuple(context.outputs), metrics=outcome.metrics, qa=outcome.qa,
            seconds=context.seconds, created=datetime.now(UTC),
        )  # fmt: skip
        open_store(artifact).put(MANIFEST, manifest.model_dump_json(indent=1).encode())
    console.close()
    return summarise(manifest, artifact, cached=False)


def existing(artifact: str) -> Manifest | None:
    """Return the manifest of an artifact if it is there."""
    try:
        return read_manifest(artifact)
    except MissingError:
        return None


def summarise(manifest: Manifest, artifact: str, *, cached: bool) -> dict[str, Any]:
    """Return what a stage prints on stdout: one JSON object."""
    seconds = round(sum(manifest.seconds.values()), 3)
    qa = manifest.qa.model_dump(mode="json")
    return {
        "stage": manifest.stage, "artifact": artifact, "key": manifest.key, "cached": cached,
        "qa": qa, "metrics": manifest.metrics, "seconds": seconds,
    }  # fmt: skip


def scratch_root(env: Mapping[str, str]) -> str:
    """Choose where heavy files work: CONTIMG_SCRATCH, else memory where there is plenty, else the temporary folder."""
    chosen = env.get("CONTIMG_SCRATCH")
    if chosen:
        Path(chosen).mkdir(parents=True, exist_ok=True)
        return chosen
    if SHM.is_dir() and os.access(SHM, os.W_OK) and min(shutil.disk_usage(SHM).free, available_memory()) > SHM_WORTH:
        return str(SHM)
    return tempfile.gettempdir()


def inputs_of(manifest: Manifest, name: str) -> list[Input]:
    """Return the inputs of one name that an artifact was made from."""
    return [item for item in manifest.inputs if item.name == name]


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once: the clean-up must not be interrupted by a second signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def _failed(console: Console, env: Mapping[str, str], code: Exit, reason: str, *, trace: bool) -> int:
    console.fail(code, reason, trace=trace)
    _hand_over(env, "failure.json", json.dumps({"exit": int(code), "name": code.name, "reason": reason}))
    return code


def _hand_over(env: Mapping[str, str], name: str, text: str) -> None:
    """Leave a file for the engine in $CONTIMG_OUTPUTS, if it asks for that."""
    folder = env.get("CONTIMG_OUTPUTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text(text)
