"""The process that looks: it gives way to trainings, and one that dies takes no look and no scoring with it."""

import gc
import json
import os
import signal
import threading
import weakref
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from at_work import until
from looked_at import BN, SMALL, taken

from bnlab import executing, looking, work
from bnlab.database import FULL, Full
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment
from bnlab.jobs import Jobs
from bnlab.keeping import Writer
from bnlab.looker import Looker
from bnlab.probes import Copies, checked, schedule
from bnlab.store import RunStore
from bnlab.train import train


@pytest.fixture
def jobs(store):
    """A queue that has nobody to train, only the process that looks."""
    jobs = Jobs(store, workers=0)
    jobs.looker = Looker(store)
    yield jobs
    jobs.close()


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


def test_a_looking_process_that_dies_is_told(store, jobs):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    jobs.looker.look(store, run.id, "landscape", {"points": 41}, 40)
    jobs.looker.look(store, run.id, "rank", {}, 20)
    assert jobs.looker.looking_at(run.id) == [("landscape", 40, {"points": 41}), ("rank", 20, {})]
    os.kill(jobs.looker.process.popen.pid, signal.SIGKILL)
    until(lambda: not jobs.looker.looking_at(run.id))  # the other one is told to another process
    said = store.trace(run.id).look("landscape", 0, 40, points=41)
    assert said["wrong"].tolist() == ["the process that computed it ended with signal 9."]
    assert "wrong" not in store.trace(run.id).look("rank", 0, 20)
    jobs.looker.look(store, run.id, "rank", {}, 40).result(60)
    assert "wrong" not in store.trace(run.id).look("rank", 0, 40)


def test_a_look_that_had_not_begun_when_the_process_died_is_taken_by_the_next(store, jobs):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    jobs.looker.look(store, run.id, "rank", {}, 20).result(60)
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


def no_more(*_):
    """As a machine answers that has no more processes to give."""
    raise BlockingIOError("Resource temporarily unavailable")


def test_what_no_process_can_be_started_for_is_asked_for_again(store, jobs, monkeypatch):
    """It waited for good, told to nobody."""
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr("bnlab.looker.Process", no_more)
        with pytest.raises(ValueError, match=r"cannot be started: .*Try again"):
            jobs.looker.look(store, run.id, "rank", {}, 20)
        jobs.looker.score(run.id, 40)
        assert not jobs.looker.waiting
    for probe, options in (("landscape", {"points": 41}), ("rank", {})):
        jobs.looker.look(store, run.id, probe, options, 20)
    with monkeypatch.context() as patched:
        patched.setattr("bnlab.looker.Process", no_more)
        jobs.looker.process.popen.kill()
        until(lambda: not jobs.looker.waiting)
    assert store.trace(run.id).look("rank", 0, 20) is None
    jobs.looker.look(store, run.id, "rank", {}, 20).result(60)
    assert "wrong" not in store.trace(run.id).look("rank", 0, 20)


def test_a_look_or_a_scoring_that_cannot_be_kept_is_told_and_ends_no_process(store, monkeypatch):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: "stop" if store.run(run.id).step > 10 else None)
    message = {"look": "rank", "run": run.id, "options": {}, "step": 0, "directory": str(store.directory)}
    gone = threading.Event()
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda of: SimpleNamespace(free=0))
        assert work.take_look(message, gone) == FULL
        assert work.take_score(store, run.id) == FULL
    assert store.trace(run.id).look("rank", 0, 0) is None
    assert work.take_look(message, gone) == work.take_score(store, run.id) == ""
    assert "wrong" not in store.trace(run.id).look("rank", 0, 0)


def test_where_it_cannot_be_kept_over_what_a_process_died_whoever_waits_hears_why(jobs, monkeypatch):
    """The thread that follows the process ended with it, and everything asked for from then on waited for good."""
    run, gone = jobs.store.create(Experiment(settings=SMALL, arms=(BN,))), str(jobs.store.directory / "a file" / "runs")
    (jobs.store.directory / "a file").write_text("")
    message = {"look": "rank", "run": run.id, "options": {}, "step": 0, "directory": gone}
    jobs.looker.waiting[json.dumps(message, sort_keys=True)] = done = Future()
    jobs.looker.follow(SimpleNamespace(popen=SimpleNamespace(stdout=[json.dumps({"looking": message})]), ending=str))
    assert "a file" in done.result(0) and not jobs.looker.waiting


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


def test_the_looks_of_a_stopped_run_are_left_also_where_it_is_resumed_while_it_is_scored(store, monkeypatch):
    run = store.create(Experiment(settings=SMALL.model_copy(update={"steps": 1000, "score_every": 100}), arms=(BN,)))
    monkeypatch.setattr(Writer, "score", lambda self, record: store.change(run.id, status="queued"))
    asked = lambda: "stop" if store.last_snapshot(run.id) else None  # noqa: E731
    status, left = executing.train_run(store, run.id, asked)
    assert (status, store.run(run.id).status) == ("stopped", "queued") and left


def test_a_server_that_ends_does_not_wait_for_looks(store, jobs):
    run = store.create(Experiment(settings=SMALL, arms=(BN,)))
    execute(store, run.id, lambda: None)
    for points in range(41, 4, -1):
        jobs.looker.look(store, run.id, "landscape", {"points": points}, 40)
    assert jobs.looker.process
    jobs.close()
    taken = [points for points in range(5, 42) if store.trace(run.id).look("landscape", 0, 40, points=points)]
    assert len(taken) < 10, "of 37; it may be at the first ones when it reads that its pipe is closed"
