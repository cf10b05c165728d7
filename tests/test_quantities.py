"""What is recorded of each layer at every step is what torch.nn and autograd show of it."""

import numpy as np
import pytest
import torch
from twins import Twin, every_kind, gradient, grouped

from bnlab import record
from bnlab.activations import ACTIVATIONS
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.train import train


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "linear"])
def test_recorded_quantities_are_those_of_the_twin(activation):
    g = grouped(
        every_kind(depth=3, width=12, batch_size=40, activation=activation, learning_rate=0.05, optimizer="adam")
    )
    with torch.no_grad():
        for t in range(3):
            g.step(t, True)
    twins = [Twin(g.stack, slot) for slot in range(g.stack.S)]
    weights = g.stack.parameters.clone()
    with torch.no_grad():
        g.step(3, True)
    x, y = g.mini_batch(3)
    moved = g.stack.views(g.stack.parameters - weights)
    layers = g.rows.at["layers"]
    low, high = ACTIVATIONS[activation].flat
    for slot, twin in enumerate(twins):
        twin.loss(x[slot], y[slot]).backward()
        before = twin.settings.placement == "before" and twin.settings.norm != "none"
        for l in range(3):
            a, z = twin.a[l].detach(), twin.z[l].detach()
            delta = moved["weight_in"][slot] if l == 0 else moved["weight"][l - 1, slot]
            u = twin.norm[l].train()(a).detach() if before else a
            flat = (u <= low) | (u >= high)
            told = {
                "grad_norm": twin.linear[l].weight.grad.norm(),
                "signal_grad_norm": twin.a[l].grad.norm(),
                "weight_norm": twin.linear[l].weight.norm(),
                "update_ratio": delta.norm() / twin.linear[l].weight.norm(),
                "a_mean": a.mean(),
                "a_std": a.std(correction=0),
                "z_mean": z.mean(),
                "z_std": z.std(correction=0),
                "saturated": flat.double().mean(),
                "dead": flat.all(0).double().mean(),
            }
            places = [*record.sample_at(40, 12)]
            for name, values in (("a", a), ("z", z)):
                torch.testing.assert_close(g.rows.at["samples"][name][l, slot], values.flatten()[places])
            for name, value in told.items():
                torch.testing.assert_close(layers[name][l, slot], value.detach(), rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("activation", ["relu", "tanh", "linear", "leaky_relu"])
def test_of_values_that_are_no_numbers_none_is_called_saturated_or_dead(activation):
    g = grouped(every_kind(depth=3, width=6, batch_size=16, activation=activation))
    with torch.no_grad():
        g.stack.p["bias"][1, 0, 0, 2] = np.nan  # one unit of layer 2 of one network, and so all above it
        g.step(0, True)
    for name in ("saturated", "dead"):
        nowhere = torch.zeros(3, g.stack.S, dtype=bool)
        nowhere[1:, 0] = True
        assert torch.equal(g.rows.at["layers"][name].isnan(), nowhere), name


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"depth": 60, "width": 16, "activation": "sigmoid"}, 0, 1e-30),
        ({"depth": 60, "width": 16, "activation": "sigmoid", "optimizer": "momentum"}, 0, 1e-30),
        ({"depth": 50, "width": 64, "activation": "relu", "init": "he", "init_gain": 3.0}, 1e21, np.inf),
    ],
)
def test_vanishing_and_exploding_norms_are_right_as_far_as_float32_holds_them(settings, least, most):
    experiment = Experiment(settings=Settings(batch_size=32, **settings), arms=[Arm(label="no norm")])
    rows = {}
    for dtype in (torch.float32, torch.float64):
        g = grouped(experiment, dtype)
        gradient(g)
        with torch.no_grad():
            g.rows.measured(*g.stack.direction())
        rows[dtype] = {q: v.double().clone() for q, v in g.rows.at["layers"].items()}
    for q in ("grad_norm", "signal_grad_norm", "weight_norm", "update_ratio", "a_std", "z_std", "a_mean"):
        told, exact = rows[torch.float32][q], rows[torch.float64][q]
        there = (exact.abs() > 1e-36) & (exact.abs() < 1e37)
        torch.testing.assert_close(told[there], exact[there], rtol=3e-4, atol=0)
    exact = rows[torch.float64]["signal_grad_norm"]
    assert exact.min() < most and exact.max() > least, "the case is one of those that squares in float32 lose"


def test_spread_keeps_its_digits_where_values_hardly_differ():
    g = grouped(every_kind(depth=2, width=5, batch_size=30, activation="sigmoid", init_gain=1e-3), torch.float32)
    gradient(g)
    with torch.no_grad():
        g.rows.measured(*g.stack.direction())
    z = g.stack.out[1, 0].double()
    assert z.std(correction=0) / z.mean() < 1e-3
    assert g.rows.at["layers"]["z_std"][1, 0].item() == pytest.approx(z.std(correction=0).item(), rel=1e-3)


@pytest.mark.parametrize(
    ("bias", "gain", "width", "batch_size"), [(30, 1, 256, "full"), (3e3, 1, 5, 30), (1e6, 0.1, 5, 30)]
)
def test_spread_keeps_its_digits_also_where_a_norm_tells_mean_and_variance(bias, gain, width, batch_size):
    asked = every_kind(depth=2, width=width, batch_size=batch_size, activation="linear", init_gain=gain)
    g = grouped(asked, torch.float32)
    with torch.no_grad():
        g.stack.p["bias"].fill_(bias)  # a batch norm before the activation takes it away again
        g.step(0, True)
    a = g.stack.a.double().flatten(2)
    spread, exact = g.rows.at["layers"]["a_std"].double(), a.std(2, correction=0)
    assert (exact[:, g.stack.before] / a[:, g.stack.before].mean(2) < 0.1).all()
    torch.testing.assert_close(spread, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("last", ["update_ratio", "z_std", "dead"])
def test_a_quantity_that_is_added_leaves_the_others_as_they_are(monkeypatch, last):
    """The README promises it: one row in record.py. Those measured are found by name, wherever the new one stands."""
    asked = every_kind(depth=3, width=6, data="wine", batch_size=16, steps=2)
    seen = lambda: [[r.value(q, arm) for q in known for arm in range(len(asked.arms))] for r in train(asked) if r.parts]  # noqa: E731
    known, more = list(record.LAYERS), {"more": record.Quantity("More", "", "", "Nothing yet.")}
    before = seen()
    at = known.index(last) + 1
    wider = dict([*list(record.LAYERS.items())[:at], *more.items(), *list(record.LAYERS.items())[at:]])
    monkeypatch.setitem(record.TABLES, "layers", wider)
    np.testing.assert_array_equal(np.array(seen()), np.array(before))


def test_norms_are_right_where_most_squares_are_below_the_least_normal_number():
    """They count as 0, for speed, which is to be seen in no norm; and nowhere else."""
    g = grouped(every_kind(depth=3, width=64, batch_size=128, data="gaussian"), torch.float32)
    gradient(g)
    faint = 1.08e-19  # its square is 1.17e-38; the least normal number is 1.18e-38
    with torch.no_grad():
        g.stack.da.fill_(faint)
        g.stack.da[..., 0, 0] = torch.logspace(-18, -12, 3 * g.stack.S).view(3, g.stack.S)
        for span in g.stack.spans:
            g.rows.backward(span.stop - 1)
        g.rows.measured(*g.stack.direction())
    exact = g.stack.da.double().flatten(2).norm(dim=2)
    torch.testing.assert_close(g.rows.at["layers"]["signal_grad_norm"].double(), exact, rtol=2e-7, atol=0)
    assert torch.tensor([1e-30]) * torch.tensor([1e-10]) > 0, "the training itself keeps such numbers"


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "linear"])
def test_beyond_the_flat_edges_the_slope_is_below_a_twentieth_of_the_steepest(activation):
    u = torch.linspace(-12, 12, 240_001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(ACTIVATIONS[activation].plain(u).sum(), u)
    steep = u.detach()[slope.abs() >= slope.abs().max() / 20]
    low, high = ACTIVATIONS[activation].flat
    assert (low, min(high, 12)) == pytest.approx((float(steep.min()), float(steep.max())), abs=3e-4)
