"""Mini-batches: in epochs or independent, the same for a seed wherever a training goes on; a split cut for scoring."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from bnlab.data import split
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.sampling import DRAWN, mini_batches, parts_of_at_least, parts_of_at_most


def settings(K, sampling="epochs"):
    return Settings(data="wine", batch_size=K, sampling=sampling)


def drawn(s, seed, steps):
    """The mini-batches of steps 0..steps - 1, [steps, K]."""
    firsts = range(0, steps, DRAWN)
    return np.concatenate([mini_batches(s, seed, first) for first in firsts])[:steps]


@hypothesis_settings(deadline=None)
@given(K=some.integers(1, 142), seed=some.integers(0, 2**31 - 1), epoch=some.integers(0, 200))
def test_no_example_comes_twice_in_an_epoch(K, seed, epoch):
    per_epoch = 142 // K
    first = epoch * per_epoch
    start = first // DRAWN * DRAWN
    blocks = [mini_batches(settings(K), seed, at) for at in range(start, first + per_epoch, DRAWN)]
    batches = np.concatenate(blocks)[first - start : first - start + per_epoch]
    assert batches.shape == (per_epoch, K) and batches.min() >= 0 and batches.max() < 142
    assert len(np.unique(batches)) == per_epoch * K


def test_every_epoch_has_its_own_order_and_every_example_gets_its_turn():
    whole = drawn(settings("full"), 0, 100)
    assert (np.sort(whole, 1) == np.arange(142)).all()
    assert len(np.unique(whole, axis=0)) == 100
    left_out = drawn(settings(100), 0, 100)  # one mini-batch of 100 in each epoch of 142
    assert len(np.unique(left_out)) == 142


def test_draws_with_replacement_are_independent():
    n, K = 6400, 8
    batches = drawn(settings(K, "replacement"), 5, n)
    counts = np.bincount(batches.ravel(), minlength=142)
    expected = n * K / 142
    assert ((counts - expected) ** 2 / expected).sum() < 142 + 5 * np.sqrt(2 * 142)  # chi-squared
    twice = np.mean([len(set(batch)) < K for batch in batches])
    never = np.prod(1 - np.arange(K) / 142)
    assert abs(twice - (1 - never)) < 5 * np.sqrt(never * (1 - never) / n)
    centered = batches - 70.5
    for lag in (1, 17, 142 // K, DRAWN):  # nothing is remembered from one mini-batch to a later one
        correlation = np.mean(centered[lag:] * centered[:-lag]) / centered.var()
        assert abs(correlation) < 5 / np.sqrt(n * K)


@pytest.mark.parametrize("sampling", ["epochs", "replacement"])
def test_a_seed_draws_the_same_mini_batches_and_another_seed_others(sampling):
    s = settings(16, sampling)
    np.testing.assert_array_equal(drawn(s, 3, 200), drawn(s, 3, 200))
    for a, b in ((0, 1), (1, 2), (0, 2**31 - 1)):
        assert np.mean(drawn(s, a, 200) == drawn(s, b, 200)) < 0.05
    other = settings(16, "replacement" if sampling == "epochs" else "epochs")
    assert np.mean(drawn(s, 0, 200) == drawn(other, 0, 200)) < 0.05


@pytest.mark.parametrize("sampling", ["epochs", "replacement"])
@pytest.mark.parametrize("K", [5, 100, "full"])
def test_a_training_that_goes_on_anywhere_sees_the_mini_batches_it_would_have_seen(K, sampling):
    experiment = Experiment(
        settings=settings(K, sampling).model_copy(update={"depth": 1, "width": 2}),
        arms=(Arm(label="one"),),
        seeds=(0, 4),
    )
    with torch.no_grad():
        whole = Group(experiment, 0, "cpu", torch.float32)
        x, y = split("wine", True)[0]
        there = {}
        for t in range(150):
            inputs, targets = whole.mini_batch(t)
            there[t] = inputs.numpy().copy(), targets.numpy().copy()
            for place, (_, seed) in enumerate(experiment.stacks[0]):
                rows = drawn(experiment.settings, seed, 150)[t] if t % 50 == 7 else None
                if rows is not None:
                    np.testing.assert_array_equal(there[t][0][place], x[rows].astype(np.float32))
                    np.testing.assert_array_equal(there[t][1][place], y[rows])
        for first in (149, 64, 63, 1, 100):
            again = Group(experiment, 0, "cpu", torch.float32)
            inputs, targets = again.mini_batch(first)
            np.testing.assert_array_equal(inputs, there[first][0])
            np.testing.assert_array_equal(targets, there[first][1])


@pytest.mark.parametrize("K", [2, 3, 16, 113, 114])
def test_a_split_is_cut_into_near_equal_mini_batches_of_at_most_or_at_least_k_and_no_example_is_alone(K):
    for n in (36, 89, 114, 142, 353, 360, 455, 1437):
        sizes = [len(part) for part in np.array_split(np.arange(n), parts_of_at_most(K, n))]
        plain = [len(part) for part in np.array_split(np.arange(n), -(-n // K))]
        assert min(sizes) >= 2 and (sizes == plain or 1 in plain)
        assert max(sizes) <= K or (K == 2 and n % 2 and sizes.count(3) == 1)
        larger = [len(part) for part in np.array_split(np.arange(n), parts_of_at_least(K, n))]
        assert min(larger) >= min(K, n) and (len(larger) + 1) * K > n, "as many as can be"
