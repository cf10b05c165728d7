"""A point of a long run's loss stands for several steps: which, and how they are drawn on either axis of steps."""

import numpy as np
import pytest
from known_curves import EXPERIMENT, Long, N, Scored, drawn, scored
from known_rows import keep, small, written

from bnlab import figures
from bnlab.figures import curves, smoothing
from bnlab.reading import Series
from bnlab.store import RunStore


@pytest.fixture
def trace():
    return scored()


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
    assert line.hovertemplate.startswith("none: mini-batch, to step %{customdata:,d}: %{y")
    assert line.x[0] == (x == "log") and line.customdata[-1] == 2999
    np.testing.assert_array_equal(line.x[1:], line.customdata[:-1] + 1)
    np.testing.assert_allclose(line.y, (line.x + line.customdata) / 2)  # the mean of the numbers of its steps
    with monkeypatch.context() as done:  # a run that is done has a scoring after its last update
        done.setattr(type(recorded), "step", 3000)
        assert drawn(recorded, x=x, smoothing="1", splits="batch")["none: mini-batch"].customdata[-1] == 2999
    few = Scored(EXPERIMENT, {("loss", arm): np.ones((N, 2), np.float32) for arm in (0, 1)})
    assert "customdata" not in drawn(few, x=x, splits="batch")["none: mini-batch"].hovertemplate


def test_in_numbers_a_point_is_told_with_all_its_steps_and_of_each_step_the_least_and_greatest(recorded, monkeypatch):
    """The mean of the first steps was told as the value at step 0, and the greatest mean as the greatest value."""
    monkeypatch.setattr(curves, "POINTS", 400)
    figure = figures.draw("loss", recorded, {"smoothing": "1", "splits": "batch"})
    line = next(line for line in figure.data if line.name == "none: mini-batch")
    every, means = figure.layout.meta["told"][:2]
    first, last = (f"{figures.style.amount(line.y[i])} at {line.x[i]:,}–{line.customdata[i]:,}" for i in (0, -1))
    assert means.startswith("none: mini-batch, means.") and f": from {first} to {last}; least {first}, " in means
    assert every.startswith("none: mini-batch, every step") and every.endswith(
        f": least 0 near 0, greatest {figures.style.amount(2999)} near {line.x[-1]:,}."
    )


def test_every_decade_of_a_logarithmic_axis_has_its_points(recorded):
    figure = figures.draw("loss", recorded, {"x": "log", "smoothing": "1", "splits": "batch"})
    line = next(line for line in figure.data if line.name == "none: mini-batch")
    assert [*line.x[:100]] == [*range(1, 101)], "the beginning step by step"
    assert (np.diff(np.log10(line.x[100:])) < 0.02).all() and len(line.x) < 1200
    note = figure.layout.meta["note"]
    assert f"the mean of up to {np.diff(line.x).max()} steps, drawn at the first of them" in note
    assert "no place for step 0, which is left out." in note


def test_a_bucket_from_step_0_on_has_a_place_on_a_logarithmic_axis(trace):
    figure = figures.draw("loss", Long(EXPERIMENT, trace.values), {"x": "log", "splits": "batch", "smoothing": "1"})
    line = next(line for line in figure.data if line.name == "none: mini-batch" and line.line.width)
    assert [*line.x] == [1, 16]
    np.testing.assert_allclose(line.y[0], trace.values["loss", 0][:16].mean(), rtol=1e-6)
    assert figure.layout.meta["note"].endswith("The lines' first point, of steps 0 to 15, is drawn at step 1.")


@pytest.mark.parametrize(
    ("smoothing", "words"),
    [
        ("10", "values. A point is the mean of"),
        ("1", "values. A point is the mean of"),
        ("50", "values, mean of the last 64 steps. A point stands for"),
    ],
)
def test_the_note_says_what_a_point_stands_for(trace, smoothing, words):
    one = {key: v[:, :1] for key, v in trace.values.items()}
    long = Long(EXPERIMENT.model_copy(update={"seeds": (3,)}), one)
    figure = figures.draw("loss", long, {"smoothing": smoothing, "splits": "batch"})
    words += " 16 steps, drawn at the first of them. The pale line spans their least and greatest."
    assert words in figure.layout.meta["note"]
    ghost, line = figure.data[:2]
    np.testing.assert_allclose(ghost.y[:2], [one["loss", 0][:16].min(), one["loss", 0][:16].max()], rtol=1e-6)
    np.testing.assert_allclose(line.y[0], one["loss", 0][:16].mean(), rtol=1e-6)
    exact = figures.draw("loss", trace, {"smoothing": "10"}).layout.meta["note"]
    assert "mean of the last 10 steps" in exact and "pale" not in exact


def test_the_control_says_that_a_window_is_of_whole_points():
    """Ten steps are 12 where a point stands for 4, and 16 where it stands for 8: only the note below said so."""
    (asked,) = (option for option in figures.FIGURES["loss"].options if option.name == "smoothing")
    assert "whole points" in asked.help and "the note below the chart says how many steps" in asked.help


def test_smoothing_weighs_a_point_with_its_steps():
    values = np.arange(1, 7.0)[:, None]  # steps 0 to 3 one by one, then 4 to 7 and 8 to 9
    told = smoothing.curve(Series(np.array([0, 1, 2, 3, 4, 8]), values, values - 1, values + 1), 100, 9)
    assert told.smooth[-1] == pytest.approx((1 + 2 + 3 + 4 + 4 * 5 + 2 * 6) / 10)
    steps = np.arange(0, 160, 16)  # 50 steps are not whole points
    assert smoothing.smoothed(steps, steps, 50)[-1] == steps[-(smoothing.taken(50, 16) // 16) :].mean()
