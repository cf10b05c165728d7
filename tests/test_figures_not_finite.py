"""A network whose moving averages are not finite is left out of the means and named; it empties no figure."""

import re

import numpy as np
import pytest
from looked_at import recorded, shown, trained

from bnlab import Arm, Settings, figures
from bnlab.looking import look

NAMES = ("three_losses", "alpha_inference", "alpha_curve", "why_off", "in_practice", "mistakes", "outlier", "alone")
NAMES += ("two_examples", "invariance", "undone", "jacobians", "spectra", "conditions", "ranks")
LEFT = [0, 2]  # of three seeds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three seeds with all the looks that the figures ask for once seed 1 is lost(), and before."""
    settings = Settings(depth=3, width=8, steps=30, data="wine", batch_size=16, score_every=10, alpha=0.9)
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    store, run_id = trained(tmp_path_factory.mktemp("store"), settings, arms, (0, 1, 2))
    for places in ([1], [0, 1, 2]):
        for name in NAMES:
            for probe, step, options in figures.needs(name, lost(store.trace(run_id), places), {}):
                if store.trace(run_id).look(probe, 0, step, **options) is None:
                    look(store, run_id, probe, options, step, store.trace(run_id).snapshot(step))
    return store, run_id


def lost(trace, places):
    """The trace as if some seeds had NaN as moving averages from step 1 on: what looks and scores are then."""
    scores, seen = trace.scores, trace.look

    def with_nan_scores(arm, split, statistics, *points):
        steps, loss, accuracy = scores(arm, split, statistics, *points)
        if statistics == "moving":
            loss[np.ix_(steps > 0, places)] = np.nan
        elif statistics == "population":
            loss[np.ix_(steps > 0, places)] = 1e19  # a mean with it would be far from those of the others
        return steps, loss, accuracy

    def with_nan_looks(probe, arm, step, **options):
        found = seen(probe, arm, step, **options)
        for values in (found or {}).values():
            if values.dtype.kind == "f":
                values[places] = np.nan
        return found

    trace.scores, trace.look = with_nan_scores, with_nan_looks
    return trace


def drawn(run, name, places=(1,)):
    return figures.draw(name, lost(run[0].trace(run[1]), list(places)), {})


@pytest.mark.parametrize("name", NAMES)
def test_one_lost_seed_empties_no_figure_and_no_number_is_nan(run, name):
    figure = drawn(run, name)
    note = figure.layout.meta["note"]
    assert not re.search(r"\bnan\b", note) and "said" not in figure.layout.meta
    for line in figure.data:
        if getattr(line, "x", None) is not None and line.hoverinfo != "skip":
            assert np.isfinite(np.array(line.y, float) if line.type == "scatter" else np.array(line.x, float)).any()
    assert "finite: seed 1 of BN." in note


@pytest.mark.parametrize("name", NAMES)
def test_where_every_seed_is_lost_the_figure_says_so_without_a_nan(run, name):
    figure = drawn(run, name, (0, 1, 2))
    told = figure.layout.meta.get("said") or figure.layout.meta["note"]
    assert not re.search(r"\bnan\b", told)
    kinds = {option.kind for option in figures.FIGURES[name].options}
    one = "arm" in kinds or "batch arm" in kinds
    whose = r"of BN are not finite\." if one else r"of every network are not finite\."
    assert re.search(whose, told) or "not finite: all seeds of BN." in told
    assert "step" in kinds or "earlier step" not in told, "there is none to be chosen"
    assert "diverged" not in told and "wider than" not in told


def test_the_three_lines_are_means_over_the_other_seeds(run):
    trace = run[0].trace(run[1])
    lines = {
        line.name: np.array(line.y) for line in drawn(run, "three_losses").data if line.name and line.showlegend is None
    }
    for kind, words in (
        ("batch", "mini-batch statistics"),
        ("moving", "moving averages"),
        ("population", "population"),
    ):
        steps, loss, _ = trace.scores(0, "test", kind)
        true = np.array([np.mean(row if t == 0 else row[LEFT]) for t, row in zip(steps, loss, strict=True)])
        (line,) = [y for name, y in lines.items() if words in name]
        np.testing.assert_allclose(line, true, rtol=1e-5)


def test_the_losses_of_any_alpha_are_means_over_the_other_seeds(run):
    trace = run[0].trace(run[1])
    found = trace.look("alphas", 0, 30)
    train, _, test, _ = drawn(run, "alpha_curve").data
    for line, split in ((train, "train"), (test, "test")):
        np.testing.assert_allclose(line.y, found[f"{split}_loss"][LEFT].mean(0), rtol=1e-5)
    found = trace.look("inference", 0, 30, alpha=0.99)
    line = drawn(run, "alpha_inference").data[2]
    np.testing.assert_allclose(line.y, found["loss"][LEFT].mean(0), rtol=1e-5)
    assert list(line.x) == [0, 10, 20, 30]


def test_population_and_two_examples_are_means_over_the_other_seeds(run):
    trace = run[0].trace(run[1])
    found = trace.look("practice", 0, 30, batch_size=16)
    (means, ratios) = [line for line in drawn(run, "in_practice").data if line.line.width == 3]
    np.testing.assert_allclose(means.y, found["mean_off"][LEFT].mean(0), rtol=1e-5)
    np.testing.assert_allclose(ratios.y, found["std_ratio"][LEFT].mean(0), rtol=1e-5)
    found = trace.look("single", 0, 30)
    for line, key in zip(drawn(run, "two_examples").data, ("passing", "passing_of_two"), strict=True):
        np.testing.assert_allclose(line.y, found[key][LEFT].mean(0), rtol=1e-5)
    found = trace.look("broken", 0, 30)
    np.testing.assert_allclose(drawn(run, "mistakes").data[0].x, found["loss"][LEFT].mean(0), rtol=1e-5)


def test_the_cause_is_told_of_the_other_seeds(run):
    note = drawn(run, "three_losses").layout.meta["note"]
    trace = run[0].trace(run[1])
    t = int(re.search(r"Test loss at step (\d+), ", note)[1])
    steps, loss, _ = trace.scores(0, "test", "moving")
    assert t > 0 and f": {loss[list(steps).index(t), LEFT].mean():.3g} with moving averages" in note
    assert f"; {trace.look('off', 0, t)['loss'][LEFT, 4].mean():.3g} without all three" in note


DIVERGES = {"norm": "batch", "learning_rate": 100.0, "weight_decay": 1.0}


@pytest.mark.parametrize("name", ["mistakes", "two_examples", "undone"])
def test_of_batch_norm_that_diverged_beside_an_arm_that_lasts_the_arm_is_named(store, name):
    trace = recorded(store, ({}, DIVERGES), steps=40)
    assert {arm for arm, _ in trace.diverged} == {1}
    said = shown(trace, name).layout.meta["said"]
    assert "every network" not in said and "arm 1" in said and said.endswith("or a lower learning rate.")


def test_where_no_step_can_be_chosen_none_is_spoken_of(store):
    trace = recorded(store, ({"depth": 30, "activation": "linear", "init_gain": 100},), steps=5)
    said = shown(trace, "smoothness").layout.meta["said"]
    assert said == f"By step {trace.step} every network had diverged. Train with a lower learning rate."


OVERFLOWS = {"activation": "relu", "init": "he", "data": "diabetes"}
OVERFLOW = {
    "units_overview": Settings(depth=5, width=9, batch_size=32, learning_rate=5, steps=60, **OVERFLOWS),
    "moving_averages": Settings(
        depth=100, width=8, batch_size=8, init_gain=100, steps=12, **OVERFLOWS | {"data": "digits"}
    ),
}


@pytest.mark.parametrize(("name", "layer"), [("units_overview", 3), ("moving_averages", 2)])
def test_variances_that_became_infinite_are_drawn_without_a_warning_in_the_servers_log(tmp_path, name, layer):
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    store, run_id = trained(tmp_path, OVERFLOW[name], arms, (0,))
    trace = store.trace(run_id)
    assert np.isinf(trace.read("moving_var", 0, layer=2).mean).any()
    assert figures.draw(name, trace, {"layer": str(layer)}).data


def test_where_every_network_has_diverged_the_last_gradients_before_are_drawn(tmp_path):
    """The newest step had none: an empty chart, where an explosion was to be seen."""
    exploding = Settings(depth=12, width=16, activation="relu", init="he", init_gain=2, learning_rate=5, steps=30)
    store, run_id = trained(tmp_path, exploding, (Arm(label="none"),), (0, 1))
    trace = store.trace(run_id)
    assert len(trace.diverged) == 2
    last = max(step for step, _ in trace.diverged.values()) - 1
    figure = figures.draw("gradient_flow", trace, {})
    assert figure.layout.meta["note"].startswith(f"Signal gradient at step {last}.")
    norms = trace.read("signal_grad_norm", 0, start=last, stop=last + 1).mean[0]
    left = [i for i, seed in enumerate((0, 1)) if trace.diverged[0, seed][0] > last]
    line = next(line for line in figure.data if line.mode == "lines+markers")
    np.testing.assert_allclose(line.y, np.exp(np.log(norms[left]).mean(0)), rtol=1e-5)
