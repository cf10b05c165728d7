"""The parts of the gap are slower sums over what train() itself yields; the practitioner's mini-batches."""

import numpy as np
import pytest
from looked_at import INFERENCE, forked, recorded, shown

from bnlab import figures, moving
from bnlab.figures.gaps import gap_parts
from bnlab.figures.style import amount
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
    assert f"With 17 mini-batches of 8 or 9 the means are furthest off in layer {worst[0]}, the standard" in note
    assert f"deviations in layer {worst[1]}." in note
    drawn = shown(recorded(store, data="digits", batch_size=2, steps=2), "in_practice")
    assert drawn.data[0].name == "718 mini-batches of 2 or 3 (for the run's K = 2)"
    assert "as much as 240 training steps with K = 2; in time fewer where" in drawn.layout.meta["note"]


@pytest.mark.parametrize(("population", "mini_batches"), [("not finite", "not finite"), (0.5, 0.25)])
def test_losses_that_are_not_finite_are_told_so_and_are_in_no_mean(
    inference_run, monkeypatch, population, mini_batches
):
    """The note said nan of all, also where another seed had a loss."""
    trace = inference_run[0].trace(inference_run[1])
    shown(trace, "in_practice", arm="1")
    whole, lost = trace.look, lambda one, other: np.array([other if one == "not finite" else one, np.inf])
    losses = {"loss_population": lost(population, np.nan), "loss_mini_batches": lost(mini_batches, np.inf)}
    monkeypatch.setattr(trace, "look", lambda *a, **o: whole(*a, **o) | losses)
    note = figures.draw("in_practice", trace, {"arm": "1"}).layout.meta["note"]
    assert f"Test loss {population} with the population's statistics; {mini_batches} with " in note


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


@pytest.mark.parametrize("name", ["mean", "var"])
@pytest.mark.parametrize("start", [False, True])
def test_the_parts_that_are_drawn_are_a_slow_loops_over_seeds_and_units(inference_run, off, name, start):
    """Corrected: what came in is divided by its weights, the start is gone; where nothing came in it stays."""
    told = gap_parts(inference_run[0].trace(inference_run[1]), off, name, 1, 2, 60, start)
    for i, alpha in enumerate(moving.ALPHAS):
        total, warm_up, lag, mini, corrected = (
            np.sqrt(np.mean([off["parts"][seed, ["mean", "var"].index(name), 1, i, part] ** 2 for seed in (0, 1)]))
            for part in range(5)
        )
        left = alpha**60 if start and alpha < 1 else 0.0
        divided = start and alpha < 1
        assert told.total[i] == pytest.approx(corrected if start else total)
        assert told.warm_up[i] == (0 if divided else pytest.approx(warm_up))
        assert told.lag[i] == pytest.approx(lag / (1 - left)) and told.mini_batches[i] == pytest.approx(
            mini / (1 - left)
        )


@pytest.mark.parametrize("sampling", ["epochs", "replacement"])
def test_the_law_beside_the_parts_is_of_the_runs_own_sampling_and_step(store, sampling):
    """Alpha 0 keeps the last mini-batch alone: its variance is sigma2/K, in epochs times (N-K)/(N-1); more of it where
    the average is of few steps: after two those of alpha 1/2 weigh 1/4 and 1/2."""
    trace = recorded(store, sampling=sampling, steps=2, score_every=1)
    shown(trace, "why_off")
    K, N = 16, 142
    finite, together = ((N - K) / (N - 1), -K / (N - K)) if sampling == "epochs" else (1, 0)
    trace = store.trace(trace.run.id)
    law = gap_parts(trace, trace.look("off", 0, 2), "mean", 0, 1, 2, False).law
    assert law[moving.ALPHAS.index(0.0)] == pytest.approx(np.sqrt(finite / K))
    squares = 1 / 16 + 1 / 4 + 2 * together / 8
    assert law[moving.ALPHAS.index(0.5)] == pytest.approx(np.sqrt(finite * squares / K))
    drawn = {"epochs": "drawn in epochs;", "replacement": "drawn with replacement;"}
    assert drawn[sampling] in shown(trace, "why_off").layout.meta["note"]


def test_the_lines_of_the_gap_are_its_parts_and_the_note_tells_their_least_and_the_laws_share(inference_run, off):
    store, run_id = inference_run
    trace = store.trace(run_id)
    for start in ("plain", "corrected"):
        drawn = shown(trace, "why_off", arm="1", layer="1", start=start)
        note = drawn.layout.meta["note"]
        for column, (name, symbol) in enumerate((("mean", "μ̄"), ("var", "σ̄²"))):
            told = gap_parts(trace, off, name, 1, 1, 60, start == "corrected")
            lines = [line for line in drawn.data if (line.yaxis == "y2") == bool(column) and line.name]
            assert [line.legendgroup for line in lines] == list(told._fields)
            for line, part in zip(lines, told, strict=True):
                seen = [value is not None and np.isfinite(value) for value in line.y]
                assert seen == list(part > 1e-6 * max(told.total))
                np.testing.assert_allclose(np.array(line.y, float)[seen], part[seen], rtol=1e-5)
            best = moving.ALPHAS[list(told.total).index(min(told.total))]
            assert f"{symbol} is nearest at α = {best:g}" in note
            own = moving.ALPHAS.index(0.95)
            assert f"{told.mini_batches[own] / told.law[own]:.2g} times the law's for {symbol}" in note
        assert "At α = 0.95 the mini-batch part (K = 16) is" in note
        assert "Every step was trained again for this" in note
    assert "times the law's" not in shown(trace, "why_off", arm="1", layer="2").layout.meta["note"]


def test_steps_that_are_not_trained_again_are_told_with_what_they_weigh(store, monkeypatch):
    monkeypatch.setattr("bnlab.probes.off.REPLAYED", 10)
    note = shown(recorded(store, alpha=0.8), "why_off").layout.meta["note"]
    assert "Over the last 10 steps, trained again for this to the last bit, the population was measured" in note
    assert f"which hold {0.8**10:.1g} of the average at α = 0.8, are interpolated between scorings" in note


@pytest.mark.parametrize(
    ("changes", "special"), [({}, True), ({"placement": "after"}, False), ({"standardize": False}, False)]
)
def test_layer_1_is_special_only_where_its_norm_reads_standardized_inputs(store, changes, special):
    note = shown(recorded(store, steps=5, **changes), "why_off", layer="1").layout.meta["note"]
    assert ("Layer 1 is special" in note) == special


@pytest.mark.parametrize(
    ("changes", "words"), [({"batch_size": 8}, "mini-batch size"), ({"sampling": "replacement"}, "mini-batches")]
)
def test_mini_batches_of_two_kinds_are_refused_only_after_both_have_come_in(store, changes, words):
    child = forked(store, recorded(store), **changes)
    said = lambda step, arm: figures.draw("why_off", child, {"arm": arm, "step": step}).layout.annotations[0].text  # noqa: E731
    assert f"At step 20 this arm changed its {words}:" in said("40", "1") and "are of two kinds" in said("25", "1")
    for step, arm in (("20", "1"), ("40", "0")):
        assert "two kinds" not in said(step, arm)
    assert figures.needs("why_off", child, {"arm": "1", "step": "40"}) == []
    assert figures.needs("why_off", child, {"arm": "1", "step": "20"}) == [], "it has trained no step yet"
    assert figures.needs("why_off", child, {"arm": "0", "step": "25"}) == [("off", 25, {})]


def test_the_lines_of_the_practice_are_what_was_seen_in_each_layer_and_the_note_tells_the_losses(store):
    trace = recorded(store, steps=40, depth=4, activation="relu", learning_rate=0.5)
    drawn = shown(trace, "in_practice")
    note, trace = drawn.layout.meta["note"], store.trace(trace.run.id)
    titles = [drawn.layout[axis].title.text for axis in ("yaxis", "yaxis2")]
    assert titles == ["difference of means, in σ<sub>pop</sub>", "ratio of standard deviations"]
    sizes = [8, 16, 32, 128]
    for i, K in enumerate(sizes):
        found = trace.look("practice", 0, 40, batch_size=K)
        means, ratios = drawn.data[2 * i : 2 * i + 2]
        assert (means.yaxis, ratios.yaxis) == ("y", "y2")
        np.testing.assert_allclose(means.y, found["mean_off"][0], rtol=1e-5)
        np.testing.assert_allclose(ratios.y, found["std_ratio"][0], rtol=1e-5)
        assert (means.line.width == 3) == (K == 16), "the run's own stands out"
        told = amount(found["loss_mini_batches"][0])
        assert f"{told} with {means.name}" in note
        assert K == 128 or told != amount(found["loss_population"][0]), "the test's own network"
    assert f"Test loss {amount(found['loss_population'][0])} with the population's statistics;" in note


def test_of_a_single_layer_it_is_not_said_which_is_most_off(store):
    note = shown(recorded(store, steps=5, depth=1), "in_practice").layout.meta["note"]
    assert "Test loss" in note and "furthest off" not in note


def test_a_fork_at_its_first_step_says_that_it_has_trained_none(store):
    """It said that snapshots were thinned, which were never there."""
    trace = recorded(store)
    child = forked(store, trace, 10, learning_rate=0.01)
    drawn = shown(child, "why_off", step="10")
    assert drawn.layout.meta["said"].startswith("At its first step a fork has trained no step yet. Choose a later step")
    assert "said" not in shown(child, "why_off", step="40").layout.meta
