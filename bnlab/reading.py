"""Reading a run while it grows: a window of steps of one quantity, in a number of points that keeps every spike."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from .record import EVERYTHING, TABLES
from .run import Run
from .scorings import Scorings
from .store import RunStore
from .summary import WHERE, combined

NAMES = {q: (table, q) for table, quantities in TABLES.items() for q in quantities if table != "samples"}
NAMES |= {f"{q}_sample": ("samples", q) for q in TABLES["samples"]}

WIDTHS = [1] + [width for k in range(40) for width in (2 * 2**k, 3 * 2**k)]  # 1, 2, 3, 4, 6, 8, 12, ...: few and near


class Series(NamedTuple):
    """A quantity over time: at step (or from step on, for a bucket) the mean, least and greatest value.

    steps [n]; mean, low, high [n, seeds, ...]. Where each point is one step as recorded, the three are the same array:
    of the scalars then every step is there, of units and samples in a long run only some.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def exact(self) -> bool:
        """Whether each point is one step as recorded, none a bucket."""
        return self.low is self.mean

    def window(self, start: int, stop: int) -> Series:
        """Of its points those at the steps start..stop - 1."""
        inside = (self.steps >= start) & (self.steps < stop)
        mean = self.mean[inside]
        return Series(self.steps[inside], mean, *([mean] * 2 if self.exact else (self.low[inside], self.high[inside])))

    def last(self, newest: int) -> np.ndarray:
        """The last step that each point stands for, [n], where they reach to the step `newest` without a gap."""
        return np.append(self.steps[1:] - 1, newest)[: len(self.steps)]

    def followed(self, later: Series) -> Series:
        """Its points before the first of `later`, and those: a bucket across the edge of two windows is in both."""
        if not len(later.steps):
            return self
        before = self.window(0, int(later.steps[0]))
        steps, mean, *ends = (np.concatenate(both) for both in zip(before, later, strict=True))
        return Series(steps, mean, *([mean] * 2 if before.exact and later.exact else ends))


class Chunk(NamedTuple):
    """A chunk on disk: n rows, or buckets, at the steps first, first + stride, ..."""

    id: int
    first: int
    stride: int
    n: int

    @property
    def end(self) -> int:
        """The first step after all it stands for."""
        return self.first + self.stride * self.n


class Trace(Scorings):
    """What a run has recorded up to now: its scorings, and columns over all its steps."""

    def __init__(self, store: RunStore, run: Run):
        super().__init__(store, run)
        self.kept: dict[tuple, Series] = {}  # the arms of a stack share what was read

    def has(self, quantity: str, arm: int) -> bool:
        """Whether this arm records the quantity: no accuracy in a regression, no unit statistics without batch norm."""
        table, name = NAMES[quantity]
        stack, slots = self.slots(arm, table)
        return bool(slots) and name in self.layouts[stack].get(table, {})

    def exact(self, arm: int, table: str) -> list[tuple[int, int]]:
        """The windows [start, stop) of steps of which rows of a table are kept as recorded, in order."""
        stack, _ = self.slots(arm, table)
        return [(chunk.first, chunk.end) for chunk in self.on_disk("chunks", stack, table, 0, EVERYTHING)]

    def forget(self) -> None:
        """Let go of what was read."""
        self.kept.clear()

    def read(
        self,
        quantity: str,
        arm: int,
        *,
        start: int = 0,
        stop: int | None = None,
        points: int = 1000,
        layer: int | None = None,
        unit: int | None = None,
    ) -> Series:
        """A quantity of an arm over the steps start..stop - 1, in at most about 2 * `points` points.

        Quantities are the columns of the tables, the samples' being a_sample and z_sample. Arrays are [n, seeds, ...]
        with [L] (layers), [L, d] (units) or [L, M] (samples) behind, less the axes that `layer` (1..L) and `unit`
        (0-based) fix. A network's values after its divergence are NaN. Raises KeyError where the arm has none such.
        """
        table, name = NAMES[quantity]
        stack, slots = self.slots(arm, table)
        if not self.has(quantity, arm):
            raise KeyError(f"{self.experiment.arms[arm].label!r} has no {quantity}.")
        start = max(start, self.first)
        stop = self.step + 1 if stop is None else min(stop, self.step + 1)
        key = (stack, table, name, layer, unit, start, stop, points)
        if key not in self.kept:
            with self.store.reading():
                self.kept[key] = self.columns(*key)
        series = self.kept[key]
        axis = 1 if table == "steps" or layer is not None else 2
        picked = [np.moveaxis(values.take(slots, axis), axis, 1) for values in series[1:]]
        mean, low, high = [picked[0]] * 3 if series.exact else picked
        for i, seed in enumerate(self.experiment.seeds):
            if (arm, seed) in self.diverged:
                after = series.steps > self.diverged[arm, seed][0]
                for values in {id(v): v for v in (mean, low, high)}.values():
                    values[after, i] = np.nan
        return Series(series.steps, mean, low, high)

    def at(self, quantity: str, arm: int, step: int) -> tuple[range, np.ndarray]:
        """The values at the recorded step nearest below `step` (else the first after it), [seeds, ...], and that step,
        as a range of one; where only a bucket is left of it, the bucket's mean and all its steps.

        Raises KeyError as read() does, and before the first step.
        """
        with self.store.reading():
            return self.nearest(quantity, arm, max(self.first, min(step, self.step)))

    def nearest(self, quantity: str, arm: int, step: int) -> tuple[range, np.ndarray]:
        table = NAMES[quantity][0]
        stack, _ = self.slots(arm, table)
        for beside in ("first <= ? order by first desc", "first > ? order by first"):
            ask = f"select id, first, stride, n from chunks where {WHERE} and {beside} limit 1"
            if row := self.store.db.execute(ask, (self.run.id, stack, table, step)).fetchone():
                break
        else:
            raise KeyError("nothing is recorded yet.")
        chunk = Chunk(*row)
        there = chunk.first + chunk.stride * int(np.clip((step - chunk.first) // chunk.stride, 0, chunk.n - 1))
        found, buckets = range(there, there + 1), self.on_disk("summary", stack, table, step, step + 1)
        if there != step and buckets:  # a scalar's exact row is gone
            start = step - (step - buckets[0].first) % buckets[0].stride
            found, there = range(start, start + buckets[0].stride), step
        return found, self.read(quantity, arm, start=there, stop=there + 1).mean[0]

    def columns(self, stack, table, name, layer, unit, start, stop, points) -> Series:
        """One quantity of all slots of a stack, from the exact rows or, where too many or gone, the summary."""
        offset, shape = self.place(stack, table, name, layer, unit)
        chunks = self.on_disk("chunks", stack, table, start, stop)
        buckets = self.buckets(chunks, stack, table, start, stop, points)
        edge = buckets[-1].end if buckets else start  # an exact row that a bucket holds already is not shown twice
        chunks = [chunk for chunk in chunks if chunk.end > edge]
        found = [self.summary(piece, offset, prod(shape)).window(start - piece.stride + 1, stop) for piece in buckets]
        found += [self.rows("chunks", chunk, offset, prod(shape)).window(edge, stop) for chunk in chunks]
        weight = [np.full(len(s.steps), p.stride) for s, p in zip(found, buckets + chunks, strict=True)]
        steps = np.concatenate([np.array([], int), *(s.steps for s in found)])
        values = [
            np.concatenate([np.empty((0, prod(shape)), np.float32), *(s[i] for s in found)]).reshape(-1, *shape)
            for i in ((1, 2, 3) if buckets else (1,))
        ]
        values = values if unit is None else [v[..., unit] for v in values]
        series = Series(steps, *(values if buckets else values * 3))
        if table == "samples" or (table == "units" and len(steps) > 2 * points):  # single rows: no mean of theirs
            few = slice(None, None, max(1, len(steps) // points))
            return Series(steps[few], *[np.ascontiguousarray(series.mean[few])] * 3)
        return bucketed(series, points, np.concatenate([np.array([], int), *weight]))

    def place(self, stack, table, name, layer, unit) -> tuple[int, tuple[int, ...]]:
        """Where a quantity, or one layer of it, begins in a row of its table, and its shape there."""
        offset, shape = self.layouts[stack][table][name]
        if layer is not None and table != "steps":
            if not 1 <= layer <= shape[0]:
                raise KeyError(f"layer is {layer}; the network has layers 1 to {shape[0]}.")
            offset, shape = offset + (layer - 1) * prod(shape[1:]), shape[1:]
        if unit is not None and not 0 <= unit < shape[-1]:
            raise KeyError(f"unit is {unit}; the layer has units 0 to {shape[-1] - 1}.")
        return offset, shape

    def on_disk(self, source: str, stack: int, table: str, start: int, stop: int) -> list[Chunk]:
        """What `source` (chunks or summary) has of a table of the steps start..stop - 1, in order."""
        where = f"{WHERE} and first < ? and first + stride * n > ? order by first"
        ask = f"select id, first, stride, n from {source} where {where}"
        return [Chunk(*row) for row in self.store.db.execute(ask, (self.run.id, stack, table, stop, start))]

    def buckets(self, chunks: list[Chunk], stack, table, start, stop, points) -> list[Chunk]:
        """The pieces of the summary to read in place of `chunks`: where they are too many, or some are gone."""
        found = self.on_disk("summary", stack, table, start, stop)  # of units and samples there are none
        rows, reach = sum(min(stop, c.end) - max(start, c.first) for c in chunks), start
        for chunk in chunks:
            reach = chunk.end if chunk.first <= reach else reach
        gone = found and reach < min(stop, found[-1].end)  # exact rows made room
        if rows <= 2 * points and not gone:
            return []
        coarse = found and (stop - start) // found[-1].stride < points
        return [] if coarse and not gone and rows <= 32 * points else found  # they would blur the window

    def rows(self, source: str, piece: Chunk, offset: int, size: int) -> Series:
        with self.store.db.blobopen(source, "data", piece.id, readonly=True) as blob:
            blob.seek(4 * offset * piece.n)
            values = np.frombuffer(blob.read(4 * size * piece.n), np.float32).reshape(size, piece.n).T
        return Series(piece.first + piece.stride * np.arange(piece.n), values, values, values)

    def summary(self, piece: Chunk, offset: int, size: int) -> Series:
        flat = self.rows("summary", piece, 3 * offset, 3 * size)
        return Series(flat.steps, *(flat.mean[:, i::3] for i in range(3)))


def bucketed(series: Series, points: int, weight: np.ndarray) -> Series:
    """At most about `points` buckets on edges that stay as a run grows: mean, min and max of what is finite in each.

    Row i stands for weight[i] steps. Up to twice `points` exact rows stay as they are.
    """
    steps = series.steps
    if len(steps) <= (2 * points if series.exact else points):
        return series
    stride = int(weight.max())
    w = next(stride * f for f in WIDTHS if (steps[-1] - steps[0]) / (stride * f) <= points)
    edges = np.flatnonzero(np.diff(steps // w, prepend=-1))
    return Series(steps[edges], *combined(*series[1:], weight, edges))
