"""Effective ranks and cosines are slow loops', with noise too."""

import numpy as np
import pytest
import torch
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


def test_ranks_and_cosines_are_slow_loops():
    made = group()
    found = look(rank.look, made)
    for slot in range(made.stack.S):
        for l in range(4):
            x = made.stack.out[l, slot].numpy()
            s = np.linalg.svd(x, compute_uv=False)
            p = s / s.sum()
            assert found["rank"][slot, l] == pytest.approx(np.exp(-np.sum(p * np.log(p + 1e-300))), rel=1e-9)
            u = x / np.linalg.norm(x, axis=1, keepdims=True)
            pairs = [u[i] @ u[j] for i in range(len(u)) for j in range(len(u)) if i != j]
            assert found["cosine"][slot, l] == pytest.approx(np.mean(pairs), rel=1e-9, abs=1e-12)
    line = torch.ones(1, 6, 4, dtype=torch.float64) * torch.arange(1, 7, dtype=torch.float64).view(1, 6, 1)
    assert float(rank.effective_rank(line)) == pytest.approx(1)
    assert float(rank.effective_rank(torch.eye(4, dtype=torch.float64)[None])) == pytest.approx(4)
