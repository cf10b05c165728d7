"""The cheap measures of each layer, taken at every step from what the step computed anyway.

Whole-stack operations only: no number reaches Python, nothing waits for the device. Rows are laid out in trace.py.
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
    """The row of one step of a stack, one vector a table, and the views its quantities are written through."""

    def __init__(self, stack: Stack, columns: Layout):
        self.stack = stack
        size = {t: sum(prod(shape) for _, shape in quantities.values()) for t, quantities in columns.items()}
        self.vectors = {t: torch.zeros(n, dtype=stack.dtype, device=stack.device) for t, n in size.items()}
        self.at = {
            t: {q: self.vectors[t][start : start + prod(shape)].view(shape) for q, (start, shape) in quantities.items()}
            for t, quantities in columns.items()
        }
        self.scratch = stack.room(stack.L, stack.S, stack.K, stack.d)
        self.count = stack.room(stack.L, stack.S, 1, stack.d)
        self.rate = stack.learning_rate.flatten()
        s = stack
        shift = s.normed.start
        after, before = (slice(k.start - shift, k.stop - shift) for k in (s.after, s.before))
        ln_after, ln_before = s.kind(1), s.kind(4)
        bn_after, bn_before = s.kind(2), s.kind(3)
        self.a_seen = [(k, s.a[:, k]) for k in (slice(0, s.after.stop), ln_before) if k.stop > k.start]
        z_seen = [(s.none, s.out[:, s.none]), (ln_after, s.m[:, slice(ln_after.start - shift, ln_after.stop - shift)])]
        self.z_seen = [(k, z) for k, z in [*z_seen, (s.before, s.out[:, s.before])] if k.stop > k.start]
        self.known = []  # batch norm has mean and variance of what it normalizes already
        for name, k in (("a", bn_before), ("z", bn_after)):
            if k.stop > k.start:
                i = slice(k.start - s.batch.start, k.stop - s.batch.start)
                self.known.append((name, k, s.batch_mean[:, i, 0], s.batch_var[:, i, 0]))
        self.entering = [(k, u) for k, u in ((slice(0, s.after.stop), s.a[:, : s.after.stop]), (s.before, s.m[:, before])) if k.stop > k.start]
        z_parts = [(s.none, s.out[:, s.none]), (s.after, s.m[:, after]), (s.before, s.out[:, s.before])]
        places = sample_at(s.K, s.d)
        pick = slice(places.start, places[-1] + 1, places.step)
        self.samples = [("a", slice(0, s.S), s.a.flatten(2)[..., pick])]
        self.samples += [("z", k, z.flatten(2)[..., pick]) for k, z in z_parts if k.stop > k.start]
        if stack.B:
            b = slice(s.batch.start - shift, s.batch.stop - shift)
            u = self.at["units"]
            self.copies = [
                (u["batch_mean"], s.batch_mean[:, :, 0]),
                (u["batch_var"], s.batch_var[:, :, 0]),
                (u["moving_mean"], s.moving_mean[:, :, 0]),
                (u["moving_var"], s.moving_var[:, :, 0]),
                (u["gamma"], s.p["gamma"][:, b, 0]),
                (u["beta"], s.p["beta"][:, b, 0]),
            ]
        else:
            self.copies = []

    def measured(self, d: Tensor, c: float) -> dict[str, Tensor]:
        """The step's rows, copied out; to be called between the stack's direction() -> (d, c) and its update()."""
        s, layers = self.stack, self.at["layers"]
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
        torch.linalg.vector_norm(s.da.flatten(2), dim=2, out=layers["signal_grad_norm"])
        self.moments(layers)
        self.flatness(layers)
        for into, source in self.copies:
            into.copy_(source)
        for name, slots, source in self.samples:
            self.at["samples"][name][:, slots].copy_(source)
        return {table: vector.clone() for table, vector in self.vectors.items()}

    def moments(self, layers: dict[str, Tensor]) -> None:
        """Mean and standard deviation over examples and units of a and z."""
        s = self.stack
        n = s.K * s.d
        for name, seen in (("a", self.a_seen), ("z", self.z_seen)):
            for slots, x in seen:
                mean = x.flatten(2).sum(2).mul_(1 / n)
                centered = torch.sub(x, mean[..., None, None], out=self.scratch[:, slots])
                layers[f"{name}_mean"][:, slots] = mean
                layers[f"{name}_std"][:, slots] = torch.linalg.vector_norm(centered.flatten(2), dim=2).mul_(n**-0.5)
        for name, slots, mean, var in self.known:
            overall = mean.mean(2)
            between = (mean - overall[..., None]).square_().mean(2)
            layers[f"{name}_mean"][:, slots] = overall
            layers[f"{name}_std"][:, slots] = between.add_(var.mean(2)).sqrt_()

    def flatness(self, layers: dict[str, Tensor]) -> None:
        """Shares of saturated values and of dead units."""
        s = self.stack
        below, above = s.act.flat
        if below == -inf:
            return  # nothing is flat, the shares stay 0
        for slots, u in self.entering:
            if above == inf:
                steep = torch.gt(u, below, out=self.scratch[:, slots])
            else:  # the two-sided activations are symmetric
                steep = torch.abs(u, out=self.scratch[:, slots])
                torch.lt(steep, above, out=steep)
            torch.sum(steep, 2, keepdim=True, out=self.count[:, slots])
        count = self.count[:, :, 0]
        torch.sum(count, 2, out=layers["saturated"]).mul_(-1 / (s.K * s.d)).add_(1)
        torch.sum(count == 0, 2, out=layers["dead"]).mul_(1 / s.d)


def weight_norms(views: dict[str, Tensor], out: Tensor) -> None:
    """Norms [L, S] of the weight matrices of layers 1..L in a vector's views."""
    torch.linalg.vector_norm(views["weight_in"].flatten(1), dim=1, out=out[0])
    if len(out) > 1:
        torch.linalg.vector_norm(views["weight"].flatten(2), dim=2, out=out[1:])
