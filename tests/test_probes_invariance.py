"""Multiplied weights: what stays, what counts as learning rate, and by what angle an update turns them."""

import numpy as np
import pytest
import torch
from twins import group, look, twins

from bnlab.optimizers import OPTIMIZERS
from bnlab.probes import invariance


def test_scaling_a_layer_below_a_norm_changes_nothing_but_its_gradient():
    made = group(activation="relu", delta=1e-12)
    found = look(invariance.look, made, layer=2)
    kinds = [(s.norm, s.placement) for s in made.stack.settings]
    middle = list(found["factor"][0]).index(1.0)
    for slot, (normed, placement) in enumerate(kinds):
        loss, gradient_of = found["loss"][slot], found["gradient"][slot] * found["factor"][slot]
        if (normed, placement) == ("none", "before"):
            assert np.ptp(loss) > 1e-2
        else:  # after a ReLU the factor passes the activation and is taken out behind it
            np.testing.assert_allclose(loss, loss[middle], rtol=1e-6)
            np.testing.assert_allclose(gradient_of, gradient_of[middle], rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, 4, 9])
def test_loss_gradient_and_rate_are_those_of_the_layer_that_is_asked_for_or_of_the_highest(layer):
    made = group()
    every, found = twins(made), look(invariance.look, made, layer=layer)
    for slot, (twin, x, y) in enumerate(every):
        own = twin.linear[min(layer, 4) - 1]
        start = own.weight.detach().clone(), own.bias.detach().clone()
        for i, c in enumerate(found["factor"][slot]):
            with torch.no_grad():
                own.weight.copy_(c * start[0])
                own.bias.copy_(c * start[1])
            twin.zero_grad()
            loss = twin.loss(x, y)
            loss.backward()
            assert found["loss"][slot, i] == pytest.approx(loss.item(), rel=1e-9)
            assert found["gradient"][slot, i] == pytest.approx(own.weight.grad.norm().item(), rel=1e-7)
            assert found["rate"][slot, i] == pytest.approx(0.05 / (c * start[0].norm().item()) ** 2, rel=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_rate_that_counts_is_what_the_angle_of_an_update_goes_with(optimizer):
    """Below a norm: take the first update with a layer's weights multiplied by c, and measure by how much they turn."""
    own = {"step": 0, "activation": "relu", "delta": 1e-12, "optimizer": optimizer, "learning_rate": 1e-5}
    rate, angles = look(invariance.look, group(**own), layer=2)["rate"], []
    for c in invariance.FACTORS:
        made = group(**own)
        with torch.no_grad():
            weight, bias = (made.stack.p[name][place] for name, place in (("weight", 0), ("bias", 1)))
            before = weight.mul_(c).clone().flatten(1)
            bias.mul_(c)
            made.step(0, False)
            off = torch.nn.functional.normalize(before) - torch.nn.functional.normalize(weight.flatten(1))
            angles.append(off.norm(dim=1).numpy())
    normed = [i for i, s in enumerate(made.stack.settings) if s.norm != "none"]
    each = (np.stack(angles, 1) / rate)[normed]
    np.testing.assert_allclose(each / each[:, [4]], 1, rtol=0.02)


def test_the_angle_of_an_update_is_that_between_the_weights():
    made = group()
    with torch.no_grad():
        ahead = group()
        ahead.step(ahead.stack.t, False)
    found = look(invariance.look, made, layer=1)["angle"]
    with torch.no_grad():
        again = group()
    for slot in range(made.stack.S):
        for l in range(4):
            a, b = (m.stack.layers[l].weight[slot].flatten() for m in (again, ahead))
            cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
            assert np.cos(np.deg2rad(found[slot, l])) == pytest.approx(cosine, abs=1e-12)
