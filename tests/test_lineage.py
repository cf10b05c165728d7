"""A fork and what it was forked from are one history: its settings, its steps, and what each network of it saw."""

import numpy as np
import pytest
from looked_at import forked, recorded, trained

from bnlab import Arm, Experiment, Settings, lineage
from bnlab.executing import execute

BN = {"norm": "batch"}


@pytest.fixture
def grandchild(store):
    """The fork at step 30, with another alpha, of a fork at step 20 with another."""
    child = forked(store, recorded(store, alpha=0.8), alpha=0.5, learning_rate=0.05)
    fork = store.fork(child.run.id, 1, 30, {"alpha": 0.25})
    execute(store, fork.id, lambda: None)
    return store.trace(fork.id)


def test_the_newest_change_of_a_setting_is_told_and_only_of_those_that_changed(grandchild):
    assert [lineage.changed(grandchild, arm, "alpha") for arm in (0, 1)] == [20, 30]
    assert [lineage.changed(grandchild, arm, "learning_rate") for arm in (0, 1)] == [20, 20]
    assert lineage.changed(grandchild, 1, "batch_size") is None


@pytest.mark.parametrize(
    ("t", "kept", "changed"),
    [
        (0, 1, 1),
        (10, 0.8**10, 0.8**10),
        (25, 0.8**20 * 0.5**5, 0.8**20 * 0.5**5),
        (40, 0.8**20 * 0.5**20, 0.8**20 * 0.5**10 * 0.25**10),
    ],
)
def test_the_start_weighs_what_every_alpha_on_the_way_has_left_of_it(grandchild, t, kept, changed):
    assert lineage.weights(grandchild, 0, t)[0] == pytest.approx(kept)
    assert lineage.weights(grandchild, 1, t)[0] == pytest.approx(changed)


@pytest.mark.parametrize("arm", [0, 1])
def test_of_a_fork_whose_parent_was_deleted_the_past_is_as_it_was(store, arm):
    """It was told with the fork's own alpha and mini-batches, as if nothing had ever been changed."""
    child = forked(store, recorded(store, alpha=0.8), alpha=0.5, batch_size=8)
    names, t = ("alpha", "batch_size", "sampling"), 35
    told = [lineage.changed(child, arm, name) for name in names]
    weights, sizes = lineage.weights(child, arm, t), lineage.batch_sizes(child, arm, t)
    assert told == ([20, 20, None] if arm else [None] * 3)
    assert sizes[[19, 20]].tolist() == [16, 8 if arm else 16]
    store.delete(store.origin(child.run.id)[0])
    assert [lineage.changed(child, arm, name) for name in names] == told
    np.testing.assert_array_equal(lineage.weights(child, arm, t), weights)
    np.testing.assert_array_equal(lineage.batch_sizes(child, arm, t), sizes)


def test_averages_that_a_fork_froze_are_known_where_its_parent_was_deleted_and_those_it_found_frozen_are_not(store):
    child = forked(store, recorded(store, alpha=0.8), statistics="moving")
    store.delete(store.origin(child.run.id)[0])
    assert lineage.weights(child, 1, 30)[0] == pytest.approx(0.8**20)
    second = forked(store, child, step=30, arm=1, learning_rate=0.05)
    assert lineage.weights(second, 1, 35)[0] == pytest.approx(0.8**20)
    store.delete(child.run.id)
    assert np.isnan(lineage.weights(second, 1, 35)).tolist() == [True] * 36


def test_the_start_is_known_where_the_parent_was_deleted_but_its_averages_were_not_frozen(store):
    child = forked(store, recorded(store, alpha=0.8), learning_rate=0.05)
    store.delete(store.origin(child.run.id)[0])
    assert lineage.weights(child, 0, 30)[0] == pytest.approx(0.8**30)


def test_rows_before_a_step_end_there_also_where_that_is_before_the_fork(grandchild):
    for stop in (7, 20, 25, 30, 35):
        steps, values = lineage.rows(grandchild, "batch_mean", 0, stop=stop)
        assert steps.tolist() == [*range(stop)] and len(values) == stop


def test_what_a_probe_looks_back_at_is_of_the_same_network_seed_by_seed_and_arm_by_arm(store):
    """Against the parent, whose networks stand in another order."""
    settings = Settings(depth=2, width=6, steps=40, data="wine", batch_size=16, score_every=10, alpha=0.8)
    arms = (Arm(label="other", changes=BN), Arm(label="deep", changes=BN | {"depth": 3}), Arm(label="mine", changes=BN))
    _, run_id = trained(store.directory, settings, arms, (0, 3))
    child = forked_arm(store, run_id, 2, {"alpha": 0.5})
    whole, (mine,) = store.trace(run_id), lineage.seen(child)
    stack, deep = (whole.slots(arm, "units")[0] for arm in (2, 1))
    theirs = lineage.seen(whole)[stack]
    networks, parents = child.experiment.stacks[0], whole.experiment.stacks[stack]
    for place, (arm, seed) in enumerate(networks):
        at = parents.index((2, seed))  # alpha plays no role in training
        for found, true in zip((mine.batch_mean, mine.batch_var), (theirs.batch_mean, theirs.batch_var), strict=True):
            np.testing.assert_array_equal(found[:, :, place], true[:, :, at])
        for found, true in zip(mine.population, theirs.population, strict=True):
            np.testing.assert_array_equal(found[:, :, place], true[:, :, at])
        assert mine.weights(place, 40)[0] == pytest.approx(0.8**40 if arm == 0 else 0.8**20 * 0.5**20)
    assert mine.steps.tolist() == theirs.steps.tolist() == [*range(40)]
    assert mine.batch_sizes(0, 40).tolist() == [16] * 40
    assert mine.scored.tolist() == theirs.scored.tolist() == [0, 10, 20, 30, 40]
    for place in (stack, deep):  # of two depths
        np.testing.assert_array_equal(lineage.seen(whole)[place].vector(10), whole.snapshot(10)[place])


def forked_arm(store, run_id, arm, changes):
    fork = store.fork(run_id, arm, 20, changes)
    execute(store, fork.id, lambda: None)
    return store.trace(fork.id)


def test_what_a_probe_looks_back_at_of_a_run_that_rests_is_all_its_steps(store):
    asked = Experiment(settings=Settings(depth=2, width=6, steps=40, data="wine", batch_size=16, norm="batch"))
    run = store.create(asked.model_copy(update={"arms": (Arm(label="BN"),)}))
    execute(store, run.id, lambda: None, steps=7)
    trace = store.trace(run.id)
    (told,) = lineage.seen(trace)
    assert told.steps.tolist() == [*range(7)] and max(told.snapshots) == 7
    np.testing.assert_array_equal(told.batch_mean[:, :, 0], trace.read("batch_mean", 0).mean[:, 0])
    np.testing.assert_array_equal(told.batch_var[:, :, 0], trace.read("batch_var", 0).mean[:, 0])


def test_who_needs_a_run_are_its_forks_and_theirs_whose_averages_come_from_it(store):
    parent = recorded(store, arms=(BN, {"norm": "none"}))
    needing = lambda trace: {fork.id for fork in lineage.needing(trace)}  # noqa: E731
    assert needing(parent) == set()
    child, beginning = forked(store, parent, alpha=0.5), forked(store, parent, step=0, alpha=0.5)
    forked(store, parent, arm=1, learning_rate=0.05)
    assert needing(parent) == {child.run.id}, "not what has no averages, and not what has every step itself"
    later, whole = forked(store, child, step=30, alpha=0.1), forked(store, beginning, alpha=0.1)
    assert needing(parent) == {child.run.id, later.run.id}
    assert needing(child) == {later.run.id} and needing(beginning) == {whole.run.id} and needing(later) == set()
    for run in (parent.run.id, child.run.id):
        steps = [len(lineage.rows(trace, "batch_mean", 0, layer=1)[0]) for trace in (child, later, whole)]
        assert steps == ([40] * 3 if run == parent.run.id else [20, 20, 40])
        store.delete(run)
    assert needing(child) == set(), "what is lost already"
