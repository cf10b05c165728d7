"""The data sets: fixed arrays, split once into training and test set, the same for every arm and seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from .registry import Registry


class Split(NamedTuple):
    """Inputs x [N, n_features] float64; targets y [N] int64 (classification) or float64 (regression)."""

    x: np.ndarray
    y: np.ndarray


class DataSet(NamedTuple):
    """What is known of a data set without loading it, and how to load it."""

    label: str
    help: str
    task: Literal["classification", "regression"]
    n_train: int
    n_test: int
    n_features: int
    n_classes: int  # 1 for a regression
    load: Callable[[], tuple[Split, Split]]  # (training set, test set), not standardized


DATASETS: Registry[DataSet] = Registry("data set")


def digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return Split(x[:1437], y[:1437]), Split(x[1437:], y[1437:])


DATASETS["digits"] = DataSet("Digits", "1797 images of 8 x 8 pixels.", "classification", 1437, 360, 64, 10, digits)


@lru_cache(8)
def split(name: str, standardize: bool) -> tuple[Split, Split]:
    """Training and test set of a data set; standardized with the training set's mean and deviation if asked.

    A feature that is constant over the training set is only centered. Regression targets are always standardized.
    """
    train, test = DATASETS[name].load()
    if standardize:
        mean, std = train.x.mean(0), train.x.std(0)
        std[std == 0] = 1
        train, test = ((s._replace(x=(s.x - mean) / std)) for s in (train, test))
    return train, test
