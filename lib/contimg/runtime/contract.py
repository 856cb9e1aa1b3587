"""The contract of a stage: options in, artifact and manifest out, one exit code.

The only module that reads the environment, and the only one that catches every exception.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import FrameType
from typing import Any, NoReturn

from contimg.runtime.child import GC_THRESHOLD_OBJECTS, LINEAR_ALGEBRA
from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg.runtime.errors import ContimgError, Exit, MissingError, Stopped, UsageError
from contimg.runtime.manifest import MANIFEST, Input, Manifest, Usage, read_manifest
from contimg.runtime.options import CommandLineError, StageOptions, parse
from contimg.runtime.scratch import scratch_folder
from contimg.runtime.stage import StageSpec
from contimg.runtime.store import fetch_file, open_store
from contimg.runtime.versions import tool_version

Work = Callable[[Any], dict[str, Any]]
RESEND_S = 0.1
"""Interval at which a signal is raised again until it takes effect, seconds."""
VIEWS = (".png", ".html")
"""Endings of an artifact's files that a person opens in the engine's own page."""
MAX_VIEW_BYTES = 32 << 20
REASON_BYTES = 2048
"""Kubernetes keeps 4096 bytes of a termination message."""
SUMMARY_PARAMETERS = {"artifact", "cached", "seconds"}
"""Parts of a summary that engines read as output parameters."""


def main(stage: StageSpec, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a stage as its executable does, and exit."""
    gc.set_threshold(GC_THRESHOLD_OBJECTS)
    for name, value in LINEAR_ALGEBRA.items():  # libraries read it once, when they are loaded
        os.environ.setdefault(name, value)
    provide_caches()
    env = dict(os.environ)
    console, version = Console(stage.name, env), stage.version
    options = partial(parse, stage.options, argv, stage.program, version, section=stage.name)
    code = guard(options, lambda given: run(stage, given, env, console), console, env)
    if argv is not None:
        sys.exit(code)
    leave(code)


def provide_caches() -> None:
    """Give numba and matplotlib a folder for what they keep, if they could write none of their own.

    An account without a home that runs a read-only installation has neither the folder beside the
    code nor ~/.cache, and numba refuses to compile then.
    """
    home, code = Path("~").expanduser(), Path(__file__).parent
    if any(folder.is_dir() and os.access(folder, os.W_OK) for folder in (home, code)):
        return
    folder = Path(tempfile.gettempdir()) / f"contimg-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # another user's code
        folder = Path(tempfile.mkdtemp(prefix="contimg-"))
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))


def leave(code: int) -> NoReturn:
    """End the program at once, after its output is flushed.

    An ordinary end sometimes crashes in pyarrow's threads ("terminate called without an active
    exception", 1 in 25 was measured), and a crash is retried where the code says never.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - the rest of an interpreter's end is what crashes
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_command(
    command: Command, argv: Sequence[str] | None = None, program: str | None = None
) -> int:
    """Run a command, with a stage's options, log, signals and exit codes; return the exit code.

    `argv` follows the command's name (None: this process's); `program` names an own executable.
    """
    provide_caches()
    env, prog = dict(os.environ), program or f"contimg {command.name}"
    console = Console(prog.removeprefix("contimg").strip(" -"), env, plain=command.plain)
    places, version = command.positional, tool_version("contimg")
    options = partial(parse, command.options, argv, prog, version, positional=places)
    work = lambda given: resolve_name(command.run)(given, console, env)  # noqa: E731 - imports late
    return guard(options, work, console, env, summary=not command.plain)


def guard(
    options: Callable[[], Any],
    work: Work,
    console: Console,
    env: Mapping[str, str],
    *,
    summary: bool = True,
) -> int:
    """Do the work with the options, print its summary, and turn any error into an exit code.

    A summary may hold the exit code itself, as `exit`: then it is 0 only without one. A template
    of another version is refused, since its options may mean something else.
    """
    signals = _Signals()
    try:
        try:
            given = options()
            expected, installed = env.get("CONTIMG_TEMPLATE_VERSION"), tool_version("contimg")
            if expected and expected != installed:
                found = f"rendered by contimg {expected}, but this image has {installed}"
                remedy = f"Use the images of {expected}, or install the chart of {installed}."
                raise UsageError("the image", f"The template was {found}.", remedy)
            result = work(given)
            code = int(result.pop("exit", Exit.DONE))
            hand_over(env, "summary.json", json.dumps(result, indent=1))
            for name in SUMMARY_PARAMETERS & result.keys():
                value = result[name]
                hand_over(env, name, value if isinstance(value, str) else json.dumps(value))
        finally:
            # Raise nothing from here on: the work has ended, and its result is being written.
            signals.ignored = True
            signal.setitimer(signal.ITIMER_REAL, 0)
        if summary:
            print(json.dumps(result), flush=True)  # noqa: T201 - stdout is the summary's
    except (CommandLineError, Stopped, Exception) as error:  # noqa: BLE001 - the one place where errors become codes
        failed, reason, trace = _describe_failure(error, stopped=signals.received)
        if not isinstance(error, CommandLineError):  # the parser has printed it
            console.fail(failed, reason, trace=trace)
        # Errors are ignored: the reason is in the log as well.
        with contextlib.suppress(OSError):
            failure = {"exit": int(failed), "name": failed.name, "reason": reason}
            hand_over(env, "failure.json", json.dumps(failure))
        with contextlib.suppress(OSError):
            if log := env.get("CONTIMG_TERMINATION_LOG"):
                line = " ".join(f"{failed.name}: {reason}".split()).encode()
                Path(log).write_bytes(line[:REASON_BYTES])
        return failed
    return code


def _describe_failure(error: BaseException, *, stopped: bool) -> tuple[Exit, str, bool]:
    """Return the exit code and the reason of an error, and whether to show a trace."""
    if isinstance(error, CommandLineError):
        return Exit.USAGE, error.reason, False
    if isinstance(error, Stopped):
        return Exit.TERMINATED, "Terminated by a signal.", False
    if isinstance(error, ContimgError):
        return error.exit, str(error), False
    if isinstance(error, MemoryError):
        return Exit.NO_ROOM, f"Out of memory: {error}", True
    if isinstance(error, OSError):
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
        return Exit.NO_ROOM if full else Exit.BUG, str(error), not full
    # Compiled code turns the exception of a signal into another one.
    return Exit.TERMINATED if stopped else Exit.BUG, f"{type(error).__name__}: {error}", True


def run(
    stage: StageSpec, options: StageOptions, env: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """Make the artifact unless it exists; return the summary, which stdout gets as JSON.

    The stage runs in a scratch folder, and the manifest is written last.
    """
    inputs = () if options.reuse else stage.inputs(options)
    artifact, manifest = find_existing(stage, options, inputs)
    cached = manifest is not None
    if manifest is not None:
        console.log.info("cached: %s", artifact)
    else:
        # numba reads compiled code only from a folder that it can write: copy that of the image.
        shipped, cache = env.get("CONTIMG_KERNELS", ""), Path(env.get("NUMBA_CACHE_DIR", "."))
        if Path(shipped).is_absolute() and Path(shipped).is_dir() and not cache.exists():
            copy = cache.with_name(f"{cache.name}.{os.getpid()}")
            shutil.copytree(shipped, copy).rename(cache)
        with scratch_folder(env, stage.name) as folder:
            context = Context(artifact, folder, inputs, env, console.show)
            result = resolve_name(f"{stage.module}:run")(options, context)
            manifest = Manifest(
                stage=stage.name,
                version=stage.version,
                key=context.key,
                options=options.model_dump(mode="json"),
                inputs=inputs,
                tools=stage.tool_versions(),
                outputs=tuple(context.outputs),
                metrics=result.metrics,
                qa=result.qa,
                seconds=context.seconds,
                usage=Usage.measure(),
                created=datetime.now(UTC),
            )
            open_store(artifact).put(MANIFEST, manifest.model_dump_json(indent=1).encode())
        console.close()
    views = Path(env.get("CONTIMG_OUTPUTS", ""))
    for output in manifest.outputs if env.get("CONTIMG_OUTPUTS") else ():
        if output.name.endswith(VIEWS) and output.bytes <= MAX_VIEW_BYTES:
            fetch_file(open_store(artifact), output.name, views / output.name)
    return {
        "stage": manifest.stage,
        "artifact": artifact,
        "key": manifest.key,
        "cached": cached,
        "qa": manifest.qa.model_dump(mode="json"),
        "metrics": manifest.metrics,
        "seconds": round(sum(manifest.seconds.values()), 3),
        "usage": manifest.usage.model_dump(mode="json") if manifest.usage else None,
    }


def find_existing(
    stage: StageSpec, options: StageOptions, inputs: Sequence[Input]
) -> tuple[str, Manifest | None]:
    """Return the URI of the artifact that this work makes, and its manifest if it exists.

    For ``--reuse``, MissingError if it does not exist, UsageError if another stage made it.
    """
    if not options.reuse:
        artifact = f"{options.out.rstrip('/')}/{stage.key(options, inputs)}"
        return artifact, read_manifest_or_none(artifact)
    artifact = options.reuse.rstrip("/")
    manifest = read_manifest(artifact)
    if manifest.stage != stage.name:
        problem = f"This is an artifact of {manifest.stage}, not of {stage.name}."
        raise UsageError(artifact, problem, "Correct --reuse.")
    return artifact, manifest


def read_manifest_or_none(artifact: str) -> Manifest | None:
    """Return the manifest of an artifact if it exists."""
    try:
        return read_manifest(artifact)
    except MissingError:
        return None


class _Signals:
    """Turns SIGTERM and SIGINT into `Stopped`.

    Finalisers, callbacks from compiled code and libraries that catch everything lose the
    exception; a timer raises it again until it takes effect, but not during the clean-up.
    """

    def __init__(self) -> None:
        self.received = False
        self.ignored = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._handle)
        hook = sys.__unraisablehook__
        sys.unraisablehook = lambda lost: None if lost.exc_type is Stopped else hook(lost)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.ignored:
            return
        self.received = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, RESEND_S)
        error = sys.exc_info()[1]
        while error is not None and not isinstance(error, Stopped):
            error = error.__context__
        if error is None:  # otherwise a clean-up runs because of an earlier one
            raise Stopped


def hand_over(env: Mapping[str, str], name: str, text: str) -> None:
    """Write a file for the engine to $CONTIMG_OUTPUTS, if that is set."""
    folder = env.get("CONTIMG_OUTPUTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text(text)
