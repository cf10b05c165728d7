"""What theory predicts of initial networks, beside what is measured of them."""

import re

import numpy as np
import pytest
from looked_at import ARMS, recorded, seen, trained

from bnlab import Arm, Experiment, Settings, figures, theory
from bnlab.data import split
from bnlab.figures import predicted
from bnlab.figures.style import NOTHING
from bnlab.profile import profile
from bnlab.store import RunStore
from bnlab.train import train


@pytest.mark.parametrize(
    ("activation", "init", "arm", "factor"),
    [
        ("relu", "he", {}, 1.0),
        ("relu", "xavier", {}, np.sqrt(0.5)),
        ("relu", "he", {"norm": "batch"}, np.sqrt(np.pi / (np.pi - 1))),
        ("relu", "he", {"norm": "layer"}, 1.0),
    ],
)
def test_measured_and_predicted_factors_are_the_published_ones(tmp_path, activation, init, arm, factor):
    settings = Settings(depth=24, width=128, activation=activation, init=init, steps=1, batch_size=256)
    experiment = Experiment(settings=settings, arms=(Arm(label="a", changes=arm),), seeds=(0, 1, 2))
    store = RunStore(tmp_path)
    run = store.create(experiment)
    with store.writer(run.id) as writer:
        for record in train(experiment):
            writer.keep(record)
    told = predicted.prediction(store.trace(run.id), 0)
    (measured, law), weight, variance = told.factors
    assert law == pytest.approx(factor, rel=0.02)
    assert measured == pytest.approx(factor, rel=0.05)
    limit = theory.growth(activation, init, 1.0, *((arm["norm"],) if arm else ())).lost_at_depth
    assert told.lost_at_depth == pytest.approx(limit, rel=0.01)
    first = next(iter(train(experiment)))
    norms = np.stack([first.value("signal_grad_norm", 0, seed) for seed in (0, 1, 2)])
    np.testing.assert_allclose(told.measured[0], np.exp(np.log(norms).mean(0)), rtol=1e-5)
    spread = np.stack([first.value("a_std", 0, seed) for seed in (0, 1, 2)])
    grown = np.polyfit(np.arange(18), 2 * np.log(spread).mean(0)[3:-3], 1)[0]  # without the three layers at each end
    assert variance[0] == pytest.approx(np.exp(grown), rel=1e-5)
    note = figures.draw("predicted", store.trace(run.id), {}).layout.meta["note"]
    assert f"‖dE/da‖ ×{measured:.3g} / ×{law:.3g}, " in note
    assert f"‖dE/dW‖ ×{weight[0]:.3g} / ×{weight[1]:.3g}" in note
    assert f"var a ×{variance[0]:.3g} / ×{variance[1]:.3g}" in note
    assert len(note) < 400, "short enough to be read"
    help = figures.FIGURES["predicted"].help
    assert "begin at layer L's measured value" in help and "at right angles" in help


def at_step_0(tmp_path, **settings):
    """The run of a first step, and what is predicted of it."""
    store = RunStore(tmp_path)
    experiment = Experiment(settings=Settings(steps=1, **settings), arms=(Arm(label="a"),), seeds=(0, 1, 2))
    run = store.create(experiment)
    with store.writer(run.id) as writer:
        writer.keep(next(iter(train(experiment))))
    trace = store.trace(run.id)
    return trace, predicted.prediction(trace, 0)


RELU = {"depth": 8, "width": 64, "activation": "relu"}
BATCH = {"norm": "batch", "batch_size": 256}


@pytest.mark.parametrize(
    "settings",
    [
        BATCH | {"statistics": "moving", "delta": 1.0},
        BATCH | {"noise_shift": 0.5, "noise_scale": 0.25},
        BATCH | {"noise_shift": 2.0, "noise_scale": 1.0, "placement": "after", "activation": "tanh"},
        {"init": "he", "standardize": False},
        {"norm": "layer", "standardize": False},
        BATCH | {"standardize": False},
        BATCH | {"standardize": False, "placement": "after"},
    ],
)
def test_every_setting_has_its_own_law(tmp_path, settings):
    """The lines were those of centered inputs, no noise and a mini-batch's statistics: up to fourfold off."""
    _, told = at_step_0(tmp_path, **RELU | settings)
    np.testing.assert_allclose(told.measured[2][:3], told.predicted[2][:3], rtol=0.3)
    signal = told.factors[0]
    assert signal[0] == pytest.approx(signal[1], rel=0.1)


def test_a_weight_gradient_off_its_law_is_said(tmp_path):
    trace, told = at_step_0(tmp_path, **RELU | {"norm": "layer", "standardize": False, "depth": 20, "width": 64})
    share = told.measured[1] / told.predicted[1]
    at = np.abs(np.log(share)).argmax()
    assert share[at] < 0.6  # the digits resemble each other
    note = figures.draw("predicted", trace, {}).layout.meta["note"]
    assert (
        f"‖dE/dW‖ ×{share[at]:.2g} at layer {at + 1}"
        in note.split("More than a factor of 1.5 from theory, at worst")[1]
    )


def test_the_note_has_one_line_for_each_arm_with_all_that_is_said_of_it(tmp_path):
    after = Arm(label="after", changes={"norm": "batch", "placement": "after"})
    arms = (Arm(label="one"), ARMS[2], Arm(label="before", changes={"norm": "batch"}), after)
    store, run_id = trained(tmp_path, Settings(depth=4, width=8, activation="tanh", steps=1), arms)
    said, *lines = figures.draw("predicted", store.trace(run_id), {}).layout.meta["note"].split("\n")
    assert [line.partition(":")[0] for line in lines] == ["one", "LN", "before", "after"] and said == predicted.SAID
    assert lines[0].endswith(". Pre-activations sink to 0 with depth.")
    assert lines[2].endswith(". The theory is for mini-batches of 128.")
    assert lines[3].endswith(". The theory is for many examples in a mini-batch.")


def test_arms_that_begin_alike_share_a_line(tmp_path):
    arms = (Arm(label="slow"), ARMS[2], Arm(label="fast", changes={"learning_rate": 1.0}))
    store, run_id = trained(tmp_path, Settings(depth=4, width=8, activation="tanh", steps=1), arms)
    _, *lines = figures.draw("predicted", store.trace(run_id), {}).layout.meta["note"].split("\n")
    assert [line.partition(":")[0] for line in lines] == ["slow and fast", "LN"]


def test_seeds_without_a_gradient_take_no_line_from_those_that_have_one(tmp_path):
    small = {"data": "wine", "depth": 10, "width": 3, "batch_size": 16, "activation": "relu", "init": "he"}
    experiment = Experiment(settings=Settings(steps=1, **small), arms=(Arm(label="a"),), seeds=tuple(range(8)))
    store = RunStore(tmp_path)
    run = store.create(experiment)
    with store.writer(run.id) as writer:
        writer.keep(next(iter(train(experiment))))
    told = predicted.prediction(store.trace(run.id), 0)
    norms = np.stack([next(iter(train(experiment))).value("signal_grad_norm", 0, seed) for seed in range(8)])
    gone = (norms == 0).any(1).sum()
    assert 0 < gone < 8
    for l, column in enumerate(norms.T):
        there = column[column > 0]
        assert told.measured[0][l] == pytest.approx(np.prod(there.astype(float)) ** (1 / len(there)), rel=1e-5)
        assert [told.low[0][l], told.high[0][l]] == [there.min(), there.max()]
    figure = figures.draw("predicted", store.trace(run.id), {})
    assert len(figure.data[0].x) == len(figure.data[1].x) == 10
    note = figure.layout.meta["note"]
    assert f"{gone} of 8 have no gradient in some layer" in note and "infinite" not in note


def test_mini_batches_of_two_have_no_line_and_it_is_said_why(tmp_path):
    trace, _ = at_step_0(tmp_path, **RELU | {"norm": "batch", "batch_size": 2})
    note = figures.draw("predicted", trace, {}).layout.meta["note"]
    assert "too few layers" not in note and "whose mean growth is infinite in theory" in note
    assert "In mini-batches of 2 or 3 the mean growth is infinite but for δ: the rare units" in note


def test_infinite_growth_of_no_gradient_warns_nobody(store):
    """One unit behind a batch norm of two examples: nothing comes to layer L."""
    one = {"width": 1, "activation": "tanh", "init_gain": 30.0, "batch_size": 2, "data": "moons", "steps": 1}
    trace = recorded(store, **one, noise_shift=0.5, noise_scale=0.25, sampling="replacement")
    told = predicted.prediction(trace, 0)
    assert told.measured[0][-1] == 0 and np.isinf(told.limit)
    assert "whose mean growth is infinite in theory" in figures.draw("predicted", trace, {}).layout.meta["note"]


def test_the_depth_at_which_the_signal_is_lost_is_that_of_the_drawn_law(tmp_path):
    """GELU with He weights sinks only after tens of layers: its limit's factor would lose the signal much earlier."""
    trace, told = at_step_0(tmp_path, depth=40, activation="gelu", init="he")
    assert told.predicted[0][0] / told.predicted[0][-1] > 1e-3  # far from lost over these 40 layers
    assert told.lost_at_depth > 50
    law = ("gelu", "he", 1.0, "none", "before", None, 1e-5)
    n = round(told.lost_at_depth)
    deeper = profile(*law, depth=n + 1, width=64, n_in=64, sizes=predicted.sizes("digits", True).each)
    assert np.log10(deeper.signal_norm[0]) == pytest.approx(-6, abs=0.3)
    assert "(in the limit of many layers ×0.707)" in figures.draw("predicted", trace, {}).layout.meta["note"]


@pytest.mark.parametrize(
    ("init", "gain", "never"),
    [("xavier", 1.0, True), ("xavier", 0.9996, True), ("xavier", 0.99, False), ("orthogonal", 0.95, False)],
)
def test_frozen_batch_norm_that_does_nothing_has_the_ending_of_none(tmp_path, init, gain, never):
    """δ makes the limit ×0.999994, which the note told as "a millionth over 2,258,602 layers (×1.000)"."""
    asked = {"depth": 8, "width": 24, "activation": "tanh", "init": init, "init_gain": gain}
    (_, none), (_, frozen) = (
        at_step_0(tmp_path / name, **asked, **changes)
        for name, changes in (("none", {}), ("frozen", {"norm": "batch", "statistics": "moving"}))
    )
    told = [predicted.ending(one) for one in (none, frozen)]
    assert ["it hardly changes (×1.000 per layer)" in words for words in told] == [never, never]
    if never:
        assert told[0] == told[1]
    else:
        assert frozen.lost_at_depth == pytest.approx(none.lost_at_depth, rel=2e-3)


@pytest.mark.parametrize(("depth", "start"), [(30, "explodes: it grows"), (12, "grows ×{:.3g} over these 12 layers,")])
def test_what_explodes_in_theory_is_said_to_explode_where_the_layers_are_many_enough(tmp_path, depth, start):
    """Yang et al. 2019: ×1.21 per layer with ReLU behind batch norm."""
    _, told = at_step_0(tmp_path, depth=depth, activation="relu", init="he", norm="batch")
    words, law = predicted.ending(told), told.factors[0][1]
    assert law == pytest.approx(1.21, abs=0.02)
    line = told.predicted[0]
    assert words.startswith(f"In theory the signal {start.format(line[0] / line[-1])}")
    assert law ** int(re.search(r"a millionfold over (\d+)", words)[1]) == pytest.approx(1e6, rel=0.15)


def test_a_run_of_which_no_step_is_recorded_yet_is_not_told_to_be_thinned(store):
    trace = store.trace(store.create(Experiment(settings=Settings(depth=2, width=4, steps=5))).id)
    assert figures.draw("predicted", trace, {}).layout.meta["said"] == NOTHING


@pytest.mark.parametrize("standardize", [True, False])
def test_the_inputs_that_the_law_starts_from_are_those_of_the_training_set(standardize):
    x = split("wine", standardize)[0].x.astype(float)
    told = predicted.sizes("wine", standardize)
    squares = sorted(sum(v * v for v in row) / len(row) for row in x)
    assert told.mean == pytest.approx(np.mean(squares))
    assert told.common == pytest.approx(np.mean(x.mean(0) ** 2), abs=1e-12)
    assert told.each[7] == pytest.approx(np.median(squares)) and len(told.each) == 15
    below = [np.mean(np.array(squares) < size) for size in told.each]
    np.testing.assert_allclose(below, (np.arange(15) + 0.5) / 15, atol=0.01)


@pytest.mark.parametrize(("noise", "words"), [({}, "but for δ."), ({"noise_shift": 0.5}, "but for δ and the noise.")])
def test_what_frozen_batch_norm_does_is_said(noise, words):
    asked = Settings(norm="batch", statistics="moving", activation="tanh", **noise)
    start = f"Frozen moving averages stand at 0 and 1: batch norm does nothing {words}"
    assert predicted.of(asked)[0].note.startswith(start)


@pytest.mark.parametrize(("depth", "words"), [(12, "grows ×86.5 over these 12 layers"), (13, "explodes: it grows a")])
def test_a_signal_explodes_where_it_grows_more_than_a_hundredfold_from_the_top_layer_to_the_first(depth, words):
    words_told = predicted.ending(line_of(1.5 ** np.arange(depth)[::-1], 1.5, 1.5))
    assert words_told.startswith(f"In theory the signal {words}")  # 1.5**11 = 86, 1.5**12 = 130


def line_of(line, law, limit):
    """A prediction of which this is the line, at any size."""
    each = (3e-4 * line,) * 3
    return predicted.Prediction(each, each, each, each, ((law, law),) * 3, limit, np.inf, "")


@pytest.mark.parametrize(
    ("ends", "law", "limit", "words"),
    [
        (0.2, 0.96, 1.0, "layer 1 gets 0.2 of layer 5's signal; in the limit of many layers it hardly changes (×1.000"),
        (3.0, 1.4, 1.004, "layer 1 gets 3 times layer 5's signal; in the limit of many layers it hardly changes"),
        (0.6, 0.96, 1.02, "layer 1 gets 0.6 of layer 5's signal; in the limit of many layers it grows (×1.020 per"),
        (0.6, 1.02, 1.02, "layer 1 gets 0.6 of layer 5's signal; in the limit of many layers it grows (×1.020 per"),
        (1.0, 1.0, 1.02, "layer 1 gets as much signal as layer 5; in the limit of many layers it grows (×1.020"),
        (1.04, 1.04, 1.02, "the signal grows ×1.04 over these 5 layers, a millionfold over 352 (in the limit of many"),
        (0.9, 1.0, 1.0, "the signal is never lost"),
    ],
)
def test_what_is_said_of_the_end_is_what_the_line_shows_of_these_layers(ends, law, limit, words):
    """A line that fell fivefold was "never lost", and one that fell and then rises "grows ×1.8 over these layers"."""
    told = line_of(np.array([ends, ends / 3, ends / 2, ends / 2, 1.0]), law, limit)
    assert predicted.ending(told).startswith(f"In theory {words}")


@pytest.mark.parametrize("depth", [12, 30])
def test_of_sigmoids_behind_batch_norm_the_same_is_said_at_any_depth(tmp_path, depth):
    """At 12 layers "never lost", at 30 "grows ×1.8", where both lines fall and the limit is ×1.020."""
    _, told = at_step_0(tmp_path, depth=depth, width=32, activation="sigmoid", norm="batch")
    gets = told.predicted[0][0] / told.predicted[0][-1]
    limit = "in the limit of many layers it grows (×1.020 per layer)"
    assert predicted.ending(told) == f"In theory layer 1 gets {gets:.2g} of layer {depth}'s signal; {limit}"


def test_one_layer_has_one_tick_and_every_line_of_the_legend_can_be_seen(tmp_path):
    settings = Settings(depth=1, width=8, steps=1, data="wine", batch_size=16)
    drawn = seen(*trained(tmp_path, settings, ARMS, (0, 1)), "predicted")
    assert drawn.layout.xaxis.dtick == 1 and list(drawn.layout.xaxis.range) == [0.5, 1.5]
    assert all("markers" in line.mode for line in drawn.data if len(line.x) == 1)


def test_of_a_hundred_layers_some_have_bars_and_each_arm_others(tmp_path):
    deep = Settings(depth=100, width=4, steps=1, data="wine", batch_size=16, activation="linear")
    drawn = seen(*trained(tmp_path, deep, ARMS[:2], (0, 1)), "predicted")
    barred = [
        set(d.x[np.isfinite(d.error_y.array)]) for d in drawn.data if d.error_y.array is not None and d.showlegend
    ]
    assert [8 <= len(layers) <= predicted.BARS for layers in barred] == [True, True]
    assert not barred[0] & barred[1]


@pytest.mark.parametrize("fold", [1.501, 1.54, 1.500001, 1 / 1.501, 1 / 1.52, 3.0])
def test_a_factor_that_is_off_by_more_than_said_is_written_so(fold):
    """'More than a factor of 1.5 from theory, at worst: ×1.5 at layer 5'."""
    measured = tuple(np.array([1.0, fold]) for _ in range(3))
    ones = tuple(np.ones(2) for _ in range(3))
    told = predicted.Prediction(measured, measured, measured, ones, ((1, 1),) * 3, 1.0, np.inf, "")
    written = float(predicted.off(told).split("×")[1].split(" ")[0])
    assert max(written, 1 / written) > predicted.OFF and written == pytest.approx(fold, rel=0.03)


def test_a_fork_has_no_initial_weights_and_its_parent_is_named_for_them(tmp_path):
    store, run_id = trained(tmp_path, Settings(depth=3, width=8, steps=10, data="wine", score_every=5), ARMS[:1])
    fork = store.fork(run_id, 0, 5, {"learning_rate": 0.02})
    with store.writer(fork.id) as writer:
        for record in train(fork.experiment):
            if record.step >= 5:
                writer.keep(record)
    figure = figures.draw("predicted", store.trace(fork.id), {})
    assert figure.layout.meta["said"] == predicted.FORK and not figure.data


def of_one_unit(directory, arms=ARMS[:1], **settings):
    """The figure of a ReLU network of one unit, which is off with both seeds: no gradient comes to any layer."""
    one = {"depth": 5, "width": 1, "activation": "relu", "data": "wine", "batch_size": 16}
    return seen(*trained(directory, Settings(steps=1, **one | settings), arms, (0, 1)), "predicted")


def test_the_legend_has_each_line_once_also_where_the_first_panel_has_none_of_it(tmp_path):
    drawn = of_one_unit(tmp_path, ARMS[:2])
    assert [len(line.x) for line in drawn.data if line.name == "none: measured"] == [0, 0, 2]
    listed = [line.name for line in drawn.data if line.showlegend and len(line.x)]  # plotly lists no line without any
    assert sorted(listed) == sorted({line.name for line in drawn.data})


EXPLODED = {"depth": 30, "width": 8, "activation": "linear", "init_gain": 100.0}


@pytest.mark.parametrize(
    ("settings", "words", "note"),
    [
        ({}, "0 in every layer.", "of which none comes to layer L"),
        (EXPLODED, "Finite in no layer.", "which are not finite"),
    ],
)
def test_a_panel_without_points_says_why_and_has_no_ticks(tmp_path, settings, words, note):
    """Plotly's own went from 0 to 6 across and to 10⁶ up."""
    drawn = of_one_unit(tmp_path, **settings)
    assert [place.text for place in drawn.layout.annotations] == [words] * 2
    axes = drawn.layout.xaxis, drawn.layout.xaxis2, drawn.layout.yaxis, drawn.layout.yaxis2
    assert [axis.tickvals for axis in axes] == [()] * 4 and drawn.layout.yaxis3.tickvals
    assert f"no line for the gradients, {note}" in drawn.layout.meta["note"]


@pytest.mark.parametrize(("gain", "factor"), [(100.0, "10,000"), (0.01, "1×10⁻⁴")])
def test_the_factor_of_a_variance_beyond_what_the_theory_follows_is_that_of_the_layers_before(tmp_path, gain, factor):
    """It was fitted over a hundred layers, of which most stood at 10^100: 3.76, not 100^2."""
    drawn = of_one_unit(tmp_path, depth=100, width=4, activation="linear", init_gain=gain)
    assert f" / ×{factor}." in drawn.layout.meta["note"].split("var a ")[1]
