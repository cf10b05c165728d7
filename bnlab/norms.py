"""Batch norm and layer norm in formulas, and the moving-average convention.

Arrays are [slot, example, unit]: networks of one shape train as slices (slots) of one stack. Both norms are the same
arithmetic along another axis: batch norm takes mean and variance of each unit over the examples of the mini-batch,
layer norm those of each example over its units. normalization.py has the same with its backward pass.

    mu = mean(x)    sigma2 = mean((x - mu)^2)                    biased variance
    x_hat = (x - mu) / sqrt(sigma2 + delta)                      normalize
    y = gamma x_hat + beta                                       rescale

Sources: Ioffe and Szegedy 2015; Ba, Kiros and Hinton 2016; Bishop 2024, ch. 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .registry import LazyModule, Registry

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")


class Norm(NamedTuple):
    """A kind of normalization; `axis` of [slot, example, unit] is the one that is averaged over."""

    label: str
    axis: int | None


NORMS: Registry[Norm] = Registry("norm")
NORMS["none"] = Norm("None", None)
NORMS["batch"] = Norm("Batch norm", 1)
NORMS["layer"] = Norm("Layer norm", 2)

PLACEMENTS = {"before": "Before the activation", "after": "After the activation"}


def statistics(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x [S, K, d] along `axis`, kept with length 1. Units: x's and their square."""
    mean = x.mean(axis, keepdim=True)
    return mean, (x - mean).square().mean(axis, keepdim=True)


def normalize(x: Tensor, mean: Tensor, var: Tensor, delta: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalize with the given statistics, then rescale: gamma (x - mean)/sqrt(var + delta) + beta."""
    return torch.addcmul(beta, (x - mean) * torch.rsqrt(var + delta), gamma)


def moving_average(old: Tensor, new: Tensor, alpha: Tensor) -> Tensor:
    """Blend one mini-batch statistic into its moving average, in place: alpha * old + (1 - alpha) * new.

    Shapes: old, new [..., S, 1, d]; alpha [S, 1, 1] in float64, as 1 - alpha would
    lose digits in float32. Units: those of `old`.
    alpha is the weight of the OLD value; torch's `momentum` is 1 - alpha, and torch averages the unbiased variance.
    Source: Ioffe and Szegedy 2015, sec. 3.1; symbols as in the concept.
    """
    return old.lerp_(new, (1 - alpha).to(old.dtype))
