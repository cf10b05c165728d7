"""Forks go on from exact weights: where nothing is changed, to the last bit as their parent."""

import sqlite3
import tracemalloc

import numpy as np
import pytest
import torch

from bnlab import Arm, Experiment, Settings
from bnlab.executing import beginning, execute
from bnlab.fork import CHANGEABLE, can_change, forked
from bnlab.group import Group
from bnlab.lineage import rows
from bnlab.store import RunStore

BN = {"norm": "batch"}


@pytest.fixture(scope="module", params=["sgd", "momentum", "adam"])
def parent(request, tmp_path_factory):
    settings = Settings(
        depth=3, width=8, steps=60, data="wine", batch_size=16, score_every=10, optimizer=request.param, alpha=0.8,
        learning_rate=0.01,
    )  # fmt: skip
    arms = (Arm(label="none"), Arm(label="before", changes=BN), Arm(label="after", changes=BN | {"placement": "after"}))
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(Experiment(settings=settings, arms=arms, seeds=(0, 3)))
    execute(store, run.id, lambda: None)
    return store, run.id


@pytest.mark.parametrize(
    "changes", [{"learning_rate": 0.05}, {"statistics": "moving"}, {"batch_size": 8}, {"alpha": 0.5}]
)
def test_the_unchanged_arm_of_a_fork_is_its_parents_to_the_last_bit(parent, changes):
    store, run_id = parent
    run = store.fork(run_id, 2, 30, changes)
    execute(store, run.id, lambda: None)
    mine, whole = store.trace(run.id), store.trace(run_id)
    assert mine.run.status == "done" and mine.first == 30
    for quantity in ("loss", "grad_norm", "batch_mean", "moving_var", "gamma"):
        a, b = mine.read(quantity, 0), whole.read(quantity, 2, start=30)
        np.testing.assert_array_equal(a.steps, b.steps)
        np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(mine.scores(0, "test", "moving")[1], whole.scores(2, "test", "moving")[1][3:])
    assert (mine.read("loss", 1).mean != mine.read("loss", 0).mean).any() or changes == {"alpha": 0.5}


def test_alpha_changes_nothing_of_the_training_and_frozen_averages_stand_still(parent):
    store, run_id = parent
    run = store.fork(run_id, 1, 20, {"alpha": 0.1})
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    np.testing.assert_array_equal(trace.read("loss", 1).mean, trace.read("loss", 0).mean)
    assert (trace.read("moving_mean", 1).mean != trace.read("moving_mean", 0).mean).any()
    run = store.fork(run_id, 1, 20, {"statistics": "moving"})
    execute(store, run.id, lambda: None)
    frozen = store.trace(run.id).read("moving_var", 1).mean
    assert (frozen == frozen[:1]).all()
    np.testing.assert_array_equal(frozen[0], store.trace(run_id).read("moving_var", 1).mean[19])


@pytest.mark.parametrize("step", [30, 60])
def test_a_fork_may_train_on_beyond_its_parents_end(parent, step):
    """Held against a run that was that long from the first."""
    store, run_id = parent
    asked = store.run(run_id).experiment
    longer = store.create(asked.model_copy(update={"settings": asked.settings.model_copy(update={"steps": 85})}))
    execute(store, longer.id, lambda: None)
    run = store.fork(run_id, 2, step, {"statistics": "moving"}, 85 - step)
    execute(store, run.id, lambda: None)
    mine, whole = store.trace(run.id), store.trace(longer.id)
    assert (mine.first, mine.step, mine.run.status) == (step, 85, "done")
    for quantity in ("loss", "grad_norm", "batch_mean", "moving_var", "gamma"):
        a, b = mine.read(quantity, 0), whole.read(quantity, 2, start=step)
        np.testing.assert_array_equal(a.steps, b.steps)
        np.testing.assert_array_equal(a.mean, b.mean)
    ours, theirs = (t.scores(arm, "test", "population") for t, arm in ((mine, 0), (whole, 2)))
    np.testing.assert_array_equal(ours[0], theirs[0][theirs[0] >= step])
    np.testing.assert_array_equal(ours[1], theirs[1][theirs[0] >= step])
    frozen = mine.read("moving_var", 1).mean
    assert (frozen == whole.read("moving_var", 2, start=step - 1, stop=step).mean).all()
    steps, values = rows(mine, "batch_var", 0)
    np.testing.assert_array_equal(steps, np.arange(85))
    np.testing.assert_array_equal(values, whole.read("batch_var", 2).mean)


@pytest.mark.parametrize(("step", "more"), [(60, 500), (30, None), (30, 30)])
def test_a_fork_is_scored_at_its_parents_steps(tmp_path, step, more):
    """Also where it ends with its parent: its two arms may cost less than the parent's, and were scored more often."""
    store = RunStore(tmp_path)
    settings = Settings(depth=2, width=8, steps=60, data="wine", norm="batch")
    run = store.create(
        Experiment(settings=settings, arms=(Arm(label="bn"), Arm(label="ln", changes={"norm": "layer"})))
    )
    execute(store, run.id, lambda: None)
    fork = store.fork(run.id, 0, step, {"learning_rate": 0.01, "batch_size": 16}, more)
    assert fork.experiment.settings.score_every == np.diff(store.trace(run.id).snapshots())[0]


def test_a_fork_is_called_by_what_it_does():
    experiment = Experiment(arms=(Arm(label="BN", changes=BN), Arm(label="f", changes=BN | {"statistics": "moving"})))
    for arm, changes, label in (
        (0, {"statistics": "moving"}, "BN: averages frozen"),
        (1, {"statistics": "batch"}, "f: averages no longer frozen"),
        (0, {"alpha": 0.5, "learning_rate": 0.01}, "BN: α 0.5, learning rate 0.01"),
        (0, {"optimizer": "adam", "batch_size": 8}, "BN: Adam, mini-batch size 8"),
        (0, {"rescale": "fixed"}, "BN: γ and β frozen"),
        (0, {"learning_rate": 1.0}, "BN: learning rate 1"),
        (0, {"weight_decay": 1e-5}, "BN: weight decay 1e-05"),
    ):
        assert forked(experiment, arm, 10, changes).arms[1].label == label


def test_the_name_of_a_fork_says_what_goes_on_what_is_changed_and_from_where(parent):
    store, run_id = parent
    changes = {"learning_rate": 1.0, "weight_decay": 0.0}  # which is no change
    for name, rest in (("Wine: two", "Wine: two"), ("long " * 23 + "x", "long " * 14 + "long…")):
        store.rename(run_id, name)
        assert store.fork(run_id, 1, 30, changes).name == f"before, learning rate 1, from step 30 of {rest}"


def test_a_paused_fork_goes_on_as_if_it_had_not_been(parent):
    store, run_id = parent
    whole, broken = (store.fork(run_id, 2, 30, {"learning_rate": 0.02}) for _ in range(2))
    execute(store, whole.id, lambda: None)
    execute(store, broken.id, lambda: None, steps=7)
    assert store.run(broken.id).status == "paused"
    execute(store, broken.id, lambda: None)
    a, b = (store.trace(r.id).read("loss", 1) for r in (whole, broken))
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.mean, b.mean)


def test_a_fork_begins_with_the_parents_weights(parent):
    store, run_id = parent
    run = store.fork(run_id, 2, 30, {"batch_size": 8, "optimizer": "sgd"})
    step, vectors = beginning(store, run.id)
    assert step == 30
    old = Group(store.run(run_id).experiment, 0, "cpu", torch.float32).stack
    old.restore(30, store.trace(run_id).snapshot(30)[0])
    for i, networks in enumerate(run.experiment.stacks):
        new = Group(run.experiment, i, "cpu", torch.float32).stack
        new.restore(30, vectors[i])
        for slot, network in enumerate(networks):
            at = old.networks.index((2, network.seed))
            for l in range(3):
                assert torch.equal(new.layers[l].weight[slot], old.layers[l].weight[at])
            assert torch.equal(new.moving_var[:, slot - new.batch.start], old.moving_var[:, at - old.batch.start])


def test_what_cannot_fork_is_said_in_a_sentence(parent):
    store, run_id = parent
    for step, changes, said in (
        (30, {}, "nothing is changed; change at least one setting"),
        (30, {"alpha": 0.8}, "nothing is changed"),
        (30, {"depth": 5}, "depth cannot change in the middle of a training; these can: statistics"),
        (31, {"alpha": 0.5}, "there is no snapshot of the weights at step 31"),
        (
            60,
            {"alpha": 0.5},
            "step is 60; the run ends at 60. Choose an earlier step, or how many more steps to train.",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            store.fork(run_id, 1, step, changes)
    for arm, changes, said in (
        (1, {"learning_rate": -1}, "learning_rate is -1; allowed is above 0 and at most 100."),
        (1, {"batch_size": 1}, "batch_size is 1; batch norm needs at least 2 examples to have a variance. Raise it or "
         "choose layer norm."),
        (1, {"batch_size": 1000}, "batch_size is 1000; wine has only 142 training examples. Lower it to at most 142 or "
         "choose full."),
        (0, {"alpha": 0.5}, "alpha makes no difference to 'none', which has no batch norm; change something else."),
        (0, {"rescale": "fixed"}, "rescale makes no difference to 'none', which has no norm; change something else."),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:
            store.fork(run_id, arm, 30, changes)
        assert error.value.args == (said,)


def test_only_what_makes_a_difference_to_an_arm_can_change():
    assert can_change(Settings(norm="batch")) == CHANGEABLE
    assert "alpha" not in can_change(Settings(norm="batch", statistics="moving"))
    assert "rescale" in can_change(Settings(norm="layer")) and "rescale" not in can_change(Settings(norm="none"))
    for norm in ("none", "layer"):
        assert not {"alpha", "statistics"} & set(can_change(Settings(norm=norm)))
        assert {"learning_rate", "batch_size"} <= set(can_change(Settings(norm=norm)))


def test_every_changeable_setting_gives_a_question_that_can_be_asked():
    experiment = Experiment(arms=(Arm(label="a" * 40, changes=BN),))
    other = {
        "statistics": "moving", "alpha": 0.5, "learning_rate": 0.2, "batch_size": 8, "weight_decay": 0.1,
        "rescale": "fixed", "optimizer": "adam", "sampling": "replacement",
    }  # fmt: skip
    assert set(other) == set(CHANGEABLE)
    for name, value in other.items():
        assert getattr(forked(experiment, 0, 10, {name: value}).arm_settings[1], name) == value


def test_a_label_has_room_for_the_arm_however_much_is_changed():
    many = {"statistics": "moving", "learning_rate": 0.0125, "batch_size": 8, "sampling": "replacement"}
    label = forked(Experiment(arms=(Arm(label="BN before", changes=BN),)), 0, 10, many).arms[1].label
    assert len(label) <= 40 and label.startswith("BN…: averages frozen, learning rate 0") and label.endswith("…")


def test_alpha_of_frozen_averages_makes_no_difference_and_it_is_said_why():
    frozen = Experiment(arms=(Arm(label="frozen", changes=BN | {"statistics": "moving"}),))
    with pytest.raises(ValueError, match="alpha makes no difference to 'frozen', which trains with its averages froz"):
        forked(frozen, 0, 10, {"alpha": 0.5})


def test_a_fork_of_a_fork_of_a_fork_has_a_label_of_its_own():
    experiment, asked = Experiment(arms=(Arm(label="BN before", changes=BN),)), []
    for changes in ({"statistics": "moving"}, {"learning_rate": 0.01}, {"weight_decay": 0.1}, {"learning_rate": 0.2}):
        experiment = forked(experiment, len(experiment.arms) - 1, 10, changes)
        asked.append(experiment.arms[1].label)
    assert asked[0] == "BN before: averages frozen" and asked[1].endswith(": learning rate 0.01")
    assert len(set(asked)) == 4 and max(map(len, asked)) <= 40


def test_a_fork_starts_again_from_the_weights_it_was_forked_from(parent):
    store, run_id = parent
    fork = store.fork(run_id, 2, 30, {"learning_rate": 0.02})
    execute(store, fork.id, lambda: None)
    again = store.again(fork.id)
    assert again.name == fork.name and store.origin(again.id) == (run_id, 2, 30)
    execute(store, again.id, lambda: None)
    a, b = (store.trace(r.id).read("loss", 1) for r in (fork, again))
    assert a.steps[0] == 30
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.mean, b.mean)
    assert store.origin(store.again(run_id).id) is None


@pytest.mark.parametrize("table", ["forks", "snapshots"])
def test_a_fork_that_cannot_be_kept_whole_is_not_kept(tmp_path, table):
    """Else it would train from initial weights, as the run of another question."""
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=Settings(depth=2, width=4), arms=(Arm(label="BN", changes=BN),)))
    store.db.execute("insert into snapshots values (?, 0, 10, x'00')", (run.id,))
    fork = store.fork(run.id, 0, 10, {"learning_rate": 0.02})
    store.db.execute("update snapshots set run = ?", (fork.id,))  # its own; its parent's are gone
    store.db.execute(f"create trigger full before insert on {table} begin select raise(abort, 'disk is full'); end")
    for asked in (lambda: store.fork(fork.id, 0, 10, {"alpha": 0.5}), lambda: store.again(fork.id))[table != "forks" :]:
        with pytest.raises(sqlite3.IntegrityError, match="disk is full"):
            asked()
    assert [r.id for r in store.runs()] == [fork.id, run.id]
    assert store.db.execute("select run from forks").fetchall() == [(fork.id,)]


def test_who_asks_for_a_fork_does_not_wait_for_the_weights_to_be_read(tmp_path):
    store = RunStore(tmp_path)
    settings = Settings(depth=2, width=4, steps=20, data="wine", batch_size=16, score_every=10)
    run = store.create(Experiment(settings=settings, arms=(Arm(label="BN", changes=BN),)))
    store.db.execute("insert into snapshots values (?, 0, 10, zeroblob(20000000))", (run.id,))
    tracemalloc.start()
    fork = store.fork(run.id, 0, 10, {"learning_rate": 0.02})
    store.again(fork.id)
    store.db.execute("update snapshots set run = ?", (fork.id,))  # its own; its parent's are gone
    again = store.again(fork.id)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5_000_000
    (vector,) = store.snapshot(again.id, 10)
    assert vector.dtype == np.float32 and len(vector) == 5_000_000 and not vector.any()


def test_a_fork_starts_again_also_when_its_parent_is_gone_as_long_as_it_has_the_weights(tmp_path):
    store = RunStore(tmp_path)
    settings = Settings(depth=2, width=4, steps=20, data="wine", batch_size=16, score_every=10)
    run = store.create(Experiment(settings=settings, arms=(Arm(label="BN", changes=BN),)))
    execute(store, run.id, lambda: None)
    fork, waiting = (store.fork(run.id, 0, 10, {"learning_rate": 0.02}) for _ in range(2))
    execute(store, fork.id, lambda: None)
    store.delete(run.id)
    again = store.again(fork.id)
    execute(store, again.id, lambda: None)
    a, b = (store.trace(r.id).read("loss", 1) for r in (fork, again))
    np.testing.assert_array_equal(a.mean, b.mean)
    said = "the weights of step 10 that this fork began with are gone"
    with pytest.raises(ValueError, match=said):
        execute(store, waiting.id, lambda: None)
    store.db.execute("delete from snapshots where run = ? and step = 10", (fork.id,))
    with pytest.raises(ValueError, match=said):
        store.again(fork.id)
