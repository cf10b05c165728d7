"""Why moving averages are off: the training is repeated from a snapshot, the population measured at every step of it.

Between two scorings the population is not a straight line, and what the line misses would be booked on mini-batches.
So the last REPLAYED steps before update t are trained again from a snapshot, to the last bit, on the copy; older
steps, which weigh alpha^REPLAYED, are straight lines between the scorings. What part of the gap harms is answered by
scoring the network without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..moving import ALPHAS, START, WITHOUT_WARNING, averaged, between, complete, gap, rms
from ..registry import LazyModule
from .inference import scored

if TYPE_CHECKING:
    from ..group import Group
    from . import Seen

torch = LazyModule("torch")

REPLAYED = 200
FARTHEST = 4 * REPLAYED  # steps before t from which to begin, where there is no nearer snapshot
FORGOTTEN = 1e-3  # of the moving averages: what weighs less need not be known
AT_ONCE = 8  # networks with batch norm of which every step is measured; of n times as many every n-th
PARTS = ("total", "warm_up", "lag", "mini_batches", "corrected")  # corrected: the total without the start
WITHOUT = ("nothing", "warm_up", "lag", "mini_batches", "all")


def look(group: Group, seen: Seen) -> dict[str, np.ndarray]:
    """`loss` [S, 5]: test loss with the moving averages, less each part of WITHOUT, and with the population; of a part
    NaN where steps weigh more than FORGOTTEN before which no population is known.
    `parts` [S, 2, L, alphas, 5]: root mean square over the units of PARTS, of means in sigma_pop and of variances
    relative to sigma2_pop, for ALPHAS; NaN where not every step's batch statistics are kept, or averages were frozen.
    `replayed` [S]: the last steps, over which the population was measured anew; there may be more that were trained
    again. NaN for networks without batch norm, or whose averages are frozen. Raises ValueError where the nearest
    snapshot is too long ago.
    """
    stack, t = group.stack, group.stack.t
    loss = np.full((stack.S, len(WITHOUT)), np.nan)
    parts = np.full((stack.S, 2, stack.L, len(ALPHAS), len(PARTS)), np.nan)
    told = {"loss": loss, "parts": parts, "replayed": np.full(stack.S, np.nan)}
    if stack.frozen or not stack.B:
        return told
    first, steps, *population = path(group, seen)
    recorded = seen.steps < t
    whole = t > 0 and np.count_nonzero(recorded) == t and complete(seen.steps[recorded])
    for slot, _, b in group.one_by_one:
        if b is None:
            continue
        told["replayed"][slot] = t - first
        mine = [values[:, :, b].astype(float) for values in population]  # [n, L, d]
        weights = seen.weights(b, t)
        if steps[0] > 0 and not weights[: 1 + steps[0]].sum() < FORGOTTEN:
            weights[:] = np.nan  # what was before is not known, as of a fork whose parent was deleted
        loss[slot] = losses(group, slot, b, steps, mine, weights)
        if whole:
            unit = np.sqrt(mine[1][-1]), mine[1][-1]
            of = zip((seen.batch_mean, seen.batch_var), mine, START.values(), strict=True)
            for i, (new, values, start) in enumerate(of):
                for l in range(stack.L):
                    exact = between(steps, values[:, l], t + 1)
                    parts[slot, i, l] = sizes(new[recorded][:, l, b], exact, start, unit[i][l])
    return told


@WITHOUT_WARNING
def losses(
    group: Group, slot: int, b: int, steps: np.ndarray, population: list[np.ndarray], weights: np.ndarray
) -> list[float]:
    """Test loss of one network with its moving averages less each part of WITHOUT; population [n, L, d] at `steps`, and
    what the start and each step weigh, [1 + t]."""
    stack, old, came = group.stack, weights[0], weights[1:]
    left: dict[str, list[np.ndarray]] = {name: [] for name in WITHOUT}
    for moving, values, start in zip((stack.moving_mean, stack.moving_var), population, START.values(), strict=True):
        m, p = moving[:, b, 0].double().numpy(), values[-1]
        warm_up = old * (start - p)
        lag = averaged(steps, values, came) - (1 - old) * p
        for name, part in zip(WITHOUT, (0 * p, warm_up, lag, m - p - warm_up - lag, m - p), strict=True):
            left[name].append(m - part)
    pairs = [[q.astype(np.float32)[:, None] for q in (mean, np.maximum(var, 0))] for mean, var in left.values()]
    return [float(scored(group, "test", *pair, only=slot)[0][slot]) for pair in pairs]


@WITHOUT_WARNING
def sizes(new: np.ndarray, population: np.ndarray, start: float, unit: np.ndarray) -> np.ndarray:
    """PARTS for each of ALPHAS, [alphas, 5], root mean squares over the units that vary, in `unit`s."""
    told, vary = [], unit != 0
    for alpha in ALPHAS:
        all_parts = [*gap(new, population, alpha, start), gap(new, population, alpha, start, corrected=True).total]
        told.append([rms(part[vary] / unit[vary]) for part in all_parts])
        if np.isnan(told[-1][0]):  # no part of averages that are not known
            told[-1] = [np.nan] * len(PARTS)
    return np.array(told)


def path(group: Group, seen: Seen) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """From which step on the population was measured anew; steps [n] up to this one, with the scorings before that, and
    population means and variances there [n, L, B, d]."""
    stack, t = group.stack, group.stack.t
    before = [s for s in seen.snapshots if t - FARTHEST <= s < t]
    start = max([s for s in before if s <= t - REPLAYED], default=min(before, default=t))
    if start == t > 0:
        few = f"{min(FARTHEST, t)} steps" if t > 1 else "step"
        raise ValueError(f"no snapshot of the weights is left here of the {few} before {t}, to train again from.")
    now = stack.snapshot()
    if start < t:
        stack.restore(start, seen.vector(start))
    every = -(-stack.B // AT_ONCE)
    first = max(start, t - REPLAYED)
    steps, found = [], []
    for s in range(start, t + 1):
        if s >= first and (s == t or (s - first) % every == 0):
            steps.append(s)
            found.append(measured(group))
        if s < t:
            group.step(s, False)
    stack.restore(t, now)
    old = seen.scored < steps[0]
    exact = zip(seen.population, zip(*found, strict=True), strict=True)
    return first, np.concatenate([seen.scored[old], steps]), *(np.concatenate([a[old], np.stack(b)]) for a, b in exact)


def measured(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Population means and variances [L, B, d] of the weights as they are; in float32, as a gap is far larger."""
    x, found = group.splits["train"][0], []
    for _, networks, b in group.one_by_one:
        if b is not None:
            _, used = networks.forward(x[None])
            found.append([torch.stack(q)[:, :, 0] for q in used])
    return tuple(torch.cat(q, 1).cpu().numpy() for q in zip(*found, strict=True))
