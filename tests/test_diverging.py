"""A network that diverges is stopped: what it showed until then stays, and all others go on as if it had not been."""

from itertools import islice

import numpy as np
import pytest
import torch
from known_rows import keep, small, written

from bnlab import Arm, Experiment, Settings, train
from bnlab.executing import execute
from bnlab.group import Group
from bnlab.record import Score
from bnlab.state import State
from bnlab.store import RunStore

BN, LOST = {"norm": "batch"}, {"learning_rate": 100.0, "weight_decay": 1.0}  # a factor of -99 a step
ARMS = (
    Arm(label="none", changes={}),
    Arm(label="lost", changes=LOST),
    Arm(label="BN lost", changes=BN | LOST),
    Arm(label="BN", changes=BN),
    Arm(label="LN", changes={"norm": "layer"}),
)
GONE, LASTING = (1, 2), (0, 3, 4)
DEEP = {"optimizer": "adam", "depth": 24}  # Adam's steps are too small to diverge: initial weights that overflow


def asked(arms=ARMS, **changes):
    settings = {"depth": 4, "width": 9, "batch_size": 16, "steps": 60, "activation": "relu", "learning_rate": 0.01}
    return Experiment(settings=Settings(**settings | {"score_every": 8} | changes), arms=tuple(arms), seeds=(0, 1))


def seen(record, arm, seed):
    """All that a record says of a network of an arm with batch norm, or without."""
    names = ["loss", "grad_norm", "z_std", "dead", "a"]
    names += ["batch_var", "gamma"] * ("batch" in str(record.experiment.arms[arm].changes))
    return [record.value(name, arm, seed) for name in names]


@pytest.mark.parametrize("changes", [{}, {"optimizer": "momentum"}, DEEP], ids=str)
def test_the_others_are_to_the_last_bit_what_they_are_without_it(changes):
    arms = (ARMS[0], Arm(label="lost", changes={"init_gain": 100.0}), ARMS[3]) if changes is DEEP else ARMS
    lasting = [i for i, arm in enumerate(arms) if "lost" not in arm.label]
    changes = {"score_every": 4, "steps": 24} | changes  # the two are left out one after the other
    beside, without = (list(train(asked(some, **changes))) for some in (arms, [arms[i] for i in lasting]))
    assert not np.isfinite(beside[-2].value("loss", 1))
    for one, other in zip(beside, without, strict=True):
        (networks,), (fewer,) = one.experiment.stacks, other.experiment.stacks
        place = [networks.index((lasting[arm], seed)) for arm, seed in fewer]
        for j, i in enumerate(lasting) if one.parts else ():
            for seed in (0, 1):
                for a, b in zip(seen(one, i, seed), seen(other, j, seed), strict=True):
                    np.testing.assert_array_equal(a, b)
        scores = {(s.split, s.statistics, slot): s for s in one.scores for slot in s.slots}
        for s in other.scores:
            found = scores[s.split, s.statistics, place[s.slots[0]]]
            np.testing.assert_array_equal([found.loss, found.accuracy], [s.loss, s.accuracy])
        for p, q in zip(one.population, other.population, strict=True):
            at = [p.slots.index(place[slot]) for slot in q.slots]
            for a, b in zip(p[2:], q[2:], strict=True):
                np.testing.assert_array_equal(a[:, at], b)


def test_it_is_not_computed_any_more(monkeypatch):
    from bnlab.stack import Stack

    sizes, gradient = [], Stack.gradient
    monkeypatch.setattr(Stack, "gradient", lambda stack, *rest: (sizes.append(stack.S), gradient(stack, *rest)))
    arms = (*ARMS, Arm(label="of another shape", changes={"width": 5, **LOST}))
    records = list(train(asked(arms)))
    assert sizes == [10, 2] * 9 + [6] * 51, "until the scoring after they broke, and not beyond"
    for arm in (*GONE, 5):
        assert all(np.isnan(values).all() for values in seen(records[-2], arm, 0))
    assert {records[-1].experiment.stacks[0][slot].arm for s in records[-1].scores for slot in s.slots} == {*LASTING}
    (population,) = records[-1].population
    arms = np.array([records[0].experiment.stacks[0][slot].arm for slot in population.slots])
    for moments in population[2:]:
        assert np.isnan(moments[:, arms == 2]).all() and np.isfinite(moments[:, arms == 3]).all()


@pytest.mark.parametrize("step", [3, 20])
def test_training_goes_on_from_a_snapshot_to_the_last_bit(step):
    records = list(train(asked()))
    stopped = next(islice(train(asked()), step, None))
    rest = train(asked(), start=(step + 1, stopped.snapshot()))
    for one, other in zip(records[step + 1 :], rest, strict=True):
        for arm in LASTING if one.parts else ():
            for a, b in zip(seen(one, arm, 1), seen(other, arm, 1), strict=True):
                np.testing.assert_array_equal(a, b)


def kept(store, run_id):
    """What lies on disk of a run, and where its networks diverged."""
    ask = {
        "chunks": "select stack, kind, first, n, data from chunks where run = ? order by 1, 2, 3",
        "scores": "select stack, step, data from scores where run = ? order by 1, 2",
        "population": "select stack, step, data from population where run = ? order by 1, 2",
        "snapshots": "select stack, step, data from snapshots where run = ? and step % 8 = 0 order by 1, 2",
    }
    return {table: store.db.execute(sql, (run_id,)).fetchall() for table, sql in ask.items()}, store.run(
        run_id
    ).diverged


def test_a_run_that_was_paused_keeps_the_same(tmp_path):
    store = RunStore(tmp_path)
    arms = (*ARMS, Arm(label="of another shape", changes={"width": 5, **LOST}))
    whole, paused = (store.create(asked(arms)).id for _ in range(2))
    execute(store, whole, lambda: None)
    for steps in (1, 2, 1, 2, 1, 1, 20, None):  # they break at 4, 5, 7 and 8
        execute(store, paused, lambda: None, steps)
    assert store.run(whole).status == store.run(paused).status == "done"
    (one, where), (other, same) = kept(store, whole), kept(store, paused)
    assert where == same
    for table, rows in one.items():
        assert rows == other[table], table


@pytest.mark.parametrize("name", ["weight", "readout", "gamma"])
@torch.no_grad()
def test_what_is_kept_of_it_is_the_same_whenever_it_is_left_out(name):
    """One number is infinite before update 4: left out there, as after a pause, or at the scoring before update 8."""
    experiment = asked([ARMS[i] for i in LASTING])
    (networks,) = experiment.stacks
    lost, kept = networks.index((1, 1)), []
    for at_once in (True, False):
        group = Group(experiment, 0, "cpu", torch.float32)
        for t in range(4):
            group.step(t, False)
        view = group.stack.p[name].select(-3, lost - (group.stack.normed.start if name == "gamma" else 0))
        view[..., 0, 2] = torch.inf
        for t in range(4, 8):
            broken = group.broken() if at_once else []
            group.step(t, False)
            group.leave_out(broken)
        kept.append(group.snapshot(group.broken()))
    np.testing.assert_array_equal(*(vector.view(np.uint32) for vector in kept))
    state = State(experiment, networks, "cpu", torch.float32)
    state.restore(8, kept[0])
    assert all(view.select(-3, lost).isnan().all() for key, view in state.p.items() if key not in ("gamma", "beta"))
    assert state.p["gamma"].select(-3, lost - state.normed.start).isnan().all()
    assert state.moving_mean[:, lost - state.batch.start].isnan().all()


def test_a_stack_that_is_lost_takes_no_scores_from_the_others(tmp_path):
    store = RunStore(tmp_path)
    narrow = {"width": 5, **LOST}
    lost = Arm(label="lost", changes=narrow), Arm(label="BN lost", changes=BN | narrow)
    run = store.create(asked((*lost, ARMS[3], ARMS[0])))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    for arm, statistics in ((2, "moving"), (3, "none")):
        steps, losses, _ = trace.scores(arm, "test", statistics)
        np.testing.assert_array_equal(steps, [0, 8, 16, 24, 32, 40, 48, 56, 60])
        assert np.isfinite(losses).all()
    assert trace.scores(0, "test", "none")[0].tolist() == [0]
    assert trace.population(1)[0].tolist() == [0, 8] and trace.population(2)[0].tolist() == steps.tolist()


@pytest.mark.parametrize("name", ["weight_in", "weight", "readout", "bias", "readout_bias", "gamma", "beta"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_number_that_is_not_finite_is_seen(name, value):
    experiment = asked()
    (networks,) = experiment.stacks
    state = State(experiment, networks, "cpu", torch.float32)
    assert state.finite() == [True] * 10
    slot = 4
    view = state.p[name].select(-3, slot - (state.normed.start if name in ("gamma", "beta") else 0))
    (view[-1] if view.dim() == 3 else view)[0, 2] = value
    assert state.finite() == [i != slot for i in range(10)]


def test_a_diverged_arm_cannot_be_forked(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(asked())
    execute(store, run.id, lambda: None)
    with pytest.raises(ValueError, match="'lost' had diverged by step 16; choose an earlier step, or another arm"):
        store.fork(run.id, 1, 16, {"learning_rate": 0.1})
    store.fork(run.id, 3, 16, {"learning_rate": 0.1})


def test_where_it_broke_is_what_it_is_for_one_that_is_computed_to_the_end(tmp_path):
    store = RunStore(tmp_path)
    at = []
    for every in (8, 60):
        run = store.create(asked(score_every=every))
        execute(store, run.id, lambda: None)
        at.append(store.run(run.id).diverged)
    assert at[0] == at[1] and {arm for arm, _ in at[0]} == {*GONE}


def test_a_run_of_which_all_networks_diverge_ends(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(asked(tuple(ARMS[i] for i in GONE)))
    execute(store, run.id, lambda: None)
    assert store.run(run.id).status == "diverged" and store.run(run.id).step < 59


def test_the_scores_of_the_weights_that_its_last_step_left_are_told_and_none_after_them(store):
    experiment = small(depth=1, steps=20)
    run_id, loss = store.create(experiment).id, lambda t: [np.inf if t == 7 else 1, 1, 0, 0]
    records = (
        record._replace(scores=[Score(0, "test", "none", (0,), np.array([t]), np.array([t / 20]))])
        for t, record in enumerate(written(experiment, range(12), lambda t: {"steps": np.array(loss(t), np.float32)}))
    )
    trace = keep(store, run_id, records)
    assert trace.diverged == {(0, 0): (7, 0)}
    steps, losses, accuracies = trace.scores(0, "test", "none")
    np.testing.assert_array_equal(steps, range(12))
    np.testing.assert_array_equal(losses[:, 0], [*range(9), np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(accuracies), np.isnan(losses))


def test_the_scores_right_after_an_arm_diverged_are_among_those_that_are_drawn(store):
    """They are the last it has, and a step after it."""
    settings = Settings(depth=2, width=4, data="wine", batch_size=16, steps=40, score_every=1)
    arms = Arm(label="lost"), Arm(label="BN", changes={"norm": "batch"})
    run = store.create(Experiment(settings=settings, arms=arms))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    trace.run = trace.run._replace(diverged={(0, 0): (20, 1)})
    assert [*trace.ends()] == [21]
