"""Which networks diverged is noted, with the first step and the layer where it began, and nothing else is called so."""

from math import prod

import numpy as np
import pytest
from known_rows import keep, nothing, same, small, written

from bnlab import executing
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.record import LAYERS, layout
from bnlab.train import train


def test_an_update_of_weights_that_are_all_0_is_infinite_relative_to_them_and_no_divergence(store):
    experiment = small(depth=4)
    (offset, shape), row = layout(experiment, 0)["layers"]["update_ratio"], nothing(experiment)["layers"]
    row[offset : offset + prod(shape)].reshape(shape)[1, 1] = np.inf
    trace = keep(store, store.create(experiment).id, written(experiment, range(20), lambda t: {"layers": row}))
    assert trace.diverged == {} and np.isinf(trace.read("update_ratio", 1).mean).any()


def test_weights_that_decay_to_nothing_are_not_called_diverged(store):
    settings = Settings(data="wine", depth=2, width=1, activation="relu", batch_size=32, weight_decay=1.0, steps=6)
    arms = [
        Arm(label="gone at once", changes={"learning_rate": 1.0}),
        Arm(label="decays", changes={"learning_rate": 0.9}),
    ]
    run = store.create(Experiment(settings=settings, arms=arms))
    executing.execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    assert trace.run.status == "done" and not trace.diverged
    assert trace.read("weight_norm", 0).mean[1:].max() == 0
    assert np.isfinite(trace.read("update_ratio", 0).mean).all()


WHERE = [  # what is no longer finite in which layers (none: the loss), and the layer where it began
    ({"a_mean": [3, 4]}, 3),
    ({"z_std": [2], "signal_grad_norm": [1, 2, 3, 4]}, 2),
    ({"signal_grad_norm": [1, 2, 3]}, 3),
    ({"grad_norm": [4], "update_ratio": [4]}, 4),
    ({}, 0),
]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("broken, layer", WHERE)
def test_divergence_is_noted_with_its_first_step_and_layer(store, broken, layer, wrong):
    experiment, at = small(depth=4, steps=300), 77
    columns = layout(experiment, 0)

    def rows(t):
        if t < at:
            return {}
        row, steps = np.ones(len(nothing(experiment)["layers"]), np.float32), np.ones(4, np.float32)
        for name, layers in broken.items():
            offset, shape = columns["layers"][name]
            row[offset : offset + prod(shape)].reshape(shape)[np.array(layers) - 1, 1] = wrong
        if not broken:
            steps[columns["steps"]["loss"][0] + 1] = wrong
        return {"layers": row, "steps": steps}

    run_id = store.create(experiment).id
    trace = keep(store, run_id, written(experiment, range(90), rows))
    assert trace.diverged == {(1, 0): (at, layer)}
    trace = keep(store, run_id, written(experiment, range(60, 130), rows))  # resumed before it
    assert trace.diverged == {(1, 0): (at, layer)}
    for quantity in ("accuracy", "z_mean", "gamma"):
        values = trace.read(quantity, 1).mean
        assert len(values) == 130 and np.isfinite(values[: at + 1]).all() and np.isnan(values[at + 1 :]).all()
    assert np.isfinite(trace.read("z_mean", 0).mean).all()


def test_a_network_that_diverges_leaves_the_others_as_they_are(store):
    settings = Settings(data="diabetes", depth=3, width=8, steps=200, activation="relu", score_every=50)
    calm, wild = Arm(label="calm"), Arm(label="wild", changes={"learning_rate": 100.0, "init_gain": 10.0})
    both = Experiment(settings=settings, arms=(calm, wild))
    alone = Experiment(settings=settings, arms=(calm,))
    traces = []
    for experiment in (both, alone):
        run = store.create(experiment)
        executing.execute(store, run.id, lambda: None)
        assert store.run(run.id).status == "done"
        traces.append(store.trace(run.id))
    together, single = traces
    ((network, (step, layer)),) = together.diverged.items()
    assert network == (1, 0) and single.diverged == {}
    records = list(train(both))
    seen = {q: np.stack([r.value(q, 1) for r in records[:-1]]) for q in LAYERS}
    finite = np.isfinite([r.value("loss", 1) for r in records[:-1]])
    finite &= np.all([np.isfinite(values).all(1) for values in seen.values()], 0)
    assert step == finite.argmin() and 0 <= layer <= 3
    for quantity in ("loss", *LAYERS):
        same(together.read(quantity, 0).mean, single.read(quantity, 0).mean)
        assert np.isnan(together.read(quantity, 1).mean[step + 1 :]).all()
