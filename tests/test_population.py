"""Population statistics against float64 and slower sums, whole, streamed, and pooled over mini-batches."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from twins import every_kind

from bnlab import Arm, Experiment, Settings, train
from bnlab.group import Group
from bnlab.mlp import Networks, Statistics
from bnlab.population import of_mini_batches, pooled, population, streamed

BN = {"norm": "batch"}


@given(some.lists(some.integers(1, 9), min_size=1, max_size=8), some.floats(-1e6, 1e6))
@hypothesis_settings(max_examples=50, deadline=None)
def test_pooling_parts_gives_the_moments_of_all(sizes, offset):
    rng = np.random.default_rng(len(sizes))
    x = torch.from_numpy(rng.standard_normal((1, sum(sizes), 3)) + offset)
    parts = [(p.shape[1], p.mean(1, keepdim=True), p.var(1, keepdim=True, correction=0)) for p in x.split(sizes, 1)]
    mean, var = pooled(parts)
    torch.testing.assert_close(mean, x.mean(1, keepdim=True), rtol=1e-12, atol=1e-12)
    centered = x - x[:, :1]
    torch.testing.assert_close(var, centered.var(1, keepdim=True, correction=0), rtol=1e-6, atol=1e-9)


def batch_norms(dtype):
    experiment = every_kind(depth=4, width=9, data="wine", batch_size=20, activation="elu", init="he")
    with torch.no_grad():
        group = Group(experiment, 0, "cpu", dtype)
        return group, [networks for _, networks, b in group.one_by_one if b is not None]


def in_numpy(stack, slot, x):
    """Population means and variances [L, d] of one network with batch norm, in float64."""
    s, inner, found = stack.settings[slot], slot - stack.normed.start, []
    h = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh}[s.activation]
    for l, layer in enumerate(stack.layers):
        a = x @ layer.weight[slot].double().numpy() + layer.bias[slot].double().numpy()
        q = a if s.placement == "before" else h(a)
        found.append((q.mean(0), q.var(0)))
        gamma, beta = (stack.p[name][l, inner].double().numpy() for name in ("gamma", "beta"))
        y = gamma * (q - q.mean(0)) / np.sqrt(q.var(0) + float(stack.delta[slot])) + beta
        x = h(y) if s.placement == "before" else y
    return (np.stack(q) for q in zip(*found, strict=True))


@pytest.mark.parametrize("fits", [2**25, 1000])
@pytest.mark.parametrize(("data", "activation", "depth"), [("wine", "relu", 20), ("breast_cancer", "relu", 20),
                         ("digits", "tanh", 6)])  # fmt: skip
def test_population_statistics_are_those_of_float64(monkeypatch, fits, data, activation, depth):
    monkeypatch.setattr(sys.modules["bnlab.population"], "FITS", fits)
    settings = Settings(
        data=data, standardize=False, depth=depth, width=8, activation=activation, steps=10, norm="batch",
        batch_size=16, score_every=10,
    )  # fmt: skip
    experiment = Experiment(
        settings=settings, arms=(Arm(label="before"), Arm(label="after", changes={"placement": "after"}))
    )
    *_, last = train(experiment)
    group = Group(experiment, 0, "cpu", torch.float32)
    group.stack.restore(10, last.weights[0])
    for b, slot in enumerate(group.batch_slots):
        mean, var = in_numpy(group.stack, slot, group.splits["train"][0].double().numpy())
        np.testing.assert_allclose(last.population[0].var[:, b], var, rtol=1e-6, atol=1e-20)  # of a dead unit: nothing
        off = np.abs(last.population[0].mean[:, b] - mean)
        assert (off <= 1e-6 * np.maximum(np.abs(mean), np.sqrt(var)) + 1e-12).all()


def test_an_arms_population_is_the_same_in_any_company():
    arms = (Arm(label="no"), Arm(label="before", changes=BN), Arm(label="after", changes=BN | {"placement": "after"}))
    settings = Settings(data="wine", depth=3, width=9, steps=0)
    whole = next(iter(train(Experiment(settings=settings, arms=arms)))).population[0]
    for arm in arms[1:]:
        alone = next(iter(train(Experiment(settings=settings, arms=(arm,))))).population[0]
        assert any(
            np.array_equal(alone.mean[:, 0], whole.mean[:, b]) and np.array_equal(alone.var[:, 0], whole.var[:, b])
            for b in range(2)
        )


@pytest.mark.parametrize("chunk", [1, 13, 1000])
def test_streamed_population_statistics_in_float64_are_exact(chunk):
    group, kinds = batch_norms(torch.float64)
    for networks in kinds:
        with torch.no_grad():
            x = group.splits["train"][0][None]
            _, whole = networks.forward(x)
            found = streamed(networks, x, chunk)
        for l in range(4):
            torch.testing.assert_close(found.mean[l], whole.mean[l], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(found.var[l], whole.var[l], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fits", [1000, 2 * 9 * 142 - 1, 2 * 9 * 142])
def test_no_more_values_of_a_layer_are_held_at_once_than_fit(monkeypatch, fits):
    group, (one, *_) = batch_norms(torch.float64)
    twice = {name: [torch.cat([q, q]) for q in getattr(one, name)] for name in ("weight", "bias", "gamma", "beta")}
    twice |= {name: torch.cat([getattr(one, name)] * 2) for name in ("delta", "readout", "readout_bias")}
    x, held, forward = group.splits["train"][0].expand(2, -1, -1), [], Networks.forward

    def seen(self, x, given=None):
        held.append(x.shape[0] * x.shape[1] * 9)
        return forward(self, x, given)

    monkeypatch.setattr(Networks, "forward", seen)
    monkeypatch.setattr(sys.modules["bnlab.population"], "FITS", fits)
    outputs, _ = population(replace(one, **twice), x)
    assert fits - 2 * 9 < max(held) <= fits and len(held) == (1 if fits == 2 * 9 * 142 else 5 * -(-142 // (fits // 18)))
    torch.testing.assert_close(outputs, forward(replace(one, **twice), x)[0], rtol=1e-9, atol=1e-12)


def test_the_practitioners_statistics_are_a_slow_loops():
    group, kinds = batch_norms(torch.float64)
    for networks in kinds:
        with torch.no_grad():
            x = group.splits["train"][0][None]
            parts = x.tensor_split(7, 1)
            found = of_mini_batches(networks, x, 7)
            used = [networks.forward(p)[1] for p in parts]
            for l in range(4):
                n = torch.tensor([p.shape[1] for p in parts], dtype=torch.float64).view(-1, 1, 1, 1)
                means, variances = (torch.stack([u[i][l] for u in used]) for i in range(2))
                mean = (n * means).sum(0) / n.sum()
                var = (n * (variances + means**2)).sum(0) / n.sum() - mean**2
                torch.testing.assert_close(found.mean[l], mean, rtol=1e-8, atol=1e-10)
                torch.testing.assert_close(found.var[l], var, rtol=1e-8, atol=1e-10)
    with torch.no_grad():
        whole = of_mini_batches(networks, x, 1)
        torch.testing.assert_close(whole.var[3], networks.forward(x)[1].var[3], rtol=1e-8, atol=1e-10)


def test_scores_do_not_change_where_the_population_is_streamed(monkeypatch):
    experiment = Experiment(
        settings=Settings(depth=3, width=8, steps=2, data="wine"), arms=(Arm(label="bn", changes=BN),)
    )
    whole = next(iter(train(experiment)))
    monkeypatch.setattr(sys.modules["bnlab.population"], "FITS", 100)
    streamed_record = next(iter(train(experiment)))
    for a, b in zip(whole.scores, streamed_record.scores, strict=True):
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-6)
    np.testing.assert_allclose(whole.population[0].var, streamed_record.population[0].var, rtol=1e-6)


def test_statistics_pass_unused_where_fewer_are_given():
    group, kinds = batch_norms(torch.float64)
    networks = kinds[0]
    with torch.no_grad():
        x = group.splits["train"][0][None]
        _, whole = networks.forward(x)
        _, again = networks.forward(x, Statistics(whole.mean[:2], whole.var[:2]))
    torch.testing.assert_close(again.mean[3], whole.mean[3])
