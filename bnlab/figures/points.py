"""Which points of a line are drawn, what a band spans, and which steps a point stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import style

if TYPE_CHECKING:
    from ..reading import Trace


def percentiles(values: np.ndarray, wanted: tuple[float, ...]) -> np.ndarray:
    """Percentiles of each row, [n, m] -> [n, q]: NaN is passed over, infinities count; NaN where nothing is left."""
    n, m = values.shape
    if not m:
        return np.full((n, len(wanted)), np.nan, values.dtype)
    ordered = np.sort(values, axis=1)  # NaN goes to the end
    last = (~np.isnan(ordered)).sum(1, keepdims=True) - 1
    place = last.clip(0) * np.asarray(wanted) / 100
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, last.clip(0))
    low, high = np.take_along_axis(ordered, below, 1), np.take_along_axis(ordered, above, 1)
    with np.errstate(invalid="ignore"):  # inf - inf
        between = np.where((low == high) | (place == below), low, low + (high - low) * (place - below))
    return np.where(last < 0, np.nan, between).astype(values.dtype)


def when_in_words(steps: range) -> str:
    """When a value of these steps is, see Trace.at: "at step 7", "in the mean of steps 256 to 511"."""
    return f"at step {steps[0]:,}" if len(steps) == 1 else f"in the mean of steps {steps[0]:,} to {steps[-1]:,}"


def when_of_arms(trace: Trace, steps: list[range]) -> str:
    """The same of all arms, to go on with: " at step 7", or of each, as the budget may not leave the same of every arm:
    ": A at step 7; B in the mean of steps 0 to 7"."""
    if len({*steps}) == 1:
        return f" {when_in_words(steps[0])}"
    return ": " + "; ".join(f"{style.label(trace, arm)} {when_in_words(each)}" for arm, each in enumerate(steps))


def spanning(what: str, wide: int, most: str = "") -> str:
    """What a point or column stands for: 'A point is the mean of 14 steps, drawn at the first of them.'"""
    return f"{what} {most}{wide:,} steps, drawn at the first of them."


def uneven(steps: list[np.ndarray]) -> str:
    """Gives "up to " where points stand for more steps here than there: single ones may follow thinned ones."""
    widths = {int(each) for line in steps for each in np.diff(line)}
    return "up to " if len(widths) > 1 else ""
