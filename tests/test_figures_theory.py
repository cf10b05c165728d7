"""The figures on why it works: what they need, that they draw, and their numbers against the theory and the records."""

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, figures, theory
from bnlab.figures import contest, geometry, predicted
from bnlab.figures.gradients import fitted_factor
from bnlab.store import RunStore
from bnlab.train import train
from bnlab.work import execute, look

NAMES = [*predicted.ABOUT, *contest.ABOUT, *geometry.ABOUT]
ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}), Arm(label="LN", changes={"norm": "layer"}))
EXPERIMENT = Experiment(
    settings=Settings(depth=4, width=8, steps=40, data="wine", batch_size=16, score_every=20), arms=ARMS, seeds=(0, 1)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(EXPERIMENT)
    execute(store, run.id, lambda: None)
    return store, run.id


ASKED = [{}, {"plane": "path"}, {"plane": "path", "look": "surface"}, {"step": "20"}]
CASES = [(name, o) for name in NAMES for o in ASKED if set(o) <= {x.name for x in figures.FIGURES[name].options}]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_figure_says_what_it_waits_for_and_then_draws(run, name, options):
    store, run_id = run
    trace = store.trace(run_id)
    needed = figures.needs(name, trace, options)
    if len(needed) == 1:
        assert "looking" in figures.draw(name, trace, options).layout.annotations[0].text
    for probe, step, of in needed:
        look(store, run_id, probe, of, step, trace.snapshot(step))
    assert figures.needs(name, store.trace(run_id), options) == []
    drawn = figures.draw(name, store.trace(run_id), options)
    assert len(drawn.data) >= 2 and drawn.layout.meta["note"]
    if "surface" not in options.values():
        axes = [*drawn.select_xaxes(), *drawn.select_yaxes()]
        assert all(axis.title.text for axis in axes)


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
    measured, law = told.factors
    assert law == pytest.approx(factor, rel=0.02)
    assert measured == pytest.approx(factor, rel=0.05)
    assert told.lost_at_depth == theory.growth(activation, init, 1.0, *((arm["norm"],) if arm else ())).lost_at_depth
    first = next(iter(train(experiment)))
    norms = np.stack([first.value("signal_grad_norm", 0, seed) for seed in (0, 1, 2)])
    np.testing.assert_allclose(told.measured[0], np.exp(np.log(norms).mean(0)), rtol=1e-5)
    assert measured == fitted_factor(told.measured[0])


def test_the_dials_are_the_means_of_the_looks(run):
    store, run_id = run
    for probe, step, of in figures.needs("dials", store.trace(run_id), {}):
        look(store, run_id, probe, of, step, store.trace(run_id).snapshot(step))
    trace = store.trace(run_id)
    drawn = figures.draw("dials", trace, {})
    for arm in range(3):
        cosine = np.concatenate([c.ravel() for c in trace.looks("shift", arm)[1]["cosine"]])
        assert drawn.data[arm].x[0] == pytest.approx(1 - cosine.mean(), rel=1e-3)
        smooth = trace.looks("gradient_line", arm)[1]["smoothness"]
        assert drawn.data[arm].y[0] == pytest.approx(np.exp(np.log(smooth).mean()), rel=1e-6)
