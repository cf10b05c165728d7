"""What each probe costs, in training steps of the same networks: the numbers that schedule them (probes/__init__.py).

    python -m benchmarks.looks

The default experiment; steps and looks in turn, medians of processor time on one thread.
"""

import statistics
import tempfile
import time

import torch

from bnlab import Experiment, Settings, lineage
from bnlab.executing import execute
from bnlab.probes import LOOKING_SHARE, PROBES, Copies, checked, schedule
from bnlab.store import RunStore

ROUNDS, STEPS = 5, 10


def main() -> None:
    torch.set_num_threads(1)
    experiment = Experiment(settings=Settings(steps=100, score_every=50))
    with tempfile.TemporaryDirectory() as directory:
        store = RunStore(directory)
        run = store.create(experiment)
        execute(store, run.id, lambda: None)
        trace = store.trace(run.id)
        vectors, seen, copies = trace.snapshot(50), lineage.seen(trace), Copies(experiment)
        took: dict[str, list[float]] = {name: [] for name in PROBES}
        for name in PROBES:
            copies.look(name, checked(name, {}), 50, vectors, seen)
        for _ in range(ROUNDS):
            begun = time.process_time()
            with torch.no_grad():
                for t in range(STEPS):
                    for group in copies.groups:
                        group.step(t, True)
            step = (time.process_time() - begun) / STEPS
            for name in PROBES:
                begun = time.process_time()
                copies.look(name, checked(name, {}), 50, vectors, seen)
                took[name].append((time.process_time() - begun) / step)
    every = schedule(Experiment())
    for name, probe in PROBES.items():
        when = f"every {every[name]} steps" if name in every else "when asked for"
        print(f"{name:<14}{statistics.median(took[name]):8.1f} steps, scheduled as {probe.cost:g}, {when}")
    share = sum(statistics.median(took[name]) / n for name, n in every.items())
    print(f"live probes of the default experiment take {share:.1%} of the training, at most {LOOKING_SHARE:.0%} wanted")


if __name__ == "__main__":
    main()
