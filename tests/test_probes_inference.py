"""Inference with another alpha is that of a training with it, and is refused where steps are missing."""

import numpy as np
import pytest
from looked_at import forked, looked, recorded, slot

from bnlab import lineage
from bnlab.looking import look
from bnlab.probes import Copies, checked
from bnlab.probes.broken import MISTAKES
from bnlab.probes.inference import averages
from bnlab.probes.off import sizes
from bnlab.store import RunStore


@pytest.mark.parametrize(("asked", "online"), [(0.9, 1), (0.99, 3)])
def test_inference_with_another_alpha_is_that_of_training_with_it(inference_trace, asked, online):
    found = looked(inference_trace, "inference", 40, alpha=asked)
    place = slot(inference_trace, 1)
    steps, losses, accuracies = inference_trace.scores(online, "test", "moving")
    np.testing.assert_array_equal(found["step"][place], steps)
    np.testing.assert_allclose(found["loss"][place], losses[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found["accuracy"][place], accuracies[:, 0], atol=0.02)
    assert np.isnan(found["loss"][slot(inference_trace, 0)]).all()


def test_the_curve_against_alpha_goes_through_the_recorded_loss(inference_trace):
    found = looked(inference_trace, "alphas", 40)
    recorded = inference_trace.scores(2, "train", "moving")[1][-1, 0]
    place = slot(inference_trace, 2)
    at = list(found["alpha"][place])
    assert found["train_loss"][place, at.index(0.9)] == pytest.approx(recorded, rel=1e-4)
    one = looked(inference_trace, "inference", 40, alpha=0.5)
    assert found["test_loss"][place, at.index(0.5)] == pytest.approx(one["loss"][place, -1])


def test_the_snapshots_that_are_scored_are_spread_over_the_run_up_to_the_step_that_is_looked_at(
    inference_trace, monkeypatch
):
    whole = looked(inference_trace, "inference", 40, alpha=0.5)
    assert whole["step"][0].tolist() == [0, 10, 20, 30, 40]
    early = looked(inference_trace, "inference", 20, alpha=0.5)
    assert early["step"][0].tolist() == [0, 10, 20]
    np.testing.assert_array_equal(early["loss"], whole["loss"][:, :3])
    monkeypatch.setattr("bnlab.probes.inference.MOST_SNAPSHOTS", 3)
    few = looked(inference_trace, "inference", 40, alpha=0.5)
    assert few["step"][0].tolist() == [0, 20, 40]
    np.testing.assert_array_equal(few["loss"], whole["loss"][:, ::2])


def test_a_regression_has_no_accuracy_at_inference_either(store):
    found = looked(recorded(store, data="diabetes", steps=10), "inference", 10, alpha=0.5)
    assert np.isfinite(found["loss"]).all() and np.isnan(found["accuracy"]).all()


@pytest.mark.parametrize("name", ["inference", "alphas"])
def test_where_no_arm_has_batch_norm_that_is_said_and_an_arm_of_another_depth_needs_none(tmp_path, name):
    """It said that only 0 of 40 steps are kept, also of a run with batch norm beside an arm of another depth."""
    store = RunStore(tmp_path)
    without = recorded(store, ({}, {"norm": "layer", "depth": 3}))
    with pytest.raises(ValueError, match="no arm of this run has batch norm, so it has no moving averages"):
        looked(without, name, 40)
    beside = recorded(store, ({"depth": 3}, {"norm": "batch"}))
    quantity = "loss" if name == "inference" else "test_loss"
    look(store, beside.run.id, name, {}, 40, beside.snapshot(40))
    plain, normed = (beside.look(name, arm, 40, **checked(name, {}))[quantity] for arm in (0, 1))
    assert np.isnan(plain).all() and np.isfinite(normed).all()


def test_averages_that_were_frozen_are_not_made_anew(tmp_path):
    """Every step's statistics are recorded, but no mini-batch came in: another loss was told than the arm's own."""
    store, swapped = RunStore(tmp_path), list(MISTAKES).index("alpha swapped")
    frozen = recorded(store, ({"norm": "batch"}, {"norm": "batch", "statistics": "moving"}), alpha=0.6)
    set_free, then_frozen = forked(store, frozen, 20, arm=1, statistics="batch"), forked(store, frozen, 20, alpha=0.9)
    then_frozen = forked(store, then_frozen, 30, arm=1, statistics="moving")
    for trace, arm in ((frozen, 1), (set_free, 0), (set_free, 1), (then_frozen, 1)):
        told = {}
        for name, quantity in (("inference", "loss"), ("alphas", "test_loss"), ("off", "parts"), ("broken", "loss")):
            look(store, trace.run.id, name, {}, 40, trace.snapshot(40))
            found = trace.look(name, arm, 40, **checked(name, {}))
            told[name] = found[quantity][0]
            if "accuracy" in found:  # of outputs that are no numbers it was that of the first class
                np.testing.assert_array_equal(np.isnan(found["accuracy"][0]), np.isnan(told[name]), err_msg=name)
        assert np.isnan(told["inference"][-1]) and np.isnan(told["alphas"]).all() and np.isnan(told["off"]).all()
        assert np.isnan(told["broken"][swapped]) and np.isfinite(np.delete(told["broken"], swapped)).all()
    for trace, arm in ((frozen, 0), (then_frozen, 0)):  # and of the others as before
        look(store, trace.run.id, "inference", {"alpha": 0.6}, 40, trace.snapshot(40))
        again, (_, losses, _) = trace.look("inference", arm, 40, alpha=0.6)["loss"], frozen.scores(0, "test", "moving")
        assert again[0, -1] == pytest.approx(losses[-1, 0], rel=1e-4)


def test_statistics_of_some_steps_only_are_refused_and_the_other_mistakes_are_computed(inference_trace):
    seen = lineage.seen(inference_trace)[0]
    some = np.array([0, 1, 4, 20, 21, 39])
    few = seen._replace(steps=some, batch_mean=seen.batch_mean[some], batch_var=seen.batch_var[some])
    with pytest.raises(ValueError, match="only 6 of 40 steps of the unit statistics are kept in this run; another"):
        averages(few, 0.9, np.array([0, 40]))
    with pytest.raises(ValueError, match="only 3 of 20 steps"):
        averages(few, 0.9, np.array([0, 20]))  # of those before it
    with pytest.raises(ValueError, match="only 2 of 40 steps"):  # none is missing between them
        averages(few._replace(steps=some[:2]), 0.9, np.array([0, 40]))
    np.testing.assert_array_equal(averages(few, 0.9, np.array([2]))[0], averages(seen, 0.9, np.array([2]))[0])
    copies = Copies(inference_trace.experiment)
    whole, part = (copies.look("broken", {}, 40, inference_trace.snapshot(40), [s])[0]["loss"] for s in (seen, few))
    swapped = list(MISTAKES).index("alpha swapped")
    assert np.isnan(part[:, swapped]).all() and np.isfinite(whole[slot(inference_trace, 1), swapped])
    whole[:, swapped] = np.nan
    np.testing.assert_array_equal(part, whole)


def test_of_an_arm_that_diverged_nothing_is_told_and_the_others_are_what_they_are_alone(tmp_path):
    """Its last weights overflow, its statistics do before: infinity less infinity is no number, and no warning."""
    store, BN = RunStore(tmp_path), {"norm": "batch"}
    wild = BN | {"learning_rate": 100.0, "weight_decay": 1.0}  # a factor of -99 a step: gone after some 20
    both, alone = (recorded(store, arms, activation="relu") for arms in ((wild, BN), (BN,)))
    assert {arm for arm, _ in both.diverged} == {0}
    for step in (10, 20, 25, 40):
        for name in ("inference", "alphas", "off"):
            found, single = looked(both, name, step), looked(alone, name, step)
            for key in {"inference": ["loss"], "alphas": ["test_loss"], "off": ["loss", "parts"]}[name]:
                np.testing.assert_array_equal(found[key][slot(both, 1)], single[key][0], err_msg=f"{name} {step}")
                lost = found[key][slot(both, 0)]
                assert step < 25 or not np.isfinite(lost if name != "inference" else lost[-1]).any(), (name, step)


def test_the_size_of_a_gap_leaves_out_units_that_do_not_vary_and_none_that_is_no_number():
    new, population = np.random.default_rng(0).normal(size=(2, 7, 2))
    size = lambda unit, units=slice(None): sizes(new[:6, units], population[:, units], 0.0, np.array(unit))  # noqa: E731
    np.testing.assert_allclose(size([0.0, 2.0]), size([2.0], slice(1, 2)), rtol=1e-12)
    assert np.isnan(size([np.nan, 2.0])).all() and np.isfinite(size([1.0, 2.0])).all()
