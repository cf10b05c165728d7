"""Inference with another alpha is that of a training with it, and is refused where steps are missing."""

import numpy as np
import pytest
from looked_at import looked, slot

from bnlab import lineage
from bnlab.moving import ALPHAS
from bnlab.probes import Copies
from bnlab.probes.broken import MISTAKES
from bnlab.probes.inference import averages


@pytest.mark.parametrize(("asked", "online"), [(0.9, 1), (0.99, 3)])
def test_inference_with_another_alpha_is_that_of_training_with_it(inference_trace, asked, online):
    found = looked(inference_trace, "inference", 40, alpha=asked)
    place = slot(inference_trace, 1)
    steps, losses, accuracies = inference_trace.scores(online, "test", "moving")
    np.testing.assert_array_equal(found["step"][place], steps)
    np.testing.assert_allclose(found["loss"][place], losses[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found["accuracy"][place], accuracies[:, 0], atol=0.02)
    assert np.isnan(found["loss"][slot(inference_trace, 0)]).all()


def test_the_curve_against_alpha_goes_through_the_recorded_loss(inference_trace):
    found = looked(inference_trace, "alphas", 40)
    recorded = inference_trace.scores(2, "train", "moving")[1][-1, 0]
    at = ALPHAS.index(0.9)
    assert found["train_loss"][slot(inference_trace, 2), at] == pytest.approx(recorded, rel=1e-4)
    one = looked(inference_trace, "inference", 40, alpha=0.5)
    assert found["test_loss"][slot(inference_trace, 2), ALPHAS.index(0.5)] == pytest.approx(
        one["loss"][slot(inference_trace, 2), -1]
    )


def test_statistics_of_some_steps_only_are_refused_and_the_other_mistakes_are_computed(inference_trace):
    seen = lineage.seen(inference_trace)[0]
    some = np.array([0, 1, 4, 20, 21, 39])
    few = seen._replace(steps=some, batch_mean=seen.batch_mean[some], batch_var=seen.batch_var[some])
    with pytest.raises(ValueError, match="only 6 of 40 steps of the unit statistics are kept in this run; averages of"):
        averages(few, 0.9, np.array([0, 40]))
    np.testing.assert_array_equal(averages(few, 0.9, np.array([2]))[0], averages(seen, 0.9, np.array([2]))[0])
    copies = Copies(inference_trace.experiment)
    whole, part = (copies.look("broken", {}, 40, inference_trace.snapshot(40), [s])[0]["loss"] for s in (seen, few))
    swapped = list(MISTAKES).index("alpha swapped")
    assert np.isnan(part[:, swapped]).all() and np.isfinite(whole[slot(inference_trace, 1), swapped])
    whole[:, swapped] = np.nan
    np.testing.assert_array_equal(part, whole)
