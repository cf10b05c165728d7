"""Moving averages of any alpha, afterwards, and why they are off.

Moving averages play no role in training, so those of any alpha follow from the recorded batch statistics b_s alone.
What inference with the weights before update t finds is the average of steps s = 0..t-1:

    m_t = alpha m_{t-1} + (1 - alpha) b_{t-1} = alpha^t m_0 + (1 - alpha) sum_s alpha^{t-1-s} b_s

As the weights of m_0 and all b_s add up to 1, the gap to the population statistic p_t of the same weights is a sum:

    m_t - p_t =  alpha^t (m_0 - p_t)                            warm-up: the average starts at 0 (mean) or 1 (variance)
              + (1 - alpha) sum_s alpha^{t-1-s} (p_s - p_t)     lag: the weights have moved since, even for alpha = 0
              + (1 - alpha) sum_s alpha^{t-1-s} (b_s - p_s)     mini-batches: noise, as K is finite, and bias

Noise averages out with alpha, bias stays: a biased variance is small by about sigma2/K; above layer 1 there is more to
it, as mini-batch statistics normalize the layers below.

Arrays are [steps, ...] in numpy, one row for every step from 0; where some are missing nothing here can be said
(`complete`). Float64 inside. Of a network that has diverged the statistics are not finite, and so is what follows.
"""

from __future__ import annotations

from math import inf, nan, sqrt
from typing import NamedTuple

import numpy as np

START = {"mean": 0.0, "var": 1.0}  # the cold start
WITHOUT_WARNING = np.errstate(invalid="ignore")  # infinity less infinity, or times 0, is NaN, as it should be
ALPHAS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)


def complete(steps: np.ndarray) -> bool:
    """Whether these are the steps 0, 1, 2, ... and none is missing."""
    return bool((np.diff(steps, prepend=-1) == 1).all())


def weights(n: int, alpha: float) -> np.ndarray:
    """What each of n steps weighs in the average after the last, [n]; what is left, alpha^n, is the start's."""
    return (1 - alpha) * alpha ** np.arange(n - 1.0, -1, -1)  # 0 ** 0 is 1


def age(n: int, alpha: float) -> float:
    """How many steps the mini-batches that came in, of n, are behind the weights on average, the newest being one
    behind: 1/(1 - alpha) after many steps. NaN where nothing came in: n = 0 or alpha = 1."""
    came = weights(n, alpha)
    return float(came @ np.arange(n, 0.0, -1) / came.sum()) if came.any() else nan


@WITHOUT_WARNING
def moving_averages(new: np.ndarray, alpha: float, start: float, corrected: bool = False) -> np.ndarray:
    """The average after each of the batch statistics new [n, ...] came in, from `start`; row s is m_{s+1}.

    `corrected` divides out the start as Adam does: (m_t - alpha^t start)/(1 - alpha^t); for alpha = 1, where
    nothing ever comes in, it stays at the start. Units: those of `new`.
    """
    out = np.empty(new.shape, np.float64)
    m = np.full(new.shape[1:], start, np.float64)
    for row, b in enumerate(new):
        m = alpha * m + (1 - alpha) * b.astype(np.float64)
        out[row] = m
    if corrected and alpha < 1:
        left = (alpha ** np.arange(1.0, len(new) + 1)).reshape(-1, *[1] * (new.ndim - 1))
        out = (out - left * start) / (1 - left)
    return out


@WITHOUT_WARNING
def moving_average_at(new: np.ndarray, alpha: float, start: float, at: np.ndarray) -> np.ndarray:
    """m_t at a few steps t only, [len(at), ...]: what training finds before update t. `at` grows; m_0 is the start."""
    found = np.empty((len(at), *new.shape[1:]), np.float64)
    m, done = np.full(new.shape[1:], start, np.float64), 0
    for i, t in enumerate(at):
        if t > done:
            m = alpha ** float(t - done) * m + np.tensordot(weights(t - done, alpha), new[done:t], 1)
            done = t
        found[i] = m
    return found


class Gap(NamedTuple):
    """m_t - p_t and its three parts, [...] like one step's statistics; they add up to `total`."""

    total: np.ndarray
    warm_up: np.ndarray
    lag: np.ndarray
    mini_batches: np.ndarray


@WITHOUT_WARNING
def gap(new: np.ndarray, population: np.ndarray, alpha: float, start: float, corrected: bool = False) -> Gap:
    """Why the average of new [t, ...] is off population[t], that of the weights which infer with it.

    population [t + 1, ...]. `corrected`: of the bias-corrected average, which has no warm-up.
    """
    share, old = weights(len(new), alpha), alpha ** float(len(new))
    last = population[-1].astype(np.float64)
    lag = np.tensordot(share, population[:-1] - last, 1)
    mini_batches = np.tensordot(share, new.astype(np.float64) - population[:-1], 1)
    warm_up = old * (start - last)
    if corrected and old < 1:
        lag, mini_batches, warm_up = lag / (1 - old), mini_batches / (1 - old), np.zeros_like(warm_up)
    return Gap(warm_up + lag + mini_batches, warm_up, lag, mini_batches)


def neighbors(steps: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each step 0..n-1 the places in `steps` to its left and right, and how far it is from the left one, 0 to 1."""
    t = np.clip(np.arange(n), steps[0], steps[-1])
    right = np.searchsorted(steps, t)
    left = np.maximum(right - 1, 0)
    return left, right, (t - steps[left]) / np.maximum(steps[right] - steps[left], 1)


@WITHOUT_WARNING
def between(steps: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Population statistics [n, ...] at every step 0..n-1, straight lines between those `steps` that have them."""
    left, right, share = neighbors(steps, n)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return values[left] * (1 - share) + values[right] * share


@WITHOUT_WARNING
def averaged(steps: np.ndarray, values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The moving average, less its start, [...] of the population at steps 0..n-1, which weigh `of` [n] in it; straight
    lines between `steps`."""
    left, right, share = neighbors(steps, len(of))
    knots = np.bincount(left, of * (1 - share), len(steps)) + np.bincount(right, of * share, len(steps))
    return np.tensordot(knots, values.astype(np.float64), 1)


def noise_left(alpha: float, t: float = inf, epoch: int = 0, correlation: float = 0.0) -> float:
    """Standard deviation of the moving average of t values of variance 1 each.

    Independent: sqrt((1-a)/(1+a) (1-a^2t)). `epoch`: values of one epoch of that length have this correlation, those of
    different epochs none; t must then be finite.
    """
    if not epoch:
        return sqrt((1 - alpha) / (1 + alpha) * (1 - alpha ** (2 * t)))
    w = weights(int(t), alpha)
    together = np.add.reduceat(w, np.arange(0, len(w), epoch)) if len(w) else w
    return sqrt(max(0.0, (1 - correlation) * float(w @ w) + correlation * float(together @ together)))


def law(name: str, alpha: float, K: int, N: int | None, t: int) -> float:
    """Root mean square of what mini-batches of K make of the average of t of them: noise and bias, first layer.

    Of means in sigma_pop: their variance is sigma2/K. Of biased variances, of normal values, relative to sigma2_pop:
    their variance is 2 (K-1)/K^2, their bias -1/K. N: drawn from N examples without replacement in epochs, which takes
    both times (N-K)/(N-1) and gives two mini-batches of one epoch the correlation -K/(N-K); None: independent draws.
    """
    finite = (N - K) / (N - 1) if N else 1.0
    correlated = {"epoch": N // K, "correlation": -K / (N - K)} if N and N > K else {}
    left = sqrt(finite) * noise_left(alpha, t, **correlated)
    if name == "mean":
        return left / sqrt(K)
    bias = finite / K * (1 - alpha ** float(t))
    return sqrt(2 * (K - 1) / K**2 * left**2 + bias**2)


def rms(values: np.ndarray) -> float:
    """Root of the mean square over all units; nan for none."""
    return sqrt(float(np.square(values, dtype=np.float64).mean())) if values.size else nan


class Convention(NamedTuple):
    """One library's line for the visitor's alpha, delta and K.

    `averages`: the variance it averages; `factor`: by what its moving variance must be multiplied to be the lab's.
    """

    library: str
    line: str
    averages: str
    factor: float


def conventions(alpha: float, delta: float, K: int, width: int) -> list[Convention]:
    """The same batch norm in the notation of other libraries. K at least 2."""
    biased, old, new = "biased (1/K)", f"{alpha:.15g}", f"{1 - alpha:.6g}"
    return [
        Convention("This lab", f"moving = {old} * moving + {new} * batch", biased, 1.0),
        Convention(
            "PyTorch",
            f"torch.nn.BatchNorm1d({width}, eps={delta:g}, momentum={new})",
            "unbiased (1/(K-1))",
            (K - 1) / K,
        ),
        Convention("Keras", f"keras.layers.BatchNormalization(momentum={old}, epsilon={delta:g})", biased, 1.0),
        Convention("Flax", f"flax.linen.BatchNorm(momentum={old}, epsilon={delta:g})", biased, 1.0),
    ]
