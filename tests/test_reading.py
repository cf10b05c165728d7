"""Reading gives back what was seen, to the last bit, while a run is written, at a cost that does not grow with it."""

import subprocess
import sys
import threading
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from known_rows import ARMS, REAL, keep, nothing, same, small, written

from bnlab.keeping import CHUNK_ROWS, MOST_BUCKETS
from bnlab.process import ABOVE
from bnlab.reading import NAMES, Series, Trace, bucketed
from bnlab.record import layout
from bnlab.store import RunStore
from bnlab.train import train


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
                near = record.step + 3  # scorings are further apart
                found, *nearest = trace.inference(arm, near=near)
                assert found.tolist() == [record.step]
                same(nearest[0][0, at[1]], population.mean[:, i])
                steps, _, _, mean, var = trace.inference(arm)
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
    for near, step in ((-9, 0), (20, 0), (21, 40), (10**6, 150)):  # of two equally near the first
        assert trace.inference(1, near=np.int64(near))[0].tolist() == [step]
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


@hypothesis_settings(deadline=None)
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
        assert at == range(step, step + 1)
        same(values[1], records[step].value("grad_norm", 3, 1))
    assert trace.at("grad_norm", 3, 10_000)[0] == range(149, 150)


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
    assert at == range(trace.step, trace.step + 1) and (value == trace.step).all()
    assert trace.step >= before
    before = trace.step
print(reads)
"""


def test_readers_see_what_was_written_whole_while_more_is_written(store):
    """Every number written is its step; a process and two threads read while the budget makes old rows go."""
    experiment, steps = small(depth=20, steps=4000), 2500  # summaries take the place of old rows from 2300 on
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


def test_a_bucket_keeps_its_ends_before_exact_rows():
    steps, mean = np.array([0, 4]), np.array([[2.0], [6.0]])
    buckets, exact = Series(steps, mean, mean - 1, mean + 1), Series(np.array([8, 9]), *[np.array([[8.0], [9.0]])] * 3)
    both = buckets.followed(exact)
    assert not both.exact and both.steps.tolist() == [0, 4, 8, 9]
    assert both.low.ravel().tolist() == [1, 5, 8, 9] and both.high.ravel().tolist() == [3, 7, 8, 9]
    assert exact.followed(Series(np.array([10]), *[np.array([[10.0]])] * 3)).exact


@pytest.mark.parametrize("n", [101, 150, 200])
def test_of_buckets_no_more_are_given_than_asked_for(n):
    values = np.arange(n, dtype=np.float32)[:, None]
    thinned = Series(8 * np.arange(n), values, values - 1, values + 1)
    assert len(bucketed(thinned, 100, np.full(n, 8)).steps) <= 101
    assert len(bucketed(Series(np.arange(n), *[values] * 3), 100, np.ones(n, int)).steps) == n, "exact rows stay"
