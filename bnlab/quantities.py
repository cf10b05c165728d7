"""The cheap measures of each layer, taken at every step from what the step computed anyway.

Whole-stack operations only: no number reaches Python, nothing waits for the device. What passes over all examples is
measured layer by layer while it is still in the cache. Rows are laid out in trace.py.
"""

from __future__ import annotations

from math import inf, prod
from typing import TYPE_CHECKING

from .registry import Late
from .stack import Stack
from .trace import Layout, sample_at

if TYPE_CHECKING:
    from torch import Tensor

torch = Late("torch")


class Rows:
    """The row of one step of a stack, one vector a table, and the views through which its quantities are written.

    `forward(l)` and `backward(l)` are called as the step passes layer l; `measured(d, c)` once before the update.
    """

    def __init__(self, stack: Stack, columns: Layout):
        self.stack = stack
        size = {t: sum(prod(shape) for _, shape in quantities.values()) for t, quantities in columns.items()}
        self.vectors = {t: torch.zeros(n, dtype=stack.dtype, device=stack.device) for t, n in size.items()}
        self.at = {
            t: {q: self.vectors[t][start : start + prod(shape)].view(shape) for q, (start, shape) in quantities.items()}
            for t, quantities in columns.items()
        }
        self.scratch = stack.room(stack.S, stack.K, stack.d)
        self.count = stack.room(stack.L, stack.S, 1, stack.d)  # steep values of each unit
        self.share = stack.room(1, 1, 1).add_(1 / (stack.K * stack.d)).view(1)  # tensors: Python numbers cost twice as much
        self.flat = [stack.room(1, 1, 1).add_(edge) for edge in stack.act.flat]
        self.one_sided = stack.act.flat[1] == inf
        self.rate = stack.learning_rate.flatten()
        self.spreads = [list(self.spread_views(l)) for l in range(stack.L)]
        self.slopes = [list(self.slope_views(l)) for l in range(stack.L)]
        self.signals = [(stack.da[l].flatten(1), self.at["layers"]["signal_grad_norm"][l]) for l in range(stack.L)]
        self.copies = list(self.copied())

    def spread_views(self, l: int):
        """For mean and standard deviation: what is seen, its slots' mean, the centered values, their norm."""
        s, layers = self.stack, self.at["layers"]
        ln_after = s.kind(1)
        seen = [("a", slice(0, s.S), s.a[l]), ("z", slice(0, s.S), s.out[l])]
        if ln_after.stop > ln_after.start:  # elsewhere `out` is z, or batch norm knows z's mean and variance
            seen.append(("z", ln_after, s.m[l, s.inner(ln_after)]))
        for name, slots, x in seen:
            mean, std = layers[f"{name}_mean"][l, slots], layers[f"{name}_std"][l, slots]
            centered = self.scratch[slots]
            yield x, x.flatten(1), mean, mean[:, None, None], centered, centered.flatten(1), std

    def slope_views(self, l: int):
        """For saturation: what enters the activation, scratch, the count of steep values of each unit."""
        s = self.stack
        for slots, u in ((slice(0, s.after.stop), s.a[l, : s.after.stop]), (s.before, s.m[l, s.inner(s.before)])):
            if slots.stop > slots.start and s.act.flat[0] > -inf:
                yield u, self.scratch[slots], self.count[l, slots]

    def copied(self):
        """Pairs (into, source) of what is recorded as it stands: the units' statistics and the samples."""
        s = self.stack
        if s.B:
            for name in ("batch_mean", "batch_var", "moving_mean", "moving_var"):
                yield self.at["units"][name], getattr(s, name)[:, :, 0]
            for name in ("gamma", "beta"):
                yield self.at["units"][name], s.p[name][:, s.inner(s.batch), 0]
        places = sample_at(s.K, s.d)
        pick = slice(0, places[-1] + 1, places.step)
        seen = [(s.none, s.out[:, s.none]), (s.after, s.m[:, s.inner(s.after)]), (s.before, s.out[:, s.before])]
        yield self.at["samples"]["a"], s.a.flatten(2)[..., pick]
        for slots, z in seen:
            if slots.stop > slots.start:
                yield self.at["samples"]["z"][:, slots], z.flatten(2)[..., pick]

    def forward(self, l: int) -> None:
        """Mean and spread of layer l's a and z, and how many of its values are steep."""
        for x, x_flat, mean, mean_wide, centered, centered_flat, std in self.spreads[l]:
            torch.sum(x_flat, 1, out=mean).mul_(self.share)
            torch.sub(x, mean_wide, out=centered)
            torch.linalg.vector_norm(centered_flat, dim=1, out=std)
        below, above = self.flat
        for u, steep, count in self.slopes[l]:
            if self.one_sided:
                torch.gt(u, below, out=steep)
            else:  # the two-sided activations are symmetric
                torch.lt(torch.abs(u, out=steep), above, out=steep)
            torch.sum(steep, 1, keepdim=True, out=count)

    def backward(self, l: int) -> None:
        """Norm of the signal gradient of layer l."""
        da, out = self.signals[l]
        torch.linalg.vector_norm(da, dim=1, out=out)

    def measured(self, d: Tensor, c: float) -> dict[str, Tensor]:
        """The step's rows, copied out; to be called between the stack's direction() -> (d, c) and its update()."""
        s, layers, n = self.stack, self.at["layers"], self.stack.K * self.stack.d
        self.at["steps"]["loss"].copy_(s.loss)
        if s.accuracy is not None:
            self.at["steps"]["accuracy"].copy_(s.accuracy)
        weight_norms(s.g, layers["grad_norm"])
        weight_norms(s.p, layers["weight_norm"])
        if d is s.gradients:
            layers["update_ratio"].copy_(layers["grad_norm"])
        else:
            weight_norms(s.views(d), layers["update_ratio"])
        layers["update_ratio"].mul_(self.rate).mul_(c).div_(layers["weight_norm"])
        for name in ("a_std", "z_std"):
            layers[name].mul_(n**-0.5)
        bn_after = s.kind(2)
        if bn_after.stop > bn_after.start:
            i = slice(0, bn_after.stop - bn_after.start)  # they come first among the batch norms
            mean, var = s.batch_mean[:, i, 0], s.batch_var[:, i, 0]
            torch.mean(mean, 2, out=layers["z_mean"][:, bn_after])
            between = (mean - layers["z_mean"][:, bn_after, None]).square_().mean(2)
            torch.sqrt(between.add_(var.mean(2)), out=layers["z_std"][:, bn_after])
        if s.act.flat[0] > -inf:
            count = self.count[:, :, 0]
            torch.sum(count, 2, out=layers["saturated"]).mul_(-1 / n).add_(1)
            torch.sum(count == 0, 2, out=layers["dead"]).mul_(1 / s.d)
        for into, source in self.copies:
            into.copy_(source)
        return {table: vector.clone() for table, vector in self.vectors.items()}


def weight_norms(views: dict[str, Tensor], out: Tensor) -> None:
    """Norms [L, S] of the weight matrices of layers 1..L in a vector's views."""
    torch.linalg.vector_norm(views["weight_in"].flatten(1), dim=1, out=out[0])
    if len(out) > 1:
        torch.linalg.vector_norm(views["weight"].flatten(2), dim=2, out=out[1:])
