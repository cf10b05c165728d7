"""Runs whose rows a test has written down itself, kept as those of a training are; a training to hold beside them."""

from math import prod
from typing import NamedTuple

import numpy as np

from bnlab.experiment import Arm, Experiment, Settings
from bnlab.record import Population, Record, Score, batch_slots, layout

ARMS = (
    Arm(label="none"),
    Arm(label="before", changes={"norm": "batch"}),
    Arm(label="after", changes={"norm": "batch", "placement": "after"}),
    Arm(label="wider", changes={"norm": "batch", "width": 7}),
    Arm(label="deeper", changes={"norm": "layer", "depth": 4}),
)
SMALL = Settings(data="wine", depth=3, width=5, batch_size=16, steps=150, score_every=40, activation="tanh")
REAL = Experiment(settings=SMALL, arms=ARMS, seeds=(3, 1))
PAIR = (Arm(label="none"), Arm(label="before", changes={"norm": "batch"}))


class Measured(NamedTuple):
    """One stack's rows that nobody has measured."""

    rows: dict


def small(depth=3, steps=20_000, **changes):
    return Experiment(settings=Settings(depth=depth, width=4, steps=steps, budget_mb=8, **changes), arms=PAIR)


def nothing(experiment):
    """Rows of zeros for the only stack of an experiment."""
    return {
        table: np.zeros(sum(prod(shape) for _, shape in columns.values()), np.float32)
        for table, columns in layout(experiment, 0).items()
    }


def written(experiment, steps, rows, scores=(), population=()):
    """Records of `steps` whose rows are those given by `rows(step)`; what it leaves out is 0."""
    zeros = nothing(experiment)
    for t in steps:
        yield Record(experiment, t, (Measured(zeros | rows(t)),), list(scores), list(population), None, list)


def keep(store, run_id, records):
    with store.writer(run_id) as writer:
        for record in records:
            writer.keep(record)
    return store.trace(run_id)


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def same(a, b):
    np.testing.assert_array_equal(bits(a), bits(b))


def size(store, run_id, *tables):
    """Bytes of data kept of a run."""
    tables = tables or ("chunks", "summary", "scores", "population", "snapshots")
    ask = "select coalesce(sum(length(data)), 0) from {} where run = ?"
    return sum(store.db.execute(ask.format(table), (run_id,)).fetchone()[0] for table in tables)


LONG = small(depth=20, steps=4000)
COLUMNS = {table: len(row) for table, row in nothing(LONG).items()}


def lively(t):
    """Rows of LONG that differ at every step, with scores of every network now and then."""
    return {table: np.sin(np.arange(n, dtype=np.float32) + t) for table, n in COLUMNS.items()}


def scored(records, every):
    """The same records with scores, population rows and snapshots at every `every`-th step."""
    batch = batch_slots(LONG, 0)
    moments = np.ones((20, len(batch), 4), np.float32)
    for record in records:
        if record.step % every:
            yield record
            continue
        t = np.float32(record.step)
        scores = [Score(0, "train", s, (0, 1), np.array([t, -t]), np.array([t, t])) for s in ("batch", "moving")]
        population = [Population(0, batch, t * moments, t + moments, -t * moments, moments)]
        yield record._replace(scores=scores, population=population, weights=[np.full(6000, t, np.float32)])


def stored(store, run_id):
    """Everything that is kept of a run's course, row by row."""
    tables = {"chunks": "first", "summary": "first", "scores": "step", "population": "step"}
    return {
        table: store.db.execute(
            f"select {', '.join(c for c in columns(store, table) if c not in ('id', 'run'))} from {table} "
            f"where run = ? order by stack, {order}, {'kind' if order == 'first' else 'step'}",
            (run_id,),
        ).fetchall()
        for table, order in tables.items()
    }


def columns(store, table):
    return [row[1] for row in store.db.execute(f"pragma table_info({table})")]
