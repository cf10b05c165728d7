"""The axes of loss and accuracy: what lies on them, what above, and where their ticks are."""

from math import log

import numpy as np
import pytest
from known_curves import EXPERIMENT, Scored, drawn, scored
from known_trace import KnownTrace

from bnlab import Arm, Experiment, figures
from bnlab.figures import axes, curves, lasting, style


@pytest.fixture
def trace():
    return scored()


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


@pytest.mark.parametrize("diverged", [{}, {(0, 3): (390, 1)}])
def test_networks_that_come_back_from_afar_do_not_flatten_the_others_beside_one_that_diverged_either(trace, diverged):
    """Of a learning rate far too large one seed may diverge, and others return from 1e10 after the first scoring."""
    values = {("loss", arm): np.full((400, 2), 1.5, np.float32) for arm in (0, 1)}
    values["loss", 1][1:30] = 1e10
    long = Scored(EXPERIMENT, values, diverged=diverged)
    long.scored = trace.scored
    long.scored[1, "test", "moving"][1][1] = 5e10
    figure = figures.draw("loss", long, {})
    assert log(10) < figure.layout.yaxis.range[1] < 10
    assert "a logarithmic one shows" in figure.layout.meta["note"]
    assert "▲" in figure.layout.meta["note"]


def test_a_spike_of_a_network_that_lasts_lies_above_the_axis_and_is_told(trace):
    many = {("loss", arm): np.full((400, 2), 2.0 - arm, np.float32) for arm in (0, 1)}
    long = Scored(EXPERIMENT, many)
    assert figures.draw("loss", long, {}).layout.yaxis.range is None, "nothing stands out"
    many["loss", 1][123, 1] = 57.25
    spiked = figures.draw("loss", long, {})
    assert log(10) < spiked.layout.yaxis.range[1] < 3
    told = "The highest point, {} nats of <b>BN</b> at step 123, lies above the axis"
    assert told.format("29.1") in spiked.layout.meta["note"], "of two seeds, one of which is 1"
    raw = figures.draw("loss", long, {"smoothing": "1"})
    assert told.format("57.2") in raw.layout.meta["note"]
    for figure, top in ((spiked, 29.125), (raw, 57.25)):  # what is told is drawn
        assert max(np.nanmax(np.asarray(line.y, float)) for line in figure.data) == pytest.approx(top)
    assert figures.draw("loss", long, {"y": "log"}).layout.yaxis.range is None
    many["loss", 0][:] = 30  # a whole network is no spike
    assert figures.draw("loss", long, {}).layout.yaxis.range is None
    many["loss", 0][:] = np.geomspace(8, 0.01, 400)[:, None]  # nor is how it began
    assert 8 < figures.draw("loss", long, {"smoothing": "1"}).layout.yaxis.range[1] < 10


def test_marks_far_above_the_mini_batches_do_not_press_them_flat_and_point_upwards(trace):
    """Every test score of a run may be: moving averages are off for long in a deep network."""
    values = {("loss", arm): np.full((400, 2), 1.5 + arm, np.float32) for arm in (0, 1)}
    long = Scored(EXPERIMENT, values)
    long.scored = trace.scored
    long.scored[1, "test", "moving"][1][:] = np.array([[9e4], [8.0], [5e3]])
    figure = figures.draw("loss", long, {})
    assert 8 < figure.layout.yaxis.range[1] < 9, "up to four times the chance of 2.3 marks are on the axis"
    (pointing,) = [line for line in figure.data if line.marker.symbol == "triangle-up"]
    assert list(pointing.x) == [0, 40] and pointing.yaxis == "y2" and figure.layout.yaxis2.overlaying == "y"
    marks = next(line for line in figure.data if line.name == pointing.name and line is not pointing)
    assert marks.legendgroup == pointing.legendgroup and marks.line.color == pointing.marker.color
    assert float(np.max(marks.y)) == pytest.approx(9e4), "what lies above is there to zoom to"
    assert "▲: a mark above the axis." in figure.layout.meta["note"]
    alone = figures.draw("loss", long, {"splits": "train+test"})
    assert alone.layout.yaxis.range[1] > 5e3, "where there are no lines the marks rule"
    assert "▲" not in figures.draw("loss", long, {"y": "log"}).layout.meta["note"]
    long.diverged = {(0, 3): (300, 1)}
    assert "▲" in figures.draw("loss", long, {}).layout.meta["note"], "also where networks diverged"


@pytest.mark.parametrize("diverged", [{}, {(0, 3): (19, 1), (0, 5): (19, 1)}])
def test_moving_averages_into_which_nothing_has_come_do_not_rule_the_axis(trace, diverged):
    """With 0 and 1 in place of the statistics a deep network of large weights has any loss."""
    trace.diverged = diverged
    trace.scored[1, "test", "moving"][1][0] = 1e10
    figure = figures.draw("loss", trace, {})
    assert log(10) < figure.layout.yaxis.range[1] < 3
    told = "for the networks that did not diverge" if diverged else "1×10¹⁰ nats of <b>BN</b> at step 0, lies above"
    assert told in figure.layout.meta["note"]


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


def test_a_single_step_and_powers_of_ten_can_be_read(trace):
    short = Scored(EXPERIMENT, {key: v[:1] for key, v in trace.values.items()})
    assert drawn(short, splits="batch")["none: mini-batch"].mode == "lines+markers"
    assert style.LOOK.layout.yaxis.exponentformat == style.LOOK.layout.xaxis.exponentformat == "power"


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


@pytest.mark.parametrize("y", ["linear", "log"])
def test_the_name_of_chance_is_below_its_line_where_that_is_the_top_of_the_chart(trace, y):
    """Plotly leaves no room above a line for a name, which was cut off."""
    chart = lambda: figures.draw("loss", trace, {"y": y}).layout  # noqa: E731
    (line,) = chart().shapes
    assert (line.y0, line.label.text, line.label.yanchor) == (pytest.approx(log(10)), "chance, ln 10", "top")
    trace.values["loss", 0][0] = 1.4 * log(10)
    assert chart().shapes[0].label.yanchor == "bottom"
    trace.values["loss", 0][:] = 0.9 * log(10)
    trace.diverged = {(1, seed): (30, 1) for seed in (3, 5)}
    assert chart().shapes[-1].label.yanchor == ("bottom" if chart().yaxis.range else "top"), "a range leaves room"
    assert figures.draw("accuracy", trace, {"y": y}).layout.shapes[-1].label.yanchor == "bottom"


def test_a_spike_downwards_does_not_rule_an_axis_either(trace):
    trace.diverged = {(1, 3): (19, 1)}
    values = np.linspace(1, 2, 200)[:, None]
    low, high = lasting.bounds(trace, [(0, values), (1, values)])
    values[100] = -1e6
    spiked = lasting.bounds(trace, [(0, values), (1, values)])
    assert -1 < spiked[0] <= low and spiked[1] == high
    values[100], values[0] = 1.5, -1e6
    assert lasting.bounds(trace, [(0, values), (1, values)])[0] == -1e6, "how it began is shown"


@pytest.mark.parametrize("y", ["linear", "log"])
def test_an_accuracy_is_written_in_percent_as_on_the_cards(y):
    figure = figures.draw("accuracy", scored(), {"y": y})
    assert figure.layout.yaxis.tickformat == axes.SHARE
    assert all(text.endswith("%") for text in figure.layout.yaxis.ticktext or [])
    assert y == "linear" or figure.layout.yaxis.ticktext
    assert all("%{y:.1%}" in line.hovertemplate for line in figure.data if line.hovertemplate)
    assert figures.draw("loss", scored(), {"y": y}).layout.yaxis.tickformat != axes.SHARE


def test_arms_of_which_most_networks_diverged_are_named_and_not_those_of_which_all_did():
    arms = tuple(Arm(label=label, changes={"learning_rate": 0.1 + i}) for i, label in enumerate("abcd"))
    gone = [(1, 0), (2, 0), (2, 1), *((3, seed) for seed in (0, 1, 2))]  # one, two and three of three seeds
    trace = KnownTrace(Experiment(arms=arms, seeds=(0, 1, 2)), diverged=dict.fromkeys(gone, (5, 1)))
    assert lasting.ruling(trace, range(4)) == [0, 1]
    words = " The axis is chosen for the networks that did not diverge, without those of arms of which most did: c."
    assert lasting.ruled(trace, range(4)) == words
    assert lasting.ruled(trace, [0, 1, 3]) == words.partition(",")[0] + "."
    assert lasting.ruled(trace, [3]) == " The axis is chosen for the start, before the networks diverged."
    left = lasting.lost(trace, 5)
    assert left[3] == "d diverged at step 5 and is left out."
    assert left[2] == "c diverged at step 5 with 2 of 3 seeds, which are left out." and not lasting.lost(trace, 4)
