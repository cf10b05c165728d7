"""The cheap measures of each layer, taken at every step from what the step computed anyway.

Whole-stack operations only: no number reaches Python, nothing waits for the device. What passes over all examples is
measured a few layers at a time while they are still in the cache. Rows are laid out in trace.py.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan, prod
from typing import TYPE_CHECKING

from .registry import Late
from .stack import Stack
from .trace import Layout, sample_at

if TYPE_CHECKING:
    from torch import Tensor

torch = Late("torch")

LOWEST, HIGHEST = 1e-16, 1e18  # norms beyond are summed in float64: their squares leave float32
LEAST = 1e-45  # the least number above 0 in float32: nothing over nothing is no update
LOST_DIGITS = 1e-2  # share of the mean square below which a variance is not taken from sums in float32


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
        of_units = torch.zeros(2, stack.L, stack.S, 1, stack.d, dtype=stack.dtype, device=stack.device)
        self.flat, self.all_flat = of_units  # of each unit: how many values are flat; whether all are
        self.of_units = of_units[:, :, :, 0]
        number = lambda *values: torch.tensor(values, dtype=stack.dtype, device=stack.device)  # noqa: E731
        self.share = number(1 / (stack.K * stack.d), 1 / stack.d).view(2, 1, 1)
        self.K, self.edges = number(stack.K), [number(edge) for edge in stack.act.flat]  # Python's cost twice as much
        self.one_sided = stack.act.flat[1] == inf
        self.rate = stack.learning_rate.flatten()
        spans = stack.spans
        self.scratch = stack.room(spans[0].stop, stack.S, stack.K, stack.d)
        layers, table = self.at["layers"], self.vectors["layers"].view(-1, stack.L, stack.S)  # as in trace.LAYERS
        self.four, self.shares = table[:4], table[8:]  # norms; saturated and dead
        self.both = table[4:8].view(2, 2, stack.L, stack.S)  # of a and of z: mean and spread
        self.means, self.spread = self.both.unbind(1)
        self.sums = {span.stop - 1: [] for span in spans}
        for x, of in self.whole_views(known=False):
            for span in spans:
                self.sums[span.stop - 1].append((x[span], self.means[of][span], self.spread[of][span]))
        self.moments = torch.zeros_like(stack.moments[:2])  # of every norm: its mean and var + mean^2
        self.known, self.each = [], torch.full_like(self.both[:, :1, :1], 1 / (stack.K * stack.d))  # 1 / count of a sum
        for which, slots, moments in self.known_views():
            self.known.append((moments, self.both[which, :, :, slots]))
            self.each[which, ..., slots] = 1 / moments.shape[3]
        self.slopes = {span.stop - 1: list(self.slope_views(span)) for span in spans}
        signal = layers["signal_grad_norm"]
        self.signals = {span.start: (stack.da[span].flatten(2), signal[span]) for span in spans}
        self.copies, self.samples = list(self.copied()), {span.stop - 1: list(self.sampled(span)) for span in spans}
        self.weights = matrices(stack.p, layers["weight_norm"])
        self.weight_grads, self.updates = matrices(stack.g, layers["grad_norm"]), None
        self.errors = [(stack.da.flatten(2), signal)]

    def whole_views(self, known: bool = True):
        """A layer's values of a or z as rows [L, slots, K d], and the place of these slots in `means` and `spread`;
        without those whose sums are `known` from a norm's statistics."""
        s = self.stack
        after = s.m[:, s.inner(s.after)]
        views = [(0, slice(0, s.after.stop), s.a[:, : s.after.stop])]
        views += [(1, slots, s.out[:, slots]) for slots in (s.none, s.before)]
        views += [(0, s.before, s.a[:, s.before]), (1, s.after, after)] if known else []
        for which, slots, x in views:
            if slots.stop > slots.start:
                yield x.flatten(2), (which, slice(None), slots)

    def known_views(self):
        """Where a norm's statistics tell the sums of a (0) or z (1): its slots, means and squares [2, L, slots, n]."""
        s = self.stack
        for which, kind in ((1, 1), (1, 2), (0, 3), (0, 4)):
            slots = s.kinds[kind]
            if slots.stop > slots.start:
                yield which, slots, s.of_norm(self.moments, slots).flatten(3)

    def slope_views(self, span: slice):
        """For saturation: what enters the activation, scratch, the count of flat values of each unit."""
        s = self.stack
        entering = (slice(0, s.after.stop), s.a[span, : s.after.stop]), (s.before, s.m[span, s.inner(s.before)])
        for slots, u in entering:
            if slots.stop > slots.start and s.act.flat[0] > -inf:
                yield u, self.scratch[: span.stop - span.start, slots], self.flat[span, slots]

    def copied(self):
        """Pairs (into, source) of what is recorded as it stands: the units' statistics."""
        s = self.stack
        if s.B:
            units = self.vectors["units"].view(-1, s.L, s.B, s.d)  # by rows as in trace.UNITS
            yield units[0:2], s.of_norm(s.moments[:2], s.batch)[..., 0, :]
            yield units[2:4], s.moving_averages[..., 0, :]
            for row, name in ((4, "gamma"), (5, "beta")):
                yield units[row], s.p[name][:, s.inner(s.batch), 0]

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
        """Sums and norms of a and z up to layer l, and how many values of its units are flat."""
        for x, mean, std in self.sums.get(l, ()):
            torch.sum(x, 2, out=mean)
            torch.linalg.vector_norm(x, dim=2, out=std)
        below, above = self.edges
        for u, flat, count in self.slopes.get(l, ()):
            if self.one_sided:
                torch.le(u, below, out=flat)
            else:  # the two-sided activations are symmetric
                torch.ge(torch.abs(u, out=flat), above, out=flat)
            torch.sum(flat, 2, keepdim=True, out=count)
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
        norms(self.weight_grads)
        norms(self.weights)
        if d is s.gradients:
            updates = self.weight_grads
            layers["update_ratio"].copy_(layers["grad_norm"])
        else:
            if self.updates is None:  # a rule's direction is always the same vector
                self.updates = matrices(s.views(d), layers["update_ratio"])
            updates = self.updates
            norms(updates)
        self.mend(self.weight_grads, self.errors, self.weights, updates)
        layers["update_ratio"].mul_(self.rate).mul_(c).div_(layers["weight_norm"].clamp_min(LEAST))
        self.spreads()
        if s.act.flat[0] > -inf:
            torch.eq(self.flat, self.K, out=self.all_flat)
            torch.sum(self.of_units, 3, out=self.shares).mul_(self.share)
            self.shares.masked_fill_(layers["z_mean"].isnan(), nan)  # what is no number is neither flat nor steep
        for into, source in self.copies:
            into.copy_(source)
        return {table: vector.clone() for table, vector in self.vectors.items()}

    def mend(self, *measured: list[tuple[Tensor, Tensor]]) -> None:
        """The four norms again, from what was measured, where their squares do not fit into float32."""
        if self.stack.device == "cpu":  # on CUDA asking would wait for the device
            least, most = map(float, self.four.aminmax())
            if least >= LOWEST and most <= HIGHEST:
                return
        lost = (self.four < LOWEST).logical_or_(self.four > HIGHEST)  # NaN stays: that network has diverged
        for flat, out, where in zip(measured, self.four, lost, strict=True):
            at = 0
            for x, _ in flat:
                here = slice(at, at + len(x))
                again(norms64, x, out[here], where[here])
                at = here.stop

    def spreads(self) -> None:
        """Means and standard deviations over examples and units, from sums and norms: std^2 = norm^2/n - mean^2.

        Where a norm's statistics are known, its n means and variances take their place: the mean square is the mean of
        var + mean^2. The difference loses its digits where the values hardly differ; there they are centered first.
        """
        self.spread.square_()
        means, squares = self.moments
        torch.addcmul(self.stack.var, means.copy_(self.stack.mean), means, out=squares)
        for of, into in self.known:
            torch.sum(of, 3, out=into)
        self.both.mul_(self.each)
        mean, square = self.means, self.spread
        var = torch.addcmul(square, mean, mean, value=-1)
        sound = torch.gt(var, square.mul_(LOST_DIGITS))  # not where the squares did not fit into float32
        torch.sqrt(var, out=self.spread)
        if self.stack.device == "cpu" and sound.all():  # on CUDA asking would wait for the device
            return
        lost = sound.logical_or_(mean.isnan()).logical_not_()  # a network that has diverged stays as it is
        for x, of in self.whole_views():
            again(spreads64, x, self.spread[of], lost[of])


def norms64(x: Tensor) -> Tensor:
    """Norms of x [..., m] in float64, [...]."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)


def spreads64(x: Tensor) -> Tensor:
    """Standard deviations of x [..., m], centered and in float64, [...]."""
    return x.double().std(-1, correction=0)


def again(measure: Callable[[Tensor], Tensor], x: Tensor, out: Tensor, lost: Tensor) -> None:
    """`measure` x [L, S, m] again into out [L, S] where `lost`."""
    if x.is_cuda:  # to pick would be to wait for the device
        out.copy_(torch.where(lost, measure(x).to(out.dtype), out))
        return
    for slot in lost.any(0).nonzero().flatten().tolist():
        where = lost[:, slot]
        out[where, slot] = measure(x[where, slot]).to(out.dtype)


def matrices(views: dict[str, Tensor], out: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The weight matrices of layers 1..L in a vector's views, flat: [1, S, n_in d] and, above, [L - 1, S, d d]; each
    with where their norms go, from out [L, S]."""
    return [(views["weight_in"].flatten(1).unsqueeze(0), out[:1]), (views["weight"].flatten(2), out[1:])]


def norms(measured: list[tuple[Tensor, Tensor]]) -> None:
    """Norms of matrices, each into its place."""
    for flat, out in measured:
        if flat.numel():
            torch.linalg.vector_norm(flat, dim=2, out=out)
