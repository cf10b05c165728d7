"""The verdict of a card is that of the last steps together: that of a single mini-batch changes with each of them."""

from itertools import pairwise
from statistics import geometric_mean

import numpy as np
import pytest
from known_gradients import N, flowing, shaped
from known_rows import COLUMNS, LONG, keep, written
from known_trace import KnownTrace
from looked_at import trained

from bnlab import cards
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures.verdict import RECENT, verdict
from bnlab.reading import Series
from bnlab.record import layout

ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}))
NOISY = Settings(depth=5, width=32, activation="relu", batch_size=2, steps=400, score_every=400)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A run with mini-batches of two, whose gradient is another one at every step."""
    store, run_id = trained(tmp_path_factory.mktemp("store"), NOISY, ARMS, (0, 1))
    yield store.trace(run_id)
    store.close()


def by_hand(trace, arm, steps):
    """The geometric mean over some steps of each seed's norms, from all that is recorded: [1, seeds, L]."""
    recorded = trace.read("signal_grad_norm", arm)
    chosen = recorded.mean[(recorded.steps >= steps[0]) & (recorded.steps <= steps[-1])]
    return np.apply_along_axis(lambda norms: geometric_mean(norms.tolist()), 0, chosen)[None]


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("step", [3, 19, 200, 399])
def test_the_verdict_over_the_last_steps_is_that_on_their_geometric_mean(noisy, arm, step):
    told = verdict(noisy, arm, step, RECENT)
    assert told.steps == range(max(0, step - RECENT + 1), step + 1)
    alone = KnownTrace(noisy.experiment, {("signal_grad_norm", arm): by_hand(noisy, arm, told.steps)})
    expected = verdict(alone, arm)
    assert told.words == expected.words and told.factor == pytest.approx(expected.factor, rel=1e-5)
    assert f"in the geometric mean of the last {len(told.steps)} steps" in told.help.lower()
    assert verdict(noisy, arm, step).words != told.words, "the step alone says something else"


def test_a_card_tells_it_and_so_does_how_to_read_it(noisy):
    state = cards.state(noisy)
    told = verdict(noisy, 0, recent=RECENT)
    assert (state["arms"][0]["verdict"], state["arms"][0]["tone"]) == (told.words, told.tone)
    assert (
        f"the last {RECENT} steps" in state["arms"][0]["verdict_help"] and f"last {RECENT} steps" in state["told"][-1]
    )


def test_with_mini_batches_of_two_it_does_not_change_its_mind_at_every_step(noisy):
    def changes(recent):
        told = [verdict(noisy, 0, step, recent) for step in range(100, 400, 7)]
        said = [(one.tone, "times" in one.words) for one in told]
        spread = np.std(np.log([one.factor for one in told]))
        return sum(a != b for a, b in pairwise(said)), spread

    (often, wide), (seldom, narrow) = changes(1), changes(RECENT)
    assert seldom < often / 3 and narrow < wide / 3


def test_of_the_first_step_there_is_no_mean(noisy):
    assert "at step 0" in verdict(noisy, 0, 0, RECENT).help


def test_a_fork_has_steps_of_its_own(store):
    parent = store.create(Experiment(settings=NOISY.model_copy(update={"steps": 60}), arms=ARMS[:1]))
    execute(store, parent.id, lambda: None)
    fork = store.fork(parent.id, 0, 60, {"learning_rate": 0.01}, 4)
    execute(store, fork.id, lambda: None)
    told = verdict(store.trace(fork.id), 1, recent=RECENT)
    assert told.steps == range(60, 64) and "the last 4 steps" in told.help


def test_of_steps_that_are_left_as_a_mean_only_the_verdict_takes_none(store):
    """One layer's norm at step t is t + 1, and all the others' are 1."""
    place, shape = layout(LONG, 0)["layers"]["signal_grad_norm"]

    def rows(t):
        found = np.ones(COLUMNS["layers"], np.float32)
        found[place : place + shape[1]] = t + 1
        return {"layers": found}

    experiment = Experiment(settings=LONG.settings.model_copy(update={"steps": 3000}), arms=LONG.arms)
    trace = keep(store, store.create(experiment).id, written(experiment, range(3000), rows))
    first, steps = trace.exact(0, "layers")[1][0], set()
    for step in (*range(first - 1, first + 100), 2999):
        told = verdict(trace, 0, step, RECENT)
        steps.add(len(told.steps))
        if step < first:
            assert told == verdict(trace, 0, step), "a mean of several steps, which is told so"
        else:
            assert told.steps == range(told.steps[0], step + 1) and told.steps[0] >= first
            mean = geometric_mean(t + 1 for t in told.steps)
            assert told.words.startswith("exploding") and f"{float(f'{mean:.2g}'):,.0f} times" in told.words
    assert {1, RECENT} < steps, "the cases"


def test_single_steps_behind_a_mean_of_several_are_enough(monkeypatch):
    trace = shaped([9, 9, 9, 9], seeds=(3,))
    mean = np.array([1e9, 1e9, 1, 2, 4])[:, None, None] * np.array([1.0, 1, 1, 1])
    mean[:2, :, 0] = 1e20
    monkeypatch.setattr(trace, "read", lambda *_, **__: Series(np.array([0, 8, 16, 17, 18]), mean, mean / 2, mean * 2))
    told = verdict(trace, 0, recent=RECENT)
    assert told.steps == range(16, 19) and told.words == "healthy gradient: layer 1 gets as much signal as layer 4"


def test_what_gets_no_gradient_at_some_of_the_steps_is_told_so_and_at_most_of_them_is_no_healthy_one():
    trace = flowing(1, 1, depth=4)
    norms = trace.values["signal_grad_norm", 0]
    told = verdict(trace, 0, recent=RECENT)
    assert told.tone == "healthy" and "left out" not in told.help
    norms[-3, 1] = 0
    told = verdict(trace, 0, recent=RECENT)
    words = "healthy gradient: layer 1 gets as much signal as layer 4; no gradient at"
    assert told.words == f"{words} some of the seeds' last {RECENT} steps" and told.tone == "healthy"
    assert told.help.endswith("Steps at which a layer's is 0 are left out of its mean.")
    norms[-RECENT // 2 - 1 :] = 0
    told = verdict(trace, 0, recent=RECENT)
    assert told.words == f"{words} most of the seeds' last {RECENT} steps" and told.tone == "dead"
    norms[-RECENT // 2 - 1 :, 0] = 1
    norms[-RECENT:, 1] = 0
    assert verdict(trace, 0, recent=RECENT).words.endswith("; 1 of 2 seeds has no gradient")
    norms[-RECENT:] = 0
    assert verdict(trace, 0, recent=RECENT).words == "no gradient in any layer"
    assert verdict(trace, 0, recent=RECENT + 1).tone == "dead"


def test_saturated_is_what_is_so_at_each_of_the_steps():
    trace = flowing(0.8, 1, depth=4)
    trace.values["dead", 0] = dead = np.zeros((N, 2, 4))
    dead[-RECENT + 1 :, :, 2] = 1
    assert verdict(trace, 0, recent=RECENT).tone == "healthy"
    dead[-RECENT, :, 2] = 1
    assert verdict(trace, 0, recent=RECENT).words.startswith("all units of layer 3 are saturated; layer 1 gets 0.51")


def test_why_there_is_no_gradient_is_what_was_so_at_each_of_the_steps():
    trace = shaped([0, 0, 1, 1], [0, 0, 1, 1])
    trace.values["weight_norm", 0], trace.values["dead", 0] = np.ones((N, 2, 4)), np.zeros((N, 2, 4))
    trace.values["dead", 0][-RECENT + 1 :, :, 1] = 1
    assert verdict(trace, 0, recent=RECENT).words == "no gradient below layer 3"
    trace.values["dead", 0][-RECENT:, :, 1] = 1
    assert verdict(trace, 0, recent=RECENT).words.endswith(", as all units of layer 2 are dead")


def test_what_diverged_a_moment_ago_is_told_at_once_and_the_others_are_told_without_it():
    at = N - 2
    trace = flowing(1, 1, depth=4, diverged={(0, 5): (at, 4)})
    trace.values["signal_grad_norm", 0][:at, 1] *= 1e6 ** np.arange(4)
    trace.values["signal_grad_norm", 0][at:, 1] = np.nan
    told = verdict(trace, 0, recent=RECENT)
    assert told.tone == "diverged" and told.words == (
        f"1 of 2 seeds diverged, first at step {at} in layer 4; the rest: healthy gradient: layer 1 gets as much "
        "signal as layer 4"
    )
    assert verdict(trace, 0, at - 1, RECENT).tone == "vanishing", "before it diverged"
    readout = flowing(1, 1, depth=4, diverged={(0, 5): (N - 1, 0)})  # its layers were still in order
    assert verdict(readout, 0, recent=RECENT).words.startswith(f"1 of 2 seeds diverged, first at step {N - 1} in the r")
