"""Internal covariate shift, measured: how much the layers below, taking their update, change what a layer should do.

For layer i, G is the gradient of its weights now, and G' its gradient after only the layers below it have taken their
update. Their distance and cosine are Santurkar et al.'s (2018, def. 2.1) covariate shift. Beside it, the drift: how
far the distribution of each layer's pre-activations moves on the same mini-batch when the whole network is updated.
What comes after sees noisy batch norm's noise of the next step, as the next step will: the noise is shift on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..registry import Late

if TYPE_CHECKING:
    from torch import Tensor

    from ..train import Group

torch = Late("torch")

LOOKED_AT = 5  # layers, spread from the second to the last
ROUNDING = 1e-4  # of its size, below which a unit's spread over the examples is mostly lost in float32


def look(group: Group) -> dict[str, np.ndarray]:
    """`layer` [S, n]; `change` [S, n], ||G - G'||, `relative` the same over ||G||, and `cosine` of G and G'.

    `drift` [S, L]: root mean square over units of sqrt(change of mean(a)^2 + change of std(a)^2), in standard
    deviations of the unit: the 2-Wasserstein distance of two normal distributions. NaN where all units are constant but
    for rounding.
    """
    stack = group.stack
    x, y = group.mini_batch(stack.t)
    stack.gradient(x, y)
    before = [weight_gradient(group, l).clone() for l in range(stack.L)]
    start, a = stack.parameters.clone(), stack.a.to(torch.float64, copy=True)
    d, c = stack.direction()
    after = torch.addcmul(start, d, stack.rate, value=-c)
    layers = np.unique(np.linspace(min(2, stack.L), stack.L, min(LOOKED_AT, stack.L)).round().astype(int))
    new, now = stack.views(after), stack.p
    told = []
    stack.t += 1  # the noise of the next step; what has none does not notice
    done = 0
    for layer in layers:
        for l in range(done, layer - 1):  # the layers below take their update
            for name in ("weight_in" if l == 0 else "weight", "bias", "gamma", "beta"):
                place = ... if name == "weight_in" else l - 1 if name == "weight" else l
                now[name][place].copy_(new[name][place])
        done = layer - 1
        stack.gradient(x, y)
        g, other = before[layer - 1].double(), weight_gradient(group, layer - 1).double()
        change, norm, length = (q.flatten(1).norm(dim=1) for q in (g - other, g, other))
        told.append((change, change / norm, (g * other).flatten(1).sum(1) / (norm * length)))
    change, relative, cosine = (torch.stack(q, 1).numpy() for q in zip(*told, strict=True))
    stack.parameters.copy_(after)
    stack.gradient(x, y)
    later, spread, level = stack.a.double(), a.std(2, correction=0), a.square().mean(2).sqrt()
    moved = torch.hypot(later.mean(2) - a.mean(2), later.std(2, correction=0) - spread)
    drift = (moved / torch.where(spread > ROUNDING * level, spread, torch.nan)).square().nanmean(2).sqrt().T.numpy()
    stack.t -= 1
    return {
        "layer": np.tile(layers, (stack.S, 1)),
        "change": change,
        "relative": relative,
        "cosine": cosine,
        "drift": drift,
    }


def weight_gradient(group: Group, l: int) -> Tensor:
    """dE/dW of layer l (0-based), [S, d_in, d]."""
    return group.stack.g["weight_in"] if l == 0 else group.stack.g["weight"][l - 1]
