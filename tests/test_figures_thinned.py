"""What charts say and draw of steps of which a run keeps only means: never a mean as if it were a step."""

import re

import numpy as np
import pytest
from known_rows import COLUMNS, LONG, keep, written

from bnlab import figures
from bnlab.experiment import Experiment
from bnlab.figures.predicted import prediction
from bnlab.figures.verdict import verdict
from bnlab.store import RunStore

STEPS = 3000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("thinned"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def thinned(store):
    """A run whose norms at step t are t + 1, of which the budget leaves the first row, means, and the last rows."""
    experiment = Experiment(settings=LONG.settings.model_copy(update={"steps": STEPS}), arms=LONG.arms)
    rows = lambda t: {"layers": np.full(COLUMNS["layers"], t + 1, np.float32)}  # noqa: E731
    trace = keep(store, store.create(experiment).id, written(experiment, range(STEPS), rows))
    windows = trace.exact(0, "layers")
    assert windows[0] == (0, 1) and windows[1][0] > 1000, "the budget was not used up"
    return trace


def norms(figure):
    """The norms of the signal gradient that are drawn of the first arm."""
    return next(d for d in figure.data if d.mode == "lines+markers").y


@pytest.mark.parametrize("step", [0, 500, STEPS - 1])
def test_a_chart_at_a_step_says_of_which_steps_it_is_the_mean(thinned, step):
    figure = figures.draw("gradient_flow", thinned, {"step": str(step)})
    told = figure.layout.meta["note"].splitlines()[0]
    help = verdict(thinned, 0, step).help
    title = figures.draw("saturation", thinned, {"step": str(step)}).layout.xaxis.title.text
    if step != 500:
        assert told == f"Signal gradient at step {step:,}." and f"at step {step:,}" in help
        assert title == f"layer, at step {step:,}"
        np.testing.assert_array_equal(norms(figure), step + 1)
        return
    first, last = map(int, re.fullmatch(r"Signal gradient in the mean of steps (\d+) to (\d+)\.", told).groups())
    assert first <= 500 <= last > first and f"in the mean of steps {first} to {last}" in help
    np.testing.assert_allclose(norms(figure), np.mean(np.arange(first, last + 1) + 1.0))
    note = figures.draw("saturation", thinned, {"step": "500"}).layout.meta["note"]
    assert title == "layer" and f"Upper charts in the mean of steps {first} to {last}." in note


def test_the_initial_networks_stay_and_are_not_drawn_where_only_a_mean_of_them_is_left(store, thinned):
    np.testing.assert_array_equal(prediction(thinned, 0).measured[0], 1)
    store.db.execute("delete from chunks where run = ? and kind = 'layers' and first = 0", (thinned.run.id,))
    older = store.trace(thinned.run.id)  # as runs were kept before
    assert prediction(older, 0) is None
    said = figures.draw("predicted", older, {}).layout.meta["said"]
    assert "only means are kept" in said and "Train it again" in said
    assert older.at("a_std", 0, 0)[0].start == 0 and len(older.at("a_std", 0, 0)[0]) > 1
