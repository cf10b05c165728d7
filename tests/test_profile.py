"""The law layer by layer is what torch's networks of any inputs show, also the narrow ends and few examples."""

from math import inf, log, sqrt

import numpy as np
import pytest
import torch
from plain_networks import passed
from torch.nn import functional as F

from bnlab.profile import profile

ACTIVATION = {"linear": lambda u: u, "relu": torch.relu, "tanh": torch.tanh}


def measured(x, activation, norm, placement, depth, width, gain=1.0, batch=None, seeds=6):
    """Of networks that read x, by autograd: squared norms of dE/da and dE/dW, mean square of a, mean square singular
    value of all Jacobians above a layer, and that of dE/dW were the examples at right angles: [5, L], means over seeds.

    gain: of weights whose variance is gain^2 / fan_in; batch: examples of a mini-batch, each normalized by itself."""
    told = []
    for seed in range(seeds):
        g = torch.Generator().manual_seed(seed)
        draw = lambda *shape, g=g: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731

        def normed(z):
            if norm == "layer":
                return F.layer_norm(z, (width,))
            parts = z.split(batch or len(z))
            return torch.cat([F.batch_norm(part, None, None, training=True) for part in parts])

        fans = (x.shape[1], *[width] * (depth - 1))
        weights = [gain * draw(fan, width) / sqrt(fan) for fan in fans]
        layers = passed(x, weights, ACTIVATION[activation], normed if norm != "none" else None, placement)
        seen, outputs = zip(*layers, strict=True)
        read = x, *(z.detach() for z in outputs[:-1])
        v = draw(len(x), width)
        (outputs[-1] * v).sum().backward()
        squares = [[a.grad.square().sum() for a in seen], [w.grad.square().sum() for w in weights]]
        squares += [[a.detach().square().mean() for a in seen]]
        squares += [[z.grad.square().sum() / v.square().sum() for z in outputs]]
        squares += [[(a.grad.square().sum(1) @ z.square().sum(1)) for a, z in zip(seen, read, strict=True)]]
        told.append(torch.tensor(squares).numpy())
    return np.mean(told, 0)


def inputs(n, n_in, sizes=(1.0,), common=0.0):
    """Examples [n, n_in] whose mean squares are `sizes` in turn, `common` of it a mean that all share."""
    g = torch.Generator().manual_seed(9)
    own = torch.randn(n, n_in, generator=g, dtype=torch.float64)
    own -= own.mean(0)
    shared = torch.randn(1, n_in, generator=g, dtype=torch.float64)
    shared *= sqrt(common) / shared.square().mean().sqrt()
    scale = (torch.tensor(sizes, dtype=torch.float64) - common).sqrt().repeat(n // len(sizes))[:, None]
    return shared + scale * own / own.square().mean(1, keepdim=True).sqrt()


KINDS = [("none", "before"), ("batch", "before"), ("batch", "after"), ("layer", "before"), ("layer", "after")]


@pytest.mark.parametrize(("norm", "placement"), KINDS)
def test_every_curve_is_that_of_networks_whose_first_layer_reads_more_than_it_is_wide(norm, placement):
    """What layer 1 reads is larger by its number and by its size, and its weight gradient with it."""
    found = measured(2 * inputs(100, 900), "tanh", norm, placement, 4, 200, gain=sqrt(2))
    told = profile("tanh", "he", 1.0, norm, placement, depth=4, width=200, n_in=900, sizes=[4.0])
    np.testing.assert_allclose(told.signal_norm, np.sqrt(found[0] / found[0][-1]), rtol=0.06)
    np.testing.assert_allclose(told.weight_norm, np.sqrt(found[1] / found[1][-1]), rtol=0.1)
    np.testing.assert_allclose(told.forward_variance, found[2], rtol=0.06)
    np.testing.assert_allclose(told.product_norm, np.sqrt(found[3][:-1]), rtol=0.06)


def test_the_first_layers_weights_are_drawn_for_its_own_fans():
    """Xavier's variance is 2/(fan_in + fan_out): s2 = 2 · 900/1100 there, and 1 above."""
    told = profile("linear", "xavier", depth=3, width=200, n_in=900)
    np.testing.assert_allclose(told.forward_variance, 1800 / 1100, rtol=1e-12)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_examples_of_unlike_size_weigh_in_the_weight_gradient_by_what_they_pull(norm):
    """tanh lets through less of the signal of the large ones, so their large inputs count less."""
    sizes = (0.1, 0.1, 0.1, 30.0)
    found = measured(inputs(200, 400, sizes), "tanh", norm, "before", 3, 400, gain=sqrt(2))
    told = profile("tanh", "he", 1.0, norm, "before", depth=3, width=400, n_in=400, sizes=sizes)
    np.testing.assert_allclose(told.signal_norm, np.sqrt(found[0] / found[0][-1]), rtol=0.08)
    np.testing.assert_allclose(told.weight_norm, np.sqrt(found[1] / found[1][-1]), rtol=0.1)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_a_mean_that_all_examples_share_is_part_of_what_is_read_and_moves_no_weight_below_a_norm(placement):
    """Below a norm the errors of the examples sum to 0. After it the law of weights is for examples at right angles."""
    found = measured(inputs(200, 900, [4.0], 3.0), "tanh", "batch", placement, 3, 300)
    told = profile("tanh", "lecun", 1.0, "batch", placement, depth=3, width=300, n_in=900, sizes=[4.0], common=3.0)
    assert told.forward_variance[0] == pytest.approx(4)
    np.testing.assert_allclose(told.signal_norm, np.sqrt(found[0] / found[0][-1]), rtol=0.1)
    weight = found[1] if placement == "before" else found[4]
    np.testing.assert_allclose(told.weight_norm, np.sqrt(weight / weight[-1]), rtol=0.1)


def test_batch_norm_mixes_examples_of_unlike_size_so_their_mean_stands_for_all():
    told, mean = (
        profile("gelu", "he", 1.0, "batch", depth=4, width=64, n_in=64, sizes=sizes) for sizes in ((1, 7), (4,))
    )
    for one, other in zip(told, mean, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_every_curve_of_few_examples_has_their_factor_once_a_layer(activation):
    x = inputs(8 * 20, 200)
    found = measured(x, activation, "batch", "before", 5, 200, gain=sqrt(2), batch=8)
    told = profile(activation, "he", 1.0, "batch", "before", 8, depth=5, width=200, n_in=200)
    signal, weight = (np.sqrt(q / q[-1])[1:] for q in found[:2])  # what layer 1 reads is no unit's of a few examples
    np.testing.assert_allclose(told.signal_norm[1:], signal, rtol=0.04)
    np.testing.assert_allclose(told.weight_norm[1:], weight, rtol=0.04)
    np.testing.assert_allclose(told.forward_variance, found[2], rtol=0.04)
    np.testing.assert_allclose(told.product_norm, np.sqrt(found[3][:-1]), rtol=0.03)


@pytest.mark.parametrize("K", [4, 8])
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_the_first_layers_weights_do_not_see_the_mean_of_the_few_examples_either(activation, K):
    """Of independent examples it takes 1/K of the variance; the law left it in, and was too high by √(K/(K-1))."""
    found = measured(inputs(K * 40, 400), activation, "batch", "before", 3, 400, gain=sqrt(2), batch=K, seeds=3)
    told = profile(activation, "he", 1.0, "batch", "before", K, depth=3, width=400, n_in=400)
    read, seen = told.weight_norm / told.signal_norm, np.sqrt(found[1] / found[0])
    np.testing.assert_allclose(read / read[-1], seen / seen[-1], rtol=0.02)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_every_curve_of_linear_networks_is_a_power_of_the_gain(placement):
    told = profile("linear", "lecun", 1.5, "none", placement, depth=4, width=7, n_in=28, sizes=[3.0])
    below = np.arange(4.0)
    np.testing.assert_allclose(told.signal_norm, 1.5 ** (3 - below), rtol=1e-9)
    np.testing.assert_allclose(told.weight_norm, 1.5**3 / 1.5**below * 1.5 ** (below - 3) * [2, 1, 1, 1], rtol=1e-9)
    np.testing.assert_allclose(told.forward_variance, 3 * 1.5 ** (2 * below + 2), rtol=1e-9)
    np.testing.assert_allclose(told.product_norm, 1.5 ** (3 - below[:3]), rtol=1e-9)


def test_batch_norm_divides_a_linear_networks_signal_by_the_spread_of_what_enters():
    told = profile("linear", "lecun", 1.5, "batch", delta=1e-12, depth=3, width=7, n_in=7, sizes=[4.0])
    np.testing.assert_allclose(told.signal_norm, [1 / 2, 1, 1], rtol=1e-9)
    np.testing.assert_allclose(told.weight_norm, [1, 1, 1], rtol=1e-9)
    np.testing.assert_allclose(told.forward_variance, [9, 2.25, 2.25], rtol=1e-9)


@pytest.mark.parametrize("gain", [1e-7, 0.5, 0.9994])
@pytest.mark.parametrize("depth", [1, 20])
def test_a_signal_that_every_layer_takes_alike_is_lost_after_as_many_layers_as_the_logarithm_says(gain, depth):
    told = profile("linear", "lecun", gain, depth=depth, width=50, n_in=50).lost_at_depth
    assert told == pytest.approx(log(1e-6) / log(gain), rel=1e-6)


def test_a_signal_that_is_lost_in_the_first_layer_is_lost_also_where_the_others_keep_it():
    large = {"width": 50, "n_in": 50, "sizes": [1e14]}  # the first norm divides it by 1e7
    assert profile("linear", "lecun", 1.0, "batch", depth=2, **large).lost_at_depth == pytest.approx(6 / 7)
    assert profile("linear", "lecun", 0.9996, depth=2, width=50, n_in=50).lost_at_depth == inf


@pytest.mark.parametrize(
    "asked",
    [
        ("relu", "xavier"),
        ("tanh", "he", 0.5),
        ("linear", "lecun", 0.9),
        ("relu", "he", 0.2),
        ("linear", "lecun", 0.5, "batch", "before", 8, 1.0),
        ("gelu", "he"),
    ],
)
@pytest.mark.parametrize("depth", [3, 60])
@pytest.mark.parametrize("sizes", [(1.0,), (0.1, 0.9)])
def test_the_signal_is_lost_between_the_depths_of_networks_that_keep_and_lose_it(asked, depth, sizes):
    inputs = {"width": 50, "n_in": 50, "sizes": sizes}
    lost = profile(*asked, depth=depth, **inputs).lost_at_depth
    kept, gone = (log(profile(*asked, depth=int(lost) + more, **inputs).signal_norm[0]) for more in (1, 2))
    assert kept > log(1e-6) > gone
    assert lost - int(lost) == pytest.approx((log(1e-6) - kept) / (gone - kept), abs=0.01)
