"""Nobody waits for another: whoever writes may have to wait for another process, and holds no lock meanwhile."""

import json
import queue
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from at_work import SHORT, status, until

from bnlab.jobs import LONGEST_QUEUE, Jobs
from bnlab.store import RunStore


class Locked(RunStore):
    """A store whose file another process locks as long as `free` is not set; `waiting` as soon as someone waits."""

    def __init__(self, directory):
        super().__init__(directory)
        self.free, self.waiting = threading.Event(), threading.Event()
        self.free.set()

    def transaction(self, grows=False):
        if hasattr(self, "free") and not self.free.is_set():
            self.waiting.set()
            assert self.free.wait(60)
        return super().transaction(grows)


class Worker:
    """One that is free, ends when it is told to end, and notes what it is told."""

    last_words = ""

    def __init__(self, *lines):
        self.run_id, self.told, self.popen = None, [], SimpleNamespace(stdout=lines)

    def tell(self, **message):
        self.told.append(message)

    def ending(self):
        return "signal 9"

    def close(self):
        pass

    join = close


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(Locked(tmp_path), 0)
    yield jobs
    jobs.store.free.set()
    jobs.close()


def waits(jobs, run_id):
    jobs.start(run_id)


def rests(jobs, run_id):
    jobs.store.change(run_id, status="paused")
    jobs.stopping.add(run_id)


def is_abandoned(jobs, run_id):
    jobs.store.db.execute("update runs set updated = updated - 40 where id = ?", (run_id,))


def has_a_free_worker(jobs, run_id):
    waits(jobs, run_id)
    jobs.workers.append(Worker())


def is_lost(jobs, run_id):
    jobs.workers.append(worker := Worker())
    worker.run_id = run_id


WRITERS = {
    "start": (lambda jobs, run_id: None, lambda jobs, run_id: jobs.start(run_id)),
    "stop": (waits, lambda jobs, run_id: jobs.stop(run_id)),
    "pause": (waits, lambda jobs, run_id: jobs.pause(run_id)),
    "stop again": (rests, lambda jobs, run_id: jobs.rested(run_id, [])),
    "sign of life": (waits, lambda jobs, run_id: jobs.hold()),
    "abandoned": (is_abandoned, lambda jobs, run_id: jobs.interrupt_abandoned()),
    "given to a worker": (has_a_free_worker, lambda jobs, run_id: jobs.dispatch()),
    "its worker ended": (is_lost, lambda jobs, run_id: jobs.follow(jobs.workers[0])),
    "no worker": (waits, lambda jobs, run_id: jobs.give_up("no memory")),
    "end of the server": (waits, lambda jobs, run_id: jobs.close()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_while_one_waits_for_the_file_the_click_of_another_is_obeyed_at_once(jobs, name):
    """All clicks waited one after another, up to 30 seconds each."""
    before, write = WRITERS[name]
    before(jobs, run_id := jobs.store.create(SHORT).id)
    other = Worker()
    other.run_id = jobs.store.create(SHORT).id
    jobs.workers.append(other)
    jobs.store.free.clear()
    one = threading.Thread(target=write, args=(jobs, run_id))
    one.start()
    assert jobs.store.waiting.wait(60)
    clicks = threading.Thread(target=jobs.pause, args=(other.run_id,), daemon=True)
    clicks.start()
    clicks.join(20)
    obeyed = {"pause": other.run_id} in other.told
    jobs.store.free.set()
    one.join(60)
    assert obeyed and not one.is_alive()


def test_while_the_end_of_a_look_cannot_be_kept_others_look(jobs, monkeypatch):
    monkeypatch.setattr("bnlab.looker.Process", lambda looker: Worker())
    looker, run = jobs.looker, jobs.store.create(SHORT)
    looker.asleep = False
    message = {"look": "rank", "run": run.id, "options": {}, "step": 0, "directory": str(jobs.store.directory)}
    looker.waiting[json.dumps(message, sort_keys=True)] = done = Future()
    looker.process = Worker(json.dumps({"looking": message}))
    one = threading.Thread(target=looker.follow, args=(looker.process,))
    with RunStore(jobs.store.directory).transaction():
        one.start()
        one.join(0.5)  # long enough to wait for the file
        assert one.is_alive() and looker.looking_at(run.id) == [("rank", 0, {})]
        looker.process = Worker()
        looker.look(jobs.store, run.id, "rank", {}, 1)
        assert looker.process.told[0]["step"] == 1
    assert done.result(60) == ""
    one.join(60)
    assert "wrong" in jobs.store.trace(run.id).look("rank", 0, 0)
    assert [message["step"] for message in looker.process.told] == [1], "the next process is told what waits"


def test_two_tabs_that_start_a_run_at_once_queue_it_once_and_their_steps_add_up(jobs):
    run_id = jobs.store.create(SHORT).id
    jobs.store.free.clear()
    tabs = [threading.Thread(target=jobs.step, args=(run_id,)) for _ in range(2)]
    for tab in tabs:
        tab.start()
    assert jobs.store.waiting.wait(60)
    jobs.store.free.set()
    for tab in tabs:
        tab.join(60)
    assert list(jobs.queue) == [(run_id, 1)] and jobs.more == {run_id: 1}


def test_of_two_tabs_that_start_a_run_at_once_neither_is_forgotten_where_a_worker_takes_it_between_them(
    jobs, monkeypatch
):
    """The slower one queued it a second time, and what it asked for was lost when the first began."""
    change, worker, run_id = jobs.store.change, Worker(), jobs.store.create(SHORT).id
    jobs.workers.append(worker)

    def slow(*told, **more):
        done = change(*told, **more)
        monkeypatch.setattr(jobs.store, "change", change)
        jobs.step(run_id)  # in another tab
        return done

    monkeypatch.setattr(jobs.store, "change", slow)
    jobs.start(run_id)
    assert worker.told == [{"run": run_id, "steps": 1}]
    assert not jobs.queue and jobs.more == {run_id: None}, "it goes on after the step"


def test_a_run_that_is_renamed_while_it_is_stopped_is_stopped(jobs, monkeypatch):
    """A look that was kept at this moment, or a new name, and it was left paused."""
    change, run_id = jobs.store.change, jobs.store.create(SHORT).id
    rests(jobs, run_id)

    def slow(*told, **more):
        monkeypatch.setattr(jobs.store, "change", change)
        jobs.store.rename(run_id, "another")
        return change(*told, **more)

    monkeypatch.setattr(jobs.store, "change", slow)
    jobs.rested(run_id, [])
    assert status(jobs, run_id) == "stopped" and not jobs.stopping


def test_what_is_asked_for_while_a_run_waits_again_is_not_forgotten_when_its_last_looks_are_taken(jobs):
    """Of two steps one was."""
    jobs.step(run_id := jobs.store.create(SHORT).id)
    jobs.step(run_id)
    jobs.rested(run_id, [])
    assert list(jobs.queue) == [(run_id, 1)] and jobs.more == {run_id: 1}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("wish", "end"), [("stop", "stopped"), ("pause", "paused"), ("step", "queued")])
def test_a_run_that_is_to_go_on_after_its_rest_is_held_meanwhile_and_the_last_wish_holds(
    jobs, monkeypatch, late, wish, end
):
    """For a moment it seemed to rest, and who stopped it then stopped nothing."""
    change, run_id = jobs.store.change, jobs.store.create(SHORT).id
    jobs.store.change(run_id, status="paused")
    jobs.more[run_id] = 1

    def slow(*told, **more):
        monkeypatch.setattr(jobs.store, "change", change)
        done = change(*told, **more) if late else None
        assert jobs.holds(run_id)
        getattr(jobs, wish)(run_id)
        return done if late else change(*told, **more)

    monkeypatch.setattr(jobs.store, "change", slow)
    jobs.rested(run_id, [])
    assert status(jobs, run_id) == end and not jobs.more
    assert list(jobs.queue) == ([(run_id, 2)] if wish == "step" else [])


class Failing(Worker):
    """A worker at which every run fails at once."""

    def __init__(self, jobs):
        self.lines: queue.Queue = queue.Queue()
        super().__init__()
        self.popen.stdout, self.store = iter(self.lines.get, None), jobs.store
        self.lines.put('{"ready": true}')
        threading.Thread(target=jobs.follow, args=(self,), daemon=True).start()

    def tell(self, run, steps):
        self.told.append(run)
        self.store.change(run, status="failed", reason="at once")
        self.lines.put(json.dumps({"ended": run, "left": []}))


def test_each_run_of_a_full_queue_is_given_to_one_worker_also_where_they_fail_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("bnlab.jobs.Process", Failing)
    jobs = Jobs(RunStore(tmp_path), 0)
    runs = [jobs.store.create(SHORT).id for _ in range(LONGEST_QUEUE)]
    for run_id in runs:
        jobs.start(run_id)
    jobs.fill(2)
    until(lambda: not jobs.queue and not any(worker.run_id for worker in jobs.workers))
    assert {status(jobs, run_id) for run_id in runs} == {"failed"}
    assert sorted(run_id for worker in jobs.workers for run_id in worker.told) == sorted(runs)
    jobs.close()
