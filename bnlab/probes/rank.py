"""How many dimensions the representations keep on their way up.

The effective rank of a layer's outputs over the mini-batch is the exponential of the entropy of its singular values,
each over their sum (Roy and Vetterli 2007): d for a sphere, 1 where all examples lie on a line. The mean cosine is
that of all pairs of examples. Without batch norm deep random networks collapse towards rank 1 and cosine 1; batch
norm keeps examples apart (Daneshmand et al. 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..registry import LazyModule
from .weights import spectrum

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group

torch = LazyModule("torch")


def look(group: Group) -> dict[str, np.ndarray]:
    """`rank` [S, L], effective; `cosine` [S, L], mean over pairs of examples of the mini-batch; NaN where
    fewer than two have outputs other than 0."""
    stack = group.stack
    stack.forward(group.mini_batch(stack.t)[0])
    found = [(effective_rank(out), mean_cosine(out)) for out in stack.out.double()]
    rank, cosine = (torch.stack(q, 1).numpy() for q in zip(*found, strict=True))
    return {"rank": rank, "cosine": cosine}


def effective_rank(x: Tensor) -> Tensor:
    """Of x [S, K, d]: exp of the entropy of the singular values' shares, [S]; 0 for an x that is 0, NaN for one that is
    not finite."""
    values = spectrum(torch.linalg.svdvals, x)
    total = values.sum(1)
    share = values / total[:, None]
    return torch.where(total == 0, 0.0, torch.special.entr(share).sum(1).exp())


def mean_cosine(x: Tensor) -> Tensor:
    """Of the rows of x [S, K, d], over all pairs of different ones, [S]. Rows that are 0 have no direction and are in
    no pair; NaN without a pair."""
    length = x.norm(dim=2, keepdim=True)
    there = length != 0
    u, n = torch.where(there, x / length, 0.0), there.sum((1, 2))
    return torch.where(n > 1, (u.sum(1).square().sum(1) - n) / (n * (n - 1)), torch.nan)
