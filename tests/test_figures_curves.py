"""The figures of loss and accuracy show the numbers that were recorded."""

from math import log

import numpy as np
import plotly.graph_objects as go
import pytest
from known_rows import keep, small, written
from known_trace import KnownTrace

from bnlab import figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import curves, style
from bnlab.reading import Series
from bnlab.store import RunStore

N = 40
ARMS = (Arm(label="none"), Arm(label="<b>BN</b>", changes={"norm": "batch"}))
EXPERIMENT = Experiment(settings=Settings(depth=2, width=4, steps=N), arms=ARMS, seeds=(3, 5))


class Scored(KnownTrace):
    """A known trace with scores: (arm, split, statistics) -> (steps, losses [n, seeds], accuracies [n, seeds])."""

    scored: dict = {}  # noqa: RUF012

    def scores(self, arm, split, statistics, points=None):
        return self.scored.get((arm, split, statistics), (np.array([], int), np.empty((0, 2)), np.empty((0, 2))))


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    values = {(q, arm): rng.uniform(0.1, 1, (N, 2)).astype(np.float32) for q in ("loss", "accuracy") for arm in (0, 1)}
    trace = Scored(EXPERIMENT, values)
    steps = np.array([0, 20, 40])
    trace.scored = {
        (arm, split, kind): (steps, rng.uniform(0.1, 1, (3, 2)), rng.uniform(size=(3, 2)))
        for split in ("train", "test")
        for arm, kind in ((0, "none"), (1, "moving"), (1, "population"), (1, "batch"))
    }
    return trace


def drawn(trace, name="loss", **query):
    return {line.name: line for line in figures.draw(name, trace, query).data if line.name and line.line.width != 0}


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_smoothing_is_the_mean_over_the_last_steps(window):
    rng = np.random.default_rng(1)
    steps, values = np.sort(rng.choice(200, 60, replace=False)), rng.normal(size=60)
    values[5] = np.nan
    by_hand = []
    for i, step in enumerate(steps):
        last = [v for s, v in zip(steps[: i + 1], values, strict=False) if s > step - window and np.isfinite(v)]
        by_hand.append(np.nan if np.isnan(values[i]) else np.mean(last))
    found = curves.smoothed(steps, values, window)
    np.testing.assert_allclose(found, values if window == 1 else by_hand, rtol=1e-9)


def test_a_curve_is_the_mean_over_the_seeds_that_have_not_diverged():
    values = np.array([[1.0, 3.0], [2.0, np.nan], [np.nan, np.nan]])
    told = curves.curve(Series(np.arange(3), values, values - 0.5, values + 0.5), 1, 2)
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


def test_chance_is_guessing(trace):
    assert curves.chance(trace, "loss") == [(pytest.approx(log(10)), "chance, ln 10")]
    assert curves.chance(trace, "accuracy") == [(pytest.approx(0.1), "chance, 1/10")]
    regression = KnownTrace(Experiment(settings=Settings(data="diabetes")))
    assert curves.chance(regression, "loss") == [(1.0, "predicting the mean")]


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


def test_the_words_of_two_divergences_stand_apart_and_step_0_has_a_place_on_a_logarithmic_axis(trace):
    trace.diverged = {(0, 3): (0, 1), (1, 3): (0, 0)}
    one, two = marks(figures.draw("loss", trace, {"x": "log"}))
    assert one.xref == two.xref == "x domain" and one.x0 == two.x0 == 0
    assert one.y1 > two.y1
    assert two.label.text.endswith("(the readout)")


def test_an_arm_that_diverges_does_not_flatten_the_others(trace):
    trace.diverged = {(1, 3): (19, 1)}
    trace.values["loss", 1][18, 0] = 1e20
    figure = figures.draw("loss", trace, {})
    low, high = figure.layout.yaxis.range
    assert low < 0 and log(10) < high < 2 * log(10)
    assert "The axis is chosen for the networks that did not diverge; a" in figure.layout.meta["note"]
    assert figures.draw("loss", trace, {"y": "log"}).layout.yaxis.range is None
    trace.scored[0, "test", "none"][1][:] = 7  # overfitted
    trace.values["loss", 0][5] = np.inf
    assert 7 < figures.draw("loss", trace, {}).layout.yaxis.range[1] < 10
    trace.diverged |= {(0, 3): (19, 1)}
    assert figures.draw("loss", trace, {}).layout.yaxis.range[1] < 10, "one network of each arm lasts"
    trace.values["loss", 1][18, 1] = 1e9
    assert figures.draw("loss", trace, {}).layout.yaxis.range[1] < 10, "a spike of a network that comes back"
    trace.diverged |= {(0, 5): (19, 1), (1, 5): (19, 1)}
    figure = figures.draw("loss", trace, {})
    assert log(10) < figure.layout.yaxis.range[1] < 10, "how they began"
    assert "The axis is chosen for the start" in figure.layout.meta["note"]


@pytest.mark.parametrize("smoothing", ["1", "10"])
def test_a_logarithmic_axis_leaves_step_0_out_and_says_so(trace, smoothing):
    figure = figures.draw("loss", trace, {"x": "log", "smoothing": smoothing})
    assert all((np.asarray(line.x) > 0).all() and len(line.x) == len(line.y) for line in figure.data)
    marks = next(line for line in figure.data if line.name == "none: test")
    assert list(marks.x) == [20, 40] and len(marks.error_y.array) == 2
    assert "no place for step 0" in figure.layout.meta["note"]
    assert "no place for step 0" not in figures.draw("loss", trace, {}).layout.meta["note"]


def test_a_logarithmic_axis_with_nothing_but_step_0_says_so(trace):
    one = Scored(EXPERIMENT, {key: v[:1] for key, v in trace.values.items()}, diverged={(1, 5): (0, 2)})
    figure = figures.draw("loss", one, {"x": "log"})
    assert not figure.data and not figure.layout.xaxis.visible and figure.layout.height == curves.HEIGHT
    assert "Nothing after step 0 is recorded here yet" in figure.layout.meta["said"]
    assert "<b>BN</b> diverged at step 0 (1 of 2 seeds)." in figure.layout.meta["said"]
    unscored = Scored(EXPERIMENT, one.values)
    assert (
        "Nothing after step 0"
        in figures.draw("loss", unscored, {"x": "log", "splits": "train+test"}).layout.meta["said"]
    )
    two = Scored(EXPERIMENT, {key: v[:2] for key, v in trace.values.items()})
    assert figures.draw("loss", two, {"x": "log", "splits": "batch"}).data and figures.draw("loss", one, {}).data


def test_a_wide_logarithmic_axis_has_ticks_at_powers_of_ten_only(trace):
    trace.values["loss", 0][5] = 1e9
    assert set(figures.draw("loss", trace, {"y": "log"}).layout.yaxis.tickvals) <= {10.0**k for k in range(-12, 13)}


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
        (log(3), "chance, ln 3"),
        (log(10), "chance, ln 10"),
    ]
    assert curves.chance(mixed, "loss") == [(pytest.approx(value), name) for value, name in found]
    assert [name for _, name in curves.chance(mixed, "accuracy")] == ["chance, 1/10", "chance, 1/3", "chance, 1/2"]
    figure = figures.draw("loss", mixed, {})
    assert figure.layout.yaxis.title.text == "cross-entropy E (nats) or mean squared error"
    nats = {line.name.split(":")[0]: "nats" in line.hovertemplate for line in figure.data if line.hovertemplate}
    assert nats == {"wine": True, "diabetes": False, "digits": True, "moons": True}
    places = [shape.label.textposition for shape in figure.layout.shapes]
    assert places == ["end", "middle", "start", "end"], "words of neighboring lines stand apart"
    accuracy = figures.draw("accuracy", mixed, {})
    assert {line.name.split(":")[0] for line in accuracy.data if line.name} == {"wine", "digits", "moons"}
    assert max(shape.y0 for shape in accuracy.layout.shapes) == 0.5


class Long(Scored):
    """A known trace of which buckets of 16 steps are left."""

    def read(self, quantity, arm, *, points=1000, **window):
        rows = self.values[quantity, arm]
        rows = rows[: len(rows) // 16 * 16].reshape(-1, 16, rows.shape[1])
        return Series(16 * np.arange(len(rows)), rows.mean(1), rows.min(1), rows.max(1))


@pytest.mark.parametrize(
    ("smoothing", "words"),
    [
        ("10", "values. A point is the mean of"),
        ("1", "values. A point is the mean of"),
        ("50", "values, mean of the last 50 steps. A point stands for"),
    ],
)
def test_the_note_says_what_a_point_stands_for(trace, smoothing, words):
    one = {key: v[:, :1] for key, v in trace.values.items()}
    long = Long(EXPERIMENT.model_copy(update={"seeds": (3,)}), one)
    figure = figures.draw("loss", long, {"smoothing": smoothing, "splits": "batch"})
    words += " 16 steps, from the one at which it is drawn on. The pale line spans their least and greatest."
    assert words in figure.layout.meta["note"]
    ghost, line = figure.data[:2]
    np.testing.assert_allclose(ghost.y[:2], [one["loss", 0][:16].min(), one["loss", 0][:16].max()], rtol=1e-6)
    np.testing.assert_allclose(line.y[0], one["loss", 0][:16].mean(), rtol=1e-6)
    exact = figures.draw("loss", trace, {"smoothing": "10"}).layout.meta["note"]
    assert "mean of the last 10 steps" in exact and "pale" not in exact


@pytest.mark.parametrize("splits", ["batch+test", "batch+train+test", "batch", "train+test"])
def test_the_note_speaks_of_what_is_drawn_only(trace, splits):
    figure = figures.draw("loss", trace, {"splits": splits})
    note = figure.layout.meta["note"]
    modes = {line.name.split(": ")[1].split(",")[0]: line for line in figure.data if line.name and line.line.width}
    assert ("Lines: mini-batch" in note) == ("bands" in note) == ("mini-batch" in modes)
    assert ("Marks: the whole set" in note) == ("bars" in note) == bool({"train", "test"} & set(modes))
    for line in modes.values():
        assert ("markers" in line.mode) == (line.error_y.array is not None)


def test_a_single_step_and_powers_of_ten_can_be_read(trace):
    short = Scored(EXPERIMENT, {key: v[:1] for key, v in trace.values.items()})
    assert drawn(short, splits="batch")["none: mini-batch"].mode == "lines+markers"
    assert style.LOOK.layout.yaxis.exponentformat == style.LOOK.layout.xaxis.exponentformat == "power"


def test_what_cannot_be_drawn_is_a_sentence():
    nothing = KnownTrace(EXPERIMENT)
    assert figures.draw("loss", nothing, {}).layout.annotations[0].text == "No step is recorded yet."
    regression = KnownTrace(Experiment(settings=Settings(data="diabetes")))
    assert "has no accuracy" in figures.draw("accuracy", regression, {}).layout.annotations[0].text


def test_the_page_gets_the_words_of_an_empty_chart_as_plain_text():
    assert style.finished(go.Figure(), note="R&amp;D &lt;b&gt;.").layout.meta["note"] == "R&D <b>."
    figure = style.said("R&amp;D &lt;b&gt;:<br>nothing.")
    assert figure.layout.meta["said"] == "R&D <b>: nothing." and figure.layout.meta["note"] == ""
    assert figure.layout.annotations[0].text.startswith("R&amp;D")


def test_a_spike_of_a_network_that_lasts_lies_above_the_axis_and_is_told(trace):
    many = {("loss", arm): np.full((400, 2), 2.0 - arm, np.float32) for arm in (0, 1)}
    long = Scored(EXPERIMENT, many)
    assert figures.draw("loss", long, {}).layout.yaxis.range is None, "nothing stands out"
    many["loss", 1][123, 1] = 57.25
    spiked = figures.draw("loss", long, {})
    assert log(10) < spiked.layout.yaxis.range[1] < 3
    assert "The highest point, 57.2 nats of <b>BN</b> at step 123, lies above the axis" in spiked.layout.meta["note"]
    assert figures.draw("loss", long, {"y": "log"}).layout.yaxis.range is None
    many["loss", 0][:] = 30  # a whole network is no spike
    assert figures.draw("loss", long, {}).layout.yaxis.range is None
    many["loss", 0][:] = np.geomspace(8, 0.01, 400)[:, None]  # nor is how it began
    assert 8 < figures.draw("loss", long, {}).layout.yaxis.range[1] < 10


@pytest.mark.parametrize("x", ["linear", "log"])
@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_the_steps_of_a_short_run_are_whole_numbers(trace, n, x):
    short = Scored(EXPERIMENT, {key: v[:n] for key, v in trace.values.items()})
    axis = figures.draw("loss", short, {"x": x, "splits": "batch"}).layout.xaxis
    assert axis.dtick == 1 or x == "log"
    assert not [v for v in axis.tickvals or () if v != round(v)]
    assert figures.draw("loss", trace, {"x": "linear"}).layout.xaxis.dtick is None, "a long one chooses itself"
    if n == 1 and x == "linear":
        assert list(axis.tickvals) == [0], "there is no step -1"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of 3000 steps whose loss is the step's number: 4 steps a bucket."""
    store = RunStore(tmp_path_factory.mktemp("recorded"))
    experiment = small(steps=3000)
    rows = written(experiment, range(3000), lambda t: {"steps": np.full(4, t, np.float32)})
    yield keep(store, store.create(experiment).id, rows)
    store.close()


@pytest.mark.parametrize("x", ["linear", "log"])
@pytest.mark.parametrize("points", [4800, 400])
def test_a_point_says_up_to_which_step_it_stands(recorded, x, points, monkeypatch):
    monkeypatch.setattr(curves, "POINTS", points)
    line = drawn(recorded, x=x, smoothing="1", splits="batch")["none: mini-batch"]
    assert line.hovertemplate.endswith("<extra>none: mini-batch, to step %{customdata}</extra>")
    assert line.x[0] == (x == "log") and line.customdata[-1] == 2999
    np.testing.assert_array_equal(line.x[1:], line.customdata[:-1] + 1)
    np.testing.assert_allclose(line.y, (line.x + line.customdata) / 2)  # the mean of the numbers of its steps
    few = Scored(EXPERIMENT, {("loss", arm): np.ones((N, 2), np.float32) for arm in (0, 1)})
    assert "customdata" not in drawn(few, x=x, splits="batch")["none: mini-batch"].hovertemplate


def test_every_decade_of_a_logarithmic_axis_has_its_points(recorded):
    figure = figures.draw("loss", recorded, {"x": "log", "smoothing": "1", "splits": "batch"})
    line = next(line for line in figure.data if line.name == "none: mini-batch")
    assert [*line.x[:100]] == [*range(1, 101)], "the beginning step by step"
    assert (np.diff(np.log10(line.x[100:])) < 0.02).all() and len(line.x) < 1200
    note = figure.layout.meta["note"]
    assert f"the mean of up to {np.diff(line.x).max()} steps, from the one at which it is drawn on" in note
    assert "no place for step 0, which is left out." in note


def test_a_bucket_from_step_0_on_has_a_place_on_a_logarithmic_axis(trace):
    figure = figures.draw("loss", Long(EXPERIMENT, trace.values), {"x": "log", "splits": "batch", "smoothing": "1"})
    line = next(line for line in figure.data if line.name == "none: mini-batch" and line.line.width)
    assert [*line.x] == [1, 16]
    np.testing.assert_allclose(line.y[0], trace.values["loss", 0][:16].mean(), rtol=1e-6)
    assert figure.layout.meta["note"].endswith("The lines' first point, of steps 0 to 15, is drawn at step 1.")


def test_smoothing_weighs_a_point_with_its_steps():
    values = np.arange(1, 7.0)[:, None]  # steps 0 to 3 one by one, then 4 to 7 and 8 to 9
    told = curves.curve(Series(np.array([0, 1, 2, 3, 4, 8]), values, values - 1, values + 1), 100, 9)
    assert told.smooth[-1] == pytest.approx((1 + 2 + 3 + 4 + 4 * 5 + 2 * 6) / 10)
