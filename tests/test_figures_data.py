"""The preview of a data set shows its training examples."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from bnlab.data import DATASETS, split
from bnlab.figures import data


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("name", DATASETS)
def test_the_points_are_features_or_principal_components(name, standardize):
    told, (x, y) = data.preview(name, standardize), split(name, standardize)[0]
    np.testing.assert_array_equal(told.target, y[: data.SHOWN])
    np.testing.assert_allclose(told.scales, x.std(0))
    if x.shape[1] == 2:
        np.testing.assert_array_equal(told.points, x[: data.SHOWN])
    else:
        known = PCA(2, svd_solver="full").fit(x)
        np.testing.assert_allclose(np.abs(told.points), np.abs(known.transform(x[: data.SHOWN])), atol=1e-8 * x.std())
        np.testing.assert_allclose(told.share, known.explained_variance_ratio_)
    assert data.data(name, standardize).data


def test_the_images_are_two_of_each_digit():
    told, (x, y) = data.preview("digits", True), split("digits", False)[0]
    for i, image in enumerate(told.images):
        assert y[np.flatnonzero((x == image.ravel()).all(1))[0]] == i // 2
    picture = data.data("digits", True).data[-1].z
    np.testing.assert_array_equal(picture[:8, 9:17], told.images[1])
    np.testing.assert_array_equal(picture[9:17, :8], told.images[5])


def test_unscaled_features_lie_a_thousandfold_apart():
    scales = data.preview("breast_cancer", False).scales
    assert scales.max() / scales.min() > 1000
    np.testing.assert_allclose(data.preview("breast_cancer", True).scales, 1)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(KeyError):
        data.preview("nothing", True)
