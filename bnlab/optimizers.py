"""The update rules, on one long vector that holds every parameter of a stack.

All give a direction d and a number c, so that the update is w <- w - learning_rate * c * d. The same arithmetic as
torch.optim's, written out because constructing a torch optimizer imports a compiler: 1 to 5 seconds, 72 MB.

A class is given what makes a vector of zeros; what it says of its rule:

    memory   vectors it keeps between steps
    stable   learning rate times curvature below which it descends on a quadratic; NaN where no one number tells, as
             it scales every parameter's step by itself (Cohen et al. 2021)
    power    of a weight's norm, 1 or 2, by which the learning rate is divided in the one that counts below a norm: 2
             where a step shrinks with the gradient, which falls as 1/norm, 1 where it does not (van Laarhoven 2017)
"""

from __future__ import annotations

from collections.abc import Callable
from math import nan, sqrt
from typing import TYPE_CHECKING

from .registry import LazyModule, Registry

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")

MOMENTUM = 0.9
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

OPTIMIZERS: Registry[type] = Registry("optimizer")


class Sgd:
    """d = g: plain stochastic gradient descent."""

    label = "SGD"
    memory, stable, power = 0, 2.0, 2

    def __init__(self, zeros: Callable[[], Tensor]):
        self.state: list[Tensor] = []

    def direction(self, g: Tensor, t: int) -> tuple[Tensor, float]:
        """d and c for the gradient g at update t = 0, 1, ..."""
        return g, 1.0


class Momentum:
    """d = 0.9 d + g: SGD with momentum, as torch.optim.SGD(momentum=0.9) (Polyak 1964)."""

    label = "SGD with momentum 0.9"
    memory, stable, power = 1, 2 * (1 + MOMENTUM), 2

    def __init__(self, zeros: Callable[[], Tensor]):
        self.state = [zeros()]

    def direction(self, g: Tensor, t: int) -> tuple[Tensor, float]:
        (d,) = self.state
        return d.mul_(MOMENTUM).add_(g), 1.0


class Adam:
    """d = m / (sqrt(v) + 1e-8 b), c = b / (1 - 0.9^(t+1)), where b = sqrt(1 - 0.999^(t+1)): Kingma and Ba 2015, alg. 1,
    t from 0; with the corrections of the start taken out of the vectors, as they say at its end."""

    label = "Adam"
    memory, stable, power = 2, nan, 1

    def __init__(self, zeros: Callable[[], Tensor]):
        self.state = [zeros(), zeros()]
        self.d = zeros()

    def direction(self, g: Tensor, t: int) -> tuple[Tensor, float]:
        m, v = self.state
        m.lerp_(g, 1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        b = sqrt(1 - BETA2 ** (t + 1))
        torch.sqrt(v, out=self.d).add_(EPSILON * b)
        torch.div(m, self.d, out=self.d)
        return self.d, b / (1 - BETA1 ** (t + 1))


OPTIMIZERS["sgd"] = Sgd
OPTIMIZERS["momentum"] = Momentum
OPTIMIZERS["adam"] = Adam
