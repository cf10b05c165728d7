"""The inference page's figures: their numbers against slower sums over what train() itself yields."""

import re

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, figures, moving
from bnlab.figures import alphas, inference, style
from bnlab.figures.alphas import any_alpha, unknown
from bnlab.figures.broken import IN_BATCHES, POLLUTED, Costs, symptom
from bnlab.figures.gaps import gap_parts
from bnlab.figures.inference import cause, three
from bnlab.probes.broken import MISTAKES
from bnlab.store import RunStore
from bnlab.train import train
from bnlab.work import execute, look

NAMES = ("three_losses", "recomputed", "alpha_inference", "alpha_curve", "why_off", "in_practice", "mistakes")
NAMES += ("outlier", "alone", "two_examples")
EXPERIMENT = Experiment(
    settings=Settings(depth=3, width=8, steps=60, data="wine", batch_size=16, score_every=10, alpha=0.95),
    arms=(
        Arm(label="none"),
        Arm(label="before", changes={"norm": "batch"}),
        Arm(label="LN", changes={"norm": "layer"}),
    ),
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(EXPERIMENT)
    execute(store, run.id, lambda: None)
    return store, run.id


@pytest.fixture(scope="module")
def records():
    return list(train(EXPERIMENT))


def test_every_figure_says_what_it_waits_for_and_then_draws(run):
    store, run_id = run
    for name in NAMES:
        trace = store.trace(run_id)
        needed = figures.needs(name, trace, {})
        if needed and name == "three_losses":  # these are drawn at once, the cause is told later
            assert "The lab is looking at why they differ." in figures.draw(name, trace, {}).layout.meta["note"]
        elif needed:
            assert "looking" in figures.draw(name, trace, {}).layout.annotations[0].text
        for probe, step, options in needed:
            look(store, run_id, probe, options, step, trace.snapshot(step))
        trace = store.trace(run_id)
        assert figures.needs(name, trace, {}) == []
        drawn = figures.draw(name, trace, {})
        assert len(drawn.data) >= 1 and drawn.layout.meta["note"], name
        assert all(axis.title.text for axis in drawn.select_xaxes()), name


@pytest.mark.parametrize("name", sorted(alphas.ABOUT | inference.ABOUT))
def test_an_arm_without_batch_norm_is_told_so(run, name):
    store, run_id = run
    assert "no batch norm" in figures.draw(name, store.trace(run_id), {"arm": "0"}).layout.annotations[0].text


def test_the_three_losses_are_the_recorded_scores(run, records):
    told = three(run[0].trace(run[1]), 1, "test", "loss")
    for record in records:
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


@pytest.mark.parametrize("name", ["mean", "var"])
def test_the_training_alpha_made_anew_is_the_recorded_average(run, name):
    told = any_alpha(run[0].trace(run[1]), name, 1, 1, 2, 3, 0.95)
    np.testing.assert_allclose(told.again, told.online, rtol=1e-5, atol=1e-7)
    other = any_alpha(run[0].trace(run[1]), name, 1, 1, 2, 3, 0.5)
    assert np.abs(other.again - told.online).max() > 1e-3
    left = 0.95 ** (told.steps + 1.0)  # Adam's correction, by its own formula
    np.testing.assert_allclose(
        told.corrected, (told.online - left * moving.START[name]) / (1 - left), rtol=1e-3, atol=1e-5
    )


def test_any_alpha_shows_the_corrected_average_beside_the_plain_one_and_what_is_kept(run):
    drawn = figures.draw("recomputed", run[0].trace(run[1]), {"alpha": "0.5"})
    assert [line.name for line in drawn.data[:4]] == [
        "trained with α = 0.95", "α = 0.5", "α = 0.5, bias-corrected", "population",
    ]  # fmt: skip
    kept = 2 * 4 * 3 * 8 * 2 * 61  # mean and variance, float32, layers, units, seeds, steps
    assert f"{kept / 1e3:.0f} kB of this arm, a part of the run's budget of 512 MB" in drawn.layout.meta["note"]


@pytest.fixture(scope="module")
def off(run):
    """What the probe that takes the gap apart sees of the middle arm before update 60."""
    store, run_id = run
    look(store, run_id, "off", {}, 60, store.trace(run_id).snapshot(60))
    return store.trace(run_id).look("off", 1, 60)


@pytest.mark.parametrize(("name", "start"), [("mean", 0.0), ("var", 1.0)])
def test_the_gap_against_alpha_is_a_slow_loops(run, records, off, name, start):
    trace = run[0].trace(run[1])
    told, corrected = (gap_parts(trace, off, name, 1, 2, 60, start) for start in (False, True))
    steps, mean, var = trace.population(1, layer=2)
    assert list(steps) == [0, 10, 20, 30, 40, 50, 60]
    values = mean if name == "mean" else var
    spread = np.sqrt(var[-1]) if name == "mean" else var[-1]
    batch = np.stack([[r.value(f"batch_{name}", 1, seed)[1] for seed in (0, 1)] for r in records if r.parts])
    for i, alpha in enumerate(moving.ALPHAS):
        m = np.full(batch.shape[1:], start)
        for b in batch:
            m = alpha * m + (1 - alpha) * b
        size = lambda gap: np.sqrt(np.mean((gap / spread) ** 2))  # noqa: E731
        assert told.total[i] == pytest.approx(size(m - values[-1]), rel=1e-4)  # that of the weights which infer
        assert told.warm_up[i] == pytest.approx(size(alpha**60 * (start - values[-1])), rel=1e-4)
        if alpha < 1:
            assert corrected.total[i] == pytest.approx(
                size((m - alpha**60 * start) / (1 - alpha**60) - values[-1]), rel=1e-4
            )


def test_lag_and_mini_batches_are_told_apart_by_the_population_of_every_step(run, records, off):
    """Against the same training scored at every step, at whose every step the population is recorded."""
    settings = EXPERIMENT.settings.model_copy(update={"score_every": 1})
    every = list(train(EXPERIMENT.model_copy(update={"settings": settings})))
    slots = [every[0].experiment.stacks[0].index((1, seed)) for seed in (0, 1)]
    at = [every[0].population[0].slots.index(slot) for slot in slots]
    for i, name in enumerate(("mean", "var")):
        p = np.stack([getattr(r.population[0], name)[:, at] for r in every]).astype(float)  # [61, L, seeds, d]
        unit = np.stack([np.sqrt(r.population[0].var[:, at]) if name == "mean" else r.population[0].var[:, at]
                         for r in every[-1:]])[0]  # fmt: skip
        b = np.stack([[r.value(f"batch_{name}", 1, seed) for seed in (0, 1)] for r in records if r.parts])
        for j, alpha in enumerate(moving.ALPHAS):
            w = (1 - alpha) * alpha ** np.arange(59.0, -1, -1)
            lag = sum(w[s] * (p[s] - p[-1]) for s in range(60)) / unit
            mini = sum(w[s] * (b[s].swapaxes(0, 1) - p[s]) for s in range(60)) / unit
            size = lambda q: np.sqrt(np.mean(q**2, 2)).T  # noqa: E731
            np.testing.assert_allclose(off["parts"][:, i, :, j, 2], size(lag), rtol=2e-3, atol=1e-6)
            np.testing.assert_allclose(off["parts"][:, i, :, j, 3], size(mini), rtol=2e-3, atol=1e-6)
    assert (off["replayed"] == 60).all()


def test_the_loss_without_the_gap_is_the_populations_and_with_all_of_it_the_recorded(run, off):
    trace = run[0].trace(run[1])
    for place, kind in ((0, "moving"), (4, "population")):
        steps, losses, _ = trace.scores(1, "test", kind)
        np.testing.assert_allclose(off["loss"][:, place], losses[list(steps).index(60)], rtol=1e-5)


def test_alpha_one_is_all_warm_up_and_alpha_zero_has_none(run, off):
    told = gap_parts(run[0].trace(run[1]), off, "var", 1, 2, 60, False)
    one, zero = moving.ALPHAS.index(1.0), moving.ALPHAS.index(0.0)
    assert told.warm_up[one] == pytest.approx(told.total[one])
    assert told.mini_batches[one] == told.lag[one] == 0
    assert told.mini_batches[zero] > 0 and told.warm_up[zero] == 0
    assert told.lag[zero] > 0  # the weights that infer are one update ahead of the last mini-batch


def recorded(store, arms=({"norm": "batch"},), **settings):
    asked = {"depth": 2, "width": 8, "data": "wine", "batch_size": 16, "score_every": 5, "steps": 40} | settings
    arms = tuple(Arm(label=f"arm {i}", changes=changes) for i, changes in enumerate(arms))
    run = store.create(Experiment(settings=Settings(**asked), arms=arms))
    execute(store, run.id, lambda: None)
    return store.trace(run.id)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return RunStore(tmp_path_factory.mktemp("more"))


def cause_at(store, trace, t):
    look(store, trace.run.id, "off", {}, t, trace.snapshot(t))
    return cause(store.trace(trace.run.id), 0, t)


def note(store, trace):
    """What the figure says, once the probe has looked."""
    for probe, step, options in figures.needs("three_losses", trace, {}):
        look(store, trace.run.id, probe, options, step, trace.snapshot(step))
    return figures.draw("three_losses", store.trace(trace.run.id), {}).layout.meta["note"]


def farthest(found, part):
    """Whether the loss without this part is the nearest to the population's."""
    off = {name: abs(getattr(found, name) - found.all) for name in ("warm_up", "lag", "mini_batches")}
    return off[part] == min(off.values()) and off[part] < 0.2 * abs(found.nothing - found.all)


def test_the_three_losses_have_a_band_over_the_seeds(run):
    trace = run[0].trace(run[1])
    drawn = figures.draw("three_losses", trace, {})
    _, losses, _ = trace.scores(1, "test", "moving")
    bands = {line.legendgroup: line.y for line in drawn.data if line.fill}
    assert set(bands) == {"batch", "moving", "population"}
    np.testing.assert_allclose(bands["moving"], losses.max(1), rtol=1e-6)
    assert "bands from the least to the greatest" in drawn.layout.meta["note"]


def test_the_cause_is_the_warm_up_where_a_share_of_the_start_outweighs_the_rest(store):
    trace = recorded(store, depth=4, activation="relu", init_gain=0.2, learning_rate=1e-6, alpha=0.9, batch_size=64)
    assert farthest(cause_at(store, trace, 30), "warm_up")
    said = note(store, trace)
    t = int(re.search(r"Test loss at step (\d+),", said)[1])
    assert f"without their warm-up (αᵗ = {0.9**t:.1g} of the 0 and 1" in said


def test_the_cause_is_the_lag_where_the_weights_run_away(store):
    trace = recorded(store, learning_rate=0.5, optimizer="momentum", alpha=0.8, batch_size="full", depth=4)
    assert farthest(cause_at(store, trace, 40), "lag")
    assert "without their lag (they are about 1/(1−α) = 5 steps behind the weights)" in note(store, trace)


def test_the_cause_is_the_mini_batches_where_they_are_small_and_the_weights_stand_still(store):
    trace = recorded(store, learning_rate=1e-20, batch_size=2, alpha=0.5, sampling="replacement")
    assert farthest(cause_at(store, trace, 40), "mini_batches")
    said = note(store, trace)
    assert "without the noise and bias of mini-batches of 2" in said and "own mini-batch of 2, as in training" in said


def test_frozen_averages_stand_still_and_the_start_is_the_start(store):
    trace = recorded(store, statistics="moving")
    assert "they stand still while the weights move" in note(store, trace)
    assert figures.needs("three_losses", trace, {}) == []
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        assert "they stand still, whatever alpha is" in figures.draw(name, trace, {}).layout.annotations[0].text
        assert figures.needs(name, trace, {}) == []
    assert "nothing has come in yet" in note(store, recorded(store, learning_rate=1e-9, alpha=0.0))


def forked(store, trace, step=20, **changes):
    child = store.fork(trace.run.id, 0, step, changes)
    execute(store, child.id, lambda: None)
    return store.trace(child.id)


def test_the_unchanged_arm_of_a_fork_has_its_parents_history(store):
    parent = recorded(store)
    child = forked(store, parent, learning_rate=0.01)
    grandchild = forked(store, child, 30, weight_decay=0.01)
    for trace in (child, grandchild):
        for name in ("mean", "var"):
            for told, true in zip(*(any_alpha(t, name, 0, 0, 2, 3, 0.7) for t in (trace, parent)), strict=True):
                assert np.array_equal(told, true)
        for probe in ("alphas", "off"):
            look(store, trace.run.id, probe, {}, 40, trace.snapshot(40))
            look(store, parent.run.id, probe, {}, 40, parent.snapshot(40))
        found, true = (t.look("alphas", 0, 40) for t in (trace, parent))
        assert np.array_equal(found["test_loss"], true["test_loss"])
        found, true = (t.look("off", 0, 40) for t in (trace, parent))
        assert 0 < found["replayed"][0] == 40 - trace.first and true["replayed"][0] == 40
        np.testing.assert_allclose(found["loss"][:, 0], true["loss"][:, 0])
        for part in (0, 1, 4):  # what does not need the population between the scorings
            np.testing.assert_allclose(found["parts"][..., part], true["parts"][..., part], rtol=1e-9, atol=1e-12)


def test_the_changed_arm_of_a_fork_has_the_parents_steps_and_then_its_own(store):
    parent = recorded(store)
    child = forked(store, parent, alpha=0.3)
    found = any_alpha(child, "var", 1, 0, 1, 2, 0.8)
    both = [t.read("batch_var", arm, layer=1, unit=2).mean[:, 0] for t, arm in ((parent, 0), (child, 1))]
    m, again = 1.0, []
    for b in np.concatenate([both[0][:20], both[1]]).astype(float):
        m = 0.8 * m + 0.2 * b
        again.append(m)
    np.testing.assert_allclose(found.again, again, rtol=1e-6)
    drawn = figures.draw("recomputed", child, {"arm": "1"})
    assert drawn.data[0].name == "trained with α = 0.3 from step 20 on"
    assert "before 20 are those of the run that this one was forked from" in drawn.layout.meta["note"]
    assert figures.needs("three_losses", child, {"arm": "1"}) == []  # of two alphas no single cause is told
    assert figures.needs("three_losses", child, {"arm": "0"}) != []


def test_a_fork_says_where_its_history_does_not_suffice(store):
    frozen = recorded(store, statistics="moving")
    assert "Up to step 20" in unknown(forked(store, frozen, statistics="batch"), 1, 40)
    parent = recorded(store)
    child = forked(store, parent, batch_size=8)
    assert unknown(child, 1, 40) is None
    assert "changed its mini-batch size" in figures.draw("why_off", child, {"arm": "1"}).layout.annotations[0].text
    assert figures.needs("why_off", child, {"arm": "0"}) == [("off", 40, {})]
    store.delete(parent.run.id)
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        said = figures.draw(name, child, {}).layout.annotations[0].text
        assert "what came before it was deleted" in said and figures.needs(name, child, {}) == []


def thinned(store, trace, stride):
    """The run as if only every stride-th row of the unit statistics had been kept."""
    from bnlab.keeping import Writer

    with Writer(store, trace.run.id) as writer, store.transaction() as db:
        for table in writer.heavy:
            table.thin(db, stride)
    return store.trace(trace.run.id)


def test_where_steps_are_missing_no_other_alpha_is_drawn_and_the_cause_stays_the_same(store):
    trace = recorded(store)
    before = cause_at(store, trace, 35)
    store.db.execute("delete from looks where run = ?", (trace.run.id,))
    few = thinned(store, trace, 5)
    steps = few.read("batch_mean", 0).steps
    assert list(steps) == [*range(0, 40, 5)]
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        said = figures.draw(name, few, {}).layout.annotations[0].text
        assert said.startswith("Only 8 of 40 steps") and "another alpha need every step" in said
        assert figures.needs(name, few, {}) == []
    assert unknown(few, 0, 1) is None  # the first step is there
    assert cause_at(store, few, 35) == before


@pytest.mark.parametrize("kind", ["orphan", "thinned"])
def test_broken_on_purpose_shows_what_needs_no_history(store, kind):
    trace = recorded(store)
    if kind == "orphan":
        child = forked(store, trace, learning_rate=0.01)
        store.delete(trace.run.id)
        trace = child
    else:
        trace = thinned(store, trace, 5)
    for probe, step, options in figures.needs("mistakes", trace, {}):
        look(store, trace.run.id, probe, options, step, trace.snapshot(step))
    trace = store.trace(trace.run.id)
    swapped = list(MISTAKES).index("alpha swapped")
    known = [i for i in range(len(MISTAKES)) if i != swapped]
    drawn = figures.draw("mistakes", trace, {"mistake": str(swapped)})
    assert np.isfinite(np.array(drawn.data[0].x)[known]).all() and np.isnan(drawn.data[0].x[swapped])
    assert "swapped is not known here: " in figures.draw("mistakes", trace, {}).layout.meta["note"]
    assert "not known. " + ("This run is a fork" if kind == "orphan" else "Only 8 of 40") in drawn.layout.meta["note"]


@pytest.mark.parametrize(
    ("loss", "control", "told"),
    [
        (
            0.4,
            0.48,
            "As many training examples, sorted too, give 0.48: what it is below that, test examples that have leaked "
            "in may have done. It is a test no more.",
        ),
        (0.4, 0.4, "give 0.4: it is lower because the averages are newer, not because test examples have leaked in."),
        (0.4, 0.3, "not because test examples have leaked in."),
        (0.6, 0.55, "As many training examples, sorted too, give 0.55."),
        (0.5, 0.5, "The averages stand as they were."),
        (0.4, np.nan, "test loss 0.4 instead of 0.5."),  # an older look, which has not seen the control
    ],
)
def test_polluted_averages_are_judged_by_the_control(store, loss, control, told):
    trace, wide = recorded(store, steps=1), np.full(len(MISTAKES), 0.5)
    cost = Costs(wide.copy(), wide * np.nan, wide, wide * np.nan, control)
    cost.loss[:] = loss
    assert symptom(trace, 0, 1, cost, POLLUTED).endswith(told)
    assert ("suit these weights" in symptom(trace, 0, 1, cost, 1)) == (loss < 0.5)


def test_polluting_with_training_examples_does_as_much_on_moons(store):
    trace = recorded(store, data="moons", alpha=0.99, steps=60, depth=3, batch_size=32)
    drawn = draw_looked(store, "mistakes", trace, mistake=str(POLLUTED))
    note = drawn.layout.meta["note"]
    found = store.trace(trace.run.id).look("broken", 0, 60)
    assert found["loss"][0, POLLUTED] < found["loss"][0, 0] and found["control"][0] < found["loss"][0, 0]
    assert f"give {style.amount(found['control'][0])}" in note
    assert ("not because test examples" in note) == (found["control"][0] <= found["loss"][0, POLLUTED] * 1.001)


def test_a_shift_stays_after_the_activation_and_its_line_begins_at_the_unshifted_score(store):
    arms = ({"norm": "batch"}, {"norm": "batch", "placement": "after"}, {"norm": "batch", "statistics": "moving"})
    trace = recorded(store, arms=arms)
    drawn = draw_looked(store, "mistakes", trace, mistake=str(IN_BATCHES))
    before, after, frozen = drawn.layout.meta["note"].split("arm ")[1:]
    assert "first layer's batch mean takes the shift out again" in before
    assert "has gone through h before the norm" in after
    assert "moving averages too" in frozen
    for arm, line in enumerate(drawn.data[3:5]):
        begins = float(line.x[3 * IN_BATCHES])
        assert begins == pytest.approx(trace.scores(arm, "test", "batch")[1][-1, 0], rel=1e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(293.4, "293"), (2.9e2, "290"), (1437, "1440"), (0.0399, "0.0399"), (8.1e-6, "8.1·10⁻⁶"), (0, "0"),
     (-3.2e-8, "-3.2·10⁻⁸"), (2.5e9, "2.5·10⁹"), (np.nan, "nan")],
)  # fmt: skip
def test_numbers_are_written_as_one_would(value, text):
    assert style.amount(value) == text


def draw_looked(store, name, trace, **asked):
    for probe, step, options in figures.needs(name, trace, asked):
        look(store, trace.run.id, probe, options, step, trace.snapshot(step))
    return figures.draw(name, store.trace(trace.run.id), asked)


def test_an_outlier_moves_predictions_of_a_regression_and_none_where_it_is_alone(store):
    drawn = draw_looked(store, "outlier", recorded(store, data="diabetes", steps=5))
    assert drawn.layout.xaxis.title.text == "greatest change of a prediction (in deviations of the target)"
    assert drawn.layout.xaxis.range[1] > 1
    drawn = draw_looked(store, "outlier", recorded(store, batch_size=2, steps=5, arms=({"norm": "batch"}, {})))
    assert tuple(drawn.layout.xaxis.range) == (0, 1.12)  # of a probability, however little it changes
    assert tuple(drawn.layout.yaxis.range) == (1.5, -0.5)  # first arm on top, whatever was drawn before
    drawn = draw_looked(store, "outlier", recorded(store, arms=({},), batch_size=1, steps=5))
    assert "K = 1: a mini-batch holds no other example" in drawn.layout.annotations[0].text


def test_one_example_alone_is_shown_for_every_norm_and_training_alone_is_refused_with_the_way_out(store):
    arms = ({}, {"norm": "batch"}, {"norm": "layer"}, {"norm": "batch", "statistics": "moving"})
    trace = recorded(store, arms=arms, steps=5)
    drawn = draw_looked(store, "alone", trace)
    training, inference_mode = (np.array(bar.x) for bar in drawn.data)
    assert (inference_mode < 1e-5).all() and training[1] > 0.01 and (training[[0, 2, 3]] < 1e-5).all()
    with pytest.raises(ValueError) as error:
        Settings(norm="batch", batch_size=1)
    refusal = "batch_size is 1; batch norm needs at least 2 examples to have a variance. Raise it or choose layer norm."
    assert refusal in str(error.value) and refusal in drawn.layout.meta["note"]
    assert len(draw_looked(store, "alone", recorded(store, arms=({},), batch_size=1, steps=5)).data) == 2


def test_the_loss_against_alpha_has_a_logarithmic_axis(run):
    store, run_id = run
    assert draw_looked(store, "alpha_curve", store.trace(run_id)).layout.yaxis.type == "log"


def test_two_examples_are_drawn_once_and_only_with_batch_norm(store):
    drawn = draw_looked(store, "two_examples", recorded(store, batch_size=2, steps=5))
    assert [line.name for line in drawn.data] == ["arm 0, K = 2"]
    drawn = draw_looked(store, "two_examples", recorded(store, statistics="moving", batch_size=1, steps=5))
    assert "takes nothing of the gradient away" in drawn.layout.annotations[0].text


def test_a_run_without_batch_norm_is_told_how_to_get_one(store):
    trace = recorded(store, arms=({},), steps=5)
    for name in NAMES:
        if name not in ("outlier", "alone"):
            assert "No arm of this run has batch norm" in draw_looked(store, name, trace).layout.annotations[0].text


def test_the_practitioners_mini_batches_are_called_by_their_real_sizes(store):
    trace = recorded(store, steps=5)
    drawn = draw_looked(store, "in_practice", trace)
    assert [line.name for line in drawn.data[::2]] == [
        "17 mini-batches of 8 or 9", "8 mini-batches of 17 or 18 (the run's K)", "4 mini-batches of 35 or 36",
        "all 142 examples at once",
    ]  # fmt: skip
    note = drawn.layout.meta["note"]
    assert "over 142 examples, in multiply-adds as much as 3 training steps with K = 16" in note  # 142 / 3 / 16
    found = store.trace(trace.run.id).look("practice", 0, 5, batch_size=8)
    worst = [int(q.argmax()) + 1 for q in (found["mean_off"][0], np.abs(np.log(found["std_ratio"][0])))]
    assert f"With 17 mini-batches of 8 or 9 the means are most off in layer {worst[0]}, the standard" in note
    assert f"deviations in layer {worst[1]}." in note
    drawn = draw_looked(store, "in_practice", recorded(store, data="digits", batch_size=2, steps=2))
    assert drawn.data[0].name == "718 mini-batches of 2 or 3 (the run's K)"
    assert "as much as 240 training steps with K = 2; in time fewer where" in drawn.layout.meta["note"]


@pytest.mark.parametrize("mistake", range(1, 8))
def test_a_pressed_mistake_tells_its_symptom_in_numbers(run, mistake):
    store, run_id = run
    for probe, step, options in figures.needs("mistakes", store.trace(run_id), {"mistake": str(mistake)}):
        look(store, run_id, probe, options, step, store.trace(run_id).snapshot(step))
    trace = store.trace(run_id)
    drawn = figures.draw("mistakes", trace, {"mistake": str(mistake)})
    found = {name: q.mean(0) for name, q in trace.look("broken", 1, 60).items()}
    loss, right = found["loss"][mistake], found["unshifted_loss"] if mistake == IN_BATCHES else found["loss"][0]
    assert f"test loss {style.amount(loss)} instead of {style.amount(right)}" in drawn.layout.meta["note"]
    assert tuple(drawn.data[0].selectedpoints) == (0, mistake)


def test_a_run_with_mini_batches_of_one_has_no_scores_by_them_and_the_figures_say_so(tmp_path):
    """Normalized by its own statistics an example alone is 0 in every unit, whatever it was."""
    store = RunStore(tmp_path)
    settings = Settings(data="wine", depth=2, width=8, steps=20, batch_size=1, statistics="moving", learning_rate=0.01)
    run = store.create(Experiment(settings=settings, arms=(Arm(label="frozen", changes={"norm": "batch"}),)))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    assert not len(trace.scores(0, "test", "batch")[0]) and len(trace.scores(0, "test", "moving")[0])
    assert "There is none with mini-batch statistics" in figures.draw("three_losses", trace, {}).layout.meta["note"]
