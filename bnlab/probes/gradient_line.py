"""The loss along the gradient: is the gradient here still good a step further?

On one mini-batch, at step lengths of 1/2 to 4 times the learning rate along the negative gradient: the loss, and the
gradient there. Its l2 distance from the gradient at the start is the *gradient predictiveness*; the largest ratio of
that distance to the distance walked the *effective smoothness* (beta-smoothness of the loss in the direction that is
taken). Batch norm is in training mode at every point. Source: Santurkar et al. 2018, sec. 3.2 and fig. 4.

Not the band over several trainings with several learning rates, which is another thing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..registry import Late
from .weights import inner

if TYPE_CHECKING:
    from ..train import Group

torch = Late("torch")

LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # in learning rates


def look(group: Group) -> dict[str, np.ndarray]:
    """`length` and, at each, `loss` [S, 1 + n] (the first at the start itself), `change` [S, n] the l2 distance of the
    gradients, `smoothness` [S] the greatest change per distance; `gradient` [S] the norm at the start."""
    stack = group.stack
    x, y = group.mini_batch(stack.t)
    stack.gradient(x, y)
    start, g = stack.parameters.clone(), stack.gradients.clone()
    direction = g * (stack.rate != 0)  # what is held fixed does not move
    norm = inner(stack, direction, direction).sqrt()
    losses, changes, slopes = [stack.loss.clone()], [], []
    for length in LENGTHS:
        stack.parameters.copy_(start).addcmul_(stack.rate, direction, value=-length)
        stack.gradient(x, y)
        apart = (stack.gradients - g) * (stack.rate != 0)
        change = inner(stack, apart, apart).sqrt()
        walked = start - stack.parameters
        losses.append(stack.loss.clone())
        changes.append(change)
        slopes.append(change / inner(stack, walked, walked).sqrt())
    S = stack.S
    return {
        "length": np.tile((0.0, *LENGTHS), (S, 1)),
        "loss": torch.stack(losses, 1).double().numpy(),
        "change": torch.stack(changes, 1).numpy(),
        "smoothness": torch.stack(slopes, 1).amax(1).numpy(),
        "gradient": norm.numpy(),
    }
