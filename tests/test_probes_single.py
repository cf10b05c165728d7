"""One example alone, and what of a gradient passes batch norm, against autograd and a closed form."""

import numpy as np
import pytest
import torch
from looked_at import looked, slot
from twins import Twin, gradient, grouped, twins
from twins import group as made_of_every_kind
from twins import look as probed

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
    for l, (share, sigma) in enumerate(autograds(Twin(group.stack, 0), x[0], y[0])):
        assert float(shares[l]) == pytest.approx(float(share.mean()), rel=1e-9)
        if K == 2:  # the closed form bounds it
            assert (share <= 1e-2 / sigma**2 + 1e-12).all()


def autograds(twin, x, y):
    """Of each batch norm the share [d] of the gradient's norm that passes it, but for gamma, and its sigma."""
    kept = [None] * len(twin.norm)
    for l, norm in enumerate(twin.norm):

        def keep(_, inputs, out, l=l):
            inputs[0].retain_grad()
            out.retain_grad()
            kept[l] = (inputs[0], out)

        norm.register_forward_hook(keep)
    twin.loss(x, y).backward()
    sigmas = [(into.detach().var(0, correction=0) + twin.settings.delta).sqrt() for into, _ in kept]
    return [
        ((into.grad * sigma / norm.weight.detach()).norm(dim=0) / out.grad.norm(dim=0), sigma)
        for norm, (into, out), sigma in zip(twin.norm, kept, sigmas, strict=True)
    ]


def test_what_passes_two_examples_is_the_mean_over_pairs_of_autograds():
    made = made_of_every_kind(delta=1e-2)
    found = probed(look, made)["passing_of_two"]
    for place, (twin, x, y) in enumerate(twins(made)):
        if twin.settings.norm != "batch":
            assert np.isnan(found[place]).all()
            continue
        pairs = [autograds(Twin(made.stack, place), x[i : i + 2], y[i : i + 2]) for i in range(0, 12, 2)]
        shares = [[float(share.mean()) for share, _ in layers] for layers in pairs]
        np.testing.assert_allclose(found[place], np.mean(shares, 0), rtol=1e-7)


def test_in_training_mode_a_lone_example_gets_what_two_of_it_would():
    """torch refuses one example there; of two equal ones, too, batch norm finds no variance."""
    made = made_of_every_kind(delta=1e-2)  # each norm divides what rounding makes of two equal ones by sqrt(delta)
    found = probed(look, made)["alone_in_training"]
    x = made.splits["test"][0][:32]
    for place in range(made.stack.S):
        twin = Twin(made.stack, place)
        with torch.no_grad():
            alone = torch.cat([twin(one.expand(2, -1))[:1] for one in x])
            assert found[place] == pytest.approx(float((twin(x) - alone).abs().max()), rel=1e-7, abs=1e-12)


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
