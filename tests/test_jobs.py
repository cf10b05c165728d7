"""Real worker processes: what is asked of a run happens, nothing recorded is lost, and pausing changes no bit."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from at_work import LONG, SHORT, becomes, started, status, until

from bnlab.database import OF_A_RUN
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.jobs import LONGEST_QUEUE, Jobs
from bnlab.process import ABOVE
from bnlab.store import RunStore

pytestmark = pytest.mark.xdist_group("jobs")  # in one process: the workers are started once


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    jobs = Jobs(RunStore(tmp_path_factory.mktemp("store")), 2)
    yield jobs
    jobs.close()


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
    until(lambda: status(jobs, run.id) == "paused" and not jobs.holds(run.id))  # nothing is left to be done
    assert jobs.store.run(run.id).step == 4 and not jobs.more


def test_a_step_asked_for_after_all_the_rest_is_among_it(tmp_path):
    jobs = Jobs(RunStore(tmp_path), 0)
    run_id = jobs.store.create(SHORT).id
    for ask, more in (
        (jobs.start, {}),
        (jobs.step, {run_id: 1}),
        (jobs.resume, {run_id: None}),
        (jobs.step, {run_id: None}),
    ):
        ask(run_id)
        assert jobs.more == more
    jobs.close()


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


@pytest.mark.parametrize("when", ["at once", "before its worker is heard", "at rest"])
def test_a_run_that_is_stopped_while_it_comes_to_rest_is_stopped(jobs, when):
    run_id = started(jobs, LONG)
    with jobs.lock if when == "before its worker is heard" else nullcontext():  # which whoever hears a worker takes
        jobs.pause(run_id)
        if when != "at once":
            becomes(jobs, run_id, "paused")
        if when == "at rest":
            until(lambda: not jobs.holds(run_id))
        assert bool(jobs.executing(run_id)) == (when != "at rest")
        jobs.stop(run_id)
    until(lambda: not jobs.holds(run_id))
    becomes(jobs, run_id, "stopped")
    until(lambda: last_score(jobs, run_id) == jobs.store.run(run_id).step + 1)


@pytest.mark.parametrize(
    ("wishes", "end"),
    [
        ("pause resume", "done"),
        ("stop resume", "done"),
        ("step resume", "done"),
        ("stop resume pause resume", "done"),
        ("resume pause", "paused"),
        ("pause resume pause", "paused"),
        ("stop pause", "stopped"),
    ],
)
def test_of_wishes_that_come_before_they_are_obeyed_the_last_holds_and_stop_outweighs_pause(jobs, wishes, end):
    run_id = jobs.store.create(SHORT).id
    jobs.step(run_id)
    becomes(jobs, run_id, "paused")
    until(lambda: not jobs.holds(run_id))
    jobs.resume(run_id) if wishes.split()[0] in ("pause", "stop") else None
    for wish in wishes.split():
        getattr(jobs, wish)(run_id)
    until(lambda: not jobs.holds(run_id))
    assert status(jobs, run_id) == end and run_id not in jobs.more and run_id not in jobs.stopping


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


def test_a_full_queue_is_refused_in_a_sentence(tmp_path):
    jobs = Jobs(RunStore(tmp_path), 0)
    for _ in range(LONGEST_QUEUE):
        jobs.start(jobs.store.create(SHORT).id)
    one_more = jobs.store.create(SHORT)
    with pytest.raises(ValueError, match="200 runs are waiting already"):
        jobs.start(one_more.id)
    jobs.close()
    assert {r.status for r in jobs.store.runs() if r.id != one_more.id} == {"interrupted"}


def test_a_worker_that_is_told_what_is_no_message_ends(tmp_path):
    """It heard nothing any more, and went on for ever."""
    work = [sys.executable, "-m", "bnlab", "work", str(tmp_path)]
    done = subprocess.run(work, cwd=ABOVE, input="hello\n", capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ['{"ready": true}'] and "JSONDecodeError" in done.stderr
