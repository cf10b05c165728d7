"""The training step of a stack: networks of one shape as slots of the same arrays, backward pass written out.

Every array is [slot, example, unit]. A layer's slots are ordered by what their norm does, and each kind is a chain:

    slots     none     | LN after, BN after     | BN before, LN before
              a = x W + b                                                  all slots
    forward   z = h(a) | m = h(a), y = norm(m)  | m = norm(a), z = h(m)

`out` is what the next layer reads: z, or y where the norm comes after the activation. Every line below acts on one
contiguous slice. Backward is the same from the bottom up, with g = dE/d(out), then dE/dm, then dE/da.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from .activations import ACTIVATIONS
from .data import DATASETS
from .experiment import Experiment, Network
from .mlp import LOSSES, Networks
from .noise import Noise
from .normalization import FrozenNormalization, Normalization, Slots
from .norms import moving_average
from .registry import LazyModule
from .state import State, blocks, carve

if TYPE_CHECKING:
    from torch import Tensor

    from .quantities import Rows

torch = LazyModule("torch")

CACHED = 2**18  # values, about, of the layers that are in the processor's cache at once


class Stack(State):
    """Networks of one shape, trained together.

    `gradients` is a vector as `parameters` is one; `g` are views on it by name. Raises MemoryError where there is no
    room; what cannot work was refused by Experiment.
    """

    def __init__(self, experiment: Experiment, networks: tuple[Network, ...], device: str, dtype: torch.dtype):
        super().__init__(experiment, networks, device, dtype)
        self.initialize()
        each, shared, room = self.settings, self.shared, self.room
        S, K, L, d, N, n_out = self.S, self.K, self.L, self.d, self.N, self.shapes["readout"][2]
        self.act, self.criterion = ACTIVATIONS[shared.activation], LOSSES[DATASETS[shared.data].task]
        self.gradients, self.rate, self.decay = self.vector(), self.vector(), self.vector()
        self.g = self.views(self.gradients)
        for vector, name in ((self.rate, "learning_rate"), (self.decay, "weight_decay")):
            for key, view in self.views(vector).items():
                owners = each[self.normed.start :] if key in ("gamma", "beta") else each
                for slot, s in enumerate(owners):
                    fixed = key in ("gamma", "beta") and s.rescale == "fixed"
                    view.select(-3, slot).fill_(0 if fixed else getattr(s, name))
        self.decays = any(s.weight_decay for s in each)
        self.decayed = self.vector() if self.decays else None  # the gradients with the decay
        per_slot = lambda name: torch.tensor([getattr(s, name) for s in each], dtype=torch.float64).view(S, 1, 1)  # noqa: E731
        self.learning_rate, self.delta = (room(S, 1, 1).copy_(per_slot(q)) for q in ("learning_rate", "delta"))
        self.alpha = per_slot("alpha").to(device)
        below, _, above = self.parts(self.rate)  # a number a slot for the weights, in place of theirs: less to read
        rates = below, self.learning_rate[:, 0], above  # between the matrices, too, where d is 0
        self.moved = list(zip(self.parts(self.parameters), rates, strict=True))

        self.bmm, self.baddbmm = (torch.bmm, torch.baddbmm) if d > 1 else (summed_product, summed_product_plus)
        self.a, self.out, self.da = room(L, S, K, d), room(L, S, K, d), room(L, S, K, d)
        self.m, self.x_hat = room(L, N, K, d), room(L, N, K, d)  # between activation and norm; normalized
        self.g_out, self.scratch = room(S, K, d), room(S, K, d)
        # a product that writes a single column rounds otherwise where the columns adjoin
        self.outputs, self.g_outputs = (room(S, K, max(2, n_out))[..., :n_out] for _ in range(2))
        n = self.B * blocks(1, d) + (N - self.B) * blocks(K, 1)
        self.moments = self.memory.zeros(3, L, n)  # see of_norm
        self.mean, self.var, self.inverse = self.moments
        self.batch_mean, self.batch_var = (self.of_norm(q, self.batch) for q in (self.mean, self.var))
        self.share, self.deltas = self.memory.zeros(2, n)
        for slots, count in ((self.kinds[1], d), (self.batch, K), (self.kinds[4], d)):
            self.of_norm(self.share, slots).fill_(1 / count)
            self.of_norm(self.deltas, slots).copy_(self.delta[slots])
        self.frozen = self.B > 0 and shared.statistics == "moving"
        self.noise = {}  # slot -> its noise, where there is some
        for slot in range(self.batch.start, self.batch.stop):
            s = each[slot]
            if s.noise_shift or s.noise_scale:
                drawn = room(2, L, 1, d)
                self.noise[slot] = Noise(s.noise_shift, s.noise_scale, networks[slot].seed, *drawn)
        self.layers = [self.layer(l) for l in range(L)]
        step = max(1, CACHED // (S * K * d)) if device == "cpu" else L
        self.spans = [slice(l, min(l + step, L)) for l in range(0, L, step)]
        self.products = [list(self.product_views(span)) for span in self.spans]

    def product_views(self, span: slice) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """dE/dW = x^T dE/da for a span's layers above the first, all slots in one product: x^T, dE/da and dE/dW."""
        low = max(1, span.start)
        if span.stop > low:
            below, above = self.out[low - 1 : span.stop - 1], self.da[low : span.stop]
            yield below.flatten(0, 1).mT, above.flatten(0, 1), self.g["weight"][low - 1 : span.stop - 1].flatten(0, 1)

    def room(self, *shape: int) -> Tensor:
        """Zeros [..., rows, columns], each matrix on whole blocks of its own."""
        flat = self.memory.zeros(int(np.prod(shape[:-2])) * blocks(*shape[-2:]))
        return carve(flat, 0, shape)

    def layer(self, l: int) -> SimpleNamespace:
        """All views one layer needs, made once."""
        p, inner, v = self.p, self.inner, SimpleNamespace()
        v.weight, v.bias = (p["weight_in"] if l == 0 else p["weight"][l - 1]), p["bias"][l]
        v.weight_t, v.a, v.out, v.da = v.weight.mT, self.a[l], self.out[l], self.da[l]
        # where h is applied: u, z = h(u), and where dE/dz and dE/du lie
        m, da, g_before = self.m[l], v.da[self.after], self.g_out[self.before]
        first = [
            (v.a[self.none], v.out[self.none], self.g_out[self.none], v.da[self.none]),
            (v.a[self.after], m[inner(self.after)], da, da),
        ]
        last = [(m[inner(self.before)], v.out[self.before], g_before, g_before)]
        v.first, v.last = ([views for views in some if len(views[0])] for some in (first, last))
        v.norm = self.normalization(l, v) if self.N else None
        noisy = lambda slot: v.out[slot] if slot < self.after.stop else self.m[l, slot - self.normed.start]  # noqa: E731
        v.noise = [
            (noisy(slot), self.g_out[slot], noise.shift[l], noise.scale[l]) for slot, noise in self.noise.items()
        ]
        return v

    def normalization(self, l: int, v: SimpleNamespace) -> Normalization:
        """Layer l's normalization, between the views it needs."""
        gamma, beta, gamma_grad, beta_grad = (of[name][l] for of in (self.p, self.g) for name in ("gamma", "beta"))
        mean, var, inverse, m, x_hat = self.mean[l], self.var[l], self.inverse[l], self.m[l], self.x_hat[l]

        def those(axis: int | None, slots: slice, *per_norm: Tensor) -> Slots:
            i = self.inner(slots)
            learned = gamma[i], gamma_grad[i], beta_grad[i]
            return Slots(axis, *per_norm, x_hat[i], self.scratch[slots], *learned, self.g_out[slots], v.da[slots])

        norms, reads, writes = [], [], []
        for axis, slots in ((2, self.kinds[1]), (1, self.batch), (2, self.kinds[4])):
            if slots.stop > slots.start:
                norms.append(those(axis, slots, *(self.of_norm(q, slots) for q in (mean, var, inverse, self.deltas))))
        for kind, slots in enumerate(self.kinds):
            if kind > 0 and slots.stop > slots.start:
                i, axis = self.inner(slots), 1 if kind in (2, 3) else 2
                x = m[i] if slots.stop <= self.after.stop else v.a[slots]
                reads.append((axis, x, self.of_norm(mean, slots), x_hat[i]))
        for slots in (self.after, self.before):
            if slots.stop > slots.start:
                i = self.inner(slots)
                y = v.out[slots] if slots is self.after else m[i]
                writes.append((y, x_hat[i], gamma[i], beta[i]))
        how = norms, those(None, self.normed, mean, var, inverse, self.deltas), self.share, reads, writes
        if self.frozen:
            return FrozenNormalization(*how, moving_mean=self.moving_mean[l], moving_var=self.moving_var[l])
        return Normalization(*how)

    def of_norm(self, q: Tensor, slots: slice) -> Tensor:
        """What slots of one norm have on q [..., n]: [..., slots, 1, d], or [..., slots, K, 1] for layer norm.

        q holds a number for each unit of every batch norm and then one for each example of every layer norm:
        see the picture at Normalization.
        """
        count, unit, example = slots.stop - slots.start, blocks(1, self.d), blocks(self.K, 1)
        if self.batch.start <= slots.start and slots.stop <= self.batch.stop:
            return carve(q, (slots.start - self.batch.start) * unit, (count, 1, self.d))
        place = slots.start - self.normed.start - (self.B if slots.start >= self.batch.stop else 0)
        return carve(q, self.B * unit + place * example, (count, self.K, 1))

    def gradient(self, x: Tensor, y: Tensor, rows: Rows | None = None) -> None:
        """Forward and backward on the mini-batches x [S, K, n_in], y [S, K].

        Fills loss, accuracy, gradients and the moving averages; `rows` measures each layer in passing.
        """
        self.loss, self.accuracy, g_outputs = self.criterion(self.forward(x, rows), y)
        self.backward(x, self.g_outputs.copy_(g_outputs), rows)
        if self.B and not self.frozen:
            moving_average(self.moving_mean, self.batch_mean, self.alpha[self.batch])
            moving_average(self.moving_var, self.batch_var, self.alpha[self.batch])

    def parts(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A vector over all parameters in three: what lies below the weights between hidden layers, they themselves,
        [L - 1, S, a matrix], and what lies above."""
        low, high = self.start["weight"], self.start["readout"]
        return vector[:low], vector[low:high].view(self.L - 1, self.S, blocks(self.d, self.d)), vector[high:]

    def direction(self) -> tuple[Tensor, float]:
        """d and c of the next update, w <- w - learning_rate c d, weight decay included."""
        g = self.gradients
        if self.decays:
            g = torch.addcmul(g, self.parameters, self.decay, out=self.decayed)
        return self.optimizer.direction(g, self.t)

    def update(self, d: Tensor, c: float) -> None:
        """w <- w - learning_rate c d."""
        for (w, rate), move in zip(self.moved, self.parts(d), strict=True):
            w.addcmul_(move, rate, value=-c)
        self.t += 1

    def forward(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        """Outputs [S, K, n_out] with batch statistics; every layer's a, m, x_hat and out stay in their buffers. Noisy
        batch norm has the noise of the next update."""
        for noise in self.noise.values():
            noise.draw(self.t)
        act = self.act.forward
        for l, v in enumerate(self.layers):
            self.baddbmm(v.bias, x, v.weight, out=v.a)
            for u, z, _, _ in v.first:
                act(u, z)
            if v.norm:
                v.norm.forward()
            for y, _, shift, scale in v.noise:
                y.mul_(scale).add_(shift)
            for u, z, _, _ in v.last:
                act(u, z)
            if rows:
                rows.forward(l)
            x = v.out
        return self.baddbmm(self.p["readout_bias"], x, self.p["readout"], out=self.outputs)

    def backward(self, x: Tensor, g_outputs: Tensor, rows: Rows | None = None) -> None:
        """Fill `gradients` and `da` (dE/da of every layer) from dE/d(outputs); x is the input forward() was given."""
        g = self.g
        self.bmm(self.layers[-1].out.mT, g_outputs, out=g["readout"])
        torch.sum(g_outputs, 1, keepdim=True, out=g["readout_bias"])
        self.bmm(g_outputs, self.p["readout"].mT, out=self.g_out)
        for span, products in reversed(list(zip(self.spans, self.products, strict=True))):
            self.descend(span)
            for below, above, weight_grad in products:
                self.bmm(below, above, out=weight_grad)
            torch.sum(self.da[span], 2, keepdim=True, out=g["bias"][span])
            if rows:
                rows.backward(span.stop - 1)
        self.bmm(x.mT, self.da[0], out=g["weight_in"])

    def descend(self, span: slice = slice(None)) -> None:
        """Carry `g_out`, the gradient of a span's highest output, down to `da` of each of its layers; overwrites it."""
        slope = self.act.backward
        for l, v in reversed(list(enumerate(self.layers))[span]):
            for u, z, g_z, g_u in v.last:
                slope(g_z, u, z, g_u)
            for _, g_out, _, scale in v.noise:
                g_out.mul_(scale)
            if v.norm:
                v.norm.backward()
            for u, z, g_z, g_u in v.first:
                slope(g_z, u, z, g_u)
            if l > 0:
                self.bmm(v.da, v.weight_t, out=self.g_out)

    def one_by_one(self) -> list[tuple[int, Networks, int | None]]:
        """Each network alone, for scoring, so that company changes no bit: its slot, its weights (views), and its place
        in batch_mean and moving_mean, None without batch norm."""
        found = []
        for slot, s in enumerate(self.settings):
            slots = slice(slot, slot + 1)
            i = self.inner(slots)
            scales = ([self.p[k][l, i] for l in range(self.L)] if s.norm != "none" else [] for k in ("gamma", "beta"))
            networks = Networks(
                s.norm,
                s.placement,
                s.activation,
                [layer.weight[slots] for layer in self.layers],
                [layer.bias[slots] for layer in self.layers],
                *scales,
                self.delta[slots],
                self.p["readout"][slots],
                self.p["readout_bias"][slots],
            )
            found.append((slot, networks, slot - self.batch.start if s.norm == "batch" else None))
        return found


def summed_product(x: Tensor, w: Tensor, out: Tensor) -> Tensor:
    """x w of every slot, as a sum of products: torch.bmm rounds a single row or column otherwise in a slot alone."""
    return torch.sum(x.unsqueeze(3) * w.unsqueeze(1), 2, out=out)


def summed_product_plus(bias: Tensor, x: Tensor, w: Tensor, out: Tensor) -> Tensor:
    """x w + bias, likewise."""
    return summed_product(x, w, out).add_(bias)
