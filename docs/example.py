"""Make the run that the lab shows before the first click: the default experiment, trained, and thinned to be shipped.

    .venv/bin/python -m docs.example

Writes bnlab/example/runs.sqlite. Scores and layer scalars stay whole; of units and samples only the steps KEPT stay, of
the weight snapshots the last, of the summaries nothing. Run it again when a table gets a column or a figure of LOOKED
asks for other steps.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from bnlab import figures
from bnlab.executing import execute
from bnlab.experiment import Experiment
from bnlab.looking import look
from bnlab.store import RunStore

THERE = Path(__file__).parents[1] / "bnlab" / "example" / "runs.sqlite"
LAST = Experiment().settings.steps - 1
LOOKED = ("dials", "smoothness", "curvature")  # figures of looks at several steps
KEPT = sorted({0, 1, 2, 4, 8, 16, 32, *range(0, LAST, 20), LAST})


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        store = RunStore(directory)
        run = store.create(Experiment(), device="cpu")
        execute(store, run.id, lambda: None)
        look_back(store, run.id)
        thin(store, run.id)
        store.db.execute("vacuum")
        store.db.execute("pragma journal_mode = delete")  # one file
        store.close()
        THERE.parent.mkdir(exist_ok=True)
        (new := THERE.with_suffix(".new")).write_bytes(store.path.read_bytes())
        os.replace(new, THERE)
    print(f"{THERE.name}: {THERE.stat().st_size / 1e6:.1f} MB")


def look_back(store: RunStore, run_id: str) -> None:
    """Take the looks that need snapshots or every step's statistics, as long as they are there: then the figures over
    the training and the dials are those of a run that somebody trains."""
    for name in LOOKED:
        for probe, step, options in figures.needs(name, store.trace(run_id), {}):
            look(store, run_id, probe, options, step, store.trace(run_id).snapshot(step))
    for name in ("three_losses", "why_off", "alpha_curve"):
        for arm, settings in enumerate(Experiment().arm_settings):
            trace = store.trace(run_id)
            for probe, step, options in (
                figures.needs(name, trace, {"arm": str(arm)}) if settings.norm == "batch" else ()
            ):
                look(store, run_id, probe, options, step, trace.snapshot(step))


def thin(store: RunStore, run_id: str) -> None:
    """Keep of units and samples the steps KEPT, each as a chunk of one row."""
    with store.writer(run_id) as writer, store.transaction() as db:
        for table in writer.heavy:
            where, key = "where run = ? and stack = ? and kind = ?", table.key
            chunks = db.execute(f"select first, n, data from chunks {where}", key).fetchall()
            db.execute(f"delete from chunks {where}", key)
            for first, n, data in chunks:
                columns = np.frombuffer(data, np.float32).reshape(table.width, n)
                for step in (step for step in KEPT if first <= step < first + n):
                    table.put(db, step, 1, np.ascontiguousarray(columns[:, step - first : step - first + 1]))
        db.execute("delete from summary where run = ?", (run_id,))
        db.execute("delete from snapshots where run = ? and step <= ?", (run_id, LAST))


if __name__ == "__main__":
    main()
