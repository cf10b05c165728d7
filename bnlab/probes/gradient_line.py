"""The loss along the gradient: is the gradient here still good a step further?

On one mini-batch, at step lengths of 1/2 to 4 times the learning rate along the negative gradient: the loss, and the
gradient there. Its l2 distance from the gradient at the start is the *gradient predictiveness*; the largest ratio of
that distance to the distance walked the *effective smoothness* (beta-smoothness of the loss in the direction that is
taken). Batch norm is in training mode at every point. Source: Santurkar et al. 2018, sec. 3.2 and fig. 4.

Momentum, Adam and weight decay take other steps than the gradient's; so beside it the same along the next update
itself, 1/2 to 4 times as long, which compares networks with different optimizers. For plain SGD both are the same.

Not the band over several trainings with several learning rates, which is another thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..registry import LazyModule
from .weights import norm

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group
    from ..stack import Stack

torch = LazyModule("torch")

LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # in learning rates


def look(group: Group) -> dict[str, np.ndarray]:
    """`length` and, at each, `loss` [S, 1 + n] (the first at the start itself), `change` [S, n] the l2 distance of the
    gradients, `smoothness` [S] the greatest change per distance; `gradient` [S] the norm at the start."""
    return along(group, lambda stack: (stack.gradients, 1.0))


def look_along_update(group: Group) -> dict[str, np.ndarray]:
    """The same along the next update: length 1 is all of it."""
    return along(group, type(group.stack).direction)


def along(group: Group, direction: Callable[[Stack], tuple[Tensor, float]]) -> dict[str, np.ndarray]:
    """What is seen at w - length learning_rate c d, with the d and c that `direction` gives after gradient()."""
    stack = group.stack
    x, y = group.mini_batch(stack.t)
    stack.gradient(x, y)
    start, g, moves = stack.parameters.clone(), stack.gradients.clone(), stack.rate != 0  # what is fixed does not move
    losses, changes, slopes = [stack.loss.clone()], [], []
    d, c = direction(stack)
    d = d * stack.rate
    for length in LENGTHS:
        torch.add(start, d, alpha=-length * c, out=stack.parameters)
        stack.gradient(x, y)
        apart = (stack.gradients - g) * moves
        change = norm(stack, apart)
        walked = start - stack.parameters
        losses.append(stack.loss.clone())
        changes.append(change)
        slopes.append(change / norm(stack, walked))
    g.mul_(moves)
    return {
        "length": np.tile((0.0, *LENGTHS), (stack.S, 1)),
        "loss": torch.stack(losses, 1).double().numpy(),
        "change": torch.stack(changes, 1).numpy(),
        "smoothness": torch.stack(slopes, 1).amax(1).numpy(),
        "gradient": norm(stack, g).numpy(),
    }
