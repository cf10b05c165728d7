"""A two-dimensional slice of the loss around the weights, along random directions normalized unit by unit.

Each direction is Gaussian noise in which every unit's incoming weights are scaled to the norm of the unit's own (filter
normalization), so that networks whose scale does not matter can be compared; biases, gamma and beta stay. The loss is
that of one fixed mini-batch in training mode: batch norm's statistics are taken anew at every point.
Source: Li et al. 2018, sec. 4. Or along the path of the training: the two principal directions of given snapshots.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from ..record import evenly
from ..registry import LazyModule
from ..train import scheduled
from .weights import inner, spread

if TYPE_CHECKING:
    from torch import Tensor

    from ..experiment import Experiment
    from ..group import Group
    from . import Seen

torch = LazyModule("torch")

REACH = 1.0  # of the weights' own norm
WAYPOINTS = 32  # snapshots that make a path: inner products of all pairs of them are taken


def look(group: Group, points: int) -> dict[str, np.ndarray]:
    """`loss` [S, points, points] at `at` [S, points] times two directions; the middle is where the weights are."""
    stack = group.stack
    start = stack.parameters.clone()
    directions = [unit_normalized(group, which) for which in range(2)]
    at = np.linspace(-REACH, REACH, points)
    return {"at": np.tile(at, (stack.S, 1)), "loss": grid(group, start, directions, at, at)}


def look_along_path(group: Group, seen: Seen, points: int) -> Generator[None, None, dict[str, np.ndarray]]:
    """The same in the plane through these weights that holds most of the path of the recorded snapshots (PCA): of
    at most WAYPOINTS of those taken with the scores and of these weights, so that the path is the same wherever the
    training was paused.

    `across`, `up` [S, points] are distances; `path` [S, n, 2] the snapshots in the plane, NaN after a divergence, and
    `step` [S, n] when they were taken; `share` [S, 2] how much of the path's variance each direction holds. Raises
    ValueError for a single snapshot.
    """
    stack, now = group.stack, group.stack.t
    steps = waypoints(group.experiment, seen.snapshots, now)
    if len(steps) < 2:
        raise ValueError("there is one snapshot so far; a path needs two. Train on, or choose random directions.")
    start, offsets = stack.parameters.clone(), []
    for t in steps:
        yield
        stack.restore(t, seen.vector(t))
        offsets.append(stack.parameters - start)
    there = torch.stack([inner(stack, o, o) for o in offsets], 1).isfinite().double()  # [S, n], 0 where it diverged
    for offset in offsets:
        offset.nan_to_num_(0, 0, 0)
    gram = []
    for a in offsets:
        yield
        gram.append(torch.stack([inner(stack, a, b) for b in offsets]))
    alike = there / there.sum(1, keepdim=True).clamp_min(1)
    center = torch.diag_embed(there) - there[:, :, None] * alike[:, None]
    values, vectors = torch.linalg.eigh(center @ torch.stack(gram).permute(2, 0, 1) @ center)  # [S, n], ascending
    directions = []
    for k in (-1, -2):
        weights = (center @ vectors[:, :, k].unsqueeze(2))[:, :, 0]  # [S, n]
        direction = sum(spread(stack, weights[:, i]) * offset for i, offset in enumerate(offsets))
        length = inner(stack, direction, direction).sqrt()
        for before in directions:
            overlap = inner(stack, direction, before)
            direction = direction - spread(stack, overlap) * before
        directions.append(direction * spread(stack, 1 / length.clamp_min(1e-12)))
    path = torch.stack([torch.stack([inner(stack, o, d) for d in directions], 1) for o in offsets], 1)  # [S, n, 2]
    low, high = path.amin(1).numpy(), path.amax(1).numpy()
    path = torch.where(there[:, :, None] > 0, path, torch.nan)
    margin = 0.25 * np.maximum(high - low, 1e-6)
    axes = [np.linspace((low - margin)[:, k], (high + margin)[:, k], points).T for k in range(2)]  # [S, points]
    stack.t = now
    loss = grid(group, start, directions, *axes)
    total = values.clamp_min(0).sum(1).clamp_min(1e-30)
    share = torch.stack([values[:, -1], values[:, -2]], 1) / total[:, None]
    found = {"across": axes[0], "up": axes[1], "loss": loss, "path": path.numpy(), "share": share.numpy()}
    return found | {"step": np.tile(steps, (stack.S, 1))}


def waypoints(experiment: Experiment, snapshots: list[int], now: int) -> list[int]:
    """The steps of the snapshots that make the path at a step, evenly chosen, the first and the newest among them."""
    steps = scheduled(experiment, snapshots)
    return sorted({*(steps[i] for i in evenly(len(steps), WAYPOINTS)), now})


def unit_normalized(group: Group, which: int) -> Tensor:
    """A random direction for all weights whose every unit has the norm of the unit's own weights, [parameters]."""
    stack = group.stack
    direction = torch.zeros_like(stack.parameters)
    for number, name in enumerate(("weight_in", "weight", "readout")):
        own, view = stack.p[name], stack.views(direction)[name]
        for slot, network in enumerate(stack.networks):  # the arms of a seed look along the same noise
            shape = own.select(-3, slot).shape
            noise = np.random.default_rng([network.seed, 3, which, number]).standard_normal(tuple(shape))
            view.select(-3, slot).copy_(torch.from_numpy(noise))
        view.mul_(own.norm(dim=-2, keepdim=True) / view.norm(dim=-2, keepdim=True).clamp_min(1e-12))
    return direction


def grid(group: Group, start: Tensor, directions: list[Tensor], across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Losses [S, up, across] of the next mini-batch at start + across * first + up * second; axes [points] or [S,
    points]."""
    stack = group.stack
    x, y = group.mini_batch(stack.t)
    across, up = (torch.from_numpy(np.broadcast_to(axis, (stack.S, axis.shape[-1])).copy()) for axis in (across, up))
    losses = np.empty((stack.S, up.shape[1], across.shape[1]))
    for i in range(up.shape[1]):
        row = start + spread(stack, up[:, i]) * directions[1]
        for j in range(across.shape[1]):
            torch.addcmul(row, spread(stack, across[:, j]), directions[0], out=stack.parameters)
            losses[:, i, j] = stack.criterion(stack.forward(x), y)[0].double().numpy()
    stack.parameters.copy_(start)
    return losses
