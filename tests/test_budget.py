"""Looks make room for newer ones: no more than the room asks for, and never the newest of any stack."""

import numpy as np
import pytest
from known_rows import size

from bnlab import Arm, Experiment, Settings
from bnlab.budget import fit_looks
from bnlab.summary import ROW

SHARE = 240_000  # bytes: 3 % of 8 MB
TWO = Experiment(
    settings=Settings(depth=2, width=4, budget_mb=8), arms=(Arm(label="a"), Arm(label="b", changes={"depth": 3}))
)  # of two depths, so in two stacks
ONE = TWO.model_copy(update={"arms": TWO.arms[:1]})


def fitted(store, experiment, numbers, room):
    """The trace of a run after looks of so many numbers were fitted into a room, and what they take of the disk."""
    run = store.create(experiment)
    for step, count in enumerate(numbers):
        found = [{"seen": np.random.default_rng(step).normal(size=(1, count))} for _ in experiment.stacks]
        store.keep_look(run.id, "rank", {}, step, found)
    with store.transaction() as db:
        fit_looks(db, run.id, experiment, room)
    return store.trace(run.id), size(store, run.id, "looks")


def kept(trace, arm, steps):
    return [step for step in range(steps) if "seen" in trace.look("rank", arm, step)]


@pytest.mark.parametrize("room", [-1_000_000, 0, SHARE, 400_000])
def test_looks_have_their_share_where_everything_else_leaves_them_less(store, room):
    trace, taken = fitted(store, ONE, [5_000] * 12, room)  # 40 kB each
    count = max(room, SHARE) // 41_000
    assert kept(trace, 0, 12) == list(range(12 - count, 12))
    assert "made room for newer ones" in trace.look("rank", 0, 0)["wrong"][0]
    assert taken <= max(room, SHARE)


def test_the_newest_look_of_every_stack_stays_however_large_it_is(store):
    trace, taken = fitted(store, TWO, [40_000] * 3, 0)  # 320 kB each, of each stack
    assert kept(trace, 0, 3) == kept(trace, 1, 3) == [2]
    assert taken > 2 * 320_000


def test_the_sentences_in_place_of_looks_take_room_too(store):
    trace, taken = fitted(store, ONE, [200] * 200, 0)  # 2.5 kB each, where a sentence is 0.9 kB
    there = kept(trace, 0, 200)
    assert there == list(range(200 - len(there), 200)) and 20 < len(there) < 60
    assert SHARE - 2_000 < taken + 200 * ROW <= SHARE


def test_a_look_that_is_no_longer_than_the_sentence_stays(store):
    trace, _ = fitted(store, ONE, [1, 5_000, 1, *[5_000] * 8], 0)
    assert kept(trace, 0, 11)[:2] == [0, 2]


def test_the_looks_of_other_runs_make_no_room(store):
    other, _ = fitted(store, ONE, [5_000] * 4, SHARE)
    fitted(store, ONE, [5_000] * 9, 0)
    assert kept(other, 0, 4) == [0, 1, 2, 3]
