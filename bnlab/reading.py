"""Reading a run while it grows: a window of steps of one quantity, in a number of points that keeps every spike."""

from __future__ import annotations

import io
import json
from functools import cached_property
from math import prod
from threading import Lock
from typing import NamedTuple

import numpy as np

from .probes import checked
from .store import Run, RunStore
from .summary import WHERE, joined
from .trace import EVERYTHING, TABLES, batch_slots, layout

NAMES = {q: (table, q) for table, quantities in TABLES.items() for q in quantities if table != "samples"}
NAMES |= {f"{q}_sample": ("samples", q) for q in TABLES["samples"]}


WIDTHS = [1] + [width for k in range(40) for width in (2 * 2**k, 3 * 2**k)]  # 1, 2, 3, 4, 6, 8, 12, ...: few and near


ONE_AT_A_TIME = Lock()  # np.load parses headers as Python does, which Python 3.11 cannot in several threads at once


class Series(NamedTuple):
    """A quantity over time: at step (or from step on, for a bucket) the mean, least and greatest value.

    steps [n]; mean, low, high [n, seeds, ...]. Where every step is there, the three are the same array.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def exact(self) -> bool:
        return self.low is self.mean

    def window(self, start: int, stop: int) -> Series:
        """Of its points those at the steps start..stop - 1."""
        inside = (self.steps >= start) & (self.steps < stop)
        mean = self.mean[inside]
        return Series(self.steps[inside], mean, *([mean] * 2 if self.exact else (self.low[inside], self.high[inside])))


class Piece(NamedTuple):
    """A chunk on disk: n rows, or buckets, at the steps first, first + stride, ..."""

    id: int
    first: int
    stride: int
    n: int

    @property
    def end(self) -> int:
        """The first step after all it stands for."""
        return self.first + self.stride * self.n


class Trace:
    """What a run has recorded up to now, as columns over steps, for one reader at one moment."""

    def __init__(self, store: RunStore, run: Run):
        self.store, self.run, self.experiment = store, run, run.experiment
        self.layouts = [layout(self.experiment, i) for i in range(len(self.experiment.stacks))]
        self.kept: dict[tuple, Series] = {}  # the arms of a stack share what was read
        self.told: dict[int, list] = {}  # and the scores
        self.horizon: int | None = None  # snapshots after it are left out

    @property
    def step(self) -> int:
        """The last recorded step, -1 before the first."""
        return self.run.step

    @cached_property
    def first(self) -> int:
        """The first step: 0, or where the run was forked from another."""
        origin = self.store.origin(self.run.id)
        return origin[2] if origin else 0

    @property
    def diverged(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(arm, seed) -> (step, layer where it began), for the networks that diverged."""
        return self.run.diverged

    def has(self, quantity: str, arm: int) -> bool:
        """Whether this arm records the quantity: no accuracy in a regression, no unit statistics without batch norm."""
        table, name = NAMES[quantity]
        stack, slots = self.slots(arm, table)
        return bool(slots) and name in self.layouts[stack].get(table, {})

    def exact(self, arm: int, table: str) -> list[tuple[int, int]]:
        """The windows [start, stop) of steps of which rows of a table are kept as recorded, in order."""
        stack, _ = self.slots(arm, table)
        return [(chunk.first, chunk.end) for chunk in self.pieces("chunks", stack, table, 0, EVERYTHING)]

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

    def at(self, quantity: str, arm: int, step: int) -> tuple[int, np.ndarray]:
        """The recorded step nearest below `step` (else the first after it) and the values there, [seeds, ...].

        Where only a bucket is left of it, the bucket's mean. Raises KeyError as read() does, and before the first step.
        """
        with self.store.reading():
            return self.nearest(quantity, arm, min(step, self.step))

    def nearest(self, quantity: str, arm: int, step: int) -> tuple[int, np.ndarray]:
        table = NAMES[quantity][0]
        stack, _ = self.slots(arm, table)
        for beside in ("first <= ? order by first desc", "first > ? order by first"):
            ask = f"select id, first, stride, n from chunks where {WHERE} and {beside} limit 1"
            if row := self.store.db.execute(ask, (self.run.id, stack, table, step)).fetchone():
                break
        else:
            raise KeyError("nothing is recorded yet.")
        chunk = Piece(*row)
        there = chunk.first + chunk.stride * int(np.clip((step - chunk.first) // chunk.stride, 0, chunk.n - 1))
        if there > step + 1:  # of scalars whose exact rows are gone buckets stay
            series = self.read(quantity, arm, start=step, stop=step + 1)
            if len(series.steps):
                return int(series.steps[0]), series.mean[0]
        return there, self.read(quantity, arm, start=there, stop=there + 1).mean[0]

    def scores(
        self, arm: int, split: str, statistics: str, points: int = EVERYTHING
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Steps [n], losses and accuracies [n, seeds] (None for a regression) over a split, "train" or "test".

        statistics: "batch", "moving" or "population"; "none" for an arm without batch norm. Empty where there are none.
        Of more than `points` scorings, evenly chosen ones and the newest.
        """
        stack, slots = self.slots(arm, "steps")
        if points not in self.told:
            (first,) = self.store.db.execute("select min(stack) from scores where run = ?", (self.run.id,)).fetchone()
            of_run = "from scores where run = ?"
            steps = self.store.db.execute(f"select step {of_run} and stack = ? order by step", (self.run.id, first))
            steps = [step for (step,) in steps]
            chosen = {*steps[:: -(-len(steps) // points) or 1], *steps[-1:]}
            rows = self.store.db.execute(f"select stack, step, data {of_run} order by step", (self.run.id,))
            self.told[points] = [(s, step, json.loads(data)) for s, step, data in rows if step in chosen]
        steps, losses, accuracies = [], [], []
        for s, step, told in self.told[points]:
            if s != stack:
                continue
            found = {slot: i for i, slot in enumerate(slots)}
            loss, accuracy = np.full((2, len(slots)), np.nan)
            for a, b, of, values, right in told:
                if (a, b) == (split, statistics):
                    for j, slot in enumerate(of):
                        if slot in found:
                            loss[found[slot]] = values[j]
                            accuracy[found[slot]] = np.nan if right is None else right[j]
            if not np.isnan(loss).all() or any(
                (a, b) == (split, statistics) and slots[0] in of for a, b, of, *_ in told
            ):
                steps.append(step)
                losses.append(loss)
                accuracies.append(accuracy)
        shape = (-1, len(slots))
        losses, accuracies = np.array(losses).reshape(shape), np.array(accuracies).reshape(shape)
        for i, seed in enumerate(self.experiment.seeds):
            if (arm, seed) in self.diverged and steps:
                after = np.array(steps) > self.diverged[arm, seed][0] + 1
                losses[after, i] = accuracies[after, i] = np.nan
        regression = "accuracy" not in self.layouts[stack]["steps"]
        return np.array(steps, int), losses, None if regression else accuracies

    def population(self, arm: int, layer: int | None = None, unit: int | None = None):
        """Steps [n], population means and biased variances [n, seeds, L, d], less what `layer` and `unit` fix."""
        steps, mean, var, *_ = self.inference(arm, layer, unit)
        return steps, mean, var

    def averages(self, arm: int, layer: int | None = None, unit: int | None = None):
        """The moving means and variances that inference uses with the weights whose population() it is: steps and
        shapes as there. NaN in runs of older versions, which did not keep them."""
        steps, _, _, mean, var = self.inference(arm, layer, unit)
        return steps, mean, var

    def inference(self, arm: int, layer: int | None, unit: int | None) -> tuple[np.ndarray, ...]:
        stack, slots = self.slots(arm, "units")
        if not slots:
            raise KeyError(f"{self.experiment.arms[arm].label!r} has no batch norm.")
        steps, found = self.populations(stack, layer)
        found = [values.take(slots, 1 if layer else 2) for values in found]
        found = found if layer else [np.moveaxis(values, 2, 1) for values in found]
        return steps, *(found if unit is None else [values[..., unit] for values in found])

    def populations(self, stack: int, layer: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """Steps [n], and population means and biased variances, moving means and variances [n, L, B, d] of a stack's
        batch norms, or of one layer's."""
        shape = self.layouts[stack]["units"]["batch_mean"][1]
        steps, values = [], []
        for step, data in self.store.db.execute(
            "select step, data from population where run = ? and stack = ? order by step", (self.run.id, stack)
        ):
            four = np.full((4, *shape), np.nan, np.float32)
            there = np.frombuffer(data, np.float32).reshape(-1, *shape)
            four[: len(there)] = there
            steps.append(step)
            values.append(four if layer is None else four[:, layer - 1])
        empty = np.empty((4, 0, *(shape if layer is None else shape[1:])), np.float32)
        return np.array(steps, int), list(np.stack(values, 1) if values else empty)

    def snapshots(self) -> list[int]:
        """Steps with a snapshot of the weights, up to the horizon."""
        rows = self.store.db.execute("select distinct step from snapshots where run = ? order by step", (self.run.id,))
        return [step for (step,) in rows if self.horizon is None or step <= self.horizon]

    def snapshot(self, step: int) -> list[np.ndarray]:
        """The vectors of that snapshot, one a stack, for train(start=(step, vectors))."""
        return [np.frombuffer(data, np.float32) for data in self.store.snapshot(self.run.id, step)]

    def looks(self, probe: str, arm: int, **options: object) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Steps [n] at which a probe looked with these options, and what it saw: arrays [n, seeds, ...] by name.

        Looks that went wrong are left out, and those that saw arrays of another shape than the newest.
        """
        rows = [(step, found) for step, found in self.found(probe, arm, options, "") if "wrong" not in found]
        if not rows:
            return np.array([], int), {}
        shapes = {name: values.shape for name, values in rows[-1][1].items()}
        rows = [(step, found) for step, found in rows if {name: v.shape for name, v in found.items()} == shapes]
        arrays = {name: np.stack([found[name] for _, found in rows]) for name in shapes}
        return np.array([step for step, _ in rows], int), arrays

    def looked(self, probe: str, **options: object) -> list[int]:
        """Steps at which a probe looked with these options, up to the horizon."""
        key = (self.run.id, probe, told(probe, options))
        of = "select distinct step from looks where run = ? and probe = ? and options = ? order by step"
        rows = self.store.db.execute(of, key)
        return [step for (step,) in rows if self.horizon is None or step <= self.horizon]

    def look(self, probe: str, arm: int, step: int, **options: object) -> dict[str, np.ndarray] | None:
        """What a probe saw at exactly this step, arrays [seeds, ...] by name; None where it did not look."""
        rows = self.found(probe, arm, options, "and step = ?", step)
        return rows[0][1] if rows else None

    def found(self, probe: str, arm: int, options: dict, where: str, *more: object) -> list[tuple[int, dict]]:
        """(step, arrays by name) of the looks with these options, in order of the steps."""
        stack, slots = self.slots(arm, "steps")
        key = (self.run.id, probe, told(probe, options), stack)
        of_probe = "select step, data from looks where run = ? and probe = ? and options = ? and stack = ?"
        found = []
        for step, data in self.store.db.execute(f"{of_probe} {where} order by step", (*key, *more)):
            with ONE_AT_A_TIME, np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found.append((step, {name: arrays[name][slots] for name in arrays.files}))
        return found

    def slots(self, arm: int, table: str) -> tuple[int, list[int]]:
        """The arm's stack, and for each seed its slot in a table of that stack (none in `units` without batch norm)."""
        for i, networks in enumerate(self.experiment.stacks):
            if any(n.arm == arm for n in networks):
                slots = [networks.index((arm, seed)) for seed in self.experiment.seeds]
                if table != "units":
                    return i, slots
                batch = batch_slots(self.experiment, i)
                return i, [batch.index(slot) for slot in slots if slot in batch]
        raise KeyError(f"there is no arm {arm}.")

    def columns(self, stack, table, name, layer, unit, start, stop, points) -> Series:
        """One quantity of all slots of a stack, from the exact rows or, where too many or gone, the summary."""
        offset, shape = self.place(stack, table, name, layer, unit)
        chunks = self.pieces("chunks", stack, table, start, stop)
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

    def pieces(self, source: str, stack: int, table: str, start: int, stop: int) -> list[Piece]:
        """What `source` (chunks or summary) has of a table of the steps start..stop - 1, in order."""
        where = f"{WHERE} and first < ? and first + stride * n > ? order by first"
        ask = f"select id, first, stride, n from {source} where {where}"
        return [Piece(*row) for row in self.store.db.execute(ask, (self.run.id, stack, table, stop, start))]

    def buckets(self, chunks: list[Piece], stack, table, start, stop, points) -> list[Piece]:
        """The pieces of the summary to read in place of `chunks`: where they are too many, or begin too late."""
        rows = sum(min(stop, c.end) - max(start, c.first) for c in chunks)
        gone = not chunks or chunks[0].first > start  # older exact rows made room
        if table not in ("steps", "layers") or (rows <= 2 * points and not gone):
            return []
        found = self.pieces("summary", stack, table, start, stop)
        coarse = found and (stop - start) // found[-1].stride < points
        return [] if coarse and not gone and rows <= 32 * points else found  # they would blur the window

    def rows(self, source: str, piece: Piece, offset: int, size: int) -> Series:
        with self.store.db.blobopen(source, "data", piece.id, readonly=True) as blob:
            blob.seek(4 * offset * piece.n)
            values = np.frombuffer(blob.read(4 * size * piece.n), np.float32).reshape(size, piece.n).T
        return Series(piece.first + piece.stride * np.arange(piece.n), values, values, values)

    def summary(self, piece: Piece, offset: int, size: int) -> Series:
        flat = self.rows("summary", piece, 3 * offset, 3 * size)
        return Series(flat.steps, *(flat.mean[:, i::3] for i in range(3)))


def told(probe: str, options: dict) -> str:
    """A probe's options as they are kept, defaults filled in."""
    return json.dumps(checked(probe, options), sort_keys=True)


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
    return Series(steps[edges], *joined(*series[1:], weight, edges))
