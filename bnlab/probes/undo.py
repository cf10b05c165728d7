"""The reset that changes nothing and everything: gamma and beta undo a layer's normalization on the current mini-batch.

With gamma = sqrt(var + delta) and beta = mean the layer gives back what came in: on this mini-batch the network
computes the same as one without the norm there, and has the same loss. But its gradients differ: mean and variance
still depend on the weights below. So batch norm is not undone by its gamma and beta; what changes is the path of
learning. Where the statistics are frozen moving averages nothing depends on the weights below, and the gradients are
the same too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..normalization import FrozenNormalization, Normalization
from .single import with_batch
from .weights import weight_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group


def look(group: Group, layer: int) -> dict[str, np.ndarray]:
    """`loss_with`, `loss_without` [S], with the undone norm and without one; `gradient_with`, `gradient_without` [S,
    L], norms of dE/dW, and their `cosine` [S, L]. NaN without batch norm."""
    stack = group.stack
    S, L, l = stack.S, stack.L, min(layer, stack.L) - 1
    found = {name: np.full(S, np.nan) for name in ("loss_with", "loss_without")}
    found |= {name: np.full((S, L), np.nan) for name in ("gradient_with", "gradient_without", "cosine")}
    x, y = group.mini_batch(stack.t)
    for slot in range(stack.batch.start, stack.batch.stop):
        one = with_batch(group, slot, stack.K)
        inputs = one.x.copy_(x[slot : slot + 1]), y[slot : slot + 1]
        one.stack.gradient(*inputs)
        norm = one.stack.layers[l].norm
        mean, var = used(norm)
        one.stack.p["gamma"][l].copy_((var + one.stack.delta).sqrt())
        one.stack.p["beta"][l].copy_(mean)
        gradients = []
        for which in ("with", "without"):
            one.stack.gradient(*inputs)
            found[f"loss_{which}"][slot] = float(one.stack.loss)
            gradients.append([weight_gradient(one.stack, i)[0].double().clone() for i in range(L)])
            found[f"gradient_{which}"][slot] = [float(g.norm()) for g in gradients[-1]]
            one.stack.layers[l].norm = constant(norm)  # the same numbers, held fixed: no norm at all
        a, b = gradients
        found["cosine"][slot] = [float((p * q).sum() / (p.norm() * q.norm())) for p, q in zip(a, b, strict=True)]
    return found


def used(norm: Normalization) -> tuple[Tensor, Tensor]:
    """Mean and variance by which a layer normalizes: the mini-batch's, or the moving averages where it is frozen."""
    frozen = isinstance(norm, FrozenNormalization)
    return (norm.moving_mean, norm.moving_var) if frozen else (norm.norms[0].mean, norm.norms[0].var)


def constant(norm: Normalization) -> FrozenNormalization:
    """The same normalization with the statistics it used as constants, through which no gradient flows."""
    mean, var = (of.clone() for of in used(norm))
    how = norm.norms, norm.every, norm.share, norm.reads, norm.writes
    return FrozenNormalization(*how, moving_mean=mean, moving_var=var)
