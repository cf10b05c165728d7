"""RunStore: the runs of a directory, asked, forked, renamed, deleted, and what is kept of each at single steps.

keeping.py writes what a run records, reading.py reads it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING

import numpy as np

from .budget import blob, fit_looks, left_for_looks
from .database import OF_A_RUN, Database
from .experiment import Experiment
from .fork import called, forked
from .run import STOP_FIRST, UNDER_WAY, Run, Taken, checked_name, described, run_in, shortened

if TYPE_CHECKING:
    from .keeping import Writer
    from .reading import Trace

COLUMNS = "id, name, experiment, status, reason, step, created, updated, device, rate, diverged, version"
RUNS = (
    f"select {COLUMNS}, (select max(step) from snapshots where run = runs.id), "
    "coalesce((select step from forks where run = runs.id), 0) from runs"
)
MOST_LOOKS = 400  # of one probe in a run; older ones asked for by hand make room
GONE = (
    "the weights of step {:,} that this fork began with are gone: the run it came from was deleted or thinned. "
    "Fork again from a run that has them."
)


class RunStore(Database):
    """All runs of one directory. May be used from any thread and process at once."""

    def __init__(self, directory: Path | str):
        super().__init__(Path(directory))

    def create(self, experiment: Experiment, name: str | None = None, device: str = "auto") -> Run:
        """Keep a new question, queued; its name is taken from the experiment unless given."""
        with self.transaction(grows=True) as db:
            run_id = add(db, experiment, name, device)
        return self.run(run_id)

    def fork(self, run_id: str, arm: int, step: int, changes: dict, more: int | None = None) -> Run:
        """Keep a question that goes on where an arm of a run was at a step, as it was and with changes; queued. It
        trains `more` steps, or as many as the run had left.

        Raises KeyError, and ValueError with a sentence where there is no snapshot or nothing to change.
        """
        parent = self.run(run_id)
        if not self.has_snapshot(run_id, step):
            raise ValueError(f"there is no snapshot of the weights at step {step:,}; choose a step that has one.")
        if all(parent.diverged.get((arm, seed), (step,))[0] < step for seed in parent.experiment.seeds):
            label = parent.experiment.arms[arm].label
            raise ValueError(f"{label!r} had diverged by step {step:,}; choose an earlier step, or another arm.")
        experiment = forked(parent.experiment, arm, step, changes, more)
        named = called(parent.experiment, arm, changes)  # first what differs: the end may be cut off
        with self.transaction(grows=True) as db:  # a run without its origin would train from initial weights
            new = add(db, experiment, f"{named}, from step {step:,} of {parent.name}")
            db.execute("insert into forks values (?, ?, ?, ?)", (new, run_id, arm, step))
        return self.run(new)

    def again(self, run_id: str) -> Run:
        """Keep a run's question anew, from the same weights: the initial ones, or those it was forked from; queued.

        Raises KeyError, and ValueError with a sentence where the weights are gone.
        """
        run, origin = self.run(run_id), self.origin(run_id)
        if origin is None:
            return self.create(run.experiment)
        parent, _, step = origin
        gone = not self.has_snapshot(parent, step)
        if gone and not self.has_snapshot(run_id, step):
            raise ValueError(GONE.format(step))
        with self.transaction(grows=True) as db:
            new = add(db, run.experiment, run.name)
            db.execute("insert into forks values (?, ?, ?, ?)", (new, *origin))
            if gone:
                own = "select ?, stack, step, data from snapshots where run = ? and step = ?"
                db.execute(f"insert into snapshots {own}", (new, run_id, step))
        return self.run(new)

    def origin(self, run_id: str) -> tuple[str, int, int] | None:
        """Run, arm and step that a run was forked from; None for one that begins with initial weights."""
        return self.db.execute("select parent, arm, step from forks where run = ?", (run_id,)).fetchone()

    def forks(self, run_id: str) -> list[Run]:
        """The runs that were forked from a run."""
        return readable(self.db.execute(f"{RUNS} where id in (select run from forks where parent = ?)", (run_id,)))

    def run(self, run_id: str) -> Run:
        """The run with this id. Raises KeyError with a sentence."""
        row = self.db.execute(f"{RUNS} where id = ?", (run_id,)).fetchone()
        if row is None:
            raise KeyError(f"There is no run {run_id[:40]!r} here. It may have been deleted; choose another run.")
        return run_in(row)

    def runs(self, *statuses: str, limit: int = -1, offset: int = 0) -> list[Run]:
        """All runs, or those with one of these statuses, the newest first; of these `limit` from `offset` on."""
        newest = "order by created desc, rowid desc"
        some = f"select rowid from runs {having(statuses)} {newest} limit ? offset ?"  # else all of all is sorted
        return readable(self.db.execute(f"{RUNS} where rowid in ({some}) {newest}", (*statuses, limit, offset)))

    def count(self, *statuses: str) -> int:
        """How many runs there are, or with one of these statuses."""
        return self.db.execute(f"select count(*) from runs {having(statuses)}", statuses).fetchone()[0]

    def change(self, run_id: str, was: Run | None = None, **columns: object) -> bool:
        """Set columns of a run (status, reason, name, device, ...); its version grows. With `was`, the run as it was
        read, only where nothing has changed it since; returns whether it was changed. Raises KeyError."""
        names = ", ".join(f"{name} = ?" for name in columns)
        with self.transaction() as db:  # which no other can change it within
            now = self.run(run_id)
            if was and was != now:
                return False
            db.execute(
                f"update runs set {names}, updated = ?, version = version + 1 where id = ?",
                (*columns.values(), time.time(), run_id),
            )
        return True

    def hold(self, run_ids: Iterable[str]) -> None:
        """A sign that somebody holds these runs, for those of them that wait; whoever trains one gives its own."""
        with self.transaction() as db:
            sign = "update runs set updated = ? where id = ? and status = 'queued'"
            db.executemany(sign, [(time.time(), run_id) for run_id in run_ids])

    def claim(self, run_id: str, device: str, waits: bool = False) -> Run:
        """Have a run trained by this process: the run as it was, now running. Raises KeyError, and Taken where another
        process trains it, with `waits` also where it waits no more."""
        with self.transaction() as db:  # which no other can claim it within
            run = self.run(run_id)
            if run.alive or (waits and run.status != "queued"):
                raise Taken(run_id)
            now = "status = 'running', reason = '', device = ?, updated = ?, version = version + 1"
            db.execute(f"update runs set {now} where id = ?", (device, time.time(), run_id))
        return run

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name. Raises KeyError, and ValueError for an empty or too long name."""
        self.change(run_id, name=checked_name(name))

    def delete(self, run_id: str, at_rest: bool = False) -> None:
        """Remove a run and all that was seen of it. Raises KeyError, and with `at_rest` ValueError where it waits
        or trains."""
        with self.transaction() as db:  # which nobody can resume it within
            if self.run(run_id).status in UNDER_WAY and at_rest:
                raise ValueError(STOP_FIRST)
            for table in OF_A_RUN:
                db.execute(f"delete from {table} where run = ?", (run_id,))
            db.execute("delete from runs where id = ?", (run_id,))
        self.shrink()

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
        asked = json.dumps(options, sort_keys=True)
        with self.transaction(grows=True) as db:
            for stack, arrays in enumerate(found):
                row = (run_id, stack, probe, asked, step, blob(arrays))
                db.execute("insert or replace into looks values (?, ?, ?, ?, ?, ?)", row)
            old = "select rowid from looks where run = ? and probe = ? order by rowid desc limit -1 offset ?"
            most = MOST_LOOKS * len(found)  # rows: no look is torn
            db.execute(f"delete from looks where rowid in ({old})", (run_id, probe, most))
            db.execute("update runs set version = version + 1 where id = ?", (run_id,))
            experiment = self.run(run_id).experiment
            fit_looks(db, run_id, experiment, left_for_looks(db, run_id, experiment))

    def keep_wrong(self, run_id: str, probe: str, options: Mapping, step: int, why: str) -> None:
        """Keep, in place of what a probe saw, the sentence that says why it saw nothing. Raises KeyError."""
        found = [{"wrong": np.array([why] * len(networks))} for networks in self.run(run_id).experiment.stacks]
        self.keep_look(run_id, probe, options, step, found)

    def last_snapshot(self, run_id: str) -> tuple[int, list[np.ndarray]] | None:
        """The newest step with a snapshot of every stack, and its vectors; None before the first."""
        (step,) = self.db.execute("select max(step) from snapshots where run = ?", (run_id,)).fetchone()
        return None if step is None else (step, self.snapshot(run_id, step))

    def snapshot(self, run_id: str, step: int) -> list[np.ndarray]:
        """The vectors of the snapshot at a step, float32, read-only, one a stack; none where there is none."""
        rows = self.db.execute("select data from snapshots where run = ? and step = ? order by stack", (run_id, step))
        return [np.frombuffer(data, np.float32) for (data,) in rows]

    def has_snapshot(self, run_id: str, step: int) -> bool:
        """Whether there are any, without loading them."""
        ask = "select 1 from snapshots where run = ? and step = ? limit 1"
        return self.db.execute(ask, (run_id, step)).fetchone() is not None


def readable(rows: Iterable[tuple]) -> list[Run]:
    """The runs in these rows, but for those of another version, which must not hide all others."""
    found = []
    for row in rows:
        with suppress(KeyError):
            found.append(run_in(row))
    return found


def having(statuses: tuple[str, ...]) -> str:
    """The condition that a run has one of these statuses; none: any."""
    return f"where status in ({', '.join('?' * len(statuses))})" if statuses else ""


def add(db: Connection, experiment: Experiment, name: str | None, device: str = "auto") -> str:
    """The id of a new question, queued, within a transaction."""
    run_id, now = secrets.token_hex(6), time.time()
    row = (run_id, shortened(name or described(experiment)), experiment.model_dump_json(), now, now, device)
    db.execute(f"insert into runs ({COLUMNS}) values (?, ?, ?, 'queued', '', -1, ?, ?, ?, 0, '[]', 0)", row)
    return run_id
