"""The runs of a directory: listed, named, deleted, and what a killed process leaves of one."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from at_work import until
from known_rows import ARMS, REAL, SMALL, keep, same, size

from bnlab import executing
from bnlab.experiment import Arm, Experiment
from bnlab.process import ABOVE
from bnlab.reading import NAMES
from bnlab.run import Taken, briefly
from bnlab.settings import SHARED, Settings, about
from bnlab.train import train

WRITER = """
import sys, time
from bnlab.store import RunStore
from bnlab.executing import execute
execute(RunStore(sys.argv[1]), sys.argv[2], lambda: time.sleep(0.002))
"""


def same_run(a, b, stop):
    """Whether two traces hold the same numbers up to step `stop`."""
    for arm in range(len(a.experiment.arms)):
        for quantity in NAMES:
            if a.has(quantity, arm):
                x, y = (trace.read(quantity, arm, stop=stop, points=10**6) for trace in (a, b))
                np.testing.assert_array_equal(x.steps, y.steps)
                for i in (1, 2, 3):
                    same(x[i], y[i])
        for statistics in ("none", "batch", "moving", "population"):
            x, y = (trace.scores(arm, "test", statistics) for trace in (a, b))
            n = sum(x[0] <= min(stop, a.step))
            np.testing.assert_array_equal(x[0][:n], y[0][:n])
            same(x[1][:n], y[1][:n])
        if a.has("gamma", arm):
            x, y = a.population(arm), b.population(arm)
            n = len(x[0])
            same(x[1], y[1][:n])
            same(x[2], y[2][:n])


def test_a_killed_writer_leaves_a_prefix_from_which_the_run_goes_on_to_the_same_tables(store):
    settings = SMALL.model_copy(update={"steps": 400, "score_every": 50})
    experiment = Experiment(settings=settings, arms=ARMS[1:4], seeds=(3, 1))
    whole, killed = store.create(experiment), store.create(experiment)
    executing.execute(store, whole.id, lambda: None)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.directory), killed.id], cwd=ABOVE)
    until(lambda: store.run(killed.id).step >= 60 or process.poll() is not None)
    process.kill()
    assert process.wait() == -9
    trace = store.trace(killed.id)
    assert 60 <= trace.step < 399 and trace.run.status == "running"
    np.testing.assert_array_equal(trace.read("loss", 0, points=10**6).steps, np.arange(trace.step + 1))
    same_run(trace, store.trace(whole.id), trace.step + 1)
    assert store.db.execute("pragma integrity_check").fetchone() == ("ok",)
    with pytest.raises(Taken, match="the run is free again within 30 seconds"):
        executing.execute(store, killed.id, lambda: None)
    store.db.execute("update runs set updated = updated - 40 where id = ?", (killed.id,))
    executing.execute(store, killed.id, lambda: None)
    assert store.run(killed.id).status == "done" and store.run(killed.id).step == store.run(killed.id).made == 400
    same_run(store.trace(whole.id), store.trace(killed.id), 401)
    same(store.trace(whole.id).snapshot(400)[0], store.trace(killed.id).snapshot(400)[0])


@pytest.mark.parametrize("status", ["queued", "running", "interrupted", "failed"])
def test_of_all_who_claim_a_run_at_one_time_one_has_it(store, status):
    run_id, all_here = store.create(REAL).id, threading.Barrier(8)
    store.change(run_id, status=status)
    store.db.execute("update runs set updated = updated - 40")

    def claimed(_):
        all_here.wait()
        try:
            return store.claim(run_id, "cpu").status
        except Taken:
            return "taken"

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(claimed, range(8))) == sorted(["taken"] * 7 + [status])
    run = store.run(run_id)
    assert run.status == "running" and run.alive and run.device == "cpu"


@pytest.mark.parametrize("status", ["paused", "stopped", "interrupted", "done"])
def test_a_run_that_waits_no_more_is_left_by_whoever_was_to_train_it(store, status):
    run_id = store.create(REAL).id
    store.change(run_id, status=status)
    with pytest.raises(Taken):
        executing.train_run(store, run_id, lambda: None, waits=True)
    assert store.run(run_id).status == status and store.run(run_id).step == -1


def test_a_run_is_changed_as_it_was_read_or_not_at_all(store):
    run = store.create(REAL)
    store.claim(run.id, "cpu")
    assert not store.change(run.id, was=run, status="stopped") and store.run(run.id).status == "running"
    assert store.change(run.id, was=store.run(run.id), status="paused") and store.run(run.id).status == "paused"


@pytest.mark.parametrize("change", [(2026, 3, 29, 1), (2026, 10, 25, 1)], ids=["to summer time", "from it"])
def test_who_is_alive_goes_by_seconds_and_not_by_what_clocks_show(store, monkeypatch, change):
    run, at = store.create(REAL), datetime(*change, tzinfo=UTC).timestamp()
    store.change(run.id, status="running")

    def fresh(sign, now):
        store.db.execute("update runs set updated = ?", (at + sign,))
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda: at + now)
            seen = store.run(run.id)
            assert seen.alive != seen.abandoned
            return seen.alive

    try:
        with monkeypatch.context() as berlin:
            berlin.setenv("TZ", "Europe/Berlin")
            time.tzset()
            assert [time.localtime(at + s).tm_hour for s in (-1, 0)] in ([1, 3], [2, 2])
            assert fresh(-1, 1) and fresh(-29, 0) and fresh(0, 29) and fresh(3599, 3601)
            assert not fresh(-3600, 5) and not fresh(-31, 0) and not fresh(-1, 30)
            assert fresh(5, 0) and not fresh(3600, 0), "a clock set back"
    finally:
        time.tzset()


def test_runs_are_listed_renamed_and_deleted(store):
    first, second = store.create(REAL), store.create(REAL, name="Mine")
    assert [run.id for run in store.runs()] == [second.id, first.id]
    assert first.name == "Wine, tanh, K = 16: none, before, after, wider, deeper, 2 seeds"
    assert second.name == "Mine"
    assert first.experiment == REAL and first.status == "queued" and first.step == -1 and not first.ended
    assert all(store.create(REAL).id.isalnum() for _ in range(20)), "a command line takes -x for an option"
    store.change(second.id, status="done")
    assert [run.id for run in store.runs(limit=2, offset=20)] == [second.id, first.id]
    assert [run.id for run in store.runs("done")] == [second.id] and not store.runs("running", "queued", limit=0)
    assert [run.id for run in store.runs("queued", "done", limit=1, offset=21)] == [first.id]
    assert (store.count(), store.count("queued"), store.count("running", "done")) == (22, 21, 1)
    store.rename(first.id, "  two\n words ")
    assert store.run(first.id).name == "two words" and store.run(first.id).version > first.version
    for run in (first, second):
        keep(store, run.id, list(train(REAL))[:70])
    store.delete(first.id)
    assert [run.id for run in store.runs()][-1] == second.id and size(store, first.id) == 0 < size(store, second.id)
    assert len(store.trace(second.id).read("loss", 0).steps) == 70


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_run_that_waits_or_trains_is_kept_where_only_one_at_rest_is_to_be_deleted(store, status):
    run = store.create(REAL)
    store.change(run.id, status=status)
    with pytest.raises(ValueError) as said:
        store.delete(run.id, at_rest=True)
    assert str(said.value) == "Stop the run first." and store.run(run.id).status == status
    store.change(run.id, status="paused")
    store.delete(run.id, at_rest=True)
    assert not store.runs()


@pytest.mark.parametrize("name, length", [("", 0), (" \n", 0), ("x" * 121, 121)])
def test_bad_names_are_refused_in_a_sentence(store, name, length):
    run = store.create(REAL)
    with pytest.raises(ValueError) as said:
        store.rename(run.id, name)
    assert str(said.value) == f"the name has {length} characters; allowed are 1 to 120."
    assert store.run(run.id).name == run.name


@pytest.mark.parametrize("ask", ["run", "trace", "delete", "writer", "rename", "change"])
def test_an_unknown_run_is_said_in_a_sentence(store, ask):
    more = {"rename": ["new name"]}.get(ask, [])
    with pytest.raises(KeyError) as said:
        getattr(store, ask)("nobody", *more, **({"status": "done"} if ask == "change" else {}))
    assert said.value.args == ("There is no run 'nobody' here. It may have been deleted; choose another run.",)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"steps": 50, "score_every": 5, "budget_mb": 64}, ""),  # how long stands beside the name
        ({"batch_size": 32, "optimizer": "adam", "learning_rate": 1e-3}, ", Adam, η = 0.001, K = 32"),
        ({"batch_size": "full", "init": "he", "init_gain": 3.0}, ", He, initial gain 3, K = full"),
        ({"standardize": False, "rescale": "fixed"}, ", standardize inputs: off, γ, β fixed at 1 and 0"),
    ],
)
def test_a_run_is_named_for_what_is_not_as_by_default(store, more, words):
    name = store.create(Experiment(settings=Settings(activation="tanh", **more), arms=(Arm(label="a"),))).name
    assert name == f"Digits, 20 × 64 tanh{words}: a"


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ({"depth": 3}, {"width": 128}, "Digits, sigmoid: a, b"),
        ({"depth": 3, "width": 8}, {"depth": 3, "width": 8, "activation": "relu"}, "Digits, 3 × 8: a, b"),
        ({"data": "wine", "batch_size": 32}, {"batch_size": 32}, "20 × 64 sigmoid, K = 32: a, b"),
        ({"data": "wine", "depth": 3, "activation": "relu"}, {}, "a, b"),
    ],
)
def test_a_name_says_of_size_and_settings_only_what_all_arms_have(store, one, other, name):
    arms = (Arm(label="a", changes=one), Arm(label="b", changes=other))
    assert store.create(Experiment(arms=arms)).name == name


@pytest.mark.parametrize(("seeds", "told"), [((0,), ""), ((3,), ", seed 3"), ((0, 3), ", 2 seeds")])
def test_a_name_says_which_seed_it_is_unless_it_is_0(store, seeds, told):
    experiment = Experiment(arms=(Arm(label="a"),), seeds=seeds)
    assert store.create(experiment).name == f"Digits, 20 × 64 sigmoid: a{told}"


def test_every_setting_can_stand_in_a_name():
    for name in set(Settings.model_fields) - set(SHARED):
        field = getattr(Settings(), name)
        for value in about(name).choices or ([not field] if isinstance(field, bool) else [field]):
            assert 0 < len(briefly(name, value)) < 40


def test_a_long_name_is_cut_between_two_words(store):
    arms = tuple(Arm(label=f"arm number {i} with a long label", changes={"alpha": i / 10}) for i in range(6))
    name = store.create(Experiment(arms=arms, seeds=range(8))).name
    assert len(name) <= 120 and name.endswith("…")
    whole = f"Digits, 20 × 64 sigmoid: {', '.join(arm.label for arm in arms)}"
    assert whole.startswith(name[:-1]) and whole[len(name) - 1] in " ,"
    assert store.create(Experiment(), name="x" * 200).name == "x" * 119 + "…"


def test_a_run_of_another_version_hides_no_other(store):
    mine, other = store.create(REAL), store.create(REAL, name="from tomorrow")
    asked = REAL.model_dump_json().replace('"settings":{', '"settings":{"dropout":0.5,')
    store.db.execute("update runs set experiment = ? where id = ?", (asked, other.id))
    assert [run.id for run in store.runs()] == [mine.id] and store.run(mine.id) == mine
    with pytest.raises(KeyError) as error:
        store.run(other.id)
    assert error.value.args == (
        "The run 'from tomorrow' was created by another version of the lab and cannot be read by this one. "
        "Choose another run.",
    )
