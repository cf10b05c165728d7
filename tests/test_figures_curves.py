"""The figures of loss and accuracy show the numbers that were recorded."""

from math import log

import numpy as np
import pytest
from known_curves import EXPERIMENT, Long, N, Scored, drawn, scored
from known_trace import KnownTrace
from scipy.stats import entropy

from bnlab import data, figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import curves, losses, smoothing, style
from bnlab.reading import Series


@pytest.fixture
def trace():
    return scored()


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_smoothing_is_the_mean_over_the_last_steps(window):
    rng = np.random.default_rng(1)
    steps, values = np.sort(rng.choice(200, 60, replace=False)), rng.normal(size=60)
    values[5] = np.nan
    by_hand = []
    for i, step in enumerate(steps):
        last = [v for s, v in zip(steps[: i + 1], values, strict=False) if s > step - window and np.isfinite(v)]
        by_hand.append(np.nan if np.isnan(values[i]) else np.mean(last))
    found = smoothing.smoothed(steps, values, window)
    np.testing.assert_allclose(found, values if window == 1 else by_hand, rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("window", [2, 10, 50, 200, 10_000])
def test_smoothing_forgets_what_has_left_its_window_however_large(window, weighted):
    """After one loss of 1e33 it drew exactly 0: one sum over all steps had no digits left for the others."""
    rng = np.random.default_rng(2)
    steps, values = np.cumsum(rng.integers(1, 4, 700)), rng.uniform(0.5, 2, 700).astype(np.float32)
    weight = np.append(np.diff(steps), 1) if weighted else np.ones(700, int)
    values[[40, 300, 301, 650]], values[[0, 100, 320, 699]] = 1e33, [np.nan, np.inf, -np.inf, 1e-30]
    by_hand = []
    for i, step in enumerate(steps):
        inside = [j for j in range(i + 1) if steps[j] > step - window and np.isfinite(values[j])]
        mean = sum(float(values[j]) * int(weight[j]) for j in inside) / max(sum(int(weight[j]) for j in inside), 1)
        by_hand.append(mean if np.isfinite(values[i]) else np.nan)
    found = smoothing.smoothed(steps, values, window, weight if weighted else 1)
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)


def test_a_curve_is_the_mean_over_the_seeds_that_have_not_diverged():
    values = np.array([[1.0, 3.0], [2.0, np.nan], [np.nan, np.nan]])
    told = smoothing.curve(Series(np.arange(3), values, values - 0.5, values + 0.5), 1, 2)
    np.testing.assert_array_equal(told.raw, [2, 2, np.nan])
    np.testing.assert_array_equal(told.low, [1, 2, np.nan])
    np.testing.assert_array_equal(told.high, [3, 2, np.nan])
    np.testing.assert_array_equal(told.least, [0.5, 1.5, np.nan])
    np.testing.assert_array_equal(told.greatest, [3.5, 2.5, np.nan])


@pytest.mark.parametrize("smoothing", ["1", "10", "200"])
@pytest.mark.parametrize("kind", [Scored, "Long"])
def test_the_mean_line_lies_in_its_band_over_a_raw_ghost(trace, smoothing, kind):
    falling = np.geomspace(2, 0.01, 400)[:, None] * np.array([1, 1.05])  # a mean of the last steps lags behind
    falling[300:, 1] = np.nan
    many = (Long if kind == "Long" else kind)(EXPERIMENT, {("loss", arm): falling.astype(np.float32) for arm in (0, 1)})
    low, high, *ghost, line = figures.draw("loss", many, {"smoothing": smoothing, "splits": "batch"}).data[:4]
    if smoothing == "1" and kind is Scored:
        assert ghost == [ghost[0]] and ghost[0].name, "raw values need no ghost"
        line, ghost = ghost[0], []
    assert (low.y <= line.y + 1e-6).all() and (line.y <= high.y + 1e-6).all()
    assert len(ghost) in (0, 1) and all(one.opacity < 1 for one in ghost)


def test_the_band_is_smoothed_seed_by_seed(trace):
    low, high = (line for line in figures.draw("loss", trace, {"splits": "batch", "smoothing": "10"}).data[:2])
    by_hand = [[trace.values["loss", 0][max(0, t - 9) : t + 1, seed].mean() for seed in (0, 1)] for t in range(N)]
    np.testing.assert_allclose(low.y, np.min(by_hand, 1), rtol=1e-5)
    np.testing.assert_allclose(high.y, np.max(by_hand, 1), rtol=1e-5)
    ghost = figures.draw("loss", trace, {"splits": "batch", "smoothing": "10"}).data[2]
    np.testing.assert_allclose(ghost.y, trace.values["loss", 0].mean(1), rtol=1e-6)


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_the_lines_are_what_was_recorded(trace, quantity):
    lines = drawn(trace, quantity, smoothing="1", splits="batch+train+test", statistics="population")
    for arm, label in enumerate(("none", "&lt;b&gt;BN&lt;/b&gt;")):
        line = lines[f"{label}: mini-batch"]
        np.testing.assert_allclose(line.y, trace.values[quantity, arm].mean(1), rtol=1e-6)
        assert (line.line.color, line.line.dash) == (style.color(arm), style.dash(arm))
        for split in ("train", "test"):
            kind = ("none", "population")[arm]
            marks = lines[f"{label}: {split}" + (", population statistics" if arm else "")]
            _, losses, accuracies = trace.scored[arm, split, kind]
            np.testing.assert_allclose(marks.y, (losses if quantity == "loss" else accuracies).mean(1), rtol=1e-6)
            np.testing.assert_array_equal(marks.x, [0, 20, 40])
    assert len(lines) == 6


def test_the_band_spans_the_seeds(trace):
    low, high = (line for line in figures.draw("loss", trace, {"splits": "batch", "smoothing": "1"}).data[:2])
    np.testing.assert_allclose(low.y, trace.values["loss", 0].min(1), rtol=1e-6)
    np.testing.assert_allclose(high.y, trace.values["loss", 0].max(1), rtol=1e-6)


def test_what_differs_in_alpha_alone_or_in_the_size_of_a_step_is_said():
    bn = {"norm": "batch", "rescale": "fixed"}
    arms = [("none", {}), ("a", bn), ("b", bn | {"alpha": 0.5}), ("frozen", bn | {"statistics": "moving"})]

    def told(labels, splits=("batch", "test"), **more):
        chosen = [Arm(label=label, changes=changes | more.get(label, {})) for label, changes in arms if label in labels]
        return curves.unlike(KnownTrace(Experiment(settings=EXPERIMENT.settings, arms=chosen), {}), splits)

    same = "Arms that differ in α alone have the same mini-batch line: α plays no role in training."
    assert told(["a", "b"]) == [same] and told(["none", "a", "frozen"]) == told(["a", "b"], ["test"]) == []
    frozen = {"statistics": "moving"}
    assert told(["a", "b"], a=frozen, b=frozen) == [], "there it does"
    sizes = "A step uses K examples: 4 or {}, depending on the arm."
    assert told(["none", "a"], a={"batch_size": 4}, none={"batch_size": 1_000}) == [sizes.format("1,000")]
    assert told(["a", "b"], a={"batch_size": 4}) == [sizes.format("128")]


def test_chance_is_guessing(trace):
    assert losses.chance(trace, "loss") == [(pytest.approx(log(10)), "chance, ln 10")]
    assert losses.chance(trace, "accuracy") == [(pytest.approx(0.1), "chance, 1/10")]
    regression = KnownTrace(Experiment(settings=Settings(data="diabetes")))
    assert losses.chance(regression, "loss") == [(1.0, "predicting the mean")]


def marks(figure):
    return [shape for shape in figure.layout.shapes if "diverged" in (shape.label.text or "")]


@pytest.mark.parametrize("x", ["linear", "log"])
def test_a_divergence_is_marked_where_it_began(trace, x):
    trace.diverged = {(1, 5): (17, 2), (1, 3): (19, 1)}
    figure = figures.draw("loss", trace, {"x": x})
    (mark,) = marks(figure)
    assert mark.label.text == "&lt;b&gt;BN&lt;/b&gt; diverged at step 17 (layer 2)"
    assert (mark.x0, mark.x1, mark.xref, mark.yref) == (17, 17, "x", "y domain")  # shapes take steps on both axes
    assert not [a for a in figure.layout.annotations if "diverged" in a.text]  # annotations would take log10 of them


def test_of_seeds_that_diverged_at_one_step_every_layer_is_named(trace):
    trace.diverged = {(1, 5): (17, 2), (1, 3): (17, 1)}
    (mark,) = marks(figures.draw("loss", trace, {}))
    assert mark.label.text.endswith(" diverged at step 17 (layers 1 and 2)")
    del trace.diverged[1, 3]
    drawn = figures.draw("loss", trace, {})
    assert marks(drawn)[0].label.text.endswith(" diverged at step 17 (layer 2; 1 of 2 seeds)")
    assert "Means over 2 seeds, where some have diverged over the others; " in drawn.layout.meta["note"]


def test_the_words_of_two_divergences_stand_apart_and_step_0_has_a_place_on_a_logarithmic_axis(trace):
    """They overlapped on a telephone, where a twentieth of a plot's height is less than a line of words."""
    trace.diverged = {(0, 3): (0, 1), (1, 3): (0, 0)}
    one, two = marks(figures.draw("loss", trace, {"x": "log"}))
    assert one.xref == two.xref == "x domain" and one.x0 == two.x0 == 0
    assert one.y1 == two.y1, "lines of words apart, however high the plot is"
    assert [mark.label.text.index(name) for mark, name in ((one, "none"), (two, "&lt;"))] == [0, len("&nbsp;<br>")]
    assert two.label.text.endswith("(the readout; 1 of 2 seeds)")


def test_a_line_ends_where_its_network_diverged(trace):
    trace.values["loss", 0][12:] = np.nan
    line = drawn(trace, splits="batch", smoothing="10")["none: mini-batch"]
    np.testing.assert_array_equal(np.isfinite(line.y), np.arange(N) < 12)


def test_arms_with_classes_and_with_values_are_told_apart():
    datas = "wine", "diabetes", "digits", "moons"
    arms = tuple(Arm(label=name, changes={"data": name}) for name in datas)
    experiment = Experiment(settings=Settings(data="diabetes", depth=2, width=4, steps=N, batch_size=16), arms=arms)
    values = {("loss", arm): np.full((N, 1), 1 + arm, np.float32) for arm in range(4)}
    values |= {("accuracy", arm): np.full((N, 1), 0.5, np.float32) for arm in (0, 2, 3)}
    mixed = Scored(experiment, values)
    found = [
        (log(2), "chance, ln 2"),
        (1.0, "predicting the mean"),
        (entropy(np.bincount(data.split("wine", True)[0].y)), "guessing by frequency"),
        (log(10), "chance, ln 10"),
    ]
    assert losses.chance(mixed, "loss") == [(pytest.approx(value), name) for value, name in found]
    assert [name for _, name in losses.chance(mixed, "accuracy")] == [
        "chance, 1/10",
        "the most frequent class",
        "chance, 1/2",
    ]
    figure = figures.draw("loss", mixed, {})
    assert figure.layout.yaxis.title.text == "cross-entropy E (nats) or mean squared error"
    nats = {line.name.split(":")[0]: "nats" in line.hovertemplate for line in figure.data if line.hovertemplate}
    assert nats == {"wine": True, "diabetes": False, "digits": True, "moons": True}
    places = [shape.label.textposition for shape in figure.layout.shapes]
    assert places == ["end", "middle", "start", "end"], "words of neighboring lines stand apart"
    accuracy = figures.draw("accuracy", mixed, {})
    assert {line.name.split(":")[0] for line in accuracy.data if line.name} == {"wine", "digits", "moons"}
    assert max(shape.y0 for shape in accuracy.layout.shapes) == 0.5


@pytest.mark.parametrize("splits", ["batch+test", "batch+train+test", "batch", "train+test"])
def test_the_note_speaks_of_what_is_drawn_only(trace, splits):
    figure = figures.draw("loss", trace, {"splits": splits})
    note = figure.layout.meta["note"]
    modes = {line.name.split(": ")[1].split(",")[0]: line for line in figure.data if line.name and line.line.width}
    assert ("Lines: mini-batch" in note) == ("bands" in note) == ("mini-batch" in modes)
    assert ("Marks: the whole set" in note) == ("bars" in note) == bool({"train", "test"} & set(modes))
    for line in modes.values():
        assert ("markers" in line.mode) == (line.error_y.array is not None)


def test_what_cannot_be_drawn_is_a_sentence():
    nothing = KnownTrace(EXPERIMENT)
    assert figures.draw("loss", nothing, {}).layout.annotations[0].text == "No step is recorded yet."
    regression = KnownTrace(Experiment(settings=Settings(data="diabetes")))
    assert "has no accuracy" in figures.draw("accuracy", regression, {}).layout.annotations[0].text


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_the_bars_of_a_score_reach_from_the_least_to_the_greatest_seed(quantity):
    values = np.array([[0.1, 0.2, 0.9], [0.8, 0.7, 0.3]])  # the mean is not in the middle
    trace = Scored(EXPERIMENT.model_copy(update={"seeds": (3, 5, 7), "arms": EXPERIMENT.arms[:1]}))
    trace.step, trace.values = N, {("loss", 0): np.ones((N, 3)), ("accuracy", 0): np.ones((N, 3))}
    trace.scored = {(0, "test", "none"): (np.array([0, 20]), values, values)}
    bars = drawn(trace, quantity, splits="train+test")["none: test"]
    np.testing.assert_allclose(bars.y + bars.error_y.array, values.max(1))
    np.testing.assert_allclose(bars.y - bars.error_y.arrayminus, values.min(1))


def test_a_score_that_is_infinite_with_one_seed_has_no_bar_and_warns_nobody(trace):
    _, losses, _ = trace.scored[0, "test", "none"]
    losses[1, 0] = np.inf
    bar = drawn(trace, splits="train+test")["none: test"]
    assert bar.y[1] == np.inf and np.isfinite(bar.error_y.array).tolist() == [True, False, True]
