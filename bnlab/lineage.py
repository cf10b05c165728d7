"""A run and what it was forked from, as one: every arm of a fork has the parent's steps before it, to the last bit."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from . import moving
from .probes import Seen
from .record import EVERYTHING, batch_slots

if TYPE_CHECKING:
    from .reading import Trace
    from .run import Run
    from .settings import Settings
    from .store import RunStore


def parent(trace: Trace) -> tuple[Trace, int] | None:
    """The run that this one was forked from and the arm that went on; None for no fork, and where it was deleted."""
    if origin := trace.store.origin(trace.run.id):
        with suppress(KeyError):
            return trace.store.trace(origin[0]), origin[1]
    return None


def periods(trace: Trace, arm: int) -> list[tuple[int, Settings]]:
    """The settings this arm was trained with, and the step from which on: one but for forks. Where the parent was
    deleted, those of the fork's first arm, which goes on unchanged, stand for all that was before."""
    before, own = parent(trace), trace.experiment.arm_settings
    past = periods(*before) if before else [(0, own[0])] if trace.first else []
    return [*past, (trace.first, own[arm])]


def orphaned(trace: Trace) -> bool:
    """Whether the run that this one was forked from, or that was, and so on, was deleted."""
    before = parent(trace)
    return orphaned(before[0]) if before else trace.first > 0


def needing(trace: Trace) -> list[Run]:
    """The forks of this run, and forks of forks, whose moving averages are told from the first step on only while it is
    there."""
    if orphaned(trace):
        return []
    found = later(trace.store, trace.run.id)
    return [fork for fork in found if any(s.norm == "batch" and not s.frozen for s in fork.experiment.arm_settings)]


def later(store: RunStore, run_id: str) -> list[Run]:
    """The forks of a run and those of these, but for one from step 0, which has every step itself."""
    forks = [fork for fork in store.forks(run_id) if fork.first]
    return forks + [each for fork in forks for each in later(store, fork.id)]


def changed(trace: Trace, arm: int, name: str) -> int | None:
    """The newest step at which a fork gave this arm another value of a setting; None where it never changed."""
    told = periods(trace, arm)
    pairs = zip(told[:0:-1], told[-2::-1], strict=True)  # the newest first
    return next((step for (step, new), (_, old) in pairs if getattr(new, name) != getattr(old, name)), None)


def rows(
    trace: Trace, quantity: str, arm: int, *, stop: int | None = None, layer: int | None = None, unit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [n, seeds, ...] of a quantity of the units, all that is left of it before `stop`."""
    where = {"layer": layer, "unit": unit, "points": EVERYTHING}
    steps, values, *_ = trace.read(quantity, arm, stop=stop, **where)
    if trace.first and (before := parent(trace)):
        until = trace.first if stop is None else min(trace.first, stop)
        earlier = rows(before[0], quantity, before[1], stop=until, layer=layer, unit=unit)
        steps, values = np.concatenate([earlier[0], steps]), np.concatenate([earlier[1], values])
    return steps, values


def population(
    trace: Trace, arm: int, layer: int | None = None, unit: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As Trace.population(), from the beginning of what the run was forked from."""
    found = trace.population(arm, layer, unit)
    if trace.first and (before := parent(trace)):
        earlier = population(*before, layer, unit)
        here = earlier[0] < trace.first
        found = tuple(np.concatenate([a[here], b]) for a, b in zip(earlier, found, strict=True))
    return found


def weights(trace: Trace, arm: int, t: int, swapped: bool = False) -> np.ndarray:
    """What the start, 0 and 1, and then each step weighs in the arm's moving averages before update t, [1 + t]; NaN
    where frozen ones came from a run that was deleted: since when is not known. `swapped`: had the old value always
    weighed 1 - alpha."""
    told, found = periods(trace, arm), np.ones(1)
    if told[0][1].frozen and orphaned(trace):
        return np.full(1 + t, np.nan)
    begins = [0, *(min(step, t) for step, _ in told[1:]), t]
    for (_, settings), (begin, end) in zip(told, pairwise(begins), strict=True):
        alpha = 1 - settings.alpha if swapped else settings.alpha
        alpha = 1.0 if settings.frozen else alpha  # frozen: the old value weighs all
        found = np.append(found * alpha ** (end - begin), moving.weights(end - begin, alpha))
    return found


def batch_sizes(trace: Trace, arm: int, t: int) -> np.ndarray:
    """K of each step before update t, [t]."""
    found = np.empty(t)
    for step, settings in periods(trace, arm):
        found[step:] = settings.mini_batch
    return found


def seen(trace: Trace) -> list[Seen]:
    """What was recorded of each stack, for the probes that look back."""
    before, found = parent(trace) if trace.first else None, []
    for i, networks in enumerate(trace.experiment.stacks):
        slots = [networks[slot] for slot in batch_slots(trace.experiment, i)]
        steps, both = np.array([], int), [np.empty((0, 0, 0, 0), np.float32)] * 2
        scored, measured = steps, both
        if slots:
            window = (None, None, trace.first, trace.step + 1, EVERYTHING)
            with trace.store.reading():  # while it trains, rows make room for others
                series = [trace.columns(i, "units", name, *window) for name in ("batch_mean", "batch_var")]
                scored, (*measured, _, _) = trace.populations(i)
            steps, both = series[0].steps, [s.mean for s in series]
            if trace.experiment.arm_settings[slots[0].arm].frozen:  # frozen: nothing came in
                both = [np.full_like(q, np.nan) for q in both]
        if slots and before:
            of, arm = before
            stack, _ = of.slots(arm, "units")
            earlier, here = seen(of)[stack], batch_slots(of.experiment, stack)
            pick = [here.index(of.experiment.stacks[stack].index((arm, n.seed))) for n in slots]
            both = continued(earlier.steps, (earlier.batch_mean, earlier.batch_var), pick, trace.first, both)
            measured = continued(earlier.scored, earlier.population, pick, trace.first, measured)
            steps = np.concatenate([earlier.steps[earlier.steps < trace.first], steps])
            scored = np.concatenate([earlier.scored[earlier.scored < trace.first], scored])
        vector = lambda step, i=i: trace.snapshot(step)[i]  # noqa: E731
        weigh = lambda b, *of, slots=slots: weights(trace, slots[b].arm, *of)  # noqa: E731
        sizes = lambda b, t, slots=slots: batch_sizes(trace, slots[b].arm, t)  # noqa: E731
        found.append(Seen(steps, *both, scored, tuple(measured), trace.snapshots(), vector, weigh, sizes))
    return found


def continued(steps: np.ndarray, earlier, pick: list[int], first: int, later) -> list[np.ndarray]:
    """Arrays [n, L, B, d] of a parent's slots `pick` before the step `first`, and then a fork's."""
    return [np.concatenate([a[steps < first][:, :, pick], b]) for a, b in zip(earlier, later, strict=True)]
