"""To the last bit: an arm alone and in company, recorded or not, resumed, beside arms of its seed."""

from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from twins import KINDS, every_kind, grouped

from bnlab.activations import ACTIVATIONS
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.inits import INITS
from bnlab.optimizers import OPTIMIZERS
from bnlab.record import LAYERS
from bnlab.train import train


def vectors(experiment, **how):
    last = list(train(experiment, **how))[-1]
    return last.snapshot()[0]


some_settings = some.fixed_dictionaries(
    {
        "depth": some.integers(1, 4),
        "width": some.integers(2, 70),
        "batch_size": some.integers(2, 120),
        "activation": some.sampled_from(sorted(ACTIVATIONS)),
        "optimizer": some.sampled_from(sorted(OPTIMIZERS)),
        "init": some.sampled_from(sorted(INITS)),
        "weight_decay": some.sampled_from([0.0, 0.1]),
        "data": some.sampled_from(["digits", "wine", "moons", "diabetes"]),
    }
)


@patch("bnlab.quantities.WRITTEN", 2**13)
@patch("bnlab.stack.CACHED", 2**14)  # a stack is then passed over in several spans of layers, an arm alone in one
@given(some_settings)
@hypothesis_settings(max_examples=12, deadline=None)
def test_an_arm_alone_is_bitwise_the_same_as_in_the_stack(asked):
    experiment = every_kind(**asked, steps=1000, score_every=1000)  # scores have a test of their own
    together = {}
    for record in islice(train(experiment), 4):
        for arm in range(len(KINDS)):
            together[arm, record.step] = [record.value(q, arm) for q in ("loss", "z", *LAYERS)]
    for arm, alone in enumerate(experiment.arms):
        for record in islice(train(experiment.model_copy(update={"arms": (alone,)})), 4):
            seen = [record.value(q, 0) for q in ("loss", "z", *LAYERS)]
            for one, many in zip(seen, together[arm, record.step], strict=True):
                np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("data", ["digits", "wine", "diabetes"])
@pytest.mark.parametrize("K", [5, 64])
def test_a_network_one_unit_wide_is_bitwise_the_same_alone(data, K):
    """torch multiplies a single row or column otherwise in a slot alone; layer norm has nothing to average here."""
    settings = Settings(data=data, depth=3, width=1, batch_size=K, activation="tanh", steps=6)
    arms = [Arm(label=f"{n} {p}", changes={"norm": n, "placement": p}) for n, p in KINDS if n != "layer"]
    experiment = Experiment(settings=settings, arms=tuple(arms), seeds=(0, 1))

    def seen(of, arm):
        return [r.value(q, arm, 1) for r in train(of) if r.parts for q in ("loss", "z", *LAYERS)]

    for arm, alone in enumerate(arms):
        lone = experiment.model_copy(update={"arms": (alone,), "seeds": (1,)})
        for one, many in zip(seen(lone, 0), seen(experiment, arm), strict=True):
            np.testing.assert_array_equal(one, many)


def test_a_caller_with_several_threads_gets_the_bits_of_one_and_keeps_its_threads():
    experiment = every_kind(depth=3, width=100, batch_size=5, activation="relu", init="orthogonal", steps=5)
    one, threads = vectors(experiment), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(vectors(experiment), one)
        for _ in train(experiment):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@given(some_settings)
@hypothesis_settings(max_examples=8, deadline=None)
def test_scores_and_population_are_bitwise_those_of_the_arm_alone(asked):
    experiment = every_kind(**asked, steps=1)
    together = list(train(experiment))[-1]
    for arm, one in enumerate(experiment.arms):
        alone = list(train(experiment.model_copy(update={"arms": (one,)})))[-1]
        slot = experiment.stacks[0].index((arm, 0))
        for score in alone.scores:
            (same,) = (s for s in together.scores if s[1:4] == (score.split, score.statistics, (slot,)))
            assert score.loss[0] == same.loss[0]
        for one_population in alone.population:
            b = together.population[0].slots.index(slot)
            np.testing.assert_array_equal(one_population.var[:, 0], together.population[0].var[:, b])


def test_recording_and_resuming_change_nothing_to_the_last_bit():
    arms = (
        Arm(label="a"),
        Arm(label="b", changes={"norm": "batch", "alpha": 0.5}),
        Arm(label="c", changes={"norm": "layer"}),
    )
    for rule in OPTIMIZERS:
        experiment = Experiment(
            settings=Settings(depth=3, width=9, steps=70, optimizer=rule, data="wine", batch_size=10, score_every=7),
            arms=arms,
            seeds=(3, 4),
        )
        whole = vectors(experiment)
        assert np.array_equal(whole, vectors(experiment, record=False))
        assert np.array_equal(whole, vectors(experiment, ahead=True))
        records = train(experiment)
        for record in records:
            if record.step == 30:
                half = record.snapshot()
                break
        assert np.array_equal(whole, vectors(experiment, start=(31, half)))
        for record in train(experiment, start=(31, half)):
            if record.weights and record.step == 42:
                assert np.array_equal(whole, vectors(experiment, start=(42, record.weights)))


def test_arms_of_a_seed_share_weights_and_examples():
    arms = (Arm(label="a"), Arm(label="b", changes={"norm": "batch"}), Arm(label="c", changes={"norm": "layer"}))
    g = grouped(Experiment(settings=Settings(depth=2, width=8), arms=arms, seeds=(0, 1)))
    x, _y = g.mini_batch(0)
    of = {n: slot for slot, n in enumerate(g.stack.networks)}
    for seed in (0, 1):
        for arm in (1, 2):
            assert torch.equal(g.stack.p["weight"][:, of[0, seed]], g.stack.p["weight"][:, of[arm, seed]])
            assert torch.equal(x[of[0, seed]], x[of[arm, seed]])
    assert not torch.equal(x[of[0, 0]], x[of[0, 1]])
    assert not torch.equal(g.stack.p["weight"][:, of[0, 0]], g.stack.p["weight"][:, of[0, 1]])
