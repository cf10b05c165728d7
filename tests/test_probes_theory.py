"""The looks at why it works, each against a twin: torch modules with autograd, closed forms, finite differences."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from twins import Twin, every_kind

from bnlab import Arm, Experiment, Settings, __main__, lineage, train
from bnlab.optimizers import OPTIMIZERS
from bnlab.probes import (
    PROBES,
    Copies,
    checked,
    gradient_line,
    invariance,
    jacobian,
    landscape,
    rank,
    schedule,
    shift,
    undo,
)
from bnlab.probes.weights import inner, spread
from bnlab.store import RunStore
from bnlab.train import Group
from bnlab.work import execute

BN = {"norm": "batch"}


def group(step=3, **settings):
    """A group in float64 some steps into its training."""
    asked = {"depth": 4, "width": 7, "batch_size": 12, "data": "wine", "activation": "tanh", "learning_rate": 0.05}
    experiment = every_kind(**asked | settings)
    with torch.no_grad():
        made = Group(experiment, 0, "cpu", torch.float64)
        for t in range(step):
            made.step(t, False)
    return made


def look(probe, made, **options):
    with torch.no_grad():
        return probe(made, **options)


def twins(made):
    with torch.no_grad():
        x, y = made.mini_batch(made.stack.t)
        x = x.clone()
    return [(Twin(made.stack, slot), x[slot], y[slot]) for slot in range(made.stack.S)]


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
        slopes = []
        for i, length in enumerate(gradient_line.LENGTHS):
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
    look(gradient_line.look, made)
    assert torch.equal(made.stack.p["gamma"], start)


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
        found = shift.look(made)
        assert made.stack.t == 0
    calm, noisy = (found["relative"][i] for i in (0, 1))
    assert (noisy > 2 * calm).all()
    assert (found["drift"][:, 0] == 0).all()  # the data do not move
    assert (found["drift"][1, 1:] > 2 * found["drift"][0, 1:]).all()


@pytest.mark.parametrize("name", [name for name, probe in PROBES.items() if not probe.back])
def test_a_fresh_copy_and_a_used_one_see_the_same_noise(name):
    noisy = BN | {"noise_shift": 0.5, "noise_scale": 0.25}
    arms = (Arm(label="noisy", changes=noisy), Arm(label="after", changes=noisy | {"placement": "after"}))
    experiment = Experiment(settings=Settings(depth=3, width=8, batch_size=16, data="wine"), arms=arms)
    vectors = next(r for r in train(experiment) if r.step == 5).snapshot()
    options = checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {})
    used = Copies(experiment)
    used.look("gradient_line", {}, 2, vectors)
    (fresh,), (again,) = (copies.look(name, options, 5, vectors) for copies in (Copies(experiment), used))
    for key, values in fresh.items():
        np.testing.assert_array_equal(values, again[key], err_msg=key)
        assert np.isfinite(values).any(), key


def test_ranks_and_surfaces_are_those_of_the_noisy_network():
    noisy = {"noise_shift": 0.5, "noise_scale": 0.25}
    arms = tuple(Arm(label=p, changes=BN | noisy | {"placement": p}) for p in ("before", "after"))
    settings = Settings(depth=3, width=8, batch_size=16, data="wine")
    with torch.no_grad():
        made = Group(Experiment(settings=settings, arms=arms), 0, "cpu", torch.float64)
        made.stack.t = 4
        ranks, losses = rank.look(made)["rank"], landscape.look(made, points=3)["loss"]
        products = jacobian.look(made)
    for slot, (twin, x, y) in enumerate(twins(made)):
        assert losses[slot, 1, 1] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-9)
        s = np.linalg.svd(made.stack.out[2, slot].numpy(), compute_uv=False)
        assert ranks[slot, 2] == pytest.approx(np.exp(-np.sum(s / s.sum() * np.log(s / s.sum()))))
        assert products["training"][slot, 0] > 0.1


def test_rounding_is_no_drift():
    """Deep sigmoids without a norm give all examples nearly the same: what is left of their spread is rounding, also
    where a unit adds up large numbers to a small one. What is told in float32 is what float64 finds."""
    settings = Settings(depth=20, width=16, activation="sigmoid", init_gain=2, learning_rate=100)
    experiment = Experiment(settings=settings, arms=(Arm(label="none"),))
    with torch.no_grad():
        found, exact = (shift.look(Group(experiment, 0, "cpu", dtype)) for dtype in (torch.float32, torch.float64))
    for name in ("drift", "entering"):
        told, true = found[name][0], exact[name][0]
        there = np.isfinite(told)
        assert there[:3].all() and not there[-3:].any()
        assert not np.diff(there.astype(int)).clip(0).any(), "no dot beyond the layer where it is lost"
        np.testing.assert_allclose(told[there], true[there], rtol=0.05, atol=1e-4)


def test_a_network_that_is_not_finite_leaves_the_others_their_numbers(run):
    step = run.snapshots()[-1]
    for name, probe in PROBES.items():
        if probe.place.split(".")[0] not in (
            "shift",
            "gradient_line",
            "curvature",
            "jacobian",
            "rank",
            "landscape",
            "invariance",
            "undo",
        ):
            continue
        copies, options = Copies(run.experiment), checked(name, {})
        if "points" in options:
            options["points"] = 5
        (made,) = copies.groups
        broken = made.stack.networks.index((0, 0))
        seen = lineage.seen(run) if probe.back else ()

        def looked(infinite, made=made, broken=broken, probe=probe, options=options, seen=seen):
            with torch.no_grad():
                made.stack.restore(step, run.snapshot(step)[0])
                if infinite:
                    made.stack.layers[1].weight[broken] = torch.inf
                return probe.look(made, *seen, **options)

        whole, rest = looked(False), looked(True)
        for key, values in whole.items():
            others = [i for i in range(len(values)) if i != broken]
            np.testing.assert_array_equal(rest[key][others], values[others], err_msg=f"{name} {key}")


def test_the_path_leaves_out_what_diverged(run):
    step = run.snapshots()[1]
    copies = Copies(run.experiment)
    (seen,) = lineage.seen(run)
    (made,) = copies.groups

    def vector(t):
        found = seen.vector(t).copy()
        made.stack.restore(t, found)
        if t > step:
            made.stack.layers[1].weight[0] = torch.nan
        return made.stack.snapshot()

    with torch.no_grad():
        made.stack.restore(step, run.snapshot(step)[0])
        found = landscape.look_along_path(made, seen._replace(vector=vector), points=5)
    assert found["step"].tolist() == [run.snapshots()] * len(found["step"])
    assert np.isfinite(found["loss"]).all() and np.isfinite(found["path"][0, :2]).all()
    assert np.isnan(found["path"][0, 2:]).all() and np.isfinite(found["path"][1:]).all()


def test_one_snapshot_is_no_path(run):
    (seen,) = lineage.seen(run)
    with pytest.raises(ValueError, match="there is one snapshot so far; a path needs two"):
        landscape.look_along_path(Copies(run.experiment).groups[0], seen._replace(snapshots=[0]), points=5)


def test_wide_layers_still_show_training_mode(monkeypatch):
    monkeypatch.setattr(jacobian, "WIDEST", 5)
    found = look(jacobian.look, group())
    assert np.isnan(found["layer"]).all() and np.isnan(found["product"]).all() and (found["training"] > 0).all()


def test_the_surface_is_the_loss_at_moved_weights():
    made = group(width=5, depth=2)
    every = twins(made)
    start = made.stack.parameters.clone()
    found = look(landscape.look, made, points=5)
    assert torch.equal(made.stack.parameters, start)
    with torch.no_grad():
        first, second = (landscape.unit_normalized(made, which) for which in range(2))
        for i, j in ((2, 2), (0, 4), (3, 1)):
            made.stack.parameters.copy_(start + found["at"][0, j] * first + found["at"][0, i] * second)
            for slot, (twin, x, y) in enumerate(every):
                there = Twin(made.stack, slot)
                assert found["loss"][slot, i, j] == pytest.approx(float(there.loss(x, y).detach()), rel=1e-9)
                if (i, j) == (2, 2):
                    assert found["loss"][slot, i, j] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-9)
    for name in ("weight_in", "weight", "readout"):
        own = made.stack.views(start)[name].norm(dim=-2)
        torch.testing.assert_close(made.stack.views(first)[name].norm(dim=-2), own)
    assert float(made.stack.views(first)["gamma"].abs().max()) == 0


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
        found = jacobian.look(made)["layer_rms"][0, 0]
        wanted = made.stack.layers[1].weight[0].square().sum().div(5).sqrt() / (4 + made.stack.delta[0]).sqrt()
    assert found == pytest.approx(float(wanted), rel=1e-9)


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


def test_covariate_shift_is_told_below_what_float32_can_tell():
    """Sigmoid layers without a norm: the lowest layers' updates change a gradient by less than 1e-7 of it."""
    experiment = Experiment(settings=Settings(depth=12, width=20, steps=1, data="wine", batch_size=16))
    stack = Group(experiment, 0, "cpu", torch.float32).stack
    (found,) = Copies(experiment).look("shift", {}, 0, [stack.snapshot()])
    with torch.no_grad():
        exact = Group(experiment, 0, "cpu", torch.float64)
        exact.stack.restore(0, stack.snapshot())
        expected = shift.look(exact)
    assert expected["relative"][0, 0] < 1e-8
    np.testing.assert_allclose(found["relative"][0], expected["relative"][0], rtol=1e-9)


def test_lost_directions_are_counted():
    made = group(depth=2, width=7, activation="relu")
    with torch.no_grad():
        made.stack.layers[1].bias[0] = -100.0  # no unit of layer 2 has a slope
        made.stack.layers[1].bias[0, 0, :3] = 100.0  # but three
        found = jacobian.look(made)
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


def test_ranks_and_cosines_are_slow_loops():
    made = group()
    found = look(rank.look, made)
    for slot in range(made.stack.S):
        for l in range(4):
            x = made.stack.out[l, slot].numpy()
            s = np.linalg.svd(x, compute_uv=False)
            p = s / s.sum()
            assert found["rank"][slot, l] == pytest.approx(np.exp(-np.sum(p * np.log(p + 1e-300))), rel=1e-9)
            u = x / np.linalg.norm(x, axis=1, keepdims=True)
            pairs = [u[i] @ u[j] for i in range(len(u)) for j in range(len(u)) if i != j]
            assert found["cosine"][slot, l] == pytest.approx(np.mean(pairs), rel=1e-9, abs=1e-12)
    line = torch.ones(1, 6, 4, dtype=torch.float64) * torch.arange(1, 7, dtype=torch.float64).view(1, 6, 1)
    assert float(rank.effective_rank(line)) == pytest.approx(1)
    assert float(rank.effective_rank(torch.eye(4, dtype=torch.float64)[None])) == pytest.approx(4)


def test_inner_products_and_moves_go_network_by_network():
    made = group()
    stack = made.stack
    with torch.no_grad():
        values = torch.arange(1.0, stack.S + 1, dtype=torch.float64)
        each = inner(stack, stack.parameters, stack.parameters)
        np.testing.assert_allclose(
            inner(stack, spread(stack, values) * stack.parameters, stack.parameters), values * each
        )
        for slot in range(stack.S):
            twin = Twin(stack, slot)
            assert float(each[slot]) == pytest.approx(sum(float(p.detach().square().sum()) for p in twin.parameters()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = Settings(depth=3, width=6, steps=240, data="wine", batch_size=16, score_every=20)
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(Experiment(settings=settings, seeds=(0, 1)))
    execute(store, run.id, lambda: None)
    return store.trace(run.id)


@pytest.mark.parametrize("name", PROBES)
def test_looking_changes_nothing(run, name):
    """A training that is looked at with a probe at every snapshot keeps every bit."""
    experiment = run.experiment
    copies, options = Copies(experiment), checked(name, {})
    if "points" in options:
        options["points"] = 5
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    plain, looked_at = list(train(experiment)), []
    for record in train(experiment):
        if record.weights and record.step in (0, 20, 60):
            seen = lineage.seen(run) if PROBES[name].back else ()
            found = copies.look(name, options, record.step, record.weights, seen)
            assert all(len(values) == len(experiment.stacks[0]) for values in found[0].values())
            assert not any(np.isinf(values).any() for values in found[0].values() if values.dtype.kind == "f")
        looked_at.append(record)
    np.testing.assert_array_equal(plain[-1].snapshot()[0], looked_at[-1].snapshot()[0])
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()


@pytest.mark.parametrize("name", PROBES)
def test_the_same_look_sees_the_same(run, name):
    options = checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {})
    step = run.snapshots()[2]
    seen = lineage.seen(run) if PROBES[name].back else ()
    first, again = (Copies(run.experiment).look(name, options, step, run.snapshot(step), seen)[0] for _ in range(2))
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])


def test_the_path_lies_in_its_plane(run):
    step = run.snapshots()[-1]
    found = Copies(run.experiment).look("path", {"points": 5}, step, run.snapshot(step), lineage.seen(run))[0]
    assert (found["share"].sum(1) <= 1 + 1e-6).all() and (found["share"][:, 0] >= found["share"][:, 1] - 1e-9).all()
    np.testing.assert_allclose(found["path"][:, -1], 0, atol=1e-6)  # it ends where the plane is centered
    assert (found["share"].sum(1) > 0.5).all()


def test_live_looks_take_their_share_and_are_kept(run):
    settings = Settings(steps=50000)
    chosen = schedule(Experiment(settings=settings))
    assert set(chosen) == {name for name, probe in PROBES.items() if probe.live}
    assert sum(PROBES[name].cost / every for name, every in chosen.items()) <= 0.15 + 1e-9
    small = schedule(Experiment(settings=Settings(steps=50000, batch_size=16)))
    # a step of 16 examples costs an eighth of one of 128, a singular value the same
    assert small["jacobian"] > 6 * chosen["jacobian"]
    narrow, wide = (
        schedule(Experiment(settings=Settings(steps=50000, width=width, batch_size=16, score_every=10)))
        for width in (64, 512)
    )
    assert wide["gradient_line"] > 1.5 * narrow["gradient_line"]  # the weights of 512 units beside 16 examples
    steps, found = run.looks("shift", 1)
    assert steps[0] == 0 and len(steps) >= 2 and found["drift"].shape == (len(steps), 2, 3)
    assert run.look("shift", 0, int(steps[0]))["cosine"].shape == (2, 2)
    assert run.look("shift", 0, 7) is None


def probe_command(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["bnlab", "probe", *map(str, words)])
    code = __main__.main()
    return code, capsys.readouterr()


def test_the_command_takes_options_and_leaves_out_what_does_not_exist(run, monkeypatch, capsys, tmp_path):
    told = (run.store.directory, "--step", 60, "--probe", "undo", "--set", "layer=3", "--out", tmp_path)
    code, out = probe_command(monkeypatch, capsys, *told)
    assert code == 0 and "undo at step 60, layer 3 (training mode, the coming mini-batch)" in out.out
    assert "BN" in out.out and "nan" not in out.out and "no norm" not in out.out
    assert "nan" not in (tmp_path / "undo.csv").read_text().lower()
    code, out = probe_command(monkeypatch, capsys, run.store.directory, "--step", 60, "--probe", "jacobian")
    assert ", layer, layer 2, quantile 0 0.25 0.5 0.75 1: " in out.out and ", layer, layer 3, quantile" in out.out
    assert ", product, layer 1, quantile" in out.out and ", training, layer 1 2: " in out.out
    for words, error in (
        (("--probe", "undo", "--set", "layer=0"), "layer is 0; allowed is 1 to 100."),
        (("--set", "layer=1"), "--set is given without --probe"),
    ):
        code, out = probe_command(monkeypatch, capsys, run.store.directory, "--step", 60, *words)
        assert code == 2 and error in out.err


def test_a_reader_that_has_seen_enough_is_no_error(run):
    whole = [sys.executable, "-m", "bnlab", "probe", str(run.store.directory), "--step", "60", "--probe", "jacobian"]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1]) as one:
        one.stdout.close()
        assert one.wait(60) == 0
        assert b"BrokenPipe" not in one.stderr.read()
