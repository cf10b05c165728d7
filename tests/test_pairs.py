"""Mini-batches of two: the normalized value of a unit is ±D/sqrt(D² + δ), with D half the difference of its values."""

import pytest
import torch
from torch import nn
from twins import Twin, gradient, grouped, optimizer

from bnlab.experiment import Arm, Experiment, Settings

PLACEMENTS = ("before", "after")


class Pair(torch.autograd.Function):
    """Batch norm of two examples with its derivative δ/(D² + δ)^1.5 as it stands: no difference that loses digits."""

    @staticmethod
    def forward(ctx, x, delta):
        D = (x[0] - x[1]) / 2
        ctx.save_for_backward(delta / (D.square() + delta) ** 1.5)
        x_hat = D * (D.square() + delta).rsqrt()
        return torch.stack([x_hat, -x_hat])

    @staticmethod
    def backward(ctx, g):
        (slope,) = ctx.saved_tensors
        dx = (g[0] - g[1]) / 2 * slope
        return torch.stack([dx, -dx]), None


class PairNorm(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.delta = norm.weight, norm.bias, norm.eps

    def forward(self, x):
        return Pair.apply(x, self.delta) * self.weight + self.bias


def two_at_a_time(drawn, **settings):
    """A network for each placement; with `drawn` biases and betas instead of zeros."""
    arms = tuple(Arm(label=p, changes={"norm": "batch", "placement": p}) for p in PLACEMENTS)
    settings = Settings(data="wine", depth=3, width=8, batch_size=2, learning_rate=0.01, steps=30, **settings)
    g = grouped(Experiment(settings=settings, arms=arms))
    if drawn:
        draw = torch.Generator().manual_seed(1)
        for name in ("bias", "beta"):
            g.stack.p[name].copy_(torch.rand(g.stack.p[name].shape, generator=draw) - 0.5)
    return g


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("drawn", [False, True])
def test_gradients_are_those_of_the_closed_form(activation, drawn):
    g = two_at_a_time(drawn, activation=activation)
    twins = [Twin(g.stack, slot) for slot in range(2)]
    x, y = gradient(g)
    for slot, twin in enumerate(twins):
        twin.norm = nn.ModuleList(PairNorm(norm) for norm in twin.norm)
        twin.loss(x[slot], y[slot]).backward()
        for l in range(3):
            weight = g.stack.g["weight_in"][slot] if l == 0 else g.stack.g["weight"][l - 1, slot]
            pairs = [(weight.T, twin.linear[l].weight.grad), (g.stack.da[l, slot], twin.a[l].grad)]
            pairs += [(g.stack.g["gamma"][l, slot, 0], twin.norm[l].weight.grad)]
            for ours, theirs in pairs:  # of g a share δ/(σ² + δ) is left, here down to 2e-5: five of sixteen digits go
                assert (ours - theirs).norm() <= 1e-10 * theirs.norm()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_biases_and_betas_that_start_at_0_have_no_gradient(activation):
    """Two examples are mirror images above layer 1; an activation that is odd about a point keeps them so."""
    g = two_at_a_time(False, activation=activation)
    gradient(g)
    for slot, settings in enumerate(g.stack.settings):
        for l in range(settings.placement == "after", 3):  # before: all biases, whatever the activation
            assert g.stack.g["bias"][l, slot].norm() <= 1e-9 * g.stack.da[l, slot].norm()
    assert g.stack.g["bias"][0, g.stack.after].norm() > 1e-2 * g.stack.da[0, g.stack.after].norm()
    assert (g.stack.g["beta"][:2].norm(dim=(2, 3)) <= 1e-9 * g.stack.g["gamma"][:2].norm(dim=(2, 3))).all()
    assert (g.stack.g["beta"][2].norm(dim=(1, 2)) > 1e-3).all()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("delta", [1e-5, 0.1])
def test_away_from_the_mirror_thirty_steps_of_adam_are_torchs(activation, delta):
    g = two_at_a_time(True, activation=activation, delta=delta, optimizer="adam")
    twins = [Twin(g.stack, slot) for slot in range(2)]
    rules = [optimizer(twin.settings, twin.parameters()) for twin in twins]
    for t in range(30):
        x, y = (part.clone() for part in g.mini_batch(t))
        with torch.no_grad():
            g.step(t, False)
        for slot, (twin, rule) in enumerate(zip(twins, rules, strict=True)):
            rule.zero_grad()
            loss = twin.loss(x[slot], y[slot])
            loss.backward()
            rule.step()
            assert g.stack.loss[slot].item() == pytest.approx(loss.item(), rel=1e-7)
