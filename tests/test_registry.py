"""Named things: each name once, and an unknown one is answered with those that are known."""

import pytest

from bnlab.norms import NORMS
from bnlab.registry import Registry


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="norm 'batch' is registered twice"):
        NORMS["batch"] = NORMS["layer"]
    assert NORMS["batch"].label == "Batch norm"


def test_an_unknown_name_is_told_with_those_that_are_known():
    things: Registry[int] = Registry("thing")
    things["one"] = things["two"] = 1
    with pytest.raises(KeyError, match="'three' is not a known thing; known are one, two"):
        things["three"]
