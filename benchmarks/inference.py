"""How long a move of the alpha slider takes: 2000 recorded steps, 20 layers of 64 units, 3 arms with batch norm.

    python -m benchmarks.inference

Trains once (half a minute), then looks at several alphas as the looking process does: the moving averages from all
recorded batch statistics, and the inference loss at the snapshots.
"""

import statistics
import tempfile
import time

import torch

from bnlab import Arm, Experiment, Settings, figures
from bnlab.executing import execute
from bnlab.looking import look
from bnlab.store import RunStore


def main() -> None:
    torch.set_num_threads(1)
    arms = [Arm(label=str(alpha), changes={"norm": "batch", "alpha": alpha}) for alpha in (0.5, 0.9, 0.99)]
    with tempfile.TemporaryDirectory() as directory:
        store = RunStore(directory)
        run = store.create(Experiment(settings=Settings(steps=2000, data="gaussian"), arms=arms))
        execute(store, run.id, lambda: None)
        trace = store.trace(run.id)
        newest = trace.snapshots()[-1]
        took, drawn = [], []
        for alpha in (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
            begun = time.perf_counter()
            look(store, run.id, "inference", {"alpha": alpha}, newest, trace.snapshot(newest))
            took.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            for figure in ("recomputed", "alpha_inference"):
                figures.draw(figure, store.trace(run.id), {"alpha": str(alpha)}).to_json()
            drawn.append(time.perf_counter() - begun)
        print(f"one alpha: first {took[0]:.2f} s, then {statistics.median(took[1:]):.2f} s; drawn in {drawn[-1]:.2f} s")


if __name__ == "__main__":
    main()
