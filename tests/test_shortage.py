"""Where processes or the disk run short: runs wait or say why, and those that train go on."""

import sqlite3
import threading
from types import SimpleNamespace

import pytest
from at_work import LONG, SHORT, becomes, started, status, until

from bnlab.database import FULL, Full
from bnlab.jobs import Jobs
from bnlab.process import Process
from bnlab.store import RunStore


def test_where_no_worker_comes_up_runs_say_why_and_the_next_one_tries_again(tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nsleep 0.3; printf '\\377 no memory is left' >&2; exit 3\n")
    broken.chmod(0o700)
    store = RunStore(tmp_path)
    runs = [store.create(SHORT).id for _ in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr("bnlab.process.sys.executable", str(broken))
        jobs = Jobs(store, 2)
        for run_id in runs:
            jobs.start(run_id)
        for run_id in runs:
            becomes(jobs, run_id, "failed")
            assert "no memory is left" in store.run(run_id).reason
    late = store.create(SHORT).id
    jobs.start(late)
    becomes(jobs, late, "done")
    until(lambda: len(jobs.workers) == 2)
    jobs.close()


def test_where_no_more_workers_can_be_started_those_that_are_there_go_on(tmp_path, monkeypatch):
    """The first was heard no more, so that what waited was never trained."""
    tried = []

    def few(jobs):
        tried.append(jobs)
        if len(tried) == 2:  # a machine with no more processes to give
            raise BlockingIOError("Resource temporarily unavailable")
        return Process(jobs)

    monkeypatch.setattr("bnlab.jobs.Process", few)
    jobs = Jobs(RunStore(tmp_path), 2)
    runs = [jobs.store.create(SHORT).id for _ in range(2)]
    for run_id in runs:
        jobs.start(run_id)
    for run_id in runs:
        becomes(jobs, run_id, "done")
    assert len(tried) == 2 and len(jobs.workers) == 1
    jobs.close()


class Filling(RunStore):
    """A store on a disk that is full for a while; then nothing is written, or, worse, nothing read."""

    full: str | None = None

    def transaction(self, grows=False):
        if self.full:
            raise Full(FULL)
        return super().transaction(grows)

    def run(self, run_id):
        if self.full == "read":
            raise sqlite3.OperationalError("disk I/O error")
        return super().run(run_id)


@pytest.mark.parametrize("full", ["written", "read"])
def test_after_a_full_disk_what_waited_is_trained_and_what_was_trained_can_go_on(tmp_path, monkeypatch, full):
    monkeypatch.setattr("bnlab.jobs.ALIVE", 0.3)  # how often it is tried again
    jobs = Jobs(store := Filling(tmp_path), 1)
    trained, waiting = started(jobs, LONG), store.create(SHORT).id
    jobs.start(waiting)
    jobs.more[trained] = 3  # a wish that cannot be granted any more
    tried = []
    monkeypatch.setattr(jobs, "dispatch", lambda: [tried.append(1), Jobs.dispatch(jobs)])
    store.full = full
    jobs.workers[0].popen.kill()  # as one ends that cannot keep what it sees, nor that it failed
    until(lambda: len(tried) == 2)  # by who followed it, and when another was ready
    with jobs.lock:
        assert jobs.position(waiting) == 0 and not jobs.more
    store.full = None
    becomes(jobs, waiting, "done")
    store.db.execute("update runs set updated = updated - 40 where id = ?", (trained,))
    becomes(jobs, trained, "interrupted")
    jobs.close()


def test_a_run_that_waits_is_not_begun_while_its_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("bnlab.jobs.ALIVE", 0.3)  # how often it is tried again
    jobs = Jobs(store := RunStore(tmp_path), 1)
    run_id, tried = store.create(SHORT).id, threading.Event()
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda of: [tried.set(), SimpleNamespace(free=0)][1])
        jobs.start(run_id)
        assert tried.wait(180) and status(jobs, run_id) == "queued" and jobs.position(run_id) == 0
    becomes(jobs, run_id, "done")
    jobs.close()


def test_a_server_starts_and_ends_on_a_full_disk(tmp_path):
    store = Filling(tmp_path)
    left, waiting = store.create(SHORT).id, store.create(SHORT).id
    store.db.execute("update runs set updated = updated - 40 where id = ?", (left,))
    store.full = "written"
    jobs = Jobs(store, 0)
    store.full = None
    jobs.start(waiting)
    store.full = "written"
    jobs.close()
    assert not jobs.queue and status(jobs, waiting) == "queued"
    store.full = None
    store.db.execute("update runs set updated = updated - 40")
    again = Jobs(store, 0)
    assert [status(again, run_id) for run_id in (left, waiting)] == ["interrupted"] * 2
    again.close()
