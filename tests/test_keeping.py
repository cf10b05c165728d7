"""What is kept of a run: all while the budget lasts, then what its steps alone decide."""

import numpy as np
import pytest
from known_rows import LONG, keep, lively, nothing, same, scored, size, small, stored, written
from looked_at import thinned

from bnlab import budget, executing, figures, looking
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.keeping import RECENT
from bnlab.record import Score
from bnlab.store import RunStore


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


def test_a_writer_counts_what_the_file_has(store):
    """What it counted of the summary was less, by what each chunk takes beside its numbers."""
    with store.writer(store.create(LONG).id) as writer:
        for record in scored(written(LONG, range(1500), lively), 50):
            writer.keep(record)
            if record.step in (7, 300, 1499):  # as it comes, before and after room is made
                writer.commit()
                counted = writer.used()
                counted["chunks"] = counted.pop("scalars") + counted.pop("heavy")
                assert counted == {name: budget.size(store.db, writer.run_id, name) for name in counted}
        assert writer.stride > 1, "room was made"


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
        assert "its numbers made room for newer ones" in trace.look(probe, 1, newest - 40)["wrong"][0]
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
