"""What charts say and draw of steps of which a run keeps only means: never a mean as if it were a step."""

import re

import numpy as np
import pytest
from known_rows import COLUMNS, LONG, keep, written

from bnlab import figures
from bnlab.experiment import Experiment
from bnlab.figures.predicted import prediction
from bnlab.figures.verdict import verdict
from bnlab.record import layout
from bnlab.store import RunStore

STEPS = 3000

pytestmark = pytest.mark.xdist_group("thinned")  # in one process: the steps are written once


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
        newest = " The cards tell the newest steps together, up to 20." if step == STEPS - 1 else ""
        assert told == f"Signal gradient at step {step:,}.{newest}" and f"at step {step:,}" in help
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


@pytest.fixture(scope="module")
def spiked(store):
    """700 steps, all kept, of norms 1 but for a spike at step 401 and a dip at step 501, dead at every 20th step."""
    experiment = Experiment(settings=LONG.settings.model_copy(update={"steps": 700}), arms=LONG.arms)
    columns = layout(experiment, 0)["layers"]

    def rows(t):
        row = np.ones(COLUMNS["layers"], np.float32)
        norm, dead = (row[columns[q][0] :][: 2 * 20] for q in ("signal_grad_norm", "dead"))
        norm[:] = {401: 1e6, 501: 1e-6}.get(t, 1)
        dead[:] = t % 20 == 0
        return {"layers": row}

    return keep(store, store.create(experiment).id, written(experiment, range(700), rows))


@pytest.mark.parametrize("column, best, extreme", [("mean", 1e6, 0), ("high", 1e6, 6), ("low", 1e-6, -6)])
def test_a_column_of_several_steps_says_so_and_keeps_spikes_and_dips(spiked, column, best, extreme):
    figure = figures.draw("gradient_heatmap", spiked, {"column": column})
    steps, z = figure.data[0].x, figure.data[0].z
    (wide,) = set(np.diff(steps))
    kind = {"mean": "mean", "high": "greatest", "low": "least"}[column]
    note = figure.layout.meta["note"]
    assert f"A column is the {kind} of {wide} steps, drawn at the first of them." in note
    assert f"step %{{x:,d}} and up to {wide - 1} after it, " in figure.data[0].hovertemplate
    assert f"{kind} ‖dE/da‖" in figure.data[0].hovertemplate
    here = np.flatnonzero(steps <= (501 if column == "low" else 401))[-1]
    expected = np.log10((best + wide - 1) / wide) if column == "mean" else extreme
    np.testing.assert_allclose(z[:, here], expected, rtol=1e-5)


def test_a_column_of_one_step_is_called_a_step(store):
    experiment = Experiment(settings=LONG.settings.model_copy(update={"steps": 50}), arms=LONG.arms)
    rows = lambda t: {"layers": np.full(COLUMNS["layers"], t + 1, np.float32)}  # noqa: E731
    trace = keep(store, store.create(experiment).id, written(experiment, range(50), rows))
    figure = figures.draw("gradient_heatmap", trace, {})
    assert "column" not in figure.layout.meta["note"]
    assert figure.data[0].hovertemplate.startswith("step %{x:,d}, layer %{y}: ‖dE/da‖")
    figure = figures.draw("saturation", trace, {})
    assert "Bands" not in figure.layout.meta["note"] and "mean of" not in figure.layout.meta["note"]
    assert not [d for d in figure.data if d.fill]


def test_saturation_over_time_spans_the_steps_of_a_point(spiked):
    figure = figures.draw("saturation", spiked, {})
    line = next(d for d in figure.data if d.xaxis == "x4" and d.customdata is not None)
    dead = np.arange(700) % 20 == 0
    for step, mean, (last, low, high) in zip(line.x, line.y, line.customdata, strict=True):
        part = dead[step : int(last) + 1]
        np.testing.assert_allclose((mean, low, high), (part.mean(), part.min(), part.max()), rtol=1e-6)
    assert line.customdata[-1, 0] == 699
    top = next(d for d in figure.data if d.xaxis == "x4" and d.fill == "tonexty")
    np.testing.assert_array_equal(top.y, line.customdata[:, 2])
    note, wide = figure.layout.meta["note"], np.diff(line.x).max()
    assert f"Lower charts: a point is the mean of {wide} steps, drawn at the first of them. Bands go" in note


def test_single_steps_that_follow_thinned_ones_are_not_called_means_of_as_many(store):
    experiment = Experiment(settings=LONG.settings.model_copy(update={"steps": 5000}), arms=LONG.arms)
    trace = keep(store, store.create(experiment).id, written(experiment, range(5000), lambda t: {}))
    steps = trace.read("dead", 0, layer=1, points=50).steps
    assert set(np.diff(steps)) == {1, 128}
    assert "a point is the mean of up to 128 steps" in figures.draw("saturation", trace, {}).layout.meta["note"]
