"""Closed forms that the measurements are held against: how signals and gradients grow per layer at initialization.

In a wide network with random weights the argument of the activation is normal, u ~ N(0, q). A layer passes on a
variance and multiplies the squared signal gradient ||dE/da||^2, on its way to the input, by a number. With
s2 = fan_in * Var[W], and "var" the variance of the layer's pre-activations a:

    norm              q                     what the norm divides by     variance of the next a    growth of ||dE/da||^2
    none              var                   D = 1                        s2 E[h(u)^2]              s2 E[h'(u)^2]
    batch, before     var / (var + delta)   D = var + delta              s2 Var[h(u)]              s2 E[h'(u)^2] / D
    layer, before     var / (var + delta)   D = var + delta              s2 E[h(u)^2]              s2 E[h'(u)^2] / D
    either, after     var                   D = Var[h(u)] + delta        s2 Var[h(u)] / D          s2 E[h'(u)^2] / D

    batch, frozen     as none, with D = 1 + delta: the averages stand at 0 and 1, so the mini-batch has no say

Below a norm s2 cancels. Batch norm before the activation takes the mean of h out of the next a; layer norm there does
not, as the mean over units of a random projection is 0 already: so ReLU grows by pi/(pi - 1) with the one, by 1 with
the other. All this holds for many units and, with batch norm, many examples; `small_batch` corrects for few.
Squared norms and norms are told apart by name: `..._squared` and `..._norm`.

Noisy batch norm multiplies and shifts each unit's output by numbers of its own: the averages are over them too. The
weight gradient is ||dE/dW||^2 = ||sum_n x_n delta_n^T||^2, taken for sum_n ||x_n||^2 ||delta_n||^2: examples at right
angles. Where the inputs of a layer resemble each other (raw data, collapsed deep layers) that is not so.

Sources: Glorot and Bengio 2010; He et al. 2015; Schoenholz et al. 2017; Yang et al. 2019. The rows of layer norm and
"after" are derived in the same way and checked against simulation in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf, log, sqrt
from typing import NamedTuple

import numpy as np

from .averages import CURVES, moments, sphere_pairs

LOST = 1e-6  # of the top layer's signal: lost
FALLING = 0.9995  # a limit above it is written ×1.000: what it loses, as for δ alone, is called nothing
TINY, HUGE = 1e-100, 1e100  # a variance is kept between these, where its square is a number still


def weight_scale(init: str, gain: float, fan_in: int, fan_out: int) -> float:
    """s2 = fan_in * Var[W] of a [fan_in, fan_out] weight matrix: the factor on the mean square of what passes it."""
    scale = {
        "he": 2.0,
        "xavier": 2 * fan_in / (fan_in + fan_out),
        "lecun": 1.0,
        "orthogonal": fan_in / max(fan_in, fan_out),
    }
    return max(gain**2 * scale[init], TINY)


class Net(NamedTuple):
    """What the laws depend on. s2 belongs to the weights between two hidden layers. norm is "none", "batch", "layer" or
    "frozen": batch norm with moving averages that stand at 0 and 1. noise: the greatest shift and scale, less 1."""

    activation: str
    norm: str
    placement: str
    s2: float
    delta: float
    noise: tuple[float, float] = (0.0, 0.0)


class Units(NamedTuple):
    """How units differ in what enters their activation, scale * u + shift: nodes and weights, [U, 1] each."""

    scale: np.ndarray
    shift: np.ndarray
    weight: np.ndarray


ALIKE = Units(np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))


@lru_cache(64)
def noisy(shift: float, scale: float) -> Units:
    """Noise as noise.Noise draws it: uniform in [-shift, shift] and in [1, 1 + scale]."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    scales, shifts = np.meshgrid(1 + scale * (nodes + 1) / 2, shift * nodes)
    return Units(*(q.reshape(-1, 1) for q in (scales, shifts, np.outer(weights, weights) / 4)))


def apart(variance: float) -> Units:
    """Units with a mean of their own, the same for all examples: N(0, variance)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    shift = sqrt(variance) * nodes.reshape(-1, 1)
    return Units(np.ones_like(shift), shift, weights.reshape(-1, 1) / weights.sum())


class Layer(NamedTuple):
    """What one layer does: a row of the table above, for each example."""

    growth: np.ndarray  # of the squared signal gradient, from the next layer to this one
    square: np.ndarray  # mean square of the next layer's a
    variance: np.ndarray  # the same, but less the mini-batch's mean where batch norm will take that out


def layer(net: Net, variance: np.ndarray, common: float = 0.0) -> Layer:
    """The layer whose pre-activations have these variances [n], one an example; batch norm's is their mean.

    `common`: with batch norm, the variance over the units of what is the same for all examples, beside `variance`."""
    variance = np.clip(variance, TINY, HUGE)
    batch, before = net.norm == "batch", net.placement == "before"
    noise = noisy(*net.noise) if any(net.noise) else ALIKE
    divisor = np.full_like(variance, 1 + net.delta if net.norm == "frozen" else 1.0)
    if net.norm in ("batch", "layer") and before:
        divisor = (np.full_like(variance, variance.mean()) if batch else variance) + net.delta
    units = noise if before else apart(common) if common > 0 else ALIKE
    q = variance / (divisor if before else 1.0)
    m = moments(net.activation, units.scale**2 * q, units.shift + np.zeros_like(q))  # [U, n]

    def over_units(x: np.ndarray) -> np.ndarray:
        return (units.weight * x).sum(0)

    mean = m.mean.mean(1, keepdims=True) if batch else over_units(m.mean)
    square = over_units(m.square)
    centered = over_units(m.square - 2 * mean * m.mean + mean**2)
    slope = over_units(units.scale**2 * m.slope_square)
    output, read = square, centered if batch else square
    if net.norm != "none" and not before:
        if net.norm != "frozen":
            divisor = (np.full_like(variance, centered.mean()) if batch else centered) + net.delta
            square = centered
        gain, shifted = ((noise.weight * x**2).sum() for x in (noise.scale, noise.shift))
        read = gain * square / divisor
        output, slope = read + shifted, gain * slope
        read = read if batch else output
    return Layer(net.s2 * slope / divisor, net.s2 * output, net.s2 * read)


def resting_point(following: Callable[[float], float], start: float) -> float:
    """Where a variance goes when `following` is applied for ever; beyond 1e-12 and 1e12 it goes to 0 and infinity.

    The map rises, so the variance moves one way only and rests at the first fixed point it meets: walked to in factors
    of 2, then bisected. Plain iteration would take for ever where the fixed point is critical (tanh at s2 = 1).
    """

    def way(variance: float) -> int:
        ratio = following(variance) / variance
        return 0 if abs(ratio - 1) < 1e-9 else 1 if ratio > 1 else -1

    first = way(start)
    near = far = start
    while first and way(far) == first:
        near, far = far, far * 2.0**first
        if not 1e-12 < far < 1e12:
            return far
    for _ in range(50 if near != far else 0):
        middle = sqrt(near * far)
        near, far = (middle, far) if way(middle) == first else (near, middle)
    return far


class Growth(NamedTuple):
    """What is predicted per layer of a network at initialization, away from its first and last layers."""

    signal_squared: float  # factor of ||dE/da||^2 per layer towards the input
    signal_norm: float  # factor of ||dE/da||: its square root
    weight_norm: float  # factor of ||dE/dW|| per layer towards the input
    forward_variance: float  # variance of a over examples and units; 0 or infinity where it sinks or grows for ever
    lost_at_depth: float  # layers after which the norm of the signal is 1e-6 of the top's; infinity above FALLING
    parting: float  # factor per layer on the difference in size between examples; the law supposes it does not exceed 1
    note: str


@lru_cache(1024)
def growth(
    activation: str,
    init: str,
    gain: float = 1.0,
    norm: str = "none",
    placement: str = "before",
    batch_size: int | None = None,
    delta: float = 1e-5,
    noise: tuple[float, float] = (0.0, 0.0),
) -> Growth:
    """The growth per layer between hidden layers of one width, in the limit of many layers.

    `batch_size` asks for the correction for few examples, which is known for batch norm before the activation.
    """
    net = Net(activation, norm, placement, weight_scale(init, gain, 1, 1), delta, noise)
    variance = resting_point(lambda v: layer(net, np.array([v])).variance[0], net.s2)
    at = Layer(*(float(part[0]) for part in layer(net, np.array([variance]))))
    limit = 0.0 if variance < 1e-6 * net.s2 else inf if variance > 1e6 * net.s2 else at.square
    usual = layer(net, np.array([net.s2]))  # of tanh at s2 = 1 the limit alone stands still
    factors = sqrt(at.variance / variance), sqrt(float(usual.variance[0]) / net.s2)
    if limit in (0.0, inf) and all(FALLING <= factor <= 1 / FALLING for factor in factors):
        limit = float(usual.square[0])  # as for δ alone: nothing
    few = few_examples(net, batch_size)
    note = few.note
    growing = parting(net, variance)
    if norm == "batch" and growing > 1 + 1e-3:
        note += f" Examples of unlike size part by ×{growing:.3g} a layer, so deep networks grow faster than this."
    if limit in (0.0, inf):
        note = f"Pre-activations {'sink to 0' if limit == 0 else 'grow without bound'} with depth. {note}"
    squared = at.growth * few.growth
    signal, forward = sqrt(squared), at.variance / variance
    return Growth(
        signal_squared=squared,
        signal_norm=signal,
        weight_norm=signal / sqrt(forward),
        forward_variance=limit * few.square,
        lost_at_depth=log(LOST) / log(signal) if signal < FALLING else inf,
        parting=growing,
        note=note.strip(),
    )


def parting(net: Net, variance: float) -> float:
    """Factor per layer on a small difference in size (mean square of a) between examples, relative to their mean.

    Batch norm fixes the mean square over the mini-batch, not each example's. Above 1 (GELU, SiLU) a few examples come
    to hold most of the variance: the symmetric state that the law describes is then left with depth. 1 for ReLU.
    """
    small, large = layer(net, variance * np.array([0.999, 1.001])).variance
    return float((large - small) / (large + small) / 0.001)


FEWEST = (
    "In mini-batches of 2 or 3 the mean growth is infinite but for δ: the rare units whose values all but agree "
    "make it, and most show far less."
)


class Correction(NamedTuple):
    """Factors that correct for few examples in a mini-batch, and what is to be said about them."""

    growth: float = 1.0  # on the growth of ||dE/da||^2
    square: float = 1.0  # on the mean square of the next layer's a
    variance: float = 1.0  # the same, less the mini-batch's mean
    note: str = ""
    top: float = 1.0  # on the uppermost norm's part of ||v^T J_L ... J_l||^2: below it errors sum to 0, v does not
    inputs: float = 1.0  # on the mean square of the network's inputs, less the mini-batch's mean


def few_examples(net: Net, batch_size: int | None) -> Correction:
    """The factors of small_batch where they are asked for and known."""
    if net.norm != "batch" or batch_size is None or batch_size < 2:
        return Correction()
    if net.placement == "after":
        return Correction(note="The theory is for many examples in a mini-batch.")
    return small_batch(net.activation, batch_size, net.noise)


def small_batch(activation: str, K: int, noise: tuple[float, float] = (0.0, 0.0)) -> Correction:
    """Batch norm before the activation with K >= 2 examples, relative to very many.

    Over the mini-batch the normalized a_hat of a unit is uniform on the sphere of radius sqrt(K) among the vectors that
    sum to 0, and independent of sigma2, which is v chi2(K-1)/K. With f = h'(a_hat), R the projection that batch norm's
    backward pass applies (off 1 and a_hat), P that off 1, and i, j two different examples,

        growth = K E[tr(R f P f)] / ((K-1)(K-3) (E[h_i^2] - E[h_i h_j])),

    which for the linear network is (K-2)/(K-3) (Yang et al. 2019, whose sums over Gegenbauer polynomials this integral
    replaces). At K of 2 or 3 the mean of 1/sigma2 is infinite.
    """
    h, slope = CURVES[activation]
    y_i, y_j, weight = sphere_pairs(K)
    units = noisy(*noise) if any(noise) else ALIKE
    u_i, u_j = units.scale * y_i + units.shift, units.scale * y_j + units.shift
    h_i, h_j, f_i, f_j = h(u_i), h(u_j), units.scale * slope(u_i), units.scale * slope(u_j)

    def mean(x: np.ndarray) -> float:
        return float((units.weight * x).sum(0) @ weight)

    many = layer(Net(activation, "batch", "before", 1.0, 0.0, noise), np.ones(1))
    growing, square, variance = (float(part[0]) for part in (many.growth, many.square, many.variance))
    inside = mean(h_i**2 - h_i * h_j)  # K/(K-1) times the variance over the mini-batch
    few = mean(h_i**2) / square, (K - 1) / K * inside / variance
    if K < 4:
        return Correction(inf, *few, FEWEST, inputs=(K - 1) / K)
    f2, fy2 = mean(f_i**2), mean((f_i * y_i) ** 2)
    ff, fyfy = mean(f_i * f_j), mean(f_i * y_i * f_j * y_j)
    trace = (K - 2) * f2 - fy2 + (f2 + fy2 + (K - 1) * (ff + fyfy)) / K
    growth = K * trace / ((K - 1) * (K - 3) * inside) / (growing / variance)
    top = ((K - 1) * f2 - fy2) / K / (trace / (K - 1))  # E[tr(R f f)] / K is that of any v
    return Correction(growth, *few, f"The theory is for mini-batches of {K:,}.", top, (K - 1) / K)
