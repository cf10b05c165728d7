"""Effective ranks and cosines are slow loops', with noise too."""

import numpy as np
import pytest
import torch
from looked_at import seen, trained
from twins import group, look, twins

from bnlab import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.probes import at_once, jacobian, landscape, rank

BN = {"norm": "batch"}


def above(twin, h):
    """The outputs of layer 3 from those of layer 1, in training mode."""
    for l in (1, 2):
        a = twin.linear[l](h)
        before = twin.settings.placement == "before"
        h = twin.activation(twin.normalized(a, l)) if before else twin.normalized(twin.activation(a), l)
    return h


def test_ranks_surfaces_and_jacobians_are_those_of_the_noisy_network():
    noisy = {"noise_shift": 0.5, "noise_scale": 0.25}
    arms = tuple(Arm(label=p, changes=BN | noisy | {"placement": p}) for p in ("before", "after"))
    settings = Settings(depth=3, width=8, batch_size=16, data="wine")
    with torch.no_grad():
        made = Group(Experiment(settings=settings, arms=arms), 0, "cpu", torch.float64)
        made.stack.t = 4
        ranks, losses = rank.look(made)["rank"], landscape.look(made, points=3)["loss"]
        products = at_once(jacobian.look(made))
    for slot, (twin, x, y) in enumerate(twins(made)):
        assert losses[slot, 1, 1] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-9)
        s = np.linalg.svd(made.stack.out[2, slot].numpy(), compute_uv=False)
        assert ranks[slot, 2] == pytest.approx(np.exp(-np.sum(s / s.sum() * np.log(s / s.sum()))))
        h = made.stack.out[0, slot]
        J = torch.autograd.functional.jacobian(lambda h, twin=twin: above(twin, h), h).reshape(128, 128)
        exact, error = float(J.square().sum().div(128).sqrt()), products["training_error"][slot, 0]
        assert abs(products["training"][slot, 0] - exact) < 4 * error < 0.2 * exact


def cosines(x):
    """Of all pairs of rows, slowly; a row that is 0 has no angle with another."""
    rows = [row for row in x if row.any()]
    pairs = [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    return [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]


def test_ranks_and_cosines_are_slow_loops():
    made = group()
    found = look(rank.look, made)
    for slot in range(made.stack.S):
        for l in range(4):
            x = made.stack.out[l, slot].numpy()
            s = np.linalg.svd(x, compute_uv=False)
            p = s / s.sum()
            assert found["rank"][slot, l] == pytest.approx(np.exp(-np.sum(p * np.log(p + 1e-300))), rel=1e-9)
            assert found["cosine"][slot, l] == pytest.approx(np.mean(cosines(x)), rel=1e-9, abs=1e-12)
    line = torch.ones(1, 6, 4, dtype=torch.float64) * torch.arange(1, 7, dtype=torch.float64).view(1, 6, 1)
    assert float(rank.effective_rank(line)) == pytest.approx(1)
    assert float(rank.effective_rank(torch.eye(4, dtype=torch.float64)[None])) == pytest.approx(4)


def test_examples_whose_outputs_are_all_0_are_in_no_pair():
    x = np.random.default_rng(1).standard_normal((3, 8, 4))
    x[0, 2] = 0
    x[1, 1:], x[2, :4], x[2, 4:] = 0, 0, x[2, 4]
    found = rank.mean_cosine(torch.from_numpy(x)).tolist()
    assert found[0] == pytest.approx(np.mean(cosines(x[0])), rel=1e-12)
    assert np.isnan(found[1]) and not cosines(x[1])  # one row is no pair
    assert found[2] == pytest.approx(1)
    nothing = torch.zeros(1, 8, 4, dtype=torch.float64)
    assert np.isnan(float(rank.mean_cosine(nothing))) and float(rank.effective_rank(nothing)) == 0
    broken = torch.full((1, 8, 4), torch.nan, dtype=torch.float64)
    assert np.isnan(float(rank.mean_cosine(broken))) and np.isnan(float(rank.effective_rank(broken)))


def test_a_dead_network_has_rank_0_and_no_cosine(tmp_path):
    """It is finite, and nothing in the figure says otherwise."""
    dead = Settings(depth=2, width=1, batch_size=32, data="wine", activation="relu", weight_decay=1.0, steps=30)
    store, run_id = trained(tmp_path, dead.model_copy(update={"learning_rate": 1.0}), (Arm(label="none"),))
    figure = seen(store, run_id, "ranks")
    ranks, angles = (line.y for line in figure.data)
    assert list(ranks) == [0, 0] and not any(np.isfinite(np.array(angles, float)))
    note = figure.layout.meta["note"]
    assert "rank 0 where none has" in note and "not finite" not in note
