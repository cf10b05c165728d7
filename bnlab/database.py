"""One SQLite file: its tables, a connection for each thread, transactions, and its size on disk.

Write-ahead logging, so that a run is read while it grows; numbers as blobs of float32, which keep NaN and infinities.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Error

SCHEMA = """
create table if not exists runs (
    id text primary key, name text not null, experiment text not null, status text not null, reason text not null,
    step integer not null, created real not null, updated real not null, device text not null, rate real not null,
    diverged text not null, version integer not null);
create table if not exists chunks (
    id integer primary key, run text not null, stack integer not null, kind text not null, first integer not null,
    stride integer not null, n integer not null, data blob not null, unique (run, stack, kind, first));
create table if not exists summary (
    id integer primary key, run text not null, stack integer not null, kind text not null, first integer not null,
    stride integer not null, n integer not null, data blob not null, unique (run, stack, kind, first));
create table if not exists scores (
    run text not null, stack integer not null, step integer not null, data text not null,
    primary key (run, stack, step));
create table if not exists population (
    run text not null, stack integer not null, step integer not null, data blob not null,
    primary key (run, stack, step));
create table if not exists snapshots (
    run text not null, stack integer not null, step integer not null, data blob not null,
    primary key (run, stack, step));
create table if not exists looks (
    run text not null, stack integer not null, probe text not null, options text not null, step integer not null,
    data blob not null, primary key (run, probe, options, step, stack));
create table if not exists forks (
    run text primary key, parent text not null, arm integer not null, step integer not null);
"""
FILE = "runs.sqlite"  # of a directory
OF_A_RUN = ("chunks", "summary", "scores", "population", "snapshots", "looks", "forks")  # tables beside `runs`
PATIENCE = 30_000  # milliseconds to wait for another writer
MARGIN = 16_000_000  # bytes of the disk that no run takes: to stop and to delete runs some are needed
FULL = "The disk is full: nothing more can be kept. Delete runs or other files; what is recorded can be read as before."
BUSY = (
    f"Another process has been writing to the file of the runs for {PATIENCE // 1000} seconds, so nothing was kept. "
    "Try again in a moment."
)
UNUSABLE = (
    "The file of the runs cannot be used: {}. It may be gone, damaged, read-only or on a full disk. Put it right, then "
    "start again."
)
TOLD = {sqlite3.SQLITE_FULL: FULL, sqlite3.SQLITE_BUSY: BUSY}  # else UNUSABLE
UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)  # nothing can be written beside a file
PAGES = 2000  # pages given back at once


class Unkept(sqlite3.OperationalError, ValueError):
    """Nothing can be written. A ValueError as all that is said to a person, who can put it right."""


class Full(Unkept):
    """The disk is full."""


def told(error: Error) -> str:
    """What a person is told where the file cannot be read or written."""
    return str(error) if isinstance(error, Unkept) else TOLD.get(code(error), UNUSABLE.format(error))


def in_terminal(error: Exception, directory: Path) -> str:
    """What is wrong, in one line of a terminal, which may name places as a page does not; `directory` is the runs'."""
    text = error.args[0] if isinstance(error, KeyError) else error
    if isinstance(error, OSError) and error.strerror:
        why = "it is a file; name a directory" if isinstance(error, FileExistsError) else error.strerror
        place = error.filename2 or error.filename  # where what is replaced is meant, and not what replaces it
        text = f"{place}: {why}." if place else f"{why}."
    if isinstance(error, Error):
        text = f"{directory / FILE}: {told(error)}"
    return " ".join(str(text).split())


def code(error: BaseException) -> int | None:
    """SQLite's code of an error, less its details; None where it has none."""
    found = getattr(error, "sqlite_errorcode", None)
    return found and found & 0xFF


def complete(path: Path) -> bool:
    """Whether a file of runs is all there is: nobody has it open, and nothing is left in its log."""
    log, shared = (path.with_name(f"{path.name}{part}") for part in ("-wal", "-shm"))
    return path.exists() and not shared.exists() and not (log.exists() and log.stat().st_size)


class Connection(sqlite3.Connection):
    """One that is closed with its thread or its store, whichever goes first: Python 3.13 warns of those left open."""

    def __del__(self):
        with suppress(sqlite3.ProgrammingError):  # it could not be opened
            self.close()


def connected(path: Path, **how) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none."""
    db = sqlite3.connect(path, **how)
    if not db.execute("pragma page_count").fetchone()[0]:  # new; what is deleted can leave it, see shrink()
        db.execute("pragma auto_vacuum = incremental")
    db.execute("pragma journal_mode = wal")
    db.execute("pragma journal_size_limit = 1000000")
    db.execute("pragma synchronous = normal")
    db.execute("pragma secure_delete = off")  # Debian's zeroes what is deleted, in the log: as much again
    return db


class Database:
    """The file of a directory in which runs are kept. May be used from any thread and process at once."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.path, self.local = directory, directory / FILE, threading.local()
        (there,) = self.db.execute("select count(*) from sqlite_master where type = 'table'").fetchone()
        if there < SCHEMA.count("create table"):  # else nothing is written: what there is can be read on a full disk
            with self.transaction() as db:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection. A file in a place that is read-only is read as one that never changes, if it is
        complete."""
        if not hasattr(self.local, "db"):
            how = {"timeout": PATIENCE / 1000, "isolation_level": None, "factory": Connection}
            how |= {"check_same_thread": False}  # a store may go in another's thread
            try:
                self.local.db = connected(self.path, **how)
            except sqlite3.OperationalError as error:
                if code(error) not in UNWRITABLE or not complete(self.path):
                    raise
                self.local.db = sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", **how, uri=True)
        return self.local.db

    @contextmanager
    def transaction(self, grows: bool = False) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; what `grows` the file leaves MARGIN of the disk. Raises Full where the disk is, and
        Unkept where else nothing can be written."""
        if grows:
            self.need_room()
        try:
            self.db.execute("begin immediate")
            yield self.db
            self.db.execute("commit")
        except BaseException as error:
            if hasattr(self.local, "db") and self.db.in_transaction:  # SQLite itself rolls back where the disk is full
                self.db.execute("rollback")
            if code(error) in (None, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT):  # a mistake, ours
                raise
            raise (Full if code(error) == sqlite3.SQLITE_FULL else Unkept)(told(error)) from error

    def need_room(self) -> None:
        """Raises Full where no more than MARGIN of the disk is left."""
        try:
            free = shutil.disk_usage(self.directory).free
        except OSError as error:  # it is gone
            raise Unkept(UNUSABLE.format(error.strerror)) from error
        if free < MARGIN:
            raise Full(FULL)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One moment of the file: what is read within belongs together while others write."""
        db = self.db
        if db.in_transaction:
            yield db
            return
        db.execute("begin")
        try:
            yield db
        finally:
            if db.in_transaction:
                db.execute("commit")

    def close(self) -> None:
        """Close this thread's connection."""
        if hasattr(self.local, "db"):
            self.local.db.close()
            del self.local.db

    def shrink(self) -> None:
        """Give the room of what was deleted back to the disk, in pieces, between which others can write."""
        db = self.db
        try:
            (left,) = db.execute("pragma freelist_count").fetchone()
            while left:
                db.execute(f"pragma incremental_vacuum({PAGES})").fetchall()
                before, (left,) = left, db.execute("pragma freelist_count").fetchone()
                if left >= before:  # a file of an older version keeps its size; or others delete as fast
                    break
            db.execute("pragma busy_timeout = 100")  # whoever reads at this moment is not waited for
            db.execute("pragma wal_checkpoint(truncate)").fetchall()
        except sqlite3.OperationalError:  # others are at work; the next one that deletes gives it back
            pass
        finally:
            db.execute(f"pragma busy_timeout = {PATIENCE}")
