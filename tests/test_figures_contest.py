"""The figures of the contest draw the networks, layers and directions they say they draw."""

import numpy as np
import pytest
from looked_at import ARMS, seen, trained

from bnlab import Arm, Settings, figures
from bnlab.figures import contest

SMALL = Settings(depth=4, width=8, steps=20, data="wine", batch_size=16, score_every=10)
BN = ARMS[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loss_along_the_update_is_another_choice(tmp_path, optimizer):
    store, run_id = trained(tmp_path, SMALL.model_copy(update={"optimizer": optimizer}), (BN,))
    along, update = (seen(store, run_id, "smoothness", {"direction": d}) for d in ("gradient_line", "update_line"))
    told = [np.array(f.data[-1].y, float) for f in (along, update)]
    assert np.allclose(*told) == (optimizer == "sgd")
    assert "along the update" in update.layout.yaxis.title.text
    assert "the optimizer's own next update" in update.layout.meta["note"]
    assert "steps of 1/2 to 4 learning rates along its gradient:" in along.layout.meta["note"]


def test_one_quantity_has_one_name(why_run):
    along, both = seen(*why_run, "smoothness").layout, seen(*why_run, "dials").layout
    assert along.yaxis3.title.text == both.yaxis.title.text == "roughness ‖Δg‖/‖Δw‖ (less is smoother)"
    assert [told.meta["note"].count("effective smoothness") for told in (along, both)] == [0, 1]


def test_an_arm_that_diverged_does_not_stretch_the_axes_of_the_others(tmp_path):
    lost = Arm(label="lost", changes={"learning_rate": 50.0})
    settings = SMALL.model_copy(update={"data": "diabetes", "learning_rate": 0.01})
    store, run_id = trained(tmp_path, settings, (BN, lost))
    assert {arm for arm, _ in store.trace(run_id).diverged} == {1}
    drawn = seen(store, run_id, "smoothness", {"direction": "gradient_line"})
    for axis in drawn.select_yaxes():
        of = [t for t in drawn.data if t.yaxis == axis.plotly_name.replace("axis", "") and t.mode == "lines+markers"]
        arms = ([np.array(t.y, float) for t in of if t.name == arm] for arm in ("BN", "lost"))
        there, gone = map(np.concatenate, arms)
        assert np.isfinite(gone).any()
        assert np.nanmax(there) < 10.0 ** axis.range[1] < 2 * np.nanmax(there)
    for one in (drawn, seen(store, run_id, "curvature")):
        note = one.layout.meta["note"]
        assert "lost diverged at step" in note and "Drawn until then." in note and "left out" not in note
    assert "Beyond it at times: lost. On a quadratic" in note
    (lost,) = [t for t in one.data if t.name == "lost"]  # of the curvature
    assert np.isfinite(np.array(lost.y, float)[0])


def test_an_arm_that_had_diverged_at_once_leaves_the_chart_to_the_others(tmp_path):
    wild = Arm(label="wild", changes={"init_gain": 100.0, "activation": "linear", "depth": 20})
    store, run_id = trained(tmp_path, SMALL, (BN, wild))
    assert store.trace(run_id).diverged[1, 0][0] == 0, "the test's own networks"
    drawn = seen(store, run_id, "smoothness", {"direction": "gradient_line"})
    there = {t.name: np.isfinite(np.array(t.y, float)).any() for t in drawn.data if t.name}
    assert there == {"BN": True, "wild": False}


def test_arms_all_of_which_are_lost_at_the_end_are_drawn_until_then(why_run, monkeypatch):
    seen_of = {"loss": np.ones((2, 2, 5)), "change": np.ones((2, 2, 4)), "smoothness": np.full((2, 2), 3.0)}
    for values in seen_of.values():
        values[1] = np.nan
    monkeypatch.setattr(contest, "looks", lambda *_: (np.array([0, 40]), seen_of))
    drawn = figures.draw("smoothness", why_run[0].trace(why_run[1]), {"direction": "gradient_line"})
    roughness = [np.array(line.y, float) for line in drawn.data if line.yaxis == "y3" and line.mode == "lines+markers"]
    np.testing.assert_allclose(roughness, [[3, np.nan]] * 3)


def test_the_drift_that_is_drawn_is_that_of_what_a_layer_reads(tmp_path):
    store, run_id = trained(tmp_path, SMALL, (BN,))
    drawn = seen(store, run_id, "covariate_shift", {"step": "20"})
    (told,) = [t for t in drawn.data if t.xaxis == "x3"]
    assert np.isnan(np.array(told.y, float)[0]), "data do not drift, and 0 has no logarithm"
    assert [tuple(t.x) for t in drawn.data if t.name == "BN"] == [(2, 3, 4), (2, 3, 4), (1, 2, 3, 4)]
    np.testing.assert_allclose(np.array(told.y, float)[1:], store.trace(run_id).look("shift", 0, 20)["drift"][0, 1:])


def test_the_limit_of_stability_is_lower_with_weight_decay(tmp_path):
    settings = Settings(depth=3, width=6, data="wine", batch_size=16, steps=2, learning_rate=0.5, weight_decay=1.0)
    arms = (Arm(label="SGD"), Arm(label="momentum", changes={"optimizer": "momentum"}))
    arms += (Arm(label="near", changes={"learning_rate": 0.51}),)  # 2/0.51 - 1: its name stands below the one above it
    drawn = seen(*trained(tmp_path, settings, arms), "curvature")
    lines = {round(shape.y0, 3): shape.label.text for shape in drawn.layout.shapes}
    assert lines == {
        2.922: "",
        3.0: "2/η − λ, η = 0.5, λ = 1<br>2/η − λ, η = 0.51, λ = 1",
        6.6: "2(1 + 0.9)/η − λ, η = 0.5, λ = 1",
    }


def test_the_limit_of_an_arm_that_diverged_does_not_stretch_the_axis(tmp_path):
    """The line of one that had diverged at once pressed the curves of the others together."""
    settings = Settings(depth=3, width=6, data="wine", batch_size=16, steps=8, score_every=2, learning_rate=0.5)
    arms = (Arm(label="sane"), Arm(label="wild", changes={"learning_rate": 100.0, "activation": "relu"}))
    drawn = seen(*trained(tmp_path, settings, arms), "curvature")
    assert "wild diverged" in drawn.layout.meta["note"]
    assert [shape.y0 for shape in drawn.layout.shapes] == [4.0], "2/100 is not on the axis"


def test_curvature_is_judged_seed_by_seed(why_run, monkeypatch):
    """One seed above 2/eta = 20 and one below: their mean says neither."""
    tops = iter([[[98, 13.4], [30, 40]], [[19, 13.4], [1, 2]], [[98, 13.4], [7, 7]]])
    told = lambda *_: (np.array([0, 40]), {"top": np.array(next(tops), float)})  # noqa: E731
    monkeypatch.setattr(contest, "looks", told)
    drawn = figures.draw("curvature", why_run[0].trace(why_run[1]), {})
    assert "Beyond it at times: none (2 of 2 seeds), LN (1 of 2 seeds)." in drawn.layout.meta["note"]
    (line,) = (t for t in drawn.data if t.name == "LN" and t.mode == "lines+markers")
    np.testing.assert_allclose(line.y, [np.sqrt(98 * 13.4), 7], rtol=1e-6)
    (top,) = (t for t in drawn.data if t.name == "LN" and t.fill)
    np.testing.assert_allclose(top.y, [98, 7], rtol=1e-6)


def test_names_of_lines_are_not_printed_over_each_other():
    names = {20.0: "a", 19.9: "b", 2.0: "c", 21.0: "d"}
    assert contest.told_apart(names, 4) == {2.0: "c", 19.9: "", 20.0: "", 21.0: "d<br>a<br>b"}
    assert contest.told_apart({1.0: "a", 1.1: "b", 1.32: "c"}, 1) == {1.0: "", 1.1: "", 1.32: "c<br>b<br>a"}, (
        "two lines high"
    )
    assert contest.told_apart(names, 0.05) == {2.0: "c", 19.9: "", 20.0: "a<br>b", 21.0: "d"}


def test_smoothness_is_the_geometric_mean_of_the_seeds(why_run):
    drawn, trace = seen(*why_run, "smoothness"), why_run[0].trace(why_run[1])
    _, found = trace.looks("gradient_line", 1)
    columns = [
        [t for t in drawn.data if t.name == "BN" and t.yaxis == f"y{i}" and "lines+m" in t.mode] for i in ("", 2, 3)
    ]
    *ranges, (rough,) = columns
    for (low, high), values in zip(ranges, (found["loss"][..., 1:], found["change"]), strict=True):
        mean = np.exp(np.log(values).mean(1))  # of each length of step; the loss where it begins is no step
        np.testing.assert_allclose(low.y, mean.min(1), rtol=1e-5)
        np.testing.assert_allclose(high.y, mean.max(1), rtol=1e-5)
    np.testing.assert_allclose(rough.y, np.exp(np.log(found["smoothness"]).mean(1)), rtol=1e-5)
    assert "Geometric means over 2 seeds" in drawn.layout.meta["note"]


@pytest.mark.parametrize("noise", [{}, {"noise_shift": 0.5}, {"noise_scale": 0.5}])
def test_the_noise_of_the_next_step_is_spoken_of_only_where_there_is_some(tmp_path, noise):
    arms = (BN, Arm(label="other", changes=BN.changes | noise | {"learning_rate": 0.05}))
    store, run_id = trained(tmp_path, SMALL.model_copy(update={"steps": 1}), arms)
    assert ("noise of the next step" in seen(store, run_id, "covariate_shift").layout.meta["note"]) == bool(noise)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_and_adam_are_spoken_of_in_the_curvature_where_one_arm_has_them(tmp_path, decay):
    arms = (BN, Arm(label="other", changes={"optimizer": "adam" if decay else "sgd", "weight_decay": decay}))
    note = seen(*trained(tmp_path, SMALL.model_copy(update={"steps": 1}), arms), "curvature").layout.meta["note"]
    assert ("weight decay adds λ to it" in note) == ("Adam scales every parameter's step" in note) == bool(decay)


def test_two_hidden_layers_have_a_covariate_shift_and_one_has_none(tmp_path):
    for depth, there in ((1, False), (2, True)):
        asked = SMALL.model_copy(update={"steps": 1, "depth": depth})
        drawn = seen(*trained(tmp_path / str(depth), asked, (BN,)), "covariate_shift")
        assert bool(drawn.data) == there and ("Raise depth" in drawn.layout.meta.get("said", "")) != there
