"""The cheap measures of each layer, taken at every step from what the step computed anyway.

Whole-stack operations only: no number reaches Python, nothing waits for the device. What passes over all examples is
measured a few layers at a time while they are still in the cache. Rows are laid out in trace.py.
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

CACHED = 2**16  # values, about, of the layers that are measured at once
LOST_DIGITS = 1e-3  # share of the mean square below which a variance is not taken from sums in float32


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
        self.count = stack.room(stack.L, stack.S, 1, stack.d)  # steep values of each unit
        self.share = stack.room(1, 1, 1).add_(1 / (stack.K * stack.d)).view(1)  # Python numbers cost twice as much
        self.flat = [stack.room(1, 1, 1).add_(edge) for edge in stack.act.flat]
        self.one_sided = stack.act.flat[1] == inf
        self.rate = stack.learning_rate.flatten()
        step = max(1, CACHED // (stack.S * stack.K * stack.d))
        spans = [slice(l, min(l + step, stack.L)) for l in range(0, stack.L, step)]
        self.scratch = stack.room(step, stack.S, stack.K, stack.d)
        self.sums = {span.stop - 1: list(self.sum_views(span)) for span in spans}
        self.slopes = {span.stop - 1: list(self.slope_views(span)) for span in spans}
        signal = self.at["layers"]["signal_grad_norm"]
        self.signals = {span.start: (stack.da[span].flatten(2), signal[span]) for span in spans}
        self.copies = list(self.copied())

    def seen(self, name: str):
        """Where all layers' a or z can be read: pairs (slots, [L, slots, K, d]); `known` has the rest."""
        s = self.stack
        ln_after, ln_before = s.kind(1), s.kind(4)
        if name == "a":
            places = [(slice(0, s.after.stop), s.a[:, : s.after.stop]), (ln_before, s.a[:, ln_before])]
        else:  # `out` is z but where the norm comes after the activation
            places = [(slice(0, s.S), s.out), (ln_after, s.m[:, s.inner(ln_after)])]
        return [(slots, x) for slots, x in places if slots.stop > slots.start]

    def known(self):
        """What batch norm knows of what it normalizes: (name, slots, batch means, batch variances [L, slots, d])."""
        s = self.stack
        for name, slots in (("a", s.kind(3)), ("z", s.kind(2))):
            if slots.stop > slots.start:
                b = slice(slots.start - s.batch.start, slots.stop - s.batch.start)
                yield name, slots, s.batch_mean[:, b, 0], s.batch_var[:, b, 0]

    def sum_views(self, span: slice):
        """For mean and spread of a span of layers: their values as rows, where the sums go, where the norms go."""
        for name in "az":
            mean, std = self.at["layers"][f"{name}_mean"][span], self.at["layers"][f"{name}_std"][span]
            for slots, x in self.seen(name):
                yield x[span].flatten(2), mean[:, slots], std[:, slots]

    def slope_views(self, span: slice):
        """For saturation: what enters the activation, scratch, the count of steep values of each unit."""
        s = self.stack
        entering = (slice(0, s.after.stop), s.a[span, : s.after.stop]), (s.before, s.m[span, s.inner(s.before)])
        for slots, u in entering:
            if slots.stop > slots.start and s.act.flat[0] > -inf:
                yield u, self.scratch[: span.stop - span.start, slots], self.count[span, slots]

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
        """Sums and norms of a and z up to layer l, and how many of its values are steep."""
        for x, mean, std in self.sums.get(l, ()):
            torch.sum(x, 2, out=mean)
            torch.linalg.vector_norm(x, dim=2, out=std)
        below, above = self.flat
        for u, steep, count in self.slopes.get(l, ()):
            if self.one_sided:
                torch.gt(u, below, out=steep)
            else:  # the two-sided activations are symmetric
                torch.lt(torch.abs(u, out=steep), above, out=steep)
            torch.sum(steep, 2, keepdim=True, out=count)

    def backward(self, l: int) -> None:
        """Norms of the signal gradients down to layer l."""
        if l in self.signals:
            da, out = self.signals[l]
            torch.linalg.vector_norm(da, dim=2, out=out)

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
        self.spreads()
        if s.act.flat[0] > -inf:
            count = self.count[:, :, 0]
            torch.sum(count, 2, out=layers["saturated"]).mul_(-1 / n).add_(1)
            torch.sum(count == 0, 2, out=layers["dead"]).mul_(1 / s.d)
        for into, source in self.copies:
            into.copy_(source)
        return {table: vector.clone() for table, vector in self.vectors.items()}

    def spreads(self) -> None:
        """Means and standard deviations over examples and units, from the sums and norms of each layer.

        std^2 = norm^2/n - mean^2 loses its digits where the values hardly differ; there they are centered first.
        """
        layers, n = self.at["layers"], self.stack.K * self.stack.d
        for name in "az":
            mean, std = layers[f"{name}_mean"].mul_(self.share), layers[f"{name}_std"]
            square = std.square().mul_(self.share)
            var = torch.addcmul(square, mean, mean, value=-1)
            torch.sqrt(var.clamp_min(0), out=std)
            lost = var < LOST_DIGITS * square
            if self.stack.device == "cpu" and not lost.any():  # elsewhere asking would wait for the device
                continue
            for slots, x in self.seen(name):
                centered = (x - mean[:, slots, None, None]).flatten(2)
                exact = torch.linalg.vector_norm(centered, dim=2).mul_(n**-0.5)
                std[:, slots] = torch.where(lost[:, slots], exact, std[:, slots])
        for name, slots, unit_mean, unit_var in self.known():
            layers[f"{name}_mean"][:, slots] = unit_mean.mean(2)
            between = (unit_mean - unit_mean.mean(2, keepdim=True)).square_().mean(2)
            layers[f"{name}_std"][:, slots] = between.add_(unit_var.mean(2)).sqrt_()


def weight_norms(views: dict[str, Tensor], out: Tensor) -> None:
    """Norms [L, S] of the weight matrices of layers 1..L in a vector's views."""
    torch.linalg.vector_norm(views["weight_in"].flatten(1), dim=1, out=out[0])
    if len(out) > 1:
        torch.linalg.vector_norm(views["weight"].flatten(2), dim=2, out=out[1:])
