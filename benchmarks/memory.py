"""Memory and speed of a long run: at step 1,000 and at the end, for the process that trains and the one that reads.

    python -m benchmarks.memory [STEPS]    100,000 steps unless told, some minutes; 10,000 at least

A small network, so that the steps are many; the smallest budget, so that everything that thins does.
"""

import gc
import itertools
import os
import resource
import sys
import tempfile
import time

import torch

from bnlab import Experiment, Settings, figures, train
from bnlab.store import RunStore


def resident() -> float:
    """MB of memory this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def read(store: RunStore, run_id: str) -> None:
    for name in ("loss", "gradient_flow", "gradient_heatmap", "moving_averages", "distributions"):
        figures.draw(name, store.trace(run_id), {}).to_json()


def main(steps: int) -> None:
    torch.set_num_threads(1)
    experiment = Experiment(settings=Settings(depth=6, width=16, batch_size=32, steps=steps, budget_mb=8))
    with tempfile.TemporaryDirectory() as directory:
        store = RunStore(directory)
        run = store.create(experiment)
        marks = [(0, time.process_time())]
        with store.writer(run.id) as writer:
            for record in train(experiment):
                writer.keep(record)
                if record.step and record.step % 1000 == 0:
                    marks.append((record.step, time.process_time()))
                    if record.step in (1000, 10_000) or record.step == steps:
                        gc.collect()
                        before, begun = resident(), time.process_time()
                        read(store, run.id)
                        took = time.process_time() - begun
                        disk = sum(os.path.getsize(os.path.join(directory, f)) for f in os.listdir(directory)) / 2**20
                        print(
                            f"step {record.step:>7,}: trains with {before:.0f} MB, {resident():.0f} MB after five "
                            f"figures read in {took:.2f} s; {disk:.1f} MB on disk, a budget of 8"
                        )
                        marks[-1] = (record.step, time.process_time())
    costs = [b - a for (_, a), (_, b) in itertools.pairwise(marks)]
    first, last = sorted(costs[1:6])[2], sorted(costs[-5:])[2]
    print(f"processor time of 1,000 steps at the end : near the start = {last / first:.2f}  (medians of five)")


if __name__ == "__main__":
    main(max(10_000, int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
