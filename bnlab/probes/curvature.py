"""The largest eigenvalue of the Hessian of the mini-batch loss, by Lanczos with Hessian-vector products.

H v is the central difference of the written-out gradient, (g(w + h v) - g(w - h v)) / 2h, in float64, on a network of
its own: exact to about 1e-6 of its size. Batch norm is in training mode. Gradient descent with learning rate eta on a
quadratic is stable along this direction while the eigenvalue is below 2/eta (Cohen et al. 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..optimizers import MOMENTUM
from ..registry import Late
from .weights import inner, spectrum, spread

if TYPE_CHECKING:
    from torch import Tensor

    from ..train import Group

torch = Late("torch")

STEP = 1e-4  # h, for directions of norm 1
LIMITS = {"sgd": 2.0, "momentum": 2 * (1 + MOMENTUM), "adam": np.nan}  # of stability, times the learning rate


def look(group: Group, iterations: int) -> dict[str, np.ndarray]:
    """`top` [S], the largest eigenvalue, and `limit` [S], what gradient descent on a quadratic is stable below.

    2/eta; with momentum m 2 (1 + m)/eta; NaN for Adam, whose steps are scaled parameter by parameter. `top` is a lower
    bound, and NaN for a network that is not finite.
    """
    double = type(group)(group.experiment, group.index, "cpu", torch.float64)
    stack = double.stack
    stack.parameters.copy_(group.stack.parameters)
    stack.moving.copy_(group.stack.moving)
    stack.t = group.stack.t
    x, y = double.mini_batch(stack.t)
    start, free = stack.parameters.clone(), (stack.rate != 0).double()
    for view in (v for k, v in stack.views(free).items() if k not in ("gamma", "beta")):
        view.fill_(1)  # the learning rate of weights is never 0

    def hessian(v: Tensor) -> Tensor:
        ends = []
        for sign in (1, -1):
            stack.parameters.copy_(start).add_(v, alpha=sign * STEP)
            stack.gradient(x, y)
            ends.append(stack.gradients.clone())
        return (ends[0] - ends[1]).div_(2 * STEP).mul_(free)

    v = normalized(stack, noise(double) * free)
    basis, alphas, betas = [v], [], []
    for _ in range(iterations):
        w = hessian(basis[-1])
        alphas.append(inner(stack, w, basis[-1]))
        for _ in range(2):  # against all before, twice: without it the eigenvalues repeat themselves
            for b in basis:
                w = w - spread(stack, inner(stack, w, b)) * b
        length = inner(stack, w, w).sqrt()
        betas.append(length)
        basis.append(w * spread(stack, torch.where(length > 1e-10, 1 / length.clamp_min(1e-10), 0.0)))
    tridiagonal = torch.diag_embed(torch.stack(alphas, 1))
    for i, beta in enumerate(betas[:-1]):
        tridiagonal[:, i, i + 1] = tridiagonal[:, i + 1, i] = beta
    top = spectrum(torch.linalg.eigvalsh, tridiagonal)[:, -1]
    limit = LIMITS[stack.shared.optimizer] / group.stack.learning_rate.flatten().double().numpy()
    return {"top": top.numpy(), "limit": limit}


def noise(group: Group) -> Tensor:
    """A random direction, the same for the arms of a seed where they have the same parameters."""
    stack = group.stack
    direction = torch.zeros_like(stack.parameters)
    for number, view in enumerate(stack.views(direction).values()):
        first = stack.S - view.shape[-3]
        for i in range(view.shape[-3]):
            drawn = np.random.default_rng([stack.networks[first + i].seed, 4, number])
            view.select(-3, i).copy_(torch.from_numpy(drawn.standard_normal(tuple(view.select(-3, i).shape))))
    return direction


def normalized(stack, v: Tensor) -> Tensor:
    return v * spread(stack, 1 / inner(stack, v, v).sqrt())
