"""Moving averages of any alpha against training with that alpha, a slower loop and the law of independent noise."""

import numpy as np
import pytest
import torch
from torch import nn

from bnlab import Arm, Experiment, Settings, train
from bnlab.moving import (
    START,
    between,
    conventions,
    gap,
    moving_average_at,
    moving_averages,
    noise_of_independent,
    rms,
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
    p = np.cumsum(rng.standard_normal((n, 3)), 0)
    b = p + rng.standard_normal((n, 3))
    parts = gap(b, p, alpha, 1.0)
    np.testing.assert_allclose(parts.total, moving_averages(b, alpha, 1.0)[-1] - p[-1], rtol=1e-10)
    np.testing.assert_allclose(parts.warm_up + parts.lag + parts.noise, parts.total)
    still = np.broadcast_to(p[-1], p.shape)
    np.testing.assert_allclose(gap(still, still, alpha, 1.0).total, gap(b, p, alpha, 1.0).warm_up, rtol=1e-10)
    np.testing.assert_allclose(gap(p, p, alpha, 1.0).lag, parts.lag)
    np.testing.assert_allclose(gap(p, p, alpha, 1.0).noise, 0, atol=1e-12)
    corrected = gap(b, p, alpha, 1.0, corrected=True)
    np.testing.assert_allclose(corrected.total, moving_averages(b, alpha, 1.0, corrected=True)[-1] - p[-1], rtol=1e-9)
    assert (corrected.warm_up == 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.97, 1.0])
def test_a_row_stands_for_the_steps_since_the_one_before(alpha):
    rng = np.random.default_rng(2)
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 50, 99])
    kept = rng.standard_normal((len(steps), 2))
    whole = kept[np.searchsorted(steps, np.arange(100))]  # every step as if it were recorded
    every = moving_averages(whole, alpha, 1.0)
    np.testing.assert_allclose(moving_averages(kept, alpha, 1.0, steps=steps), every[steps], rtol=1e-9, atol=1e-12)
    at = np.array([0, 3, 51, 100])
    few = moving_average_at(kept, alpha, 1.0, at, steps)
    np.testing.assert_allclose(few[-1], every[-1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(few[1], every[2], rtol=1e-9, atol=1e-12)
    p = np.zeros_like(kept)
    np.testing.assert_allclose(gap(kept, p, alpha, 1.0, steps=steps).total, every[-1], rtol=1e-9, atol=1e-12)


def test_lag_under_a_steady_drift_is_alpha_over_one_minus_alpha_steps():
    p = 0.3 * np.arange(2000.0)[:, None]
    assert gap(p, p, 0.95, 0.0).lag[0] == pytest.approx(-0.3 * 0.95 / 0.05, rel=1e-9)


def test_independent_mini_batches_have_the_noise_of_the_law():
    rng = np.random.default_rng(1)
    means = rng.standard_normal((400, 16, 2000)).mean(1)  # K = 16, variance 1
    for alpha in (0.0, 0.5, 0.9):
        off = moving_averages(means, alpha, 0.0, corrected=False)[-1]
        assert off.std() == pytest.approx(float(noise_of_independent(alpha, 1.0, 16, 400)), rel=0.06)


def test_mini_batches_in_epochs_have_less_noise_than_the_law():
    found = {}
    for sampling in ("replacement", "epochs"):
        settings = Settings(
            depth=1, width=64, data="wine", batch_size=10, steps=200, learning_rate=1e-30, sampling=sampling, alpha=0.95
        )
        arm = Arm(label="bn", changes={"norm": "batch"})
        experiment = Experiment(settings=settings, arms=(arm,), seeds=tuple(range(8)))
        last = [r for r in train(experiment) if r.parts or r.population]
        off = []
        for seed in experiment.seeds:
            slot = experiment.stacks[0].index((0, seed))
            mean, var = last[-1].population[0].mean[0, slot], last[-1].population[0].var[0, slot]
            off.append((last[-2].value("moving_mean", 0, seed)[0] - mean) / np.sqrt(var))
        found[sampling] = rms(np.concatenate(off)) / float(noise_of_independent(0.95, 1.0, 10))
    assert found["replacement"] == pytest.approx(1, rel=0.35)
    assert found["epochs"] < 0.75 * found["replacement"]


def test_population_between_its_steps_is_a_straight_line():
    p = between(np.array([0, 4, 10]), np.array([[0.0], [4.0], [-2.0]]), 13)
    np.testing.assert_allclose(p[:, 0], np.interp(np.arange(13), [0, 4, 10], [0, 4, -2]), atol=1e-12)
    assert (between(np.array([5]), np.array([[7.0]]), 3) == 7).all()


@pytest.mark.parametrize("K", [2, 16])
def test_the_line_for_pytorch_gives_the_labs_moving_averages(K):
    alpha, delta = 0.93, 1e-4
    line = next(c.line for c in conventions(alpha, delta, K, 5) if c.library == "PyTorch")
    norm = eval(line, {"torch": torch})
    assert isinstance(norm, nn.BatchNorm1d)
    norm.double()
    x = torch.randn(3, K, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for batch in x:
        norm(batch)
    mean = moving_averages(x.mean(1).numpy(), alpha, 0.0)[-1]
    var = moving_averages(x.var(1, correction=0).numpy() * K / (K - 1), alpha, 1.0)[-1]
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), var, rtol=1e-6)
