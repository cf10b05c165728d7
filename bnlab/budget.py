"""The recording budget of a run: what each kind of thing may take of it, what it takes, and what is left for looks."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Mapping

import numpy as np

from .experiment import Experiment
from .summary import BYTES

SHARES = {"scalars": 0.38, "heavy": 0.34, "summary": 0.1, "population": 0.04, "scores": 0.01}
SHARES |= {"snapshots": 0.05, "looks": 0.03}
SHARES |= {"open": 0.05}  # for what comes between two moments at which room is made
NO_ROOM = "its numbers made room for newer ones, as the recording budget is used up. Train with a larger one."


def sizes(db: sqlite3.Connection, name: str, run_id: str) -> dict[int, int]:
    """The bytes of each step's scorings of a kind."""
    ask = f"select step, {BYTES} from {name} where run = ? group by step"
    return dict(db.execute(ask, (run_id,)))


def size(db: sqlite3.Connection, run_id: str, *tables: str) -> int:
    """The bytes that a run has in some tables."""
    asked = (f"select {BYTES} from {table} where run = ?" for table in tables)
    return sum(db.execute(ask, (run_id,)).fetchone()[0] for ask in asked)


def left_for_looks(db: sqlite3.Connection, run_id: str, experiment: Experiment) -> float:
    """Bytes that the looks of a run may take: what everything else leaves of its budget."""
    whole = (1 - SHARES["open"]) * experiment.settings.budget_mb * 1_000_000
    return whole - size(db, run_id, "chunks", "summary", "scores", "population", "snapshots")


def fit_looks(db: sqlite3.Connection, run_id: str, experiment: Experiment, room: float) -> None:
    """Make the looks of a run fit into `room` bytes, or their share: the oldest become a sentence that says so, so that
    no chart asks for them again; the newest of every stack stay."""
    room = max(room, SHARES["looks"] * experiment.settings.budget_mb * 1_000_000)
    if (whole := size(db, run_id, "looks")) <= room:
        return
    sentences = [np.array([NO_ROOM] * len(networks)) for networks in experiment.stacks]
    empty = [blob({"wrong": sentence}, np.savez_compressed) for sentence in sentences]
    ask = "select rowid, stack, length(data) from looks where run = ? order by rowid desc limit -1 offset ?"
    for row, stack, length in reversed(db.execute(ask, (run_id, len(experiment.stacks))).fetchall()):
        if whole > room and length > len(empty[stack]):
            db.execute("update looks set data = ? where rowid = ?", (empty[stack], row))
            whole -= length - len(empty[stack])


def blob(arrays: Mapping[str, np.ndarray], save: Callable = np.savez) -> bytes:
    """Arrays by name as one blob: numbers as they are, as compressing them takes long and gains little."""
    data = io.BytesIO()
    save(data, **arrays)
    return data.getvalue()
