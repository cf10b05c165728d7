"""The practitioner's population statistics, pooled over mini-batches, beside the exact ones (see population.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..mlp import Statistics
from ..population import of_mini_batches, population
from ..sampling import parts_of_at_least

if TYPE_CHECKING:
    from ..group import Group


def look(group: Group, batch_size: int) -> dict[str, np.ndarray]:
    """How far the practitioner's statistics with mini-batches of at least `batch_size` are from the population's.

    Per layer `mean_off` [S, L]: root mean square over units of the difference of means, in population standard
    deviations; `std_ratio` [S, L]: geometric mean over units of the ratio of standard deviations; and the test losses
    `loss_population` and `loss_mini_batches` [S] with either. NaN without batch norm.
    """
    S, L = group.stack.S, group.stack.L
    found = {"mean_off": np.full((S, L), np.nan), "std_ratio": np.full((S, L), np.nan)}
    found |= {name: np.full(S, np.nan) for name in ("loss_population", "loss_mini_batches")}
    x, _ = group.splits["train"]
    x_test, y_test = group.splits["test"]
    for slot, networks, b in group.one_by_one:
        if b is None:
            continue
        _, exact = population(networks, x[None])
        other = of_mini_batches(networks, x[None], parts_of_at_least(batch_size, len(x)))
        for l in range(L):
            scale = (exact.var[l] + networks.delta).sqrt()
            off = (other.mean[l] - exact.mean[l]) / scale
            ratio = (other.var[l] + networks.delta).sqrt() / scale
            found["mean_off"][slot, l] = off.square().mean((1, 2)).sqrt().item()
            found["std_ratio"][slot, l] = ratio.log().mean((1, 2)).exp().item()
        for name, given in (("loss_population", exact), ("loss_mini_batches", other)):
            used = Statistics([m.to(x.dtype) for m in given.mean], [v.to(x.dtype) for v in given.var])
            outputs, _ = networks.forward(x_test[None], used)
            found[name][slot] = group.stack.criterion(outputs, y_test[None])[0].item()
    return found
