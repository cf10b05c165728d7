"""A table of a run in buckets: mean, min and max over a stride of steps that doubles, so that they stay few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .chunks import Table

WHERE = "run = ? and stack = ? and kind = ?"
CHUNK_ROWS = 64  # rows, or buckets, of a chunk at most
ROW = 600  # bytes that a blob takes on disk beside its own, about: its keys, and pages that are not full
FIRST_STRIDE, MOST_BUCKETS = 4, 2048


class Summary:
    """A table in buckets of `stride` steps: chunks [columns, 3, buckets] of mean, min and max.

    A bucket is written when it is full; min and max pass over NaN, so that the last finite spike stays seen.
    """

    def __init__(self, table: Table):
        self.table, self.db = table, table.db
        rows = self.db.execute(
            f"select first, stride, n from summary where {WHERE} order by first", table.key
        ).fetchall()
        self.stride = rows[-1][1] if rows else FIRST_STRIDE
        self.buckets = sum(n for _, _, n in rows)
        self.origin = table.origin  # the first step of all
        self.done: list[np.ndarray] = []  # full buckets of the open chunk, [columns, 3] each
        self.first = 0
        if rows and rows[-1][2] < CHUNK_ROWS:
            self.first = rows[-1][0]
            (data,) = self.db.execute(
                f"select data from summary where {WHERE} and first = ?", (*table.key, self.first)
            ).fetchone()
            self.done = list(np.frombuffer(data, np.float32).reshape(table.width, 3, -1).transpose(2, 0, 1))
        self.restart(self.origin + self.buckets * self.stride)

    def restart(self, edge: int) -> None:
        """Begin a bucket at step `edge` and take in the exact rows that are already there."""
        self.edge, self.rows = edge, 0
        self.sum = np.zeros(self.table.width)
        self.low = np.full(self.table.width, np.inf, np.float32)
        self.high = np.full(self.table.width, -np.inf, np.float32)
        self.finite = np.zeros(self.table.width, bool)
        for first, n, data in self.db.execute(
            f"select first, n, data from chunks where {WHERE} and first + n > ? order by first", (*self.table.key, edge)
        ):
            rows = np.frombuffer(data, np.float32).reshape(self.table.width, n).T
            self.take(rows[max(0, edge - first) :])

    def take(self, rows: np.ndarray) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            self.sum += rows.sum(0, dtype=np.float64)
            self.low = np.fmin(self.low, np.fmin.reduce(rows, 0))
            self.high = np.fmax(self.high, np.fmax.reduce(rows, 0))
        self.finite |= ~np.isnan(rows).all(0)
        self.rows += len(rows)

    def add(self, db, step: int, rows: np.ndarray) -> None:
        """Take in rows of consecutive steps from `step` on."""
        rows = rows[max(0, self.edge + self.rows - step) :]
        full = False
        while len(rows):
            part = rows[: self.stride - self.rows]
            self.take(part)
            rows = rows[len(part) :]
            if self.rows == self.stride:
                nothing = ~self.finite
                low, high = np.where(nothing, np.nan, self.low), np.where(nothing, np.nan, self.high)
                with np.errstate(over="ignore"):
                    self.done.append(np.stack([(self.sum / self.stride).astype(np.float32), low, high], 1))
                if len(self.done) == 1:
                    self.first = self.edge
                self.buckets += 1
                full = True
                edge = self.edge + self.stride
                self.edge, self.rows = edge, 0
                self.sum[:], self.low[:], self.high[:], self.finite[:] = 0, np.inf, -np.inf, False
                if len(self.done) == CHUNK_ROWS:
                    self.put(db, self.first, self.done)
                    self.done, full = [], False
        if full:
            self.put(db, self.first, self.done)

    def put(self, db, first: int, done: list[np.ndarray]) -> None:
        data = np.stack(done, 2).astype(np.float32, copy=False).tobytes()
        row = (*self.table.key, first, self.stride, len(done), data)
        db.execute(
            "insert or replace into summary (run, stack, kind, first, stride, n, data) values (?, ?, ?, ?, ?, ?, ?)",
            row,
        )

    def halve(self, db) -> None:
        """Merge neighboring buckets: the stride doubles."""
        chunks = db.execute(
            f"select id, first, n, data from summary where {WHERE} order by first", self.table.key
        ).fetchall()
        self.stride, self.done, self.buckets = 2 * self.stride, [], 0
        for place, _, _, _ in chunks:
            db.execute("delete from summary where id = ?", (place,))
        left = np.empty((self.table.width, 3, 0), np.float32)
        for _, _, n, data in chunks:
            both = np.concatenate([left, np.frombuffer(data, np.float32).reshape(self.table.width, 3, n)], 2)
            even = both.shape[2] // 2 * 2
            a, b, left = both[:, :, 0:even:2], both[:, :, 1:even:2], both[:, :, even:]
            with np.errstate(invalid="ignore", over="ignore"):
                mean = (a[:, 0] + b[:, 0]) / 2
            merged = np.stack([mean, np.fmin(a[:, 1], b[:, 1]), np.fmax(a[:, 2], b[:, 2])], 1)
            for i in range(merged.shape[2]):
                if not self.done:
                    self.first = self.origin + self.buckets * self.stride
                self.done.append(merged[:, :, i])
                self.buckets += 1
                if len(self.done) == CHUNK_ROWS:
                    self.put(db, self.first, self.done)
                    self.done = []
        if self.done:
            self.put(db, self.first, self.done)
        self.restart(self.origin + self.buckets * self.stride)
