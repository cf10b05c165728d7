"""Closed forms that the measurements are held against: how signals and gradients grow per layer at initialization.

In a wide network with random weights the argument of the activation is normal, u ~ N(0, q). A layer passes on a
variance and multiplies the squared signal gradient ||dE/da||^2, on its way to the input, by a number. With
s2 = fan_in * Var[W], and "var" the variance of the layer's pre-activations a:

    norm              q                     what the norm divides by     variance of the next a    growth of ||dE/da||^2
    none              var                   D = 1                        s2 E[h(u)^2]              s2 E[h'(u)^2]
    batch, before     var / (var + delta)   D = var + delta              s2 Var[h(u)]              s2 E[h'(u)^2] / D
    layer, before     var / (var + delta)   D = var + delta              s2 E[h(u)^2]              s2 E[h'(u)^2] / D
    either, after     var                   D = Var[h(u)] + delta        s2 Var[h(u)] / D          s2 E[h'(u)^2] / D

Below a norm s2 cancels. Batch norm before the activation takes the mean of h out of the next a; layer norm there does
not, as the mean over units of a random projection is 0 already: so ReLU grows by pi/(pi - 1) with the one, by 1 with
the other. All this holds for many units and, with batch norm, many examples; `small_batch` corrects for few.
Squared norms and norms are told apart by name: `..._squared` and `..._norm`.

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
    """What the laws depend on. s2 belongs to the weights between two hidden layers."""

    activation: str
    norm: str
    placement: str
    s2: float
    delta: float


class Layer(NamedTuple):
    """What one layer does: a row of the table above."""

    divisor: float  # the variance that the norm divides by, with delta; 1 without a norm
    growth: float  # of the squared signal gradient, from the next layer to this one
    output: float  # mean square of what the next layer reads
    variance: float  # of the next layer's a; over the examples alone where batch norm will center it


def layer(net: Net, variance: float) -> Layer:
    """The layer whose pre-activations have this variance."""
    variance = min(max(variance, TINY), HUGE)
    before = net.norm != "none" and net.placement == "before"
    after = net.norm != "none" and net.placement == "after"
    m = moments(net.activation, variance / (variance + net.delta) if before else variance)
    divisor = 1.0 if net.norm == "none" else (variance if before else m.variance) + net.delta
    output = m.variance / divisor if after else m.square
    centered = m.variance if before and net.norm == "batch" else output
    return Layer(divisor, net.s2 * m.slope_square / divisor, output, net.s2 * centered)


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
    forward_squared: float  # factor of the mean square of a per layer towards the top; 1 where it comes to rest
    forward_variance: float  # variance of a over examples and units; 0 or infinity where it sinks or grows for ever
    lost_at_depth: float  # layers after which the norm of the signal is 1e-6 of the top's; infinity if it never is
    parting: float  # factor per layer on the difference in size between examples; the law supposes it does not exceed 1
    source: str
    note: str


SOURCES = {
    "none": "Schoenholz et al. 2017; for ReLU He et al. 2015",
    "before": "Yang et al. 2019",
    "after": "derived as in Yang et al. 2019, checked against simulation",
    "layer": "derived as in Yang et al. 2019, checked against simulation",
}


@lru_cache(1024)
def growth(
    activation: str,
    init: str,
    gain: float = 1.0,
    norm: str = "none",
    placement: str = "before",
    batch_size: int | None = None,
    delta: float = 1e-5,
) -> Growth:
    """The growth per layer between hidden layers of one width, in the limit of many layers.

    `batch_size` asks for the correction for few examples, which is known for batch norm before the activation.
    """
    net = Net(activation, norm, placement, weight_scale(init, gain, 1, 1), delta)
    variance = resting_point(lambda v: layer(net, v).variance, net.s2)
    at = layer(net, variance)
    limit = 0.0 if variance < 1e-6 * net.s2 else inf if variance > 1e6 * net.s2 else net.s2 * at.output
    few, note = few_examples(net, batch_size)
    apart = parting(net, variance)
    if apart > 1 + 1e-3:
        note += f" Examples of unlike size part by x{apart:.3g} a layer, so deep networks grow faster than this."
    if limit in (0.0, inf):
        note = f"Pre-activations {'sink to 0' if limit == 0 else 'grow without bound'}; factors of the limit. {note}"
    squared = at.growth * few
    signal, forward = sqrt(squared), at.variance / variance
    return Growth(
        signal_squared=squared,
        signal_norm=signal,
        weight_norm=signal / sqrt(forward),
        forward_squared=forward,
        forward_variance=limit,
        lost_at_depth=log(LOST) / log(signal) if signal < 1 - 1e-6 else inf,
        parting=apart,
        source=SOURCES["layer" if norm == "layer" else placement if norm == "batch" else "none"],
        note=note.strip(),
    )


def parting(net: Net, variance: float) -> float:
    """Factor per layer on a small difference between one example's mean square and the mini-batch's, under batch norm.

    Batch norm fixes the mean square over the mini-batch, not each example's. Above 1 (GELU, SiLU) a few examples come
    to hold most of the variance: the symmetric state that the law describes is then left with depth. 1 for ReLU.
    """
    if net.norm != "batch":
        return 1.0
    q = variance / (variance + net.delta) if net.placement == "before" else variance
    m = moments(net.activation, q)

    def size(q: float) -> float:
        own = moments(net.activation, q)
        return (own.square - 2 * m.mean * own.mean + m.mean**2) / m.variance

    return (size(1.001 * q) - size(0.999 * q)) / 0.002


class Profile(NamedTuple):
    """What is predicted for layers 1..L of one network at initialization, arrays [L]."""

    signal_norm: np.ndarray  # ||dE/da||, as a multiple of layer L's
    weight_norm: np.ndarray  # ||dE/dW||, as a multiple of layer L's
    forward_variance: np.ndarray  # of a, over examples and units
    divisor: np.ndarray  # the variance the norm divides by, with delta; 1 without a norm


def profile(
    activation: str,
    init: str,
    gain: float = 1.0,
    norm: str = "none",
    placement: str = "before",
    batch_size: int | None = None,
    delta: float = 1e-5,
    *,
    depth: int,
    width: int,
    n_in: int,
    input_square: float = 1.0,
) -> Profile:
    """The same law layer by layer, from inputs of mean 0 and this mean square, on the way to its limit.

    Where the limit is far (tanh at s2 = 1 takes hundreds of layers) this is what a network of 20 layers shows.
    """
    net = Net(activation, norm, placement, weight_scale(init, gain, width, width), delta)
    total = variance = weight_scale(init, gain, n_in, width) * input_square
    few, _ = few_examples(net, batch_size)
    squares, divisors, growths = [], [], []
    reads = [
        n_in * input_square
    ]  # squared norm of what the weights' gradient reads; of it, less the mean below batch norm
    for _ in range(depth):
        at = layer(net, variance)
        squares.append(total)
        divisors.append(at.divisor)
        growths.append(at.growth * few)
        reads.append(width * at.variance / net.s2)
        total, variance = net.s2 * at.output, at.variance
    signal = np.append(np.cumsum(np.log(growths[-2::-1]))[::-1], 0.0) / 2  # logarithms: a hundred layers may underflow
    weight = signal + np.log(reads[:-1]) / 2
    return Profile(np.exp(signal), np.exp(weight - weight[-1]), np.array(squares), np.array(divisors))


def few_examples(net: Net, batch_size: int | None) -> tuple[float, str]:
    """The factor of small_batch where it is asked for and known, and what is to be said about it."""
    if net.norm != "batch" or batch_size is None:
        return 1.0, ""
    if net.placement == "after":
        return 1.0, "For many examples in a mini-batch."
    if batch_size < 4:
        return inf, "In mini-batches of 2 or 3 the mean growth is infinite."
    return small_batch(net.activation, batch_size), f"For mini-batches of {batch_size}."


def small_batch(activation: str, K: int) -> float:
    """Factor on the growth of batch norm before the activation from having K examples instead of very many.

    Over the mini-batch the normalized a_hat of a unit is uniform on the sphere of radius sqrt(K) among the vectors that
    sum to 0, and independent of sigma2, which is v chi2(K-1)/K. With f = h'(a_hat), R the projection that batch norm's
    backward pass applies (off 1 and a_hat), P that off 1, and i, j two different examples,

        growth = K E[tr(R f P f)] / ((K-1)(K-3) (E[h_i^2] - E[h_i h_j])),

    which for the linear network is (K-2)/(K-3) (Yang et al. 2019, whose sums over Gegenbauer polynomials this integral
    replaces). At K of 2 or 3 the mean of 1/sigma2 is infinite.
    """
    if K < 4:
        return inf
    h, slope = CURVES[activation]
    y_i, y_j, weight = sphere_pairs(K)
    h_i, h_j, f_i, f_j = h(y_i), h(y_j), slope(y_i), slope(y_j)

    def mean(x: np.ndarray) -> float:
        return float(weight @ x)

    f2, fy2 = mean(f_i**2), mean((f_i * y_i) ** 2)
    ff, fyfy = mean(f_i * f_j), mean(f_i * y_i * f_j * y_j)
    trace = (K - 2) * f2 - fy2 + (f2 + fy2 + (K - 1) * (ff + fyfy)) / K
    m = moments(activation, 1.0)
    many = m.slope_square / m.variance
    return K * trace / ((K - 1) * (K - 3) * mean(h_i**2 - h_i * h_j)) / many
