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

    def inference(self, arm, layer=None, unit=None, near=None):
        """population(), and the averages before the step: 0 and 1, and then what was recorded after the step before."""
        steps, *found = self.population(arm, layer, unit)
        for name, start in (("moving_mean", 0), ("moving_var", 1)):
            rows = self.values[name, arm]
            rows = np.concatenate([np.full_like(rows[:1], start), rows])[np.minimum(steps, len(rows))]
            rows = rows if layer is None else rows[:, :, layer - 1]
            found.append(rows if unit is None else rows[..., unit])
        if near is None:
            return steps, *found
        at = min(range(len(steps)), key=lambda i: (abs(steps[i] - near), steps[i]))
        return steps[at : at + 1], *(values[at : at + 1] for values in found)
