"""The example that is shipped says what the same experiment says when somebody trains it."""

from types import SimpleNamespace

import numpy as np
import pytest

from bnlab import Experiment, figures, opened
from bnlab.executing import execute
from bnlab.figures import dials

AGAIN = "make it again: docs/example.py"


@pytest.fixture
def shipped(lab):
    return opened.example().trace(opened.example_run().id)


def test_the_dials_of_the_example_are_means_over_the_steps_of_a_fresh_run(shipped):
    """A fresh run has a snapshot at every scoring; the example has lost all but its last."""
    scored, _, _ = shipped.scores(1, "test", "moving")
    fresh = SimpleNamespace(experiment=Experiment(), snapshots=scored.tolist, looked=lambda _: [])
    assert shipped.snapshots() == [500] and scored.tolist() == [*range(0, 501, 50)]
    assert dials.moments(shipped) == dials.moments(fresh) == [0, 100, 200, 300, 400, 500], AGAIN
    note = figures.draw("dials", shipped, {}).layout.meta["note"]
    assert "Both at steps 0, 100, 200, 300, 400 and 500:" in note
    assert "BN after learns faster than BN before, with more covariate shift and a less smooth loss" in note


@pytest.mark.parametrize("name", ["dials", "smoothness", "curvature"])
def test_figures_over_the_training_ask_for_nothing_more_of_the_example(shipped, name):
    assert figures.needs(name, shipped, {}) == [], AGAIN
    assert "said" not in figures.draw(name, shipped, {}).layout.meta


def test_the_example_begins_as_todays_training(lab, shipped):
    """Only its beginning: training is chaotic, and processors round differently."""
    run = lab.create(Experiment())
    execute(lab, run.id, lambda: None, 6)
    for arm in range(len(run.experiment.arms)):
        then, now = (trace.read("loss", arm, stop=6) for trace in (shipped, lab.trace(run.id)))
        assert then.steps.tolist() == now.steps.tolist() == [*range(6)]
        np.testing.assert_allclose(now.mean, then.mean, rtol=1e-3, err_msg=AGAIN)
