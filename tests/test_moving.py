"""Moving averages of any alpha against training with that alpha, a slower loop and the law of independent noise."""

import re
from math import isnan

import numpy as np
import pytest
import torch
from torch import nn

from bnlab import Arm, Experiment, Settings, train
from bnlab.moving import (
    START,
    age,
    averaged,
    between,
    complete,
    conventions,
    gap,
    law,
    moving_average_at,
    moving_averages,
    noise_left,
    rms,
    weights,
)

ALPHAS = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0]


def columns(experiment, names, arm=0):
    records = [r for r in train(experiment) if r.parts]
    return [np.stack([r.value(name, arm) for r in records]) for name in names]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_any_alpha_afterwards_is_training_with_that_alpha(alpha):
    arms = (
        Arm(label="recorded", changes={"norm": "batch"}),
        Arm(label="online", changes={"norm": "batch", "alpha": alpha}),
    )
    experiment = Experiment(settings=Settings(depth=3, width=8, steps=60, data="wine", batch_size=16), arms=arms)
    for name in ("mean", "var"):
        (batch,) = columns(experiment, [f"batch_{name}"])
        (online,) = columns(experiment, [f"moving_{name}"], 1)
        again = moving_averages(batch, alpha, START[name])
        np.testing.assert_allclose(again, online, rtol=1e-5, atol=1e-6)
        few = np.array([0, 1, 7, 8, 60])
        at = moving_average_at(batch, alpha, START[name], few)
        np.testing.assert_allclose(at[1:], again[few[1:] - 1], rtol=1e-12, atol=1e-14)
        assert (at[0] == START[name]).all()


def test_the_parts_of_the_gap_add_up_and_each_is_what_it_says():
    rng = np.random.default_rng(0)
    n, alpha = 80, 0.9
    p = np.cumsum(rng.standard_normal((n + 1, 3)), 0)
    b = p[:-1] + rng.standard_normal((n, 3))
    parts = gap(b, p, alpha, 1.0)
    np.testing.assert_allclose(parts.total, moving_averages(b, alpha, 1.0)[-1] - p[-1], rtol=1e-10)
    np.testing.assert_allclose(sum(parts[1:]), parts.total)
    still = np.broadcast_to(p[-1], p.shape)
    np.testing.assert_allclose(gap(still[:-1], still, alpha, 1.0).total, parts.warm_up, rtol=1e-10)
    exact = gap(p[:-1], p, alpha, 1.0)
    np.testing.assert_allclose(exact.lag, parts.lag)
    np.testing.assert_allclose(exact.mini_batches, 0, atol=1e-12)
    corrected = gap(b, p, alpha, 1.0, corrected=True)
    np.testing.assert_allclose(corrected.total, moving_averages(b, alpha, 1.0, corrected=True)[-1] - p[-1], rtol=1e-9)
    assert (corrected.warm_up == 0).all()


def test_without_memory_the_average_still_lags_the_one_update_since_its_mini_batch():
    p = 0.3 * np.arange(5.0)[:, None]
    assert gap(p[:-1], p, 0.0, 0.0).lag[0] == pytest.approx(-0.3)


@pytest.mark.parametrize("start", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 2, 3)])
def test_the_corrected_average_of_what_stands_still_is_that_from_the_first_step_and_the_start_where_nothing_comes_in(
    start, shape
):
    still = np.full(shape, 7.0)
    np.testing.assert_allclose(moving_averages(still, 0.9, start, corrected=True), still, rtol=1e-12)
    assert (moving_averages(still, 1.0, start, corrected=True) == start).all()


def test_a_missing_step_is_seen():
    assert complete(np.arange(5)) and complete(np.array([], int)) and complete(np.array([0]))
    for steps in ([1, 2, 3], [0, 2, 4], [0, 1, 2, 4], [3]):
        assert not complete(np.array(steps))


def test_lag_under_a_steady_drift_is_one_over_one_minus_alpha_steps():
    p = 0.3 * np.arange(2001.0)[:, None]
    assert gap(p[:-1], p, 0.95, 0.0).lag[0] == pytest.approx(-0.3 / 0.05, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_the_average_of_the_population_needs_only_the_steps_that_have_it(alpha):
    steps, values = np.array([0, 4, 10, 16]), np.random.default_rng(3).standard_normal((4, 2, 3))
    whole = between(steps, values, 13)
    expected = np.tensordot(weights(13, alpha), whole, 1)
    np.testing.assert_allclose(averaged(steps, values, weights(13, alpha)), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("n", "alpha", "expected"), [(1, 0.9, 1), (2, 0.5, (1 + 0.5 * 2) / 1.5), (7, 0.0, 1)])
def test_the_age_of_what_came_in_is_that_of_its_weights(n, alpha, expected):
    assert age(n, alpha) == pytest.approx(expected)


def test_the_age_of_what_came_in_is_1_over_1_less_alpha_in_the_end_and_half_the_steps_where_hardly_anything_did():
    assert age(2000, 0.99) == pytest.approx(100, rel=1e-6)
    assert age(40, 1 - 1e-12) == pytest.approx((1 + 40) / 2, rel=1e-6)
    assert isnan(age(40, 1.0)) and isnan(age(0, 0.9))


def frozen(K, sampling, steps, seeds, **more):
    """Batch statistics [steps, seeds, units] of layer 1 while the weights stand still, and their population's."""
    settings = Settings(depth=1, batch_size=K, steps=steps, learning_rate=1e-30, sampling=sampling, **more)
    arm = Arm(label="bn", changes={"norm": "batch"})
    experiment = Experiment(settings=settings, arms=(arm,), seeds=tuple(range(seeds)))
    slots = [experiment.stacks[0].index((0, seed)) for seed in range(seeds)]
    new, population = {"mean": [], "var": []}, None
    for record in train(experiment):
        if record.parts:
            for name, found in new.items():
                found.append(np.stack([record.value(f"batch_{name}", 0, seed)[0] for seed in range(seeds)]))
        if population is None and record.population:
            population = {name: getattr(record.population[0], name)[0, slots] for name in new}
    return {name: np.stack(found) for name, found in new.items()}, population


@pytest.mark.parametrize(("K", "sampling", "data"), [(8, "replacement", "gaussian"), (10, "epochs", "wine")])
def test_what_mini_batches_make_of_frozen_weights_is_the_law(K, sampling, data):
    n = 1000
    new, population = frozen(K, sampling, n, 8, data=data, width=64, score_every=n)
    N = Settings(data=data).n_train if sampling == "epochs" else None
    for name in ("mean", "var"):
        unit = np.sqrt(population["var"]) if name == "mean" else population["var"]
        for alpha in (0.0, 0.9, 0.97):
            measured, told = [], []
            for t in range(300, n + 1, 25):  # at many places of an epoch
                still = np.broadcast_to(population[name], (t + 1, *unit.shape))
                parts = gap(new[name][:t], still, alpha, START[name])
                assert rms(parts.lag / unit) < 1e-5
                measured.append(rms(parts.mini_batches / unit))
                told.append(law(name, alpha, K, N, t))
            # the sums behind the values of a unit are nearly normal for the many features of these data
            assert rms(np.array(measured)) == pytest.approx(rms(np.array(told)), rel=0.12), (name, alpha)


def test_the_law_of_an_epoch_is_a_slow_sum_over_pairs_and_vanishes_after_whole_epochs():
    K, N, t, alpha = 10, 45, 17, 0.8
    w, finite, together = weights(t, alpha), (N - K) / (N - 1), -K / (N - K)
    epoch = np.arange(t) // (N // K)
    pairs = sum(
        w[i] * w[j] * (1 if i == j else together if epoch[i] == epoch[j] else 0) for i in range(t) for j in range(t)
    )
    assert law("mean", alpha, K, N, t) == pytest.approx(np.sqrt(pairs * finite / K))
    assert law("mean", 0.999999, 9, 45, 40) < 1e-6 * 40  # every example came in 8 times
    for n in (1, 3, t):
        came = [(1 - alpha) * alpha**s for s in range(n)]
        left = sum(share**2 for share in came)
        assert law("mean", alpha, K, None, n) == pytest.approx(np.sqrt(left / K))
        assert noise_left(alpha, n) == pytest.approx(np.sqrt(left))
        variance, bias = 2 * (K - 1) / K**2 * left, sum(came) / K
        assert law("var", alpha, K, None, n) == pytest.approx(np.sqrt(variance + bias**2))
    assert noise_left(alpha) == pytest.approx(np.sqrt((1 - alpha) / (1 + alpha)))
    assert noise_left(1.0) == noise_left(1.0, 9, 3) == 0
    assert law("var", 0.0, 8, None, 9) == pytest.approx(np.sqrt(2 * 7 / 64 + 1 / 64))
    assert law("var", 0.0, 142, 142, 9) == law("mean", 0.0, 142, 142, 9) == 0  # the mini-batch is the population


def test_the_mean_of_biased_variances_is_that_of_a_finite_population():
    new, population = frozen(71, "epochs", 400, 4, data="wine", width=32, score_every=400)
    off = np.mean(new["var"].mean(0) / population["var"] - 1)
    assert off == pytest.approx(-(142 - 71) / (71 * 141), rel=0.1)


def test_population_between_its_steps_is_a_straight_line():
    for steps in ([0, 4, 10], [2, 3, 10]):
        p = between(np.array(steps), np.array([[0.0], [4.0], [-2.0]]), 13)
        np.testing.assert_allclose(p[:, 0], np.interp(np.arange(13), steps, [0, 4, -2]), atol=1e-12)
    assert (between(np.array([5]), np.array([[7.0]]), 3) == 7).all()


@pytest.mark.parametrize("K", [2, 16])
def test_the_line_for_pytorch_gives_the_labs_moving_averages(K):
    alpha, delta = 0.93, 1e-4
    told = next(c for c in conventions(alpha, delta, K, 5) if c.library == "PyTorch")
    norm = eval(told.line, {"torch": torch})
    assert isinstance(norm, nn.BatchNorm1d)
    norm.double()
    x = torch.randn(3, K, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for batch in x:
        norm(batch)
    mean = moving_averages(x.mean(1).numpy(), alpha, 0.0)[-1]
    var = moving_averages(x.var(1, correction=0).numpy() * K / (K - 1), alpha, 1.0)[-1]
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), var, rtol=1e-6)
    left = alpha**3  # of the 1 that both start at; what came in is the lab's but for the factor
    lab = moving_averages(x.var(1, correction=0).numpy(), alpha, 1.0)[-1]
    np.testing.assert_allclose((norm.running_var.numpy() - left) * told.factor, lab - left, rtol=1e-6)
    assert told.factor == (K - 1) / K
    assert all(c.factor == 1 for c in conventions(alpha, delta, K, 5) if c.library != "PyTorch")


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.93, 0.999, 0.9999999, 1.0])
def test_the_lines_of_code_hold_alpha_to_its_last_digit(alpha):
    """Keras and Flax were told momentum=1 for 0.9999999, with which nothing ever comes in."""
    lines = {c.library: c.line for c in conventions(alpha, 1e-5, 16, 5)}
    assert eval(lines["This lab"].partition("=")[2], {"moving": 1.0, "batch": 0.0}) == alpha
    assert [float(re.search(r"momentum=([^,]+),", lines[name])[1]) for name in ("Keras", "Flax")] == [alpha] * 2


def test_what_is_not_finite_stays_with_its_unit_and_warns_nobody():
    """Beside a unit that overflows, one that becomes NaN, and one that does both the ways around."""
    t, alpha = 6, 0.8
    new, population = np.random.default_rng(0).normal(size=(2, t + 1, 4))
    new[4, 1], population[3, 1], new[5, 2] = np.inf, np.inf, np.nan
    new[[2, 3], 3], population[[0, 6], 3] = (np.inf, -np.inf), (-np.inf, np.inf)
    with np.errstate(all="ignore"):  # this test's own sums, in plain words
        slow = 0.5 * alpha**t + sum((1 - alpha) * alpha ** (t - 1 - s) * new[s] for s in range(t))
        total = slow - population[t]
    assert np.isnan(slow).tolist() == [False, False, True, True] and slow[1] == np.inf
    for m in (moving_averages(new[:t], alpha, 0.5)[-1], *moving_average_at(new, alpha, 0.5, np.array([t]))):
        np.testing.assert_allclose(m, slow, rtol=1e-12)
    told = gap(new[:t], population, alpha, 0.5)
    np.testing.assert_allclose(told.total[0], total[0], rtol=1e-9)
    assert not np.isfinite(np.array(told)[:, 1:].sum(0)).any()
    line = between(np.array([0, 3, 6]), population[[0, 3, 6]], t + 1)
    np.testing.assert_allclose(line[:, 0], np.interp(np.arange(t + 1), [0, 3, 6], population[[0, 3, 6], 0]))
    assert np.isfinite(line[:, [0, 2]]).all() and not np.isfinite(line[1:6, 1]).any()
    lag = averaged(np.array([0, 3, 6]), population[[0, 3, 6]], weights(t, alpha))
    assert np.isfinite(lag).tolist() == [True, False, True, False]
    assert np.isnan(rms(np.array([1.0, np.nan]))) and np.isnan(rms(np.array([])))
