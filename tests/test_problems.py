"""How what people named is listed in a sentence, so that one can tell where each name ends."""

import pytest

from bnlab.experiment import Arm, Experiment
from bnlab.problems import enumeration, series
from bnlab.run import described
from pages.parts.presets import PRESETS


@pytest.mark.parametrize(
    ("names", "listed", "told"),
    [
        (["BN"], "BN", "BN"),
        (["BN", "LN"], "BN, LN", "BN and LN"),
        (["no norm", "BN", "LN"], "no norm, BN, LN", "no norm, BN and LN"),
        (["1,000", "2,000"], "1,000, 2,000", "1,000 and 2,000"),
        (["BN, K = 2", "LN"], "BN, K = 2; LN", "BN, K = 2; and LN"),
        (["BN, K = 2", "LN, K = 2", "no norm"], "BN, K = 2; LN, K = 2; no norm", "BN, K = 2; LN, K = 2; and no norm"),
        (["this and that", "LN"], "this and that; LN", "this and that; and LN"),
    ],
)
def test_a_list_of_names_says_where_each_ends(names, listed, told):
    assert series(names) == listed and enumeration(names) == told


def test_a_run_is_named_by_arms_that_can_be_told_apart():
    asked = PRESETS["Small mini-batches"][1]
    assert described(asked).endswith(": BN, K = 2; BN, K = 4; BN, K = 32; LN, K = 2")
    assert described(asked.model_copy(update={"seeds": (0, 1)})).endswith("; LN, K = 2; 2 seeds")


def test_arms_that_ask_the_same_are_named_so_that_each_can_be_told():
    asked = Experiment(arms=[Arm(label=label, changes={}) for label in ("BN, K = 2", "BN, K = 4", "BN")])
    assert asked.alike == ["BN, K = 2; BN, K = 4; and BN ask the same question: their curves will coincide."]
