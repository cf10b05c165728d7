"""The activations h and their derivatives: one entry each.

`forward(u, out)` writes h(u) into out. `backward(g, u, z, out)` writes g * h'(u) into out, where z = h(u).
`flat` is the part of the axis where |h'| is below a twentieth of its largest value: (below, above).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .registry import Late, Registry

if TYPE_CHECKING:
    from torch import Tensor
torch = Late("torch")
INF = math.inf


class Activation(NamedTuple):
    label: str
    formula: str
    forward: Callable[[Tensor, Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    flat: tuple[float, float]


ACTIVATIONS: Registry[Activation] = Registry("activation")
ACTIVATIONS["linear"] = Activation("linear", "u", lambda u, out: out.copy_(u), lambda g, u, z, out: out.copy_(g), (-INF, INF))
for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu"):
    ACTIVATIONS[name] = Activation(name, "", lambda u, out: out, lambda g, u, z, out: out, (-INF, INF))
