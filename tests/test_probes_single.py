"""One example alone, and what of a gradient passes batch norm, against autograd and a closed form."""

import numpy as np
import pytest
import torch
from looked_at import looked, slot
from twins import Twin, gradient, grouped

from bnlab import Arm, Experiment, Settings
from bnlab.probes.single import look, passing

BN = {"norm": "batch"}


def test_alone_an_example_gets_what_it_gets_in_a_batch_and_two_leave_no_gradient(inference_trace):
    found = looked(inference_trace, "single", 40)
    assert (found["alone"] < 1e-5).all()
    for arm in (1, 2):
        place = slot(inference_trace, arm)
        assert (found["passing"][place] > 0.5).all() and (found["passing"][place] <= 1).all()
        assert (found["passing_of_two"][place] < 0.1 * found["passing"][place]).all()
    assert np.isnan(found["passing"][slot(inference_trace, 0)]).all()


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("K", [2, 9])
def test_what_passes_a_batch_norm_is_autograds(placement, K):
    settings = Settings(depth=3, width=8, data="wine", batch_size=K, activation="tanh", delta=1e-2)
    arm = Arm(label="bn", changes=BN | {"placement": placement})
    group = grouped(Experiment(settings=settings, arms=(arm,)))
    x, y = gradient(group)
    with torch.no_grad():
        shares = passing(group.stack)
    twin = Twin(group.stack, 0)
    kept = [None] * 3
    for l, norm in enumerate(twin.norm):

        def keep(_, inputs, out, l=l):
            inputs[0].retain_grad()
            out.retain_grad()
            kept[l] = (inputs[0], out)

        norm.register_forward_hook(keep)
    twin.loss(x[0], y[0]).backward()
    for l, (into, out) in enumerate(kept):
        sigma = (into.detach().var(0, correction=0) + 1e-2).sqrt()
        share = (into.grad * sigma).norm(dim=0) / out.grad.norm(dim=0)
        assert float(shares[l]) == pytest.approx(float(share.mean()), rel=1e-9)
        if K == 2:  # the closed form bounds it
            assert (share <= 1e-2 / sigma**2 + 1e-12).all()


@pytest.mark.parametrize("placement", ["before", "after"])
def test_what_passes_is_told_of_the_trained_weights(placement):
    settings = Settings(depth=3, width=8, data="wine", batch_size=9, activation="tanh", learning_rate=0.5)
    group = grouped(Experiment(settings=settings, arms=(Arm(label="bn", changes=BN | {"placement": placement}),)))
    with torch.no_grad():
        for t in range(5):
            group.step(t, False)
        found = look(group)["passing"][0]
    gradient(group, 5)
    np.testing.assert_allclose(found, passing(group.stack), rtol=1e-12)
