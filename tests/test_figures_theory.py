"""The figures on why it works: what they need, that they draw, and their numbers against the theory and the records."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bnlab import Arm, Experiment, Settings, figures, theory
from bnlab.figures import contest, dials, geometry, jacobians, looks, predicted, rates, style, surface
from bnlab.figures.gradients import fitted_factor
from bnlab.probes import jacobian
from bnlab.profile import profile
from bnlab.store import RunStore
from bnlab.train import Group, train
from bnlab.work import execute, look

NAMES = [
    *predicted.ABOUT,
    *dials.ABOUT,
    *contest.ABOUT,
    *rates.ABOUT,
    *jacobians.ABOUT,
    *geometry.ABOUT,
    *surface.ABOUT,
]
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
    if name == "learning_rates":
        assert "No two arms differ in their learning rate alone" in drawn.layout.annotations[0].text
        return
    assert len(drawn.data) >= 2 and drawn.layout.meta["note"]
    if "surface" not in options.values():
        axes = [*drawn.select_xaxes(), *drawn.select_yaxes()]
        assert all(axis.title.text for axis in axes if axis.showticklabels is not False)  # inner axes have none


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
    (measured, law), weight, variance = told.factors
    assert law == pytest.approx(factor, rel=0.02)
    assert measured == pytest.approx(factor, rel=0.05)
    limit = theory.growth(activation, init, 1.0, *((arm["norm"],) if arm else ())).lost_at_depth
    assert told.lost_at_depth == pytest.approx(limit, rel=0.01)
    first = next(iter(train(experiment)))
    norms = np.stack([first.value("signal_grad_norm", 0, seed) for seed in (0, 1, 2)])
    np.testing.assert_allclose(told.measured[0], np.exp(np.log(norms).mean(0)), rtol=1e-5)
    assert measured == fitted_factor(told.measured[0])
    assert variance[0] == pytest.approx(1 / fitted_factor(told.measured[2]))
    note = figures.draw("predicted", store.trace(run.id), {}).layout.meta["note"]
    assert f"‖dE/da‖ ×{measured:.3g} / ×{law:.3g} = {measured / law:.3f} (×{measured**2:.3g} / ×{law**2:.3g}" in note
    assert f"‖dE/dW‖ ×{weight[0]:.3g} / ×{weight[1]:.3g}" in note
    assert f"var a ×{variance[0]:.3g} / ×{variance[1]:.3g}" in note
    assert "begin at layer L's measured value" in note and "at right angles" in note


def at_step_0(tmp_path, **settings):
    """The run of a first step, and what is predicted of it."""
    store = RunStore(tmp_path)
    experiment = Experiment(settings=Settings(steps=1, **settings), arms=(Arm(label="a"),), seeds=(0, 1, 2))
    run = store.create(experiment)
    with store.writer(run.id) as writer:
        writer.keep(next(iter(train(experiment))))
    trace = store.trace(run.id)
    return trace, predicted.prediction(trace, 0)


RELU = {"depth": 8, "width": 64, "activation": "relu"}
BATCH = {"norm": "batch", "batch_size": 256}


@pytest.mark.parametrize(
    "settings",
    [
        BATCH | {"statistics": "moving", "delta": 1.0},
        BATCH | {"noise_shift": 0.5, "noise_scale": 0.25},
        BATCH | {"noise_shift": 2.0, "noise_scale": 1.0, "placement": "after", "activation": "tanh"},
        {"init": "he", "standardize": False},
        {"norm": "layer", "standardize": False},
        BATCH | {"standardize": False},
        BATCH | {"standardize": False, "placement": "after"},
    ],
)
def test_every_setting_has_its_own_law(tmp_path, settings):
    """The lines were those of centered inputs, no noise and a mini-batch's statistics: up to fourfold off."""
    _, told = at_step_0(tmp_path, **RELU | settings)
    np.testing.assert_allclose(told.measured[2][:3], told.predicted[2][:3], rtol=0.3)
    signal = told.factors[0]
    assert signal[0] == pytest.approx(signal[1], rel=0.1)


def test_a_weight_gradient_off_its_law_is_said(tmp_path):
    trace, told = at_step_0(tmp_path, **RELU | {"norm": "layer", "standardize": False, "depth": 20, "width": 64})
    share = told.measured[1] / told.predicted[1]
    at = np.abs(np.log(share)).argmax()
    assert share[at] < 0.6  # the digits resemble each other
    note = figures.draw("predicted", trace, {}).layout.meta["note"]
    assert f"‖dE/dW‖ ×{share[at]:.2g} at layer {at + 1}" in note.split("Off its line by more than 1.5")[1]


def test_the_note_has_a_line_for_each_arm_and_says_what_holds_for_several_once(tmp_path):
    arms = (Arm(label="one"), ARMS[2], Arm(label="other", changes={"learning_rate": 0.3}))
    store, run_id = trained(tmp_path, Settings(depth=4, width=8, activation="tanh", steps=1), arms)
    *lines, remark, said = figures.draw("predicted", store.trace(run_id), {}).layout.meta["note"].split("\n")
    assert [line.partition(":")[0] for line in lines] == ["one", "LN", "other"] and said == predicted.SAID
    assert remark == f"one, other: {theory.growth('tanh', 'xavier', 1.0, 'none').note}"


def test_mini_batches_of_two_have_no_line_and_it_is_said_why(tmp_path):
    trace, _ = at_step_0(tmp_path, **RELU | {"norm": "batch", "batch_size": 2})
    note = figures.draw("predicted", trace, {}).layout.meta["note"]
    assert "too few layers" not in note and "whose mean growth the law says is infinite" in note
    assert "In mini-batches of 2 or 3 the mean growth is infinite." in note


def test_the_depth_at_which_the_signal_is_lost_is_that_of_the_drawn_law(tmp_path):
    """GELU with He weights sinks only after tens of layers: its limit's factor would lose the signal much earlier."""
    trace, told = at_step_0(tmp_path, depth=40, activation="gelu", init="he")
    assert told.predicted[0][0] / told.predicted[0][-1] > 1e-3  # far from lost over these 40 layers
    assert told.lost_at_depth > 50
    law = ("gelu", "he", 1.0, "none", "before", None, 1e-5)
    n = round(told.lost_at_depth)
    deeper = profile(*law, depth=n + 1, width=64, n_in=64, sizes=predicted.sizes("digits", True).each)
    assert np.log10(deeper.signal_norm[0]) == pytest.approx(-6, abs=0.3)
    assert "(in the limit of many layers ×0.707)" in figures.draw("predicted", trace, {}).layout.meta["note"]


def seen(store, run_id, name, options=()):
    """The figure, after the looks it asks for."""
    for probe, step, of in figures.needs(name, store.trace(run_id), dict(options)):
        look(store, run_id, probe, of, step, store.trace(run_id).snapshot(step))
    return figures.draw(name, store.trace(run_id), dict(options))


def drawn_points(figure):
    return [(float(t.x[0]), float(t.y[0])) for t in figure.data]


def test_both_dials_are_means_over_the_same_moments_in_a_run_too_short_for_live_looks(run):
    store, run_id = run
    drawn, trace = seen(*run, "dials"), store.trace(run_id)
    for arm in range(3):
        shift, rough = [], []
        for step in (0, 20, 40):
            shift.append(trace.look("shift", arm, step)["relative"])
            along = trace.look("gradient_line", arm, step)
            rate = trace.experiment.arm_settings[arm].learning_rate
            walked = along["length"][:, 1:] * rate * along["gradient"][:, None]  # plain gradient: the distance it moves
            rough.append((along["change"] / walked).max(1))
        assert drawn.data[arm].x[0] == pytest.approx(np.exp(np.log(shift).mean()), rel=1e-5)
        assert drawn.data[arm].y[0] == pytest.approx(np.exp(np.log(rough).mean()), rel=1e-3)
        loss = np.array(trace.read("loss", arm, points=10**6).mean)
        assert f": mean loss {loss.mean():.3g}" in drawn.data[arm].name
    assert "Both at steps 0, 20 and 40: training mode, the coming mini-batch" in drawn.layout.meta["note"]


def test_moments_are_few_and_those_of_a_shorter_training_are_among_them():
    for n in range(1, 200):
        trace = SimpleNamespace(snapshots=lambda n=n: list(range(0, 10 * n, 10)), looked=lambda probe: [0])
        at = dials.moments(trace)
        assert min(n, dials.MOMENTS) / 2 <= len(at) <= dials.MOMENTS and at[0] == 0
        assert len(set(np.diff(at))) <= 1
        before = dials.moments(
            SimpleNamespace(snapshots=lambda n=n: list(range(0, 10 * n - 10, 10)), looked=lambda _: [])
        )
        assert set(at) <= {*before, 10 * (n - 1)}


def test_a_visit_to_another_step_does_not_move_the_dials(tmp_path):
    settings = Settings(depth=3, width=6, steps=400, data="wine", batch_size=16, score_every=20)
    store, run_id = trained(tmp_path, settings, ARMS)
    before = drawn_points(seen(store, run_id, "dials"))
    trace = store.trace(run_id)
    other = next(step for step in trace.snapshots() if step not in dials.moments(trace))
    for probe in dials.DIALS:
        look(store, run_id, probe, {}, other, trace.snapshot(other))
    assert other in store.trace(run_id).looks("shift", 0)[0]
    assert drawn_points(figures.draw("dials", store.trace(run_id), {})) == before


def test_a_moment_that_could_not_be_looked_at_is_left_out_of_both(tmp_path):
    store, run_id = trained(tmp_path, EXPERIMENT.settings, ARMS)
    store.keep_wrong(run_id, "shift", {}, 20, "it was dark.")
    drawn, trace = seen(store, run_id, "dials"), store.trace(run_id)
    assert "Both at steps 0 and 40:" in drawn.layout.meta["note"]
    rough = [trace.look("gradient_line", 1, step)["smoothness"] for step in (0, 40)]
    assert drawn.data[1].y[0] == pytest.approx(np.exp(np.log(rough).mean()), rel=1e-5)
    for step in (0, 40):
        store.keep_wrong(run_id, "shift", {}, step, "it was dark.")
    assert "it was dark." in figures.draw("dials", store.trace(run_id), {}).layout.meta["said"]


def test_a_dead_network_is_not_smooth_but_out_of_the_comparison(tmp_path):
    """Deep sigmoids without a norm have hardly any shift or curvature: nothing moves."""
    settings = Settings(depth=20, width=16, steps=60, score_every=30)
    arms = (Arm(label="none"), *(Arm(label=p, changes={"norm": "batch", "placement": p}) for p in ("before", "after")))
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=settings, arms=arms))
    execute(store, run.id, lambda: None)
    drawn = seen(store, run.id, "dials")
    assert [t.marker.symbol.endswith("-open") for t in drawn.data] == [True, False, False]
    assert (
        "none: shift" in drawn.layout.meta["note"]
        and "its loss stays near or above guessing" in drawn.layout.meta["note"]
    )


def dials_of(*each):
    """Dials named a, b, c from (shift, rough, loss), each one number or one a seed; then its kind and why it is out."""
    found = {}
    for name, (shift, rough, loss, *rest) in zip("abc", each, strict=False):
        kind, out = (*rest, (), "")[:2] if len(rest) < 2 else rest
        found[name] = dials.Dial(*(np.atleast_1d(np.array(v, float)) for v in (shift, rough, loss)), out, kind)
    return found


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
            ((1, 3, 10), (2, 2, 20), (3, 1, 30)),
            "3 pairs of arms differ in speed; the faster arm has clearly less shift in 3 of them and a clearly "
            "smoother loss in 0: here speed goes with less shift",
        ),
        (((1, 1, 10), (1e-5, 800, 10)), "by a factor of 100000 and the roughness of the loss by one of 800."),
        (((1, 1, 10), (2, 2, 10)), "a; b learn about equally fast, though covariate shift differs by a factor of 2 "),
        (((1, 1, 10), (2, 2, 10.5)), "a; b learn about equally fast"),  # within 10 %
        ((((1, 1), 1, (10, 10)), ((2, 2), 2, (20, 9.9))), "a; b learn about equally fast"),  # the seeds disagree
        (
            (((1, 1, np.nan), 1, (10, 15, np.nan)), ((2, 2, 2), 2, (20, 30, 1))),
            "a learns faster than b",  # a seed that diverged in one arm is compared with none
        ),
        (((1, 1, 10),), "Fewer than two arms have a loss well below guessing"),
        (((1, 1, 10, (0.1,)), (2, 2, 20, (1.0,))), "No two of the arms that learn have the same learning rate"),
        (
            ((1, 1, 10, (0.1,)), (2, 2, 20, (0.1,)), (9, 9, 1, (1.0,))),
            f"Compared are only a; b, as both dials depend on {dials.SAME}. a learns faster than b",
        ),
        (
            ((1, 1, 10), (2, 2, 20), (1, 1, 1, (), "it does not learn")),
            "Compared are only a; b. a learns faster than b, with less covariate shift and a smoother loss",
        ),
    ],
)
def test_the_verdict_says_what_the_points_say(points, words):
    assert dials.verdict(dials_of(*points)).startswith(words) or words in dials.verdict(dials_of(*points))


@pytest.mark.parametrize(
    ("name", "values", "norm"), [("learning_rate", (0.03, 3.0), "batch"), ("batch_size", (8, 512), "none")]
)
def test_arms_are_compared_only_at_one_learning_rate_and_batch_size(tmp_path, name, values, norm):
    """The same untrained networks look rougher at a lower learning rate, and with fewer examples."""
    arms = tuple(Arm(label=f"{name} {v:g}", changes={name: v}) for v in values)
    settings = Settings(depth=5, activation="tanh", norm=norm, steps=60)
    store, run_id = trained(tmp_path, settings, arms, (0, 1, 2))
    drawn, trace = seen(store, run_id, "dials"), store.trace(run_id)
    low, high = (trace.look("gradient_line", arm, 0)["smoothness"] for arm in (0, 1))
    assert (low > 1.4 * high).all()
    note = drawn.layout.meta["note"]
    assert note.startswith("No two of the arms that learn have the same learning rate, optimizer, data and mini-batch")
    assert all(t.marker.symbol.endswith("-open") for t in drawn.data)
    assert [line.partition(":")[0] for line in note.split("\n")][1:] == [*(arm.label for arm in arms), "Shift"]
    assert note.count("(hollow, not compared: no other arm that learns has its learning rate, optimizer, data and") == 2


def trained(tmp_path, settings, arms, seeds=(0,)):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=settings, arms=arms, seeds=seeds))
    execute(store, run.id, lambda: None)
    return store, run.id


def test_what_does_not_learn_is_told_from_what_does_by_the_loss_of_guessing(tmp_path):
    """Deep ReLUs with Xavier weights: gradients arrive, and yet the loss stays at chance."""
    settings = Settings(depth=30, width=32, activation="relu", steps=40, score_every=20)
    arms = (Arm(label="plain"), Arm(label="shallow", changes={"depth": 3, "init": "he"}))
    drawn = seen(*trained(tmp_path, settings, arms), "dials")
    note = drawn.layout.meta["note"]
    assert [t.marker.symbol.endswith("-open") for t in drawn.data] == [True, True]  # none is left to compare with
    assert "plain: shift" in note and "its loss stays near or above guessing: 2.3, that of guessing is 2.3" in note
    assert note.startswith("Fewer than two arms have a loss well below guessing")


def test_a_regression_that_starts_worse_is_not_called_faster_for_halving_its_own_start(tmp_path):
    settings = Settings(data="diabetes", depth=8, activation="tanh", steps=20, learning_rate=0.05, batch_size=32)
    arms = (Arm(label="no norm"), ARMS[1])
    store, run_id = trained(tmp_path, settings, arms, (0, 1, 2))
    seen(store, run_id, "dials")
    trace = store.trace(run_id)
    one, other = (np.array(trace.read("loss", arm).mean) for arm in (0, 1))
    assert (other.mean(1) > one.mean(1)).mean() > 0.9  # batch norm is worse at nearly every step
    plain, normed = (dials.dial(trace, arm, dials.moments(trace)) for arm in (0, 1))
    np.testing.assert_allclose(normed.loss, other.mean(0), rtol=1e-5)
    assert dials.clearly(plain.loss, normed.loss) == -1


def test_a_divergence_of_some_seeds_is_said_and_they_are_out(tmp_path):
    settings = Settings(depth=10, activation="relu", init="he", steps=60, learning_rate=2.2, width=16, score_every=20)
    store, run_id = trained(tmp_path, settings, (Arm(label="plain"), ARMS[1]), tuple(range(8)))
    trace = store.trace(run_id)
    gone = [seed for arm, seed in trace.diverged if arm == 0]
    assert 0 < len(gone) < 8, gone
    note = seen(store, run_id, "dials").layout.meta["note"]
    assert f"with {len(gone)} of 8 seeds, which are left out." in note
    assert np.isnan(dials.dial(store.trace(run_id), 0, dials.moments(trace)).shift[gone]).all()


@pytest.fixture(scope="module")
def half_diverged(tmp_path_factory):
    """He-initialized ReLUs at a large eta: the plain network diverges, the one with batch norm does not."""
    settings = Settings(depth=6, width=32, activation="relu", init="he", learning_rate=3, steps=40, score_every=10)
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(Experiment(settings=settings, arms=(Arm(label="plain"), ARMS[1])))
    execute(store, run.id, lambda: None)
    assert set(store.trace(run.id).diverged) == {(0, 0)}
    return store, run.id


OVER_TIME = ("smoothness", "curvature", "scale_over_time")


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_diverged_does_not_hide_the_others(half_diverged, name, options):
    if name in ("predicted", "learning_rates"):
        return  # before the first update nothing has diverged; no band without arms of several rates
    drawn = seen(*half_diverged, name, options)
    shown = [t for t in drawn.data if "BN" in (t.name or "") or name == "surface"]
    key = "z" if name == "surface" else "y"
    assert any(np.isfinite(np.asarray(t[key], float)).any() for t in shown if t[key] is not None)
    note = drawn.layout.meta["note"]
    assert "nan" not in note
    if name != "undone":  # of arms with batch norm only
        assert "diverged at step" in note
    if name not in OVER_TIME:
        return
    assert "Drawn until then. The axis is chosen for the networks that did not diverge." in note
    for axis in drawn.select_yaxes():
        of = [t for t in drawn.data if t.yaxis == axis.plotly_name.replace("axis", "") and t.mode]
        left, gone = (np.concatenate([t.y for t in of if t.name == label]) for label in ("BN", "plain"))
        assert np.isfinite(gone).any() and not np.isfinite(gone).all()
        low, high = 10.0 ** np.array(axis.range) if axis.type == "log" else axis.range
        assert low <= np.nanmin(left) and high >= np.nanmax(left)
        assert high < 30 * np.nanmax(left)
        if axis.type == "log":
            assert sum(low <= tick <= high for tick in axis.tickvals or (low, high)) >= 2


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
    loss, gradient = (np.exp(np.log(found[q][:, at]).mean()) for q in ("loss", "gradient"))
    assert f"BN: loss {loss:.4g} nats, ‖dE/dW‖ {gradient:.3g}, η/‖W‖² " in note
    marks = [t for t in drawn.data if t.mode == "markers"]
    assert len(marks) == 9 and all(t.x[0] == 2 for t in marks)
    assert note.split("none: ")[1].split(" BN: ")[0].count("η") == 0  # no norm: the scale matters


def test_the_rate_that_counts_is_named_by_optimizer(tmp_path):
    arms = (ARMS[1], Arm(label="Adam", changes={"norm": "batch", "optimizer": "adam"}))
    store, run_id = trained(tmp_path, Settings(depth=2, width=6, data="wine", batch_size=16, steps=2), arms)
    drawn = seen(store, run_id, "invariance")
    assert drawn.layout.yaxis3.title.text == "effective learning rate η/‖W‖² or η/‖W‖"
    note = drawn.layout.meta["note"]
    for arm, (label, power) in enumerate((("BN", 2), ("Adam", 1))):
        norm = store.trace(run_id).read("weight_norm", arm, layer=2).mean[-1, 0]
        told = note.split(f" {label}: ")[1].split(". ")[0].split(" ")
        assert told[-2] == "η/‖W‖" + "²" * (power == 2)
        assert float(told[-1]) == pytest.approx(0.1 / norm**power, rel=0.05)  # one update earlier


def test_losses_have_the_unit_of_the_curves(run, tmp_path):
    settings = Settings(depth=2, width=6, data="diabetes", batch_size=16, steps=4, score_every=2)
    regression = trained(tmp_path, settings, ARMS[:2])
    for name, title in (("smoothness", "{} along the gradient"), ("invariance", "{}")):
        assert seen(*run, name).layout.yaxis.title.text == title.format("cross-entropy E (nats)")
        assert seen(*regression, name).layout.yaxis.title.text == title.format("mean squared error")
    for of, title, unit in ((run, "cross-entropy E (nats)", " nats"), (regression, "mean squared error", "")):
        drawn = seen(*of, "surface")
        assert drawn.layout.coloraxis.colorbar.title.text == title
        assert f"{unit}<extra>BN" in drawn.data[2].hovertemplate
        note = seen(*of, "undone").layout.meta["note"]
        assert ("nats" in note) == bool(unit) and ", training mode: in layer " in note


def test_the_layer_is_the_highest_unless_asked(run):
    trace = run[0].trace(run[1])
    ((_, _, options),) = figures.FIGURES["undone"].needs(
        trace, **figures.asked(figures.FIGURES["undone"].options, {}, trace)
    )
    assert options == {"layer": 4}


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.15, 1.9, ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"]),
        (3e-9, 0.5, ["10<sup>−9</sup>", "10<sup>−7</sup>", "10<sup>−5</sup>", "0.001", "0.1"]),
    ],
)
def test_ticks_can_be_read(low, high, text):
    assert style.ticks(low, high)["ticktext"] == text
    assert style.ticks(2.0, 2.1) is None


def test_an_axis_of_a_few_times_its_least_value_has_three_ticks_or_more():
    """0.24 to 0.8 had the one tick 0.5."""
    for low in np.geomspace(0.1, 1, 50):
        for times in (3.01, 4, 9, 30, 1e4):
            told = style.ticks(low, low * times)
            assert 3 <= sum(low <= v <= low * times for v in told["tickvals"]) <= 10


def test_a_lower_layer_norm_is_singular_by_construction(run):
    note = seen(*run, "spectra").layout.meta["note"]
    assert " Lost, below 10⁻¹² of the greatest, from layer 1 to the top: " in note
    assert "LN " in note.split(" Lost, ")[1] and "BN " not in note.split(" Lost, ")[1]


def test_the_fans_hold_the_middle_half_and_the_conditions_are_the_probes(run):
    store, run_id = run
    drawn, found = seen(*run, "spectra"), seen(*run, "conditions")
    trace = store.trace(run_id)
    arms = [trace.look("jacobian", arm, trace.snapshots()[-1]) for arm in range(3)]
    names = [arm.label for arm in trace.experiment.arms]
    for arm, of in enumerate(arms):
        median = [t for t in drawn.data if t.name == names[arm] and t.mode == "lines+markers"]
        bands = [t for t in drawn.data if t.name == names[arm] and t.fill]
        assert len(median) == 2 and len(bands) == 4
        for line, key in zip(median, ("layer", "product"), strict=True):
            np.testing.assert_allclose(line.y, np.exp(np.log(of[key][:, :, 2]).mean(0)), rtol=1e-6)
            assert (line.customdata[:, 1] <= line.y).all() and (line.y <= line.customdata[:, 2]).all()
        lines = [t for t in found.data if t.name == names[arm] and t.mode == "lines+markers"]
        np.testing.assert_allclose(lines[0].y, np.exp(np.log(of["layer_condition"]).mean(0)), rtol=1e-5)
        np.testing.assert_allclose(lines[2].y, of["product_lost"].mean(0), rtol=1e-6)
    ranges = {tuple(axis.tickvals) for axis in drawn.select_yaxes(row=2)}
    assert len(ranges) == 1  # one axis for all arms
    (shown,) = {axis.range for axis in drawn.select_yaxes(row=2)}
    seen_there = np.concatenate([np.array(t.y, float) for t in drawn.data if t.yaxis in ("y4", "y5", "y6")])
    assert 10 ** shown[0] < np.nanmin(seen_there) and np.nanmax(seen_there) < 10 ** shown[1]


def test_a_look_that_measured_less_says_so(run, monkeypatch):
    trace = run[0].trace(run[1])
    seen(*run, "spectra")
    whole = trace.look
    less = lambda *a, **o: {k: v for k, v in whole(*a, **o).items() if not k.endswith("condition")}  # noqa: E731
    monkeypatch.setattr(trace, "look", less)
    for name in ("jacobians", "spectra", "conditions"):
        assert "An older version" in figures.draw(name, trace, {}).layout.meta["said"]


@pytest.mark.parametrize(
    ("activation", "init", "arm", "factor"),
    [
        ("relu", "xavier", {}, np.sqrt(0.5)),
        ("relu", "he", {"norm": "batch"}, np.sqrt(np.pi / (np.pi - 1))),
        ("gelu", "he", {}, None),  # far from its limit: there no layer's factor is that of infinitely many
        ("elu", "he", {}, None),
    ],
)
def test_the_law_beside_the_product_of_jacobians_is_measured(tmp_path, monkeypatch, activation, init, arm, factor):
    monkeypatch.setattr(jacobian, "WIDEST", 5)  # singular values are not what is compared
    settings = Settings(depth=6, width=256, activation=activation, init=init, steps=1, batch_size=256)
    store, run_id = trained(tmp_path, settings, (Arm(label="a", changes=arm),), (0, 1, 2, 3))
    drawn = seen(store, run_id, "jacobians", {"step": "0"})
    (rings,) = (line for line in drawn.data if line.mode == "markers")
    measured = store.trace(run_id).look("jacobian", 0, 0)["training"]
    np.testing.assert_allclose(rings.y, np.sqrt(np.square(measured).mean(0)), rtol=0.03)
    if factor:
        np.testing.assert_allclose(rings.y, factor ** np.arange(5, 0, -1), rtol=0.03)
    assert "Rings: the law" in drawn.layout.meta["note"]


def test_a_relu_without_a_norm_has_lines_where_most_directions_are_lost(tmp_path):
    settings = Settings(depth=16, width=16, activation="relu", init="he", steps=1)
    store, run_id = trained(tmp_path, settings, (Arm(label="plain"),), (0, 1))
    drawn = seen(store, run_id, "jacobians", {"step": "0"})
    greatest = [np.asarray(t.y, float) for t in drawn.data if t.name == "plain, greatest" and t.mode == "lines+markers"]
    assert len(greatest) == 2 and all(np.isfinite(y).all() and (y > 0).all() for y in greatest)
    fans = seen(store, run_id, "spectra", {"step": "0"})
    assert "of the directions" in fans.layout.meta["note"]
    assert all((np.asarray(t.y, float)[np.isfinite(t.y)] > 0).all() for t in fans.data)  # no band down to a floor


RATES = tuple(
    Arm(label=f"{label}, η = {rate:g}", changes=changes | {"learning_rate": rate})
    for label, changes in (("plain", {}), ("BN", {"norm": "batch"}))
    for rate in (0.01, 0.3, 3.0)
)


def test_the_band_over_learning_rates_spans_the_losses_of_the_arms(tmp_path):
    settings = Settings(depth=6, width=32, activation="relu", init="he", steps=30)
    store, run_id = trained(tmp_path, settings, RATES)
    trace = store.trace(run_id)
    assert {arm for arm, _ in trace.diverged} == {2}
    plain, normed = rates.bands(trace)
    assert (plain.arms, normed.arms) == ((0, 1, 2), (3, 4, 5)) and plain.rates == (0.01, 0.3, 3)
    each = np.stack([looks.present(np.array(trace.read("loss", arm).mean), 1) for arm in (3, 4, 5)])
    mean = np.stack([[line[max(0, t - 9) : t + 1].mean() for t in range(30)] for line in each])
    np.testing.assert_allclose(normed.low, mean.min(0), rtol=1e-5)
    np.testing.assert_allclose(normed.high, mean.max(0), rtol=1e-5)
    assert np.isinf(plain.high[-1]) and np.isfinite(plain.low[-1])  # left out, the band would look narrow
    drawn = figures.draw("learning_rates", trace, {})
    assert [t.name for t in drawn.data if t.showlegend] == ["plain", "BN"]
    assert "plain: η = 0.01, 0.3, 3, at the end without a top." in drawn.layout.meta["note"]
    assert "drawn as the band's upper end from there on" in drawn.layout.meta["note"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_angle_of_an_update_is_that_of_the_weights(tmp_path, optimizer):
    settings = Settings(depth=3, width=8, data="wine", batch_size=16, steps=12, optimizer=optimizer, weight_decay=0.01)
    experiment = Experiment(settings=settings, arms=ARMS[:2], seeds=(0, 1))
    store = RunStore(tmp_path)
    run = store.create(experiment)
    group, weights = Group(experiment, 0, "cpu", torch.float32), []
    with store.writer(run.id) as writer:
        for record in train(experiment):
            writer.keep(record)
            group.stack.restore(record.step + 1, record.snapshot()[0])
            weights.append(group.stack.p["weight"][0].double().flatten(1).numpy())  # layer 2, after update t
    trace = store.trace(run.id)
    order = [(n.arm, n.seed) for n in experiment.stacks[0]]
    for arm in (0, 1):
        steps, told = geometry.angles(trace, arm, 2)
        both = []
        for seed in (0, 1):
            w = np.stack([each[order.index((arm, seed))] for each in weights])
            u = w / np.linalg.norm(w, axis=1, keepdims=True)
            both.append(np.rad2deg(2 * np.arcsin(np.linalg.norm(np.diff(u, axis=0), axis=1) / 2)))
        assert steps.tolist() == list(range(11))
        np.testing.assert_allclose(told[1:], np.transpose(both)[:10], rtol=1e-3)


def test_the_limit_of_stability_is_lower_with_weight_decay(tmp_path):
    settings = Settings(depth=3, width=6, data="wine", batch_size=16, steps=2, learning_rate=0.5, weight_decay=1.0)
    arms = (Arm(label="SGD"), Arm(label="momentum", changes={"optimizer": "momentum"}))
    drawn = seen(*trained(tmp_path, settings, arms), "curvature")
    lines = {shape.label.text: shape.y0 for shape in drawn.layout.shapes}
    assert lines == {"2/η − λ, η = 0.5, λ = 1": 3.0, "2(1 + 0.9)/η − λ, η = 0.5, λ = 1": pytest.approx(6.6)}


def test_curvature_is_judged_seed_by_seed(run, monkeypatch):
    """One seed above 2/eta = 20 and one below: their mean says neither."""
    tops = iter([[[98, 13.4], [30, 40]], [[19, 13.4], [1, 2]], [[98, 13.4], [7, 7]]])
    told = lambda *_: (np.array([0, 40]), {"top": np.array(next(tops), float)})  # noqa: E731
    monkeypatch.setattr(contest, "looks", told)
    drawn = figures.draw("curvature", run[0].trace(run[1]), {})
    assert "Beyond it at times: none (2 of 2 seeds), LN (1 of 2 seeds)." in drawn.layout.meta["note"]
    (line,) = (t for t in drawn.data if t.name == "LN" and t.mode == "lines+markers")
    np.testing.assert_allclose(line.y, [np.sqrt(98 * 13.4), 7], rtol=1e-6)
    (top,) = (t for t in drawn.data if t.name == "LN" and t.fill)
    np.testing.assert_allclose(top.y, [98, 7], rtol=1e-6)


def test_names_of_lines_are_not_printed_over_each_other():
    names = {20.0: "a", 19.9: "b", 2.0: "c", 21.0: "d"}
    assert contest.told_apart(names, 4) == {2.0: "c", 19.9: "", 20.0: "", 21.0: "d<br>a<br>b"}
    assert contest.told_apart(names, 0.05) == {2.0: "c", 19.9: "", 20.0: "a<br>b", 21.0: "d"}


def test_smoothness_is_the_geometric_mean_of_the_seeds(run):
    drawn, trace = seen(*run, "smoothness"), run[0].trace(run[1])
    _, found = trace.looks("gradient_line", 1)
    columns = [[t for t in drawn.data if t.name == "BN" and t.yaxis == f"y{i}" and "lines+m" in t.mode] for i in "23"]
    (low, high), (rough,) = columns
    mean = np.exp(np.log(found["change"]).mean(1))
    np.testing.assert_allclose(low.y, mean.min(1), rtol=1e-5)
    np.testing.assert_allclose(high.y, mean.max(1), rtol=1e-5)
    np.testing.assert_allclose(rough.y, np.exp(np.log(found["smoothness"]).mean(1)), rtol=1e-5)
    assert "Geometric means over 2 seeds" in drawn.layout.meta["note"]


def test_both_solid_surfaces_stand_in_one_frame_with_their_paths(run):
    store, run_id = run
    drawn = seen(store, run_id, "surface", {"plane": "path", "look": "surface"})
    scenes = list(drawn.select_scenes())
    assert [s.aspectmode for s in scenes] == ["cube"] * 2 and scenes[0].zaxis.range == scenes[1].zaxis.range
    assert scenes[0].domain.x[1] < scenes[1].domain.x[0] and scenes[0].domain.y == scenes[1].domain.y
    low, high = scenes[0].zaxis.range
    for t in drawn.data:
        assert low <= np.nanmin(np.asarray(t.z, float)) <= np.nanmax(np.asarray(t.z, float)) <= high
    at = store.trace(run_id).snapshots()[-1]
    found = store.trace(run_id).look("path", 1, at, points=surface.POINTS)
    line = next(t for t in drawn.data if t.type == "scatter3d" and np.allclose(t.x, found["path"][0][:, 0]))
    np.testing.assert_allclose(line.y, found["path"][0][:, 1])
    assert line.customdata.tolist() == store.trace(run_id).snapshots() and "step %{customdata}" in line.hovertemplate
    share = found["share"][0]
    assert f"BN {share[0]:.0%} + {share[1]:.0%}" in drawn.layout.meta["note"]
    assert "the first seed, 0" in drawn.layout.meta["note"]


@pytest.mark.parametrize("look", ["contour", "surface"])
def test_one_arm_is_shown_once(run, look):
    drawn = seen(*run, "surface", {"plane": "path", "look": look, "arm": "1", "beside": "1"})
    assert [t.type for t in drawn.data].count(look) == 1 and len(drawn.layout.annotations) == 1
    assert drawn.layout.meta["note"].count("BN ") == 1


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.03, 4, ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (1.9, 2.31, ["1.9", "2", "2.1", "2.2", "2.3"]),
        (2.302581, 2.302592, ["2.302582", "2.302584", "2.302586", "2.302588", "2.30259", "2.302592"]),
        (1.5, 1.5, []),
    ],
)
def test_colors_are_told_as_round_losses(low, high, text):
    told = surface.round_losses(low, high)
    values = 10 ** np.array(told["tickvals"])
    assert [t for v, t in zip(values, told["ticktext"], strict=True) if low - 1e-9 <= v <= high + 1e-9] == text


def test_heights_between_the_points_of_a_grid_are_bilinear():
    x, y = np.linspace(-1, 2, 7), np.linspace(0, 1, 5)
    z = 1 + 2 * x[None] - y[:, None] + 3 * x[None] * y[:, None]
    points = np.array([[-1, 0], [2, 1], [0.3, 0.77], [1.9, 0.01]])
    expected = 1 + 2 * points[:, 0] - points[:, 1] + 3 * points[:, 0] * points[:, 1]
    np.testing.assert_allclose(surface.between(x, y, z, points), expected)


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
