"""The step and the layer at which a network is said to have diverged: by hand, in any stack, and by plain torch."""

import re
from math import prod

import numpy as np
import pytest
import torch
from known_rows import Measured, keep
from known_trace import KnownTrace
from twins import Twin, optimizer

from bnlab import Arm, Experiment, Settings, executing, quantities
from bnlab.figures.verdict import verdict
from bnlab.group import Group
from bnlab.keeping import first_broken
from bnlab.record import LAYERS, Record, layout

FORWARD = ("a_mean", "a_std", "z_mean", "z_std")


@pytest.mark.parametrize(
    ("broken", "layer"),
    [
        ({"z_mean": [4, 2], "signal_grad_norm": [1, 2, 3, 4, 5]}, 2),  # values go up: where they first overflow
        ({"a_std": [5], "z_mean": [3]}, 3),
        ({"signal_grad_norm": [1, 3], "grad_norm": [1, 2, 3, 4]}, 3),  # gradients come down: where they first do
        ({"grad_norm": [4, 2]}, 2),
        ({"weight_norm": [5], "grad_norm": [3]}, 3),
        ({}, 0),
    ],
)
def test_the_layer_is_where_it_began(broken, layer):
    rows = {q: np.where(np.isin(np.arange(1, 6), broken.get(q, [])), np.inf, 1.0) for q in LAYERS}
    assert first_broken(rows) == layer


def test_every_stack_has_its_own(store):
    """Rows of three stacks as written: in each one network breaks, at its own step and in its own layer, or by loss."""
    arms = [Arm(label=str(i), changes={"width": 4 + i // 2, "norm": ("none", "batch")[i % 2]}) for i in range(4)]
    arms.append(Arm(label="deep", changes={"depth": 6}))
    experiment = Experiment(
        settings=Settings(data="wine", depth=3, width=4, steps=90, batch_size=16), arms=arms, seeds=(0, 1)
    )
    assert [len(networks) for networks in experiment.stacks] == [4, 4, 2]
    told = {(1, 1): (40, 2), (2, 0): (17, 0), (4, 1): (63, 5)}
    records = []
    for t in range(90):
        parts = []
        for i, networks in enumerate(experiment.stacks):
            columns = layout(experiment, i)
            rows = {k: np.ones(sum(prod(shape) for _, shape in c.values()), np.float32) for k, c in columns.items()}
            for network, (step, layer) in told.items():
                if network in networks and t >= step:
                    table, name = ("layers", "a_std") if layer else ("steps", "loss")
                    offset, shape = columns[table][name]
                    view = rows[table][offset : offset + prod(shape)].reshape(shape)
                    view[(layer - 1, networks.index(network)) if layer else networks.index(network)] = np.inf
            parts.append(Measured(rows))
        records.append(Record(experiment, t, tuple(parts), [], [], None, list))
    trace = keep(store, store.create(experiment).id, records)
    assert trace.diverged == told
    for arm in range(5):
        finite = np.isfinite(trace.read("z_mean", arm).mean).all((1, 2))
        assert finite.argmin() == {1: 41, 2: 18, 4: 64}.get(arm, 0)


def seen_by_torch(group, slot):
    """The step and the layer at which a plain network, trained by autograd, first has a value, or a sum or norm that is
    recorded, beyond float32. Of gradients that is the norm alone: their sum may overflow where norm and values do not.
    """
    twin = Twin(group.stack, slot).train()
    rule = optimizer(twin.settings, twin.parameters())
    for t in range(60):
        x, y = group.mini_batch(t)
        rule.zero_grad()
        loss = twin.loss(x[slot].clone(), y[slot].clone())
        loss.backward()
        bad = lambda of, values: [l for l, v in enumerate(values, 1) if not of(v.detach().double()).float().isfinite()]  # noqa: E731
        up = [l for values in (twin.a, twin.z) for of in (torch.sum, torch.norm) for l in bad(of, values)]
        down = bad(torch.norm, [a.grad for a in twin.a])
        weights = [linear.weight for linear in twin.linear]
        other = bad(torch.norm, [w.grad for w in weights]) + bad(torch.norm, weights)
        if up or down or other or not loss.float().isfinite():
            return t, min(up) if up else max(down) if down else min(other, default=0)
        rule.step()
    return None


def test_it_is_where_plain_torch_has_it_in_stacks_of_several_shapes(store):
    wild = {"learning_rate": 100.0, "init_gain": 10.0}
    arms = [Arm(label="calm"), Arm(label="wild", changes=wild), Arm(label="BN", changes={"norm": "batch"})]
    arms += [
        Arm(label="narrow", changes=wild | {"width": 5}),
        Arm(label="deep", changes={"depth": 30, "init_gain": 60.0}),
    ]
    arms += [Arm(label="loss alone", changes={"depth": 1, "width": 6, "init_gain": 100.0, "learning_rate": 1.0})]
    settings = Settings(
        data="diabetes", depth=3, width=8, batch_size=32, steps=60, activation="relu", learning_rate=0.001
    )
    experiment = Experiment(settings=settings, arms=arms, seeds=(0, 1, 2))
    run = store.create(experiment)
    executing.execute(store, run.id, lambda: None)
    told = store.run(run.id).diverged
    assert len({(arm, where) for (arm, _), where in told.items()}) > 3 and not {0, 2} & {arm for arm, _ in told}
    for dtype in (torch.float32, torch.float64):  # in float64 nothing overflows: it says what float32 cannot hold
        found = {}
        for i, networks in enumerate(experiment.stacks):
            group = Group(experiment, i, "cpu", dtype)
            seen = {(n.arm, n.seed): seen_by_torch(group, slot) for slot, n in enumerate(networks)}
            found |= {network: where for network, where in seen.items() if where}
        assert told == found


def test_of_a_network_that_is_lost_no_spread_is_computed_again(monkeypatch):
    """The sums in float64 are for values that hardly differ, not for NaN at every step to the next scoring."""
    arms = (Arm(label="lost"), Arm(label="other"))
    group = Group(
        Experiment(settings=Settings(depth=2, width=8, data="wine", batch_size=16), arms=arms), 0, "cpu", torch.float32
    )
    again, asked = quantities.again, []

    def asks(measure, x, out, lost):
        asked.append(lost.clone())
        again(measure, x, out, lost)

    monkeypatch.setattr(quantities, "again", asks)
    with torch.no_grad():
        group.stack.p["bias"][:, 1] = 1e3  # its values hardly differ
        group.stack.p["weight_in"][0] = torch.nan
        rows = group.step(0, True)["layers"]
    assert any(lost[:, 1].any() for lost in asked) and not any(lost[:, 0].any() for lost in asked)
    offset, (L, S) = group.columns["layers"]["a_std"]
    spreads = rows[offset : offset + L * S].view(L, S)
    assert spreads[:, 0].isnan().all() and spreads[:, 1].isfinite().all()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({(0, 0): (2, 7), (1, 0): (2, 3), (0, 1): (9, 1)}, "the first at step 2: 'a' in layer 7, 'b' in layer 3."),
        ({(0, 0): (3, 1), (1, 0): (2, 3), (0, 1): (9, 1)}, "the first at step 2: 'b' in layer 3."),
        ({(1, 0): (2, 0), (1, 1): (2, 4)}, "the first at step 2: 'b' in layer 4 and the readout."),
    ],
)
def test_of_networks_that_diverged_at_one_step_none_is_called_the_first(where, words):
    """The lowest layer made one first, 'b', while the cards said step 2 of both; they say the same now."""
    arms = (Arm(label="a"), Arm(label="b", changes={"norm": "batch"}))
    experiment = Experiment(settings=Settings(), arms=arms, seeds=(0, 1))
    assert executing.diverged(experiment, where) == f"every network diverged, {words} Lower the learning rate."
    trace = KnownTrace(experiment, {("signal_grad_norm", arm): np.full((10, 2, 8), np.nan) for arm in (0, 1)})
    trace.diverged = where
    for arm in {arm for arm, _ in where}:
        step, place = re.search(r"at step (\d+),? (?:first )?in ([^;]*)", verdict(trace, arm).words).groups()
        assert (f"'{'ab'[arm]}' in {place}" in words) == (int(step) == 2)
