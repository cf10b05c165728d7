"""Which examples each mini-batch holds: from the seed and the step alone, the same for every arm of a seed."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np

from .experiment import Settings

DRAWN = 64  # steps whose mini-batches are drawn at once


def mini_batches(settings: Settings, seed: int, first: int) -> np.ndarray:
    """Row numbers [DRAWN, K] of the training set for steps first..first + DRAWN - 1; first is a multiple of DRAWN.

    In epochs, each epoch has a new order and the examples that do not fill a last mini-batch sit out until the next.
    """
    N, K = settings.n_train, settings.mini_batch
    if settings.sampling == "replacement":
        return np.random.default_rng([seed, 0, first // DRAWN]).integers(N, size=(DRAWN, K))
    per_epoch = N // K
    epochs = range(first // per_epoch, (first + DRAWN - 1) // per_epoch + 1)
    orders = np.concatenate([order(N, seed, e)[: per_epoch * K] for e in epochs])
    at = (first - epochs.start * per_epoch) * K
    return orders[at : at + DRAWN * K].reshape(DRAWN, K)


def parts_of_at_most(K: int, n: int) -> int:
    """How many near-equal mini-batches of at most K a split of n examples makes, for scoring as in training. For K = 2
    and an odd n one has 3: an example alone has no variance."""
    return max(1, min(ceil(n / K), n // 2)) if K > 1 else n


def parts_of_at_least(K: int, n: int) -> int:
    """The same of at least K, or of all n: as many as an epoch has, for the practitioner's population statistics."""
    return max(1, n // K)


@lru_cache(64)
def order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(n)
