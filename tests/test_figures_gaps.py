"""The parts of the gap are slower sums over what train() itself yields; the practitioner's mini-batches."""

import numpy as np
import pytest
from looked_at import INFERENCE, recorded, shown

from bnlab import moving
from bnlab.figures.gaps import gap_parts
from bnlab.looking import look
from bnlab.train import train


@pytest.fixture(scope="module")
def off(inference_run):
    """What the probe that takes the gap apart sees of the middle arm before update 60."""
    store, run_id = inference_run
    look(store, run_id, "off", {}, 60, store.trace(run_id).snapshot(60))
    return store.trace(run_id).look("off", 1, 60)


@pytest.mark.parametrize(("name", "start"), [("mean", 0.0), ("var", 1.0)])
def test_the_gap_against_alpha_is_a_slow_loops(inference_run, inference_records, off, name, start):
    trace = inference_run[0].trace(inference_run[1])
    told, corrected = (gap_parts(trace, off, name, 1, 2, 60, start) for start in (False, True))
    steps, mean, var = trace.population(1, layer=2)
    assert list(steps) == [0, 10, 20, 30, 40, 50, 60]
    values = mean if name == "mean" else var
    spread = np.sqrt(var[-1]) if name == "mean" else var[-1]
    batch = np.stack([[r.value(f"batch_{name}", 1, seed)[1] for seed in (0, 1)] for r in inference_records if r.parts])
    for i, alpha in enumerate(moving.ALPHAS):
        m = np.full(batch.shape[1:], start)
        for b in batch:
            m = alpha * m + (1 - alpha) * b
        size = lambda gap: np.sqrt(np.mean((gap / spread) ** 2))  # noqa: E731
        assert told.total[i] == pytest.approx(size(m - values[-1]), rel=1e-4)  # that of the weights which infer
        assert told.warm_up[i] == pytest.approx(size(alpha**60 * (start - values[-1])), rel=1e-4)
        if alpha < 1:
            assert corrected.total[i] == pytest.approx(
                size((m - alpha**60 * start) / (1 - alpha**60) - values[-1]), rel=1e-4
            )


def test_lag_and_mini_batches_are_told_apart_by_the_population_of_every_step(inference_run, inference_records, off):
    """Against the same training scored at every step, at whose every step the population is recorded."""
    settings = INFERENCE.settings.model_copy(update={"score_every": 1})
    every = list(train(INFERENCE.model_copy(update={"settings": settings})))
    slots = [every[0].experiment.stacks[0].index((1, seed)) for seed in (0, 1)]
    at = [every[0].population[0].slots.index(slot) for slot in slots]
    for i, name in enumerate(("mean", "var")):
        p = np.stack([getattr(r.population[0], name)[:, at] for r in every]).astype(float)  # [61, L, seeds, d]
        unit = np.stack([np.sqrt(r.population[0].var[:, at]) if name == "mean" else r.population[0].var[:, at]
                         for r in every[-1:]])[0]  # fmt: skip
        b = np.stack([[r.value(f"batch_{name}", 1, seed) for seed in (0, 1)] for r in inference_records if r.parts])
        for j, alpha in enumerate(moving.ALPHAS):
            w = (1 - alpha) * alpha ** np.arange(59.0, -1, -1)
            lag = sum(w[s] * (p[s] - p[-1]) for s in range(60)) / unit
            mini = sum(w[s] * (b[s].swapaxes(0, 1) - p[s]) for s in range(60)) / unit
            size = lambda q: np.sqrt(np.mean(q**2, 2)).T  # noqa: E731
            np.testing.assert_allclose(off["parts"][:, i, :, j, 2], size(lag), rtol=2e-3, atol=1e-6)
            np.testing.assert_allclose(off["parts"][:, i, :, j, 3], size(mini), rtol=2e-3, atol=1e-6)
    assert (off["replayed"] == 60).all()


def test_the_loss_without_the_gap_is_the_populations_and_with_all_of_it_the_recorded(inference_run, off):
    trace = inference_run[0].trace(inference_run[1])
    for place, kind in ((0, "moving"), (4, "population")):
        steps, losses, _ = trace.scores(1, "test", kind)
        np.testing.assert_allclose(off["loss"][:, place], losses[list(steps).index(60)], rtol=1e-5)


def test_alpha_one_is_all_warm_up_and_alpha_zero_has_none(inference_run, off):
    told = gap_parts(inference_run[0].trace(inference_run[1]), off, "var", 1, 2, 60, False)
    one, zero = moving.ALPHAS.index(1.0), moving.ALPHAS.index(0.0)
    assert told.warm_up[one] == pytest.approx(told.total[one])
    assert told.mini_batches[one] == told.lag[one] == 0
    assert told.mini_batches[zero] > 0 and told.warm_up[zero] == 0
    assert told.lag[zero] > 0  # the weights that infer are one update ahead of the last mini-batch


def test_the_practitioners_mini_batches_are_called_by_their_real_sizes(store):
    trace = recorded(store, steps=5)
    drawn = shown(trace, "in_practice")
    assert [line.name for line in drawn.data[::2]] == [
        "17 mini-batches of 8 or 9", "8 mini-batches of 17 or 18 (for the run's K = 16)", "4 mini-batches of 35 or 36",
        "all 142 examples at once",
    ]  # fmt: skip
    note = drawn.layout.meta["note"]
    assert "over 142 examples, in multiply-adds as much as 3 training steps with K = 16" in note  # 142 / 3 / 16
    found = store.trace(trace.run.id).look("practice", 0, 5, batch_size=8)
    worst = [int(q.argmax()) + 1 for q in (found["mean_off"][0], np.abs(np.log(found["std_ratio"][0])))]
    assert f"With 17 mini-batches of 8 or 9 the means are most off in layer {worst[0]}, the standard" in note
    assert f"deviations in layer {worst[1]}." in note
    drawn = shown(recorded(store, data="digits", batch_size=2, steps=2), "in_practice")
    assert drawn.data[0].name == "718 mini-batches of 2 or 3 (for the run's K = 2)"
    assert "as much as 240 training steps with K = 2; in time fewer where" in drawn.layout.meta["note"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("depth", [1, 2])
def test_layer_1_is_told_what_it_is(store, optimizer, depth):
    """Its mean was called 0 also where Adam moves its bias, and a higher layer was advised where there is none."""
    trace = recorded(store, optimizer=optimizer, learning_rate=0.05, depth=depth, steps=60)
    note = shown(trace, "why_off", layer="1").layout.meta["note"]
    _, mean, var = trace.population(0, layer=1)
    drifts = (np.abs(mean) / np.sqrt(var)).max() > 0.01
    assert drifts == (optimizer == "adam"), "the test's own networks"
    assert ("its population mean is 0" in note) == (not drifts)
    assert ("choose a higher layer" in note) == (depth > 1) and "inputs are standardized and never move" in note


@pytest.mark.parametrize("name", ["mean", "var"])
def test_with_the_start_divided_out_the_law_is_that_of_weights_that_add_up_to_1(inference_run, off, name):
    trace = inference_run[0].trace(inference_run[1])
    told, corrected = (gap_parts(trace, off, name, 1, 1, 60, divided) for divided in (False, True))
    for i, alpha in enumerate(moving.ALPHAS[:-1]):
        came_in = sum((1 - alpha) * alpha**s for s in range(60))
        assert corrected.law[i] == pytest.approx(told.law[i] / came_in)
        assert corrected.mini_batches[i] == pytest.approx(told.mini_batches[i] / came_in)
    assert corrected.law[-1] == told.law[-1] == 0
