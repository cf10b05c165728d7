"""Several processes on one store: servers that are killed or share runs, command lines beside a server."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from at_work import LONG, SHORT, becomes, status, until

from bnlab.jobs import Jobs
from bnlab.process import ABOVE
from bnlab.run import Taken
from bnlab.store import RunStore

SERVER = """
import sys, time
from bnlab.jobs import Jobs
from bnlab.store import RunStore
store = RunStore(sys.argv[1])
jobs = Jobs(store, 1)
jobs.start(sys.argv[2])
print(jobs.workers[0].popen.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_ends_when_its_server_is_killed_and_the_run_can_be_resumed(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(LONG)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path), run.id], stdout=subprocess.PIPE, text=True, cwd=ABOVE
    )
    pid = int(server.stdout.readline())
    until(lambda: store.run(run.id).step >= 10)
    os.kill(pid, signal.SIGINT)  # as by Ctrl+C in the server's terminal, which is for the server
    server.kill()
    server.wait()
    server.stdout.close()
    until(lambda: store.run(run.id).status == "interrupted")
    until(lambda: not alive(pid))
    seen = store.run(run.id).step
    again = Jobs(store, 1)
    again.resume(run.id)
    until(lambda: store.run(run.id).step > seen)
    again.close()
    assert store.run(run.id).status == "interrupted"
    steps = store.trace(run.id).read("loss", 0, points=10**6).steps
    np.testing.assert_array_equal(steps, np.arange(len(steps)))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not os.path.exists("/proc"):  # macOS, where whoever adopts the orphan waits for it
        return True
    with open(f"/proc/{pid}/stat") as stat:  # a zombie nobody waits for has ended too
        return stat.read().split(")")[1].split()[0] != "Z"


def test_a_run_that_another_process_trains_is_not_steered_and_not_called_interrupted(tmp_path):
    store = RunStore(tmp_path)
    question = tmp_path / "question.json"
    question.write_text(LONG.model_dump_json())
    command = [sys.executable, "-m", "bnlab", "train", str(question), "--out", str(tmp_path)]
    other = subprocess.Popen(command, cwd=ABOVE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    run = until(lambda: next((run for run in store.runs() if run.step >= 10), None))
    jobs = Jobs(store, 0)
    try:
        assert status(jobs, run.id) == "running"
        for ask in (jobs.stop, jobs.pause, jobs.resume, jobs.step):
            with pytest.raises(ValueError, match=f"run {run.id} is being trained by another process, a command"):
                ask(run.id)
        step = store.run(run.id).step
        until(lambda: store.run(run.id).step > step)
        assert status(jobs, run.id) == "running" and jobs.position(run.id) is None
    finally:
        other.send_signal(signal.SIGINT)
        assert other.wait(60) == 130
    assert status(jobs, run.id) == "interrupted"
    jobs.resume(run.id)
    jobs.close()


def test_a_run_that_waits_at_two_servers_is_trained_by_one(tmp_path):
    """The other's worker leaves it alone and goes on with what is next, as with what others have stopped."""
    jobs, other = (Jobs(RunStore(tmp_path), workers) for workers in (1, 0))
    run_id, after = jobs.store.create(LONG).id, jobs.store.create(SHORT).id
    stopped, interrupted, deleted = (jobs.store.create(SHORT).id for _ in range(3))
    for waiting in (run_id, stopped, interrupted, deleted, after):
        other.start(waiting)
    other.step(stopped)  # a wish that is gone when it is stopped
    jobs.stop(stopped)
    jobs.store.claim(interrupted, "cpu")
    for ask in (other.stop, other.resume):
        with pytest.raises(Taken):
            ask(interrupted)
    jobs.store.change(interrupted, status="interrupted")  # as by Ctrl+C
    jobs.store.delete(deleted)
    jobs.start(run_id)
    until(lambda: jobs.store.run(run_id).step >= 10)
    try:
        other.fill(1)
        becomes(jobs, after, "done")
        assert [status(jobs, each) for each in (run_id, stopped, interrupted)] == ["running", "stopped", "interrupted"]
        assert not other.queue and not other.more and not other.holds(run_id)
        step = jobs.store.run(run_id).step
        until(lambda: jobs.store.run(run_id).step > step)
    finally:
        other.close()
    jobs.stop(run_id)
    becomes(jobs, run_id, "stopped")
    jobs.close()
    steps = jobs.store.trace(run_id).read("loss", 0, points=10**6).steps
    np.testing.assert_array_equal(steps, np.arange(len(steps)))


def test_a_run_whose_process_gives_no_sign_any_more_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr("bnlab.jobs.ALIVE", 0.3)  # how often it is looked for
    store = RunStore(tmp_path)
    fresh, old = (store.create(SHORT).id for _ in range(2))
    for run_id in (fresh, old):
        store.change(run_id, status="running")
    store.db.execute("update runs set updated = updated - 40 where id = ?", (old,))
    jobs = Jobs(store, 0)
    assert [status(jobs, run_id) for run_id in (fresh, old)] == ["running", "interrupted"]
    store.db.execute("update runs set updated = updated - 40 where id = ?", (fresh,))
    becomes(jobs, fresh, "interrupted")
    jobs.resume(fresh)
    assert jobs.position(fresh) == 0
    jobs.close()


def test_a_run_waits_as_long_as_a_server_holds_it_and_once(tmp_path, monkeypatch):
    """Another server that starts leaves it waiting; when nobody gives a sign for it any more, it is interrupted."""
    monkeypatch.setattr("bnlab.jobs.ALIVE", 0.3)  # how often signs are given and looked for
    store = RunStore(tmp_path)
    fresh, waiting, taken = (store.create(SHORT).id for _ in range(3))  # the first one before anybody can queue it
    jobs = Jobs(store, 0)
    for run_id in (waiting, taken):
        jobs.start(run_id)
    old = "update runs set updated = updated - 40 where id = ?"
    store.db.execute(old, (waiting,))
    until(lambda: store.run(waiting).fresh)
    other = Jobs(RunStore(tmp_path), 0)
    assert [status(jobs, run_id) for run_id in (fresh, waiting, taken)] == ["queued"] * 3
    store.db.execute(old, (fresh,))
    becomes(jobs, fresh, "interrupted")
    store.change(waiting, status="interrupted")
    jobs.resume(waiting)
    assert sorted(jobs.queue) == sorted([(waiting, None), (taken, None)]), "once each"
    store.claim(taken, "cpu")
    until(lambda: jobs.position(taken) is None)
    jobs.start(fresh)
    store.claim(fresh, "cpu")
    jobs.close()
    assert [status(jobs, run_id) for run_id in (fresh, waiting, taken)] == ["running", "interrupted", "running"]
    other.close()


class Overtaken(RunStore):
    """A store at which another process claims a run between what is read of it here and what is written."""

    def change(self, run_id, **columns):
        if not self.run(run_id).alive:
            RunStore(self.directory).claim(run_id, "cpu")
        return super().change(run_id, **columns)


@pytest.mark.parametrize("ask", [Jobs.start, Jobs.step, Jobs.pause, Jobs.stop])
def test_a_run_that_another_process_claims_meanwhile_is_not_steered(tmp_path, ask):
    jobs = Jobs(store := Overtaken(tmp_path), 0)
    run_id = store.create(SHORT).id
    with pytest.raises(Taken):
        ask(jobs, run_id)
    assert status(jobs, run_id) == "running" and not jobs.queue
    jobs.close()


@pytest.mark.parametrize("end", [Jobs.interrupt_abandoned, Jobs.close, lambda jobs: jobs.follow(Dying(jobs))])
def test_a_run_that_another_process_claims_meanwhile_is_not_called_ended(tmp_path, end):
    jobs = Jobs(store := Overtaken(tmp_path), 0)
    run_id = store.create(SHORT).id
    if end is Jobs.close:
        jobs.queue.append((run_id, None))
    store.db.execute("update runs set updated = updated - 40")
    end(jobs)
    assert status(jobs, run_id) == "running" and not store.run(run_id).reason
    jobs.close()


class Dying:
    """A process that dies over the only run."""

    def __init__(self, jobs):
        self.popen, self.last_words = SimpleNamespace(stdout=[]), ""
        self.run_id = jobs.store.runs()[0].id
        jobs.workers.append(self)

    def ending(self):
        return "signal 9"


def test_what_waited_at_a_server_that_was_killed_is_interrupted(tmp_path):
    store = RunStore(tmp_path)
    run_id = store.create(SHORT).id
    killed = Jobs(store, 0)
    killed.start(run_id)
    killed.closed.set()  # it gives no signs any more
    store.db.execute("update runs set updated = updated - 40")
    jobs = Jobs(RunStore(tmp_path), 0)
    run = store.run(run_id)
    assert (run.status, run.reason) == ("interrupted", "The server ended.")
    jobs.resume(run_id)
    assert status(jobs, run_id) == "queued" and jobs.position(run_id) == 0
    for each in (jobs, killed):
        each.close()
