"""One example alone, and two: what batch norm can do without a mini-batch, and what two examples leave of its gradient.

In inference mode each example is computed alone: a batch of them gives the same outputs. In training mode batch norm's
backward pass takes the mean of a unit's gradient g over the mini-batch and its component along x_hat away,

    dE/dx = gamma/sigma (g - mean(g) - x_hat mean(g x_hat)),

two of its K dimensions. With K = 2 that is all there is: both examples are normalized to +1 and -1 whatever they are,
and only the share delta/(sigma^2 + delta) of the difference survives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..experiment import Arm, Experiment
from ..group import Group
from ..mlp import Statistics
from ..registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

    from ..stack import Stack

torch = LazyModule("torch")

PAIRS = 16  # mini-batches of two that are looked at


def look(group: Group) -> dict[str, np.ndarray]:
    """`alone`, `alone_in_training` [S]: greatest difference of outputs between test examples alone and together, in
    inference mode and in training mode, where batch norm that is not frozen finds no variance in a lone example.
    `passing`, `passing_of_two` [S, L]: share of the gradient's norm that passes the batch norm of a layer, mean over
    units, with mini-batches of K and of 2; NaN without batch norm and where it is frozen, which lets all pass."""
    S, L = group.stack.S, group.stack.L
    alone, in_training, whole, of_two = np.zeros(S), np.zeros(S), *np.full((2, S, L), np.nan)
    x = group.splits["test"][0][None, :32]
    for slot, networks, b in group.one_by_one:
        averages = group.stack.moving_averages
        given = None if b is None else Statistics(*(q[:, b : b + 1].unbind(0) for q in averages))
        for into, used in ((alone, given), (in_training, given if group.stack.frozen else None)):
            together = networks.forward(x, used)[0]
            each = torch.cat([networks.forward(x[:, i : i + 1], used)[0] for i in range(x.shape[1])], 1)
            into[slot] = (together - each).abs().max().item()
    x, y = group.mini_batch(group.stack.t)
    for slot in () if group.stack.frozen else range(group.stack.batch.start, group.stack.batch.stop):
        one, two = (with_batch(group, slot, K) for K in (group.stack.K, 2))
        one.stack.gradient(one.x.copy_(x[slot : slot + 1]), y[slot : slot + 1])
        whole[slot] = passing(one.stack).numpy()
        of_pairs = []
        for pair in range(min(PAIRS, group.stack.K // 2)):
            at = slice(2 * pair, 2 * pair + 2)
            two.stack.gradient(two.x.copy_(x[slot : slot + 1, at]), y[slot : slot + 1, at])
            of_pairs.append(passing(two.stack))
        of_two[slot] = torch.stack(of_pairs).nanmean(0).numpy()
    return {"alone": alone, "alone_in_training": in_training, "passing": whole, "passing_of_two": of_two}


def passing(stack: Stack) -> Tensor:
    """The share [L] of the gradient's norm that passes each batch norm, mean over units; of a stack of one network,
    after its gradient()."""
    shares = []
    for l, layer in enumerate(stack.layers):
        above = (
            (stack.g_outputs, stack.p["readout"]) if l == stack.L - 1 else (stack.da[l + 1], stack.layers[l + 1].weight)
        )
        g = torch.bmm(above[0], above[1].mT)  # dE/d(out)
        if stack.settings[0].placement == "before":
            g = stack.act.backward(g, stack.m[l], layer.out, torch.empty_like(g))
        x_hat = stack.x_hat[l]
        left = g - g.mean(1, keepdim=True) - x_hat * (g * x_hat).mean(1, keepdim=True)
        shares.append((left.norm(dim=1) / g.norm(dim=1))[0].nanmean())
    return torch.stack(shares)


def with_batch(group: Group, slot: int, batch_size: int) -> Group:
    """One slot's network, with the same weights and averages, in a group of its own that takes mini-batches of another
    size."""
    settings = group.stack.settings[slot].model_copy(update={"batch_size": batch_size})
    experiment = Experiment(settings=settings, arms=(Arm(label="alone"),), seeds=(group.stack.networks[slot].seed,))
    other = Group(experiment, 0, "cpu", group.stack.dtype)
    other.stack.take(group.stack, slot, 0)
    other.stack.t = group.stack.t
    return other
