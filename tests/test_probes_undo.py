"""A norm undone by its own gamma and beta, against torch modules without it."""

import numpy as np
import pytest
import torch
from twins import group, look, twins

from bnlab import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.probes import undo

BN = {"norm": "batch"}


def test_an_undone_norm_has_the_same_loss_and_other_gradients():
    made = group(depth=3)
    every = twins(made)
    found = look(undo.look, made, layer=2)
    for slot, (twin, x, y) in enumerate(every):
        if twin.settings.norm != "batch":
            assert np.isnan(found["loss_with"][slot])
            continue
        with torch.no_grad():
            twin(x)
            into = (twin.a if twin.settings.placement == "before" else twin.z)[1]
            twin.norm[1].weight.copy_((into.var(0, correction=0) + twin.norm[1].eps).sqrt())
            twin.norm[1].bias.copy_(into.mean(0))
        gradients = []
        for _ in range(2):
            loss = twin.loss(x, y)
            gradients.append(torch.autograd.grad(loss, [linear.weight for linear in twin.linear]))
            key = "loss_with" if len(gradients) == 1 else "loss_without"
            assert found[key][slot] == pytest.approx(float(loss.detach()), rel=1e-8)
            twin.norm[1] = torch.nn.Identity()
        assert found["loss_with"][slot] == pytest.approx(found["loss_without"][slot], rel=1e-9)
        for l, (a, b) in enumerate(zip(*gradients, strict=True)):
            assert found["gradient_with"][slot, l] == pytest.approx(float(a.norm()), rel=1e-6)
            assert found["gradient_without"][slot, l] == pytest.approx(float(b.norm()), rel=1e-6)
        assert found["cosine"][slot, 0] < 0.99
        assert found["cosine"][slot, 2] == pytest.approx(1, abs=1e-6)  # above the layer nothing is different


def test_a_frozen_norm_is_undone_with_the_same_gradients():
    """Frozen moving averages do not depend on the weights below, so nothing is left of the norm at all."""
    arms = tuple(Arm(label=p, changes=BN | {"placement": p}) for p in ("before", "after"))
    settings = Settings(depth=3, width=7, batch_size=12, data="wine", activation="tanh", statistics="moving")
    with torch.no_grad():
        made = Group(Experiment(settings=settings, arms=arms), 0, "cpu", torch.float64)
        made.stack.moving_mean.uniform_(-0.5, 0.5)
        made.stack.moving_var.uniform_(0.5, 2)
        found = undo.look(made, layer=2)
    for slot, (twin, x, y) in enumerate(twins(made)):
        twin.norm[1] = torch.nn.Identity()
        with torch.no_grad():
            for l in (0, 2):
                twin.norm[l].running_mean.copy_(made.stack.moving_mean[l, slot, 0])
                twin.norm[l].running_var.copy_(made.stack.moving_var[l, slot, 0])
        assert found["loss_with"][slot] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-9)
    np.testing.assert_allclose(found["loss_with"], found["loss_without"], rtol=1e-12)
    np.testing.assert_allclose(found["gradient_with"], found["gradient_without"], rtol=1e-9)
    np.testing.assert_allclose(found["cosine"], 1, rtol=1e-9)
