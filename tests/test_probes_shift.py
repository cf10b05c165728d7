"""Covariate shift against torch modules whose lower layers take their update, down to what float32 cannot tell."""

import numpy as np
import pytest
import torch
from twins import Twin, group, look, twins

from bnlab import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.probes import Copies, at_once, shift

BN = {"norm": "batch"}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_covariate_shift_is_that_of_updating_the_layers_below(optimizer):
    made = group(optimizer=optimizer)
    every = twins(made)
    with torch.no_grad():  # the update the training will make
        ahead = group(optimizer=optimizer)
        ahead.step(ahead.stack.t, False)
    after = [Twin(ahead.stack, slot) for slot in range(ahead.stack.S)]
    found = look(shift.look, made)
    assert list(found["layer"][0]) == [2, 3, 4]
    for slot, (twin, x, y) in enumerate(every):
        twin.loss(x, y).backward()
        before = [linear.weight.grad.clone() for linear in twin.linear]
        for i, layer in enumerate((2, 3, 4)):
            other = Twin(ahead.stack, slot)
            other.load_state_dict(twin.state_dict())
            for l in range(layer - 1):
                other.linear[l].load_state_dict(after[slot].linear[l].state_dict())
                if twin.settings.norm != "none":
                    other.norm[l].weight.data.copy_(after[slot].norm[l].weight.data)
                    other.norm[l].bias.data.copy_(after[slot].norm[l].bias.data)
            other.loss(x, y).backward()
            g, now = before[layer - 1], other.linear[layer - 1].weight.grad
            assert found["change"][slot, i] == pytest.approx(float((g - now).norm()), rel=1e-6)
            cosine = float(torch.nn.functional.cosine_similarity(g.flatten(), now.flatten(), dim=0))
            assert found["cosine"][slot, i] == pytest.approx(cosine, rel=1e-9)
        with torch.no_grad():
            reads, enters = zip(*(drift_of(twin, after[slot], x, l) for l in range(4)), strict=True)
        np.testing.assert_allclose(found["drift"][slot], [0, *reads[:3]], rtol=1e-6)
        np.testing.assert_allclose(found["entering"][slot], enters, rtol=1e-6)


def drift_of(twin, later, x, l):
    """How far the outputs of layer l, and what enters its activation, move from one network to the other."""
    found = []
    for part in ("out", "entering"):
        ends = []
        for one in (twin, later):
            one(x)
            before = one.settings.placement == "before" and one.settings.norm != "none"
            after = one.settings.placement == "after" and one.settings.norm != "none"
            if part == "out":
                ends.append(one.normalized(one.z[l], l) if after else one.z[l])
            else:
                ends.append(one.normalized(one.a[l], l) if before else one.a[l])
        (mean, std), (mean_now, std_now) = [(q.mean(0), q.std(0, correction=0)) for q in ends]
        found.append(float((((mean_now - mean) ** 2 + (std_now - std) ** 2) / std**2).mean().sqrt()))
    return found


def test_noise_after_batch_norm_is_shift_that_is_measured():
    arms = (Arm(label="BN", changes=BN), Arm(label="noisy", changes=BN | {"noise_shift": 0.5, "noise_scale": 0.25}))
    settings = Settings(depth=4, width=16, batch_size=32, data="wine", learning_rate=0.01)
    with torch.no_grad():
        made = Group(Experiment(settings=settings, arms=arms), 0, "cpu", torch.float64)
        found = at_once(shift.look(made))
        assert made.stack.t == 0
    calm, noisy = (found["relative"][i] for i in (0, 1))
    assert (noisy > 2 * calm).all()
    assert (found["drift"][:, 0] == 0).all()  # the data do not move
    assert (found["drift"][1, 1:] > 2 * found["drift"][0, 1:]).all()


def test_rounding_is_no_drift():
    """Deep sigmoids without a norm give all examples nearly the same: what is left of their spread is rounding, also
    where a unit adds up large numbers to a small one. What is told in float32 is what float64 finds."""
    settings = Settings(depth=20, width=16, activation="sigmoid", init_gain=2, learning_rate=100)
    experiment = Experiment(settings=settings, arms=(Arm(label="none"),))
    with torch.no_grad():
        found, exact = (
            at_once(shift.look(Group(experiment, 0, "cpu", dtype))) for dtype in (torch.float32, torch.float64)
        )
    for name in ("drift", "entering"):
        told, true = found[name][0], exact[name][0]
        there = np.isfinite(told)
        assert there[:3].all() and not there[-3:].any()
        assert not np.diff(there.astype(int)).clip(0).any(), "no dot beyond the layer where it is lost"
        np.testing.assert_allclose(told[there], true[there], rtol=0.05, atol=1e-4)


def test_a_spread_far_above_rounding_is_one_however_small_it_is():
    made = group()
    with torch.no_grad():
        layer, told = made.stack.layers[0], []
        layer.bias.fill_(1.0)
        for factor in (1e-8, 1e-8):  # of 1; float64 tells 1e-16 of it
            layer.weight.mul_(factor)
            x, y = made.mini_batch(made.stack.t)
            made.stack.gradient(x, y)
            told.append(shift.varying(made.stack, x)[0])
    assert told[0].all() and not told[1].any()


def test_covariate_shift_is_told_below_what_float32_can_tell():
    """Sigmoid layers without a norm: the lowest layers' updates change a gradient by less than 1e-7 of it."""
    experiment = Experiment(settings=Settings(depth=12, width=20, steps=1, data="wine", batch_size=16))
    stack = Group(experiment, 0, "cpu", torch.float32).stack
    (found,) = Copies(experiment).look("shift", {}, 0, [stack.snapshot()])
    with torch.no_grad():
        exact = Group(experiment, 0, "cpu", torch.float64)
        exact.stack.restore(0, stack.snapshot())
        expected = at_once(shift.look(exact))
    assert expected["relative"][0, 0] < 1e-8
    np.testing.assert_allclose(found["relative"][0], expected["relative"][0], rtol=1e-9)
