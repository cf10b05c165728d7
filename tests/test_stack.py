"""The training step against torch.nn, autograd, torch.optim and finite differences, in float64."""

import numpy as np
import pytest
import torch
from twins import Twin, every_kind, gradient, grouped, optimizer

from bnlab.activations import ACTIVATIONS
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.inits import INITS
from bnlab.optimizers import OPTIMIZERS
from bnlab.sampling import mini_batches
from bnlab.train import train

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize("data", ["digits", "diabetes"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_backward_and_moving_averages_are_torchs(activation, data):
    g = grouped(every_kind(data=data, activation=activation, depth=4, width=13, batch_size=17, alpha=0.7, init="he"))
    twins = [Twin(g.stack, slot) for slot in range(g.stack.S)]
    x, y = gradient(g)
    for slot, twin in enumerate(twins):
        loss = twin.loss(x[slot], y[slot])
        loss.backward()
        torch.testing.assert_close(g.stack.loss[slot], loss.detach(), **CLOSE)
        n = slot - g.stack.normed.start
        for l in range(g.stack.L):
            weight = g.stack.g["weight_in"][slot] if l == 0 else g.stack.g["weight"][l - 1, slot]
            torch.testing.assert_close(weight.T, twin.linear[l].weight.grad, **CLOSE)
            torch.testing.assert_close(g.stack.g["bias"][l, slot, 0], twin.linear[l].bias.grad, **CLOSE)
            torch.testing.assert_close(g.stack.da[l, slot], twin.a[l].grad, **CLOSE)
            if n >= 0:
                torch.testing.assert_close(g.stack.g["gamma"][l, n, 0], twin.norm[l].weight.grad, **CLOSE)
                torch.testing.assert_close(g.stack.g["beta"][l, n, 0], twin.norm[l].bias.grad, **CLOSE)
            if twin.settings.norm == "batch":
                b, K = slot - g.stack.batch.start, g.stack.K
                torch.testing.assert_close(g.stack.moving_mean[l, b, 0], twin.norm[l].running_mean, **CLOSE)
                # torch averages the unbiased variance; both start at 1
                alpha = twin.settings.alpha
                unbiased = alpha + (g.stack.moving_var[l, b, 0] - alpha) * K / (K - 1)
                torch.testing.assert_close(unbiased, twin.norm[l].running_var, **CLOSE)
        torch.testing.assert_close(g.stack.g["readout"][slot].T, twin.readout.weight.grad, **CLOSE)
        torch.testing.assert_close(g.stack.g["readout_bias"][slot, 0], twin.readout.bias.grad, **CLOSE)


def rough(g):
    """A stack whose gammas, betas and moving averages are no round numbers."""
    draw = torch.Generator().manual_seed(1)
    for name in ("gamma", "beta"):
        g.stack.p[name].copy_(torch.rand(g.stack.p[name].shape, generator=draw) + 0.5)
    g.stack.moving_mean.copy_(torch.rand(g.stack.moving_mean.shape, generator=draw))
    g.stack.moving_var.copy_(torch.rand(g.stack.moving_var.shape, generator=draw) + 0.5)
    return g


@pytest.mark.parametrize("statistics", ["batch", "moving"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("activation", ["sigmoid", "elu"])
def test_noisy_and_frozen_batch_norms_have_autograds_gradients(statistics, noise, activation):
    if not noise and statistics == "batch":
        pytest.skip("neither; tested above")
    settings = {"statistics": statistics, "noise_shift": noise, "noise_scale": noise / 2, "activation": activation}
    g = rough(grouped(every_kind(depth=3, width=7, batch_size=11, data="wine", **settings)))
    before = g.stack.moving.clone()
    twins = [Twin(g.stack, slot) for slot in range(g.stack.S)]
    for slot, twin in enumerate(twins):
        if twin.settings.norm == "batch":
            for l, norm in enumerate(twin.norm):
                b = slot - g.stack.batch.start
                norm.running_mean.copy_(g.stack.moving_mean[l, b, 0])
                norm.running_var.copy_(g.stack.moving_var[l, b, 0])
    x, y = gradient(g, 5)
    assert torch.equal(before, g.stack.moving) == (statistics == "moving")
    for slot, twin in enumerate(twins):
        loss = twin.loss(x[slot], y[slot])
        loss.backward()
        torch.testing.assert_close(g.stack.loss[slot], loss.detach(), **CLOSE)
        for l in range(g.stack.L):
            torch.testing.assert_close(g.stack.layers[l].a[slot], twin.a[l].detach(), **CLOSE)
            torch.testing.assert_close(g.stack.da[l, slot], twin.a[l].grad, **CLOSE)
            if twin.settings.norm != "none":
                n = slot - g.stack.normed.start
                torch.testing.assert_close(g.stack.g["gamma"][l, n, 0], twin.norm[l].weight.grad, **CLOSE)
                torch.testing.assert_close(g.stack.g["beta"][l, n, 0], twin.norm[l].bias.grad, **CLOSE)


def test_noise_is_as_wide_as_asked_and_new_at_every_step():
    noisy = Arm(label="noisy", changes={"norm": "batch", "noise_shift": 0.5, "noise_scale": 0.25})
    g = grouped(Experiment(settings=Settings(depth=5, width=100), arms=(noisy,), seeds=(3,)))
    (noise,) = g.stack.noise.values()
    seen = []
    for t in (0, 1, 0):
        noise.draw(t)
        seen.append((noise.shift.clone(), noise.scale.clone()))
        assert -0.5 <= noise.shift.min() < -0.48 < 0.48 < noise.shift.max() <= 0.5
        assert 1 <= noise.scale.min() < 1.01 < 1.24 < noise.scale.max() <= 1.25
    assert torch.equal(seen[0][0], seen[2][0]) and not torch.equal(seen[0][0], seen[1][0])


def test_fixed_gamma_and_beta_stay():
    fixed = Arm(label="fixed", changes={"norm": "batch", "rescale": "fixed"})
    settings = Settings(depth=3, width=8, steps=20, data="wine", batch_size=16, weight_decay=0.1, optimizer="adam")
    learned = Arm(label="learned", changes={"norm": "batch"})
    records = list(train(Experiment(settings=settings, arms=(fixed, learned))))
    assert (records[19].value("gamma", 0) == 1).all() and (records[19].value("beta", 0) == 0).all()
    assert (records[19].value("gamma", 1) != 1).any()


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_thirty_steps_are_torchs(rule, decay):
    settings = {"optimizer": rule, "weight_decay": decay, "learning_rate": 0.01, "steps": 30, "sampling": "replacement"}
    experiment = every_kind(depth=5, width=10, batch_size=20, activation="tanh", **settings)
    rates = [{**arm.changes, "learning_rate": 0.004 * i} for i, arm in enumerate(experiment.arms, 1)]
    arms = [Arm(label=arm.label, changes=own) for arm, own in zip(experiment.arms, rates, strict=True)]
    experiment = Experiment(settings=experiment.settings, arms=arms)
    g = grouped(experiment)
    twins = [Twin(g.stack, slot) for slot in range(g.stack.S)]
    rules = [optimizer(twin.settings, twin.parameters()) for twin in twins]
    x, y = g.splits["train"]
    batches = mini_batches(experiment.settings, 0, 0)
    records = train(experiment, dtype=torch.float64)
    for t in range(30):
        record = next(records)
        for slot, (twin, rule_of) in enumerate(zip(twins, rules, strict=True)):
            loss = twin.loss(x[batches[t]], y[batches[t]])
            rule_of.zero_grad()
            loss.backward()
            rule_of.step()
            arm = experiment.stacks[0][slot].arm
            np.testing.assert_allclose(record.value("loss", arm), loss.item(), rtol=1e-7)
            grads = [linear.weight.grad.norm().item() for linear in twin.linear]
            np.testing.assert_allclose(record.value("grad_norm", arm), grads, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("init", INITS)
def test_gradients_are_finite_differences(init):
    g = grouped(every_kind(depth=3, width=6, batch_size=9, activation="silu", init=init, data="wine"))
    x, y = gradient(g)
    rng = np.random.default_rng(0)
    flat, gradients = g.stack.parameters, g.stack.gradients.clone()
    places = rng.permutation(np.flatnonzero(gradients.abs().numpy() > 1e-6))[:60]
    for i in places:
        losses = []
        for h in (1e-6, -2e-6):
            flat[i] += h
            with torch.no_grad():
                losses.append(g.stack.criterion(g.stack.forward(x), y)[0].sum())
        flat[i] += 1e-6
        assert (losses[0] - losses[1]).item() / 2e-6 == pytest.approx(gradients[i].item(), rel=1e-5, abs=1e-9)
