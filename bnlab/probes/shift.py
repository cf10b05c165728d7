"""Internal covariate shift, measured: how much the layers below, taking their update, change what a layer should do.

For layer i, G is the gradient of its weights now, and G' its gradient after only the layers below it have taken their
update. Their distance and cosine are Santurkar et al.'s (2018, def. 2.1) covariate shift. Beside it, the drift: how
far the distribution of what each layer reads moves on the same mini-batch when the layers below are updated; layer 1
reads the data, which do not move. And that of what enters each activation, the layer's own update included.
What comes after sees noisy batch norm's noise of the next step, as the next step will: the noise is shift on purpose.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from ..registry import LazyModule
from .weights import weight_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group
    from ..stack import Stack

torch = LazyModule("torch")
Moments = tuple["Tensor", "Tensor"]

LOOKED_AT = 5  # layers, spread from the second to the last
ROUNDING = 1000  # machine epsilons of what a unit adds up, below which its spread over the examples is mostly rounding


def look(group: Group) -> Generator[None, None, dict[str, np.ndarray]]:
    """`layer` [S, n]; `change` [S, n], ||G - G'||, `relative` the same over ||G||, and `cosine` of G and G'.

    `drift` [S, L] of what layer l reads, and `entering` [S, L] of what enters its activation: root mean square over
    units of sqrt(change of mean^2 + change of std^2), in standard deviations of the unit: the 2-Wasserstein distance of
    two normal distributions. Without constant units (dead ones); NaN where a unit's pre-activation is constant but for
    rounding.
    """
    stack = group.stack
    x, y = group.mini_batch(stack.t)
    stack.gradient(x, y)
    before = [weight_gradient(stack, l).clone() for l in range(stack.L)]
    start, old, varies = stack.parameters.clone(), moments(stack), varying(stack, x)
    d, c = stack.direction()
    after = torch.addcmul(start, d, stack.rate, value=-c)
    layers = np.unique(np.linspace(min(2, stack.L), stack.L, min(LOOKED_AT, stack.L)).round().astype(int))
    new, now = stack.views(after), stack.p
    told = []
    stack.t += 1  # the noise of the next step; what has none does not notice
    done = 0
    for layer in layers:
        yield
        for l in range(done, layer - 1):  # the layers below take their update
            for name in ("weight_in" if l == 0 else "weight", "bias", "gamma", "beta"):
                place = ... if name == "weight_in" else l - 1 if name == "weight" else l
                now[name][place].copy_(new[name][place])
        done = layer - 1
        stack.gradient(x, y)
        g, other = before[layer - 1].double(), weight_gradient(stack, layer - 1).double()
        change, norm, length = (q.flatten(1).norm(dim=1) for q in (g - other, g, other))
        told.append((change, change / norm, (g * other).flatten(1).sum(1) / (norm * length)))
    change, relative, cosine = (torch.stack(q, 1).numpy() for q in zip(*told, strict=True))
    stack.parameters.copy_(after)
    stack.gradient(x, y)
    out, entering = (drift(was, now, varies) for was, now in zip(old, moments(stack), strict=True))
    stack.t -= 1
    return {
        "layer": np.tile(layers, (stack.S, 1)),
        "change": change,
        "relative": relative,
        "cosine": cosine,
        "drift": np.concatenate([np.zeros((stack.S, 1)), out[:, :-1]], 1),  # what layer l reads left layer l - 1
        "entering": entering,
    }


def moments(stack: Stack) -> tuple[Moments, Moments]:
    """Mean and standard deviation over the mini-batch of each unit's output, and of what enters its activation, [L, S,
    d] each, in float64."""
    entering = stack.a.clone()
    entering[:, stack.before] = stack.m[:, stack.inner(stack.before)]
    return tuple((q.mean(2), q.std(2, correction=0)) for q in (stack.out.double(), entering.double()))


def varying(stack: Stack, x: Tensor) -> Tensor:
    """Whether a unit's pre-activation has a spread over the examples that is more than the rounding of what it adds up,
    [L, S, d]. What comes after it, a norm also, has no more to go by."""
    found, rounding = [], ROUNDING * torch.finfo(x.dtype).eps
    for l, layer in enumerate(stack.layers):
        below = x if l == 0 else stack.out[l - 1]
        parts = torch.bmm(below.square().mean(1, keepdim=True), layer.weight.square()) + layer.bias.square()
        found.append(stack.a[l].double().std(1, correction=0) > rounding * parts[:, 0].sqrt())
    return torch.stack(found)


def drift(was: Moments, now: Moments, varies: Tensor) -> np.ndarray:
    """How far the units' distributions have moved, [S, L]."""
    (mean, std), (mean_now, std_now) = was, now
    told = varies.all(2, keepdim=True) & (std > 0)  # where some are lost, the others move less
    moved = torch.hypot(mean_now - mean, std_now - std) / torch.where(told, std, torch.nan)
    return moved.square().nanmean(2).sqrt().T.numpy()
