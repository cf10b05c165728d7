"""The laws of theory.py layer by layer: what one network of given depth shows on the way to the limit."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from typing import NamedTuple

import numpy as np

from .theory import FALLING, LOST, TINY, Layer, Net, few_examples, growth, layer, weight_scale


class Profile(NamedTuple):
    """What is predicted for layers 1..L of one network at initialization, arrays [L]; product_norm [L - 1]."""

    signal_norm: np.ndarray  # ||dE/da||, as a multiple of layer L's
    weight_norm: np.ndarray  # ||dE/dW||, as a multiple of layer L's
    forward_variance: np.ndarray  # of a, over examples and units
    product_norm: np.ndarray  # root mean square singular value of J_L ... J_{l+1}, l = 1..L-1
    lost_at_depth: float  # layers after which layer 1's signal is 1e-6 of the top's, if more follow; infinity if never


BEYOND = 100  # layers more than a network has that are computed in search of where the signal is lost


def profile(
    activation: str,
    init: str,
    gain: float = 1.0,
    norm: str = "none",
    placement: str = "before",
    batch_size: int | None = None,
    delta: float = 1e-5,
    noise: tuple[float, float] = (0.0, 0.0),
    *,
    depth: int,
    width: int,
    n_in: int,
    sizes: Sequence[float] = (1.0,),
    common: float = 0.0,
) -> Profile:
    """The same law layer by layer, from given inputs, on the way to its limit.

    Where the limit is far (tanh at s2 = 1 takes hundreds of layers) this is what a network of 20 layers shows. `sizes`
    are the mean squares over the features of some examples, or quantiles of them; `common` is that of the examples'
    mean, which batch norm takes out. Batch norm mixes the examples: there their mean stands for all. The loss is
    supposed to pull at all equally.
    """
    net = Net(activation, norm, placement, weight_scale(init, gain, width, width), delta, noise)
    size = np.array([np.mean(sizes)] if norm == "batch" else sizes, dtype=float)
    first = weight_scale(init, gain, n_in, width)
    common = common if norm == "batch" else 0.0
    square, variance, around = first * size, first * (size - common), first * common
    few = few_examples(net, batch_size)
    taken_out = common if placement == "before" else 0.0
    layers, squares = [], []
    reads = [n_in * few.inputs * (size - taken_out)]  # squared norms of what each layer's weights multiply
    for _ in range(depth):
        layers.append(layer(net, variance, around))
        squares.append(square.mean())
        square, variance, around = few.square * layers[-1].square, layers[-1].variance, 0.0
        reads.append(width * few.variance * variance / net.s2)  # few.growth holds what few.variance does to the norm
    signal, weight = np.empty(depth), np.empty(depth)
    pull, scale = np.ones_like(size), 0.0  # squared signal of each example, and the logarithm of what was divided out
    for l in reversed(range(depth)):
        pull = pull * layers[l].growth
        scale += log(max(pull.mean(), TINY))
        pull = pull / max(pull.mean(), TINY)
        signal[l], weight[l] = scale, scale + log((pull * reads[l]).mean())
    corrections = np.append(np.arange(1, depth)[::-1] * log(few.growth), 0)
    with np.errstate(over="ignore"):  # a hundred layers may well reach infinity
        product = np.exp((signal + corrections + log(few.growth * few.top))[1:] / 2)  # layer L's own factor is in it
        signal, weight = (np.exp((x - x[-1] + corrections) / 2) for x in (signal, weight))
    limit = growth(activation, init, gain, norm, placement, batch_size, delta, noise).signal_squared
    lost = lost_at(net, layers, variance, few.growth, limit)
    return Profile(signal, weight, np.array(squares), product, lost)


def lost_at(net: Net, layers: list[Layer], variance: np.ndarray, few: float, limit: float) -> float:
    """After how many of these layers, and of those that would follow, layer 1's signal is LOST of the top's.

    A deeper network has the same lowest layers, so factors are multiplied from the lowest up: BEYOND more layers as
    they come, or until they are those of the limit, then the limit's, where that is below FALLING."""
    if not few < inf:
        return inf
    passed, before = np.zeros_like(variance), 0.0
    goal, falls = 2 * log(LOST), limit < FALLING**2
    for l in range(len(layers) + BEYOND):
        if l >= len(layers) and not falls:
            return inf
        at = layers[l] if l < len(layers) else layer(net, variance)
        variance = variance if l < len(layers) else at.variance
        step = np.log(np.maximum(at.growth * few, TINY))
        passed = passed + step
        now = float(passed.max() + log(np.exp(passed - passed.max()).mean()))
        if now < goal:
            return l + (goal - before) / (now - before)
        before = now
        if l >= len(layers) and abs(float(step.mean()) - log(limit)) < 1e-4 * abs(log(limit)):
            break
    return l + 1 + (goal - before) / log(limit) if falls else inf
