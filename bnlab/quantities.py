"""The cheap measures of each layer, taken at every step from what the step computed anyway.

Whole-stack operations only: no number reaches Python, nothing waits for the device. What passes over all examples is
measured a few layers at a time while they are still in the cache. Rows are laid out in record.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from math import inf, nan, prod, sqrt
from types import SimpleNamespace
from typing import TYPE_CHECKING

from .record import Layout, sample_at
from .registry import LazyModule
from .stack import Stack

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")

HIGHEST = 1e18  # norms beyond, and those below Rows.small, are summed in float64: their squares leave float32
LOST_SQUARES = 1e-7  # share of a norm's squares that may be so small that norms() leaves them out
LEAST = 1e-45  # the least number above 0 in float32: nothing over nothing is no update
WRITTEN = 2**16  # values, about, written at once: more push out of a processor's cache what is needed next
LOST_DIGITS = 1e-2  # share of the mean square below which a variance is not taken from sums in float32


class Rows:
    """The row of one step of a stack, one vector a table, and the views through which its quantities are written.

    Layers are measured span by span, see Stack.spans. `forward(l)` is called after each layer, `backward(l)` after each
    span, l its last layer; `measured(d, c)` once before the update.
    """

    def __init__(self, stack: Stack, columns: Layout):
        self.stack = stack
        self.lay_out(columns)
        number = lambda *values: torch.tensor(values, dtype=stack.dtype, device=stack.device)  # noqa: E731
        self.K, self.edges = number(stack.K), [number(edge) for edge in stack.act.flat]  # Python's cost twice as much
        self.one_sided = stack.act.flat[1] == inf
        self.rate = stack.learning_rate.flatten()
        of_units = stack.memory.zeros(2, stack.L, stack.S, 1, stack.d)
        self.flat, self.all_flat = of_units  # of each unit: how many values are flat; whether all are
        self.of_units = of_units[:, :, :, 0]
        self.share = number(1 / (stack.K * stack.d), 1 / stack.d).view(2, 1, 1)
        few = max(1, WRITTEN // (stack.S * stack.K * stack.d)) if stack.device == "cpu" else stack.L
        self.scratch = stack.room(min(few, stack.spans[0].stop), stack.S, stack.K, stack.d)
        self.view_spans()
        self.view_norms()
        self.view_known()
        self.units = list(self.units_views())

    def lay_out(self, columns: Layout) -> None:
        """One vector for the tables, and views on it by table and quantity; those measured at once stand side by side
        in record.LAYERS."""
        own = [t for t in columns if t != "units"]  # those are copied in measured()
        edges = [*accumulate((sum(prod(shape) for _, shape in columns[t].values()) for t in own), initial=0)]
        self.vector = self.stack.memory.zeros(edges[-1])
        self.tables = {t: slice(*ends) for t, ends in zip(own, pairwise(edges), strict=True)}
        part = lambda table, start, shape: self.vector[self.tables[table]][start : start + prod(shape)].view(shape)  # noqa: E731
        self.at = {t: {q: part(t, *place) for q, place in columns[t].items()} for t in own}
        table, names = self.vector[self.tables["layers"]].view(-1, self.stack.L, self.stack.S), list(columns["layers"])
        beside = lambda first, last: table[names.index(first) : names.index(last) + 1]  # noqa: E731
        self.four, self.shares = beside("grad_norm", "update_ratio"), beside("saturated", "dead")
        self.both = beside("a_mean", "z_std").view(2, 2, *table.shape[1:])  # of a and of z: mean and spread
        self.means, self.spread = self.both.unbind(1)

    def view_spans(self) -> None:
        """What is measured once the step has passed a span's last layer, by that layer."""
        s, layers, sums = self.stack, self.at["layers"], list(self.whole_views(known=False))
        self.passed = {
            span.stop - 1: SimpleNamespace(
                sums=[(x[span], self.means[of][span], self.spread[of][span]) for x, of in sums],
                flat=list(self.flat_views(span)),
                samples=list(self.sampled(span)),
                weights=above(s.p, layers["weight_norm"], span),
                weight_grads=above(s.g, layers["grad_norm"], span),
                errors=[(s.da[span].flatten(2), layers["signal_grad_norm"][span])],
            )
            for span in s.spans
        }

    def view_norms(self) -> None:
        """What norms are taken of, of the lowest layer and of all spans: mend() looks at them again."""
        s, layers = self.stack, self.at["layers"]
        self.lowest = [first(s.p, layers["weight_norm"]), first(s.g, layers["grad_norm"])]
        every = lambda name: [pair for views in self.passed.values() for pair in getattr(views, name)]  # noqa: E731
        self.weights, self.errors = [self.lowest[0], *every("weights")], every("errors")
        self.weight_grads, self.updates = [self.lowest[1], *every("weight_grads")], None
        longest = max(x[0, 0].numel() for x in (s.a, s.p["weight_in"][None], s.p["weight"]) if len(x))
        self.small = sqrt(longest * torch.finfo(s.dtype).tiny / LOST_SQUARES)

    def view_known(self) -> None:
        """Where sums follow from a norm's statistics, and the number of terms of every sum."""
        s = self.stack
        self.moments = s.memory.zeros(*s.moments[:2].shape)  # of every norm: its mean and var + mean^2
        self.mean, self.square = self.moments
        self.known, self.each = [], torch.full_like(self.both[:, :1, :1], 1 / (s.K * s.d))  # 1 / count of a sum
        for which, slots, moments in self.known_views():
            self.known.append((moments, self.both[which, :, :, slots]))
            self.each[which, ..., slots] = 1 / moments.shape[3]

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

    def flat_views(self, span: slice):
        """For saturation, a few layers at a time: what enters the activation and where to compare it; where all of it
        is compared, and the count of flat values of each unit."""
        s, few = self.stack, len(self.scratch)
        for low in range(span.start, span.stop, few) if s.act.flat[0] > -inf else ():
            part = slice(low, min(low + few, span.stop))
            compared = self.scratch[: part.stop - part.start]
            entering = (slice(0, s.after.stop), s.a[part, : s.after.stop]), (s.before, s.m[part, s.inner(s.before)])
            views = [(u, compared[:, slots]) for slots, u in entering if slots.stop > slots.start]
            yield views, compared, self.flat[part]

    def units_views(self):
        """The units' statistics as they stand, one after the other as in record.UNITS."""
        s = self.stack
        if s.B:
            yield s.of_norm(s.moments[:2], s.batch)[..., 0, :]
            yield s.moving_averages[..., 0, :]
            yield from (s.p[name][None, :, s.inner(s.batch), 0] for name in ("gamma", "beta"))

    def sampled(self, span: slice):
        """Pairs (into, source) of the sampled values of a and z."""
        s, places = self.stack, sample_at(self.stack.K, self.stack.d)
        pick = slice(0, places[-1] + 1, places.step)
        outputs = [
            (s.none, s.out[span, s.none]),
            (s.after, s.m[span, s.inner(s.after)]),
            (s.before, s.out[span, s.before]),
        ]
        yield self.at["samples"]["a"][span], s.a[span].flatten(2)[..., pick]
        for slots, z in outputs:
            if slots.stop > slots.start:
                yield self.at["samples"]["z"][span, slots], z.flatten(2)[..., pick]

    def forward(self, l: int) -> None:
        """Of a span, if l is its last layer: sums, norms and samples of a and z, flat values of each unit, and norms of
        the weights above the first layer's."""
        passed = self.passed.get(l)
        if not passed:
            return
        for x, mean, std in passed.sums:
            torch.sum(x, 2, out=mean)
            torch.linalg.vector_norm(x, dim=2, out=std)
        low, high = self.edges
        for views, compared, count in passed.flat:
            for u, flat in views:
                if self.one_sided:
                    torch.le(u, low, out=flat)
                else:  # the two-sided activations are symmetric
                    torch.ge(torch.abs(u, out=flat), high, out=flat)
            torch.sum(compared, 2, keepdim=True, out=count)
        for into, source in passed.samples:
            into.copy_(source)
        norms(passed.weights)

    def backward(self, l: int) -> None:
        """Of the span that ends with l: norms of the signal gradients, and of the gradients of the same weights."""
        norms(self.passed[l].errors)
        norms(self.passed[l].weight_grads)

    def measured(self, d: Tensor, c: float) -> dict[str, Tensor]:
        """The step's rows, copied out; to be called between the stack's direction() -> (d, c) and its update()."""
        s, layers = self.stack, self.at["layers"]
        norms(self.lowest)
        known, ratio = [self.weight_grads, self.errors, self.weights], layers["update_ratio"]
        if d is s.gradients:
            self.mend(*known)
            norm = layers["grad_norm"]
        else:
            if self.updates is None:  # a rule's direction is always the same vector
                self.updates = [first(s.views(d), ratio), *above(s.views(d), ratio, slice(0, s.L))]
            norms(self.updates)
            self.mend(*known, self.updates)
            norm = ratio
        torch.mul(norm, self.rate, out=ratio).mul_(c).div_(layers["weight_norm"].clamp_min(LEAST))
        if s.act.flat[0] > -inf:
            torch.le(self.K, self.flat, out=self.all_flat)  # eq would be the first of its kind in the step: slower
            torch.sum(self.of_units, 3, out=self.shares).mul_(self.share)
        else:
            self.shares.zero_()
        self.spreads()
        for name, into in self.at["steps"].items():
            into.copy_(getattr(s, name))
        row = self.vector.clone()
        rows = {table: row[here] for table, here in self.tables.items()}
        if s.B:
            rows["units"] = torch.cat(self.units).flatten()
        return rows

    def mend(self, *measured: list[tuple[Tensor, Tensor]]) -> None:
        """The norms again, in the order of `four`, where the squares of what was measured do not fit into float32."""
        four = self.four[: len(measured)]
        if self.stack.device == "cpu":  # on CUDA asking would wait for the device
            least, most = map(float, four.aminmax())
            if least >= self.small and most <= HIGHEST:
                return
        lost = (four < self.small).logical_or_(four > HIGHEST)  # NaN stays: that network has diverged
        for flat, out, where in zip(measured, four, lost, strict=True):
            at = 0
            for x, _ in flat:
                here = slice(at, at + len(x))
                again(norms64, x, out[here], where[here])
                at = here.stop

    def spreads(self) -> None:
        """Means and standard deviations over examples and units, from sums and norms: std^2 = norm^2/n - mean^2.

        Where a norm's statistics are known, its n means and variances take their place: the mean square is the mean of
        var + mean^2. The difference loses its digits where the values hardly differ; there they are centered first.
        Where a mean is no number, so are the shares.
        """
        self.spread.mul_(self.spread)
        torch.addcmul(self.stack.var, self.mean.copy_(self.stack.mean), self.mean, out=self.square)
        for of, into in self.known:
            torch.sum(of, 3, out=into)
        self.both.mul_(self.each)
        mean, square = self.means, self.spread
        var = torch.addcmul(square, mean, mean, value=-1)
        kept = torch.div(var, square)
        torch.sqrt(var, out=self.spread)
        if self.stack.device == "cpu" and float(kept.aminmax()[0]) > LOST_DIGITS:  # on CUDA asking would wait
            return  # NaN would have been the least
        nowhere = mean.isnan()  # a network that has diverged stays as it is
        self.shares.masked_fill_(nowhere[1], nan)  # it is neither flat nor steep
        sound = kept > LOST_DIGITS  # not where the squares did not fit into float32
        lost = sound.logical_or_(nowhere).logical_not_()
        for x, of in self.whole_views():
            again(spreads64, x, self.spread[of], lost[of])


def norms64(x: Tensor) -> Tensor:
    """Norms of x [..., m] in float64, [...]."""
    return torch.linalg.vector_norm(x.double(), dim=-1)


def spreads64(x: Tensor) -> Tensor:
    """Standard deviations of x [..., m], centered and in float64, [...]."""
    centered = x.double()  # torch's std would take nine times as long
    centered -= centered.mean(-1, keepdim=True)
    return torch.linalg.vector_norm(centered, dim=-1) / sqrt(x.shape[-1])


def again(measure: Callable[[Tensor], Tensor], x: Tensor, out: Tensor, lost: Tensor) -> None:
    """`measure` x [L, S, m] again into out [L, S] where `lost`."""
    if x.is_cuda:  # to pick would be to wait for the device
        out.copy_(torch.where(lost, measure(x).to(out.dtype), out))
        return
    for slot in lost.any(0).nonzero().flatten().tolist():
        where = lost[:, slot].nonzero().flatten().tolist()
        these = slice(where[0], where[-1] + 1)  # to pick layer by layer costs more than those between
        found = measure(x[these, slot]).to(out.dtype)
        out[these, slot] = found.where(lost[these, slot], out[these, slot])


def first(views: dict[str, Tensor], out: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer's weights in a vector's views, flat: [1, S, n_in d]; and where their norms go, of out [L, S]."""
    return views["weight_in"].flatten(1).unsqueeze(0), out[:1]


def above(views: dict[str, Tensor], out: Tensor, span: slice) -> list[tuple[Tensor, Tensor]]:
    """The same of those of a span's layers above the first, if any: [layers, S, d d]."""
    low = max(1, span.start)
    return [(views["weight"][low - 1 : span.stop - 1].flatten(2), out[low : span.stop])] if span.stop > low else []


def norms(measured: list[tuple[Tensor, Tensor]]) -> None:
    """Norms of each layer and slot, x [layers, S, m], each into its place.

    Squares below the least normal number count as 0: with them a processor takes ten times as long, and where they
    matter, in networks that vanish, mend() measures again.
    """
    torch.set_flush_denormal(True)
    for flat, out in measured:
        torch.linalg.vector_norm(flat, dim=2, out=out)
    torch.set_flush_denormal(False)
