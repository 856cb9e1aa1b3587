"""The contract of a stage: options in, artifact and manifest out, one exit code.

The only place that reads the environment, and the only one that catches every exception.
"""

from __future__ import annotations

import atexit
import contextlib
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

from contimg.runtime.blas_env import LINEAR_ALGEBRA
from contimg.runtime.child import collect_seldom
from contimg.runtime.console import Console
from contimg.runtime.context import Context, available_memory
from contimg.runtime.errors import ContimgError, Exit, MissingError, Stopped, UsageError
from contimg.runtime.manifest import MANIFEST, Manifest, read_manifest
from contimg.runtime.options import CommandLineError, Options, parse
from contimg.runtime.scratch import scratch_folder
from contimg.runtime.store import fetch_file, open_store
from contimg.runtime.usage import usage
from contimg.runtime.versions import tool_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from contimg.runtime.command import Command
    from contimg.runtime.manifest import Input
    from contimg.runtime.options import StageOptions
    from contimg.runtime.stage import StageSpec

Model = TypeVar("Model", bound=Options)
SHM = Path("/dev/shm")  # noqa: S108 - private folders are made in it
AGAIN_S = 0.1
"""So often it is seen to that a signal was not lost, seconds."""
SHM_WORTH = 6 << 30
"""Bytes that memory must offer before it serves as scratch by default; a full-size MS and its averages fit."""
VIEWS = (".png", ".html")
"""Endings of an artifact's files that a person wants to open in the engine's own page."""
VIEW_BYTES = 32 << 20
"""A larger file is no view."""
REASON_BYTES = 2048
"""Of a reason, Kubernetes keeps 4096 bytes; one line of words is meant."""


def main(stage: StageSpec, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a stage as its executable does, and exit."""
    collect_seldom()
    for (
        name,
        value,
    ) in LINEAR_ALGEBRA.items():  # before anything loads such a library, which reads them once
        os.environ.setdefault(name, value)
    env = dict(os.environ)
    options = _parsed(stage.options, argv, stage.program, stage.version, env, section=stage.name)
    console = Console(stage.name, env)
    code = guarded(lambda: run(stage, options, env, console), console, env)
    if argv is not None:
        sys.exit(code)
    leave(code)


def leave(code: int) -> NoReturn:
    """End the program at once, with everything said.

    An ordinary end now and then crashes in pyarrow's threads ("terminate called without an active exception", one in
    25 was measured), and a crash would be tried again where the code says never.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - the rest of an interpreter's end is what crashes
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def command(
    prog: str,
    model: type[Model],
    work: Callable[[Model, Console, Mapping[str, str]], dict[str, Any]],
    argv: Sequence[str] | None = None,
    *,
    tell: bool = True,
) -> int:
    """Run a command that makes no artifact, with a stage's options, log, signals and exit codes; return the code.

    One that does not `tell` its summary prints for people: plain words on stdout and stderr.
    """
    env = dict(os.environ)
    options = _parsed(model, argv, prog, tool_version("contimg"), env)
    console = Console(prog.removeprefix("contimg").strip(" -"), env, plain=not tell)
    return guarded(lambda: work(options, console, env), console, env, tell=tell)


def run_command(spec: Command, argv: Sequence[str] | None = None) -> int:
    """Run a `Command`; return its exit code: that of an error, else the `exit` of its summary, else 0."""
    env, ended = dict(os.environ), [0]
    options = _parsed(
        spec.options,
        argv,
        f"contimg {spec.name}",
        tool_version("contimg"),
        env,
        positional=spec.positional,
    )
    console = Console(spec.name, env, plain=spec.plain)

    def work() -> dict[str, Any]:
        summary = spec.load()(options, console, env)
        ended[0] = summary.pop("exit", 0)
        return summary

    return guarded(work, console, env, tell=not spec.plain) or ended[0]


def guarded(
    work: Callable[[], dict[str, Any]],
    console: Console,
    env: Mapping[str, str],
    *,
    tell: bool = True,
) -> int:
    """Do the work, print its summary to stdout and map whatever goes wrong to an exit code."""
    stop = _Stop()
    stop.listen()
    try:
        try:
            check_template(env)
            summary = work()
            _hand_over_summary(env, summary)
        finally:
            stop.over()
        if tell:
            print(json.dumps(summary), flush=True)  # noqa: T201 - stdout carries the summary, nothing else
    except Stopped:
        return _failed(console, env, Exit.TERMINATED, "told to stop", trace=False)
    except ContimgError as error:
        return _failed(console, env, error.exit, str(error), trace=False)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
        return _failed(console, env, Exit.NO_ROOM if full else Exit.BUG, str(error), trace=not full)
    except MemoryError as error:
        return _failed(console, env, Exit.NO_ROOM, f"out of memory: {error}", trace=True)
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        # After a signal it is what compiled code made of that.
        code = Exit.TERMINATED if stop.told else Exit.BUG
        return _failed(console, env, code, f"{type(error).__name__}: {error}", trace=True)
    return Exit.DONE


def run(
    stage: StageSpec, options: StageOptions, env: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """Make the artifact, or find it made; return the summary."""
    inputs = () if options.reuse else stage.inputs(options)
    artifact, found = find_existing(stage, options, inputs)
    if found is not None:
        console.log.info("cached: %s", artifact)
        _hand_over_views(env, artifact, found)
        return summarise(found, artifact, cached=True)
    give_kernels(env)
    with scratch_folder(scratch_root(env), stage.name) as folder:
        context = Context(artifact, folder, inputs, env, console)
        outcome = stage.load()(options, context)
        manifest = Manifest(
            stage=stage.name,
            version=stage.version,
            key=context.key,
            options=options.model_dump(mode="json"),
            inputs=inputs,
            tools=stage.tool_versions(),
            outputs=tuple(context.outputs),
            metrics=outcome.metrics,
            qa=outcome.qa,
            seconds=context.seconds,
            usage=usage(),
            created=datetime.now(UTC),
        )
        open_store(artifact).put(MANIFEST, manifest.model_dump_json(indent=1).encode())
    console.close()
    _hand_over_views(env, artifact, manifest)
    return summarise(manifest, artifact, cached=False)


def give_kernels(env: Mapping[str, str]) -> None:
    """Put machine code that came with an image where numba looks for it: numba takes none from a folder that it cannot write."""
    brought, place = env.get("CONTIMG_KERNELS", ""), Path(env.get("NUMBA_CACHE_DIR", "."))
    if Path(brought).is_absolute() and Path(brought).is_dir() and not place.exists():
        copy = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.copytree(brought, copy)
        copy.rename(place)


def find_existing(
    stage: StageSpec, options: StageOptions, inputs: Sequence[Input]
) -> tuple[str, Manifest | None]:
    """Return the URI of the artifact that this work makes, and its manifest if it is there.

    Raises
    ------
    UsageError
        If an artifact is to be reused that another stage made.
    MissingError
        If it does not exist.
    """
    if not options.reuse:
        artifact = f"{options.out.rstrip('/')}/{stage.key(options, tuple(inputs))}"
        return artifact, read_manifest_or_none(artifact)
    artifact = options.reuse.rstrip("/")
    manifest = read_manifest(artifact)
    if manifest.stage != stage.name:
        raise UsageError(
            artifact,
            f"expected an artifact of {stage.name}, found one of {manifest.stage}.",
            "Correct --reuse.",
        )
    return artifact, manifest


def read_manifest_or_none(artifact: str) -> Manifest | None:
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
        "stage": manifest.stage,
        "artifact": artifact,
        "key": manifest.key,
        "cached": cached,
        "qa": qa,
        "metrics": manifest.metrics,
        "seconds": seconds,
        "usage": manifest.usage.model_dump(mode="json") if manifest.usage else None,
    }


def scratch_root(env: Mapping[str, str]) -> str:
    """Choose where heavy files work: CONTIMG_SCRATCH, else memory where there is plenty, else the temporary folder."""
    chosen = env.get("CONTIMG_SCRATCH")
    if chosen:
        Path(chosen).mkdir(parents=True, exist_ok=True)
        return chosen
    if (
        SHM.is_dir()
        and os.access(SHM, os.W_OK)
        and min(shutil.disk_usage(SHM).free, available_memory()) > SHM_WORTH
    ):
        return str(SHM)
    return tempfile.gettempdir()


class _Stop:
    """SIGTERM and SIGINT as an exception, raised again where it was lost, never while it is on its way."""

    def __init__(self) -> None:
        self.told = False
        self._over = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._raise)
        sys.unraisablehook = self._unraisable

    def over(self) -> None:
        """Raise nothing from here on: the work has ended, and its end is being told."""
        self._over = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        if self._over:
            return
        self.told = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        # Finalisers, callbacks from compiled code and libraries that catch everything swallow it, and the work goes on.
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        if not _on_its_way():
            raise Stopped

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not Stopped:
            sys.__unraisablehook__(lost)


def _on_its_way() -> bool:
    """Say whether a clean-up runs because of the exception: that must not be interrupted by another one."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def check_template(env: Mapping[str, str]) -> None:
    """Refuse to work for a template of another version: its options may mean something else.

    Raises
    ------
    UsageError
        If the version in $CONTIMG_TEMPLATE_VERSION is not this one.
    """
    asked, mine = env.get("CONTIMG_TEMPLATE_VERSION"), tool_version("contimg")
    if asked and asked != mine:
        remedy = f"Use the images of {asked}, or install the chart of {mine}."
        raise UsageError(
            "the image",
            f"expected contimg {asked}, of which the template is, found contimg {mine}.",
            remedy,
        )


def _parsed(
    model: type[Model],
    argv: Sequence[str] | None,
    prog: str,
    version: str,
    env: Mapping[str, str],
    *,
    positional: Sequence[str] = (),
    section: str = "",
) -> Model:
    """Read the command line; what is wrong with it is told to the engine, too."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return parse(model, words, prog, version, positional=positional, section=section)
    except CommandLineError as error:
        _tell(env, Exit.USAGE, error.reason)
        raise


def _failed(
    console: Console, env: Mapping[str, str], code: Exit, reason: str, *, trace: bool
) -> int:
    console.fail(code, reason, trace=trace)
    _tell(env, code, reason)
    return code


def _tell(env: Mapping[str, str], code: Exit, reason: str) -> None:
    """Say why it failed where engines look: a file for ours; in a pod, what Kubernetes and Argo show as its message."""
    with contextlib.suppress(OSError):  # the reason stands in the log as well
        hand_over(
            env,
            "failure.json",
            json.dumps({"exit": int(code), "name": code.name, "reason": reason}),
        )
    log = env.get("CONTIMG_TERMINATION_LOG")
    if log:
        line = " ".join(f"{code.name}: {reason}".split()).encode()[:REASON_BYTES]
        with contextlib.suppress(OSError):  # as above
            Path(log).write_bytes(line)


HANDED = {"artifact", "cached", "seconds"}
"""Parts of a summary that engines take one by one."""


def hand_over(env: Mapping[str, str], name: str, text: str) -> None:
    """Leave a file for the engine in $CONTIMG_OUTPUTS, if it asks for that."""
    folder = env.get("CONTIMG_OUTPUTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text(text)


def _hand_over_summary(env: Mapping[str, str], summary: Mapping[str, Any]) -> None:
    hand_over(env, "summary.json", json.dumps(summary, indent=1))
    for name in HANDED & summary.keys():
        value = summary[name]
        hand_over(env, name, value if isinstance(value, str) else json.dumps(value))


def _hand_over_views(env: Mapping[str, str], artifact: str, manifest: Manifest) -> None:
    """Copy what a person wants to open in the engine's page."""
    folder = env.get("CONTIMG_OUTPUTS")
    for output in manifest.outputs if folder else ():
        if output.name.endswith(VIEWS) and output.bytes <= VIEW_BYTES:
            fetch_file(open_store(artifact), output.name, Path(folder or "") / output.name)
