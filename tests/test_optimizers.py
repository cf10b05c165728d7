"""An optimizer is one class: what it says of itself is true, and every probe looks at what it trains."""

import numpy as np
import pytest
import torch
from looked_at import looked, recorded

from bnlab.figures.geometry import counting
from bnlab.optimizers import MOMENTUM, OPTIMIZERS, Momentum
from bnlab.probes import PROBES
from bnlab.settings import about


class Nesterov(Momentum):
    """As torch.optim.SGD(momentum=0.9, nesterov=True)."""

    label = "Nesterov"
    stable = 2 * (1 + MOMENTUM) / (1 + 2 * MOMENTUM)

    def direction(self, g, t):
        (d,) = self.state
        return g + MOMENTUM * d.mul_(MOMENTUM).add_(g), 1.0


@pytest.fixture
def rules(monkeypatch):
    """Every optimizer, and one that nobody has thought of before."""
    monkeypatch.setitem(OPTIMIZERS, "nesterov", Nesterov)
    monkeypatch.setitem(about("optimizer").choices, "nesterov", Nesterov.label)  # read from them when all begins
    return OPTIMIZERS


RULES = OPTIMIZERS | {"nesterov": Nesterov}


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not np.isnan(rule.stable)])
def test_on_a_quadratic_an_optimizer_is_stable_below_what_it_says_and_not_above(rules, name):
    for share, grows in ((0.98, False), (1.02, True)):
        w = torch.ones(1, dtype=torch.float64)
        rule, eta_h = rules[name](lambda w=w: torch.zeros_like(w)), rules[name].stable * share
        for t in range(2000):
            d, c = rule.direction(w.clone(), t)  # the gradient of w²/2
            w -= eta_h * c * d
        assert (abs(float(w)) > 1e6) == grows and (abs(float(w)) < 1e-6) != grows


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", RULES)
def test_every_probe_looks_at_what_an_optimizer_trains(rules, store, name, probe):
    trace = recorded(store, optimizer=name, learning_rate=0.01, steps=10)
    few = {"points": 5, "iterations": 3}
    found = looked(trace, probe, 10, **{q: n for q, n in few.items() if q in PROBES[probe].options})
    assert all(np.isfinite(values).any() or (name == "adam" and q == "limit") for q, values in found.items())
    assert counting(trace.experiment.settings) in ("η/‖W‖", "η/‖W‖²")
