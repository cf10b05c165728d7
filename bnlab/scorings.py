"""What a run has at single steps: scores, population statistics, moving averages, snapshots of the weights, looks."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from math import inf
from threading import Lock

import numpy as np

from .probes import checked
from .record import EVERYTHING, batch_slots, layout, spaced
from .run import Run
from .store import RunStore

ONE_AT_A_TIME = Lock()  # np.load parses headers as Python does, which Python 3.11 cannot in several threads at once
GOOD = (  # looks that did not go wrong: a zip names its first array at its 31st byte
    "from looks where run = ? and probe = ? and options = ? and stack = ? and "
    "substr(data, 31, 9) <> cast('wrong.npy' as blob)"
)
MOST_READ = 16  # lists of looks that are held: two probes of six arms of as many shapes, and some


class Scorings:
    """The steps of a run that were scored or looked at, for one reader at one moment."""

    def __init__(self, store: RunStore, run: Run):
        self.store, self.run, self.experiment = store, run, run.experiment
        self.layouts = [layout(self.experiment, i) for i in range(len(self.experiment.stacks))]
        self.scores_read: dict[int, list] = {}  # the arms of a stack share the scores that were read
        self.looks_read: dict[tuple, tuple] = {}  # and the looks
        self.horizon: int | None = None  # snapshots after it are left out

    @property
    def step(self) -> int:
        """The last recorded step, -1 before the first."""
        return self.run.step

    @property
    def first(self) -> int:
        """The first step: 0, or where the run was forked from another."""
        return self.run.first

    @property
    def diverged(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(arm, seed) -> (step, layer where it began), for the networks that diverged."""
        return self.run.diverged

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

    def scores(
        self, arm: int, split: str, statistics: str, points: int = EVERYTHING
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Steps [n], losses and accuracies [n, seeds] (None for a regression) over a split, "train" or "test".

        statistics: "batch", "moving" or "population"; "none" for an arm without batch norm. Empty where there are none.
        Of more than `points` scorings, evenly chosen ones and the newest, also those of arms that have diverged.
        """
        stack, slots = self.slots(arm, "steps")
        lost = np.nan, None
        steps, told = [], []
        for s, step, scored in self.scored(points):
            here = scored.get((split, statistics), {})
            if s == stack and not here.keys().isdisjoint(slots):
                steps.append(step)
                told.append([here.get(slot, lost) for slot in slots])
        losses, accuracies = np.moveaxis(np.array(told, float).reshape(-1, len(slots), 2), 2, 0)
        for i, seed in enumerate(self.experiment.seeds):
            if (arm, seed) in self.diverged and steps:
                after = np.array(steps) > self.diverged[arm, seed][0] + 1
                losses[after, i] = accuracies[after, i] = np.nan
        regression = "accuracy" not in self.layouts[stack]["steps"]
        return np.array(steps, int), losses, None if regression else accuracies

    def scored(self, points: int) -> list[tuple[int, int, dict]]:
        """(stack, step, {(split, statistics): {slot: (loss, accuracy)}}) of evenly chosen scorings and newest ones."""
        if points not in self.scores_read:
            of_run = "from scores where run = ?"  # of a stack that diverged as a whole there are fewer
            steps = self.store.db.execute(f"select distinct step {of_run} order by step", (self.run.id,))
            steps = [step for (step,) in steps]
            chosen = json.dumps([*spaced(steps, points), *self.ends()])
            those = f"select stack, step, data {of_run} and step in (select value from json_each(?)) order by step"
            self.scores_read[points] = []
            for stack, step, data in self.store.db.execute(those, (self.run.id, chosen)):
                scored: dict[tuple[str, str], dict] = {}
                for split, statistics, slots, losses, accuracies in json.loads(data):
                    values = zip(losses, accuracies or [None] * len(losses), strict=True)
                    scored.setdefault((split, statistics), {}).update(zip(slots, values, strict=True))
                self.scores_read[points].append((stack, step, scored))
        return self.scores_read[points]

    def ends(self) -> Iterator[int]:
        """The newest scoring of each arm all networks of which have diverged: they have none in those that follow."""
        for arm in range(len(self.experiment.arms)):
            when = [self.diverged.get((arm, seed), (inf,))[0] for seed in self.experiment.seeds]
            if max(when) == inf:
                continue
            stack, slots = self.slots(arm, "steps")
            ask = "select step, data from scores where run = ? and stack = ? and step <= ? order by step desc"
            for step, data in self.store.db.execute(ask, (self.run.id, stack, max(when) + 1)):
                if any(slot in slots for _, _, scored, *_ in json.loads(data) for slot in scored):
                    yield step
                    break

    def population(self, arm: int, layer: int | None = None, unit: int | None = None):
        """Steps [n], population means and biased variances [n, seeds, L, d], less what `layer` and `unit` fix."""
        steps, mean, var, *_ = self.inference(arm, layer, unit)
        return steps, mean, var

    def inference(self, arm: int, layer: int | None = None, unit: int | None = None, near: int | None = None):
        """Steps, and what populations() has of this arm, [n, seeds, L, d] each, less what `layer` and `unit` fix: the
        population(), and the moving means and variances that inference uses with the same weights."""
        stack, slots = self.slots(arm, "units")
        if not slots:
            raise KeyError(f"{self.experiment.arms[arm].label!r} has no batch norm.")
        steps, found = self.populations(stack, layer, near)
        found = [values.take(slots, 1 if layer else 2) for values in found]
        found = found if layer else [np.moveaxis(values, 2, 1) for values in found]
        return steps, *(found if unit is None else [values[..., unit] for values in found])

    def populations(self, stack: int, layer: int | None = None, near: int | None = None):
        """Steps [n], and population means and biased variances, moving means and variances [n, L, B, d] of a stack's
        batch norms, or of one layer's; of all steps, or of that nearest to `near` alone. The moving averages are NaN in
        runs of older versions, which did not keep them."""
        shape = self.layouts[stack]["units"]["batch_mean"][1]
        steps, values = [], []
        of_stack, key = "from population where run = ? and stack = ?", (self.run.id, stack)
        if near is None:
            rows = self.store.db.execute(f"select step, data {of_stack} order by step", key)
        else:
            nearest = f"select step {of_stack} order by abs(step - ?), step limit 1"
            key = (*key, *key, int(near))
            rows = self.store.db.execute(f"select step, data {of_stack} and step = ({nearest})", key)
        for step, data in rows:
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
        return self.store.snapshot(self.run.id, step)

    def looks(
        self, probe: str, arm: int, *, marks: int = EVERYTHING, at: Iterable[int] | None = None, **options: object
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Steps [n] at which a probe looked with these options, and what it saw: arrays [n, seeds, ...] by name.

        Looks that went wrong are left out, and those that saw arrays of another shape than the newest. Of more than
        `marks` looks evenly chosen ones and the newest; `at`: of these steps alone.
        """
        stack, slots = self.slots(arm, "steps")
        if at is None:
            at = spaced(self.saw(probe, arm, **options), marks)
        key = (probe, options_key(probe, options), stack, json.dumps([*at]))
        if key not in self.looks_read:
            if len(self.looks_read) == MOST_READ:
                self.looks_read.pop(next(iter(self.looks_read)))
            self.looks_read[key] = self.stacked(*key)
        steps, arrays = self.looks_read[key]
        return steps, {name: values[:, slots] for name, values in arrays.items()}

    def stacked(self, probe: str, options: str, stack: int, at: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """looks() of a whole stack at some steps, arrays [n, slots, ...]."""
        those = f"select step, data {GOOD} and step in (select value from json_each(?)) order by step"
        found = self.store.db.execute(those, (self.run.id, probe, options, stack, at))
        rows = [(step, loaded(data)) for step, data in found]
        shapes = {name: values.shape for name, values in rows[-1][1].items()} if rows else {}
        rows = [(step, saw) for step, saw in rows if {name: v.shape for name, v in saw.items()} == shapes]
        arrays = {name: np.stack([saw[name] for _, saw in rows]) for name in shapes}
        return np.array([step for step, _ in rows], int), arrays

    def saw(self, probe: str, arm: int, **options: object) -> list[int]:
        """Steps at which a probe looked at an arm with these options and saw something."""
        key = (self.run.id, probe, options_key(probe, options), self.slots(arm, "steps")[0])
        return [step for (step,) in self.store.db.execute(f"select step {GOOD} order by step", key)]

    def looked(self, probe: str, **options: object) -> list[int]:
        """Steps at which a probe looked with these options, up to the horizon."""
        key = (self.run.id, probe, options_key(probe, options))
        of = "select distinct step from looks where run = ? and probe = ? and options = ? order by step"
        rows = self.store.db.execute(of, key)
        return [step for (step,) in rows if self.horizon is None or step <= self.horizon]

    def look(self, probe: str, arm: int, step: int, **options: object) -> dict[str, np.ndarray] | None:
        """What a probe saw at exactly this step, arrays [seeds, ...] by name; None where it did not look."""
        stack, slots = self.slots(arm, "steps")
        ask = "select data from looks where run = ? and probe = ? and options = ? and stack = ? and step = ?"
        row = self.store.db.execute(ask, (self.run.id, probe, options_key(probe, options), stack, step)).fetchone()
        return {name: values[slots] for name, values in loaded(row[0]).items()} if row else None


def loaded(data: bytes) -> dict[str, np.ndarray]:
    """What a look saw of a stack, arrays [slots, ...] by name."""
    with ONE_AT_A_TIME, np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def options_key(probe: str, options: dict) -> str:
    """A probe's options as they are kept, defaults filled in."""
    return json.dumps(checked(probe, options), sort_keys=True)
