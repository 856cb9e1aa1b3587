"""Pods that are deleted at random moments, until enough."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from cluster.kube import Kube, KubeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self


class Chaos:
    """Deletes a random pod, without grace, at random moments, while the block runs."""

    def __init__(
        self,
        victims: Sequence[tuple[Kube, str]],
        *,
        seed: int,
        every_s: tuple[float, float] = (3.0, 10.0),
    ) -> None:
        self._victims, self._random, self._every_s = list(victims), random.Random(seed), every_s  # noqa: S311 - repeatable
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos")
        self.killed: list[tuple[float, str]] = []
        """Seconds since the start, and pod."""
        self.failure: KubeError | None = None

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if kind is None and self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Let them live from now on."""
        self._enough.set()
        self._thread.join(60)

    def _run(self) -> None:
        # Each kind once, in a random order, then any.
        order = self._random.sample(self._victims, len(self._victims))
        try:
            while not self._enough.wait(self._random.uniform(*self._every_s)):
                kube, selector = order.pop() if order else self._random.choice(self._victims)
                for pod in kube.pods(selector, "Running")[:1]:
                    kube.kill(pod)
                    self.killed.append((time.monotonic() - self._begun, pod))
        except KubeError as error:
            self.failure = error
