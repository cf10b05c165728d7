"""Batch norm and layer norm in the training step of a stack: forward and backward, written out, on its buffers.

The formulas are those of norms.py; backward, with g = dE/dy (Ioffe and Szegedy 2015, sec. 3):

    dE/dx = gamma/sigma (g - mean(g) - x_hat mean(g x_hat))     dE/dgamma = sum(g x_hat)     dE/dbeta = sum(g)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")


class Slots(NamedTuple):
    """Adjacent slots of one norm in one layer, as views on its buffers; `axis` is averaged over. None: the slots of
    both norms, see Normalization.

    x_hat, scratch, g = dE/dy and dx = dE/dx are [slots, K, d], gamma and the gradients [slots, 1, d]; mean, var and
    inverse, 1/sigma, [slots, 1, d] in batch norm and [slots, K, 1] in layer norm; delta [slots, 1, 1].
    """

    axis: int | None
    mean: Tensor
    var: Tensor
    inverse: Tensor
    delta: Tensor
    x_hat: Tensor
    scratch: Tensor
    gamma: Tensor
    gamma_grad: Tensor
    beta_grad: Tensor
    g: Tensor
    dx: Tensor


class Normalization:
    """One layer's normalization of all slots that have a norm, in a training step, on buffers made beforehand.

    `norms` are its slots norm by norm; `every` are all of them, for what is alike in both norms: its axis is None, not
    used, and its mean, var, inverse and delta, like `share`, are vectors [n] with a number for each mean that is taken:

        [n]      1 ... d | 1 ... d | ...        1 ... K | 1 ... K | ...        each on whole blocks (state.py)
        of       the units of each batch norm   the examples of each layer norm
        slots    BN after, then BN before       LN after, then LN before
        share    1/K                            1/d                            times a sum is the mean

    Stack.of_norm makes the views on it that `norms` have. `reads` are (axis, x, mean, x_hat) of adjacent slots of one
    norm that read from one place, `writes` (y, x_hat, gamma, beta) of those that write to one. A sum and a scaling
    instead of torch's mean: a slot's result then does not depend on its neighbors, to the last bit, and costs less.
    """

    def __init__(self, norms: list[Slots], every: Slots, share: Tensor, reads: list[tuple], writes: list[tuple]):
        self.norms, self.every, self.share, self.reads, self.writes = norms, every, share, reads, writes

    def forward(self) -> None:
        """y = gamma x_hat + beta, with the statistics of this mini-batch."""
        every = self.every
        for axis, x, mean, _ in self.reads:
            torch.sum(x, axis, keepdim=True, out=mean)
        every.mean.mul_(self.share)
        for _, x, mean, x_hat in self.reads:
            torch.sub(x, mean, out=x_hat)
        torch.mul(every.x_hat, every.x_hat, out=every.scratch)
        for norm in self.norms:
            torch.sum(norm.scratch, norm.axis, keepdim=True, out=norm.var)
        every.var.mul_(self.share)
        torch.add(every.var, every.delta, out=every.inverse).rsqrt_()  # 1/sigma
        for norm in self.norms:
            norm.x_hat.mul_(norm.inverse)
        self.rescale()

    def rescale(self) -> None:
        """y = gamma x_hat + beta."""
        for y, x_hat, gamma, beta in self.writes:
            torch.addcmul(beta, x_hat, gamma, out=y)

    def backward(self) -> None:
        """dx = dE/dx from g = dE/dy, and the gradients of gamma and beta; layer norm overwrites its g.

        Mean and variance depend on x, too: hence the two means. In batch norm they are the gradients of beta and gamma,
        divided by K.
        """
        every = self.every
        torch.mul(every.g, every.x_hat, out=every.scratch)
        torch.sum(every.scratch, 1, keepdim=True, out=every.gamma_grad)
        torch.sum(every.g, 1, keepdim=True, out=every.beta_grad)
        for norm in self.norms:
            if norm.axis == 1:
                sum_g, sum_gx, scale = norm.beta_grad, norm.gamma_grad, norm.gamma * norm.inverse
            else:  # gamma varies along the axis, so it belongs inside the means
                sum_g = norm.g.mul_(norm.gamma).sum(2, keepdim=True)
                sum_gx, scale = norm.scratch.mul_(norm.gamma).sum(2, keepdim=True), norm.inverse
            n = norm.g.shape[norm.axis]
            torch.addcmul(norm.g, norm.x_hat, sum_gx, value=-1 / n, out=norm.dx)
            norm.dx.sub_(sum_g, alpha=1 / n).mul_(scale)


class FrozenNormalization(Normalization):
    """The same where batch norm trains in inference mode: with moving averages that stand still.

    `mean` and `var` are still those of the mini-batch, to be looked at; nothing is normalized by them, so nothing flows
    back through them: dE/dx = gamma/sigma g. `moving_mean` and `moving_var` are [B, 1, d].
    """

    def __init__(self, *normalization, moving_mean: Tensor, moving_var: Tensor):
        super().__init__(*normalization)
        self.moving_mean, self.moving_var = moving_mean, moving_var
        (self.batch,) = (norm for norm in self.norms if norm.axis == 1)

    def forward(self) -> None:
        """y = gamma x_hat + beta, with the moving averages."""
        super().forward()
        inverse = torch.add(self.moving_var, self.batch.delta, out=self.batch.inverse).rsqrt_()
        at = 0
        for axis, x, _, x_hat in self.reads:
            if axis == 1:
                here = slice(at, at + len(x))
                torch.sub(x, self.moving_mean[here], out=x_hat).mul_(inverse[here])
                at = here.stop
        self.rescale()

    def backward(self) -> None:
        """dx = dE/dx from g = dE/dy, and the gradients of gamma and beta."""
        super().backward()
        torch.mul(self.batch.g, self.batch.gamma * self.batch.inverse, out=self.batch.dx)
