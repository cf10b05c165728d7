"""One example alone, and two: what batch norm can do without a mini-batch, and what two examples leave of its gradient.

In inference mode each example is computed alone: a batch of them gives the same outputs. In training mode two examples
are normalized to +1 and -1 whatever they are, so that almost nothing of the gradient passes the norm (FACTS of
Ioffe and Szegedy's backward pass: the sum of dE/da over the batch is 0, and that of dE/da a_hat nearly so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..experiment import Arm, Experiment
from ..mlp import Statistics
from ..registry import Late
from ..train import Group

if TYPE_CHECKING:
    from torch import Tensor

torch = Late("torch")

PAIRS = 16  # mini-batches of two that are looked at


def look(group: Group) -> dict[str, np.ndarray]:
    """`alone` [S]: greatest difference of outputs in inference mode between test examples alone and together.
    `signal`, `signal_of_two` [S, L]: root mean square norm of an example's dE/da, with mini-batches of K and of 2."""
    S, L = group.stack.S, group.stack.L
    alone, signal, of_two = np.zeros(S), np.zeros((S, L)), np.zeros((S, L))
    test = group.splits["test"][0][:32]
    for slots, networks, b in group.alike:
        count = slots.stop - slots.start
        x = test.expand(count, *test.shape)
        averages = (group.stack.moving_mean[:, b], group.stack.moving_var[:, b]) if b else None
        given = Statistics(*(q.unbind(0) for q in averages)) if b else None
        together = networks.forward(x, given)[0]
        each = torch.cat([networks.forward(x[:, i : i + 1], given)[0] for i in range(x.shape[1])], 1)
        alone[slots] = (together - each).abs().amax((1, 2)).numpy()
    x, y = group.mini_batch(group.stack.t)
    group.stack.gradient(x, y)
    signal[:] = per_example(group.stack.da).numpy().T
    for slot in range(S):
        two = with_batch(group, slot, 2)
        seen = []
        for pair in range(min(PAIRS, group.stack.K // 2)):
            at = slice(2 * pair, 2 * pair + 2)
            two.stack.gradient(two.x.copy_(x[slot : slot + 1, at]), y[slot : slot + 1, at])
            seen.append(per_example(two.stack.da)[:, 0].square())
        of_two[slot] = torch.stack(seen).mean(0).sqrt().numpy()
    return {"alone": alone, "signal": signal, "signal_of_two": of_two}


def per_example(da: Tensor) -> Tensor:
    """Root mean square over the mini-batch of the norm of an example's own dE_n/da, [L, S], from da [L, S, K, d]."""
    return da.square().sum(3).mean(2).sqrt().mul(da.shape[2])  # E is the mean over examples: da holds a K-th of it


def with_batch(group: Group, slot: int, batch_size: int) -> Group:
    """One slot's network, with the same weights, in a group of its own that takes mini-batches of another size."""
    settings = group.stack.settings[slot].model_copy(update={"batch_size": batch_size})
    experiment = Experiment(settings=settings, arms=(Arm(label="alone"),), seeds=(group.seeds[slot],))
    other = Group(experiment, 0, "cpu", group.stack.dtype)
    inner = slot - group.stack.normed.start
    for name, view in other.stack.p.items():
        of = inner if name in ("gamma", "beta") else slot
        if view.shape[-3]:
            view.select(-3, 0).copy_(group.stack.p[name].select(-3, of))
    other.stack.t = group.stack.t
    return other
