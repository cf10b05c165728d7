"""Each mistake tells what it costs and why, and no more than is known; one outlier moves what it can."""

import numpy as np
import pytest
from looked_at import forked, recorded, shown, thinned

from bnlab import figures
from bnlab.figures import style
from bnlab.figures.broken import IN_BATCHES, POLLUTED, Costs, symptom
from bnlab.probes.broken import MISTAKES


@pytest.mark.parametrize("kind", ["orphan", "thinned"])
def test_broken_on_purpose_shows_what_needs_no_history(store, kind):
    trace = recorded(store)
    if kind == "orphan":
        child = forked(store, trace, learning_rate=0.01)
        store.delete(trace.run.id)
        trace = child
    else:
        trace = thinned(store, trace, 5)
    swapped = list(MISTAKES).index("alpha swapped")
    known = [i for i in range(len(MISTAKES)) if i != swapped]
    drawn = shown(trace, "mistakes", mistake=str(swapped))
    assert np.isfinite(np.array(drawn.data[0].x)[known]).all() and np.isnan(drawn.data[0].x[swapped])
    assert "swapped is not known of arm 0: " in figures.draw("mistakes", trace, {}).layout.meta["note"]
    assert "not known. " + ("This run is a fork" if kind == "orphan" else "Only 8 of 40") in drawn.layout.meta["note"]


@pytest.mark.parametrize(
    ("loss", "control", "told"),
    [
        (
            0.4,
            0.48,
            "As many training examples, sorted too, give 0.48: a loss below that may come from test examples "
            "that have leaked in. It is no longer a test.",
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


def test_on_a_telephone_a_number_beside_a_point_does_not_touch_the_mistake_s_name(store, monkeypatch):
    width, letter, mark = 200, 6.5, 12  # pixels of the panel where the screen has 390, of a digit, of half a point
    loss, right = np.full((2, len(MISTAKES)), 0.0614)
    loss[1], loss[POLLUTED] = 2.57, 0.0449
    monkeypatch.setattr("bnlab.figures.broken.costs", lambda _: Costs(loss, loss, right, right, 0.0))
    drawn = shown(recorded(store), "mistakes")
    low, high = drawn.layout.xaxis.range
    points = [line for line in drawn.data if line.mode == "markers+text"]
    told = [point for line in points for point in zip(line.x, line.text, line.textposition, strict=True)]
    left = [(x, text) for x, text, side in told if side == "middle left" and np.isfinite(x)]
    assert left
    for x, text in left:
        assert (np.log10(x) - low) / (high - low) * width >= mark + letter * len(text), text


@pytest.mark.parametrize("chosen", range(1, len(MISTAKES)))
@pytest.mark.parametrize(("loss", "was"), [(2100.0, np.inf), (np.inf, 2.3), (np.inf, np.inf), (np.nan, np.inf)])
def test_of_a_loss_that_is_not_finite_nothing_is_concluded(store, chosen, loss, was):
    """Of 2,100 instead of inf it said that the averages stand as they were, or that the mistake suits these weights."""
    each, right, none = (np.full(len(MISTAKES), value) for value in (loss, was, np.nan))
    said = symptom(recorded(store, steps=1), 0, 1, Costs(each, none, right, none, was), chosen)
    words = [style.amount(value) if np.isfinite(value) else "not finite" for value in (loss, was)]
    assert said.startswith("arm 0: not known. ") or said == f"arm 0: test loss {words[0]} instead of {words[1]}."


def test_polluting_with_training_examples_does_as_much_on_moons(store):
    trace = recorded(store, data="moons", alpha=0.99, steps=60, depth=3, batch_size=32)
    drawn = shown(trace, "mistakes", mistake=str(POLLUTED))
    note = drawn.layout.meta["note"]
    found = store.trace(trace.run.id).look("broken", 0, 60)
    assert found["loss"][0, POLLUTED] < found["loss"][0, 0] and found["control"][0] < found["loss"][0, 0]
    assert f"give {style.amount(found['control'][0])}" in note
    assert ("not because test examples" in note) == (found["control"][0] <= found["loss"][0, POLLUTED] * 1.001)


def test_a_shift_stays_after_the_activation_and_its_line_begins_at_the_unshifted_score(store):
    arms = ({"norm": "batch"}, {"norm": "batch", "placement": "after"}, {"norm": "batch", "statistics": "moving"})
    trace = recorded(store, arms=arms)
    drawn = shown(trace, "mistakes", mistake=str(IN_BATCHES))
    before, after, frozen = drawn.layout.meta["note"].split("arm ")[1:]
    assert "first layer's batch mean takes the shift out again" in before
    assert "has gone through h before the norm" in after
    assert "moving averages too" in frozen
    for arm, line in enumerate(drawn.data[3:5]):
        begins = float(line.x[3 * IN_BATCHES])
        assert begins == pytest.approx(trace.scores(arm, "test", "batch")[1][-1, 0], rel=1e-5)


def test_the_axis_of_a_probabilitys_change_has_no_number_above_1(store):
    axis = shown(recorded(store, steps=5), "outlier").layout.xaxis
    assert max(axis.tickvals) == 1 < axis.range[1]


def test_an_outlier_moves_predictions_of_a_regression_and_none_where_it_is_alone(store):
    drawn = shown(recorded(store, data="diabetes", steps=5), "outlier")
    title = drawn.layout.xaxis.title.text.replace("<br>", " ")
    assert title == "greatest change of a prediction, in deviations of the target"
    assert drawn.layout.xaxis.range[1] > 1
    drawn = shown(recorded(store, batch_size=2, steps=5, arms=({"norm": "batch"}, {})), "outlier")
    assert tuple(drawn.layout.xaxis.range) == (0, 1.3)  # of a probability, however little it changes
    assert tuple(drawn.layout.yaxis.range) == (1.5, -0.5)  # first arm on top, whatever was drawn before
    drawn = shown(recorded(store, arms=({},), batch_size=1, steps=5), "outlier")
    assert "K = 1: a mini-batch holds no other example" in drawn.layout.annotations[0].text


@pytest.mark.parametrize("mistake", range(1, 8))
def test_a_pressed_mistake_tells_its_symptom_in_numbers(inference_run, mistake):
    store, run_id = inference_run
    trace = store.trace(run_id)
    drawn = shown(trace, "mistakes", mistake=str(mistake))
    found = {name: q.mean(0) for name, q in trace.look("broken", 1, 60).items()}
    loss, right = found["loss"][mistake], found["unshifted_loss"] if mistake == IN_BATCHES else found["loss"][0]
    assert f"test loss {style.amount(loss)} instead of {style.amount(right)}" in drawn.layout.meta["note"]
    assert tuple(drawn.data[0].selectedpoints) == (0, mistake)


@pytest.mark.parametrize(("data", "unit"), [("wine", "cross-entropy E (nats)"), ("diabetes", "mean squared error")])
def test_the_axis_of_the_mistakes_says_what_their_loss_is_measured_in(store, data, unit):
    title = shown(recorded(store, data=data, steps=5), "mistakes").layout.xaxis.title.text
    assert title == f"test loss, {unit};<br>the line begins at what it should be"


def test_of_an_outlier_the_greatest_change_of_all_seeds_is_drawn(inference_run):
    trace = inference_run[0].trace(inference_run[1])
    (bars,) = shown(trace, "outlier").data
    told = [trace.look("broken", arm, 60)["outlier"] for arm in range(3)]
    np.testing.assert_allclose(bars.x, [max(seeds) for seeds in told], rtol=1e-6)
    assert np.ptp(told[1]) > 0 and list(bars.y) == ["none", "BN", "LN"]
