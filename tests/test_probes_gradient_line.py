"""The loss along the gradient and along the update, against autograd and the step that is taken."""

import pytest
import torch
from twins import Twin, group, look, twins

from bnlab.probes import gradient_line


def parameters(twin):
    return [p for p in twin.parameters() if p.requires_grad]


def gradient(twin, x, y):
    return torch.autograd.grad(twin.loss(x, y), parameters(twin))


def norm(tensors):
    return float(torch.cat([t.flatten() for t in tensors]).norm())


def moved(twin, directions, length):
    with torch.no_grad():
        for p, d in zip(parameters(twin), directions, strict=True):
            p.add_(d, alpha=length)


def test_the_line_along_the_gradient_is_autograds():
    made = group()
    every = twins(made)
    found = look(gradient_line.look, made)
    for slot, (twin, x, y) in enumerate(every):
        g = gradient(twin, x, y)
        assert found["gradient"][slot] == pytest.approx(norm(g), rel=1e-9)
        assert found["loss"][slot, 0] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-9)
        slopes, lengths = [], found["length"][slot]
        assert lengths[[0, 1, -1]].tolist() == [0, 0.5, 4]
        for i, length in enumerate(lengths[1:]):
            moved(twin, g, -0.05 * length)
            assert found["loss"][slot, i + 1] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-7)
            change = norm([a - b for a, b in zip(gradient(twin, x, y), g, strict=True)])
            assert found["change"][slot, i] == pytest.approx(change, rel=1e-6)
            slopes.append(change / (0.05 * length * norm(g)))
            moved(twin, g, 0.05 * length)
        assert found["smoothness"][slot] == pytest.approx(max(slopes), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_the_line_along_the_update_is_the_step_that_is_taken(optimizer):
    made, ahead = (group(optimizer=optimizer, weight_decay=0.01) for _ in range(2))
    every = twins(made)
    with torch.no_grad():
        ahead.step(ahead.stack.t, False)
    after = [Twin(ahead.stack, slot) for slot in range(ahead.stack.S)]
    found = look(gradient_line.look_along_update, made)
    for slot, (twin, x, y) in enumerate(every):
        g = gradient(twin, x, y)
        assert found["gradient"][slot] == pytest.approx(norm(g), rel=1e-9)
        step = [b.detach() - a.detach() for a, b in zip(parameters(twin), parameters(after[slot]), strict=True)]
        for i, length in enumerate(gradient_line.LENGTHS):
            moved(twin, step, length)
            assert found["loss"][slot, i + 1] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-7)
            change = norm([a - b for a, b in zip(gradient(twin, x, y), g, strict=True)])
            assert found["change"][slot, i] == pytest.approx(change, rel=1e-6)
            moved(twin, step, -length)


def test_what_is_fixed_does_not_move_along_the_line():
    made = group(rescale="fixed")
    start = made.stack.p["gamma"].clone()
    every = twins(made)
    found = look(gradient_line.look, made)
    assert torch.equal(made.stack.p["gamma"], start)
    for slot, (twin, x, y) in enumerate(every):
        for p in twin.norm.parameters():
            p.requires_grad_(False)  # nor does its gradient count
        g = gradient(twin, x, y)
        assert found["gradient"][slot] == pytest.approx(norm(g), rel=1e-9)
        moved(twin, g, -0.05 * found["length"][slot, 1])
        change = norm([a - b for a, b in zip(gradient(twin, x, y), g, strict=True)])
        assert found["change"][slot, 0] == pytest.approx(change, rel=1e-6)
