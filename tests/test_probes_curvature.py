"""The Hessian's largest eigenvalue against torch modules that autograd follows twice, and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from twins import Twin, every_kind

from bnlab import Arm, Experiment, Settings
from bnlab.activations import ACTIVATIONS
from bnlab.group import Group
from bnlab.probes import at_once, curvature

NOISY = {"norm": "batch", "noise_shift": 0.5, "noise_scale": 0.25}


def made(experiment, steps=3, dtype=torch.float64):
    with torch.no_grad():
        group = Group(experiment, 0, "cpu", dtype)
        for t in range(steps):
            group.step(t, False)
    return group


def twins(group):
    """Every network in float64 with its mini-batch."""
    with torch.no_grad():
        x, y = group.mini_batch(group.stack.t)
        x, y = x.double(), y if y.dtype == torch.int64 else y.double()
    for slot in range(group.stack.S):
        twin = Twin(group.stack, slot).double()
        b = slot - group.stack.batch.start
        if twin.settings.statistics == "moving" and twin.settings.norm == "batch":
            for l, norm in enumerate(twin.norm):
                norm.running_mean.copy_(group.stack.moving_mean[l, b, 0])
                norm.running_var.copy_(group.stack.moving_var[l, b, 0])
        yield twin, x[slot], y[slot]


def free(twin):
    fixed = list(twin.norm.parameters()) if twin.settings.rescale == "fixed" else ()
    return [p for p in twin.parameters() if not any(p is q for q in fixed)]


def whole(twin, x, y):
    """The largest eigenvalue of the whole Hessian, all of its rows at once."""
    ps = free(twin)
    g = torch.cat([p.flatten() for p in torch.autograd.grad(twin.loss(x, y), ps, create_graph=True)])
    rows = torch.autograd.grad(g, ps, torch.eye(len(g), dtype=g.dtype), is_grads_batched=True)
    return float(torch.linalg.eigvalsh(torch.cat([h.flatten(1) for h in rows], 1))[-1])


def arpack(twin, x, y):
    """The largest eigenvalue by ARPACK, from autograd's Hessian-vector products."""
    ps = list(twin.parameters())
    sizes = [p.numel() for p in ps]
    g = torch.autograd.grad(twin.loss(x, y), ps, create_graph=True)

    def product(v):
        along = [q.view_as(p) for q, p in zip(torch.from_numpy(v).flatten().split(sizes), ps, strict=True)]
        return torch.cat([h.flatten() for h in torch.autograd.grad(g, ps, along, retain_graph=True)]).numpy()

    n = sum(sizes)
    start = np.random.default_rng(1).standard_normal(n)
    return float(eigsh(LinearOperator((n, n), product, dtype=float), 1, which="LA", v0=start, tol=1e-4)[0][0])


def top(group, iterations=40):
    with torch.no_grad():
        return at_once(curvature.look(group, iterations))["top"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("data", ["wine", "diabetes"])
def test_the_largest_curvature_is_the_hessians(activation, data):
    group = made(every_kind(depth=2, width=3, batch_size=10, data=data, activation=activation, learning_rate=0.01))
    found = top(group, 60)
    for slot, one in enumerate(twins(group)):
        assert found[slot] == pytest.approx(whole(*one), rel=1e-7), (one[0].settings.norm, one[0].settings.placement)


@pytest.mark.parametrize("changes", [NOISY, {"statistics": "moving"}, {"rescale": "fixed"}, {"weight_decay": 0.1}])
def test_it_is_that_of_the_loss_that_is_trained(changes):
    arms = tuple(Arm(label=p, changes={"norm": "batch", "placement": p} | changes) for p in ("before", "after"))
    shared = {"statistics": changes["statistics"]} if "statistics" in changes else {}
    settings = Settings(depth=2, width=3, batch_size=10, data="wine", activation="relu", **shared)
    group = made(Experiment(settings=settings, arms=(*arms, Arm(label="LN", changes={"norm": "layer"}))))
    found = top(group, 60)
    for slot, one in enumerate(twins(group)):
        assert found[slot] == pytest.approx(whole(*one), rel=1e-7)


@pytest.mark.parametrize("steps", [0, 5])
def test_kinks_of_deep_relus_are_not_stepped_across(steps):
    arms = [("none", "before"), ("batch", "before"), ("batch", "after")]
    arms = tuple(Arm(label=f"{n} {p}", changes={"norm": n, "placement": p}) for n, p in arms)
    settings = Settings(depth=30, batch_size=32, activation="relu", init="he", learning_rate=0.05)
    experiment = Experiment(settings=settings, arms=arms)
    group = made(experiment, steps, torch.float32)
    found = top(group, 20)
    for slot, one in enumerate(twins(group)):
        assert found[slot] == pytest.approx(arpack(*one), rel=0.02), experiment.arms[slot].label


def test_few_iterations_find_less_and_never_more():
    group = made(every_kind(depth=3, width=8, batch_size=32, data="wine", activation="relu"))
    found = [top(group, n) for n in (2, 5, 10, 60)]
    assert all((a <= b + 1e-9 * abs(b)).all() for a, b in pairwise(found))


@pytest.mark.parametrize(("optimizer", "limit"), [("sgd", 40 - 0.5), ("momentum", 3.8 / 0.05 - 0.5), ("adam", np.nan)])
def test_the_limit_of_stability_is_the_optimizers_less_the_weight_decay(optimizer, limit):
    settings = {"learning_rate": 0.05, "weight_decay": 0.5, "optimizer": optimizer, "width": 3, "depth": 1}
    group = made(every_kind(data="wine", **settings), 0)
    with torch.no_grad():
        np.testing.assert_allclose(at_once(curvature.look(group, 2))["limit"], limit)


def test_beyond_the_limit_descent_on_a_quadratic_diverges():
    """w <- w - eta (h w + lambda w) with h on either side of 2/eta - lambda."""
    limit = curvature.limit(Settings(learning_rate=0.1, weight_decay=0.9))
    for h, grows in ((limit * 0.99, False), (limit * 1.01, True)):
        assert (abs(1 - 0.1 * (h + 0.9)) > 1) == grows


def test_networks_that_need_too_much_memory_are_refused(monkeypatch):
    group = made(every_kind(depth=2, width=3, batch_size=10, data="wine"))
    together = top(group, 5)
    monkeypatch.setattr(curvature, "TOGETHER", 1)
    np.testing.assert_allclose(top(group, 5), together, rtol=1e-9)
    monkeypatch.setattr(curvature, "MOST", 1)
    with pytest.raises(ValueError, match=r"the second derivatives need too much memory\. Lower depth, width or batch"):
        top(group, 5)


def test_wide_networks_are_refused_for_the_vectors_that_the_iterations_hold(monkeypatch):
    """Of few examples these are nearly all: a float64 for each parameter and iteration, and for the first."""
    group = made(every_kind(depth=2, width=64, batch_size=4, data="wine"), 0)
    parameters = sum(p.numel() for p in Twin(group.stack, 0).parameters())
    monkeypatch.setattr(curvature, "MOST", 8 * parameters * (10 + 1))
    assert 8 * curvature.KEPT * 2 * 4 * 64 < curvature.MOST / 2, "what autograd keeps would not have been too much"
    with pytest.raises(ValueError, match="the second derivatives need too much memory"):
        top(group, 10)


def test_the_curvature_of_a_quadratic_is_its_closed_form():
    experiment = Experiment(
        settings=Settings(
            depth=1, width=1, activation="linear", data="diabetes", batch_size="full", learning_rate=1e-9
        ),
        arms=(Arm(label="plain"),),
    )
    group = made(experiment, 0)
    w, v = group.stack.p["readout"].item(), group.stack.p["weight_in"][0, :, 0]
    x, y = group.splits["train"]
    found = top(group)[0]
    # E = mean (r (x v + b) + c - y)^2 in (v, b, r, c): the Hessian by hand
    n = len(x)
    ones = torch.ones(n, 1, dtype=torch.float64)
    z = x @ v
    error = w * z - y
    jacobian_of = torch.cat([w * x, w * ones, z[:, None], ones], 1)
    hessian = 2 * jacobian_of.T @ jacobian_of / n
    m = x.shape[1]
    cross = 2 * (error[:, None] * torch.cat([x, ones], 1)).mean(0)
    hessian[m + 1, : m + 1] += cross
    hessian[: m + 1, m + 1] += cross
    assert found == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-9)


def test_the_noise_of_one_arm_is_in_no_other():
    arms = (Arm(label="BN", changes={"norm": "batch"}), Arm(label="noisy", changes=NOISY))
    settings = Settings(data="wine", depth=2, width=5, batch_size=16, activation="tanh")
    group = made(Experiment(settings=settings, arms=arms))
    assert top(group)[0] == pytest.approx(whole(*next(twins(group))), rel=1e-5)
