"""The file in which runs are kept: on a full disk, beside another who writes, gone, of another version, shrunk."""

import gc
import shutil
import sqlite3
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from known_rows import REAL, SMALL

from bnlab import database
from bnlab.experiment import Experiment
from bnlab.store import COLUMNS, RunStore
from bnlab.train import train


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


def test_a_store_in_a_read_only_place_is_read_and_nothing_is_written_beside_it(store, tmp_path, monkeypatch):
    """As on a mounted archive. As root everything can be written, so SQLite's answer is set."""
    run = store.create(REAL)
    with store.writer(run.id) as writer:
        for record in train(REAL):
            writer.keep(record)
    loss, connect = store.trace(run.id).read("loss", 0).mean, sqlite3.connect
    store.close()
    copy = tmp_path / "an archive? 100 %"
    shutil.copytree(store.directory, copy)
    before = {path: path.read_bytes() for path in copy.iterdir()}

    def read_only(path, **how):
        if "immutable" in str(path):
            return connect(path, **how)
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
        raise error

    monkeypatch.setattr("bnlab.database.sqlite3.connect", read_only)
    archived = RunStore(copy)
    np.testing.assert_array_equal(archived.trace(run.id).read("loss", 0).mean, loss)
    assert {path: path.read_bytes() for path in copy.iterdir()} == before
    with pytest.raises(ValueError, match="read-only"):
        archived.rename(run.id, "mine")
    archived.close()
    for part, content in (("-shm", b""), ("-wal", b"not yet in the file")):  # of a run that trains, or was killed
        (beside := copy / f"runs.sqlite{part}").write_bytes(content)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            RunStore(copy)
        beside.unlink()


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
