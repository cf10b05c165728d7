"""The closed forms agree with plain torch: its activations, random networks, and autograd through them."""

from itertools import pairwise
from math import acos, asin, cos, erf, exp, pi, sin

import numpy as np
import pytest
import torch
from plain_networks import passed
from scipy.integrate import quad
from torch.nn import functional as F

from bnlab.activations import ACTIVATIONS
from bnlab.averages import CURVES, moments, sphere_pairs
from bnlab.inits import INITS, initial_weights
from bnlab.profile import profile
from bnlab.theory import Net as Law
from bnlab.theory import growth, layer, small_batch, weight_scale

KINDS = [("none", "before"), ("batch", "before"), ("batch", "after"), ("layer", "before"), ("layer", "after")]
ORACLE = {"linear": lambda u: u, "sigmoid": torch.sigmoid, "tanh": torch.tanh} | {
    name: getattr(F, name) for name in ("relu", "leaky_relu", "elu", "selu", "gelu", "silu")
}


def gradients(activation, s2, norm, placement, depth=18, width=200, sizes=(1.0,), seed=0):
    """||dE/da||^2, ||dE/dW||^2 and mean square of a in each layer of a plain network with autograd, [3, L]."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731

    def normed(x):
        return F.batch_norm(x, None, None, training=True) if norm == "batch" else F.layer_norm(x, (width,))

    x = draw(200, width)
    x = x * torch.tensor(sizes, dtype=torch.float64).sqrt().repeat(200 // len(sizes))[:, None]
    weights = [draw(width, width) * (s2 / width) ** 0.5 for _ in range(depth)]
    seen, outputs = zip(
        *passed(x, weights, ORACLE[activation], normed if norm != "none" else None, placement), strict=True
    )
    (outputs[-1] * draw(200, width)).sum().backward()
    rows = [[a.grad.square().sum() for a in seen], [w.grad.square().sum() for w in weights]]
    return torch.tensor([*rows, [a.detach().square().mean() for a in seen]]).numpy()


def factor(squared, first=5, last=-4):
    """Factor per layer towards the input, fitted to the layers between first and last."""
    y = np.log(squared)[first:last]
    return exp(-np.polyfit(np.arange(len(y)), y, 1)[0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_has_its_closed_form(activation):
    u = torch.linspace(-30, 30, 2001, dtype=torch.float64).requires_grad_()
    z = ORACLE[activation](u)
    (slope,) = torch.autograd.grad(z.sum(), u)
    h, h_slope = CURVES[activation]
    x = u.detach()
    kink = x.numpy() == 0
    assert np.allclose(h(x.numpy()), z.detach(), atol=1e-12)
    assert np.allclose(h_slope(x.numpy())[~kink], slope[~kink], atol=1e-12)
    assert np.allclose(h(x.numpy()), ACTIVATIONS[activation].forward(x, torch.empty_like(x)), atol=1e-12)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("fans", [(150, 150), (100, 200), (200, 100)])
def test_every_init_has_its_scale(init, fans):
    w = initial_weights(init, 1.7, 0, 1, *fans)
    assert fans[0] * np.mean(w**2) == pytest.approx(weight_scale(init, 1.7, *fans), rel=0.03)


@pytest.mark.parametrize("activation", CURVES)
@pytest.mark.parametrize("q", [1e-8, 0.3, 2.0, 1e6])
def test_gaussian_integrals(activation, q):
    h, slope = CURVES[activation]

    def integral(f):
        def integrand(z):
            return float(f(np.array([q**0.5 * z]))[0]) * exp(-(z**2) / 2) / (2 * pi) ** 0.5

        edges = [-12.0, *(-(10.0**k) for k in range(0, -5, -1)), 0.0, *(10.0**k for k in range(-4, 1)), 12.0]
        return sum(quad(integrand, a, b, epsabs=0, epsrel=1e-9)[0] for a, b in pairwise(edges))

    m = moments(activation, q)
    assert m.square == pytest.approx(integral(lambda u: h(u) ** 2), rel=1e-7)
    assert m.slope_square == pytest.approx(integral(lambda u: slope(u) ** 2), rel=1e-7)
    assert m.mean == pytest.approx(integral(h), rel=1e-7, abs=1e-9 * m.square**0.5)


@pytest.mark.parametrize("shift", [-1.3, 0.4])
def test_gaussian_integrals_of_shifted_numbers(shift):
    q = 0.3
    linear, relu = (moments(activation, q, shift) for activation in ("linear", "relu"))
    assert [linear.mean, linear.square] == pytest.approx([shift, q + shift**2], rel=1e-9)
    density = exp(-(shift**2) / (2 * q)) / (2 * pi * q) ** 0.5
    above = (1 + erf(shift / (2 * q) ** 0.5)) / 2
    assert relu.mean == pytest.approx(shift * above + q * density, abs=1e-3)
    assert relu.slope_square == pytest.approx(above, abs=5e-3)


@pytest.mark.parametrize(
    ("asked", "squared"),
    [
        (("relu", "he"), 1),
        (("relu", "xavier"), 1 / 2),
        (("linear", "orthogonal", 0.9), 0.81),
        (("tanh", "lecun", 0.5), 0.25),  # sinks to 0, where tanh is linear
        (("relu", "he", 1.0, "batch"), pi / (pi - 1)),
        (("relu", "xavier", 3.0, "batch"), pi / (pi - 1)),
        (("relu", "he", 1.0, "batch", "after"), pi / (pi - 1)),
        (("relu", "he", 1.0, "layer"), 1),
        (
            ("relu", "he", 1.0, "layer", "after"),
            pi / (pi - 1),
        ),  # it takes out the mean too
        (("linear", "he", 1.0, "batch", "before", 10), 8 / 7),
    ],
)
def test_published_values(asked, squared):
    assert growth(*asked, delta=1e-12).signal_squared == pytest.approx(squared, rel=1e-6)


def test_norm_and_squared_norm_are_told_apart_and_the_lost_depth_follows():
    told = growth("relu", "xavier")
    assert told.signal_norm**2 == pytest.approx(told.signal_squared)
    assert told.signal_norm**told.lost_at_depth == pytest.approx(1e-6)
    assert told.weight_norm == pytest.approx(1), "a flat profile of weight gradients while the signal vanishes"
    assert told.forward_variance == 0
    assert told.note == "Pre-activations sink to 0 with depth."
    assert growth("relu", "he").lost_at_depth == float("inf")
    assert growth("linear", "he").forward_variance == float("inf")


@pytest.mark.parametrize(("norm", "placement"), KINDS)
@pytest.mark.parametrize("activation", CURVES)
def test_random_networks_grow_as_predicted(activation, norm, placement):
    measured = np.mean([gradients(activation, 1.0, norm, placement, seed=seed) for seed in range(2)], 0)
    told = profile(activation, "xavier", 1.0, norm, placement, 200, depth=18, width=200, n_in=200)
    limit = growth(activation, "xavier", 1.0, norm, placement, 200)
    loose = 0.12 if limit.parting > 1.001 else 0.04
    assert factor(measured[0]) == pytest.approx(factor(told.signal_norm**2), rel=loose)
    assert factor(measured[1]) == pytest.approx(factor(told.weight_norm**2), rel=1.5 * loose)
    if limit.forward_variance > 0:  # else the limit is far
        assert factor(measured[0]) == pytest.approx(limit.signal_squared, rel=loose)
        assert measured[2][8:].mean() == pytest.approx(limit.forward_variance, rel=2 * loose)


@pytest.mark.parametrize(
    ("activation", "placement"), [*((one, "before") for one in CURVES), ("tanh", "after"), ("gelu", "after")]
)
def test_examples_of_unlike_size_part_as_predicted(activation, placement):
    g = torch.Generator().manual_seed(0)
    size = torch.tensor([0.9, 1.1], dtype=torch.float64).repeat(1000)[:, None]
    a = torch.randn(2000, 2000, generator=g, dtype=torch.float64) * (4.5 * size).sqrt()
    z = ORACLE[activation](F.batch_norm(a, None, None, training=True) if placement == "before" else a)
    z = F.batch_norm(z, None, None, training=True)
    small, large = z.square().mean(1).view(-1, 2).mean(0).tolist()
    told = growth(activation, "he", 1.5, "batch", placement, delta=1e-9)
    assert (large - small) / 0.2 == pytest.approx(told.parting, abs=0.02)
    assert ("part by" in told.note) == (placement == "before" and activation in ("gelu", "silu"))


@pytest.mark.parametrize(
    ("activation", "init", "s2"), [("selu", "he", 2.0), ("tanh", "he", 2.0), ("tanh", "xavier", 1.0)]
)
def test_a_profile_follows_a_network_on_its_way_to_the_limit(activation, init, s2):
    measured = np.mean([gradients(activation, s2, "none", "before", seed=seed) for seed in range(3)], 0)
    told = profile(activation, init, depth=18, width=200, n_in=200)
    assert told.signal_norm == pytest.approx((measured[0] / measured[0][-1]) ** 0.5, rel=0.1)
    assert told.forward_variance == pytest.approx(measured[2], rel=0.2)


@pytest.mark.parametrize(("norm", "placement"), [("none", "before"), ("layer", "before"), ("layer", "after")])
def test_a_profile_follows_examples_of_unlike_size(norm, placement):
    sizes = (0.2, 0.3, 4.0, 9.0)
    measured = np.mean([gradients("gelu", 2.0, norm, placement, sizes=sizes, seed=seed) for seed in range(4)], 0)
    told = profile("gelu", "he", 1.0, norm, placement, depth=18, width=200, n_in=200, sizes=sizes)
    assert told.signal_norm[:12] == pytest.approx((measured[0] / measured[0][-1])[:12] ** 0.5, rel=0.2)
    assert told.forward_variance[:12] == pytest.approx(measured[2][:12], rel=0.25)


@pytest.mark.parametrize("K", [6, 8, 32])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "gelu"])
def test_small_batches_grow_as_autograd_says(activation, K):
    g = torch.Generator().manual_seed(0)
    a, signal = (torch.randn(K, 1_000_000 // K, generator=g, dtype=torch.float64) for _ in range(2))
    z = ORACLE[activation](F.batch_norm(a.requires_grad_(), None, None, training=True, eps=1e-12))
    signal -= signal.mean(0)  # the error from below a batch norm sums to 0
    z.backward(signal)
    v = z.detach().var(0, correction=1).mean()  # of the next a, at s2 = 1; a itself has variance 1
    measured = float(a.grad.square().sum() / signal.square().sum() / v)
    told = growth(activation, "xavier", 1.0, "batch", "before", K, delta=1e-12).signal_squared
    assert told == pytest.approx(measured, rel=0.015)


def test_units_with_means_of_their_own_are_normalized_by_what_their_examples_do_not_share():
    """What two examples of a unit share behind ReLU is the arc-cosine kernel (Cho and Saul 2009)."""
    own, shared = 0.8, 3.0
    angle = acos(shared / (own + shared))
    kernel = (own + shared) * (sin(angle) + (pi - angle) * cos(angle)) / (2 * pi)
    at = layer(Law("relu", "batch", "after", 1.0, 1e-12), np.array([own]), shared)
    assert at.growth[0] == pytest.approx(1 / 2 / ((own + shared) / 2 - kernel), rel=0.01)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_noise_widens_what_linear_networks_pass_on_by_its_mean_squares_and_leaves_the_signal(placement):
    """A scale that is uniform between 1 and 1.6 has a mean square of 1.72, a shift between ±0.9 one of 0.27."""
    told = growth("linear", "lecun", 1.5, "batch", placement, delta=1e-12, noise=(0.9, 0.6))
    assert told.forward_variance == pytest.approx(1.5**2 * (1.72 + 0.27), rel=1e-9)
    assert told.signal_squared == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("K", [6, 1000])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_noisy_batch_norm_grows_as_autograd_says(activation, K):
    g = torch.Generator().manual_seed(0)
    a, signal = (torch.randn(K, 1_000_000 // K, generator=g, dtype=torch.float64) for _ in range(2))
    scale, shift = torch.rand(2, 1_000_000 // K, generator=g, dtype=torch.float64)
    y = F.batch_norm(a.requires_grad_(), None, None, training=True, eps=1e-12)
    z = ORACLE[activation](y * (1 + 0.6 * scale) + 0.9 * (2 * shift - 1))
    signal -= signal.mean(0)
    z.backward(signal)
    v = z.detach().var(0, correction=1).mean()
    told = growth(activation, "lecun", 1.0, "batch", "before", K, 1e-12, (0.9, 0.6))
    assert told.signal_squared == pytest.approx(float(a.grad.square().sum() / signal.square().sum() / v), rel=0.02)
    assert told.forward_variance == pytest.approx(float(z.detach().square().mean()), rel=0.02)


@pytest.mark.parametrize("K", [2, 3, 4, 8, 64])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "gelu", "sigmoid"])
def test_small_batches_pass_on_the_variance_that_torch_does(activation, K):
    g = torch.Generator().manual_seed(1)
    a = torch.randn(K, 2_000_000 // K, generator=g, dtype=torch.float64)
    z = ORACLE[activation](F.batch_norm(a, None, None, training=True, eps=1e-12))
    told = growth(activation, "he", 1.0, "batch", "before", K, delta=1e-12).forward_variance
    assert told == pytest.approx(2 * float(z.square().mean()), rel=0.005)
    expected = profile(activation, "he", 1.0, "batch", "before", K, 1e-12, depth=3, width=100, n_in=100)
    assert expected.forward_variance[1:] == pytest.approx([told] * 2, rel=1e-6)
    few, many = small_batch(activation, K), small_batch(activation, 10**6)
    within = float(z.var(0, correction=0).mean())  # over the examples of each mini-batch
    _, _, centered = gaussian(activation)
    assert few.variance / many.variance == pytest.approx(within / centered, rel=0.01)


def gaussian(activation):
    """Mean, mean square and variance of an activation of a standard normal number, by plain sums."""
    u = torch.linspace(-12, 12, 2_000_001, dtype=torch.float64)
    p = torch.exp(-(u**2) / 2) / (2 * pi) ** 0.5 * (u[1] - u[0])
    z = ORACLE[activation](u)
    mean, square = float((z * p).sum()), float((z**2 * p).sum())
    return mean, square, square - mean**2


def test_small_batch_correction_fades_and_is_not_defined_below_four():
    assert small_batch("relu", 100_000)[:3] == pytest.approx([1, 1, 1], abs=1e-4)
    assert small_batch("relu", 3).growth == float("inf")
    assert growth("relu", "he", 1.0, "batch", "before", 2).signal_squared == float("inf")


@pytest.mark.parametrize("K", [2, 3, 4, 7, 50, 10**5])
def test_pairs_on_the_sphere_have_its_moments_and_its_share_of_each_quadrant(K):
    """Sheppard 1899: both numbers are positive with probability 1/4 + arcsin(correlation)/2π, as kinks at 0 need it."""
    y_i, y_j, weight = sphere_pairs(K)
    correlation = -1 / (K - 1)
    assert weight @ np.stack([y_i**2, y_j**2, y_i * y_j]).T == pytest.approx([1, 1, correlation], rel=1e-9)
    assert weight @ np.stack([y_i**4, y_j**4]).T == pytest.approx([3 * (K - 1) / (K + 1)] * 2, rel=1e-9)
    both = 1 / 4 + asin(correlation) / (2 * pi)
    signs = np.stack([(s * y_i > 0) & (t * y_j > 0) for s in (1, -1) for t in (1, -1)])
    assert weight @ signs.T == pytest.approx([both, 1 / 2 - both, 1 / 2 - both, both], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("norm", "placement"), KINDS)
@pytest.mark.parametrize("activation", CURVES)
def test_the_resting_point_is_where_plain_iteration_ends(activation, norm, placement):
    law = Law(activation, norm, placement, weight_scale("he", 1.2, 1, 1), 1e-3)
    variance = law.s2
    for _ in range(300):
        at = layer(law, variance)
        variance = at.variance
    told = growth(activation, "he", 1.2, norm, placement, delta=1e-3)
    assert at.growth == pytest.approx(told.signal_squared, rel=1e-3)


@pytest.mark.parametrize(("norm", "placement"), KINDS)
@pytest.mark.parametrize("activation", CURVES)
@pytest.mark.parametrize("gain", [1e-200, 1e-3, 100])
def test_no_setting_breaks_the_prediction(activation, norm, placement, gain):
    told = profile(activation, "he", gain, norm, placement, 2, depth=100, width=1, n_in=30)
    assert not any(np.isnan(array).any() for array in told)
    assert told.signal_norm[-1] == told.weight_norm[-1] == 1
    assert not np.isnan(growth(activation, "he", gain, norm, placement, 2)[:6]).any()
    assert profile(activation, "he", gain, norm, placement, depth=1, width=1, n_in=30).signal_norm.tolist() == [1]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("relu", "he", 1.0, "frozen"), ""),
        (("linear", "lecun", 1.0, "frozen"), ""),
        (("relu", "he", 0.99, "frozen"), "sink to 0"),
        (("relu", "he", 1.01), "grow without bound"),
        (("relu", "he", 1.0003), ""),
        (("tanh", "lecun", 1.0), "sink to 0"),  # slower and slower, but from any start
    ],
)
def test_what_a_factor_of_1_does_is_not_called_sinking(asked, words):
    """Frozen, δ makes the factor 1 - 1e-5, of which the note said both "never lost" and "sink to 0 with depth"."""
    told = growth(*asked)
    assert words in told.note and ("with depth" in told.note) == bool(words)
    assert (told.forward_variance in (0.0, np.inf)) == bool(words)
