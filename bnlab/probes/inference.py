"""Inference loss with moving averages of another alpha: nothing is trained, only what was recorded is averaged anew.

The moving averages that training with this alpha would have had at each snapshot of the weights follow from the
recorded batch statistics (moving.py); the networks of the snapshot are then scored with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..mlp import Statistics
from ..moving import ALPHAS, START, complete, moving_average_at
from ..record import evenly
from ..registry import LazyModule

if TYPE_CHECKING:
    from ..group import Group
    from . import Seen

torch = LazyModule("torch")
MOST_SNAPSHOTS = 24  # scored at once, spread over the run


def averages(seen: Seen, alpha: float, steps: np.ndarray) -> list[np.ndarray]:
    """Moving means and variances [n, L, B, d] of alpha as training finds them at `steps`. Raises as whole() does."""
    whole(seen, int(steps[-1]))
    return [
        moving_average_at(new, alpha, start, steps)
        for new, start in zip((seen.batch_mean, seen.batch_var), START.values(), strict=True)
    ]


def whole(seen: Seen, most: int) -> None:
    """Raises ValueError where the budget has left only some of the first `most` steps: an average of them is off by far
    more than what is looked for."""
    used = seen.steps[seen.steps < most]
    if len(used) < most or not complete(used):
        raise ValueError(
            f"only {len(used):,} of {most:,} steps of the unit statistics are kept in this run; another alpha needs "
            "all. Train it again; if its recording budget was used up, use a larger one or fewer steps."
        )


def averages_of(group: Group, seen: Seen, alpha: float, steps: np.ndarray) -> list:
    """The same of a stack; empty where it has no batch norm and another one has. Raises ValueError where none has."""
    if group.stack.B:
        return averages(seen, alpha, steps)
    if all(s.norm != "batch" for s in group.experiment.arm_settings):
        raise ValueError("no arm of this run has batch norm, so it has no moving averages. Train one with batch norm.")
    return [[None] * len(steps)] * 2


def scored(
    group: Group, split: str, mean: np.ndarray, var: np.ndarray, only: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy [S] of the group over a split with these statistics [L, B, d]; NaN without batch norm. `only`:
    of one network, with its statistics alone."""
    loss, accuracy = np.full((2, group.stack.S), np.nan, np.float32)
    x, y = group.splits[split]
    for slot, networks, b in group.one_by_one:
        if b is None or only not in (None, slot):
            continue
        at = b if only is None else 0
        own = [q[:, at : at + 1, None] for q in (mean, var)]
        given = Statistics(*(torch.from_numpy(q).to(group.stack.dtype).unbind(0) for q in own))
        e, right, _ = group.stack.criterion(networks.forward(x[None], given)[0], y[None])
        loss[slot] = e.item()
        accuracy[slot] = np.nan if right is None else right.item()
    return loss, accuracy


def look(group: Group, seen: Seen, alpha: float) -> dict[str, np.ndarray]:
    """Test loss and accuracy [S, n] at n snapshots up to this step, at `step` [S, n], with alpha's moving averages."""
    there = np.array([t for t in seen.snapshots if t <= group.stack.t])
    picked = there[evenly(len(there), MOST_SNAPSHOTS)]
    found = []
    for t, mean, var in zip(picked, *averages_of(group, seen, alpha, picked), strict=True):
        group.stack.restore(int(t), seen.vector(int(t)))
        found.append(scored(group, "test", mean, var))
    loss, accuracy = (np.stack(q, 1) for q in zip(*found, strict=True))
    return {"step": np.tile(picked, (group.stack.S, 1)), "loss": loss, "accuracy": accuracy}


def look_at_all(group: Group, seen: Seen) -> dict[str, np.ndarray]:
    """Loss over train and test set at this step's weights, [S, n], with the moving averages of n values of `alpha`."""
    found: dict[str, list] = {"train": [], "test": []}
    for alpha in ALPHAS:
        (mean,), (var,) = averages_of(group, seen, alpha, np.array([group.stack.t]))
        for split in found:
            found[split].append(scored(group, split, mean, var)[0])
    told = {f"{split}_loss": np.stack(losses, 1) for split, losses in found.items()}
    return {"alpha": np.tile(ALPHAS, (group.stack.S, 1)), **told}
