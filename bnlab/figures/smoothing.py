"""How the mini-batch values of an arm become a line: which points of a long run, smoothed, one line over the seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .means import living

if TYPE_CHECKING:
    from ..reading import Series, Trace


class Curve(NamedTuple):
    """An arm's mini-batch values, [n] each, of the steps from `steps` to `last`: mean over the seeds, raw and smoothed;
    least and greatest of the seeds' smoothed ones; least and greatest of all values that a point stands for."""

    steps: np.ndarray
    last: np.ndarray
    raw: np.ndarray
    smooth: np.ndarray
    low: np.ndarray
    high: np.ndarray
    least: np.ndarray
    greatest: np.ndarray


def smoothed(steps: np.ndarray, values: np.ndarray, window: int, weight: np.ndarray | int = 1) -> np.ndarray:
    """Mean over the last `window` steps of values [n] at `steps`, `weight` of them each; what is not finite is passed
    over, and stays NaN."""
    if window <= 1 or len(steps) < 2:
        return values
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).astype(float) * weight  # at first of each point alone
    count = finite * np.asarray(weight)
    end = np.arange(len(steps))  # the last point that is not in yet
    left = end + 1 - np.searchsorted(steps, steps - window, side="right")  # points of the window that are not in yet
    sums, counts = np.zeros(len(steps)), np.zeros(len(steps), int)
    for k in range(int(left.max()).bit_length()):  # 2**k points at once: a difference of sums would lose what is small
        taken = left >> k & 1 == 1
        sums[taken] += total[end[taken]]
        counts[taken] += count[end[taken]]
        end = end - (taken << k)
        for q in (total, count):
            q[1 << k :] += q[: -(1 << k)]
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)


def curve(series: Series, window: int, newest: int) -> Curve:
    """Each seed is smoothed by itself, so that the mean of the smoothed ones lies among them; `newest` step of all."""
    last = series.last(newest)
    weight = last - series.steps + 1
    lines = np.stack([smoothed(series.steps, values, window, weight) for values in series.mean.T], 1)
    with np.errstate(invalid="ignore"):
        ends = np.fmin.reduce(lines, 1), np.fmax.reduce(lines, 1)
        ends += np.fmin.reduce(series.low, 1), np.fmax.reduce(series.high, 1)
    return Curve(series.steps, last, living(series.mean), living(lines), *ends)


def growing(trace: Trace, quantity: str, arm: int, points: int) -> Series:
    """All steps of an arm, one a point at first and more and more later, so that every decade has its points."""
    points = max(16, points // 4)
    stop = 1 << (2 * points).bit_length() - 1  # powers of 2 are edges of recorded buckets
    series = trace.read(quantity, arm, stop=stop, points=points)
    while stop <= trace.step:
        series = series.followed(trace.read(quantity, arm, start=stop, stop=4 * stop, points=points))
        stop *= 4
    return series


def taken(window: int, wide: int) -> int:
    """How many steps smoothed() takes the mean of where every point stands for `wide`: whole points."""
    return wide * -(-window // wide)


def width(series: Series) -> int:
    """How many steps a point stands for; 1 where every step is there."""
    return 1 if series.exact or len(series.steps) < 2 else int(np.diff(series.steps).max())
