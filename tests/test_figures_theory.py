"""The figures on why it works: what they need, that they draw, and their numbers against the theory and the records."""

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, figures, theory
from bnlab.figures import contest, dials, geometry, predicted, style
from bnlab.figures.gradients import fitted_factor
from bnlab.store import RunStore
from bnlab.train import train
from bnlab.work import execute, look

NAMES = [*predicted.ABOUT, *dials.ABOUT, *contest.ABOUT, *geometry.ABOUT]
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


def seen(store, run_id, name, options=()):
    """The figure, after the looks it asks for."""
    for probe, step, of in figures.needs(name, store.trace(run_id), dict(options)):
        look(store, run_id, probe, of, step, store.trace(run_id).snapshot(step))
    return figures.draw(name, store.trace(run_id), dict(options))


def drawn_points(figure):
    return [(float(t.x[0]), float(t.y[0])) for t in figure.data]


def test_the_dials_are_the_means_of_the_looks(run):
    store, run_id = run
    drawn, trace = seen(*run, "dials"), store.trace(run_id)
    for arm in range(3):
        relative = trace.look("shift", arm, 40)["relative"]  # too short a run for live looks: the newest
        along = trace.look("gradient_line", arm, 40)
        change = along["change"][..., 1] / along["gradient"]  # one learning rate along it
        assert drawn.data[arm].x[0] == pytest.approx(np.exp(np.log(relative).mean()), rel=1e-5)
        assert drawn.data[arm].y[0] == pytest.approx(np.exp(np.log(change).mean()), rel=1e-5)


def test_a_visit_to_another_step_does_not_move_the_dials(tmp_path):
    settings = Settings(depth=3, width=6, steps=400, data="wine", batch_size=16, score_every=20)
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=settings, arms=ARMS))
    execute(store, run.id, lambda: None)
    before = drawn_points(seen(store, run.id, "dials"))
    live = store.trace(run.id).looks("shift", 0)[0]
    other = next(step for step in store.trace(run.id).snapshots() if step not in live)
    for probe in ("shift", "gradient_line"):
        look(store, run.id, probe, {}, other, store.trace(run.id).snapshot(other))
    assert other in store.trace(run.id).looks("shift", 0)[0]
    assert drawn_points(figures.draw("dials", store.trace(run.id), {})) == before


def test_a_dead_network_is_not_smooth_but_out_of_the_comparison(tmp_path):
    """Deep sigmoids without a norm have hardly any shift or curvature: nothing moves."""
    settings = Settings(depth=20, width=16, steps=60, score_every=30)
    arms = (Arm(label="none"), *(Arm(label=p, changes={"norm": "batch", "placement": p}) for p in ("before", "after")))
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=settings, arms=arms))
    execute(store, run.id, lambda: None)
    drawn = seen(store, run.id, "dials")
    assert [t.marker.symbol.endswith("-open") for t in drawn.data] == [True, False, False]
    assert "none: shift" in drawn.layout.meta["note"] and "it does not learn" in drawn.layout.meta["note"]


def dials_of(*each):
    return {name: dials.Dial(*dial, "") for name, dial in zip("abc", each, strict=False)}


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (
            ((1, 1, 10), (2, 2, 20)),
            "a learns faster than b, with less covariate shift and a smoother loss: here speed goes with both",
        ),
        (
            ((1, 1, 20), (2, 0.5, 10)),
            "b learns faster than a, with more covariate shift and a smoother loss: here speed goes with smoothness",
        ),
        (((1, 1, 20), (1.05, 2, 10)), "b learns faster than a, with about as much covariate shift and a less smooth"),
        (((1, 1, 20), (2, 2, 10)), "here speed goes with neither of the two alone"),
        (
            ((1, 3, 10), (2, 2, 20), (3, 1, np.inf)),
            "In 3 pairs of arms that differ in speed the faster one has clearly less shift in 3 and is clearly "
            "smoother in 0: here speed goes with less shift",
        ),
        (((1, 1, 10), (2, 2, 10)), "a, b learn about equally fast, though covariate shift differs by a factor of 2 "),
        (((1, 1, 10),), "Fewer than two arms learn"),
    ],
)
def test_the_verdict_says_what_the_points_say(points, words):
    assert words in dials.verdict(dials_of(*points))


@pytest.fixture(scope="module")
def half_diverged(tmp_path_factory):
    """He-initialized ReLUs at a large eta: the plain network diverges, the one with batch norm does not."""
    settings = Settings(depth=6, width=32, activation="relu", init="he", learning_rate=3, steps=40, score_every=10)
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(Experiment(settings=settings, arms=(Arm(label="plain"), ARMS[1])))
    execute(store, run.id, lambda: None)
    assert set(store.trace(run.id).diverged) == {(0, 0)}
    return store, run.id


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_diverged_does_not_hide_the_others(half_diverged, name, options):
    if name == "predicted":
        return  # before the first update nothing has diverged
    drawn = seen(*half_diverged, name, options)
    shown = [t for t in drawn.data if "BN" in (t.name or "") or name == "surface"]
    key = "z" if name == "surface" else "y"
    assert any(np.isfinite(np.asarray(t[key], float)).any() for t in shown if t[key] is not None)
    note = drawn.layout.meta["note"]
    assert "nan" not in note
    if name != "undone":  # of arms with batch norm only
        assert "diverged at step" in note


def test_two_diverged_arms_are_a_sentence(half_diverged):
    drawn = seen(*half_diverged, "surface", {"arm": "0", "beside": "0"})
    assert "had diverged by step" in drawn.layout.annotations[0].text


def test_no_steps_are_no_error(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(EXPERIMENT.model_copy(update={"settings": EXPERIMENT.settings.model_copy(update={"steps": 0})}))
    execute(store, run.id, lambda: None)
    for name in NAMES:
        seen(store, run.id, name)
    assert "path needs two snapshots" in seen(store, run.id, "surface", {"plane": "path"}).layout.annotations[0].text


def test_one_layer_has_none_below_and_says_so(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=Settings(depth=1, width=6, steps=20, data="wine", batch_size=16), arms=ARMS))
    execute(store, run.id, lambda: None)
    note = seen(store, run.id, "dials").layout.meta["note"]
    assert "one of the two cannot be measured here" in note and "nan" not in note
    assert "depth is 1" in seen(store, run.id, "jacobians").layout.annotations[0].text


def test_a_factor_is_marked_and_its_numbers_are_the_probes(run):
    store, run_id = run
    drawn = seen(*run, "invariance", {"c": "2", "layer": "3"})
    trace = store.trace(run_id)
    found = trace.look("invariance", 1, trace.snapshots()[-1], layer=3)
    at = list(found["factor"][0]).index(2.0)
    note = drawn.layout.meta["note"]
    assert f"BN: loss {found['loss'][:, at].mean():.4g}, ‖dE/dW‖ {found['gradient'][:, at].mean():.3g}, η/‖W‖² " in note
    marks = [t for t in drawn.data if t.mode == "markers"]
    assert len(marks) == 9 and all(t.x[0] == 2 for t in marks)
    assert note.split("none: ")[1].split(" BN: ")[0].count("η") == 0  # no norm: the scale matters


def test_the_layer_is_the_highest_unless_asked(run):
    trace = run[0].trace(run[1])
    ((_, _, options),) = figures.FIGURES["undone"].needs(
        trace, **figures.asked(figures.FIGURES["undone"].options, {}, trace)
    )
    assert options == {"layer": 4}


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.15, 0.9, ["0.1", "0.2", "0.5", "1", "2", "5"]),
        (3e-9, 0.5, ["10<sup>−9</sup>", "10<sup>−7</sup>", "10<sup>−5</sup>", "0.001", "0.1"]),
    ],
)
def test_ticks_can_be_read(low, high, text):
    assert style.ticks(low, high)["ticktext"] == text
    assert style.ticks(2.0, 2.1) is None


def test_a_lower_layer_norm_is_singular_by_construction(run):
    drawn = seen(*run, "jacobians")
    assert "LN singular" in drawn.layout.meta["note"] and "of 8 examples" in drawn.layout.meta["note"]


@pytest.mark.parametrize(
    ("activation", "init", "arm", "factor"),
    [("relu", "xavier", {}, np.sqrt(0.5)), ("relu", "he", {"norm": "batch"}, np.sqrt(np.pi / (np.pi - 1)))],
)
def test_the_law_beside_the_product_of_jacobians_is_the_published_one_and_measured(
    tmp_path, activation, init, arm, factor
):
    settings = Settings(depth=12, width=128, activation=activation, init=init, steps=1, batch_size=256)
    experiment = Experiment(settings=settings, arms=(Arm(label="a", changes=arm),), seeds=(0, 1, 2))
    store = RunStore(tmp_path)
    run = store.create(experiment)
    execute(store, run.id, lambda: None)
    look(store, run.id, "jacobian", {}, 0, store.trace(run.id).snapshot(0))
    trace = store.trace(run.id)
    law = geometry.product_law(experiment.arm_settings[0])
    np.testing.assert_allclose(law[4:], factor ** np.arange(7, 0, -1), rtol=0.03)
    measured = trace.look("jacobian", 0, 0)["training"].mean(0)
    np.testing.assert_allclose(measured / law, 1, atol=0.25)
    drawn = figures.draw("jacobians", trace, {"step": "0"})
    (rings,) = (line for line in drawn.data if line.mode == "markers")
    np.testing.assert_allclose(rings.y, law)
    assert "Rings: the law" in drawn.layout.meta["note"]


def test_one_layer_has_one_tick_and_every_line_of_the_legend_can_be_seen(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(
        EXPERIMENT.model_copy(update={"settings": Settings(depth=1, width=8, steps=1, data="wine", batch_size=16)})
    )
    execute(store, run.id, lambda: None)
    drawn = figures.draw("predicted", store.trace(run.id), {})
    assert drawn.layout.xaxis.dtick == 1 and list(drawn.layout.xaxis.range) == [0.5, 1.5]
    assert all("markers" in line.mode for line in drawn.data if len(line.x) == 1)


def test_of_a_hundred_layers_some_have_bars_and_each_arm_others(tmp_path):
    store = RunStore(tmp_path)
    deep = Settings(depth=100, width=4, steps=1, data="wine", batch_size=16, activation="linear")
    run = store.create(Experiment(settings=deep, arms=ARMS[:2], seeds=(0, 1)))
    execute(store, run.id, lambda: None)
    drawn = figures.draw("predicted", store.trace(run.id), {})
    barred = [
        set(d.x[np.isfinite(d.error_y.array)]) for d in drawn.data if d.error_y.array is not None and d.showlegend
    ]
    assert [8 <= len(layers) <= predicted.BARS for layers in barred] == [True, True]
    assert not barred[0] & barred[1]
