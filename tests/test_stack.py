"""The engine against torch.nn, autograd, torch.optim and finite differences, in float64."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from twins import KINDS, Twin, every_kind, optimizer

from bnlab.activations import ACTIVATIONS
from bnlab.data import DATASETS
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.inits import INITS
from bnlab.optimizers import OPTIMIZERS
from bnlab.sampling import mini_batches
from bnlab.train import train

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(autouse=True)
def no_graph():
    torch.set_num_threads(1)


def group(experiment, dtype=torch.float64):
    with torch.no_grad():
        return Group(experiment, 0, "cpu", dtype)


def gradient(g, t=0):
    with torch.no_grad():
        x, y = g.mini_batch(t)
        g.stack.gradient(x, y, g.rows)
    return x, y


@pytest.mark.parametrize("data", ["digits", "diabetes"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_backward_and_moving_averages_are_torchs(activation, data):
    g = group(every_kind(data=data, activation=activation, depth=4, width=13, batch_size=17, alpha=0.7, init="he"))
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
    g = rough(group(every_kind(depth=3, width=7, batch_size=11, data="wine", **settings)))
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
    g = group(Experiment(settings=Settings(depth=5, width=100), arms=(noisy,), seeds=(3,)))
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
    g = group(experiment)
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
    g = group(every_kind(depth=3, width=6, batch_size=9, activation="silu", init=init, data="wine"))
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


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "linear"])
def test_recorded_quantities_are_those_of_the_twin(activation):
    g = group(every_kind(depth=3, width=12, batch_size=40, activation=activation, learning_rate=0.05, optimizer="adam"))
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
            for name, value in told.items():
                torch.testing.assert_close(layers[name][l, slot], value.detach(), rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"depth": 60, "width": 16, "activation": "sigmoid"}, 0, 1e-30),
        ({"depth": 50, "width": 64, "activation": "relu", "init": "he", "init_gain": 3.0}, 1e21, np.inf),
    ],
)
def test_vanishing_and_exploding_norms_are_right_as_far_as_float32_holds_them(settings, least, most):
    experiment = Experiment(settings=Settings(batch_size=32, **settings), arms=[Arm(label="no norm")])
    rows = {}
    for dtype in (torch.float32, torch.float64):
        g = group(experiment, dtype)
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
    g = group(every_kind(depth=2, width=5, batch_size=30, activation="sigmoid", init_gain=1e-3), torch.float32)
    gradient(g)
    with torch.no_grad():
        g.rows.measured(*g.stack.direction())
    z = g.stack.out[1, 0].double()
    assert z.std(correction=0) / z.mean() < 1e-3
    assert g.rows.at["layers"]["z_std"][1, 0].item() == pytest.approx(z.std(correction=0).item(), rel=1e-3)


def test_scores_are_torchs_in_train_and_eval_mode():
    g = group(every_kind(depth=4, width=10, batch_size=100, activation="relu", init="he", alpha=0.8))
    with torch.no_grad():
        for t in range(10):
            g.step(t, False)
        scores = {
            (s.split, s.statistics, slot): (s.loss[i], s.accuracy[i])
            for s in g.scores()
            for i, slot in enumerate(s.slots)
        }
    for slot in range(g.stack.S):
        for split, (x, y) in g.splits.items():
            twin = Twin(g.stack, slot).train()
            told = {}
            if twin.settings.norm == "batch":
                parts = torch.tensor_split(torch.arange(len(x)), -(-len(x) // 100))
                told["batch"] = torch.cat([twin(x[part]) for part in parts])
                for norm in twin.norm:
                    norm.momentum = 1.0
                    norm.reset_running_stats()
                population(twin, g.splits["train"][0])
                told["population"] = twin.eval()(x)
                b = slot - g.stack.batch.start
                for l, norm in enumerate(twin.norm):
                    norm.running_mean, norm.running_var = g.stack.moving_mean[l, b, 0], g.stack.moving_var[l, b, 0]
                told["moving"] = twin(x)
            else:
                told["none"] = twin(x)
            for statistics, outputs in told.items():
                loss, accuracy = scores[split, statistics, slot]
                assert loss == pytest.approx(torch.nn.functional.cross_entropy(outputs, y).item(), rel=1e-9)
                assert accuracy == pytest.approx((outputs.argmax(1) == y).double().mean().item())
    assert len(scores) == 2 * (3 + 6)


def population(twin, x):
    """Set the running statistics of each layer from the whole training set, the layers below already in eval mode."""
    twin.eval()
    for norm in twin.norm:
        seen = []
        hook = norm.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        twin(x)
        hook.remove()
        norm.running_mean, norm.running_var = seen[0].mean(0).detach(), seen[0].var(0, correction=0).detach()


def vectors(experiment, **how):
    last = list(train(experiment, **how))[-1]
    return last.snapshot()[0]


some_settings = some.fixed_dictionaries(
    {
        "depth": some.integers(1, 4),
        "width": some.integers(2, 70),
        "batch_size": some.integers(2, 120),
        "activation": some.sampled_from(sorted(ACTIVATIONS)),
        "optimizer": some.sampled_from(sorted(OPTIMIZERS)),
        "init": some.sampled_from(sorted(INITS)),
        "weight_decay": some.sampled_from([0.0, 0.1]),
        "data": some.sampled_from(["digits", "wine", "moons", "diabetes"]),
    }
)


@patch("bnlab.stack.CACHED", 2**14)  # a stack is then passed over in several spans of layers, an arm alone in one
@given(some_settings)
@hypothesis_settings(max_examples=12, deadline=None)
def test_an_arm_alone_is_bitwise_the_same_as_in_the_stack(asked):
    experiment = every_kind(**asked, steps=4)
    together = {}
    for record in train(experiment):
        for arm in range(len(KINDS)):
            if record.parts:
                together[arm, record.step] = [
                    record.value(q, arm) for q in ("loss", "grad_norm", "a_std", "z_mean", "z")
                ]
    for arm, alone in enumerate(experiment.arms):
        for record in train(experiment.model_copy(update={"arms": (alone,)}), record=True):
            if record.parts:
                for one, many in zip(
                    [record.value(q, 0) for q in ("loss", "grad_norm", "a_std", "z_mean", "z")],
                    together[arm, record.step],
                    strict=True,
                ):
                    np.testing.assert_array_equal(one, many)


@given(some_settings)
@hypothesis_settings(max_examples=8, deadline=None)
def test_scores_and_population_are_bitwise_those_of_the_arm_alone(asked):
    experiment = every_kind(**asked, steps=1)
    together = list(train(experiment))[-1]
    for arm, one in enumerate(experiment.arms):
        alone = list(train(experiment.model_copy(update={"arms": (one,)})))[-1]
        slot = experiment.stacks[0].index((arm, 0))
        for score in alone.scores:
            (same,) = (s for s in together.scores if s[1:4] == (score.split, score.statistics, (slot,)))
            assert score.loss[0] == same.loss[0]
        for one_population in alone.population:
            b = together.population[0].slots.index(slot)
            np.testing.assert_array_equal(one_population.var[:, 0], together.population[0].var[:, b])


def test_recording_and_resuming_change_nothing_to_the_last_bit():
    arms = (
        Arm(label="a"),
        Arm(label="b", changes={"norm": "batch", "alpha": 0.5}),
        Arm(label="c", changes={"norm": "layer"}),
    )
    for rule in OPTIMIZERS:
        experiment = Experiment(
            settings=Settings(depth=3, width=9, steps=70, optimizer=rule, data="wine", batch_size=10, score_every=7),
            arms=arms,
            seeds=(3, 4),
        )
        whole = vectors(experiment)
        assert np.array_equal(whole, vectors(experiment, record=False))
        records = train(experiment)
        for record in records:
            if record.step == 30:
                half = record.snapshot()
                break
        assert np.array_equal(whole, vectors(experiment, start=(31, half)))
        for record in train(experiment, start=(31, half)):
            if record.weights and record.step == 42:
                assert np.array_equal(whole, vectors(experiment, start=(42, record.weights)))


def test_arms_of_a_seed_share_weights_and_examples():
    arms = (Arm(label="a"), Arm(label="b", changes={"norm": "batch"}), Arm(label="c", changes={"norm": "layer"}))
    g = group(Experiment(settings=Settings(depth=2, width=8), arms=arms, seeds=(0, 1)))
    x, _y = g.mini_batch(0)
    of = {n: slot for slot, n in enumerate(g.stack.networks)}
    for seed in (0, 1):
        for arm in (1, 2):
            assert torch.equal(g.stack.p["weight"][:, of[0, seed]], g.stack.p["weight"][:, of[arm, seed]])
            assert torch.equal(x[of[0, seed]], x[of[arm, seed]])
    assert not torch.equal(x[of[0, 0]], x[of[0, 1]])
    assert not torch.equal(g.stack.p["weight"][:, of[0, 0]], g.stack.p["weight"][:, of[0, 1]])


def test_a_network_of_another_shape_trains_beside():
    arms = (Arm(label="deep", changes={"depth": 4}), Arm(label="wide", changes={"width": 20, "batch_size": "full"}))
    experiment = Experiment(settings=Settings(depth=2, width=8, steps=3, data="wine", batch_size=16), arms=arms)
    records = list(train(experiment))
    assert len(experiment.stacks) == 2
    assert records[0].value("grad_norm", 0).shape == (4,) and records[0].value("z_std", 1).shape == (2,)


def test_no_steps_still_scores_the_initial_networks():
    (record,) = train(Experiment(settings=Settings(steps=0, depth=2)))
    assert record.step == 0 and len(record.scores) == 2 * 7 and record.parts == ()


def test_the_last_scores_carry_the_number_of_steps():
    steps = [r.step for r in train(Experiment(settings=Settings(steps=11, depth=1, score_every=5))) if r.scores]
    assert steps == [0, 5, 10, 11]


@pytest.mark.parametrize("data", DATASETS)
def test_every_data_set_trains(data):
    records = list(train(Experiment(settings=Settings(data=data, depth=2, width=8, steps=2, batch_size=10))))
    assert np.isfinite(records[1].value("loss"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_learns_as_the_cpu_does():
    experiment = every_kind(depth=4, width=16, batch_size=32, steps=20)
    pairs = zip(
        train(experiment, dtype=torch.float64), train(experiment, dtype=torch.float64, device="cuda"), strict=True
    )
    for cpu, cuda in pairs:
        if cpu.parts:
            np.testing.assert_allclose(cpu.value("grad_norm", 2), cuda.value("grad_norm", 2), rtol=1e-6)
