"""The local engine with real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contimg_workflows.state import Status

if TYPE_CHECKING:
    from conftest import Bench


def test_a_diamond_runs_in_order_and_hands_artifacts_over(bench: Bench) -> None:
    (state,) = bench.engine().run([bench.workflow()])
    assert state.status is Status.DONE
    assert bench.word("d") == "a b a c d"
    assert sorted(bench.ran()) == ["a", "b", "c", "d"]
    assert bench.ran()[0] == "a"
    assert bench.ran()[-1] == "d"
