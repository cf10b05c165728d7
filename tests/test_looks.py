"""Looks at runs that still train, at networks that diverged, and by processes that die."""

import gc
import os
import signal
import weakref

import numpy as np
import pytest
import torch
from at_work import until

from bnlab import executing, figures, looking, scorings
from bnlab.database import FULL, Full
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import dials
from bnlab.figures.looks import MARKS
from bnlab.jobs import Jobs
from bnlab.keeping import Writer
from bnlab.looker import Looker
from bnlab.looking import look
from bnlab.probes import PROBES, Copies, checked, schedule
from bnlab.reading import Trace
from bnlab.store import RunStore
from bnlab.train import train

BN = Arm(label="BN", changes={"norm": "batch"})
SMALL = Settings(data="wine", depth=3, width=6, batch_size=16, steps=40, score_every=5)
DIVERGES = Arm(label="diverges", changes={"learning_rate": 50.0})


@pytest.fixture
def jobs(store):
    """A queue that has nobody to train, only the process that looks."""
    jobs = Jobs(store, workers=0)
    jobs.looker = Looker(store)
    yield jobs
    jobs.close()


def taken(store: RunStore, run_id: str, name: str, step: int, **options) -> None:
    look(store, run_id, name, options, step, [np.frombuffer(v, np.float32) for v in store.snapshot(run_id, step)])


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
    assert len(trace.seen) == scorings.MOST_SEEN


@pytest.mark.parametrize("name", [n for n, p in PROBES.items() if not p.back])
def test_a_network_that_diverged_takes_nothing_from_the_others(name):
    arms = (Arm(label="plain"), BN, Arm(label="LN", changes={"norm": "layer"}))
    whole = Experiment(settings=SMALL, arms=(*arms, DIVERGES))
    record = next(iter(train(whole)))
    copies = Copies(whole)
    (vector,) = record.weights
    slots = copies.groups[0].stack
    place = [n.arm for n in whole.stacks[0]].index(3)
    options = {q: asked.default for q, asked in PROBES[name].options.items()}
    (right,) = copies.look(name, options, 0, [vector])
    slots.restore(0, vector)
    slots.p["weight"].select(-3, place).fill_(torch.nan)
    slots.p["readout"][place, 0, 0] = torch.inf
    (found,) = copies.look(name, options, 0, [slots.snapshot()])
    others = [slot for slot in range(slots.S) if slot != place]
    for q, values in found.items():
        assert np.array_equal(values[others], right[q][others], equal_nan=True), q
        assert values.dtype.kind != "f" or np.isnan(values[place]).all()


def test_while_a_run_trains_its_newest_look_is_shown(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None, steps=12)
    taken(store, run.id, "alphas", 10)
    execute(store, run.id, lambda: None, steps=10)
    trace = store.trace(run.id)
    assert figures.needs("alpha_curve", trace, {}), "nobody has looked at the newest snapshot"
    figures.settle("alpha_curve", trace, {})
    assert trace.horizon == 10 and finite(trace, "alpha_curve")
    other = store.trace(run.id)
    figures.settle("surface", other, {})
    assert other.horizon is None, "nothing was looked at: the figure says so"
    execute(store, run.id, lambda: None)
    ended = store.trace(run.id)
    assert ended.run.ended and figures.needs("alpha_curve", ended, {})
    figures.settle("alpha_curve", ended, {})
    assert ended.horizon is None, "the look at its end comes: no older one is drawn as the newest"


def test_copies_of_one_run_are_held(store):
    held = []
    for _ in range(2):
        run = store.create(Experiment(settings=SMALL, arms=(BN,)))
        execute(store, run.id, lambda: None)
        taken(store, run.id, "rank", 20)
        held.append(weakref.ref(looking.copies(store, run.id)))
    gc.collect()
    assert [copies() is None for copies in held] == [True, False]


@pytest.mark.parametrize("times", [1, 2])
def test_a_look_that_finds_no_memory_is_taken_once_more_without_what_was_held(store, monkeypatch, times):
    """Allocators fail in their own words."""
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    made, found = [], Copies.looking

    def looking(self, *asked):
        made.append(self)
        if len(made) <= times:
            np.empty(2**56) if len(made) == 1 else torch.empty(2**58)
        return (yield from found(self, *asked))

    monkeypatch.setattr(Copies, "looking", looking)
    taken(store, run.id, "rank", 20)
    assert len(made) == 2 and made[0] is not made[1]
    told = store.trace(run.id).look("rank", 0, 20)
    assert ("wrong" in told) == (times == 2) and ("allocate" in str(told.get("wrong"))) == (times == 2)


def test_of_many_looks_of_one_probe_the_newest_stay(store, monkeypatch):
    monkeypatch.setattr("bnlab.store.MOST_LOOKS", 3)
    run_id = store.create(Experiment(settings=SMALL, arms=(BN,))).id
    for probe, step in [("shift", 7), *(("rank", step) for step in (5, 4, 3, 2, 1))]:
        store.keep_look(run_id, probe, {}, step, [{"seen": np.ones(1)}])
    kept = store.db.execute("select probe, step from looks order by rowid").fetchall()
    assert kept == [("shift", 7), ("rank", 3), ("rank", 2), ("rank", 1)]


def test_a_looking_process_that_dies_is_told(store, jobs):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    jobs.looker.look(store, run.id, "landscape", {"points": 41}, 40)
    jobs.looker.look(store, run.id, "rank", {}, 20)
    assert jobs.looker.looking_at(run.id) == [("landscape", 40, {"points": 41}), ("rank", 20, {})]
    os.kill(jobs.looker.process.popen.pid, signal.SIGKILL)
    until(lambda: not jobs.looker.looking_at(run.id))  # the other one is told to another process
    said = store.trace(run.id).look("landscape", 0, 40, points=41)
    assert said["wrong"].tolist() == ["the process that looked ended with signal 9."]
    assert "wrong" not in store.trace(run.id).look("rank", 0, 20)
    jobs.looker.look(store, run.id, "rank", {}, 40, wait=60)
    assert "wrong" not in store.trace(run.id).look("rank", 0, 40)


def test_a_look_that_had_not_begun_when_the_process_died_is_taken_by_the_next(store, jobs):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    jobs.looker.look(store, run.id, "rank", {}, 20, wait=60)
    os.kill(process := jobs.looker.process.popen.pid, signal.SIGSTOP)
    jobs.looker.look(store, run.id, "rank", {}, 40)
    os.kill(process, signal.SIGKILL)
    until(lambda: not jobs.looker.waiting)
    assert "wrong" not in store.trace(run.id).look("rank", 0, 40)


def test_on_a_full_disk_a_process_that_dies_takes_no_other_look_with_it(store, jobs, monkeypatch):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)

    def full(*_):
        raise Full(FULL)

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "keep_wrong", full)
        jobs.looker.look(store, run.id, "landscape", {"points": 41}, 40)
        jobs.looker.look(store, run.id, "rank", {}, 20)
        jobs.looker.process.popen.kill()
        until(lambda: not jobs.looker.waiting)
    assert store.trace(run.id).look("landscape", 0, 40, points=41) is None
    assert "wrong" not in store.trace(run.id).look("rank", 0, 20)


@pytest.mark.parametrize("first", ["score", "look"])
def test_a_process_that_dies_over_a_scoring_blames_no_look_and_one_that_dies_over_a_look_loses_no_scoring(
    store, jobs, first
):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None, steps=13)
    ask = {"score": lambda: jobs.stop(run.id), "look": lambda: jobs.looker.look(store, run.id, "rank", {}, 10)}
    for name in sorted(ask, key=lambda name: name != first):
        ask[name]()
    assert jobs.looker.looking_at(run.id) == [("rank", 10, {})]
    os.kill(jobs.looker.process.popen.pid, signal.SIGKILL)
    until(lambda: not jobs.looker.waiting)
    trace = store.trace(run.id)
    assert ("wrong" in trace.look("rank", 0, 10)) == (first == "look")
    assert (trace.scores(0, "test", "moving")[0][-1] == store.run(run.id).step + 1) == (first == "look")


def test_looks_of_one_moment_are_taken_one_by_one_and_none_is_waited_for(store, monkeypatch):
    """Curves go on between them; a run that is stopped has stopped before those that are due."""
    settings = SMALL.model_copy(update={"steps": 1000, "score_every": 100})
    planned = schedule(Experiment(settings=settings, arms=(BN,)))
    kept, seen = set(), []
    keep = Writer.keep
    monkeypatch.setattr(Writer, "keep", lambda self, record: (kept.add(record.step), keep(self, record)))
    noted = lambda s, i, name, o, step, w: iter([seen.append((name, step, len(kept)))])  # noqa: E731
    monkeypatch.setattr(looking, "pieces", noted)
    run = store.create(Experiment(settings=settings, arms=(BN,)))
    execute(store, run.id, lambda: None)
    looks = {(name, step) for name, every in planned.items() for step in range(0, 1001, every)}
    assert len(seen) == len(looks) and {look[:2] for look in seen} == looks
    assert all(at == 1001 for _, step, at in seen if step == 1000)
    before = [at for _, step, at in seen if step < 1000]
    assert len(planned) > 2 and len(set(before)) == len(before), "never two after one step"

    at = lambda s, i, name, o, step, w: iter([seen.append((name, step, store.run(i).status))])  # noqa: E731
    monkeypatch.setattr(looking, "pieces", at)
    seen.clear()
    run = store.create(Experiment(settings=settings, arms=(BN,)))
    execute(store, run.id, lambda: "stop" if store.last_snapshot(run.id) else None)
    assert seen == [(name, 0, "stopped") for name in planned]


def test_a_wish_does_not_wait_for_a_look(store, monkeypatch):
    """What comes into a look ends it between two of its pieces, and the look is due again."""
    settings = SMALL.model_copy(update={"steps": 1000, "score_every": 100})
    planned = list(schedule(Experiment(settings=settings, arms=(BN,))))
    begun, wishes = [], []

    def pieces(s, i, name, o, step, w):
        begun.append(name)
        for _ in range(1000):
            if len(begun) == 2:
                wishes.append("pause")
            yield

    monkeypatch.setattr(looking, "pieces", pieces)
    run = store.create(Experiment(settings=settings, arms=(BN,)))
    status, left = executing.train_run(store, run.id, lambda: wishes.pop() if wishes else None)
    assert status == "paused"
    run = store.run(run.id)
    assert run.status == "paused" and 0 < run.step < 100 and begun == planned[:2]
    assert [(name, step) for name, step, _ in left] == [(name, 0) for name in planned[1:]]
    assert store.last_snapshot(run.id)[0] == run.step + 1


@pytest.mark.parametrize("name", ["curvature", "jacobian", "shift"])
def test_between_the_pieces_of_a_look_a_training_goes_on(name):
    """Both see what they see alone, to the last bit; and there are many pieces."""
    experiment = Experiment(settings=SMALL.model_copy(update={"depth": 6}), arms=(Arm(label="none"), BN))
    records = train(experiment)
    weights = next(records).weights
    options, pieces = checked(name, {}), 0
    looking = Copies(experiment).looking(name, options, 0, weights)
    beside = []
    while True:
        try:
            next(looking)
        except StopIteration as end:
            (seen,) = end.value
            break
        assert torch.is_grad_enabled()
        pieces += 1
        beside.append(next(records).snapshot()[0])
    assert pieces >= 5
    (alone,) = Copies(experiment).look(name, options, 0, weights)
    assert all(np.array_equal(seen[q], alone[q], equal_nan=True) for q in alone)
    for record, vector in zip(train(experiment), [None, *beside], strict=False):
        assert vector is None or np.array_equal(record.snapshot()[0], vector)


def test_looks_left_by_a_run_that_rests_are_taken_by_the_process_that_looks(store):
    jobs = Jobs(store, workers=1)
    try:
        settings = SMALL.model_copy(update={"steps": 1000, "score_every": 100})
        run = store.create(Experiment(settings=settings, arms=(BN,)))
        jobs.step(run.id)
        planned = schedule(run.experiment)
        until(lambda: all(store.trace(run.id).look(name, 0, 0) is not None for name in planned))
        assert store.run(run.id).status == "paused" and store.run(run.id).step == 0
        trace = store.trace(run.id)
        other = RunStore(store.directory / "other")
        execute(other, (all_ := other.create(run.experiment)).id, lambda: None, steps=1)
        for name in planned:
            here, there = (t.look(name, 0, 0) for t in (trace, other.trace(all_.id)))
            assert all(np.array_equal(here[q], there[q], equal_nan=True) for q in there), name
        other.close()
    finally:
        jobs.close()


def test_of_weights_that_are_gone_a_look_says_so(store):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    look(store, run.id, "rank", {}, 3, [])
    (said,) = store.trace(run.id).look("rank", 0, 3)["wrong"]
    assert "step 3" in said


def test_the_looks_of_a_stopped_run_are_left_also_where_it_is_resumed_while_it_is_scored(store, monkeypatch):
    run = store.create(Experiment(settings=SMALL.model_copy(update={"steps": 1000, "score_every": 100}), arms=(BN,)))
    monkeypatch.setattr(Writer, "score", lambda self, record: store.change(run.id, status="queued"))
    asked = lambda: "stop" if store.last_snapshot(run.id) else None  # noqa: E731
    status, left = executing.train_run(store, run.id, asked)
    assert (status, store.run(run.id).status) == ("stopped", "queued") and left


def test_a_server_that_ends_does_not_wait_for_looks(store, jobs):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    for points in range(5, 42):
        jobs.looker.look(store, run.id, "landscape", {"points": points}, 40)
    assert jobs.looker.process
    jobs.close()  # the process reads all this while it still loads torch
    assert not [points for points in range(5, 42) if store.trace(run.id).look("landscape", 0, 40, points=points)]


def test_a_figure_that_has_nothing_at_the_start_waits_for_its_look(store):
    """While a run trained it settled on step 0, where nothing needs to be looked at: "Choose a later step."."""
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    asked = Settings(depth=2, width=4, data="wine", batch_size=16, steps=40, score_every=10)
    run = store.create(Experiment(settings=asked, arms=arms))
    execute(store, run.id, lambda: None)
    store.change(run.id, status="running")
    trace = store.trace(run.id)
    figures.settle("why_off", trace, {})
    assert "looking" in figures.draw("why_off", trace, {}).layout.meta["said"]
    look(store, run.id, "off", {}, 20, trace.snapshot(20))
    trace = store.trace(run.id)
    figures.settle("why_off", trace, {})
    assert "before update 20:" in figures.draw("why_off", trace, {}).layout.meta["note"]
