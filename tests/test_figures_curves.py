"""The figures of loss and accuracy show the numbers that were recorded."""

from math import log

import numpy as np
import pytest
from known_trace import KnownTrace

from bnlab import figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import curves, style
from bnlab.reading import Series

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
        by_hand.append(np.mean(last) if last else np.nan)
    found = curves.smoothed(steps, values, window)
    np.testing.assert_allclose(found, values if window == 1 else by_hand, rtol=1e-9)


def test_a_curve_is_the_mean_over_the_seeds_that_have_not_diverged():
    values = np.array([[1.0, 3.0], [2.0, np.nan], [np.nan, np.nan]])
    told = curves.curve(Series(np.arange(3), values, values - 0.5, values + 0.5), 1)
    np.testing.assert_array_equal(told.raw, [2, 2, np.nan])
    np.testing.assert_array_equal(told.low, [0.5, 1.5, np.nan])
    np.testing.assert_array_equal(told.high, [3.5, 2.5, np.nan])


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
    low, high = (line for line in figures.draw("loss", trace, {"splits": "batch"}).data[:2])
    np.testing.assert_allclose(low.y, trace.values["loss", 0].min(1), rtol=1e-6)
    np.testing.assert_allclose(high.y, trace.values["loss", 0].max(1), rtol=1e-6)


def test_chance_is_guessing(trace):
    assert curves.chance(trace, "loss") == [(pytest.approx(log(10)), "chance, ln 10")]
    assert curves.chance(trace, "accuracy") == [(pytest.approx(0.1), "chance, 1/10")]
    regression = KnownTrace(Experiment(settings=Settings(data="diabetes")))
    assert curves.chance(regression, "loss") == [(1.0, "predicting the mean")]


def test_a_divergence_is_marked_where_it_began(trace):
    trace.diverged = {(1, 5): (17, 2), (1, 3): (19, 1)}
    (words,) = (a.text for a in figures.draw("loss", trace, {}).layout.annotations if "diverged" in a.text)
    assert words == "&lt;b&gt;BN&lt;/b&gt; diverged at step 17 (layer 2)"


def test_what_cannot_be_drawn_is_a_sentence():
    nothing = KnownTrace(EXPERIMENT)
    assert figures.draw("loss", nothing, {}).layout.annotations[0].text == "No step is recorded yet."
    regression = KnownTrace(Experiment(settings=Settings(data="diabetes")))
    assert "has no accuracy" in figures.draw("accuracy", regression, {}).layout.annotations[0].text
