"""The runs of a directory: listed, named, deleted, and what a killed process leaves of one."""

import gc
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from at_work import until
from known_rows import ARMS, REAL, SMALL, keep, same, size

from bnlab import database, executing
from bnlab.experiment import Arm, Experiment
from bnlab.process import ABOVE
from bnlab.reading import NAMES
from bnlab.run import Taken, briefly
from bnlab.settings import SHARED, Settings, about
from bnlab.store import COLUMNS, RunStore
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


@pytest.mark.parametrize("within", ["transaction", "reading"])
def test_a_full_disk_is_said_as_such_and_leaves_what_was_there(store, within):
    """A limit on the file's pages stands for the disk."""
    run, db = store.create(REAL), store.db
    (pages,) = db.execute("pragma page_count").fetchone()
    db.execute(f"pragma max_page_count = {pages + 2}")
    with pytest.raises(sqlite3.OperationalError, match="disk is full") as full, getattr(store, within)():
        db.execute("update runs set name = 'half'")
        db.execute("insert into snapshots values (?, 0, 0, zeroblob(1000000))", (run.id,))
    db.execute("pragma max_page_count = 1000000")
    assert within == "reading" or isinstance(full.value, ValueError), "as all that a page says"
    with getattr(store, within)():
        assert store.run(run.id).name == run.name


def test_a_store_that_is_there_is_opened_and_read_without_writing(store, monkeypatch):
    """As on a full disk. Where another writes, whoever would write waits in vain."""
    run = store.create(REAL)
    monkeypatch.setattr(database, "PATIENCE", 50)
    with store.transaction():
        other = type(store)(store.directory)
        assert other.run(run.id).name == run.name
        with pytest.raises(ValueError, match=r"^Another process has been writing .*Try again in a moment\.$") as busy:
            other.rename(run.id, "mine")
        assert isinstance(busy.value, sqlite3.OperationalError)
    other.close()


def test_runs_leave_the_room_in_which_they_can_be_stopped_and_deleted(store, monkeypatch):
    run, record = store.create(REAL), next(train(REAL))
    left = SimpleNamespace(free=10_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda directory: left)
    writer = store.writer(run.id)
    for grow in (
        lambda: store.create(REAL),
        lambda: store.again(run.id),
        lambda: writer.keep(record),
        lambda: writer.snapshot(0, record.weights),
        lambda: store.keep_wrong(run.id, "rank", {}, 0, "why"),
    ):
        with pytest.raises(database.Full):
            grow()
    store.change(run.id, status="stopped")
    store.rename(run.id, "mine")
    assert [(kept.name, kept.status, kept.step) for kept in store.runs()] == [("mine", "stopped", -1)]
    store.delete(run.id)
    left.free = 20_000_000
    assert store.runs() == [] and store.create(REAL)


def test_to_delete_a_run_takes_little_room(store):
    """As on a disk that is nearly full; whatever SQLite was built with."""
    run = store.create(REAL)
    for step in range(20):
        store.db.execute("insert into snapshots values (?, 0, ?, randomblob(1000000))", (run.id, step))
    store.db.execute("pragma wal_checkpoint(truncate)").fetchall()
    with store.transaction() as db:
        db.execute("delete from snapshots")
    log = store.path.with_name(f"{store.path.name}-wal")
    assert log.stat().st_size < 1_000_000


def test_a_file_that_keeps_its_size_is_left_after_one_try_to_shrink_it(tmp_path):
    """As one of an older version; SQLite is interrupted where it is tried on and on."""
    old = sqlite3.connect(tmp_path / database.FILE)
    old.execute("create table notes (text)")
    old.close()
    store, said = RunStore(tmp_path), []
    run = store.create(REAL)
    store.db.execute("insert into snapshots values (?, 0, 0, zeroblob(1000000))", (run.id,))
    store.db.set_trace_callback(said.append)
    store.db.set_progress_handler(lambda: len(said) > 100, 1)
    store.delete(run.id)
    store.db.set_progress_handler(None, 0)
    assert store.db.execute("pragma freelist_count").fetchone()[0] > 200
    assert len([statement for statement in said if "incremental_vacuum" in statement]) == 1
    store.close()


def test_a_transaction_that_cannot_be_committed_is_undone(store):
    run, db = store.create(REAL), store.db
    db.execute("pragma foreign_keys = on")
    db.execute("create table notes (run text references runs deferrable initially deferred)")
    with pytest.raises(sqlite3.IntegrityError), store.transaction():
        db.execute("update runs set name = 'half'")
        db.execute("insert into notes values ('nobody')")  # seen when it is committed
    store.rename(run.id, "mine")
    assert store.run(run.id).name == "mine"


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
        "The run 'from tomorrow' was asked in another version of the lab and cannot be read in this one. "
        "Choose another run.",
    )


def test_the_columns_of_runs_are_known_by_name_and_a_newer_version_may_have_more(store):
    """They were known by their order: one more, and no run could be read or asked."""
    (made,) = store.db.execute("select sql from sqlite_master where name = 'runs'").fetchone()
    head, columns = made.rstrip(")").split("(")
    turned = ", ".join([*columns.split(",")[::-1], "note text not null default ''"])
    before = store.create(Experiment(settings=SMALL))
    store.db.execute("alter table runs rename to old")
    store.db.execute(f"{head}({turned})")
    store.db.execute(f"insert into runs ({COLUMNS}) select {COLUMNS} from old")
    assert store.runs() == [before]
    assert store.create(before.experiment, name="new").name == "new" and store.count("queued") == 2


def test_where_the_directory_is_gone_nothing_more_is_kept_and_that_is_said(tmp_path):
    store = RunStore(tmp_path / "runs")
    shutil.rmtree(store.directory)
    with pytest.raises(database.Unkept, match=r"cannot be used: No such file or directory\. It may be gone"):
        store.create(Experiment(settings=SMALL))


def test_a_file_that_cannot_be_opened_is_one_error_and_no_traceback_beside_it(tmp_path, monkeypatch):
    beside = []
    monkeypatch.setattr(sys, "unraisablehook", beside.append)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(tmp_path / "gone" / "runs.sqlite", factory=database.Connection)
    gc.collect()
    assert not beside
