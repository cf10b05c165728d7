"""The largest eigenvalue of the Hessian of the mini-batch loss, by Lanczos with exact Hessian-vector products.

H v is the derivative of <dE/dw, v>: autograd follows the loss twice, in float64. No differences are taken, which would
step across the kinks of a ReLU. Batch norm is in training mode, or has its moving averages where they are frozen; noisy
batch norm has the noise of the next update. Weight decay is no part of the loss.

Gradient descent with learning rate eta on a quadratic is stable along this direction while the eigenvalue is below
2/eta (Cohen et al. 2021); with weight decay lambda, whose lambda w is added to the gradient, below 2/eta - lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..mlp import Networks, Statistics
from ..optimizers import OPTIMIZERS
from ..registry import LazyModule
from .weights import spectrum

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group
    from ..settings import Settings

torch = LazyModule("torch")

NOISE = 0.1  # share of a random direction in the first one, which is the gradient's otherwise: it may lack the top's
KEPT = 40  # numbers of float64 autograd keeps for each unit and example, about
VECTORS = 14  # of all parameters, about, beside two an iteration: its own, and as much that is not given back
TOGETHER, MOST = 2**30, 2**32  # bytes of all that: for networks that are looked at together, and for one


def limit(settings: Settings) -> float:
    """What the eigenvalue has to be below for gradient descent on a quadratic to be stable: 2/eta, with momentum m
    2 (1 + m)/eta, less the weight decay; NaN for Adam, whose steps are scaled parameter by parameter."""
    return OPTIMIZERS[settings.optimizer].stable / settings.learning_rate - settings.weight_decay


def look(group: Group, iterations: int) -> Generator[None, None, dict[str, np.ndarray]]:
    """`top` [S], the largest eigenvalue, which Lanczos nears from below, and `limit` [S], what gradient descent on a
    quadratic is stable below. `top` is NaN for a network that is not finite. Raises ValueError for networks that would
    take more than MOST bytes."""
    stack = group.stack
    x, y = group.mini_batch(stack.t)
    x, y = x.double(), y.double() if y.is_floating_point() else y
    top = np.full(stack.S, np.nan)
    for slots in spans(group, iterations):
        product, first = hessian(group, slots, x[slots], y[slots])
        top[slots] = (yield from largest(product, first, iterations)).numpy()
    return {"top": top, "limit": np.array([limit(s) for s in stack.settings])}


def spans(group: Group, iterations: int) -> Iterator[slice]:
    """Adjacent networks of one norm and placement, as many as may be looked at together."""
    stack = group.stack
    parameters = stack.parameters.numel() // stack.S
    each = 8 * (KEPT * stack.L * stack.K * stack.d + parameters * (2 * iterations + VECTORS))
    if each > MOST:
        raise ValueError("the second derivatives need too much memory. Lower depth, width or batch_size.")
    n = max(1, TOGETHER // each)
    for slots in stack.kinds:
        for start in range(slots.start, slots.stop, n):
            yield slice(start, min(start + n, slots.stop))


def hessian(group: Group, slots: slice, x: Tensor, y: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """v -> H v of some adjacent networks of one norm and placement, [S, parameters], and the first v: mostly along the
    gradient. What is random in it is the same for the arms of a seed where they have the same parameters."""
    stack, settings = group.stack, group.stack.settings[slots]
    p, one, b = stack.p, settings[0], slice(slots.start - stack.batch.start, slots.stop - stack.batch.start)
    L = stack.L
    own = [p["weight_in"][slots], *p["weight"][:, slots], *p["bias"][:, slots], p["readout"][slots]]
    own += [p["readout_bias"][slots]]
    if one.norm != "none":
        own += [part for name in ("gamma", "beta") for part in p[name][:, stack.inner(slots)]]
    own = [part.to(torch.float64, copy=True).requires_grad_() for part in own]
    weight, bias, readout, scales = own[:L], own[L : 2 * L], own[2 * L : 2 * L + 2], own[2 * L + 2 :]
    frozen = stack.frozen and one.norm == "batch"
    averages = (q[:, b].double().unbind(0) for q in (stack.moving_mean, stack.moving_var))
    given = Statistics(*averages) if frozen else None
    with torch.enable_grad():
        gamma, beta = noisy(group, slots, scales[:L], scales[L:])
        of = (one.norm, one.placement, one.activation, weight, bias, gamma, beta, stack.delta[slots].double())
        outputs, _ = Networks(*of, *readout).forward(x, given)
        gradient = torch.autograd.grad(stack.criterion(outputs, y)[0].sum(), own, create_graph=True)
    learned = [s.rescale == "learned" for s in settings]
    free = [torch.tensor(learned if i > 2 * L + 1 else [True] * len(learned)) for i in range(len(own))]
    free = torch.cat([f.double()[:, None].expand(-1, part[0].numel()) for f, part in zip(free, own, strict=True)], 1)
    sizes = [part[0].numel() for part in own]

    def product(v: Tensor) -> Tensor:
        along = [q.reshape(part.shape) for q, part in zip(v.split(sizes, 1), own, strict=True)]
        with torch.enable_grad():
            found = torch.autograd.grad(gradient, own, along, retain_graph=True)
        return flat(found) * free

    seeds = [network.seed for network in stack.networks[slots]]
    drawn = np.stack([np.random.default_rng([seed, 4]).standard_normal(sum(sizes)) for seed in seeds])
    return product, normalized(flat(gradient) * free) + NOISE * normalized(torch.from_numpy(drawn) * free)


def noisy(group: Group, slots: slice, gamma: list[Tensor], beta: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What gamma and beta are together with the next update's noise: (gamma x + beta) scale + shift."""
    stack = group.stack
    if not gamma or not any(slot in stack.noise for slot in range(slots.start, slots.stop)):
        return gamma, beta
    scale, shift = torch.ones(2, stack.L, slots.stop - slots.start, 1, stack.d, dtype=torch.float64)
    shift.zero_()
    for slot, noise in stack.noise.items():
        if slots.start <= slot < slots.stop:
            noise.draw(stack.t)
            scale[:, slot - slots.start], shift[:, slot - slots.start] = noise.scale.double(), noise.shift.double()
    gamma = [g * s for g, s in zip(gamma, scale, strict=True)]
    return gamma, [torch.addcmul(t, b, s) for b, s, t in zip(beta, scale, shift, strict=True)]


def largest(product: Callable[[Tensor], Tensor], first: Tensor, iterations: int) -> Generator[None, None, Tensor]:
    """The largest eigenvalue [S] that Lanczos finds from `first` [S, n]; at most the true one."""
    basis, diagonal, beside = [normalized(first)], [], []
    for _ in range(iterations):
        yield
        w = product(basis[-1])
        diagonal.append((w * basis[-1]).sum(1))
        for _ in range(2):  # against all before, twice: without it the eigenvalues repeat themselves
            for b in basis:
                w = torch.addcmul(w, (w * b).sum(1, keepdim=True), b, value=-1)
        beside.append(w.norm(dim=1))
        basis.append(normalized(w))
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
    for i, length in enumerate(beside[:-1]):
        tridiagonal[:, i, i + 1] = tridiagonal[:, i + 1, i] = length
    return spectrum(torch.linalg.eigvalsh, tridiagonal)[:, -1]


def flat(parts: list[Tensor]) -> Tensor:
    """All parameters of each network as one vector, [S, n]."""
    return torch.cat([part.flatten(1) for part in parts], 1).detach()


def normalized(v: Tensor) -> Tensor:
    """v [S, n] at length 1; 0 where nothing is left of it."""
    length = v.norm(dim=1, keepdim=True)
    return v * torch.where(length > 1e-10, 1 / length.clamp_min(1e-10), 0.0)
