"""The figure of saturation shows the shares that plain numpy finds in the recorded ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from known_trace import KnownTrace

from bnlab import figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import saturation
from bnlab.reading import Series

SEEDS, L, N = 2, 5, 300
ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}))
EXPERIMENT = Experiment(settings=Settings(depth=L, width=4, steps=N, batch_size=4), arms=ARMS, seeds=(3, 5))


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    shares = ((name, arm) for arm in range(2) for name in ("saturated", "dead"))
    return KnownTrace(EXPERIMENT, {share: rng.uniform(size=(N, SEEDS, L)).astype(np.float32) for share in shares})


def test_shares_are_means_and_extremes_over_the_seeds(trace):
    told = saturation.shares(trace, "dead", 0, 12, 3)
    raw = trace.values["dead", 0]
    np.testing.assert_allclose(told.layers, [raw[12].mean(0), raw[12].min(0), raw[12].max(0)], rtol=1e-6)
    np.testing.assert_allclose(told.layer[0], raw[told.steps, :, 2].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(told.layer[2], raw[told.steps, :, 2].max(1))
    raw[20:, 0] = np.nan
    told = saturation.shares(trace, "dead", 0, 30, 3)
    np.testing.assert_array_equal(told.layers[0], raw[30, 1])
    raw[20:] = np.nan
    assert np.isnan(saturation.shares(trace, "dead", 0, 30, 3).layers[0]).all()


def test_saturated_values_stand_beside_dead_units_and_a_step_above_the_training(trace):
    drawn = figures.draw("saturation", trace, {"step": "12", "layer": "3"})
    panels = {("saturated", 0): "x", ("dead", 0): "x2", ("saturated", 1): "x3", ("dead", 1): "x4"}
    for (name, row), panel in panels.items():
        lines = [line for line in drawn.data if line.xaxis == panel and line.hovertemplate]
        assert [line.name for line in lines] == ["none", "BN"]
        for arm, line in enumerate(lines):
            raw = trace.values[name, arm]
            x, y = (line.x, raw[line.x, :, 2]) if row else (np.arange(1, L + 1), raw[12].T)
            np.testing.assert_array_equal(line.x, x)
            np.testing.assert_allclose(line.y, y.mean(1), rtol=1e-6)
    for column, what in ((1, "saturated values"), (2, "dead units")):
        (axis,) = drawn.select_yaxes(row=1, col=column)
        assert axis.title.text == f"share of {what}"


def test_of_a_long_run_a_point_is_the_mean_of_some_steps_between_the_least_and_the_greatest(trace):
    class Long(KnownTrace):
        def read(self, quantity, arm, *, layer, stop=None, **window):
            each = self.values[quantity, arm][:stop, :, layer - 1].reshape(-1, 6, SEEDS)
            return Series(np.arange(0, 6 * len(each), 6), each.mean(1), each.min(1), each.max(1))

        def at(self, quantity, arm, step):
            return range(12, 18), self.values[quantity, arm][12:18].mean(0)

    drawn = figures.draw("saturation", Long(EXPERIMENT, trace.values), {"step": "14", "layer": "3"})
    note = drawn.layout.meta["note"]
    assert "Upper charts" in note and "a point is the mean of 6 steps" in note
    assert "Bands go from the least to the greatest of the steps and seeds." in note
    (line,) = [t for t in drawn.data if (t.name, t.xaxis) == ("BN", "x4") and t.hovertemplate]
    each = trace.values["dead", 1][:, :, 2].reshape(-1, 6 * SEEDS)
    np.testing.assert_allclose(line.y, each.mean(1), rtol=1e-6)
    told = np.stack([np.arange(5, N, 6), each.min(1), each.max(1)], 1)
    np.testing.assert_allclose(line.customdata, told, rtol=1e-6)
    note = figures.draw("saturation", trace, {"step": "14"}).layout.meta["note"]
    assert "charts" not in note and "Bands go from the least to the greatest of the seeds." in note
    one = EXPERIMENT.model_copy(update={"seeds": (3,)})
    alone = KnownTrace(one, {key: values[:, :1] for key, values in trace.values.items()})
    assert "Bands" not in figures.draw("saturation", alone, {}).layout.meta["note"]


def test_nothing_saturated_and_nothing_dead_is_said_in_words(trace):
    words = "No value here is saturated and no unit is dead."
    assert words not in figures.draw("saturation", trace, {}).layout.meta["note"]
    for values in trace.values.values():
        values[:] = 0
    figure = figures.draw("saturation", trace, {})
    assert words in figure.layout.meta["note"]
    assert figure.layout.xaxis.range == (0.5, L + 0.5), "no tick at a layer that does not exist"


def test_the_note_has_the_sign_of_the_axes_and_says_where_few_examples_saturate_healthy_units():
    def told(**changes):
        arms = (Arm(label="a"), Arm(label="b", changes=changes))
        return saturation.flat(SimpleNamespace(experiment=Experiment(arms=arms)))

    assert "(sigmoid below −4.36 or above 4.36)" in told(norm="batch") and "by chance" not in told(norm="batch")
    assert told(batch_size=2).endswith(" With K = 2 healthy units are, too, by chance.")


def test_that_relu_saturates_half_of_centered_inputs_is_said():
    def told(*activations):
        arms = tuple(Arm(label=name, changes={"activation": name}) for name in activations)
        return saturation.flat(SimpleNamespace(experiment=Experiment(arms=arms)))

    usual = "about half is usual: of inputs centered at 0, half lie below."
    assert f"For ReLU and Leaky ReLU {usual}" in told("relu", "tanh", "leaky_relu")
    assert "usual" not in told("tanh", "silu")
