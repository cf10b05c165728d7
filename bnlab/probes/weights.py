"""Weights and their gradients: of a layer, and all of them as vectors, with inner products, norms and spectra."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

    from ..stack import Stack

torch = LazyModule("torch")


def weight_gradient(stack: Stack, l: int) -> Tensor:
    """dE/dW of layer l (0-based), a view [S, d_in, d]."""
    return stack.g["weight_in"] if l == 0 else stack.g["weight"][l - 1]


def inner(stack: Stack, a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of two vectors of all parameters, network by network, [S], in float64."""
    total = torch.zeros(stack.S, dtype=torch.float64)
    left, right = stack.views(a), stack.views(b)
    for name, one in left.items():
        product = (one.double() * right[name].double()).sum((-2, -1))
        product = product if product.dim() == 1 else product.sum(0)
        total[stack.S - len(product) :] += product  # gamma and beta belong to the slots with a norm, which are the last
    return total


def norm(stack: Stack, a: Tensor) -> Tensor:
    """Euclidean norm of a vector of all parameters, network by network, [S], summed in float64."""
    total = torch.zeros(stack.S, dtype=torch.float64)
    for part in stack.views(a).values():
        square = torch.linalg.vector_norm(part.flatten(-2), dim=-1, dtype=torch.float64).square()
        square = square if square.dim() == 1 else square.sum(0)
        total[stack.S - len(square) :] += square  # gamma and beta belong to the slots with a norm, which are the last
    return total.sqrt()


def spread(stack: Stack, values: Tensor) -> Tensor:
    """A vector of all parameters that holds each network's own number; values [S]."""
    out = torch.zeros_like(stack.parameters)
    for view in stack.views(out).values():
        n = view.shape[-3]
        view.copy_(values[stack.S - n :].to(view.dtype).view(n, 1, 1).expand(view.shape))
    return out


def spectrum(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """What torch.linalg.svdvals or eigvalsh finds in matrices [..., n, m]; NaN for a matrix that is not finite, where
    both would raise for all."""
    healthy = matrices.isfinite().all(-1).all(-1)[..., None]
    return torch.where(healthy, function(torch.where(healthy[..., None], matrices, 0.0)), torch.nan)
