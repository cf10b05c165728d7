"""The inference page's figures: their numbers against slower sums over what train() itself yields."""

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, figures, moving
from bnlab.figures.gaps import gap_parts
from bnlab.figures.inference import ABOUT, any_alpha, explained, three
from bnlab.store import RunStore
from bnlab.train import train
from bnlab.work import execute, look

NAMES = ("three_losses", "recomputed", "alpha_inference", "alpha_curve", "why_off", "in_practice", "mistakes")
NAMES += ("outlier", "two_examples")
EXPERIMENT = Experiment(
    settings=Settings(depth=3, width=8, steps=60, data="wine", batch_size=16, score_every=10, alpha=0.95),
    arms=(
        Arm(label="none"),
        Arm(label="before", changes={"norm": "batch"}),
        Arm(label="LN", changes={"norm": "layer"}),
    ),
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(EXPERIMENT)
    execute(store, run.id, lambda: None)
    return store, run.id


@pytest.fixture(scope="module")
def records():
    return list(train(EXPERIMENT))


def test_every_figure_says_what_it_waits_for_and_then_draws(run):
    store, run_id = run
    for name in NAMES:
        trace = store.trace(run_id)
        needed = figures.needs(name, trace, {})
        if needed:
            assert "looking" in figures.draw(name, trace, {}).layout.annotations[0].text
        for probe, step, options in needed:
            look(store, run_id, probe, options, step, trace.snapshot(step))
        trace = store.trace(run_id)
        assert figures.needs(name, trace, {}) == []
        drawn = figures.draw(name, trace, {})
        assert len(drawn.data) >= 1 and drawn.layout.meta["note"], name
        assert all(axis.title.text for axis in drawn.select_xaxes()), name


@pytest.mark.parametrize("name", sorted(ABOUT))
def test_an_arm_without_batch_norm_is_told_so(run, name):
    store, run_id = run
    assert "no batch norm" in figures.draw(name, store.trace(run_id), {"arm": "0"}).layout.annotations[0].text


def test_the_three_losses_are_the_recorded_scores(run, records):
    told = three(run[0].trace(run[1]), 1, "test", "loss")
    for record in records:
        if record.scores:
            for kind in ("batch", "moving", "population"):
                slots = [record.experiment.stacks[0].index((1, seed)) for seed in (0, 1)]
                found = [
                    score.loss[score.slots.index(slot)]
                    for slot in slots
                    for score in record.scores
                    if (score.split, score.statistics) == ("test", kind) and slot in score.slots
                ]
                at = list(told.steps).index(record.step)
                assert getattr(told, kind)[at] == pytest.approx(np.mean(found))
    assert "cold start" in explained(told, EXPERIMENT.settings, "loss").lower() or "Nothing has come in" in explained(
        told, EXPERIMENT.settings, "loss"
    )


@pytest.mark.parametrize("name", ["mean", "var"])
def test_the_training_alpha_made_anew_is_the_recorded_average(run, name):
    told = any_alpha(run[0].trace(run[1]), name, 1, 1, 2, 3, 0.95, False)
    np.testing.assert_allclose(told.again, told.online, rtol=1e-5, atol=1e-7)
    other = any_alpha(run[0].trace(run[1]), name, 1, 1, 2, 3, 0.5, False)
    assert np.abs(other.again - told.online).max() > 1e-3


@pytest.mark.parametrize(("name", "start"), [("mean", 0.0), ("var", 1.0)])
def test_the_gap_against_alpha_is_a_slow_loops(run, records, name, start):
    trace = run[0].trace(run[1])
    told = gap_parts(trace, name, 1, 2, 60, False)
    steps, mean, var = trace.population(1, layer=2)
    assert list(steps) == [0, 10, 20, 30, 40, 50, 60]
    values = mean if name == "mean" else var
    spread = np.sqrt(var[-1]) if name == "mean" else var[-1]
    batch = np.stack([[r.value(f"batch_{name}", 1, seed)[1] for seed in (0, 1)] for r in records if r.parts])
    for i, alpha in enumerate(moving.ALPHAS):
        m = np.full(batch.shape[1:], start)
        for b in batch:
            m = alpha * m + (1 - alpha) * b
        last = values[-2] + (values[-1] - values[-2]) * 0.9  # the population of step 59 lies between 50 and 60
        assert told.total[i] == pytest.approx(np.sqrt(np.mean(((m - last) / spread) ** 2)), rel=1e-4)


def test_alpha_one_is_all_warm_up_and_alpha_zero_all_noise(run):
    told = gap_parts(run[0].trace(run[1]), "var", 1, 2, 60, False)
    one, zero = moving.ALPHAS.index(1.0), moving.ALPHAS.index(0.0)
    assert told.warm_up[one] == pytest.approx(told.total[one]) and told.noise[one] == 0 == told.lag[one]
    assert told.noise[zero] == pytest.approx(told.total[zero]) and told.warm_up[zero] == 0


@pytest.mark.parametrize("mistake", range(1, 8))
def test_a_pressed_mistake_tells_its_symptom_in_numbers(run, mistake):
    store, run_id = run
    for probe, step, options in figures.needs("mistakes", store.trace(run_id), {"mistake": str(mistake)}):
        look(store, run_id, probe, options, step, store.trace(run_id).snapshot(step))
    trace = store.trace(run_id)
    drawn = figures.draw("mistakes", trace, {"mistake": str(mistake)})
    loss = trace.look("broken", 1, 60)["loss"].mean(0)
    assert f"test loss {loss[mistake]:.3g} instead of {loss[0]:.3g}" in drawn.layout.meta["note"]
    assert tuple(drawn.data[0].selectedpoints) == (0, mistake)


def test_the_mistakes_are_those_of_the_probe():
    from bnlab.figures.broken import MISTAKES as shown
    from bnlab.probes.broken import MISTAKES as computed

    assert len(shown) == len(computed)
