"""Averages of the activations over what random networks feed them: Gaussian numbers, and pairs on a sphere.

In numpy, written out once more beside activations.py: the theory is drawn by a process that never loads torch, and
two independent spellings check each other in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from math import acos, erf, pi, sqrt
from typing import NamedTuple

import numpy as np

from .activations import LEAK, SELU_ALPHA, SELU_SCALE

Curve = Callable[[np.ndarray], np.ndarray]


def sigmoid(u: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(u / 2)


def normal_density(u: np.ndarray) -> np.ndarray:
    return np.exp(-np.square(u) / 2) / sqrt(2 * pi)


def normal_distribution(u: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.vectorize(erf, otypes=[float])(u / sqrt(2))


def kinked(below: Curve, above: float = 1.0) -> Curve:
    """above * u for u > 0, and below(u) for u < 0, which never sees a positive number."""
    return lambda u: np.where(u > 0, above * u, below(np.minimum(u, 0)))


def stepped(below: Curve, above: float = 1.0) -> Curve:
    return lambda u: np.where(u > 0, above, below(np.minimum(u, 0)))


CURVES: dict[str, tuple[Curve, Curve]] = {  # h and h'
    "linear": (lambda u: u, np.ones_like),
    "sigmoid": (sigmoid, lambda u: sigmoid(u) * sigmoid(-u)),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "relu": (kinked(np.zeros_like), stepped(np.zeros_like)),
    "leaky_relu": (kinked(lambda u: LEAK * u), stepped(lambda u: np.full_like(u, LEAK))),
    "elu": (kinked(np.expm1), stepped(np.exp)),
    "selu": (
        kinked(lambda u: SELU_SCALE * SELU_ALPHA * np.expm1(u), SELU_SCALE),
        stepped(lambda u: SELU_SCALE * SELU_ALPHA * np.exp(u), SELU_SCALE),
    ),
    "gelu": (
        lambda u: u * normal_distribution(u),
        lambda u: normal_distribution(u) + u * normal_density(u),
    ),
    "silu": (lambda u: u * sigmoid(u), lambda u: sigmoid(u) * (1 + u * sigmoid(-u))),
}


# Panels that shrink towards 0 from both sides: exact across a kink at 0 and for a transition of any width there.
EDGES = np.concatenate([[0.0], 12 * 2.0 ** np.arange(-26, 1)])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)
HALF = (EDGES[:-1, None] + np.diff(EDGES)[:, None] * (NODES + 1) / 2).ravel()
HALF_WEIGHT = (np.diff(EDGES)[:, None] * WEIGHTS / 2).ravel() * normal_density(HALF)
Z, Z_WEIGHT = np.concatenate([-HALF, HALF]), np.concatenate([HALF_WEIGHT, HALF_WEIGHT])


class Moments(NamedTuple):
    """Of u ~ N(0, q), for each q: E[h(u)], E[h(u)^2] and E[h'(u)^2]."""

    mean: np.ndarray
    square: np.ndarray
    slope_square: np.ndarray


def moments(activation: str, q: np.ndarray | float, shift: np.ndarray | float = 0.0) -> Moments:
    """The Gaussian integrals of an activation by piecewise Gauss-Legendre quadrature; shapes are those of q.

    With a shift u ~ N(shift, q): good to about 1e-3 then, as a kink no longer stands where panels meet."""
    h, slope = CURVES[activation]
    u = np.sqrt(np.asarray(q))[..., None] * Z + np.asarray(shift)[..., None]
    z = h(u)
    return Moments(z @ Z_WEIGHT, z**2 @ Z_WEIGHT, slope(u) ** 2 @ Z_WEIGHT)


NODES_MANY, WEIGHTS_MANY = np.polynomial.legendre.leggauss(40)


def sphere_pairs(K: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quadrature nodes (y_i, y_j) and weights for two entries of a vector that is uniform on the sphere of radius
    sqrt(K) among those whose entries sum to 0: a unit of a mini-batch behind its norm (theory.small_batch).

    Both are sqrt(K-1) times a projection of a uniform unit vector in K-1 dimensions, on directions at the angle
    arccos(-1/(K-1)). In polar coordinates of their plane, with radius sin(t), t has density sin(t) cos(t)^(K-4), and
    kinks at 0 lie on four rays.
    """
    if K == 2:
        return np.array([1.0, -1.0]), np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    end = min(pi / 2, 12 / sqrt(max(K - 3, 1)))
    t = end * (NODES_MANY + 1) / 2
    radial = WEIGHTS_MANY * np.sin(t) * np.cos(t) ** (K - 4)
    if K == 3:  # the plane is all there is
        t, radial = np.array([pi / 2]), np.ones(1)
    between = acos(-1 / (K - 1))
    rays = np.sort(np.array([pi / 2, 3 * pi / 2, between + pi / 2, between - pi / 2]))
    rays = np.append(rays, rays[0] + 2 * pi)
    angle = (rays[:-1, None] + np.diff(rays)[:, None] * (NODES_MANY + 1) / 2).ravel()
    angular = (np.diff(rays)[:, None] * WEIGHTS_MANY).ravel()
    weight = np.outer(radial / radial.sum(), angular / angular.sum()).ravel()
    radius = sqrt(K - 1) * np.sin(t)
    return np.outer(radius, np.cos(angle)).ravel(), np.outer(radius, np.cos(angle - between)).ravel(), weight
