"""The data sets: what they declare is what they are, divided once and for all."""

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from bnlab.data import DATASETS, split

REAL = ("digits", "breast_cancer", "wine", "diabetes")
SYNTHETIC = ("spirals", "moons", "circles", "xor", "blobs", "gaussian")
SIZES = {  # training set, test set, features, classes
    "digits": (1437, 360, 64, 10),
    "breast_cancer": (455, 114, 30, 2),
    "wine": (142, 36, 13, 3),
    "diabetes": (353, 89, 10, 1),
    "spirals": (1600, 400, 2, 3),
    "moons": (1600, 400, 2, 2),
    "circles": (1600, 400, 2, 2),
    "xor": (1600, 400, 2, 2),
    "blobs": (1600, 400, 2, 5),
    "gaussian": (1600, 400, 64, 10),
}


def test_every_data_set_is_known_here():
    assert set(DATASETS) == {*REAL, *SYNTHETIC} == set(SIZES)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("name", DATASETS)
def test_shapes_and_types_are_as_declared(name, standardize):
    known = DATASETS[name]
    n_train, n_test, features, classes = SIZES[name]
    assert (known.n_train, known.n_test, known.n_features, known.n_classes) == SIZES[name]
    for part, n in zip(split(name, standardize), (n_train, n_test), strict=True):
        assert part.x.shape == (n, features) and part.x.dtype == np.float64 and np.isfinite(part.x).all()
        assert part.y.shape == (n,) and part.y.dtype == (np.int64 if classes > 1 else np.float64)
        if classes > 1:
            assert set(part.y) == set(range(classes))
    if classes > 1:
        found = np.bincount(split(name, standardize)[0].y)
        assert list(known.counts) == list(found) if known.counts else found.max() < 1.1 * n_train / classes


@pytest.mark.parametrize("name", DATASETS)
def test_the_split_takes_every_example_once_and_always_the_same_way(name):
    (train, test), (x, y) = split(name, False), DATASETS[name].load()
    together = np.concatenate([train.x, test.x])
    np.testing.assert_array_equal(together[np.lexsort(together.T)], x[np.lexsort(x.T)])
    split.cache_clear()
    for again, before in zip(split(name, False), (train, test), strict=True):
        np.testing.assert_array_equal(again.x, before.x)
        np.testing.assert_array_equal(again.y, before.y)
    if DATASETS[name].task == "classification":  # each input keeps its target
        pairs, all_pairs = np.column_stack([together, [*train.y, *test.y]]), np.column_stack([x, y])
        np.testing.assert_array_equal(pairs[np.lexsort(pairs.T)], all_pairs[np.lexsort(all_pairs.T)])
        for part in (train, test):  # at random, not sorted by class or place
            assert abs(np.mean(part.y) - np.mean(y)) < 4 * np.std(y) / np.sqrt(len(part.y))


@pytest.mark.parametrize("name", REAL)
def test_real_sets_unscaled_are_scikit_learns(name):
    x, y = getattr(sklearn_datasets, f"load_{name}")(return_X_y=True)
    train, test = split(name, False)
    given = {tuple(row): target for row, target in zip(x, y, strict=True)}
    for part in (train, test):
        for row, target in zip(part.x, part.y, strict=True):
            assert tuple(row) in given
            if name != "diabetes":
                assert given[tuple(row)] == target


def test_unscaled_breast_cancer_spans_orders_of_magnitude():
    spread = split("breast_cancer", False)[0].x.std(0)
    assert spread.max() > 1e4 * spread.min()


@pytest.mark.parametrize("name", DATASETS)
def test_standardized_inputs_have_mean_0_and_variance_1_and_the_test_set_goes_along(name):
    (train, test), (raw_train, raw_test) = split(name, True), split(name, False)
    varies = raw_train.x.std(0) > 0
    np.testing.assert_allclose(train.x.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(train.x[:, varies].var(0), 1, rtol=1e-9)
    assert (train.x[:, ~varies] == 0).all()
    for feature in np.flatnonzero(varies):  # one line through two points of the training set, for both sets
        raw = raw_train.x[:, feature]
        i, j = raw.argmin(), raw.argmax()
        slope = (train.x[j, feature] - train.x[i, feature]) / (raw[j] - raw[i])
        for scaled, part in ((train, raw_train), (test, raw_test)):
            line = train.x[i, feature] + slope * (part.x[:, feature] - raw[i])
            np.testing.assert_allclose(scaled.x[:, feature], line, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(train.y, raw_train.y)


def test_regression_targets_are_standardized_over_the_training_set():
    train, test = split("diabetes", True)
    assert abs(train.y.mean()) < 1e-12 and abs(train.y.std() - 1) < 1e-12
    _, y = sklearn_datasets.load_diabetes(return_X_y=True)
    order = np.sort(y)
    np.testing.assert_allclose(np.sort([*train.y, *test.y]), (order - order.mean()) / order.std(), atol=0.2)
    assert np.corrcoef(np.sort([*train.y, *test.y]), order)[0, 1] > 1 - 1e-12


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].n_classes > 1])
def test_no_class_is_rare(name):
    for part in split(name, True):
        share = np.bincount(part.y) / len(part.y)
        assert share.min() > 0.4 / len(share), share


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_sets_are_the_same_whenever_they_are_made(name):
    np.random.seed(1)  # the global state has no part in it
    first = DATASETS[name].load()
    np.random.seed(2)
    for a, b in zip(first, DATASETS[name].load(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(np.unique(first[0], axis=0)) == 2000


def test_synthetic_classes_are_what_their_help_says():
    x, y = DATASETS["xor"].load()
    np.testing.assert_array_equal(y, (x[:, 0] > 0) != (x[:, 1] > 0))
    x, y = DATASETS["circles"].load()
    radius = np.hypot(*x.T)
    assert abs(radius[y == 0].mean() - 1) < 0.02 and abs(radius[y == 1].mean() - 0.5) < 0.02
    x, y = DATASETS["gaussian"].load()
    solved = np.linalg.lstsq(x, np.eye(10)[y], rcond=None)[0]
    assert np.mean((x @ solved).argmax(1) == y) > 0.8  # a linear map tells the classes apart
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
