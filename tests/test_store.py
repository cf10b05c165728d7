"""What a run has recorded is what was seen: to the last bit while the budget lasts, then with every spike in it."""

import subprocess
import sys
import threading
import time
from itertools import pairwise
from math import isfinite, prod
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from bnlab import figures, work
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.jobs import ABOVE
from bnlab.keeping import CHUNK_ROWS, MOST_BUCKETS, RECENT
from bnlab.reading import NAMES, Trace
from bnlab.store import RunStore
from bnlab.trace import LAYERS, Population, Record, Score, batch_slots, layout
from bnlab.train import train

ARMS = (
    Arm(label="none"),
    Arm(label="before", changes={"norm": "batch"}),
    Arm(label="after", changes={"norm": "batch", "placement": "after"}),
    Arm(label="wider", changes={"norm": "batch", "width": 7}),
    Arm(label="deeper", changes={"norm": "layer", "depth": 4}),
)
SMALL = Settings(data="wine", depth=3, width=5, batch_size=16, steps=150, score_every=40, activation="tanh")
REAL = Experiment(settings=SMALL, arms=ARMS, seeds=(3, 1))
PAIR = (Arm(label="none"), Arm(label="before", changes={"norm": "batch"}))
quickly = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path)
    yield store
    store.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real training: its records, and its trace as another connection reads it."""
    directory = tmp_path_factory.mktemp("real")
    store, records = RunStore(directory), []
    run = store.create(REAL)
    with store.writer(run.id) as writer:
        for record in train(REAL):
            writer.keep(record)
            records.append(record)
    store.close()
    again = RunStore(directory)
    yield records, again.trace(run.id)
    again.close()


class Seen(NamedTuple):
    """One stack's rows that nobody has measured."""

    rows: dict


def small(depth=3, steps=20_000, **changes):
    return Experiment(settings=Settings(depth=depth, width=4, steps=steps, budget_mb=8, **changes), arms=PAIR)


def nothing(experiment):
    """Rows of zeros for the only stack of an experiment."""
    return {
        table: np.zeros(sum(prod(shape) for _, shape in columns.values()), np.float32)
        for table, columns in layout(experiment, 0).items()
    }


def written(experiment, steps, rows, scores=(), population=()):
    """Records of `steps` whose rows are those given by `rows(step)`; what it leaves out is 0."""
    zeros = nothing(experiment)
    for t in steps:
        yield Record(experiment, t, (Seen(zeros | rows(t)),), list(scores), list(population), None, list)


def keep(store, run_id, records):
    with store.writer(run_id) as writer:
        for record in records:
            writer.keep(record)
    return store.trace(run_id)


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def same(a, b):
    np.testing.assert_array_equal(bits(a), bits(b))


# ---- exactly


def test_every_number_of_a_training_is_read_back_to_the_last_bit(real):
    records, trace = real
    assert len(REAL.stacks) == 3
    for arm in range(len(ARMS)):
        for quantity, (_, name) in NAMES.items():
            if not trace.has(quantity, arm):
                assert quantity in ("batch_mean", "batch_var", "moving_mean", "moving_var", "gamma", "beta")
                assert REAL.arm_settings[arm].norm != "batch"
                continue
            series = trace.read(quantity, arm)
            np.testing.assert_array_equal(series.steps, np.arange(150))
            assert series.exact
            for place, seed in enumerate(REAL.seeds):
                same(series.mean[:, place], np.stack([r.value(name, arm, seed) for r in records[:-1]]))


def test_scores_population_and_snapshots_are_read_back_to_the_last_bit(real):
    records, trace = real
    scored = [r for r in records if r.scores]
    assert [r.step for r in scored] == [0, 40, 80, 120, 150] == trace.snapshots()
    for record in scored:
        assert len(record.scores) == len({(s.stack, s.split, s.statistics, s.slots) for s in record.scores})
        for score in record.scores:
            for i, slot in enumerate(score.slots):
                arm, seed = REAL.stacks[score.stack][slot]
                steps, loss, accuracy = trace.scores(arm, score.split, score.statistics)
                at = list(steps).index(record.step), REAL.seeds.index(seed)
                same(loss[at], score.loss[i])
                same(accuracy[at], score.accuracy[i])
        for population in record.population:
            for i, slot in enumerate(population.slots):
                arm, seed = REAL.stacks[population.stack][slot]
                steps, mean, var = trace.population(arm)
                at = list(steps).index(record.step), REAL.seeds.index(seed)
                same(mean[at], population.mean[:, i])
                same(var[at], population.var[:, i])
                steps, mean, var = trace.averages(arm)
                same(mean[at], population.moving_mean[:, i])
                same(var[at], population.moving_var[:, i])
                if before := record.step:  # what was recorded after the step before
                    same(mean[at], records[before - 1].value("moving_mean", arm, seed))
                    same(var[at], records[before - 1].value("moving_var", arm, seed))
                else:
                    assert (mean[at] == 0).all() and (var[at] == 1).all()
        for kept, seen in zip(trace.snapshot(record.step), record.weights, strict=True):
            same(kept, seen)
    assert len(trace.scores(0, "train", "none")[0]) == 5
    for points, steps in (
        (1, [0, 150]),
        (2, [0, 120, 150]),
        (3, [0, 80, 150]),
        (4, [0, 80, 150]),
        (5, trace.snapshots()),
    ):
        few = trace.scores(0, "train", "none", points)
        assert few[0].tolist() == steps
        every = trace.scores(0, "train", "none")
        same(few[1], every[1][np.isin(every[0], steps)])
    assert len(trace.scores(0, "train", "batch")[0]) == 0 == len(trace.scores(1, "train", "none")[0])


@quickly
@given(start=some.integers(0, 149), length=some.integers(1, 150), layer=some.integers(1, 3), unit=some.integers(0, 4))
def test_a_window_of_a_layer_and_unit_is_that_part_of_the_whole(real, start, length, layer, unit):
    _, trace = real
    window = slice(start, min(start + length, 150))
    for quantity, chosen in (("loss", {}), ("z_std", {"layer": layer}), ("gamma", {"layer": layer, "unit": unit})):
        series = trace.read(quantity, 1, start=start, stop=start + length, **chosen)
        whole = trace.read(quantity, 1).mean[window]
        whole = whole[:, :, layer - 1] if "layer" in chosen else whole
        whole = whole[..., unit] if "unit" in chosen else whole
        np.testing.assert_array_equal(series.steps, np.arange(150)[window])
        same(series.mean, whole)


def test_a_single_step_can_be_asked_for(real):
    records, trace = real
    for step in (0, 63, 64, 149):
        at, values = trace.at("grad_norm", 3, step)
        assert at == step
        same(values[1], records[step].value("grad_norm", 3, 1))
    assert trace.at("grad_norm", 3, 10_000)[0] == 149


def test_what_is_not_there_is_said_in_a_sentence(real, store):
    _, trace = real
    for ask, sentence in (
        (lambda: trace.read("gamma", 0), "'none' has no gamma."),
        (lambda: trace.read("z_std", 0, layer=4), "layer is 4; the network has layers 1 to 3."),
        (lambda: trace.read("gamma", 1, layer=1, unit=5), "unit is 5; the layer has units 0 to 4."),
        (lambda: trace.read("loss", 7), "there is no arm 7."),
        (lambda: trace.population(0), "'none' has no batch norm."),
        (lambda: store.trace(store.create(REAL).id).at("loss", 0, 3), "nothing is recorded yet."),
    ):
        with pytest.raises(KeyError) as said:
            ask()
        assert said.value.args == (sentence,)


def test_a_run_without_steps_reads_as_empty(store):
    trace = store.trace(store.create(REAL).id)
    assert trace.step == -1
    assert trace.read("loss", 0).mean.shape == (0, 2)
    assert trace.read("z_std", 0).mean.shape == (0, 2, 3)
    assert trace.read("gamma", 3, layer=2).mean.shape == (0, 2, 7)
    assert len(trace.scores(0, "test", "none")[0]) == 0
    assert trace.population(3, layer=1, unit=0)[1].shape == (0, 2)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4028235e38, -1.5], np.float32)


def test_nan_infinities_zeros_and_the_smallest_numbers_are_kept(store):
    experiment = small()
    width = {table: len(row) for table, row in nothing(experiment).items()}

    def rows(t):  # a loss or a layer that is not finite is the last that is kept of a network
        of = {table: SPECIAL if table == "samples" or t == 199 else SPECIAL[np.isfinite(SPECIAL)] for table in width}
        return {table: np.resize(np.roll(of[table], t), n) for table, n in width.items()}

    trace = keep(store, store.create(experiment).id, written(experiment, range(200), rows))
    trace.run = trace.run._replace(diverged={})  # what was kept, not what is shown of it
    for table, columns in layout(experiment, 0).items():
        for name, (offset, shape) in columns.items():
            if table == "units":
                continue
            series = trace.read(name if table != "samples" else f"{name}_sample", 1)
            every = np.stack([rows(t)[table][offset : offset + prod(shape)].reshape(shape) for t in range(200)])
            same(series.mean[:, 0], every[..., 1] if table in ("steps", "layers") else every[:, :, 1])


# ---- in few points


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


@pytest.fixture(scope="module", params=[8, 512], ids=["tiny budget", "all exact"])
def noisy(request, tmp_path_factory):
    """A trace of 20,011 steps of noise."""
    store = RunStore(tmp_path_factory.mktemp("noisy"))
    experiment = small(depth=12 if request.param == 8 else 1, steps=len(NOISE))
    experiment = Experiment(
        settings=experiment.settings.model_copy(update={"budget_mb": request.param}), arms=experiment.arms
    )
    yield keep(store, store.create(experiment).id, noise(experiment))
    store.close()


@quickly
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


# ---- when the budget is used up


def test_the_last_steps_stay_exact_and_so_does_every_step_while_the_budget_lasts(noisy):
    budget = noisy.experiment.settings.budget_mb
    for start in (0, len(NOISE) - RECENT):
        series = noisy.read("loss", 0, start=start, points=10**6)
        assert series.exact == (budget == 512 or start > 0)
        if series.exact:
            np.testing.assert_array_equal(series.steps, np.arange(start, len(NOISE)))
            same(series.mean[:, 0], NOISE[start:])
    for step in (len(NOISE) - 1, len(NOISE) - RECENT):
        assert noisy.at("loss", 0, step)[0] == step
        same(noisy.at("loss", 0, step)[1], NOISE[step : step + 1])
    layers = noisy.read("z_std", 0, start=len(NOISE) - RECENT, points=10**6)
    assert layers.exact and len(layers.steps) == RECENT


def stored(store, run_id):
    """Everything that is kept of a run's course, row by row."""
    tables = {"chunks": "first", "summary": "first", "scores": "step", "population": "step"}
    return {
        table: store.db.execute(
            f"select {', '.join(c for c in columns(store, table) if c not in ('id', 'run'))} from {table} "
            f"where run = ? order by stack, {order}, {'kind' if order == 'first' else 'step'}",
            (run_id,),
        ).fetchall()
        for table, order in tables.items()
    }


def columns(store, table):
    return [row[1] for row in store.db.execute(f"pragma table_info({table})")]


def size(store, run_id, *tables):
    """Bytes of data kept of a run."""
    tables = tables or ("chunks", "summary", "scores", "population", "snapshots")
    ask = "select coalesce(sum(length(data)), 0) from {} where run = ?"
    return sum(store.db.execute(ask.format(table), (run_id,)).fetchone()[0] for table in tables)


LONG = small(depth=20, steps=4000)
COLUMNS = {table: len(row) for table, row in nothing(LONG).items()}


@hypothesis_settings(quickly, max_examples=2, phases=[Phase.generate])
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


def lively(t):
    """Rows of LONG that differ at every step, with scores of every network now and then."""
    return {table: np.sin(np.arange(n, dtype=np.float32) + t) for table, n in COLUMNS.items()}


def scored(records, every):
    """The same records with scores, population rows and snapshots at every `every`-th step."""
    batch = batch_slots(LONG, 0)
    moments = np.ones((20, len(batch), 4), np.float32)
    for record in records:
        if record.step % every:
            yield record
            continue
        t = np.float32(record.step)
        scores = [Score(0, "train", s, (0, 1), np.array([t, -t]), np.array([t, t])) for s in ("batch", "moving")]
        population = [Population(0, batch, t * moments, t + moments, -t * moments, moments)]
        yield record._replace(scores=scores, population=population, weights=[np.full(6000, t, np.float32)])


@pytest.mark.parametrize("every, total", [(1, 1500), (50, 4000)])
def test_what_is_stored_stays_within_the_budget(store, every, total):
    run_id, largest = store.create(LONG).id, 0
    with store.writer(run_id) as writer:
        for record in scored(written(LONG, range(total), lively), every):
            writer.keep(record)
            if record.step % 100 == 99:
                writer.commit()
                largest = max(largest, size(store, run_id))
    assert 3_200_000 < largest <= 8_000_000
    files = sum(path.stat().st_size for path in store.directory.iterdir())
    assert files < 2 * 8_000_000
    trace = store.trace(run_id)
    for quantity in ("loss", "grad_norm", "dead"):
        series = trace.read(quantity, 1, start=total - RECENT, points=10**6)
        assert series.exact and len(series.steps) == RECENT
    steps, mean, _ = trace.population(1)
    assert steps[0] == 0 and steps[-1] == total - every
    np.testing.assert_array_equal(mean[:, 0, 0, 0], steps)
    assert trace.snapshots()[-1] == steps[-1]
    steps, loss, _ = trace.scores(0, "train", "batch")
    np.testing.assert_array_equal(loss[:, 0], steps)
    assert steps[0] == 0 and steps[-1] == trace.snapshots()[-1]
    assert len(trace.exact(1, "units")) and trace.read("beta", 1, layer=3, unit=2).steps[-1] > total - 200


@pytest.mark.parametrize("steps, every, weights", [(140, 10, 6000), (20, 1, 65_000)])
def test_nothing_is_thinned_while_all_of_it_fits_the_budget(store, steps, every, weights):
    """Whichever kind of thing takes most of the 8 MB: units and samples, or the snapshots."""
    records = scored(written(LONG, range(steps), lively), every)
    vector = [np.zeros(weights, np.float32)]
    trace = keep(store, store.create(LONG).id, (r._replace(weights=r.weights and vector) for r in records))
    assert 5_600_000 < size(store, trace.run.id) < 8_000_000
    for quantity in ("loss", "grad_norm", "beta", "z_sample"):
        np.testing.assert_array_equal(trace.read(quantity, 1, points=10**6).steps, np.arange(steps))
    for there in (trace.snapshots(), trace.population(1)[0], trace.scores(0, "train", "batch")[0]):
        np.testing.assert_array_equal(there, np.arange(0, steps, every))


def test_weights_that_decay_to_nothing_are_not_called_diverged(store):
    settings = Settings(data="wine", depth=2, width=1, activation="relu", batch_size=32, weight_decay=1.0, steps=6)
    arms = [
        Arm(label="gone at once", changes={"learning_rate": 1.0}),
        Arm(label="decays", changes={"learning_rate": 0.9}),
    ]
    run = store.create(Experiment(settings=settings, arms=arms))
    work.execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    assert trace.run.status == "done" and not trace.diverged
    assert trace.read("weight_norm", 0).mean[1:].max() == 0
    assert np.isfinite(trace.read("update_ratio", 0).mean).all()


def test_what_is_stored_depends_on_the_steps_alone(store):
    """Not on when the clock said to commit, nor on pauses after which some steps are seen twice."""
    whole, broken = store.create(LONG).id, store.create(LONG).id
    keep(store, whole, scored(written(LONG, range(3000), lively), 50))
    random, t = np.random.default_rng(3), 0
    while t < 3000:
        stop = min(3000, t + int(random.integers(200, 900)))
        with store.writer(broken) as writer:
            for record in scored(written(LONG, range(t, stop), lively), 50):
                writer.keep(record)
                if random.uniform() < 0.05:
                    writer.commit()
        t = stop if stop == 3000 else stop // 50 * 50
    a, b = stored(store, whole), stored(store, broken)
    for table in a:
        assert a[table] == b[table], table


@pytest.mark.parametrize("budget_mb", [8, 512])
def test_reading_a_long_run_costs_what_reading_a_short_one_costs(store, monkeypatch, budget_mb):
    experiment = small(depth=1, steps=100_000, data="wine", batch_size=2)
    experiment = experiment.model_copy(
        update={"settings": experiment.settings.model_copy(update={"budget_mb": budget_mb})}
    )
    run_id, count, read = store.create(experiment).id, [0], Trace.rows
    monkeypatch.setattr(
        Trace, "rows", lambda self, *where: (count.__setitem__(0, count[0] + where[1].n), read(self, *where))[1]
    )
    zeros = nothing(experiment)
    records = written(experiment, range(16_000), lambda t: zeros)
    with store.writer(run_id) as writer:
        for record in records:
            writer.keep(record)
            if record.step + 1 in (3000, 9000, 16_000):
                writer.commit()
                for window in ({}, {"start": record.step - 300}):
                    for quantity in ("loss", "z_std"):
                        count[0] = 0
                        series = store.trace(run_id).read(quantity, 1, points=300, **window)
                        assert len(series.steps) <= 600
                        assert count[0] <= 2 * MOST_BUCKETS + CHUNK_ROWS


# ---- networks that diverge


WHERE = [  # what is no longer finite in which layers (none: the loss), and the layer where it began
    ({"a_mean": [3, 4]}, 3),
    ({"z_std": [2], "signal_grad_norm": [1, 2, 3, 4]}, 2),
    ({"signal_grad_norm": [1, 2, 3]}, 3),
    ({"grad_norm": [4], "update_ratio": [4]}, 4),
    ({}, 0),
]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("broken, layer", WHERE)
def test_divergence_is_noted_with_its_first_step_and_layer(store, broken, layer, wrong):
    experiment, at = small(depth=4, steps=300), 77
    columns = layout(experiment, 0)

    def rows(t):
        if t < at:
            return {}
        row, steps = np.ones(len(nothing(experiment)["layers"]), np.float32), np.ones(4, np.float32)
        for name, layers in broken.items():
            offset, shape = columns["layers"][name]
            row[offset : offset + prod(shape)].reshape(shape)[np.array(layers) - 1, 1] = wrong
        if not broken:
            steps[columns["steps"]["loss"][0] + 1] = wrong
        return {"layers": row, "steps": steps}

    run_id = store.create(experiment).id
    trace = keep(store, run_id, written(experiment, range(90), rows))
    assert trace.diverged == {(1, 0): (at, layer)}
    trace = keep(store, run_id, written(experiment, range(60, 130), rows))  # resumed before it
    assert trace.diverged == {(1, 0): (at, layer)}
    for quantity in ("accuracy", "z_mean", "gamma"):
        values = trace.read(quantity, 1).mean
        assert len(values) == 130 and np.isfinite(values[: at + 1]).all() and np.isnan(values[at + 1 :]).all()
    assert np.isfinite(trace.read("z_mean", 0).mean).all()


def test_a_network_that_diverges_leaves_the_others_as_they_are(store):
    settings = Settings(data="diabetes", depth=3, width=8, steps=200, activation="relu", score_every=50)
    calm, wild = Arm(label="calm"), Arm(label="wild", changes={"learning_rate": 100.0, "init_gain": 10.0})
    both = Experiment(settings=settings, arms=(calm, wild))
    alone = Experiment(settings=settings, arms=(calm,))
    traces = []
    for experiment in (both, alone):
        run = store.create(experiment)
        work.execute(store, run.id, lambda: None)
        assert store.run(run.id).status == "done"
        traces.append(store.trace(run.id))
    together, single = traces
    ((network, (step, layer)),) = together.diverged.items()
    assert network == (1, 0) and single.diverged == {}
    records = list(train(both))
    seen = {q: np.stack([r.value(q, 1) for r in records[:-1]]) for q in LAYERS}
    finite = np.isfinite([r.value("loss", 1) for r in records[:-1]])
    finite &= np.all([np.isfinite(values).all(1) for values in seen.values()], 0)
    assert step == finite.argmin() and 0 <= layer <= 3
    for quantity in ("loss", *LAYERS):
        same(together.read(quantity, 0).mean, single.read(quantity, 0).mean)
        assert np.isnan(together.read(quantity, 1).mean[step + 1 :]).all()


# ---- killed, read while written, named, deleted


WRITER = """
import sys, time
from bnlab.store import RunStore
from bnlab.work import execute
execute(RunStore(sys.argv[1]), sys.argv[2], lambda: time.sleep(0.002))
"""


def until(condition, seconds=120):
    """Wait for a condition; generous, for slow machines."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


def same_run(a, b, stop):
    """Whether two traces hold the same numbers up to step `stop`."""
    for arm in range(len(a.experiment.arms)):
        for quantity in NAMES:
            if a.has(quantity, arm):
                x, y = (trace.read(quantity, arm, stop=stop, points=10**6) for trace in (a, b))
                np.testing.assert_array_equal(x.steps, y.steps)
                for i in (1, 2, 3):
                    same(x[i], y[i])
        for statistics in ("none", "batch", "moving", "population"):
            x, y = (trace.scores(arm, "test", statistics) for trace in (a, b))
            n = sum(x[0] <= min(stop, a.step))
            np.testing.assert_array_equal(x[0][:n], y[0][:n])
            same(x[1][:n], y[1][:n])
        if a.has("gamma", arm):
            x, y = a.population(arm), b.population(arm)
            n = len(x[0])
            same(x[1], y[1][:n])
            same(x[2], y[2][:n])


def test_a_killed_writer_leaves_a_prefix_from_which_the_run_goes_on_to_the_same_tables(store):
    settings = SMALL.model_copy(update={"steps": 400, "score_every": 50})
    experiment = Experiment(settings=settings, arms=ARMS[1:4], seeds=(3, 1))
    whole, killed = store.create(experiment), store.create(experiment)
    work.execute(store, whole.id, lambda: None)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.directory), killed.id], cwd=ABOVE)
    until(lambda: store.run(killed.id).step >= 60 or process.poll() is not None)
    process.kill()
    assert process.wait() == -9
    trace = store.trace(killed.id)
    assert 60 <= trace.step < 399 and trace.run.status == "running"
    np.testing.assert_array_equal(trace.read("loss", 0, points=10**6).steps, np.arange(trace.step + 1))
    same_run(trace, store.trace(whole.id), trace.step + 1)
    assert store.db.execute("pragma integrity_check").fetchone() == ("ok",)
    work.execute(store, killed.id, lambda: None)
    assert store.run(killed.id).status == "done" and store.run(killed.id).step == 400
    same_run(store.trace(whole.id), store.trace(killed.id), 401)
    same(store.trace(whole.id).snapshot(400)[0], store.trace(killed.id).snapshot(400)[0])


READER = """
import numpy as np
from bnlab.store import RunStore
store, run_id, end = RunStore(ask[0]), ask[1], int(ask[2])
reads, before = 0, -1
while before < end:
    trace = store.trace(run_id)
    if trace.step < 0:
        continue
    for start in (0, max(0, trace.step - 300), trace.step // 2):
        for points in (50, 10**6):
            for quantity in ("loss", "z_std", "gamma"):
                series = trace.read(quantity, 1, start=start, points=points)
                n, axes = len(series.steps), (-1, *[1] * (series.mean.ndim - 1))
                steps = series.steps.reshape(axes)
                assert (np.diff(series.steps) > 0).all()
                assert n and (quantity == "gamma" or series.steps[0] <= start)
                assert (series.low == steps).all() and (series.low <= series.mean).all(), (quantity, start, points)
                assert (series.high[:-1] < steps[1:]).all(), (quantity, start, points)
                if points > 50 and start == max(0, trace.step - 300) and quantity != "gamma":
                    assert series.exact and series.steps[-1] == trace.step
                reads += 1
    at, value = trace.at("grad_norm", 0, trace.step)
    assert at == trace.step and (value == at).all()
    assert trace.step >= before
    before = trace.step
print(reads)
"""


def test_readers_see_what_was_written_whole_while_more_is_written(store):
    """Every number written is its step; a process and two threads read while the budget makes old rows go."""
    experiment, steps = small(depth=20, steps=4000), 3500
    run_id = store.create(experiment).id
    ask = [str(store.directory), run_id, str(steps - 1)]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{ask = }\n{READER}"], cwd=ABOVE, stdout=subprocess.PIPE, text=True
    )
    failed = []

    def read():
        try:
            exec(READER, {"ask": ask, "print": lambda reads: None})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    columns = {table: len(row) for table, row in nothing(experiment).items()}
    with store.writer(run_id) as writer:
        for record in written(experiment, range(steps), lambda t: {k: np.full(n, t) for k, n in columns.items()}):
            writer.keep(record)
            if record.step % 5 == 0:
                writer.commit()
            if failed:
                process.kill()
            if failed or process.poll():
                break
    told, _ = process.communicate()
    for thread in threads if process.returncode == 0 else ():
        thread.join()
    assert not failed and process.returncode == 0 and int(told) > 0


def test_runs_are_listed_renamed_and_deleted(store):
    first, second = store.create(REAL), store.create(REAL, name="Mine")
    assert [run.id for run in store.runs()] == [second.id, first.id]
    assert first.name == "Wine, 3 × 5 tanh: none, before, after, wider, deeper, 2 seeds" and second.name == "Mine"
    assert first.experiment == REAL and first.status == "queued" and first.step == -1 and not first.ended
    assert all(store.create(REAL).id.isalnum() for _ in range(20)), "a command line takes -x for an option"
    store.rename(first.id, "  two\n words ")
    assert store.run(first.id).name == "two words" and store.run(first.id).version > first.version
    for run in (first, second):
        keep(store, run.id, list(train(REAL))[:70])
    store.delete(first.id)
    assert [run.id for run in store.runs()][-1] == second.id and size(store, first.id) == 0 < size(store, second.id)
    assert len(store.trace(second.id).read("loss", 0).steps) == 70


@pytest.mark.parametrize("name, length", [("", 0), (" \n", 0), ("x" * 121, 121)])
def test_bad_names_are_refused_in_a_sentence(store, name, length):
    run = store.create(REAL)
    with pytest.raises(ValueError) as said:
        store.rename(run.id, name)
    assert str(said.value) == f"the name has {length} characters; allowed are 1 to 120."
    assert store.run(run.id).name == run.name


@pytest.mark.parametrize("ask", ["run", "trace", "delete", "writer", "rename", "change"])
def test_an_unknown_run_is_said_in_a_sentence(store, ask):
    more = {"rename": ["new name"]}.get(ask, [])
    with pytest.raises(KeyError) as said:
        getattr(store, ask)("nobody", *more, **({"status": "done"} if ask == "change" else {}))
    assert said.value.args == ("There is no run 'nobody' here. It may have been deleted; choose another run.",)


def test_a_long_name_is_cut_between_two_words(store):
    arms = tuple(Arm(label=f"arm number {i} with a long label", changes={"alpha": i / 10}) for i in range(6))
    name = store.create(Experiment(arms=arms, seeds=range(8))).name
    assert len(name) <= 120 and name.endswith("…")
    whole = f"Digits, 20 × 64 sigmoid: {', '.join(arm.label for arm in arms)}"
    assert whole.startswith(name[:-1]) and whole[len(name) - 1] in " ,"
    assert store.create(Experiment(), name="x" * 200).name == "x" * 119 + "…"


# ---- weights and looks larger than their share


def on_disk(store):
    return sum(path.stat().st_size for path in store.directory.iterdir())


def test_of_large_weights_the_newest_snapshot_is_kept_alone_and_what_is_deleted_leaves_the_disk(tmp_path):
    """A snapshot of 2.4 MB, where the budget of 8 MB has a share of 0.4 for them."""
    store = RunStore(tmp_path)
    other = store.create(LONG)
    keep(store, other.id, scored(written(LONG, range(20), lively), 5))
    before, run = on_disk(store), store.create(LONG)
    large = (r._replace(weights=r.weights and [np.full(600_000, r.step, np.float32)]) for r in
             scored(written(LONG, range(600), lively), 20))  # fmt: skip
    trace = keep(store, run.id, large)
    assert trace.snapshots() == [580] and (trace.snapshot(580)[0] == 580).all()
    assert on_disk(store) - before < 8_000_000 + 2_400_000
    kept = stored(store, other.id)
    store.delete(run.id)
    assert on_disk(store) < before + 200_000
    assert stored(store, other.id) == kept


def test_old_looks_make_room_and_say_so(tmp_path):
    """Looks of 320 kB, where 8 MB less what is left open hold 23; none goes before."""
    store = RunStore(tmp_path)
    run = store.create(LONG)
    for step in range(50):
        store.keep_look(
            run.id, "rank" if step % 2 else "shift", {}, step, [{"seen": np.full((2, 20_000), step, float)}]
        )
        assert size(store, run.id, "looks") <= 0.95 * 8_000_000
        kept = {
            int(found["seen"][0, 0]) for _, found in store.trace(run.id).found("rank", 0, {}, "") if "seen" in found
        }
        assert kept == {*range(max(1, step - 22), step + 1)} & {*range(1, 50, 2)}
    trace = store.trace(run.id)
    for probe, newest in (("rank", 49), ("shift", 48)):
        assert (trace.look(probe, 0, newest)["seen"] == newest).all()
        assert "it has made room for newer looks" in trace.look(probe, 1, newest - 40)["wrong"][0]
    keep(store, run.id, scored(written(LONG, range(300), lively), 50))
    assert size(store, run.id, "looks") <= 8_000_000 - size(store, run.id)


def test_everything_can_be_looked_at_and_goes_on_where_only_one_snapshot_has_room(tmp_path):
    store = RunStore(tmp_path)
    settings = Settings(depth=4, width=280, optimizer="momentum", batch_size=64, steps=24, score_every=6, budget_mb=8)
    arms = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}))
    whole, broken = (store.create(Experiment(settings=settings, arms=arms)).id for _ in range(2))
    work.execute(store, whole, lambda: None)
    work.execute(store, broken, lambda: None, steps=15)
    assert store.trace(broken).snapshots() == [15]
    fork = store.fork(broken, 1, 15, {"alpha": 0.5}).id
    for run_id in (fork, broken):
        work.execute(store, run_id, lambda: None)
        assert store.run(run_id).status == "done" and store.trace(run_id).snapshots() == [24]
    same(store.trace(whole).snapshot(24)[0], store.trace(broken).snapshot(24)[0])
    for name in figures.FIGURES:
        for probe, step, options in figures.needs(name, store.trace(whole), {}):
            work.look(store, whole, probe, options, step, store.trace(whole).snapshot(step))
        trace = store.trace(whole)
        assert not figures.needs(name, trace, {})
        figures.settle(name, trace, {})
        assert figures.draw(name, trace, {}).to_json()
