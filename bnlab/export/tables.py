"""A run's tables as CSV or Parquet files: one row per observation, every recorded float32 to its last digit.

Read and written a piece at a time, so that the memory does not grow with the run.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from ..reading import Trace
from ..record import EVERYTHING, TABLES
from ..registry import Registry

ROWS = 200_000  # written at once, about
KEYS = {"steps": (), "layers": ("layer",), "units": ("layer", "unit")}
SCORED = [("train", s) for s in ("batch", "moving", "population", "none")]
SCORED += [("test", statistics) for _, statistics in SCORED]

FORMATS: Registry[type] = Registry("format")
FORMATS["csv"] = csv.CSVWriter
FORMATS["parquet"] = lambda file, schema: parquet.ParquetWriter(file, schema, compression="zstd")


def write(trace: Trace, to: str, directory: Path) -> list[Path]:
    """Write a run's tables into `directory`, all before the first takes its place; returns the files.

    `steps`, `layers` and `scores`, and where an arm has batch norm `units` and `population`, as the README describes
    them; where a run has no such rows, the header alone. Where the budget has thinned the older steps, `steps_summary`
    and `layers_summary` hold their means, minima and maxima; the exact rows that are left stand in the tables. Raises
    KeyError for an unknown format.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tables = {table: measured(trace, table) for table in KEYS}
    tables |= {f"{table}_summary": summarized(trace, table) for table in ("steps", "layers")}
    tables |= {"scores": scores(trace), "population": population(trace)}
    files = {directory / f"{name}.{to}": rows for name, rows in tables.items()}
    with ExitStack() as kept:
        with trace.store.reading():  # a run that is being trained is exported as it was at one moment
            made = {path: kept.enter_context(part(rows, FORMATS[to], path)) for path, rows in files.items()}
        return [path for path, whole in made.items() if put(whole, path)]


def write_file(rows: Iterator[pa.Table], form: type, path: Path) -> Path | None:
    """Write these rows and give the file, None if there are none; where it cannot be written to its end, what was there
    stays."""
    with part(rows, form, path) as whole:
        return put(whole, path)


@contextmanager
def part(rows: Iterator[pa.Table], form: type, path: Path) -> Iterator[Path | None]:
    """These rows in a file beside `path`, None if there are none; it is gone in the end, unless put() in its place."""
    beside, writer = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part"), None  # another may be exporting, too
    try:
        with beside.open("wb") as file:  # pyarrow takes every path for UTF-8; not every system's is
            try:
                for table in larger(rows):
                    writer = writer or form(file, table.schema)
                    writer.write_table(table)
            finally:
                if writer is not None:
                    writer.close()
        yield beside if writer else None
    finally:  # also after Ctrl+C
        beside.unlink(missing_ok=True)


def put(whole: Path | None, path: Path) -> Path | None:
    """Put a file where it belongs; None removes what is there: of another run, it would look like this one's."""
    if whole is None:
        path.unlink(missing_ok=True)
        return None
    os.replace(whole, path)
    return path


def larger(rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Larger pieces of the same rows."""
    held: list[pa.Table] = []
    for table in rows:
        held.append(table)
        if sum(len(t) for t in held) >= ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def networks(trace: Trace) -> Iterator[tuple[int, int, int]]:
    """(arm, place of the seed, last step to show) of every network."""
    for arm in range(len(trace.experiment.arms)):
        for place in range(len(trace.experiment.seeds)):
            yield arm, place, trace.diverged.get((arm, trace.experiment.seeds[place]), (EVERYTHING,))[0]


def measured(trace: Trace, table: str) -> Iterator[pa.Table]:
    """The exact rows of `steps`, `layers` or `units`, chunk by chunk; those of a diverged network up to that step."""
    there = [q for q in TABLES[table] if any(trace.has(q, arm) for arm in range(len(trace.experiment.arms)))]
    for arm, place, last in networks(trace):
        mine = [q for q in there if trace.has(q, arm)]
        for start, stop in (trace.exact(arm, table) or [(0, 0)]) if mine else ():
            trace.forget()  # one chunk at a time
            series = {q: trace.read(q, arm, start=start, stop=stop, points=EVERYTHING) for q in mine}
            steps = series[mine[0]].steps
            shown = steps <= last
            columns = {q: s.mean[shown, place] for q, s in series.items()}
            yield tidy(trace, arm, place, steps[shown], KEYS[table], columns, there)


def summarized(trace: Trace, table: str) -> Iterator[pa.Table]:
    """Mean, min and max over the steps from `step` to before `until`, where exact rows had to go."""
    there = [q for q in TABLES[table] if any(trace.has(q, arm) for arm in range(len(trace.experiment.arms)))]
    names = [f"{q}_{kind}" for q in there for kind in ("mean", "min", "max")]
    for arm, place, last in networks(trace):
        windows = trace.exact(arm, table)
        whole = all(stop == start for (_, stop), (start, _) in pairwise([(0, trace.first), *windows]))
        if whole or not windows:
            continue
        trace.forget()
        columns = {}
        for q in there:
            if trace.has(q, arm):
                series = trace.read(q, arm, points=EVERYTHING)
                until = np.append(series.steps[1:], windows[-1][1])
                shown = series.steps <= last
                for kind, values in zip(("mean", "min", "max"), series[1:], strict=True):
                    columns[f"{q}_{kind}"] = values[shown, place]
        if columns:
            rows = tidy(trace, arm, place, series.steps[shown], KEYS[table], columns, names)
            repeat = prod(next(iter(columns.values())).shape[1:])
            yield rows.add_column(3, "until", pa.array(np.repeat(until[shown], repeat)))


def scores(trace: Trace) -> Iterator[pa.Table]:
    """Loss and accuracy over whole splits."""
    there = ["loss", "accuracy"] if any(trace.has("accuracy", arm) for arm, *_ in networks(trace)) else ["loss"]
    for arm, place, last in networks(trace):
        for split, statistics in SCORED:
            steps, loss, accuracy = trace.scores(arm, split, statistics)
            shown = steps <= last + 1  # the first scores after the divergence still say what it left
            columns = {"loss": loss[shown, place].astype(np.float32)}
            if accuracy is not None:
                columns["accuracy"] = accuracy[shown, place].astype(np.float32)
            rows = tidy(trace, arm, place, steps[shown], (), columns, there)
            for i, (name, word) in enumerate((("split", split), ("statistics", statistics))):
                rows = rows.add_column(3 + i, name, pa.array([word] * len(rows), pa.string()))
            yield rows


def population(trace: Trace) -> Iterator[pa.Table]:
    """Mean and biased variance of each unit over the training set, at the steps that have them."""
    for arm, place, last in networks(trace):
        if not trace.has("batch_mean", arm):
            continue
        steps, mean, var = trace.population(arm)
        shown = steps <= last + 1
        columns = {"population_mean": mean[shown, place], "population_var": var[shown, place]}
        yield tidy(trace, arm, place, steps[shown], KEYS["units"], columns, list(columns))


def tidy(trace: Trace, arm: int, place: int, steps, keys, columns, names) -> pa.Table:
    """Rows of one network. Shapes: steps [n]; each column [n, ...] with one axis for each of `keys`, counted from 1.

    Columns of `names` that the network lacks are null.
    """
    shape = next(iter(columns.values())).shape
    rows = prod(shape)
    experiment = trace.experiment
    table = {
        "arm": pa.array([experiment.arms[arm].label]).take(pa.array(np.zeros(rows, np.int32))),
        "seed": pa.array(np.full(rows, experiment.seeds[place], np.int64)),
        "step": pa.array(np.repeat(steps.astype(np.int64), prod(shape[1:]))),
    }
    for axis, name in enumerate(keys, 1):
        index = np.arange(1, shape[axis] + 1, dtype=np.int32).reshape(
            [-1 if i == axis else 1 for i in range(len(shape))]
        )
        table[name] = pa.array(np.broadcast_to(index, shape).ravel())
    for name in names:
        column = columns.get(name)
        table[name] = pa.nulls(rows, pa.float32()) if column is None else pa.array(np.ascontiguousarray(column).ravel())
    return pa.table(table)
