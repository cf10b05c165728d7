"""Run and RunStore: what was asked, and what has been seen so far. One SQLite file a directory.

Write-ahead logging, so that a run is read while it grows; numbers as blobs of float32, which keep NaN and infinities.
keeping.py writes a run, reading.py reads one.
"""

from __future__ import annotations

import io
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .data import DATASETS
from .experiment import Experiment
from .fork import forked

if TYPE_CHECKING:
    from .keeping import Writer
    from .reading import Trace

ENDED = ("done", "stopped", "diverged", "failed")
LONGEST_NAME = 120
ALIVE = 30.0  # seconds after its last sign in which a run that trains is taken to be trained by someone

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
TABLES = ("chunks", "summary", "scores", "population", "snapshots", "looks", "forks")
PATIENCE = 30_000  # milliseconds to wait for another writer
PIECE = 2000  # pages given back at once
MOST_LOOKS = 400  # of one probe in a run; older ones asked for by hand make room


GONE = (
    "the weights of step {} that this fork began with are gone: the run it came from was deleted, or has made room. "
    "Fork again from a run that has them."
)


class Run(NamedTuple):
    """An experiment asked at one moment, and how far it is.

    step: the last recorded one, -1 before the first. rate: steps per second, lately. diverged: for each network (arm,
    seed) that did, the step and the layer where it began (0: the readout). version changes with anything else here.
    """

    id: str
    name: str
    experiment: Experiment
    status: str
    reason: str
    step: int
    created: datetime
    updated: datetime
    device: str
    steps_per_second: float
    diverged: dict[tuple[int, int], tuple[int, int]]
    version: int

    @property
    def ended(self) -> bool:
        """Nothing will be added unless someone asks for it."""
        return self.status in ENDED

    @property
    def alive(self) -> bool:
        """Some process trains it, or did a moment ago."""
        return self.status == "running" and (datetime.now() - self.updated).total_seconds() < ALIVE


class RunStore:
    """All runs of one directory. May be used from any thread and process at once."""

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "runs.sqlite"
        self.local = threading.local()
        with self.transaction() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self.local, "db"):
            db = sqlite3.connect(self.path, timeout=PATIENCE / 1000, isolation_level=None)
            db.execute("pragma auto_vacuum = incremental")  # of a new file: what is deleted can leave it, see shrink()
            db.execute("pragma journal_mode = wal")
            db.execute("pragma journal_size_limit = 1000000")
            db.execute("pragma synchronous = normal")
            self.local.db = db
        return self.local.db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        db = self.db
        db.execute("begin immediate")
        try:
            yield db
        except BaseException:
            db.execute("rollback")
            raise
        db.execute("commit")

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
            db.execute("commit")

    def close(self) -> None:
        """Close this thread's connection."""
        if hasattr(self.local, "db"):
            self.local.db.close()
            del self.local.db

    def create(self, experiment: Experiment, name: str | None = None, device: str = "auto") -> Run:
        """Keep a new question, queued; its name is taken from the experiment unless given."""
        run_id, now = secrets.token_hex(6), time.time()
        row = (run_id, shortened(name or described(experiment)), experiment.model_dump_json(), now, now, device)
        with self.transaction() as db:
            db.execute("insert into runs values (?, ?, ?, 'queued', '', -1, ?, ?, ?, 0, '[]', 0)", row)
        return self.run(run_id)

    def fork(self, run_id: str, arm: int, step: int, changes: dict, more: int | None = None) -> Run:
        """Keep a question that goes on where an arm of a run was at a step, as it was and with changes; queued. It
        trains `more` steps, or as many as the run had left.

        Raises KeyError, and ValueError with a sentence where there is no snapshot or nothing to change.
        """
        parent = self.run(run_id)
        if not self.snapshot(run_id, step):
            raise ValueError(f"there is no snapshot of the weights at step {step}; choose a step that has one.")
        if all(parent.diverged.get((arm, seed), (step,))[0] < step for seed in parent.experiment.seeds):
            label = parent.experiment.arms[arm].label
            raise ValueError(f"{label!r} had diverged by step {step}; choose an earlier step, or another arm.")
        experiment = forked(parent.experiment, arm, step, changes, more)
        run = self.create(experiment, f"Fork at step {step}: {experiment.arms[1].label}")
        with self.transaction() as db:
            db.execute("insert into forks values (?, ?, ?, ?)", (run.id, run_id, arm, step))
        return run

    def again(self, run_id: str) -> Run:
        """Keep a run's question anew, from the same weights: the initial ones, or those it was forked from; queued.

        Raises KeyError, and ValueError with a sentence where the weights are gone.
        """
        run, origin = self.run(run_id), self.origin(run_id)
        if origin is None:
            return self.create(run.experiment)
        parent, _, step = origin
        own = [] if self.snapshot(parent, step) else self.snapshot(run_id, step)
        if not own and not self.snapshot(parent, step):
            raise ValueError(GONE.format(step))
        new = self.create(run.experiment, run.name)
        with self.transaction() as db:
            db.execute("insert into forks values (?, ?, ?, ?)", (new.id, *origin))
            rows = [(new.id, stack, step, data) for stack, data in enumerate(own)]
            db.executemany("insert into snapshots values (?, ?, ?, ?)", rows)
        return new

    def origin(self, run_id: str) -> tuple[str, int, int] | None:
        """Run, arm and step that a run was forked from; None for one that begins with initial weights."""
        return self.db.execute("select parent, arm, step from forks where run = ?", (run_id,)).fetchone()

    def run(self, run_id: str) -> Run:
        """The run with this id. Raises KeyError with a sentence."""
        row = self.db.execute("select * from runs where id = ?", (run_id,)).fetchone()
        if row is None:
            raise KeyError(f"There is no run {run_id[:40]!r} here. It may have been deleted; choose another run.")
        return told(row)

    def runs(self, status: str | None = None) -> list[Run]:
        """All runs, or those with a status, the newest first."""
        rows = self.db.execute(
            "select * from runs where status = ifnull(?, status) order by created desc, rowid desc", (status,)
        )
        return [told(row) for row in rows]

    def change(self, run_id: str, **columns: object) -> None:
        """Set columns of a run (status, reason, name, device, ...); its version grows. Raises KeyError."""
        names = ", ".join(f"{name} = ?" for name in columns)
        with self.transaction() as db:
            found = db.execute(
                f"update runs set {names}, updated = ?, version = version + 1 where id = ?",
                (*columns.values(), time.time(), run_id),
            )
        if not found.rowcount:
            self.run(run_id)

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name. Raises KeyError, and ValueError for an empty or too long name."""
        name = " ".join(name.split())
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ValueError(f"the name has {len(name)} characters; allowed are 1 to {LONGEST_NAME}.")
        self.change(run_id, name=name)

    def delete(self, run_id: str) -> None:
        """Remove a run and all that was seen of it. Raises KeyError."""
        self.run(run_id)
        with self.transaction() as db:
            for table in TABLES:
                db.execute(f"delete from {table} where run = ?", (run_id,))
            db.execute("delete from runs where id = ?", (run_id,))
        self.shrink()

    def shrink(self) -> None:
        """Give the room of what was deleted back to the disk, in pieces, between which others can write."""
        db = self.db
        try:
            (left,) = db.execute("pragma freelist_count").fetchone()
            while left:
                db.execute(f"pragma incremental_vacuum({PIECE})").fetchall()
                before, (left,) = left, db.execute("pragma freelist_count").fetchone()
                if left >= before:  # a file of an older version keeps its size; or others delete as fast
                    break
            db.execute("pragma busy_timeout = 100")  # whoever reads at this moment is not waited for
            db.execute("pragma wal_checkpoint(truncate)").fetchall()
        except sqlite3.OperationalError:  # others are at work; the next one that deletes gives it back
            pass
        finally:
            db.execute(f"pragma busy_timeout = {PATIENCE}")

    def writer(self, run_id: str) -> Writer:
        """What keeps the records of a run, a context manager. One writer a run at a time."""
        from .keeping import Writer

        return Writer(self, run_id)

    def trace(self, run_id: str) -> Trace:
        """The run as columns over steps. Raises KeyError."""
        from .reading import Trace

        return Trace(self, self.run(run_id))

    def keep_look(self, run_id: str, probe: str, options: Mapping, step: int, found: list[Mapping]) -> None:
        """Keep what a probe saw of every stack: arrays by name. Looks come and go; the newest MOST_LOOKS stay.

        Raises KeyError if the run was deleted meanwhile.
        """
        from .keeping import fit_looks, left_for_looks

        where = (run_id, probe, json.dumps(options, sort_keys=True))
        with self.transaction() as db:
            for stack, arrays in enumerate(found):
                data = io.BytesIO()
                np.savez(data, **arrays)
                row = (run_id, stack, probe, where[2], step, data.getvalue())
                db.execute("insert or replace into looks values (?, ?, ?, ?, ?, ?)", row)
            old = (
                f"select rowid from looks where run = ? and probe = ? order by rowid desc limit -1 offset {MOST_LOOKS}"
            )
            db.execute(f"delete from looks where rowid in ({old})", where[:2])
            db.execute("update runs set version = version + 1 where id = ?", (run_id,))
            experiment = self.run(run_id).experiment
            fit_looks(db, run_id, experiment, left_for_looks(db, run_id, experiment))

    def keep_wrong(self, run_id: str, probe: str, options: Mapping, step: int, why: str) -> None:
        """Keep, in place of what a probe saw, the sentence that says why it saw nothing. Raises KeyError."""
        found = [{"wrong": np.array([why] * len(networks))} for networks in self.run(run_id).experiment.stacks]
        self.keep_look(run_id, probe, options, step, found)

    def last_snapshot(self, run_id: str) -> tuple[int, list[bytes]] | None:
        """The newest step with a snapshot of every stack, and the snapshots' bytes; None before the first."""
        (step,) = self.db.execute("select max(step) from snapshots where run = ?", (run_id,)).fetchone()
        return None if step is None else (step, self.snapshot(run_id, step))

    def snapshot(self, run_id: str, step: int) -> list[bytes]:
        """The bytes of the snapshots of all stacks at a step, float32."""
        rows = self.db.execute("select data from snapshots where run = ? and step = ? order by stack", (run_id, step))
        return [data for (data,) in rows]


@lru_cache(256)
def parsed(text: str) -> Experiment:
    return Experiment.model_validate_json(text)


def told(row: tuple) -> Run:
    run_id, name, text, status, reason, step, created, updated, device, rate, diverged, version = row
    return Run(
        run_id,
        name,
        parsed(text),
        status,
        reason,
        step,
        datetime.fromtimestamp(created),
        datetime.fromtimestamp(updated),
        device,
        rate,
        {(arm, seed): (at, layer) for arm, seed, at, layer in json.loads(diverged)},
        version,
    )


def shortened(name: str) -> str:
    """A name of at most LONGEST_NAME characters, cut between two words."""
    if len(name) <= LONGEST_NAME:
        return name
    whole, blank, _ = name[:LONGEST_NAME].rpartition(" ")
    return (whole.rstrip(" ,:") if blank else name[: LONGEST_NAME - 1]) + "…"


def described(experiment: Experiment) -> str:
    """A name that says what is asked: data, size, arms."""
    s = experiment.settings
    seeds = f", {len(experiment.seeds)} seeds" if len(experiment.seeds) > 1 else ""
    arms = ", ".join(arm.label for arm in experiment.arms)
    return f"{DATASETS[s.data].label}, {s.depth} × {s.width} {s.activation}: {arms}{seeds}"
