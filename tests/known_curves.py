"""Traces with losses, accuracies and scores that a test has chosen, and the lines that are drawn of them."""

import numpy as np
from known_trace import KnownTrace

from bnlab import figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.reading import Series

N = 40
ARMS = (Arm(label="none"), Arm(label="<b>BN</b>", changes={"norm": "batch"}))
EXPERIMENT = Experiment(settings=Settings(depth=2, width=4, steps=N), arms=ARMS, seeds=(3, 5))


class Scored(KnownTrace):
    """A known trace with scores: (arm, split, statistics) -> (steps, losses [n, seeds], accuracies [n, seeds])."""

    scored: dict = {}  # noqa: RUF012

    def scores(self, arm, split, statistics, points=None):
        return self.scored.get((arm, split, statistics), (np.array([], int), np.empty((0, 2)), np.empty((0, 2))))


class Long(Scored):
    """A known trace of which buckets of 16 steps are left."""

    def read(self, quantity, arm, *, points=1000, **window):
        rows = self.values[quantity, arm]
        rows = rows[: len(rows) // 16 * 16].reshape(-1, 16, rows.shape[1])
        return Series(16 * np.arange(len(rows)), rows.mean(1), rows.min(1), rows.max(1))


def scored():
    """Of two arms and two seeds: losses and accuracies at every step, three scorings of either split."""
    rng = np.random.default_rng(0)
    values = {(q, arm): rng.uniform(0.1, 1, (N, 2)).astype(np.float32) for q in ("loss", "accuracy") for arm in (0, 1)}
    trace = Scored(EXPERIMENT, values)
    steps = np.array([0, 20, 40])
    trace.scored = {
        (arm, split, kind): (steps, rng.uniform(0.1, 1, (3, 2)), rng.uniform(size=(3, 2)))
        for split in ("train", "test")
        for arm, kind in ((0, "none"), (1, "moving"), (1, "population"), (1, "batch"))
    }
    return trace


def drawn(trace, name="loss", **query):
    """The named lines and marks of a figure."""
    return {line.name: line for line in figures.draw(name, trace, query).data if line.name and line.line.width != 0}
