"""A trace whose numbers a test has written down itself; it answers as reading.Trace does."""

import numpy as np

from bnlab.reading import NAMES, Series


class KnownTrace:
    """`values`: (quantity, arm) -> [n, seeds, ...] for steps 0..n-1; `whole`: arm -> (steps, means, variances)."""

    run = None

    def __init__(self, experiment, values=None, whole=None, diverged=None):
        self.experiment, self.values, self.whole = experiment, values or {}, whole or {}
        self.diverged = diverged or {}
        self.step = max((len(v) for v in self.values.values()), default=0) - 1

    def read(self, quantity, arm, *, start=0, stop=None, points=1000, layer=None, unit=None):
        values = self.values[quantity, arm][start:stop]
        if layer is not None and NAMES[quantity][0] != "steps":
            values = values[:, :, layer - 1]
        values = values if unit is None else values[..., unit]
        stride = max(1, len(values) // points) if len(values) > 2 * points else 1
        steps = start + np.arange(0, len(values), stride)
        return Series(steps, *[values[::stride]] * 3)

    def at(self, quantity, arm, step):
        if self.step < 0:
            raise KeyError("nothing is recorded yet.")
        step = min(step, self.step)
        return range(step, step + 1), self.values[quantity, arm][step]

    def population(self, arm, layer=None, unit=None):
        steps, *both = self.whole[arm]
        both = both if layer is None else [v[:, :, layer - 1] for v in both]
        return steps, *[v if unit is None else v[..., unit] for v in both]

    def averages(self, arm, layer=None, unit=None):
        """Before the step: 0 and 1, and then what was recorded after the step before."""
        steps, both = self.whole[arm][0], []
        for name, start in (("moving_mean", 0), ("moving_var", 1)):
            rows = self.values[name, arm]
            rows = np.concatenate([np.full_like(rows[:1], start), rows])[np.minimum(steps, len(rows))]
            rows = rows if layer is None else rows[:, :, layer - 1]
            both.append(rows if unit is None else rows[..., unit])
        return steps, *both
