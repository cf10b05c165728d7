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

LOWEST, HIGHEST = 1e-16, 1e18  # norms beyond are summed in float64: their squares leave float32
LEAST = 1e-45  # the least number above 0 in float32: nothing over nothing is no update
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
        self.units, self.dead = self.count[:, :, 0], torch.empty_like(self.count[:, :, 0])
        number = lambda value: torch.full((1,), value, dtype=stack.dtype, device=stack.device)  # noqa: E731
        self.share, self.share_of_units = number(1 / (stack.K * stack.d)), number(1 / stack.d)
        self.one, self.flat = number(1), [number(edge) for edge in stack.act.flat]  # Python's cost twice as much
        self.one_sided = stack.act.flat[1] == inf
        self.rate = stack.learning_rate.flatten()
        spans = stack.spans
        self.scratch = stack.room(spans[0].stop, stack.S, stack.K, stack.d)
        self.unknown, self.known = list(self.unknown_views()), list(self.known_views())
        columns = sum(x.shape[1] for x, _, _ in self.unknown)
        self.total, self.norm = torch.zeros(2, stack.L, columns, dtype=stack.dtype, device=stack.device)
        self.sums = {span.stop - 1: [] for span in spans}
        at = 0
        for x, _, _ in self.unknown:
            here = slice(at, at + x.shape[1])
            for span in spans:
                self.sums[span.stop - 1].append((x[span], self.total[span, here], self.norm[span, here]))
            at = here.stop
        self.slopes = {span.stop - 1: list(self.slope_views(span)) for span in spans}
        signal = self.at["layers"]["signal_grad_norm"]
        self.signals = {span.start: (stack.da[span].flatten(2), signal[span]) for span in spans}
        self.copies, self.samples = list(self.copied()), {span.stop - 1: list(self.sampled(span)) for span in spans}
        self.weights, self.weight_grads, self.updates = matrices(stack.p), matrices(stack.g), None
        self.four = self.vectors["layers"][: 4 * stack.L * stack.S].view(4, stack.L, stack.S)  # trace.LAYERS' first

    def unknown_views(self):
        """Where a norm does not tell mean and spread of a layer's a or z: its values as rows [L, slots, K d], and where
        the two go, [L, slots]. `out` is z but where the norm comes after the activation."""
        s, layers = self.stack, self.at["layers"]
        inside = slice(0, s.after.stop)
        for name, slots, x in (("a", inside, s.a), ("z", s.none, s.out), ("z", s.before, s.out)):
            if slots.stop > slots.start:
                yield x[:, slots].flatten(2), layers[f"{name}_mean"][:, slots], layers[f"{name}_std"][:, slots]

    def known_views(self):
        """Where a norm does: its n means and variances [L, slots, n], 1/n, and where the two go."""
        s, layers = self.stack, self.at["layers"]
        for name, kind in (("z", 1), ("z", 2), ("a", 3), ("a", 4)):
            slots = s.kinds[kind]
            if slots.stop > slots.start:
                mean, var = (s.of_norm(of, slots).flatten(2) for of in (s.mean, s.var))
                share = torch.full_like(mean[0, 0, :1], 1 / mean.shape[2])
                yield mean, var, share, layers[f"{name}_mean"][:, slots], layers[f"{name}_std"][:, slots]

    def slope_views(self, span: slice):
        """For saturation: what enters the activation, scratch, the count of steep values of each unit."""
        s = self.stack
        entering = (slice(0, s.after.stop), s.a[span, : s.after.stop]), (s.before, s.m[span, s.inner(s.before)])
        for slots, u in entering:
            if slots.stop > slots.start and s.act.flat[0] > -inf:
                yield u, self.scratch[: span.stop - span.start, slots], self.count[span, slots]

    def copied(self):
        """Pairs (into, source) of what is recorded as it stands: the units' statistics."""
        s = self.stack
        if s.B:
            for name in ("batch_mean", "batch_var", "moving_mean", "moving_var"):
                yield self.at["units"][name], getattr(s, name)[:, :, 0]
            for name in ("gamma", "beta"):
                yield self.at["units"][name], s.p[name][:, s.inner(s.batch), 0]

    def sampled(self, span: slice):
        """The same of the sampled values of a and z."""
        s, places = self.stack, sample_at(self.stack.K, self.stack.d)
        pick = slice(0, places[-1] + 1, places.step)
        seen = [
            (s.none, s.out[span, s.none]),
            (s.after, s.m[span, s.inner(s.after)]),
            (s.before, s.out[span, s.before]),
        ]
        yield self.at["samples"]["a"][span], s.a[span].flatten(2)[..., pick]
        for slots, z in seen:
            if slots.stop > slots.start:
                yield self.at["samples"]["z"][span, slots], z.flatten(2)[..., pick]

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
        for into, source in self.samples.get(l, ()):
            into.copy_(source)

    def backward(self, l: int) -> None:
        """Norms of the signal gradients down to layer l."""
        if l in self.signals:
            da, out = self.signals[l]
            torch.linalg.vector_norm(da, dim=2, out=out)

    def measured(self, d: Tensor, c: float) -> dict[str, Tensor]:
        """The step's rows, copied out; to be called between the stack's direction() -> (d, c) and its update()."""
        s, layers = self.stack, self.at["layers"]
        self.at["steps"]["loss"].copy_(s.loss)
        if s.accuracy is not None:
            self.at["steps"]["accuracy"].copy_(s.accuracy)
        norms(self.weight_grads, layers["grad_norm"])
        norms(self.weights, layers["weight_norm"])
        if d is s.gradients:
            updates = self.weight_grads
            layers["update_ratio"].copy_(layers["grad_norm"])
        else:
            if self.updates is None:  # a rule's direction is always the same vector
                self.updates = matrices(s.views(d))
            updates = self.updates
            norms(updates, layers["update_ratio"])
        self.mend(self.weight_grads, [s.da.flatten(2)], self.weights, updates)
        layers["update_ratio"].mul_(self.rate).mul_(c).div_(layers["weight_norm"].clamp_min(LEAST))
        self.spreads()
        if s.act.flat[0] > -inf:
            steep = torch.sum(self.units, 2, out=layers["saturated"]).mul_(self.share)
            torch.sub(self.one, steep, out=steep)
            torch.sum(torch.eq(self.units, 0, out=self.dead), 2, out=layers["dead"]).mul_(self.share_of_units)
        for into, source in self.copies:
            into.copy_(source)
        return {table: vector.clone() for table, vector in self.vectors.items()}

    def mend(self, *measured: list[Tensor]) -> None:
        """The four norms again, from what was measured, where their squares do not fit into float32."""
        lost = (self.four < LOWEST).logical_or_(self.four > HIGHEST)  # NaN stays: that network has diverged
        if self.stack.device == "cpu" and not lost.any():  # on CUDA asking would wait for the device
            return
        for flat, out, where in zip(measured, self.four, lost, strict=True):
            at = 0
            for x in flat:
                here = slice(at, at + len(x))
                exact_norms(x, out[here], where[here])
                at = here.stop

    def parts(self, columns: Tensor) -> list[Tensor]:
        """[L, unknown columns], cut as in `unknown`."""
        return columns.split([x.shape[1] for x, _, _ in self.unknown], 1)

    def spreads(self) -> None:
        """Means and standard deviations over examples and units.

        From the sums and norms of each layer: std^2 = norm^2/n - mean^2, which loses its digits where the values hardly
        differ; there they are centered first. From a norm's statistics: the variance is the mean of the units' (or
        examples') variances and the variance of their means.
        """
        means = self.total.mul_(self.share)
        square = self.norm.square_().mul_(self.share)
        var = torch.addcmul(square, means, means, value=-1)
        lost = (var > square.mul_(LOST_DIGITS)).logical_not_()  # also where the squares did not fit into float32
        lost.logical_and_(means.isnan().logical_not_())  # but a network that has diverged stays as it is
        spreads = var.clamp_min_(0).sqrt_()
        if self.stack.device != "cpu" or lost.any():
            for (x, _, _), m, out, where in zip(self.unknown, *map(self.parts, (means, spreads, lost)), strict=True):
                exact_norms(x, out, where, m, self.stack.K * self.stack.d)
        for (_, mean, std), m, s in zip(self.unknown, self.parts(means), self.parts(spreads), strict=True):
            mean.copy_(m)
            std.copy_(s)
        for means, variances, share, mean, std in self.known:
            torch.sum(means, 2, out=mean).mul_(share)
            between = torch.linalg.vector_norm(means - mean.unsqueeze(2), dim=2).square_()
            torch.sqrt(between.add_(variances.sum(2)).mul_(share), out=std)


def exact_norms(x: Tensor, out: Tensor, lost: Tensor, mean: Tensor | None = None, n: int = 1) -> None:
    """Norms of x [L, S, m] into out [L, S] where `lost`, summed in float64; of x - mean, divided by sqrt(n)."""
    for slot in range(x.shape[1]) if x.is_cuda else lost.any(0).nonzero().flatten().tolist():
        where = lost[:, slot]
        layers = slice(None) if x.is_cuda else where  # on CUDA picking would wait for the device
        values = x[layers, slot] if mean is None else x[layers, slot] - mean[layers, slot, None]
        exact = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64).mul_(n**-0.5).to(out.dtype)
        if x.is_cuda:
            out[:, slot] = torch.where(where, exact, out[:, slot])
        else:
            out[where, slot] = exact


def matrices(views: dict[str, Tensor]) -> list[Tensor]:
    """The weight matrices of layers 1..L in a vector's views, flat: [1, S, n_in d] and, above, [L - 1, S, d d]."""
    return [views["weight_in"].flatten(1).unsqueeze(0), views["weight"].flatten(2)]


def norms(flat: list[Tensor], out: Tensor) -> None:
    """Norms [L, S] of the weight matrices of layers 1..L."""
    torch.linalg.vector_norm(flat[0], dim=2, out=out[:1])
    if len(out) > 1:
        torch.linalg.vector_norm(flat[1], dim=2, out=out[1:])
