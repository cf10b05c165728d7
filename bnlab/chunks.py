"""A table of a run on disk: chunks of rows, exactly as they were seen, and beside the scalars their summary.

A chunk is one blob [columns, rows] of float32, so that one column over time is one piece of it.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .summary import BYTES, CHUNK_ROWS, ROW, WHERE, Summary

if TYPE_CHECKING:
    from .store import RunStore

CHUNK_BYTES = 2**20
HEAVY = ("units", "samples")  # kept at every `stride`-th step; the other tables at every step, for as long as they are


class Table:
    """One table of one stack: its open chunk, its exact rows on disk, its summary."""

    def __init__(self, store: RunStore, run_id: str, stack: int, kind: str, columns: dict):
        self.run_id, self.db = run_id, store.db
        self.stack, self.kind, self.columns = stack, kind, columns
        self.width = sum(prod(shape) for _, shape in columns.values())  # numbers in a row
        self.capacity = int(np.clip(CHUNK_BYTES // (4 * self.width), 1, CHUNK_ROWS))
        self.reopen()
        self.origin = store.run(run_id).first
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
            if n < self.capacity:
                self.open[:, :n] = np.frombuffer(data, np.float32).reshape(self.width, n)
                self.filled, self.first = n, first
        self.bytes = self.stored()

    @property
    def key(self) -> tuple[str, int, str]:
        return self.run_id, self.stack, self.kind

    def stored(self, where: str = WHERE, *more: int) -> int:
        """Bytes of its chunks on disk."""
        return self.db.execute(f"select {BYTES} from chunks where {where}", (*self.key, *more)).fetchone()[0]

    def stored_stride(self) -> int:
        return self.db.execute(f"select coalesce(max(stride), 1) from chunks where {WHERE}", self.key).fetchone()[0]

    def add(self, db, steps: np.ndarray, rows: np.ndarray, stride: int) -> None:
        """Append the rows [n, width] of `steps`; heavy tables only those at multiples of `stride`."""
        stride = stride if self.kind in HEAVY else 1
        pick = steps % stride == 0
        steps, rows = steps[pick], rows[pick].astype(np.float32, copy=False)
        if not len(rows):
            return
        if self.summary:
            self.summary.add(db, rows)
        if self.filled and (stride != self.stride or steps[0] != self.first + self.stride * self.filled):
            self.filled = 0  # what is open stays as it is on disk
        at = 0
        while at < len(rows):
            if not self.filled:
                self.first, self.stride = int(steps[at]), stride
                self.bytes += ROW
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
        """Remove the chunks whose rows all lie before a step, but for the first row of all: the initial networks'."""
        where = f"{WHERE} and first + stride * n <= ?"
        size = self.stored(where, before)
        initial = f"select data, n from chunks where {where} and first = ?"
        begun = db.execute(initial, (*self.key, before, self.origin)).fetchone()
        db.execute(f"delete from chunks where {where}", (*self.key, before))
        if begun:
            data, n = begun
            self.put(db, self.origin, 1, np.frombuffer(data, np.float32).reshape(self.width, n)[:, :1])
            size -= 4 * self.width + ROW
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
                rows = np.concatenate(kept, 1)
                self.put(db, at[0], stride, np.ascontiguousarray(rows[:, : self.capacity]))
                kept, at = [rows[:, self.capacity :]], at[self.capacity :]
        self.reopen()
