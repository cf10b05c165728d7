"""Which looks are kept and shown: of long runs, and of runs that still train."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from looked_at import BN, SMALL, taken

from bnlab import figures, looking, scorings
from bnlab.database import FULL, Full, Unkept
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import dials
from bnlab.figures.looks import MARKS
from bnlab.lineage import seen
from bnlab.looking import look
from bnlab.probes import PROBES
from bnlab.reading import Trace


def finite(trace, name: str) -> bool:
    """Whether the figure has a curve or surface with a number in it."""
    drawn = figures.draw(name, trace, {}).data
    return any(np.isfinite(np.asarray(getattr(t, a), float)).any() for t in drawn for a in "yz" if t[a] is not None)


def test_a_look_at_more_snapshots_does_not_lose_an_earlier_one(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None, steps=12)
    for name in ("inference", "path"):
        taken(store, run.id, name, 10)
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    for name in ("inference", "path"):
        before = trace.look(name, 0, 10)
        taken(store, run.id, name, 40)
        after = trace.look(name, 0, 10)
        assert all(np.array_equal(before[q], after[q], equal_nan=True) for q in before)
        assert trace.look(name, 0, 40) is not None
        assert 40 in trace.looks(name, 0)[0]


def test_the_weights_on_which_a_run_was_stopped_are_the_newest_that_can_be_looked_at(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    wishes = iter([None] * 22 + ["stop"])  # pieces of two scorings among them
    execute(store, run.id, lambda: next(wishes))
    trace = store.trace(run.id)
    stopped = trace.snapshots()[-1]
    assert trace.run.made == stopped == trace.step + 1 > 6
    for query in ({}, {"step": str(trace.step)}, {"step": str(stopped)}):
        assert figures.needs("mistakes", trace, query) == [("broken", stopped, {})]
        assert figures.needs("surface", trace, query)[0][1] == stopped
    assert figures.needs("mistakes", trace, {"step": str(trace.step - 1)}) == [("broken", 5, {})]


def test_a_look_that_went_wrong_is_left_out_of_those_that_did_not(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    taken(store, run.id, "rank", 5)
    store.keep_wrong(run.id, "rank", {}, 10, "it was dark.")
    taken(store, run.id, "rank", 15)
    trace = store.trace(run.id)
    assert trace.look("rank", 0, 10)["wrong"].tolist() == ["it was dark."]
    steps, _ = trace.looks("rank", 0)
    assert {5, 15} <= set(steps.tolist()) and 10 not in steps


def looked_often(store, n: int) -> str:
    """The id of a run of two arms at which both probes over time have looked n times, at the steps 0, 5, ..."""
    run = store.create(Experiment(settings=SMALL, arms=(BN, Arm(label="LN", changes={"norm": "layer"}))))
    execute(store, run.id, lambda: None)
    for probe in ("gradient_line", "shift", "curvature"):
        taken(store, run.id, probe, 40)
    with store.transaction() as db:
        db.execute("delete from looks where run = ? and step < 40", (run.id,))
        for k in range(n - 1):
            copy = "insert or replace into looks select run, stack, probe, options, ?, data from looks where step = 40"
            db.execute(copy, (5 * k if 5 * k != 40 else 5 * n,))
    return run.id


def test_of_many_looks_about_a_hundred_are_read_once_for_all_arms(store, monkeypatch):
    run_id, read = looked_often(store, 350), []
    whole = scorings.loaded
    monkeypatch.setattr(scorings, "loaded", lambda data: read.append(1) or whole(data))
    for name, options in (("smoothness", {}), ("curvature", {})):
        read.clear()
        drawn = figures.draw(name, store.trace(run_id), options)
        steps = next(line.x for line in drawn.data if line.mode == "lines+markers")
        there = store.trace(run_id).looked("curvature")
        assert len(there) == 350 and 50 < len(steps) <= MARKS + 1
        assert steps[0] == there[0] == 0 and steps[-1] == there[-1]
        assert np.ptp(np.diff(steps)[:-1]) <= 5, "evenly"
        assert len(read) == len(steps)
        assert f"Of 350 looks {len(steps)} are drawn, evenly chosen." in drawn.layout.meta["note"]


def test_what_went_wrong_takes_no_place_of_a_look_that_is_drawn(store):
    run_id = looked_often(store, 180)
    steps = store.trace(run_id).looked("curvature")
    for step in steps[:100]:
        store.keep_wrong(run_id, "curvature", {"iterations": 10}, step, "it made room.")
    drawn = figures.draw("curvature", store.trace(run_id), {})
    assert [*next(line.x for line in drawn.data if line.mode == "lines+markers")] == steps[100:]
    assert "evenly chosen" not in drawn.layout.meta["note"]


def test_the_dials_read_the_looks_they_are_means_over_and_no_others(store, monkeypatch):
    run_id, read = looked_often(store, 350), []
    trace, whole = store.trace(run_id), Trace.looks
    monkeypatch.setattr(
        Trace, "looks", lambda *of, **by: read.append((whole(*of, **by))[0].tolist()) or whole(*of, **by)
    )
    at = dials.moments(trace)
    dials.dial(trace, 0, at)
    assert 4 <= len(at) <= 8 and read == [at, at]


def test_lists_of_looks_that_are_held_are_few(store):
    trace = store.trace(looked_often(store, 60))
    for step in range(45, 45 + 5 * 40, 5):
        trace.looks("shift", 0, at=[step])
    assert len(trace.looks_read) == scorings.MOST_READ


def test_while_a_run_trains_its_newest_look_is_shown(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None, steps=12)
    taken(store, run.id, "alphas", 10)
    execute(store, run.id, lambda: None, steps=10)
    trace = store.trace(run.id)
    assert figures.needs("alpha_curve", trace, {}), "nobody has looked at the newest snapshot"
    figures.settle("alpha_curve", trace, {})
    assert trace.horizon == 10 and finite(trace, "alpha_curve")
    taken(store, run.id, "alphas", 20)
    assert trace.looked("alphas") == [10] and store.trace(run.id).looked("alphas") == [10, 20]
    other = store.trace(run.id)
    figures.settle("surface", other, {})
    assert other.horizon is None, "nothing was looked at: the figure says so"
    execute(store, run.id, lambda: None)
    ended = store.trace(run.id)
    assert ended.run.ended and figures.needs("alpha_curve", ended, {})
    figures.settle("alpha_curve", ended, {})
    assert ended.horizon is None, "the look at its end comes: no older one is drawn as the newest"


@pytest.mark.parametrize("stacks", [1, 3])
def test_of_many_looks_of_one_probe_the_newest_stay_whole(store, monkeypatch, stacks):
    monkeypatch.setattr("bnlab.store.MOST_LOOKS", 4)
    arms = tuple(Arm(label=f"{depth} layers", changes={"depth": depth}) for depth in range(1, stacks + 1))
    run_id = store.create(Experiment(settings=SMALL, arms=arms)).id
    for probe, step in [("shift", 7), *(("rank", step) for step in (6, 5, 4, 3, 2, 1))]:
        store.keep_look(run_id, probe, {}, step, [{"seen": np.ones(1)}] * stacks)
    kept = store.db.execute("select probe, step, stack from looks order by rowid").fetchall()
    stay = [("shift", 7), ("rank", 4), ("rank", 3), ("rank", 2), ("rank", 1)]
    assert kept == [(*look, stack) for look in stay for stack in range(stacks)]


def test_of_weights_that_are_gone_a_look_says_so(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    look(store, run.id, "rank", {}, 3, [])
    (said,) = store.trace(run.id).look("rank", 0, 3)["wrong"]
    assert "step 3" in said


def test_a_figure_that_has_nothing_at_the_start_waits_for_its_look(store):
    """While a run trained it settled on step 0, where nothing needs to be looked at: "Choose a later step."."""
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    asked = Settings(depth=2, width=4, data="wine", batch_size=16, steps=40, score_every=10)
    run = store.create(Experiment(settings=asked, arms=arms))
    execute(store, run.id, lambda: None)
    store.change(run.id, status="running")
    trace = store.trace(run.id)
    figures.settle("why_off", trace, {})
    assert "Computing this chart" in figures.draw("why_off", trace, {}).layout.meta["said"]
    look(store, run.id, "off", {}, 20, trace.snapshot(20))
    trace = store.trace(run.id)
    figures.settle("why_off", trace, {})
    assert "before update 20:" in figures.draw("why_off", trace, {}).layout.meta["note"]


def test_a_look_back_belongs_to_one_moment_of_a_run_whose_rows_make_room(store, monkeypatch):
    """It said "no such rowid: 934" in place of a chart, for good."""
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    whole, (expected,) = Trace.on_disk, seen(store.trace(run.id))

    def thinned_meanwhile(trace, source, *where):
        found = whole(trace, source, *where)

        def thin():
            with store.transaction() as db:
                db.execute("update chunks set id = id + 1000 where run = ? and kind = 'units'", (run.id,))

        with ThreadPoolExecutor(1) as other:
            other.submit(thin).result()
        return found

    monkeypatch.setattr(Trace, "on_disk", thinned_meanwhile)
    (found,) = seen(store.trace(run.id))
    np.testing.assert_array_equal(found.batch_var, expected.batch_var)


def test_a_look_that_cannot_be_kept_fails_no_training(store, monkeypatch):
    """The run was `failed` at the first live look, though its own rows could be kept."""
    tried = []

    def full(*asked):
        tried.append(asked)
        raise Full(FULL)

    monkeypatch.setattr(store, "keep_look", full)
    settings = SMALL.model_copy(update={"steps": 1000, "score_every": 100})
    run = store.create(Experiment(settings=settings, arms=(BN,)))
    execute(store, run.id, lambda: None)
    assert tried and store.run(run.id).status == "done"


def test_what_went_wrong_with_the_file_of_runs_is_not_said_of_the_networks(store, monkeypatch):
    """It is gone with the next look."""
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    whole = looking.seen

    def locked(trace):
        monkeypatch.setattr(looking, "seen", whole)
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(looking, "seen", locked)
    back = next(name for name, probe in PROBES.items() if probe.back)
    with pytest.raises(Unkept, match="database is locked"):
        taken(store, run.id, back, 40)
    assert store.trace(run.id).look(back, 0, 40) is None
    taken(store, run.id, back, 40)
    assert "wrong" not in store.trace(run.id).look(back, 0, 40)
