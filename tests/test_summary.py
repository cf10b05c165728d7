"""A run in few points: mean, least and greatest value of every stretch of steps, as a slow loop finds them."""

from itertools import pairwise
from math import isfinite, prod

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from known_rows import LONG, keep, nothing, same, small, written

from bnlab.experiment import Experiment
from bnlab.keeping import RECENT
from bnlab.record import layout
from bnlab.store import RunStore

pytestmark = pytest.mark.xdist_group("summary")  # in one process: the steps are written once


def slow(values, edges):
    """Mean, min and max of what is finite in each stretch of steps, a number at a time; of all where nothing is."""
    found = []
    for start, stop in pairwise(edges):
        part = [float(v) for v in values[start:stop]]
        there = [v for v in part if isfinite(v)] or [sum(part)]
        found.append((sum(there) / len(there), min(there), max(there)))
    return np.array(found).T


def agrees(series, values, last):
    """Whether each bucket is the slow loop's over the exact data; the last one covers at least up to `last`."""
    mean, low, high = slow(values, [*series.steps, last])
    np.testing.assert_array_equal(series.low[:-1, 0], low[:-1].astype(np.float32))
    np.testing.assert_array_equal(series.high[:-1, 0], high[:-1].astype(np.float32))
    np.testing.assert_allclose(series.mean[:-1, 0], mean[:-1], rtol=1e-5, atol=1e-5)
    assert series.low[-1, 0] <= np.float32(low[-1]) and np.float32(high[-1]) <= series.high[-1, 0]


NOISE = np.random.default_rng(1).standard_normal(20_011).astype(np.float32)


def noise(experiment):
    """The rows of a network whose loss (arm 0) is NOISE."""

    def rows(t):
        return {"steps": np.array([NOISE[t], 0, 0, 0], np.float32)}

    return written(experiment, range(len(NOISE)), rows)


@pytest.fixture(scope="module")
def of_budget(tmp_path_factory):
    """A trace of 20,011 steps of noise within a budget; each is written once, in whatever order tests ask for it."""
    store, found = RunStore(tmp_path_factory.mktemp("noisy")), {}

    def trace(budget):
        if budget not in found:
            experiment = small(depth=12 if budget == 8 else 1, steps=len(NOISE))
            settings = experiment.settings.model_copy(update={"budget_mb": budget})
            experiment = Experiment(settings=settings, arms=experiment.arms)
            found[budget] = keep(store, store.create(experiment).id, noise(experiment))
        return found[budget]

    yield trace
    store.close()


@pytest.fixture(scope="module", params=[8, 512], ids=["tiny budget", "all exact"])
def noisy(request, of_budget):
    return of_budget(request.param)


@hypothesis_settings(deadline=None)
@given(start=some.integers(0, 20_000), length=some.integers(2, 20_011), points=some.integers(10, 1200))
def test_few_points_keep_min_max_and_mean_of_a_slow_loop(noisy, start, length, points):
    stop = min(start + length, len(NOISE))
    series = noisy.read("loss", 0, start=start, stop=stop, points=points)
    assert len(series.steps) <= 2 * points
    assert len(series.steps) and series.steps[-1] < stop
    assert (np.diff(series.steps) > 0).all()
    if series.exact:
        np.testing.assert_array_equal(series.steps, np.arange(start, stop))
        same(series.mean[:, 0], NOISE[start:stop])
    else:
        stride = np.diff(series.steps).max() if len(series.steps) > 1 else stop
        assert start - stride < series.steps[0] <= start
        agrees(series, NOISE, stop)


@pytest.mark.parametrize("points", [10, 100, 500, 1000, 5000])
def test_the_whole_run_in_few_points_is_the_slow_loops(noisy, points):
    series = noisy.read("loss", 0, points=points)
    assert series.steps[0] == 0 and len(series.steps) <= 2 * points
    agrees(series, NOISE, len(NOISE))
    mean, low, high = slow(NOISE, [*series.steps, len(NOISE)])
    np.testing.assert_allclose(series.mean[-1, 0], mean[-1], rtol=1e-5, atol=1e-5)
    assert (series.low[-1, 0], series.high[-1, 0]) == (np.float32(low[-1]), np.float32(high[-1]))


def test_a_run_that_begins_late_is_summed_up_from_its_first_step_on_also_where_buckets_were_merged(store):
    run_id = store.create(small(depth=1, steps=1003)).id
    with store.transaction() as db:
        db.execute("insert into forks values (?, 'its parent', 0, 30)", (run_id,))
    rows = lambda t: {"steps": np.array([NOISE[t], 0, 0, 0], np.float32)}  # noqa: E731
    with store.writer(run_id) as writer:
        for record in written(store.run(run_id).experiment, range(30, 1003), rows):
            writer.keep(record)
            if record.step == 602:  # within a bucket
                writer.commit()
                with store.transaction() as db:
                    for table in writer.scalars:
                        table.summary.halve(db)
    series = store.trace(run_id).read("loss", 0, points=100)
    assert not series.exact and series.steps[0] == 30
    agrees(series, NOISE, 1003)


def test_the_summary_is_a_slow_loops_wherever_the_writer_commits(store):
    """It does by the clock, also within a bucket and more than a bucket later."""
    run_id = store.create(small(depth=1, steps=1003)).id
    rows = lambda t: {"steps": np.array([NOISE[t], 0, 0, 0], np.float32)}  # noqa: E731
    with store.writer(run_id) as writer:
        for record in written(store.run(run_id).experiment, range(1003), rows):
            writer.keep(record)
            if record.step % 11 == 5:
                writer.commit()
    ask = "select n, data from summary where run = ? and kind = 'steps' order by first"
    found = [np.frombuffer(data, np.float32).reshape(-1, 3, n)[0] for n, data in store.db.execute(ask, (run_id,))]
    for told, exact in zip(np.concatenate(found, 1), slow(NOISE, range(0, 1001, 4)), strict=True):
        np.testing.assert_allclose(told, exact, rtol=1e-5, atol=1e-6)


def test_a_step_of_which_only_a_mean_is_left_is_told_with_all_its_steps(noisy):
    for step in (1, 500, 12_345):
        steps, values = noisy.at("loss", 0, step)
        assert step in steps and (len(steps) == 1) == (noisy.experiment.settings.budget_mb == 512)
        mean, _, _ = slow(NOISE, [steps[0], steps[-1] + 1])
        np.testing.assert_allclose(values, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("points", [20, 400])
def test_few_points_are_of_what_is_finite(store, points):
    """Read from the summary, or from exact rows: what is finite, and infinities where all is. Of update ratios, which
    are infinite where W is 0; a loss that is not finite is a network's last."""
    random = np.random.default_rng(5)
    odd = np.repeat(random.choice([0, 0, 0, np.nan, np.inf, -np.inf], 750), 4)
    odd[1000:1400], odd[1600:2000], odd[2900:] = np.inf, np.nan, 0
    values = (random.standard_normal(3000) + odd).astype(np.float32)
    experiment = small(depth=1, steps=3000, data="wine", batch_size=2)
    offset, _ = layout(experiment, 0)["layers"]["update_ratio"]
    width = len(nothing(experiment)["layers"])
    rows = lambda t: {"layers": np.where(np.arange(width) == offset, values[t], 0).astype(np.float32)}  # noqa: E731
    trace = keep(store, store.create(experiment).id, written(experiment, range(3000), rows))
    assert not trace.diverged
    series = trace.read("update_ratio", 0, layer=1, points=points)
    assert not series.exact and len(series.steps) <= 2 * points
    agrees(series, values, 3000)
    kinds = [kind(series.mean).any() for kind in (np.isfinite, np.isinf, np.isnan)]
    assert kinds == [True] * 3


def test_the_last_steps_stay_exact_and_so_does_every_step_while_the_budget_lasts(noisy):
    budget = noisy.experiment.settings.budget_mb
    for start in (0, len(NOISE) - RECENT):
        series = noisy.read("loss", 0, start=start, points=10**6)
        assert series.exact == (budget == 512 or start > 0)
        if series.exact:
            np.testing.assert_array_equal(series.steps, np.arange(start, len(NOISE)))
            same(series.mean[:, 0], NOISE[start:])
    for step in (len(NOISE) - 1, len(NOISE) - RECENT):
        assert noisy.at("loss", 0, step)[0] == range(step, step + 1)
        same(noisy.at("loss", 0, step)[1], NOISE[step : step + 1])
    assert noisy.at("loss", 0, 0)[0] == range(1), "the initial networks' row stays"
    same(noisy.at("loss", 0, 0)[1], NOISE[:1])
    layers = noisy.read("z_std", 0, start=len(NOISE) - RECENT, points=10**6)
    assert layers.exact and len(layers.steps) == RECENT


@hypothesis_settings(
    deadline=None, max_examples=2, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=some.lists(some.integers(0, 3999), min_size=400, max_size=400), deep=some.booleans())
def test_no_spike_is_lost_when_old_steps_make_room(store, at, deep):
    """Each of the 400 scalars of the layers has one huge (or deep) value at one step of its own."""
    huge, when = np.float32(-3e30 if deep else 3e30), np.array(at)
    trace = keep(
        store, store.create(LONG).id, written(LONG, range(4000), lambda t: {"layers": np.where(when == t, huge, 0)})
    )
    for name, (offset, shape) in layout(LONG, 0)["layers"].items():
        here = when[offset : offset + prod(shape)].reshape(shape)
        for points in (50, 10_000):
            for arm in (0, 1):
                series = trace.read(name, arm, points=points)
                assert not series.exact
                extreme = series.low if deep else series.high
                assert (np.abs(extreme[:, 0]).max(0) == 3e30).all()
                rows = np.abs(extreme[:, 0]).argmax(0)
                until = np.append(series.steps[1:], 4000)
                assert (series.steps[rows] <= here[:, arm]).all() and (here[:, arm] < until[rows]).all()
