"""Which points of a line are drawn, and what a band spans."""

from __future__ import annotations

import numpy as np


def nearest(steps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted step the place of the nearest of `steps` (sorted, not empty)."""
    right = np.searchsorted(steps, wanted).clip(0, len(steps) - 1)
    left = (right - 1).clip(0)
    return np.where(np.abs(steps[left] - wanted) <= np.abs(steps[right] - wanted), left, right)


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
