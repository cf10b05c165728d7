"""The networks, as the textbook says them: Linear -> [norm] -> activation -> [norm], L times, then a linear readout.

`Networks` are one slot of a stack, or, for second derivatives, adjacent ones that share norm and placement; `forward`
is their inference and scoring pass. The training step, the same formulas with the backward pass written out on buffers,
is stack.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from .activations import ACTIVATIONS
from .norms import NORMS, normalize, statistics
from .registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")


class Statistics(NamedTuple):
    """What batch norm normalizes with: mean and biased variance, one [S, 1, d] a layer."""

    mean: list[Tensor]
    var: list[Tensor]


@dataclass
class Networks:
    """Weights of S networks of one kind. Shapes: weight[l] [S, d_in, d], bias[l] [S, 1, d], gamma, beta [S, 1, d]."""

    norm: str
    placement: str
    activation: str
    weight: list[Tensor]  # of layers 1..L
    bias: list[Tensor]
    gamma: list[Tensor]  # empty where there is no norm
    beta: list[Tensor]
    delta: Tensor  # [S, 1, 1]
    readout: Tensor  # [S, d, n_out]
    readout_bias: Tensor  # [S, 1, n_out]

    def forward(self, x: Tensor, given: Statistics | None = None) -> tuple[Tensor, Statistics]:
        """Outputs [S, K, n_out] for inputs x [S, K, n_in], and the statistics batch norm used in each layer.

        Without `given`, batch norm uses the mean and variance of x's own examples, layer by layer: a mini-batch's
        batch statistics, or, when x is the whole training set, the exact population statistics (each layer's
        statistics with the layers below already normalized by theirs). With `given`, those: inference mode;
        layers above the last given ones again use x's own.
        """
        used = Statistics([], [])
        act = ACTIVATIONS[self.activation]
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            a = torch.baddbmm(bias, x, weight)
            if self.norm != "none" and self.placement == "before":
                a = self.normalized(a, layer, given, used)
            x = act.plain(a) if a.requires_grad else act.forward(a, torch.empty_like(a))
            if self.norm != "none" and self.placement == "after":
                x = self.normalized(x, layer, given, used)
        return torch.baddbmm(self.readout_bias, x, self.readout), used

    def cut(self, depth: int) -> Networks:
        """The lowest `depth` layers alone, for looking at what arrives there; `forward` then has outputs of no use."""
        weights = (part[:depth] for part in (self.weight, self.bias, self.gamma, self.beta))
        nothing = self.readout[:, :, :0], self.readout_bias[:, :, :0]
        return Networks(self.norm, self.placement, self.activation, *weights, self.delta, *nothing)

    def double(self) -> Networks:
        """The same networks in float64."""
        many = ([q.double() for q in part] for part in (self.weight, self.bias, self.gamma, self.beta))
        one = (q.double() for q in (self.delta, self.readout, self.readout_bias))
        return Networks(self.norm, self.placement, self.activation, *many, *one)

    def normalized(self, x: Tensor, layer: int, given: Statistics | None, used: Statistics) -> Tensor:
        """x after this layer's norm; batch norm's statistics are appended to `used`."""
        if self.norm == "batch" and given is not None and layer < len(given.mean):
            mean, var = given.mean[layer], given.var[layer]
        else:
            mean, var = statistics(x, NORMS[self.norm].axis)
        if self.norm == "batch":
            used.mean.append(mean)
            used.var.append(var)
        return normalize(x, mean, var, self.delta, self.gamma[layer], self.beta[layer])


def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross-entropy in nats [S], accuracy [S], NaN where that is, and dE/d(outputs) for outputs [S, K, C] and
    classes y [S, K]."""
    log_p = outputs.log_softmax(2)
    index = y.unsqueeze(2)
    loss = log_p.gather(2, index).sum((1, 2)).mul_(-1 / y.shape[1])
    right = (outputs.argmax(2) == y).sum(1).to(outputs.dtype).mul_(1 / y.shape[1])
    right.masked_fill_(loss.isnan(), nan)  # NaN is in no class, but torch names the first
    gradient = log_p.exp().scatter_add_(2, index, log_p.new_full((1, 1, 1), -1.0).expand(*y.shape, 1))
    return loss, right, gradient.mul_(1 / y.shape[1])


def squared_error(outputs: Tensor, y: Tensor) -> tuple[Tensor, None, Tensor]:
    """Mean squared error [S], no accuracy, and dE/d(outputs) for outputs [S, K, 1] and values y [S, K]."""
    difference = outputs - y.unsqueeze(2)
    loss = difference.square().sum((1, 2)).mul_(1 / y.shape[1])
    return loss, None, difference.mul(2 / y.shape[1])


LOSSES = {"classification": cross_entropy, "regression": squared_error}
