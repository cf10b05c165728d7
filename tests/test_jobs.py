"""Real worker processes: what is asked of a run happens, nothing recorded is lost, and pausing changes no bit."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from known_trace import KnownTrace

from bnlab.database import OF_A_RUN
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures.verdict import verdict
from bnlab.jobs import LONGEST_QUEUE, Jobs
from bnlab.process import ABOVE
from bnlab.store import RunStore
from bnlab.work import diverged

LONG = Experiment(settings=Settings(steps=100_000, depth=6, width=32, score_every=1000))
SHORT = Experiment(settings=Settings(steps=120, depth=6, width=32, score_every=30))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    jobs = Jobs(RunStore(tmp_path_factory.mktemp("store")), 2)
    yield jobs
    jobs.close()


def until(condition, seconds=60):
    """Wait for a condition; generous, for slow machines."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


def started(jobs, experiment):
    run = jobs.store.create(experiment)
    jobs.start(run.id)
    until(lambda: jobs.store.run(run.id).step >= 10)
    return run.id


def status(jobs, run_id):
    return jobs.store.run(run_id).status


def becomes(jobs, run_id, word):
    until(lambda: status(jobs, run_id) == word)


def test_paused_stepped_and_resumed_is_bitwise_uninterrupted(jobs):
    whole = jobs.store.create(SHORT)
    jobs.start(whole.id)
    broken = jobs.store.create(SHORT)
    jobs.step(broken.id)
    becomes(jobs, broken.id, "paused")
    assert jobs.store.run(broken.id).step == 0
    for steps in (1, 2):
        jobs.step(broken.id)
        until(lambda steps=steps: jobs.store.run(broken.id).step == steps and status(jobs, broken.id) == "paused")
    jobs.resume(broken.id)
    until(lambda: jobs.store.run(broken.id).step > 20)
    jobs.pause(broken.id)
    until(lambda: status(jobs, broken.id) in ("paused", "done"))
    if status(jobs, broken.id) == "paused":
        jobs.resume(broken.id)
    for run in (whole, broken):
        becomes(jobs, run.id, "done")
    a, b = jobs.store.trace(whole.id), jobs.store.trace(broken.id)
    for quantity in ("loss", "grad_norm", "z_std", "batch_var", "moving_mean", "gamma", "z_sample"):
        np.testing.assert_array_equal(a.read(quantity, 1).mean, b.read(quantity, 1).mean)
    np.testing.assert_array_equal(a.snapshot(120)[0], b.snapshot(120)[0])
    np.testing.assert_array_equal(a.scores(2, "test", "moving")[1], b.scores(2, "test", "moving")[1])
    with pytest.raises(ValueError, match="the run is done; there is nothing left to train"):
        jobs.resume(whole.id)


def test_steps_asked_for_in_quick_succession_add_up(jobs):
    run = jobs.store.create(SHORT)
    for _ in range(5):
        jobs.step(run.id)
    until(lambda: jobs.store.run(run.id).step == 4 and status(jobs, run.id) == "paused")
    time.sleep(0.3)
    assert jobs.store.run(run.id).step == 4 and not jobs.more


def test_stopping_keeps_what_was_recorded(jobs):
    run_id = started(jobs, LONG)
    jobs.stop(run_id)
    becomes(jobs, run_id, "stopped")
    run, trace = jobs.store.run(run_id), jobs.store.trace(run_id)
    assert len(trace.read("loss", 0, points=10**6).steps) == run.step + 1
    assert trace.snapshots()[-1] == run.step + 1
    until(lambda: jobs.store.trace(run_id).scores(0, "test", "none")[0][-1] == run.step + 1)


def last_score(jobs, run_id):
    return jobs.store.trace(run_id).scores(0, "test", "none")[0][-1]


@pytest.mark.parametrize("gap", [0, 0.02, 0.05, 0.08])
def test_a_run_that_is_stopped_while_it_comes_to_rest_is_stopped(jobs, gap):
    run_id = started(jobs, LONG)
    jobs.pause(run_id)
    time.sleep(gap)
    jobs.stop(run_id)
    until(lambda: not jobs.holds(run_id))
    becomes(jobs, run_id, "stopped")
    until(lambda: last_score(jobs, run_id) == jobs.store.run(run_id).step + 1)


def test_a_run_that_is_stopped_while_it_rests_is_scored_where_it_rests(jobs):
    run_id = started(jobs, LONG)
    jobs.pause(run_id)
    becomes(jobs, run_id, "paused")
    for _ in range(2):
        until(lambda: not jobs.holds(run_id))
        jobs.step(run_id)
    until(lambda: status(jobs, run_id) == "paused" and not jobs.holds(run_id))
    assert last_score(jobs, run_id) == 0
    jobs.stop(run_id)
    assert status(jobs, run_id) == "stopped"
    step = jobs.store.run(run_id).step
    until(lambda: last_score(jobs, run_id) == step + 1)
    jobs.resume(run_id)
    until(lambda: jobs.store.run(run_id).step > step)
    assert last_score(jobs, run_id) == 0
    jobs.stop(run_id)
    becomes(jobs, run_id, "stopped")


def test_a_killed_worker_fails_its_run_only(jobs):
    doomed, other = started(jobs, LONG), started(jobs, LONG)
    worker = next(w for w in jobs.workers if w.run_id == doomed)
    jobs.more[doomed] = 3  # asked for by whoever did not see it die
    os.kill(worker.popen.pid, signal.SIGKILL)
    becomes(jobs, doomed, "failed")
    assert not jobs.more
    assert jobs.store.run(doomed).reason == "its worker ended with signal 9"
    seen = jobs.store.run(doomed).step
    assert seen >= 10 and len(jobs.store.trace(doomed).read("loss", 0).steps) == seen + 1
    before = jobs.store.run(other).step
    until(lambda: jobs.store.run(other).step > before)
    jobs.step(doomed)
    becomes(jobs, doomed, "paused")
    assert jobs.store.run(doomed).step == seen + 1
    jobs.resume(doomed)
    until(lambda: jobs.store.run(doomed).step > seen + 1)
    for run_id in (doomed, other):
        jobs.stop(run_id)
        becomes(jobs, run_id, "stopped")


def test_a_run_that_is_deleted_while_it_is_trained_ends_and_its_worker_goes_on(jobs):
    run_id = started(jobs, LONG)
    worker = next(w for w in jobs.workers if w.run_id == run_id)
    jobs.store.delete(run_id)
    until(lambda: worker.run_id is None)
    assert worker in jobs.workers and worker.popen.poll() is None and worker.last_words == ""
    for table in OF_A_RUN:
        assert not jobs.store.db.execute(f"select 1 from {table} where run = ?", (run_id,)).fetchone(), table
    after = jobs.store.create(SHORT).id
    jobs.start(after)
    becomes(jobs, after, "done")


def test_a_worker_that_dies_over_the_last_looks_leaves_its_run_as_it_ended(jobs):
    run_id = jobs.store.create(SHORT).id
    jobs.start(run_id)
    becomes(jobs, run_id, "done")
    until(lambda: not any(w.run_id for w in jobs.workers))
    worker = jobs.workers[0]
    worker.run_id = run_id  # as while it looks
    os.kill(worker.popen.pid, signal.SIGKILL)
    until(lambda: worker not in jobs.workers)
    assert status(jobs, run_id) == "done"


def test_runs_wait_in_line_and_can_leave_it(jobs):
    first, second = started(jobs, LONG), started(jobs, LONG)
    waiting = [jobs.store.create(SHORT).id for _ in range(3)]
    for run_id in waiting:
        jobs.start(run_id)
    assert [jobs.position(run_id) for run_id in waiting] == [0, 1, 2]
    jobs.stop(waiting[0])
    jobs.pause(waiting[1])
    assert [status(jobs, r) for r in waiting] == ["stopped", "paused", "queued"]
    assert jobs.position(waiting[2]) == 0
    jobs.pause(first)
    becomes(jobs, waiting[2], "done")
    for run_id in (first, second):
        jobs.stop(run_id)
        becomes(jobs, run_id, "stopped")


def test_diverged_networks_are_named(jobs):
    wild = Settings(
        steps=3000, depth=3, width=16, activation="relu", learning_rate=100.0, init_gain=10.0, data="diabetes"
    )
    run = jobs.store.create(Experiment(settings=wild, arms=(Arm(label="wild"),)))
    jobs.start(run.id)
    becomes(jobs, run.id, "diverged")
    run = jobs.store.run(run.id)
    step, layer = run.diverged[0, 0]
    assert f"the network diverged at step {step} in layer {layer}." in run.reason
    loss = jobs.store.trace(run.id).read("loss", 0).mean[:, 0]
    assert np.isfinite(loss[:step]).all()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({(0, 0): (2, 7), (1, 0): (2, 3), (0, 1): (9, 1)}, "the first at step 2: 'a' in layer 7, 'b' in layer 3."),
        ({(0, 0): (3, 1), (1, 0): (2, 3), (0, 1): (9, 1)}, "the first at step 2: 'b' in layer 3."),
        ({(1, 0): (2, 0), (1, 1): (2, 4)}, "the first at step 2: 'b' in layer 4 and the readout."),
    ],
)
def test_of_networks_that_diverged_at_one_step_none_is_called_the_first(where, words):
    """The lowest layer made one first, 'b', while the cards said step 2 of both; they say the same now."""
    arms = (Arm(label="a"), Arm(label="b", changes={"norm": "batch"}))
    experiment = Experiment(settings=SHORT.settings, arms=arms, seeds=(0, 1))
    assert diverged(experiment, where) == f"every network diverged, {words} Lower the learning rate."
    trace = KnownTrace(experiment, {("signal_grad_norm", arm): np.full((10, 2, 8), np.nan) for arm in (0, 1)})
    trace.diverged = where
    for arm in {arm for arm, _ in where}:
        step, place = re.search(r"at step (\d+),? (?:first )?in ([^;]*)", verdict(trace, arm).words).groups()
        assert (f"'{'ab'[arm]}' in {place}" in words) == (int(step) == 2)


def test_a_full_queue_is_refused_in_a_sentence(tmp_path):
    jobs = Jobs(RunStore(tmp_path), 0)
    for _ in range(LONGEST_QUEUE):
        jobs.start(jobs.store.create(SHORT).id)
    one_more = jobs.store.create(SHORT)
    with pytest.raises(ValueError, match="200 runs are waiting already"):
        jobs.start(one_more.id)
    jobs.close()
    assert {r.status for r in jobs.store.runs() if r.id != one_more.id} == {"interrupted"}


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


def test_a_worker_ends_when_its_server_is_killed_and_the_run_can_be_resumed(tmp_path, jobs):
    store = RunStore(tmp_path)
    run = store.create(LONG)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path), run.id], stdout=subprocess.PIPE, text=True, cwd=ABOVE
    )
    pid = int(server.stdout.readline())
    until(lambda: store.run(run.id).step >= 10)
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
    with open(f"/proc/{pid}/stat") as stat:  # a zombie nobody waits for has ended too
        return stat.read().split(")")[1].split()[0] != "Z"


def test_where_no_worker_comes_up_runs_say_why_and_the_next_one_tries_again(tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nsleep 1; echo no memory is left >&2; exit 3\n")
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
            with pytest.raises(ValueError, match="this run is trained by another process"):
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


def test_a_run_that_waits_at_two_servers_is_trained_by_one(jobs):
    """The other's worker leaves it alone and goes on with what is next."""
    other = Jobs(jobs.store, 0)
    run_id, after = jobs.store.create(LONG).id, jobs.store.create(SHORT).id
    for waiting in (run_id, after):
        other.start(waiting)
    jobs.start(run_id)
    until(lambda: jobs.store.run(run_id).step >= 10)
    try:
        other.fill(1)
        becomes(jobs, after, "done")
        assert status(jobs, run_id) == "running" and not other.holds(run_id)
        step = jobs.store.run(run_id).step
        until(lambda: jobs.store.run(run_id).step > step)
    finally:
        other.close()
    jobs.stop(run_id)
    becomes(jobs, run_id, "stopped")
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
