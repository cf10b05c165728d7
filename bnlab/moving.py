"""Moving averages of any alpha, afterwards, and why they are off.

Moving averages play no role in training, so those of any alpha follow from the recorded batch statistics b_s alone:

    m_t = alpha m_{t-1} + (1 - alpha) b_t = alpha^{t+1} m_{-1} + (1 - alpha) sum_s alpha^{t-s} b_s        (s = 0..t)

As the weights of m_{-1} and all b_s add up to 1, the gap to the population statistic p_t is a sum of three parts:

    m_t - p_t =  alpha^{t+1} (m_{-1} - p_t)                    warm-up: the average starts at 0 (mean) or 1 (variance)
              + (1 - alpha) sum_s alpha^{t-s} (p_s - p_t)      lag: the weights have moved since
              + (1 - alpha) sum_s alpha^{t-s} (b_s - p_s)      noise: a mini-batch is not the population

Arrays are [steps, ...] in numpy; step t is the value after the statistics of step t came in. Float64 inside.
"""

from __future__ import annotations

from math import nan, sqrt
from typing import NamedTuple

import numpy as np

START = {"mean": 0.0, "var": 1.0}  # the cold start
ALPHAS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)


def moving_averages(new: np.ndarray, alpha: float, start: float, corrected: bool = False) -> np.ndarray:
    """m_t [n, ...] of the batch statistics new [n, ...] of steps 0..n-1, from `start`.

    `corrected` divides out the start as Adam does: (m_t - alpha^{t+1} start)/(1 - alpha^{t+1}); for alpha = 1, where
    nothing ever comes in, it stays at the start. Units: those of `new`.
    """
    out = np.empty(new.shape, np.float64)
    m = np.full(new.shape[1:], start, np.float64)
    for t in range(len(new)):
        m = alpha * m + (1 - alpha) * new[t].astype(np.float64)
        out[t] = m
    if corrected and alpha < 1:
        left = (alpha ** np.arange(1.0, len(new) + 1)).reshape(-1, *[1] * (new.ndim - 1))
        out = (out - left * start) / (1 - left)
    return out


def moving_average_at(new: np.ndarray, alpha: float, start: float, steps: np.ndarray) -> np.ndarray:
    """The same at a few steps only, [len(steps), ...]: after the statistics of steps 0..t-1, as training at t finds it.

    `steps` grow; step 0 gives the start itself.
    """
    found = np.empty((len(steps), *new.shape[1:]), np.float64)
    m, at = np.full(new.shape[1:], start, np.float64), 0
    for i, t in enumerate(steps):
        if t > at:
            weights = (1 - alpha) * alpha ** np.arange(t - at - 1.0, -1.0, -1.0)  # 0 ** 0 is 1
            m = alpha ** float(t - at) * m + np.tensordot(weights, new[at:t], 1)
            at = int(t)
        found[i] = m
    return found


class Gap(NamedTuple):
    """m_t - p_t and its three parts, [...] like one step's statistics; they add up to `total`."""

    total: np.ndarray
    warm_up: np.ndarray
    lag: np.ndarray
    noise: np.ndarray


def gap(new: np.ndarray, population: np.ndarray, alpha: float, start: float, corrected: bool = False) -> Gap:
    """Why the moving average after the last step is off. Shapes: new, population [n, ...] for steps 0..n-1.

    `corrected`: of the bias-corrected average, which has no warm-up.
    """
    n = len(new)
    weights = ((1 - alpha) * alpha ** np.arange(n - 1.0, -1.0, -1.0)).astype(np.float64)
    last, old = population[-1].astype(np.float64), alpha ** float(n)
    lag = np.tensordot(weights, population - last, 1)
    noise = np.tensordot(weights, new.astype(np.float64) - population, 1)
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
