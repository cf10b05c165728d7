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
    load: Callable[[], tuple[np.ndarray, np.ndarray]]  # all x and y, as they come
    counts: tuple[int, ...] = ()  # training examples of each class, where these are not about equally frequent


DATASETS: Registry[DataSet] = Registry("data set")


def real(name: str):
    """A data set of scikit-learn, which is imported only now: it takes a second."""

    def load() -> tuple[np.ndarray, np.ndarray]:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)

    return load


DATASETS["digits"] = DataSet(
    "Digits", "1797 handwritten digits, images of 8 x 8 pixels.", "classification", 1437, 360, 64, 10, real("digits")
)
DATASETS["breast_cancer"] = DataSet(
    "Breast cancer",
    "569 tumors described by 30 measurements whose scales differ a thousandfold: unscaled, a reason to normalize.",
    "classification",
    455,
    114,
    30,
    2,
    real("breast_cancer"),
    (165, 290),
)
DATASETS["wine"] = DataSet(
    "Wine",
    "178 wines of three growers, 13 chemical measurements.",
    "classification",
    142,
    36,
    13,
    3,
    real("wine"),
    (46, 54, 42),
)
DATASETS["diabetes"] = DataSet(
    "Diabetes (regression)",
    "442 patients, 10 measurements; the target is the progress of the disease, standardized.",
    "regression",
    353,
    89,
    10,
    1,
    real("diabetes"),
)

N = 2000  # examples of a synthetic set, 1600 of them for training


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def spirals() -> tuple[np.ndarray, np.ndarray]:
    r = rng()
    y = r.integers(3, size=N)
    t = np.sqrt(r.uniform(0.02, 1, N))  # distance from the center, equally dense along the arm
    angle = 2 * np.pi * (1.25 * t + y / 3) + 0.12 * r.standard_normal(N)
    return np.stack([t * np.cos(angle), t * np.sin(angle)], 1), y


def moons() -> tuple[np.ndarray, np.ndarray]:
    r = rng()
    y = r.integers(2, size=N)
    angle = np.pi * r.uniform(size=N)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    return np.where(y[:, None] == 0, upper, lower) + 0.15 * r.standard_normal((N, 2)), y


def circles() -> tuple[np.ndarray, np.ndarray]:
    r = rng()
    y = r.integers(2, size=N)
    angle = 2 * np.pi * r.uniform(size=N)
    radius = np.where(y == 0, 1.0, 0.5) + 0.08 * r.standard_normal(N)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), y


def xor() -> tuple[np.ndarray, np.ndarray]:
    x = rng().uniform(-1, 1, (N, 2))
    return x, (x[:, 0] * x[:, 1] < 0).astype(int)


def blobs() -> tuple[np.ndarray, np.ndarray]:
    r = rng()
    y = r.integers(5, size=N)
    angle = 2 * np.pi * y / 5
    return np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * r.standard_normal((N, 2)), y


def gaussian() -> tuple[np.ndarray, np.ndarray]:
    r = rng()
    x = r.standard_normal((N, 64))
    return x, (x @ r.standard_normal((64, 10))).argmax(1)


for name, help_text, inputs, classes, make, *counts in (
    ("Spirals", "Three intertwined spiral arms in the plane.", 2, 3, spirals),
    ("Moons", "Two interleaved half circles in the plane.", 2, 2, moons),
    ("Circles", "A circle within a circle.", 2, 2, circles),
    ("XOR", "Opposite quadrants of a square share a class.", 2, 2, xor),
    ("Blobs", "Five overlapping Gaussian clouds in the plane.", 2, 5, blobs),
    (
        "Gaussian",
        "64 independent normal inputs, classes from a random linear teacher: the case of the theory.",
        64,
        10,
        gaussian,
        (190, 173, 136, 82, 145, 217, 155, 213, 144, 145),
    ),
):
    DATASETS[name.lower()] = DataSet(name, help_text, "classification", 1600, 400, inputs, classes, make, *counts)


@lru_cache(8)
def split(name: str, standardize: bool) -> tuple[Split, Split]:
    """Training and test set of a data set, divided at random by the data set's own seed, always the same.

    If `standardize`, features have mean 0 and variance 1 over the training set (a constant one is only centered).
    Regression targets are always standardized with the training set's mean and deviation.
    """
    data = DATASETS[name]
    x, y = data.load()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float64), y[order].astype(np.int64 if data.task == "classification" else np.float64)
    n = data.n_train
    if data.task == "regression":
        y = (y - y[:n].mean()) / y[:n].std()
    if standardize:
        mean, std = x[:n].mean(0), x[:n].std(0)
        x = (x - mean) / np.where(std == 0, 1, std)
    return Split(x[:n], y[:n]), Split(x[n:], y[n:])
