"""The figures on inference: the three losses are the recorded ones, and each cause is told where it is the cause."""

import re
from math import log

import numpy as np
import pytest
import torch
from looked_at import cause_at, forked, recorded, shown

from bnlab import Experiment, Settings, figures
from bnlab.figures import alphas, inference
from bnlab.figures.inference import three
from bnlab.figures.style import NOTHING
from bnlab.group import Group
from bnlab.looking import look

NAMES = ("three_losses", "recomputed", "alpha_inference", "alpha_curve", "why_off", "in_practice", "mistakes")
NAMES += ("outlier", "alone", "two_examples")


def test_every_figure_says_what_it_waits_for_and_then_draws(inference_run):
    store, run_id = inference_run
    for name in NAMES:
        trace = store.trace(run_id)
        needed = figures.needs(name, trace, {})
        if needed and name == "three_losses":  # these are drawn at once, the cause is told later
            assert "Why they differ is being computed." in figures.draw(name, trace, {}).layout.meta["note"]
        elif needed:
            assert "Computing this chart" in figures.draw(name, trace, {}).layout.annotations[0].text
        for probe, step, options in needed:
            look(store, run_id, probe, options, step, trace.snapshot(step))
        trace = store.trace(run_id)
        assert figures.needs(name, trace, {}) == []
        drawn = figures.draw(name, trace, {})
        assert len(drawn.data) >= 1 and drawn.layout.meta["note"], name
        assert all(axis.title.text for axis in drawn.select_xaxes()), name


def test_the_moment_of_the_cause_is_chosen_without_reading_a_look(store, monkeypatch):
    """Of a long run all were read, twice an update: 0.03 s for a hundred. One whose weights are gone counts, too."""
    trace = recorded(store, alpha=0.99)
    told = three(trace, 0, "test", "loss")
    at = inference.cause_step(trace, told, 0)
    cause_at(store, trace, at)
    store.db.execute("delete from snapshots where step = ?", (at,))
    monkeypatch.setattr("bnlab.scorings.loaded", None)
    assert inference.cause_step(store.trace(trace.run.id), told, 0) == at


@pytest.mark.parametrize("name", sorted(alphas.PLOTS | inference.PLOTS))
def test_an_arm_without_batch_norm_is_told_so(inference_run, name):
    store, run_id = inference_run
    assert "no batch norm" in figures.draw(name, store.trace(run_id), {"arm": "0"}).layout.annotations[0].text


def test_the_three_losses_are_the_recorded_scores(inference_run, inference_records):
    told = three(inference_run[0].trace(inference_run[1]), 1, "test", "loss")
    for record in inference_records:
        if record.scores:
            for kind in ("batch", "moving", "population"):
                slots = [record.experiment.stacks[0].index((1, seed)) for seed in (0, 1)]
                found = [
                    score.loss[score.slots.index(slot)]
                    for slot in slots
                    for score in record.scores
                    if (score.split, score.statistics) == ("test", kind) and slot in score.slots
                ]
                at = list(told.steps).index(record.step)
                assert getattr(told, kind)[at] == pytest.approx(np.mean(found))


def test_before_the_first_step_it_is_said_that_none_is_recorded(store):
    trace = store.trace(store.create(Experiment(settings=Settings(depth=2, width=4, norm="batch"))).id)
    assert figures.draw("three_losses", trace, {"arm": "1"}).layout.meta["said"] == NOTHING


def note(trace):
    """What the figure says, once the probe has looked."""
    return shown(trace, "three_losses").layout.meta["note"]


def farthest(found, part):
    """Whether the loss without this part is the nearest to the population's."""
    off = {name: abs(getattr(found, name) - found.all) for name in ("warm_up", "lag", "mini_batches")}
    return off[part] == min(off.values()) and off[part] < 0.2 * abs(found.nothing - found.all)


def test_the_three_losses_have_a_band_over_the_seeds(inference_run):
    trace = inference_run[0].trace(inference_run[1])
    drawn = figures.draw("three_losses", trace, {})
    _, losses, _ = trace.scores(1, "test", "moving")
    bands = {line.legendgroup: line.y for line in drawn.data if line.fill}
    assert set(bands) == {"batch", "moving", "population"}
    np.testing.assert_allclose(bands["moving"], losses.max(1), rtol=1e-6)
    assert "bands from the least to the greatest" in drawn.layout.meta["note"]


def test_the_cause_is_the_warm_up_where_a_share_of_the_start_outweighs_the_rest(store):
    trace = recorded(store, depth=4, activation="relu", init_gain=0.2, learning_rate=1e-6, alpha=0.9, batch_size=64)
    assert farthest(cause_at(store, trace, 30), "warm_up")
    said = note(trace)
    t = int(re.search(r"Test loss at step (\d+),", said)[1])
    assert f"without their warm-up (αᵗ = {0.9**t:.1g} of the 0 and 1" in said


def test_the_cause_is_the_lag_where_the_weights_run_away(store):
    trace = recorded(store, learning_rate=0.5, optimizer="momentum", alpha=0.8, batch_size="full", depth=4)
    assert farthest(cause_at(store, trace, 40), "lag")
    found = re.search(
        r"step (\d+),.*their lag \(what came in is on average ([\d.]+) steps behind the weights\)", note(trace)
    )
    t = int(found[1])
    assert float(found[2]) == pytest.approx(1 / 0.2 - t * 0.8**t / (1 - 0.8**t), rel=1e-2)


def test_averages_that_never_move_are_not_some_steps_behind(store):
    """1/(1-α) was told as 1×10¹² steps, of a run of 40."""
    said = note(recorded(store, alpha=1.0))
    assert "without their lag (with α = 1 they never move)" in said and "steps behind" not in said


def test_the_cause_is_the_mini_batches_where_they_are_small_and_the_weights_stand_still(store):
    trace = recorded(store, learning_rate=1e-20, batch_size=2, alpha=0.5, sampling="replacement")
    assert farthest(cause_at(store, trace, 40), "mini_batches")
    said = note(trace)
    assert "without the noise and bias of mini-batches of 2" in said and "own mini-batch of 2, as in training" in said


def test_frozen_averages_stand_still_and_the_start_is_the_start(store):
    trace = recorded(store, statistics="moving")
    assert "they stand still while the weights move" in note(trace) and "as in training" not in note(trace)
    still = figures.draw("moving_averages", trace, {})
    assert "frozen" in still.layout.meta["note"] and "tenth" not in still.layout.meta["note"]
    whole = recorded(store, batch_size="full")  # every mini-batch is the training set
    noisy = recorded(store)
    drawn = [figures.draw("moving_averages", t, {}).data for t in (trace, whole, noisy)]
    assert [any(line.name.startswith("noise") for line in lines) for lines in drawn] == [False, False, True]
    assert figures.needs("three_losses", trace, {}) == []
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        assert "they stand still, whatever alpha is" in figures.draw(name, trace, {}).layout.annotations[0].text
        assert figures.needs(name, trace, {}) == []
    said = note(recorded(store, learning_rate=1e-9, alpha=0.0))
    assert "they are widest apart by ratio (after step 0)" in said and "nothing had come in yet" in said


@pytest.mark.parametrize(
    ("changes", "single"),
    [
        ({"alpha": 0.5}, False),
        ({"batch_size": 8}, False),
        ({"sampling": "replacement"}, False),
        ({"statistics": "moving"}, False),
        ({"learning_rate": 0.05}, True),
    ],
)
def test_no_single_cause_is_looked_for_where_a_fork_changed_what_the_averages_are_made_of(store, changes, single):
    child = forked(store, recorded(store, alpha=0.95), **changes)
    for arm, told in (("0", True), ("1", single)):
        asked = figures.needs("three_losses", child, {"arm": arm})
        assert [probe for probe, *_ in asked] == ["off"] * told
        assert all(step > 20 for _, step, _ in asked), "after the step it was forked at"


def test_no_cause_is_looked_for_where_averages_are_frozen_from_the_first(store):
    assert figures.needs("three_losses", recorded(store, statistics="moving"), {}) == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_cause_is_looked_for_where_the_test_losses_are_widest_apart_and_weights_or_a_look_are_kept(store, split):
    trace = recorded(store, alpha=0.95, learning_rate=0.5)
    losses = [trace.scores(0, "test", kind)[1][:, 0] for kind in ("moving", "population")]
    apart = [(abs(log(m / p)), step) for m, p, step in zip(*losses, trace.scores(0, "test", "moving")[0], strict=True)]
    first, second = [int(step) for _, step in sorted(apart, reverse=True) if step > 0][:2]
    asked = {"split": split, "quantity": "accuracy"}
    assert figures.needs("three_losses", trace, asked) == [("off", first, {})]
    snapshot = trace.snapshot(first)
    store.db.execute("delete from snapshots where run = ? and step = ?", (trace.run.id, first))
    assert figures.needs("three_losses", store.trace(trace.run.id), asked) == [("off", second, {})]
    look(store, trace.run.id, "off", {}, first, snapshot)
    looked_at = store.trace(trace.run.id)
    assert figures.needs("three_losses", looked_at, asked) == [], "it has been looked at"
    assert f"Test loss at step {first}," in figures.draw("three_losses", looked_at, asked).layout.meta["note"]


@pytest.mark.parametrize(
    ("split", "quantity", "drawn"),
    [
        ("test", "loss", ""),
        ("test", "accuracy", "accuracy on the test set"),
        ("train", "accuracy", "accuracy on the training set"),
        ("train", "loss", "loss on the training set"),
    ],
)
def test_where_another_score_is_drawn_the_note_says_that_it_tells_of_the_test_loss(store, split, quantity, drawn):
    """Below an accuracy it said 2.13 and 0.118, and in nats the losses were wider apart at another step."""
    said = figures.draw("three_losses", recorded(store), {"split": split, "quantity": quantity}).layout.meta["note"]
    begins = f"The chart shows the {drawn}; what is said here is of the test loss. " if drawn else ""
    assert re.match(f"{begins}Test loss at step \\d+, where they are widest apart by ratio", said)
    assert re.search(r", as in training: test loss [\d.]+ at the newest step, against", said)


def test_losses_are_apart_by_their_ratio_whichever_is_the_greater():
    def at(moving, population):
        batch = np.array([1e9, *np.ones(len(moving) - 1)])  # which has no say
        steps = np.arange(len(moving))
        return inference.widest(inference.Three(steps, batch, np.array(moving), np.array(population), np.ones((4, 1))))

    assert at([1.0, 1.0, 2.0, 1.2], [1.0, 3.0, 1.0, 1.0]) == 1
    assert at([10.0, 0.3, 1.0, 1.0], [8.0, 0.1, 1.0, 1.0]) == 1
    assert at([np.nan, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 0.9]) == 2, "what is no number is not apart"
    assert at([1.0, 5.0, np.inf, 1.0], [1.0, 1.0, 1.0, 1.0]) == 2


def test_of_seeds_that_are_no_numbers_no_cause_is_told_and_of_the_others_the_mean(store):
    trace = recorded(store, steps=10)
    losses = np.array([[5.0, 4, 3, 2, 1], [7.0, 8, 9, 10, 3], [1.0, 1, np.inf, 1, 1], [np.nan] * 5])
    found = {"loss": losses}
    told = inference.cause(Looked(found), 0, 10)
    assert told == (10, 6, 6, 6, 6, 2)
    assert inference.cause(Looked({"loss": losses[2:]}), 0, 10) is None
    said = inference.explained(three(trace, 0, "test", "loss"), trace.experiment.arm_settings[0], told)
    assert "it would be 6 without their warm-up" in said and "; 2 without all three" in said


class Looked:
    """A run of which a probe saw this."""

    def __init__(self, found):
        self.found = found

    def look(self, *_):
        return self.found


def test_a_run_without_batch_norm_is_told_how_to_get_one(store):
    trace = recorded(store, arms=({},), steps=5)
    for name in NAMES:
        if name not in ("outlier", "alone"):
            assert "No arm of this run has batch norm" in shown(trace, name).layout.annotations[0].text


def test_a_run_with_mini_batches_of_one_has_no_scores_by_them_and_the_figures_say_so(store):
    """Normalized by its own statistics an example alone is 0 in every unit, whatever it was."""
    trace = recorded(store, steps=20, batch_size=1, statistics="moving", learning_rate=0.01)
    assert not len(trace.scores(0, "test", "batch")[0]) and len(trace.scores(0, "test", "moving")[0])
    assert "There is none with mini-batch statistics" in figures.draw("three_losses", trace, {}).layout.meta["note"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": "digits", "batch_size": 128}, "120 (for the run's K = 128)"),  # 360 = 3 x 120
        ({"data": "digits", "batch_size": "full"}, "all 360 (for the run's K = 1,437)"),
        ({"data": "digits", "batch_size": 100}, "90 (for the run's K = 100)"),
        ({"batch_size": 16}, "12 (for the run's K = 16)"),  # 36 examples of wine
        ({"batch_size": 12}, "12"),
        ({"batch_size": 8}, "7 or 8 (for the run's K = 8)"),
    ],
)
def test_the_note_tells_the_mini_batches_that_were_scored(store, settings, words):
    trace = recorded(store, steps=1, **settings)
    group = Group(trace.experiment, 0, "cpu", torch.float32)
    x, K = group.splits["test"][0], group.stack.K
    used = sorted({len(part) for part in x.tensor_split(-(-len(x) // K))})  # near-equal ones of at most K
    assert [int(n) for n in re.findall(r"\d+", words.split(" (")[0])] == used
    assert f"normalized by its own mini-batch of {words}, as in training" in note(trace)


@pytest.mark.parametrize(
    ("K", "words"), [(37, "so few examples make noisy statistics."), (18, "noisy statistics, another for each mini-")]
)
def test_statistics_differ_between_mini_batches_only_where_there_are_several(K, words):
    """The 36 test examples of wine are one mini-batch of K = 37."""
    told = inference.Three(np.array([0]), *np.array([[2.0], [1.0], [1.0]]), np.ones((1, 1), bool))
    assert words in inference.explained(told, Settings(data="wine", batch_size=K, norm="batch"), None)


def test_what_counts_as_few_is_what_was_scored():
    """Of K = 50 the 360 test examples of digits make eight of 45; of K = 80, five of 72."""
    told = inference.Three(np.array([0]), *np.array([[2.0], [1.0], [1.0]]), np.ones((1, 1), bool))
    for K, few in ((50, True), (80, False)):
        assert ("so few" in inference.explained(told, Settings(batch_size=K, norm="batch"), None)) == few
