"""Moving averages of any alpha, afterwards, and why they are off.

Moving averages play no role in training, so those of any alpha follow from the recorded batch statistics b_s alone:

    m_t = alpha m_{t-1} + (1 - alpha) b_t = alpha^{t+1} m_{-1} + (1 - alpha) sum_s alpha^{t-s} b_s        (s = 0..t)

As the weights of m_{-1} and all b_s add up to 1, the gap to the population statistic p_t is a sum of three parts:

    m_t - p_t =  alpha^{t+1} (m_{-1} - p_t)                    warm-up: the average starts at 0 (mean) or 1 (variance)
              + (1 - alpha) sum_s alpha^{t-s} (p_s - p_t)      lag: the weights have moved since
              + (1 - alpha) sum_s alpha^{t-s} (b_s - p_s)      noise: a mini-batch is not the population

Arrays are [steps, ...] in numpy; step t is the value after the statistics of step t came in. Float64 inside. Where not
every step was kept, a row stands for those since the row before.
"""

from __future__ import annotations

from math import nan, sqrt
from typing import NamedTuple

import numpy as np

START = {"mean": 0.0, "var": 1.0}  # the cold start
ALPHAS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)


def gaps(steps: np.ndarray) -> np.ndarray:
    """How many steps each recorded row stands for, [n]: itself and those since the row before."""
    return np.diff(steps, prepend=-1)


def weights(steps: np.ndarray, alpha: float) -> np.ndarray:
    """What each row weighs in the average after the last, [n]; what is left, alpha^(last + 1), is the start's."""
    return (1 - alpha ** gaps(steps).astype(float)) * alpha ** (steps[-1] - steps).astype(float)  # 0 ** 0 is 1


def moving_averages(
    new: np.ndarray, alpha: float, start: float, corrected: bool = False, steps: np.ndarray | None = None
) -> np.ndarray:
    """m_t [n, ...] of the batch statistics new [n, ...] of `steps` (0..n-1 unless told), from `start`.

    `corrected` divides out the start as Adam does: (m_t - alpha^{t+1} start)/(1 - alpha^{t+1}); for alpha = 1, where
    nothing ever comes in, it stays at the start. Units: those of `new`.
    """
    steps = np.arange(len(new)) if steps is None else steps
    out = np.empty(new.shape, np.float64)
    m = np.full(new.shape[1:], start, np.float64)
    for row, kept in enumerate(alpha ** gaps(steps).astype(float)):
        m = kept * m + (1 - kept) * new[row].astype(np.float64)
        out[row] = m
    if corrected and alpha < 1:
        left = (alpha ** (steps + 1.0)).reshape(-1, *[1] * (new.ndim - 1))
        out = (out - left * start) / (1 - left)
    return out


def moving_average_at(
    new: np.ndarray, alpha: float, start: float, at: np.ndarray, steps: np.ndarray | None = None
) -> np.ndarray:
    """The same at a few steps only, [len(at), ...]: what training finds before update t, from the rows before t.

    `at` grows; step 0 finds the start itself.
    """
    steps = np.arange(len(new)) if steps is None else steps
    found = np.empty((len(at), *new.shape[1:]), np.float64)
    m, done = np.full(new.shape[1:], start, np.float64), 0
    every = (1 - alpha ** gaps(steps).astype(float)) if len(steps) else steps
    for i, t in enumerate(at):
        until = int(np.searchsorted(steps, t))
        if until > done:
            before = steps[done - 1] if done else -1
            part = every[done:until] * alpha ** (steps[until - 1] - steps[done:until]).astype(float)
            m = alpha ** float(steps[until - 1] - before) * m + np.tensordot(part, new[done:until], 1)
            done = until
        found[i] = m
    return found


class Gap(NamedTuple):
    """m_t - p_t and its three parts, [...] like one step's statistics; they add up to `total`."""

    total: np.ndarray
    warm_up: np.ndarray
    lag: np.ndarray
    noise: np.ndarray


def gap(
    new: np.ndarray,
    population: np.ndarray,
    alpha: float,
    start: float,
    corrected: bool = False,
    steps: np.ndarray | None = None,
) -> Gap:
    """Why the moving average after the last row is off. Shapes: new, population [n, ...] at `steps` (else 0..n-1).

    `corrected`: of the bias-corrected average, which has no warm-up.
    """
    steps = np.arange(len(new)) if steps is None else steps
    share, old = weights(steps, alpha), alpha ** float(steps[-1] + 1)
    last = population[-1].astype(np.float64)
    lag = np.tensordot(share, population - last, 1)
    noise = np.tensordot(share, new.astype(np.float64) - population, 1)
    warm_up = old * (start - last)
    if corrected and old < 1:
        lag, noise, warm_up = lag / (1 - old), noise / (1 - old), np.zeros_like(warm_up)
    return Gap(warm_up + lag + noise, warm_up, lag, noise)


def between(steps: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Population statistics [n, ...] at every step 0..n-1, straight lines between those `steps` that have them."""
    t = np.clip(np.arange(n), steps[0], steps[-1])
    right = np.clip(np.searchsorted(steps, t, "left"), 1 if len(steps) > 1 else 0, len(steps) - 1)
    left = np.maximum(right - 1, 0)
    width = np.maximum(steps[right] - steps[left], 1)
    share = ((t - steps[left]) / width).reshape(-1, *[1] * (values.ndim - 1))
    return values[left] * (1 - share) + values[right] * share


def noise_of_independent(alpha: float, population_var: np.ndarray | float, K: int, t: float = float("inf")):
    """Standard deviation of the moving average of t means of K independent examples: sqrt((1-a)/(1+a) (1-a^2t) v/K).

    Mini-batches drawn without replacement, in epochs, have less: each epoch's means average to nearly the population's.
    """
    if alpha >= 1:
        return 0.0 * np.asarray(population_var)
    return np.sqrt((1 - alpha) / (1 + alpha) * (1 - alpha ** (2 * t)) * np.asarray(population_var) / K)


def rms(values: np.ndarray) -> float:
    """Root of the mean square over all units; nan for none."""
    finite = values[np.isfinite(values)]
    return sqrt(float(np.square(finite, dtype=np.float64).mean())) if finite.size else nan


class Convention(NamedTuple):
    """One library's line for the visitor's alpha, delta and K, and what it averages."""

    library: str
    line: str
    averages: str


def conventions(alpha: float, delta: float, K: int, width: int) -> list[Convention]:
    """The same batch norm in other libraries' words. K at least 2."""
    return [
        Convention("this lab", f"moving = {alpha:g} * moving + {1 - alpha:.6g} * batch", "biased variance (1/K)"),
        Convention(
            "PyTorch",
            f"torch.nn.BatchNorm1d({width}, eps={delta:g}, momentum={1 - alpha:.6g})",
            f"unbiased variance: biased x K/(K-1) = {K / (K - 1):.6g}",
        ),
        Convention(
            "Keras", f"keras.layers.BatchNormalization(momentum={alpha:g}, epsilon={delta:g})", "biased variance (1/K)"
        ),
        Convention("Flax", f"flax.linen.BatchNorm(momentum={alpha:g}, epsilon={delta:g})", "biased variance (1/K)"),
    ]
