"""How large the initial weights are drawn. Biases start at 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .registry import Registry


class Init(NamedTuple):
    """`weights(normal)` turns independent standard normal draws [fan_in, fan_out] into weights of that shape."""

    label: str
    weights: Callable[[np.ndarray], np.ndarray]


def orthogonal(normal: np.ndarray) -> np.ndarray:
    """The orthogonal factor of the draws, uniform over the orthogonal matrices (Saxe et al. 2014; Mezzadri 2007)."""
    tall = normal if normal.shape[0] >= normal.shape[1] else normal.T
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return q if normal.shape[0] >= normal.shape[1] else q.T


INITS: Registry[Init] = Registry("init")
INITS["he"] = Init("He: variance 2/fan_in", lambda n: n * np.sqrt(2 / n.shape[0]))
INITS["xavier"] = Init("Xavier: variance 2/(fan_in + fan_out)", lambda n: n * np.sqrt(2 / (n.shape[0] + n.shape[1])))
INITS["lecun"] = Init("LeCun: variance 1/fan_in", lambda n: n * np.sqrt(1 / n.shape[0]))
INITS["orthogonal"] = Init("Orthogonal", orthogonal)


def initial_weights(init: str, gain: float, seed: int, layer: int, fan_in: int, fan_out: int) -> np.ndarray:
    """W [fan_in, fan_out] in float64, from the seed and the layer's number alone: the same for every arm of a seed.

    Readout: layer = depth + 1. Sources: He et al. 2015; Glorot and Bengio 2010; LeCun et al. 1998; Saxe et al. 2014.
    """
    normal = np.random.default_rng([seed, 6, layer]).standard_normal((fan_in, fan_out))
    return gain * INITS[init].weights(normal)
