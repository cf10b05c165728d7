"""Batch norm and layer norm: forward, backward and the moving-average convention.

Arrays are [slot, example, unit]: networks of one shape train as slices (slots) of one stack. Both norms are the same
arithmetic along another axis: batch norm takes mean and variance of each unit over the examples of the mini-batch,
layer norm those of each example over its units.

    mu = mean(x)    sigma2 = mean((x - mu)^2)                    biased variance
    x_hat = (x - mu) / sqrt(sigma2 + delta)                      normalize
    y = gamma x_hat + beta                                       rescale

Sources: Ioffe and Szegedy 2015; Ba, Kiros and Hinton 2016; Bishop 2024, ch. 7.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .registry import Late, Registry

if TYPE_CHECKING:
    from torch import Tensor

torch = Late("torch")


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
    """Rescale after normalizing with the given statistics: gamma (x - mean)/sqrt(var + delta) + beta."""
    return torch.addcmul(beta, (x - mean) * torch.rsqrt(var + delta), gamma)


def moving_average(old: Tensor, new: Tensor, alpha: Tensor) -> Tensor:
    """Blend one mini-batch statistic into its moving average, in place: alpha * old + (1 - alpha) * new.

    Shapes: old, new [..., S, 1, d]; alpha [S, 1, 1] in float64, as 1 - alpha would
    lose digits in float32. Units: those of `old`.
    alpha is the weight of the OLD value; torch's `momentum` is 1 - alpha, and torch averages the unbiased variance.
    Source: Ioffe and Szegedy 2015, sec. 3.1; symbols as in the concept.
    """
    return old.lerp_(new, (1 - alpha).to(old.dtype))


class Normalization:
    """One layer's normalization of adjacent slots in a training step, written out on buffers made beforehand.

    `parts` are pairs (x, y) of adjacent slots: where the input is read, where the output goes. All else is
    [S, K, d], or [S, 1, d] and [S, K, 1] for what has one value per unit or per example. A sum and a scaling instead of
    torch's mean: a slot's result then does not depend on its neighbors, to the last bit, and costs less.
    """

    def __init__(self, axis, parts, x_hat, scratch, delta, mean, var, gamma, beta, gamma_grad, beta_grad):
        self.axis, self.n = axis, x_hat.shape[axis]
        self.share = x_hat.new_full((1, 1, 1), 1 / self.n)  # a Python number would cost twice as much
        at = [sum(len(x) for x, _ in parts[:i]) for i in range(len(parts) + 1)]
        cut = [slice(a, b) for a, b in itertools.pairwise(at)]
        self.parts = [(x, y, mean[s], x_hat[s], gamma[s], beta[s]) for (x, y), s in zip(parts, cut, strict=True)]
        self.x_hat, self.scratch, self.delta = x_hat, scratch, delta
        self.mean, self.var, self.inverse = mean, var, torch.empty_like(var)
        self.gamma, self.beta, self.gamma_grad, self.beta_grad = gamma, beta, gamma_grad, beta_grad

    def forward(self) -> None:
        """y = gamma x_hat + beta, with the statistics of this mini-batch."""
        for x, _, mean, *_ in self.parts:
            torch.sum(x, self.axis, keepdim=True, out=mean)
        self.mean.mul_(self.share)
        for x, _, mean, x_hat, *_ in self.parts:
            torch.sub(x, mean, out=x_hat)
        torch.mul(self.x_hat, self.x_hat, out=self.scratch)
        torch.sum(self.scratch, self.axis, keepdim=True, out=self.var).mul_(self.share)
        torch.add(self.var, self.delta, out=self.inverse).rsqrt_()  # 1/sigma
        self.x_hat.mul_(self.inverse)
        for _, y, _, x_hat, gamma, beta in self.parts:
            torch.addcmul(beta, x_hat, gamma, out=y)

    def backward(self, g: Tensor, dx: Tensor) -> None:
        """dE/dx from g = dE/dy, and the gradients of gamma and beta. dx may not be g; g is overwritten by layer norm.

        dE/dx = gamma/sigma (g - mean(g) - x_hat mean(g x_hat)): mean and variance depend on x too (Ioffe and
        Szegedy 2015, sec. 3). In batch norm both means are the gradients of beta and gamma, divided by K.
        """
        torch.mul(g, self.x_hat, out=self.scratch)
        torch.sum(self.scratch, 1, keepdim=True, out=self.gamma_grad)
        torch.sum(g, 1, keepdim=True, out=self.beta_grad)
        if self.axis == 1:
            sum_g, sum_gx, scale = self.beta_grad, self.gamma_grad, self.gamma * self.inverse
        else:  # gamma varies along the axis, so it belongs inside the means
            sum_g = g.mul_(self.gamma).sum(2, keepdim=True)
            sum_gx, scale = self.scratch.mul_(self.gamma).sum(2, keepdim=True), self.inverse
        torch.addcmul(g, self.x_hat, sum_gx, value=-1 / self.n, out=dx)
        dx.sub_(sum_g, alpha=1 / self.n).mul_(scale)


class FrozenNormalization(Normalization):
    """Batch norm of adjacent slots that trains in inference mode: with moving averages that stand still.

    `mean` and `var` are still those of the mini-batch, to be looked at; nothing is normalized by them, so nothing flows
    back through them: dE/dx = gamma/sigma g.
    """

    def __init__(self, *normalization, moving_mean: Tensor, moving_var: Tensor):
        super().__init__(*normalization)
        self.moving_mean, self.moving_var = moving_mean, moving_var

    def forward(self) -> None:
        """y = gamma x_hat + beta, with the moving averages."""
        super().forward()
        torch.add(self.moving_var, self.delta, out=self.inverse).rsqrt_()
        at = 0
        for x, y, _, x_hat, gamma, beta in self.parts:
            here = slice(at, at + len(x))
            torch.sub(x, self.moving_mean[here], out=x_hat).mul_(self.inverse[here])
            torch.addcmul(beta, x_hat, gamma, out=y)
            at += len(x)

    def backward(self, g: Tensor, dx: Tensor) -> None:
        """dE/dx from g = dE/dy, and the gradients of gamma and beta."""
        torch.mul(g, self.x_hat, out=self.scratch)
        torch.sum(self.scratch, 1, keepdim=True, out=self.gamma_grad)
        torch.sum(g, 1, keepdim=True, out=self.beta_grad)
        torch.mul(g, self.gamma * self.inverse, out=dx)


class Noise:
    """Noisy batch norm: y * scale + shift with numbers drawn anew for each unit and step (Santurkar et al. 2018, 2.1).

    shift is uniform in [-noise_shift, noise_shift], scale in [1, 1 + noise_scale]; both are the same for all examples
    of a mini-batch and belong to the seed and the step alone. The paper adds a small jitter for each example.
    """

    def __init__(self, noise_shift: float, noise_scale: float, seed: int, shift: Tensor, scale: Tensor):
        self.noise_shift, self.noise_scale, self.seed = noise_shift, noise_scale, seed
        self.shift, self.scale = shift, scale  # [L, 1, d]
        self.drawn = -1

    def draw(self, t: int) -> None:
        """The numbers of step t."""
        if t == self.drawn:
            return
        self.drawn = t
        u = np.random.default_rng([self.seed, 2, t]).random((2, *self.shift.shape))
        self.shift.copy_(torch.from_numpy(self.noise_shift * (2 * u[0] - 1)))
        self.scale.copy_(torch.from_numpy(1 + self.noise_scale * u[1]))
