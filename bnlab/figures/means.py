"""Means over the seeds that are there. They differ in which are: a loss may be infinite and is drawn so, a probe sees
nothing of a network that has diverged, and 0 has no place on a logarithmic axis."""

from __future__ import annotations

import numpy as np


def living(values: np.ndarray) -> np.ndarray:
    """Mean over the seeds [n, seeds] -> [n] of those that have not diverged; infinity stays, NaN where none is left."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        total = np.where(there, values, 0).sum(1, dtype=float)
    return np.where(there.any(1), total / np.maximum(there.sum(1), 1), np.nan)


def present(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """Mean over some axes, at first the seeds', of what is finite; NaN where nothing is."""
    there = np.isfinite(values)
    return np.where(
        there.any(axis), np.where(there, values, 0).sum(axis, dtype=float) / there.sum(axis).clip(1), np.nan
    )


def geometric(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """Geometric mean over some axes of what is finite and above 0; NaN where nothing is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(present(np.where(values > 0, np.log(values), np.nan), axis))


def geometric_norm(norms: np.ndarray, axis: int = 0) -> np.ndarray:
    """Geometric mean over the seeds, one axis, of those that have a gradient; 0 where none of the living has one, NaN
    where none lives; infinity stays."""
    there = norms > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.log(np.where(there, norms, 1).astype(float)).sum(axis)
        none = np.where((norms == 0).any(axis), 0.0, np.nan)
        return np.where(there.any(axis), np.exp(total / there.sum(axis)), none)
