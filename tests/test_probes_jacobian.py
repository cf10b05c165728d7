"""Jacobians against autograd and closed forms, in inference mode and over a mini-batch."""

from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from twins import Twin, every_kind, group, grouped, look, twins

from bnlab import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.probes import Copies, at_once, jacobian

BN = {"norm": "batch"}


def test_wide_layers_still_show_training_mode(monkeypatch):
    monkeypatch.setattr(jacobian, "WIDEST", 5)
    found = look(jacobian.look, group())
    assert np.isnan(found["layer"]).all() and np.isnan(found["product"]).all() and (found["training"] > 0).all()
    monkeypatch.setattr(jacobian, "WIDEST", 7)  # which they are
    assert np.isfinite(look(jacobian.look, group())["layer"]).all()


def test_jacobians_in_inference_mode_are_autograds():
    made, compared = group(depth=4, width=5), 0
    found = look(jacobian.look, made)
    for slot, (twin, x, _) in enumerate(twins(made)):
        if twin.settings.norm == "batch":
            population(twin, made)
        twin.eval()

        def part(h, first, last, twin=twin):
            for l in range(first, last):
                a = twin.linear[l](h)
                before = twin.settings.placement == "before"
                h = twin.activation(twin.norm[l](a)) if before else twin.norm[l](twin.activation(a))
            return h

        for l in range(3):
            values = {"layer": [], "product": []}
            for e in range(jacobian.EXAMPLES):
                h = part(x[e : e + 1], 0, l + 1).detach()
                for name, last in (("layer", l + 2), ("product", 4)):
                    J = torch.autograd.functional.jacobian(lambda h, l=l, last=last: part(h, l + 1, last), h)[0, :, 0]
                    singular = torch.linalg.svdvals(J)
                    values[name].append(singular[singular > 1e-12 * singular[0]])  # layer norm loses two directions
            for name, each in values.items():
                wanted = torch.quantile(torch.cat(each).detach(), torch.tensor(jacobian.QUANTILES, dtype=torch.float64))
                np.testing.assert_allclose(found[name][slot, l], wanted.numpy(), rtol=1e-6, atol=1e-9)
                conditions = sorted(float(kept[0] / kept[-1]) for kept in each)
                if conditions[-1] < 1e8:  # beyond, rounding
                    assert found[f"{name}_condition"][slot, l] == pytest.approx(sum(conditions[1:3]) / 2, rel=1e-5)
                    compared += 1
    assert compared > 20


def population(twin, made):
    """Let torch's batch norm have the population's statistics, by one pass over the whole training set."""
    N = len(made.splits["train"][0])
    for norm in twin.norm:
        norm.momentum = 1.0
    twin.train()(made.splits["train"][0])
    for norm in twin.norm:
        norm.running_var.mul_((N - 1) / N)


def test_jacobians_of_initial_networks_in_inference_mode_are_those_of_a_norm():
    """Moving averages still stand at 0 and 1 there."""
    made = group(step=0, depth=4, width=16, batch_size=64, activation="linear")
    before = [(s.norm, s.placement) for s in made.stack.settings].index(("batch", "before"))
    found = look(jacobian.look, made)
    weight = made.stack.layers[1].weight[before]
    with torch.no_grad():
        twin = Twin(made.stack, before)
        population(twin, made)
        scale = twin.norm[1].weight / (twin.norm[1].running_var + twin.norm[1].eps).sqrt()
        wanted = (weight * scale).square().sum().div(16).sqrt()
    assert found["layer_rms"][before, 0] == pytest.approx(float(wanted), rel=1e-9)
    assert found["layer_rms"][before, 0] > 1.1 * float(weight.square().sum().div(16).sqrt())


def test_frozen_averages_are_what_inference_mode_has():
    settings = Settings(depth=3, width=5, batch_size=12, data="wine", activation="linear", statistics="moving")
    with torch.no_grad():
        made = Group(Experiment(settings=settings, arms=(Arm(label="BN", changes=BN),)), 0, "cpu", torch.float64)
        made.stack.moving_var.fill_(4)
        found = at_once(jacobian.look(made))["layer_rms"][0, 0]
        wanted = made.stack.layers[1].weight[0].square().sum().div(5).sqrt() / (4 + made.stack.delta[0]).sqrt()
    assert found == pytest.approx(float(wanted), rel=1e-9)


def test_what_is_lost_is_told_by_the_examples_own_greatest_singular_value():
    """Deep products are of any size, and examples of unlike ones."""
    values = torch.tensor([[8.0, 4.0, 2.0], [9.0, 3.0, 1e-14], [0.0, 0.0, 0.0], [5e15, 5e15, 1e15]]).double()
    for scale in (1.0, 1e-40, 1e40):
        found = jacobian.summarized(scale * values)
        assert found["_lost"] == pytest.approx(4 / 12)  # the rounding of one, and all of another
        assert found["_condition"] == pytest.approx(4)  # the median of 4, 3 and 5
        assert found[""][0] == pytest.approx(2 * scale) and found[""][-1] == pytest.approx(5e15 * scale)


def test_fewer_examples_are_looked_at_where_they_take_more_than_four_of_the_default_experiment():
    most = 4 * 20 * 64**3
    for width, depth in ((8, 2), (64, 20), (64, 21), (64, 26), (64, 27), (70, 20), (128, 20), (256, 100)):
        fitting = [count for count in (2, 3, 4) if count * depth * width**3 <= most]
        assert jacobian.examples(width, depth) == max(fitting, default=2)


def test_the_standard_error_is_that_of_products_with_random_vectors_by_autograd():
    experiment = every_kind(depth=3, width=6, batch_size=12, data="wine", activation="tanh")
    made = grouped(experiment.model_copy(update={"seeds": (4,)}))
    found = look(jacobian.look, made)
    for slot, (twin, x, _) in enumerate(twins(made)):
        before = twin.settings.placement == "before"
        outputs, h = [], x
        for l in range(3):
            a = twin.linear[l](h)
            h = twin.activation(twin.norm[l](a)) if before else twin.norm[l](twin.activation(a))
            outputs.append(h)
        squares = []
        for which in range(16):
            v = torch.from_numpy(np.random.default_rng([4, 5, which]).standard_normal((12, 6)))
            below = torch.autograd.grad(outputs[-1], outputs[:-1], v, retain_graph=True)
            squares.append([float(g.square().sum() / v.square().sum()) for g in below])
        for l, each in enumerate(zip(*squares, strict=True)):
            rms = fmean(each) ** 0.5
            assert found["training"][slot, l] == pytest.approx(rms, rel=1e-9)
            error = stdev(each) / 16**0.5  # of the mean square; of its root by the slope of the root there
            assert found["training_error"][slot, l] == pytest.approx(error / (2 * rms), rel=1e-9)


def test_the_training_mode_product_couples_the_batch():
    made = group(depth=3, width=8, batch_size=12)
    found = look(jacobian.look, made)
    off = []
    for slot, (twin, x, _) in enumerate(twins(made)):
        twin.train()
        with torch.no_grad():
            h = x
            a = twin.linear[0](h)
            before = twin.settings.placement == "before"
            h = twin.activation(twin.norm[0](a)) if before else twin.norm[0](twin.activation(a))

        def rest(h, twin=twin, before=before):
            for l in (1, 2):
                a = twin.linear[l](h)
                h = twin.activation(twin.norm[l](a)) if before else twin.norm[l](twin.activation(a))
            return h

        J = torch.autograd.functional.jacobian(rest, h).reshape(96, 96)
        off.append(
            (found["training"][slot, 0] - float(J.square().sum().div(96).sqrt())) / found["training_error"][slot, 0]
        )
    assert np.abs(off).max() < 4 and np.abs(off).max() > 0.05  # in standard errors
    assert (found["training_error"] < 0.1 * found["training"]).all()


def test_lost_directions_are_counted():
    made = group(depth=2, width=7, activation="relu")
    with torch.no_grad():
        made.stack.layers[1].bias[0] = -100.0  # no unit of layer 2 has a slope
        made.stack.layers[1].bias[0, 0, :3] = 100.0  # but three
        found = at_once(jacobian.look(made))
    assert found["layer_lost"][0, 0] == found["product_lost"][0, 0] == pytest.approx(4 / 7)
    weight = made.stack.layers[1].weight[0, :, :3]
    assert found["product_rms"][0, 0] == pytest.approx(float(weight.square().sum().div(7).sqrt()), rel=1e-9)
    passing = torch.linalg.svdvals(weight.double())  # three of them
    assert found["layer_condition"][0, 0] == pytest.approx(float(passing[0] / passing[2]), rel=1e-9)
    np.testing.assert_allclose(found["layer"][0, 0, [0, 2, 4]], passing.flip(0), rtol=1e-9)
    made.stack.layers[1].bias[0] = -100.0
    found = look(jacobian.look, made)
    assert found["layer_lost"][0, 0] == 1 and found["layer_rms"][0, 0] == 0
    assert np.isnan(found["layer_condition"][0, 0]) and np.isnan(found["layer"][0, 0]).all()
    assert found["training"][0, 0] == found["training_error"][0, 0] == 0, "known without an error"


def test_what_a_hundred_layers_leave_of_a_signal_over_a_mini_batch_is_as_great_as_by_autograd():
    """Below 1e-38, where float32 ends."""
    settings = Settings(depth=100, width=6, batch_size=4, data="wine", activation="sigmoid")
    made = grouped(Experiment(settings=settings, arms=(Arm(label="none"),)))
    twin, x, _ = twins(made)[0]
    outputs = []
    for linear in twin.linear:
        outputs.append(twin.activation(linear(outputs[-1] if outputs else x)))
    squares = []
    for which in range(16):
        v = torch.from_numpy(np.random.default_rng([0, 5, which]).standard_normal((4, 6)))
        below = torch.autograd.grad(outputs[-1], outputs[:-1], v, retain_graph=True)
        squares.append([float(g.square().sum() / v.square().sum()) for g in below])
    (found,) = Copies(made.experiment).look("jacobian", {}, 0, [made.stack.snapshot()])
    assert 0 < found["training"][0, 0] < 1e-45
    np.testing.assert_allclose(found["training"][0], np.mean(squares, 0) ** 0.5, rtol=1e-6)
