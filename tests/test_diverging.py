"""A network that diverges is stopped: what it showed until then stays, and all others go on as if it had not been."""

from itertools import islice

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, train
from bnlab.store import RunStore
from bnlab.work import execute

BN, LOST = {"norm": "batch"}, {"learning_rate": 100.0, "weight_decay": 1.0}  # a factor of -99 a step
ARMS = (
    Arm(label="none", changes={}),
    Arm(label="lost", changes=LOST),
    Arm(label="BN", changes=BN),
    Arm(label="BN lost", changes=BN | LOST),
    Arm(label="LN", changes={"norm": "layer"}),
)
GONE, LASTING = (1, 3), (0, 2, 4)
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
    arms = (ARMS[0], Arm(label="lost", changes={"init_gain": 100.0}), ARMS[2]) if changes is DEEP else ARMS
    beside = list(train(asked(arms, **changes)))
    lasting = [i for i in LASTING if i < len(beside[0].experiment.arms)]
    without = list(train(asked([ARMS[i] for i in lasting], **changes)))
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
    assert sizes == [10, 2] * 8 + [6] * 52, "until the scoring after they broke, and not beyond"
    for arm in (*GONE, 5):
        assert all(np.isnan(values).all() for values in seen(records[-2], arm, 0))
    assert {records[-1].experiment.stacks[0][slot].arm for s in records[-1].scores for slot in s.slots} == {*LASTING}
    (population,) = records[-1].population
    arms = np.array([records[0].experiment.stacks[0][slot].arm for slot in population.slots])
    for moments in population[2:]:
        assert np.isnan(moments[:, arms == 3]).all() and np.isfinite(moments[:, arms == 2]).all()


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
    """All rows of a run as they lie on disk, and where its networks diverged."""
    rows = store.db.execute("select stack, kind, first, n, data from chunks where run = ? order by 1, 2, 3", (run_id,))
    return rows.fetchall(), store.run(run_id).diverged


def test_a_run_that_was_paused_keeps_the_same_rows(tmp_path):
    store = RunStore(tmp_path)
    whole, paused = (store.create(asked()).id for _ in range(2))
    execute(store, whole, lambda: None)
    for steps in (1, 2, 6, 5, 20, None):
        execute(store, paused, lambda: None, steps)
    assert store.run(whole).status == store.run(paused).status == "done"
    assert kept(store, whole) == kept(store, paused)


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
