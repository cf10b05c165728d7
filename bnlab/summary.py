"""A table of a run in buckets: mean, min and max over a stride of steps that doubles, so that they stay few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .chunks import Table

WHERE = "run = ? and stack = ? and kind = ?"
CHUNK_ROWS = 64  # rows, or buckets, of a chunk at most
ROW = 600  # bytes that a blob takes on disk beside its own, about: its keys, and pages that are not full
BYTES = f"coalesce(sum(length(data) + {ROW}), 0)"  # of the blobs that a query finds
FIRST_STRIDE, MOST_BUCKETS = 4, 2048


class Summary:
    """A table in buckets of `stride` steps: chunks [columns, 3, buckets] of mean, min and max.

    A bucket is written when it is full. All three are of what is finite in it, so that what a network did before it
    diverged stays seen; where nothing is, they are infinite or NaN.
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

    @property
    def bytes(self) -> int:
        """What its chunks take on disk."""
        return 12 * self.table.width * self.buckets + ROW * -(-self.buckets // CHUNK_ROWS)

    def restart(self, edge: int) -> None:
        """Begin a bucket at step `edge` and take in the exact rows that are already there."""
        self.edge, self.rows = edge, 0
        self.count = np.zeros(self.table.width, int)  # of finite values
        self.sum, self.rest = np.zeros((2, self.table.width))  # of them, and of the others
        self.low, self.high = np.full((2, self.table.width), np.nan, np.float32)
        for first, n, data in self.db.execute(
            f"select first, n, data from chunks where {WHERE} and first + n > ? order by first", (*self.table.key, edge)
        ):
            rows = np.frombuffer(data, np.float32).reshape(self.table.width, n).T
            self.take(rows[max(0, edge - first) :])

    def take(self, rows: np.ndarray) -> None:
        finite = np.isfinite(rows)
        self.count += finite.sum(0)
        self.rows += len(rows)
        if not finite.all():
            with np.errstate(invalid="ignore"):  # inf - inf
                self.rest += np.where(finite, 0, rows).sum(0)
            rows = np.where(finite, rows, np.nan)
        self.sum += np.nansum(rows, 0, dtype=np.float64)
        self.low, self.high = np.fmin(self.low, np.fmin.reduce(rows, 0)), np.fmax(self.high, np.fmax.reduce(rows, 0))

    def add(self, db, rows: np.ndarray) -> None:
        """Take in the rows of the steps that follow."""
        full = False
        while len(rows):
            part = rows[: self.stride - self.rows]
            self.take(part)
            rows = rows[len(part) :]
            if self.rows == self.stride:
                there = self.count > 0
                mean = np.where(there, self.sum / np.maximum(self.count, 1), self.rest).astype(np.float32)
                self.done.append(np.stack([mean, np.where(there, self.low, mean), np.where(there, self.high, mean)], 1))
                if len(self.done) == 1:
                    self.first = self.edge
                self.buckets += 1
                full = True
                self.edge, self.rows = self.edge + self.stride, 0
                self.count[:], self.sum[:], self.rest[:], self.low[:], self.high[:] = 0, 0, 0, np.nan, np.nan
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
            pairs = both.shape[2] // 2
            both, left = both[:, :, : 2 * pairs], both[:, :, 2 * pairs :]
            values = (both[:, i].T for i in range(3))
            merged = np.stack(combined(*values, np.ones(2 * pairs), np.arange(0, 2 * pairs, 2)), 2).transpose(1, 2, 0)
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


def combined(
    mean: np.ndarray, low: np.ndarray, high: np.ndarray, weight: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, min and max of buckets [n, ...], each counting as weight[i], from one of `edges` to the next: of what is
    finite; where nothing is, infinite or NaN."""
    weight = weight.reshape(-1, *[1] * (mean.ndim - 1))
    there = np.isfinite(mean)
    with np.errstate(invalid="ignore"):
        count = np.add.reduceat(np.where(there, weight, 0.0), edges)
        total = np.add.reduceat(np.where(there, mean, 0.0) * weight, edges)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.add.reduceat(mean, edges)).astype(np.float32)
    ends = []
    for values, pick in ((low, np.fmin), (high, np.fmax)):
        finite = pick.reduceat(np.where(np.isfinite(values), values, np.nan), edges)
        ends.append(np.where(np.isnan(finite), mean, finite))
    return mean, *ends
