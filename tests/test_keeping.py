"""What is kept of a run: all while the budget lasts, then what its steps alone decide; and which networks diverged."""

import contextlib
from math import prod

import numpy as np
import pytest
from known_rows import LONG, keep, lively, nothing, same, scored, size, small, written
from looked_at import thinned

from bnlab import executing, figures, looking
from bnlab.database import OF_A_RUN
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.keeping import RECENT
from bnlab.run import Taken
from bnlab.store import RunStore
from bnlab.trace import LAYERS, Score, layout
from bnlab.train import train


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


@pytest.mark.parametrize("steps", [1, 129])
def test_of_rows_that_make_room_one_that_is_alone_in_its_chunk_stays(store, steps):
    experiment = small(depth=1, steps=steps)
    units = np.ones_like(nothing(experiment)["units"])
    trace = keep(store, store.create(experiment).id, written(experiment, range(steps), lambda t: {"units": t * units}))
    thinned(store, trace, 2)
    series = store.trace(trace.run.id).read("beta", 1, layer=1, unit=0)
    np.testing.assert_array_equal(series.steps, range(0, steps, 2))
    np.testing.assert_array_equal(series.mean[:, 0], range(0, steps, 2))
    sizes = store.db.execute("select n from chunks where run = ? and kind = 'units' order by first", (trace.run.id,))
    assert sizes.fetchall()[-1] == (1,), "the test's own rows"


def test_rows_that_all_lie_before_a_step_are_forgotten_but_for_the_first_of_all(store):
    experiment = small(depth=1)
    trace = keep(store, store.create(experiment).id, written(experiment, range(200), lambda t: {}))
    (table,) = (t for t in store.writer(trace.run.id).tables if t.kind == "steps")
    ask = "select first, n from chunks where run = ? and kind = 'steps' order by first"
    for before, left in ((127, [(0, 1), (64, 64), (128, 64), (192, 8)]), (128, [(0, 1), (128, 64), (192, 8)])):
        with store.transaction() as db:
            table.forget(db, before)
        assert store.db.execute(ask, (trace.run.id,)).fetchall() == left and table.bytes == table.stored()


@pytest.mark.parametrize("scorings, kept", [(1024, 1024), (1025, 513)])
def test_of_more_than_1024_scorings_every_second_makes_room(store, scorings, kept):
    experiment = small(depth=1)
    score = Score(0, "train", "none", (0, 1), np.zeros(2), np.zeros(2))
    with store.writer(store.create(experiment).id) as writer:
        writer.pending += written(experiment, range(scorings), lambda t: {}, [score])
    steps = store.trace(writer.run_id).scores(0, "train", "none")[0]
    assert len(steps) == kept and steps[-1] == scorings - 1


def test_a_snapshot_larger_than_the_budget_leaves_half_of_it_to_the_rows(store):
    experiment, vector = small(depth=1, steps=100), [np.zeros(2_100_000, np.float32)]
    records = (r._replace(weights=None if r.step else vector) for r in written(experiment, range(100), lambda t: {}))
    trace = keep(store, store.create(experiment).id, records)
    assert trace.snapshots() == [0] and size(store, trace.run.id, "snapshots") > 8_000_000
    np.testing.assert_array_equal(trace.read("beta", 1, layer=1, unit=0).steps, range(100))


def test_an_update_of_weights_that_are_all_0_is_infinite_relative_to_them_and_no_divergence(store):
    experiment = small(depth=4)
    (offset, shape), row = layout(experiment, 0)["layers"]["update_ratio"], nothing(experiment)["layers"]
    row[offset : offset + prod(shape)].reshape(shape)[1, 1] = np.inf
    trace = keep(store, store.create(experiment).id, written(experiment, range(20), lambda t: {"layers": row}))
    assert trace.diverged == {} and np.isinf(trace.read("update_ratio", 1).mean).any()


def test_weights_that_decay_to_nothing_are_not_called_diverged(store):
    settings = Settings(data="wine", depth=2, width=1, activation="relu", batch_size=32, weight_decay=1.0, steps=6)
    arms = [
        Arm(label="gone at once", changes={"learning_rate": 1.0}),
        Arm(label="decays", changes={"learning_rate": 0.9}),
    ]
    run = store.create(Experiment(settings=settings, arms=arms))
    executing.execute(store, run.id, lambda: None)
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


def test_pauses_do_not_decide_which_snapshots_make_room(store):
    """Of 8 MB snapshots of 80 kB have what the rows leave; pauses come before, between and beside the scorings."""
    experiment = small(depth=20, steps=2000, score_every=50)
    whole, paused = store.create(experiment).id, store.create(experiment).id
    vector = [np.zeros(20_000, np.float32)]

    def records(start, stop):
        for record in written(experiment, range(start, stop), lambda t: {}):
            yield record._replace(weights=None if record.step % 50 else vector)

    told = []
    for stop in (3, 5, 120, 250, 301, 302, 303, 620, 790, 791, 999, 1333, 1600, 1999):
        keep(store, whole, records(store.run(whole).step + 1, stop))
        with store.writer(paused) as writer:
            for record in records(store.run(paused).step + 1, stop):
                writer.keep(record)
            one, other = (store.trace(run_id).snapshots() for run_id in (whole, paused))
            told.append((stop, one, [t for t in other if t % 50 == 0]))
            writer.snapshot(stop, vector)
    for stop, one, other in told:
        assert one == other, stop
    assert len(told[-1][1]) < 20, "of 40 some made room"
    assert store.trace(paused).snapshots()[-1] == 1999, "from which training goes on"


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
        executing.execute(store, run.id, lambda: None)
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


@pytest.mark.parametrize("last", ["keep", "snapshot", "score", "nothing"])
def test_of_a_run_that_is_deleted_while_it_is_written_nothing_stays(store, last):
    run_id = store.create(LONG).id
    records = list(scored(written(LONG, range(60), lively), 20))
    told = contextlib.nullcontext() if last == "score" else pytest.raises(KeyError, match="It may have been deleted")
    with told, store.writer(run_id) as writer:
        for record in records[:30]:
            writer.keep(record)
        writer.commit()
        store.delete(run_id)
        if last == "keep":
            for record in records[30:]:
                writer.keep(record)
        elif last == "snapshot":
            writer.snapshot(30, [np.zeros(6000, np.float32)])
        elif last == "score":
            writer.score(records[40])
        else:
            writer.pending.append(records[30])  # written when the writer ends
    rows = {table: store.db.execute(f"select count(*) from {table}").fetchone()[0] for table in OF_A_RUN}
    assert rows == dict.fromkeys(OF_A_RUN, 0) and not store.runs()


@pytest.mark.parametrize("last", ["keep", "snapshot"])
def test_of_two_writers_of_one_run_the_first_to_add_a_step_goes_on_and_the_other_ends(store, last):
    run_id, alone = store.create(LONG).id, store.create(LONG).id
    records = list(scored(written(LONG, range(150), lively), 20))
    keep(store, alone, records)
    keep(store, run_id, records[:50])
    with store.writer(run_id) as goes_on:
        taken = pytest.raises(Taken, match=f"^run {run_id} is being trained by another process")
        with taken, store.writer(run_id) as ends:
            for writer in (ends, goes_on):
                for record in records[40:50]:  # again from a snapshot
                    writer.keep(record)
                writer.commit()
            for record in records[50:130]:
                goes_on.keep(record)
            goes_on.commit()
            if last == "keep":
                for record in records[50:]:
                    ends.keep(record)
            else:
                ends.snapshot(60, [np.zeros(6000, np.float32)])
        for record in records[130:]:
            goes_on.keep(record)
    assert store.run(run_id).step == 149 and store.trace(run_id).snapshots() == store.trace(alone).snapshots()
    for quantity in ("loss", "grad_norm", "gamma", "z_sample"):
        a, b = (store.trace(r).read(quantity, 1, points=10**6) for r in (run_id, alone))
        np.testing.assert_array_equal(a.steps, b.steps)
        same(a.mean, b.mean)
    for table in ("scores", "population"):
        assert stored(store, run_id)[table] == stored(store, alone)[table]


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
        kept = {int(seen) for seen in store.trace(run.id).looks("rank", 0)[1].get("seen", np.empty((0, 1, 1)))[:, 0, 0]}
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
    executing.execute(store, whole, lambda: None)
    executing.execute(store, broken, lambda: None, steps=15)
    assert store.trace(broken).snapshots() == [15]
    fork = store.fork(broken, 1, 15, {"alpha": 0.5}).id
    for run_id in (fork, broken):
        executing.execute(store, run_id, lambda: None)
        assert store.run(run_id).status == "done" and store.trace(run_id).snapshots() == [24]
    same(store.trace(whole).snapshot(24)[0], store.trace(broken).snapshot(24)[0])
    for name in figures.FIGURES:
        for probe, step, options in figures.needs(name, store.trace(whole), {}):
            looking.look(store, whole, probe, options, step, store.trace(whole).snapshot(step))
        trace = store.trace(whole)
        assert not figures.needs(name, trace, {})
        figures.settle(name, trace, {})
        assert figures.draw(name, trace, {}).to_json()
