"""Scale invariance: multiply a layer's weights by c and see what changes.

Below a batch norm or layer norm nothing does: the loss stays, the gradient of the layer's weights falls as 1/c, and
the learning rate that counts, which the angle of an update goes with, is eta/||W||^2 (van Laarhoven 2017; delta keeps
it from being exact). Adam's step does not shrink with the gradient: there it is eta/||W||. Without a norm, or after the
activation where it is not positively homogeneous, everything changes. Biases are multiplied too: they belong to what
the norm below which they stand divides by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..optimizers import OPTIMIZERS
from ..registry import LazyModule
from .weights import weight_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group

torch = LazyModule("torch")

FACTORS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)


def look(group: Group, layer: int) -> dict[str, np.ndarray]:
    """For n factors: `factor`, `loss`, `gradient` (norm of dE/dW of the layer), `rate` (eta/||W||^2, under Adam
    eta/||W||), each [S, n]; and `angle` [S, L], degrees by which the next update turns each layer's weights."""
    stack = group.stack
    l = min(layer, stack.L) - 1
    x, y = group.mini_batch(stack.t)
    own, bias = stack.layers[l].weight, stack.p["bias"][l]
    before, bias_before = own.clone(), bias.clone()
    power = torch.tensor([OPTIMIZERS[s.optimizer].power for s in stack.settings])
    told = []
    for c in FACTORS:
        torch.mul(before, c, out=own)
        torch.mul(bias_before, c, out=bias)
        stack.gradient(x, y)
        norm = own.flatten(1).norm(dim=1)
        gradient = weight_gradient(stack, l).flatten(1).norm(dim=1)
        told.append((stack.loss.clone(), gradient, stack.learning_rate.flatten() / norm**power))
    own.copy_(before)
    bias.copy_(bias_before)
    stack.gradient(x, y)
    old = [layer.weight.double().clone() for layer in stack.layers]
    stack.update(*stack.direction())
    new = [layer.weight.double() for layer in stack.layers]
    angle = torch.stack(list(map(turned, old, new)), 1)
    loss, gradient, rate = (torch.stack(q, 1).double().numpy() for q in zip(*told, strict=True))
    factors = np.tile(FACTORS, (stack.S, 1))
    return {"factor": factors, "loss": loss, "gradient": gradient, "rate": rate, "angle": angle.numpy()}


def turned(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees between weights [S, d_in, d], from their difference, which keeps small angles."""
    a, b = (q.flatten(1) / q.flatten(1).norm(dim=1, keepdim=True) for q in (a, b))
    return torch.rad2deg(2 * torch.asin((a - b).norm(dim=1).mul(0.5).clamp_max(1)))
