"""Random histories of failures: in each, one success per attempt, and nothing is lost."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import chain, pairwise
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contimg.records.runs import FailureCause, Phase
from contimg.records.schemas.runs import GROUPS, GroupState
from contimg.records.tables import Schema
from contimg_runs import sweep
from contimg_runs.attempt_store import table_key
from watched_world import CADENCE, GRACE_S, RULES, T0, Group, World

INFRASTRUCTURE_CODES = (0, 20, 21, 22, 25, 137, 143, 64, -1)
STEPS = tuple(
    """land land land again look look deliver deliver twice lose work work work fail die vanish
    sweep sweep wait long down up restart crash crash between between echo start""".split()  # noqa: SIM905
)
MISHAPS = {"fail", "die", "vanish", "crash", "between"}
"""Without these every workflow succeeds at its first try."""
Step = tuple[str, int, int]
# A step and its two digits are one choice: three choices take as long as the world itself.
EVERY: list[Step] = [(name, a, b) for name in STEPS for a in range(10) for b in range(10)]
ANY = st.sampled_from(EVERY)
HARMLESS = st.sampled_from([step for step in EVERY if step[0] not in MISHAPS])


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Up to sixty steps; the number is drawn first, since lists of hypothesis are short."""
    step = ANY if draw(st.integers(0, 4)) else HARMLESS
    return [draw(step) for _ in range(draw(st.integers(0, 60)))]


@st.composite
def some_groups(draw: st.DrawFn) -> list[Group]:
    """One or two groups; of some, subbands never come, and of some the data are bad."""
    made = []
    for number in range(draw(st.integers(1, 2))):
        lacking = draw(st.sampled_from([0, 0, 0, 1, 3]))
        upwards = list(range(lacking, 16))
        coming = draw(st.sampled_from([upwards, upwards[::-1]]))
        made.append(Group(T0 + number * CADENCE, list(coming), bad=draw(st.integers(0, 9)) == 0))
    return made


def take(world: World, step: Step) -> None:
    """Let one thing happen."""
    what, a, b = step
    simple = actions(world, a, b)
    if what == "crash":
        # The process that does one thing is gone before its b-th change.
        world.disturbed(_one(simple, a), 1 + b % 5, world.crash)
    elif what == "between":
        # Something else happens in the middle of a step, just before it changes anything.
        world.disturbed(_one(simple, a), 1 + b % 4, _one(simple, 5 if a % 7 == 1 else a // 3 + b))
    else:
        simple[what]()


def actions(world: World, a: int, b: int) -> dict[str, Callable[[], None]]:
    number = a % len(world.groups)
    return {
        "land": lambda: [world.land(number) for _ in range(1 + 4 * (b % 5))] and None,
        "again": partial(world.land, number, again=True),
        "look": world.look,
        "look too": lambda: world.new_watcher().run_pass(world.now) and None,
        "deliver": partial(world.deliver, a),
        "twice": partial(world.deliver, a, keep=True),
        "echo": partial(world.redeliver, a),
        "start": world.start,
        "lose": partial(world.lose, a),
        "work": partial(world.work, a),
        "fail": partial(world.work, a, INFRASTRUCTURE_CODES[b % len(INFRASTRUCTURE_CODES)]),
        "die": partial(world.work, a, 137),
        "vanish": partial(world.vanish, a),
        "sweep": world.sweep,
        "wait": partial(world.wait, 60.0 * (1 + a)),
        "long": partial(world.wait, 1000.0 * (1 + a)),
        "down": partial(setattr, world, "bus_up", False),  # noqa: FBT003 - setattr takes no names
        "up": partial(setattr, world, "bus_up", True),  # noqa: FBT003 - as above
        "restart": lambda: setattr(world, "watcher", world.new_watcher()),
    }


def _one(simple: dict[str, Callable[[], None]], a: int) -> Callable[[], None]:
    return simple[("sweep", "look", "work", "start", "deliver", "look too", "sweep")[a % 7]]


def assert_at_most_one_success(world: World) -> None:
    assert all(len(uids) == 1 for uids in world.successes.values()), world.successes


def assert_final_state(world: World) -> None:
    """What must be true in the end, whatever happened."""
    assert_at_most_one_success(world)
    for number, group in enumerate(world.groups):
        attempts = world.attempts(number)
        assert [record.attempt for record, _ in attempts] == list(range(1, len(attempts) + 1))
        assert all(outcome is not None for _, outcome in attempts), "an attempt without an end"
        for record, outcome in attempts:
            assert outcome is not None
            if outcome.phase is Phase.SUCCEEDED:
                assert world.successes[record.name] == [outcome.uid]
            if record.name in world.successes:
                # Lost: the workflow was deleted after its work and before its record.
                assert outcome.phase in {Phase.SUCCEEDED, Phase.LOST}
        for (_, before), (record, _) in pairwise(attempts):
            assert before is not None
            assert not record.retries or before.may_be_tried_again, "restarted without need"
        record, outcome = attempts[-1]
        # Else rows of an older attempt replaced later ones.
        assert world.written.get(record.id, record.name) == record.name
        assert outcome is not None
        assert {one.index for one in record.subbands} == group.landed, "a subband is in no run"
        assert outcome.phase is (Phase.FAILED if group.bad else Phase.SUCCEEDED)
        assert outcome.blame is (FailureCause.DATA if group.bad else FailureCause.NONE)
        data = world.store.read(table_key("groups", record.id, record.id))
        (row,) = GROUPS.read(data, record.id).to_pylist()
        assert row["state"] == (GroupState.FAILED if group.bad else GroupState.COMPLETED)


def live(groups: list[Group], history: list[Step], grace_s: float) -> None:
    world = World(groups, RULES.model_copy(update={"grace_s": grace_s}))
    for step in history:
        take(world, step)
        assert_at_most_one_success(world)
    world.settle()
    assert_final_state(world)
    if not MISHAPS & {what for what, _, _ in history}:
        # Only events and subbands were lost or late: no attempt was restarted.
        for record, outcome in chain.from_iterable(map(world.attempts, range(len(groups)))):
            assert outcome is not None
            assert record.retries == 0
            assert outcome.phase is not Phase.LOST


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write rows as JSON and start no threads, which take two thirds of the time."""
    no_pool = nullcontext(SimpleNamespace(map=map))
    monkeypatch.setattr(sweep, "ThreadPoolExecutor", lambda _: no_pool)
    monkeypatch.setattr(Schema, "rows", lambda _self, rows: rows)
    monkeypatch.setattr(Schema, "to_bytes", lambda _self, rows: json.dumps(rows).encode())
    monkeypatch.setattr(
        Schema, "read", lambda _self, data, _where: pa.Table.from_pylist(json.loads(data))
    )


SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
HISTORY = given(some_groups(), histories(), st.sampled_from([0.0, GRACE_S]))


@pytest.mark.usefixtures("cheap")
@settings(SETTINGS, max_examples=1000)
@HISTORY
def test_history_ends_well(groups: list[Group], history: list[Step], grace_s: float) -> None:
    live(groups, history, grace_s)


@SETTINGS
@HISTORY
def test_history_with_tables(groups: list[Group], history: list[Step], grace_s: float) -> None:
    live(groups, history, grace_s)
