"""Writing a run: every step exactly while the budget lasts, then thinner, never without its spikes.

Tables steps and layers (the scalars) are kept exactly, and beside them, from the first step on, as a summary: mean,
min and max over buckets of `stride` steps, a stride that doubles so that the buckets stay few. When the exact rows have
used their share of the budget, those older than the last RECENT steps go. Tables units and samples are kept at every
step until their share is used; then at every second step, every fourth, ...

A chunk is one blob [columns, rows] of float32, so that one column over time is one piece of it. What makes room, and
when, follows from the steps alone: the same experiment leaves the same rows, however it was paced, paused or killed.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from math import prod

import numpy as np

from .store import Run, RunStore
from .summary import CHUNK_ROWS, MOST_BUCKETS, WHERE, Summary
from .trace import Record, layout

COMMIT_EVERY = 0.25  # seconds between two commits
PACE = 2.0  # seconds, at least, over which steps per second are counted
CHUNK_BYTES = 2**20
RECENT = 1024  # steps whose scalars are always exact
SHARES = {"scalars": 0.4, "heavy": 0.37, "summary": 0.1, "snapshots": 0.05, "population": 0.04, "looks": 0.03}
SHARES |= {"scores": 0.01}
MOST_SCORINGS = 1024  # steps of which scores, population rows and snapshots are kept
HEAVY = ("units", "samples")
NO_ROOM = "it has made room for newer looks, as the recording budget is used up. Train with a larger one."


class Writer:
    """Keeps the records of one run as they come; a context manager that commits what is left at its end.

    A run that is resumed from a snapshot repeats steps it has: they are the same to the last bit and are passed over.
    """

    def __init__(self, store: RunStore, run_id: str):
        self.store, self.run_id = store, run_id
        self.experiment = store.run(run_id).experiment
        budget = self.experiment.settings.budget_mb * 1_000_000
        self.share = {name: share * budget for name, share in SHARES.items()}
        layouts = [layout(self.experiment, i) for i in range(len(self.experiment.stacks))]
        self.tables = [Table(self, i, kind, columns) for i, l in enumerate(layouts) for kind, columns in l.items()]
        self.heavy = [t for t in self.tables if t.kind in HEAVY]
        self.stride = max([t.stored_stride() for t in self.heavy], default=1)
        while self.heavy and 4 * sum(t.width for t in self.heavy) > self.share["heavy"] / 4 * self.stride:
            self.stride *= 2  # a row so large that few fit is not kept at every step in the first place
        self.every = CHUNK_ROWS  # steps after which room is made; fewer where so many would take much of the budget
        while self.every > 1 and 4 * sum(t.width for t in self.tables) * self.every > self.share["heavy"] / 4:
            self.every //= 2
        self.pending: list[Record] = []
        self.committed = self.started = time.monotonic()
        run = store.run(run_id)
        self.diverged = dict(run.diverged)
        self.step = run.step
        self.marks = [(self.started, self.step)] * 2  # moments and steps between which the pace is taken

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.commit()
        self.store.shrink()

    def keep(self, record: Record) -> None:
        """Take a record; it is on disk at the next commit, COMMIT_EVERY seconds later if records keep coming."""
        self.pending.append(record)
        full = (record.step + 1) % self.every == 0 or record.scores
        if full or time.monotonic() - self.committed >= COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Write all that is pending, in one transaction."""
        self.committed = now = time.monotonic()
        records, self.pending = self.pending, []
        if not records:
            return
        with self.store.transaction() as db:
            rows = [r for r in records if r.parts]
            for table in self.tables:
                table.add(db, rows, self.stride)
            for r in records:
                self.keep_scores(db, r)
            self.find_divergence(rows)
            self.step = max(self.step, records[-1].step)
            if now - self.marks[1][0] > PACE:
                self.marks = [self.marks[1], (now, self.step)]
            then, step = self.marks[0]
            rate = (self.step - step) / (now - then) if now > then else 0.0
            told = json.dumps([[*network, *where] for network, where in self.diverged.items()])
            db.execute(
                "update runs set step = ?, rate = ?, diverged = ?, updated = ?, version = version + 1 where id = ?",
                (self.step, rate, told, time.time(), self.run_id),
            )
            if (self.step + 1) % self.every == 0:
                self.fit(db)

    @property
    def all_diverged(self) -> bool:
        return len(self.diverged) == len(self.experiment.networks)

    def keep_scores(self, db, record: Record) -> None:
        """Keep the scores, population rows and snapshots of a step that has them."""
        told: dict[int, list] = {}
        for s in record.scores:
            accuracy = None if s.accuracy is None else s.accuracy.tolist()
            told.setdefault(s.stack, []).append([s.split, s.statistics, list(s.slots), s.loss.tolist(), accuracy])
        moments = [(p.stack, np.stack([p.mean, p.var]).astype(np.float32).tobytes()) for p in record.population]
        self.put(db, "scores", record.step, [(stack, json.dumps(scores)) for stack, scores in told.items()])
        self.put(db, "population", record.step, moments)
        self.keep_snapshot(db, record.step, record.weights or [])

    def snapshot(self, step: int, vectors: list[np.ndarray]) -> None:
        """Keep the state from which training goes on at `step`, after all that is pending."""
        self.commit()
        with self.store.transaction() as db:
            self.keep_snapshot(db, step, vectors)

    def keep_snapshot(self, db, step: int, vectors: list[np.ndarray]) -> None:
        data = [vector.astype(np.float32, copy=False).tobytes() for vector in vectors]
        self.put(db, "snapshots", step, list(enumerate(data)))

    def put(self, db, name: str, step: int, rows: list[tuple[int, str | bytes]]) -> None:
        """Keep a step's rows (stack, data); when there are too many, every second step goes, and where there is room
        for one only the newest stays, whatever its size: training goes on from it. What goes makes room first."""
        if not rows:
            return
        size = sum(len(data) for _, data in rows)  # other steps' rows are about as large
        most = max(1, min(MOST_SCORINGS, self.share[name] // max(1, size)))
        where = f"from {name} where run = ?"
        there = {s for (s,) in db.execute(f"select distinct step {where}", (self.run_id,))}
        steps = sorted(there | {step})
        while len(steps) > most:
            steps = [*steps[:-1:2], steps[-1]] if most > 1 else steps[-1:]
        gone = [(self.run_id, s) for s in there - {*steps}]
        db.executemany(f"delete {where} and step = ?", gone)
        if step in steps:
            row = f"insert or replace into {name} values (?, ?, ?, ?)"
            db.executemany(row, [(self.run_id, i, step, data) for i, data in rows])

    def find_divergence(self, records: list[Record]) -> None:
        """Note for each network the first step whose loss or layers are not finite, and the layer it began in."""
        for i, networks in enumerate(self.experiment.stacks):
            if not records:
                return
            table = {t.kind: t for t in self.tables if t.stack == i}
            layers = np.stack([r.parts[i].rows["layers"] for r in records])
            losses = np.stack([r.parts[i].rows["steps"] for r in records])[:, : len(networks)]
            if np.isfinite(layers).all() and np.isfinite(losses).all():
                continue
            columns = {q: at for q, at in table["layers"].columns.items() if q != "update_ratio"}  # inf where W is 0
            seen = {q: layers[:, o : o + prod(s)].reshape(-1, *s) for q, (o, s) in columns.items()}
            for slot, network in enumerate(networks):
                broken = ~np.isfinite(losses[:, slot])
                for values in seen.values():
                    broken |= ~np.isfinite(values[:, :, slot]).all(1)
                if broken.any() and tuple(network) not in self.diverged:
                    at = int(broken.argmax())
                    where = first_broken({q: values[at, :, slot] for q, values in seen.items()})
                    self.diverged[tuple(network)] = (records[at].step, where)

    def fit(self, db) -> None:
        """Make what is kept fit its share of the budget."""
        scalars = [t for t in self.tables if t.kind not in HEAVY]
        if sum(t.bytes for t in scalars) > self.share["scalars"]:
            for table in scalars:
                s = table.summary  # an open bucket may still have to be taken from the exact rows
                table.forget(db, min(self.step - RECENT, s.edge - s.stride))
        share = self.share["summary"] / max(1, len(scalars))
        for table in scalars:
            most = MOST_BUCKETS
            while most > CHUNK_ROWS and most * 12 * table.width > share:
                most //= 2
            while table.summary.buckets > most:
                table.summary.halve(db)
        while sum(t.bytes for t in self.heavy) > self.share["heavy"] and self.stride < 2**20:
            self.stride *= 2
            for table in self.heavy:
                table.thin(db, self.stride)


class Table:
    """One table of one stack: its open chunk, its exact rows on disk, its summary."""

    def __init__(self, writer: Writer, stack: int, kind: str, columns: dict):
        self.run_id, self.db = writer.run_id, writer.store.db
        self.stack, self.kind, self.columns = stack, kind, columns
        self.width = width(columns)
        self.capacity = int(np.clip(CHUNK_BYTES // (4 * self.width), 1, CHUNK_ROWS))
        self.next = 0  # the first step that is not here yet
        self.reopen()
        origin = writer.store.origin(self.run_id)
        self.origin = origin[2] if origin else 0
        self.summary = Summary(self) if kind not in HEAVY else None

    def reopen(self) -> None:
        """Go on with the last chunk on disk."""
        self.open = np.empty((self.width, self.capacity), np.float32)
        self.filled, self.first, self.stride = 0, 0, 1
        last = self.db.execute(
            f"select first, stride, n, data from chunks where {WHERE} order by first desc limit 1", self.key
        ).fetchone()
        if last:
            first, self.stride, n, data = last
            self.next = max(self.next, first + self.stride * (n - 1) + 1)
            if n < self.capacity:
                self.open[:, :n] = np.frombuffer(data, np.float32).reshape(self.width, n)
                self.filled, self.first = n, first
        self.bytes = self.stored()

    @property
    def key(self) -> tuple[str, int, str]:
        return self.run_id, self.stack, self.kind

    def stored(self) -> int:
        return self.db.execute(f"select coalesce(sum(length(data)), 0) from chunks where {WHERE}", self.key).fetchone()[
            0
        ]

    def stored_stride(self) -> int:
        return self.db.execute(f"select coalesce(max(stride), 1) from chunks where {WHERE}", self.key).fetchone()[0]

    def add(self, db, records: list[Record], stride: int) -> None:
        """Append the rows of records that are not here yet; heavy tables only at multiples of `stride`."""
        stride = stride if self.kind in HEAVY else 1
        new = [r for r in records if r.step >= self.next and r.step % stride == 0]
        if not new:
            return
        rows = np.stack([r.parts[self.stack].rows[self.kind] for r in new]).astype(np.float32, copy=False)
        self.next = new[-1].step + 1
        if self.summary:
            self.summary.add(db, new[0].step, rows)
        if self.filled and (stride != self.stride or new[0].step != self.first + self.stride * self.filled):
            self.filled = 0  # what is open stays as it is on disk
        at = 0
        while at < len(rows):
            if not self.filled:
                self.first, self.stride = new[at].step, stride
            n = min(self.capacity - self.filled, len(rows) - at)
            self.open[:, self.filled : self.filled + n] = rows[at : at + n].T
            self.bytes += 4 * self.width * n
            self.filled += n
            at += n
            self.put(db, self.first, self.stride, self.open[:, : self.filled])
            if self.filled == self.capacity:
                self.filled = 0

    def put(self, db, first: int, stride: int, columns: np.ndarray) -> None:
        row = (*self.key, first, stride, columns.shape[1], columns.tobytes())
        db.execute(
            "insert or replace into chunks (run, stack, kind, first, stride, n, data) values (?, ?, ?, ?, ?, ?, ?)", row
        )

    def forget(self, db, before: int) -> None:
        """Remove the chunks whose rows all lie before a step."""
        where = f"{WHERE} and first + stride * n <= ?"
        (size,) = db.execute(
            f"select coalesce(sum(length(data)), 0) from chunks where {where}", (*self.key, before)
        ).fetchone()
        if size:
            db.execute(f"delete from chunks where {where}", (*self.key, before))
            self.bytes -= size

    def thin(self, db, stride: int) -> None:
        """Keep only the rows at multiples of `stride`, chunk by chunk."""
        kept, at = [], []
        places = db.execute(
            f"select id, first, stride, n from chunks where {WHERE} order by first", self.key
        ).fetchall()
        for place, first, old, n in places:
            steps = first + old * np.arange(n)
            pick = steps % stride == 0
            (data,) = db.execute("select data from chunks where id = ?", (place,)).fetchone()
            kept.append(np.frombuffer(data, np.float32).reshape(self.width, n)[:, pick])
            at += steps[pick].tolist()
            db.execute("delete from chunks where id = ?", (place,))
            while len(at) >= self.capacity or (place == places[-1][0] and at):
                joined = np.concatenate(kept, 1)
                self.put(db, at[0], stride, np.ascontiguousarray(joined[:, : self.capacity]))
                kept, at = [joined[:, self.capacity :]], at[self.capacity :]
        self.reopen()


def fit_looks(db, run: Run, newest: int) -> None:
    """Make the looks of a run fit their share of the budget: the oldest become a sentence that says so, so that no
    chart asks for them again; the `newest` rows stay."""
    share = SHARES["looks"] * run.experiment.settings.budget_mb * 1_000_000
    (size,) = db.execute("select sum(length(data)) from looks where run = ?", (run.id,)).fetchone()
    if size <= share:
        return
    empty = [packed({"wrong": np.array([NO_ROOM] * len(networks))}) for networks in run.experiment.stacks]
    ask = "select rowid, stack, length(data) from looks where run = ? order by rowid desc limit -1 offset ?"
    for row, stack, length in reversed(db.execute(ask, (run.id, newest)).fetchall()):
        if size > share and length > len(empty[stack]):
            db.execute("update looks set data = ? where rowid = ?", (empty[stack], row))
            size -= length - len(empty[stack])


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name as one blob."""
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    return data.getvalue()


def width(columns: dict) -> int:
    """Numbers in a row of a table."""
    return sum(prod(shape) for _, shape in columns.values())


def first_broken(layer: dict[str, np.ndarray]) -> int:
    """The layer 1..L where a network broke: the lowest whose forward pass is not finite; else the highest whose signal
    gradient is not; else the lowest with another quantity that is not; 0 if only the readout did."""
    broken = {q: np.flatnonzero(~np.isfinite(values)) + 1 for q, values in layer.items()}
    forward = np.concatenate([broken[q] for q in ("a_mean", "a_std", "z_mean", "z_std")])
    if len(forward):
        return int(forward.min())
    if len(broken["signal_grad_norm"]):
        return int(broken["signal_grad_norm"].max())
    rest = np.concatenate(list(broken.values()))
    return int(rest.min()) if len(rest) else 0
