"""Scale invariance, the rate that counts and the angles of updates are those of the weights themselves."""

import numpy as np
import pytest
import torch
from looked_at import ARMS, seen, trained

from bnlab import Arm, Experiment, Settings, figures
from bnlab.figures import geometry
from bnlab.group import Group
from bnlab.store import RunStore
from bnlab.train import train


def test_a_factor_is_marked_and_its_numbers_are_the_probes(why_run):
    store, run_id = why_run
    drawn = seen(*why_run, "invariance", {"c": "2", "layer": "3"})
    trace = store.trace(run_id)
    found = trace.look("invariance", 1, trace.snapshots()[-1], layer=3)
    at = list(found["factor"][0]).index(2.0)
    note = drawn.layout.meta["note"]
    loss, gradient = (np.exp(np.log(found[q][:, at]).mean()) for q in ("loss", "gradient"))
    assert f"BN: loss {loss:.4g} nats, ‖dE/dW‖ {gradient:.3g}, η/‖W‖² " in note
    assert not drawn.layout.annotations and all(axis.tickvals != () for axis in drawn.select_yaxes())
    turned = ", ".join(
        f"{name} {trace.look('invariance', arm, 40, layer=3)['angle'][:, 2].mean():.2g}°"
        for arm, name in enumerate(("none", "BN", "LN"))
    )
    assert f"The next update turns the layer's weights by: {turned}." in note
    marks = [t for t in drawn.data if t.mode == "markers"]
    assert len(marks) == 9 and all(t.x[0] == 2 for t in marks)
    assert note.split("none: ")[1].split(" BN: ")[0].count("η") == 0  # no norm: the scale matters


def test_the_rate_that_counts_is_named_by_optimizer(tmp_path):
    arms = (ARMS[1], Arm(label="Adam", changes={"norm": "batch", "optimizer": "adam"}))
    store, run_id = trained(tmp_path, Settings(depth=2, width=6, data="wine", batch_size=16, steps=2), arms)
    drawn = seen(store, run_id, "invariance")
    assert drawn.layout.yaxis3.title.text == "effective learning rate η/‖W‖² or η/‖W‖"
    note = drawn.layout.meta["note"]
    assert "Adam's steps do not shrink with the gradient" in note
    for arm, (label, power) in enumerate((("BN", 2), ("Adam", 1))):
        norm = store.trace(run_id).read("weight_norm", arm, layer=2).mean[-1, 0]
        told = note.split(f" {label}: ")[1].split(". ")[0].split(" ")
        assert told[-2] == "η/‖W‖" + "²" * (power == 2)
        assert float(told[-1]) == pytest.approx(0.1 / norm**power, rel=0.05)  # one update earlier


def test_where_no_seed_has_a_gradient_the_note_says_0(tmp_path):
    settings = Settings(data="wine", depth=2, width=1, batch_size=32, activation="relu", weight_decay=1.0, steps=6)
    gone = Arm(label="decayed to nothing", changes={"learning_rate": 1.0})
    drawn = seen(*trained(tmp_path, settings, (gone,)), "invariance")
    note = drawn.layout.meta["note"]
    assert "‖dE/dW‖ 0." in note and "nan" not in note
    said = {words.xref: words.text for words in drawn.layout.annotations}
    assert said["x2 domain"] == "The gradient is 0 in every network."  # ticks were invented for an empty panel
    assert said["x3 domain"] == "No norm here divides the scale out." and set(said) == {"x2 domain", "x3 domain"}
    for axis in (drawn.layout.xaxis2, drawn.layout.yaxis2, drawn.layout.xaxis3, drawn.layout.yaxis3):
        assert axis.tickvals == () and axis.title.text
    assert drawn.layout.yaxis.tickvals != ()


@pytest.mark.parametrize(("loss", "told"), [(0.0, "loss 0 nats,"), (np.inf, "loss not finite,")])
def test_a_loss_that_has_no_place_on_the_axis_is_told_in_the_note(why_run, monkeypatch, loss, told):
    """It was nan nats."""
    seen(*why_run, "invariance")
    trace = why_run[0].trace(why_run[1])
    whole = trace.look
    monkeypatch.setattr(trace, "look", lambda *a, **o: whole(*a, **o) | {"loss": np.full((2, 9), loss)})
    note = figures.draw("invariance", trace, {}).layout.meta["note"]
    assert note.count(told) == 3 and "nan" not in note


def test_weights_that_are_0_have_no_rate_that_counts_and_no_gap_to_take_apart(tmp_path):
    """The rate is without bound, and the population has no spread to measure the gap in; numpy warns of nothing."""
    settings = Settings(data="wine", depth=2, width=1, batch_size=32, activation="relu", weight_decay=1.0, steps=30)
    fixed = Arm(label="fixed", changes={"norm": "batch", "rescale": "fixed", "learning_rate": 1.0})
    run = trained(
        tmp_path, settings, (Arm(label="BN", changes=ARMS[1].changes | {"learning_rate": 1.0}), fixed), (0, 1)
    )
    note = seen(*run, "invariance").layout.meta["note"]
    trace = run[0].trace(run[1])
    assert trace.read("weight_norm", 0, layer=2).mean[-1].max() == 0
    assert "‖dE/dW‖ 0. fixed: " in note and "nan" not in note and "inf" not in note
    for arm in "01":
        words = seen(*run, "why_off", {"arm": arm}).layout.meta["said"]
        assert words == "The population of this layer has no spread: there is nothing to measure the gap in."


def test_the_layer_is_the_highest_unless_asked(why_run):
    trace = why_run[0].trace(why_run[1])
    ((_, _, options),) = figures.FIGURES["undone"].needs(
        trace, **figures.asked(figures.FIGURES["undone"].options, {}, trace)
    )
    assert options == {"layer": 4}


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


def test_norm_ratio_and_angle_of_the_layer_that_is_asked_for_are_drawn_over_the_training(why_run):
    trace = why_run[0].trace(why_run[1])
    drawn = figures.draw("scale_over_time", trace, {"layer": "2"})
    titles = [axis.title.text for axis in drawn.select_yaxes()]
    assert titles == ["‖W‖", "update ratio ‖ΔW‖/‖W‖", "angle of an update in degrees"]
    for arm, of in enumerate(trace.experiment.arms):
        lines = [t for t in drawn.data if t.name == of.label and t.mode == "lines" and not t.fill and t.hovertemplate]
        norm, ratio = (trace.read(name, arm, layer=2) for name in ("weight_norm", "update_ratio"))
        steps, angle = geometry.angles(trace, arm, 2)
        means = norm.mean.mean(1), np.exp(np.log(ratio.mean).mean(1)), np.exp(np.log(angle).mean(1))
        for line, x, y in zip(lines, (norm.steps, ratio.steps, steps), means, strict=True):
            np.testing.assert_array_equal(line.x, x)
            np.testing.assert_allclose(line.y, y, rtol=1e-5)


def test_angles_are_told_only_from_where_no_step_is_missing_any_more(why_run, monkeypatch):
    trace, missing = why_run[0].trace(why_run[1]), "Of older steps only summaries are kept"
    assert missing not in figures.draw("scale_over_time", trace, {}).layout.meta["note"]
    monkeypatch.setattr(trace, "exact", lambda *_: [(0, 10), (20, 30), (30, 40)])
    assert geometry.angles(trace, 1, 2)[0].tolist() == [*range(20, 39)]
    assert missing in figures.draw("scale_over_time", trace, {}).layout.meta["note"]


BN, FROZEN = ARMS[1], Arm(label="frozen", changes={"norm": "batch", "statistics": "moving"})


@pytest.mark.parametrize(
    ("arms", "mode"),
    [
        ((BN,), "training mode"),
        ((FROZEN,), "training with frozen moving averages"),
        ((BN, FROZEN), "training mode (frozen arms: with their moving averages)"),
    ],
)
def test_an_undone_norm_is_told_in_its_mode_with_what_the_probe_saw(tmp_path, arms, mode):
    store, run_id = trained(tmp_path, Settings(depth=3, width=6, data="wine", batch_size=16, steps=3), arms)
    drawn = seen(store, run_id, "undone", {"layer": "2"})
    note = drawn.layout.meta["note"]
    assert note.startswith(f"Step 3, {mode}: in layer 2 ")
    assert ("from layer 2 down the gradients differ" in note) == (BN in arms)
    assert ("there the gradients are the same" in note) == (FROZEN in arms)
    for arm, of in enumerate(arms):
        found = store.trace(run_id).look("undo", arm, 3, layer=2)
        assert f"{of.label} {found['loss_with'][0]:.6g} and {found['loss_without'][0]:.6g} nats" in note
        for line, key in zip(drawn.data[3 * arm :], ("gradient_with", "gradient_without", "cosine"), strict=False):
            np.testing.assert_allclose(line.y, found[key][0], rtol=1e-5)


def test_great_losses_of_an_undone_norm_are_written_as_powers_of_ten(tmp_path, monkeypatch):
    store, run_id = trained(tmp_path, Settings(depth=2, width=4, data="wine", batch_size=16, steps=1), (BN,))
    seen(store, run_id, "undone")
    trace = store.trace(run_id)
    whole = trace.look
    great = {"loss_with": np.array([1.75729e15]), "loss_without": np.array([41.2345678e9])}
    monkeypatch.setattr(trace, "look", lambda *a, **o: whole(*a, **o) | great)
    note = figures.draw("undone", trace, {}).layout.meta["note"]
    assert "BN 1.75729×10¹⁵ and 4.12346×10¹⁰ nats" in note and "e+" not in note


def test_every_norm_behind_an_activation_that_bends_is_said_to_move(tmp_path):
    """Layer norm moves there for the same reason, and was not named."""
    after = {"placement": "after"}
    arms = (ARMS[0], *(Arm(label=n, changes={"norm": n, **after}) for n in ("batch", "layer")), ARMS[2])
    settings = Settings(depth=2, width=6, data="wine", batch_size=16, steps=2, activation="tanh")
    note = seen(*trained(tmp_path, settings, arms), "invariance").layout.meta["note"]
    moves = [name for name in ("none", "batch", "layer", "LN") if f"{name} moves: h stands in between." in note]
    assert moves == ["batch", "layer"]


def test_frozen_averages_are_said_to_stand_still_where_the_scale_moves(tmp_path):
    settings = Settings(depth=2, width=6, data="wine", batch_size=16, steps=2)
    note = seen(*trained(tmp_path, settings, (BN, FROZEN)), "invariance").layout.meta["note"]
    assert "frozen moves: its moving averages stand still." in note and "BN moves" not in note and "Adam" not in note
