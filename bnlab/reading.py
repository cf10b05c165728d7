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
from .summary import WHERE
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
        rows = self.store.db.execute(
            f"select first, first + stride * n from chunks where {WHERE} order by first", (self.run.id, stack, table)
        )
        return rows.fetchall()

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
        for order in ("first <= ? order by first desc", "first >= ? order by first"):
            row = self.store.db.execute(
                f"select first, stride, n from chunks where {WHERE} and {order} limit 1",
                (self.run.id, stack, table, step),
            ).fetchone()
            if row:
                first, stride, n = row
                there = first + stride * int(np.clip((step - first) // stride, 0, n - 1))
                if there > step or step - there < max(stride, 2) or table not in ("steps", "layers"):
                    break
        else:
            raise KeyError("nothing is recorded yet.")
        if there > step and table in ("steps", "layers") and there - step > 1:  # the exact rows are gone; buckets stay
            series = self.read(quantity, arm, start=step, stop=step + 1)
            if len(series.steps):
                return int(series.steps[0]), series.mean[0]
        series = self.read(quantity, arm, start=there, stop=there + 1)
        return there, series.mean[0]

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
        stack, slots = self.slots(arm, "units")
        if not slots:
            raise KeyError(f"{self.experiment.arms[arm].label!r} has no batch norm.")
        steps, both = self.populations(stack, layer)
        both = [values.take(slots, 1 if layer else 2) for values in both]
        both = both if layer else [np.moveaxis(values, 2, 1) for values in both]
        return steps, *(both if unit is None else [values[..., unit] for values in both])

    def populations(self, stack: int, layer: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """Steps [n], population means and biased variances [n, L, B, d] of a stack's batch norms, or of one layer's."""
        shape = (2, *self.layouts[stack]["units"]["batch_mean"][1])
        pick = slice(None) if layer is None else layer - 1
        steps, values = [], []
        for step, data in self.store.db.execute(
            "select step, data from population where run = ? and stack = ? order by step", (self.run.id, stack)
        ):
            steps.append(step)
            values.append(np.frombuffer(data, np.float32).reshape(shape)[:, pick])
        values = np.stack(values, 1) if values else np.empty((2, 0, *shape[1:]), np.float32)[:, :, pick]
        return np.array(steps, int), list(values)

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
        offset, shape = self.layouts[stack][table][name]
        if layer is not None and table != "steps":
            if not 1 <= layer <= shape[0]:
                raise KeyError(f"layer is {layer}; the network has layers 1 to {shape[0]}.")
            offset, shape = offset + (layer - 1) * prod(shape[1:]), shape[1:]
        if unit is not None and not 0 <= unit < shape[-1]:
            raise KeyError(f"unit is {unit}; the layer has units 0 to {shape[-1] - 1}.")
        key, size = (self.run.id, stack, table), prod(shape)
        where = f"{WHERE} and first < ? and first + stride * n > ? order by first"
        chunks = self.store.db.execute(
            f"select id, first, stride, n from chunks where {where}", (*key, stop, start)
        ).fetchall()
        rows = sum(min(stop, f + s * n) - max(start, f) for _, f, s, n in chunks)
        gone = not chunks or chunks[0][1] > start  # older exact rows made room
        buckets = []
        if table in ("steps", "layers") and (rows > 2 * points or gone):
            buckets = self.store.db.execute(
                f"select id, first, stride, n from summary where {where}", (*key, stop, start)
            ).fetchall()
            coarse = buckets and (stop - start) // buckets[-1][2] < points
            if coarse and not gone and rows <= 32 * points:  # buckets would blur the window; the exact rows are there
                buckets = []
        parts = [self.bucket(place, first, stride, n, offset, size) for place, first, stride, n in buckets]
        edge = buckets[-1][1] + buckets[-1][2] * buckets[-1][3] if buckets else start
        later = [(place, first, stride, n) for place, first, stride, n in chunks if first + stride * n > edge]
        parts += [self.rows("chunks", place, first, stride, n, offset, size) for place, first, stride, n in later]
        if not parts:
            empty = np.empty((0, *(shape if unit is None else shape[:-1])), np.float32)
            return Series(np.array([], int), empty, empty, empty)
        steps = np.concatenate([p.steps for p in parts])
        weight = np.repeat(*zip(*[(stride, n) for _, _, stride, n in buckets + later], strict=True))
        stride = max([b[2] for b in buckets], default=1)
        inside = (steps > start - stride) & (steps < stop)
        if buckets:  # an exact row that a bucket holds already is not shown twice
            place = np.concatenate([np.full(len(p.steps), i < len(buckets)) for i, p in enumerate(parts)])
            inside &= place | (steps >= edge)
        exact = not buckets
        values = [np.concatenate([p[i] for p in parts])[inside] for i in ((1,) if exact else (1, 2, 3))]
        values = [v.reshape(len(v), *shape) for v in values]
        values = values if unit is None else [v[..., unit] for v in values]
        series = Series(steps[inside], *(values * 3 if exact else values))
        if table == "samples" or (table == "units" and len(series.steps) > 2 * points):
            pick = slice(None, None, max(1, len(series.steps) // points))
            picked = np.ascontiguousarray(series.mean[pick])
            return Series(series.steps[pick], picked, picked, picked)
        return bucketed(series, points, weight[inside])

    def rows(self, source: str, place: int, first: int, stride: int, n: int, offset: int, size: int) -> Series:
        with self.store.db.blobopen(source, "data", place, readonly=True) as blob:
            blob.seek(4 * offset * n)
            values = np.frombuffer(blob.read(4 * size * n), np.float32).reshape(size, n).T
        return Series(first + stride * np.arange(n), values, values, values)

    def bucket(self, place: int, first: int, stride: int, n: int, offset: int, size: int) -> Series:
        flat = self.rows("summary", place, first, stride, n, 3 * offset, 3 * size)
        return Series(flat.steps, *(flat.mean[:, i::3] for i in range(3)))


def told(probe: str, options: dict) -> str:
    """A probe's options as they are kept, defaults filled in."""
    return json.dumps(checked(probe, options), sort_keys=True)


def bucketed(series: Series, points: int, weight: np.ndarray) -> Series:
    """At most about `points` buckets on edges that stay as a run grows: mean, min and max of each; NaN passed over by
    min and max. Row i stands for weight[i] steps. Up to twice `points` exact rows stay as they are.
    """
    steps = series.steps
    if len(steps) <= (2 * points if series.exact else points):
        return series
    stride = int(weight.max())
    w = next(stride * f for f in WIDTHS if (steps[-1] - steps[0]) / (stride * f) <= points)
    edges = np.flatnonzero(np.diff(steps // w, prepend=-1))
    weight = weight.reshape(-1, *[1] * (series.mean.ndim - 1)).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.add.reduceat(series.mean * weight, edges) / np.add.reduceat(weight, edges)
    return Series(
        steps[edges], mean.astype(np.float32), np.fmin.reduceat(series.low, edges), np.fmax.reduceat(series.high, edges)
    )
