"""Jacobians: what a layer does to a small change, and what all layers above do to it together.

J_l = d out_l / d out_{l-1}, the outputs of neighboring layers. **Inference mode**: batch norm is an affine map of
each unit, so an example has a Jacobian of its own, computed exactly, J_l = (what follows a) W_l^T, with all its
singular values; the product P_l = J_L ... J_{l+1} leads from layer l to the top. Batch norm has the population
statistics of these weights: moving averages begin at 0 and 1, with which it would be no norm at all. Only where they
are frozen it has them, as in training. **Training mode**: batch norm couples the examples; the Jacobian of the whole
mini-batch, [K d, K d], is looked at by products v^T P_l with random v, which give the root mean square of its singular
values.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from ..activations import ACTIVATIONS
from ..mlp import Networks, Statistics
from ..norms import statistics
from ..population import population
from ..registry import LazyModule
from .weights import spectrum

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group

torch = LazyModule("torch")

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
EXAMPLES, VECTORS = 4, 16
WIDEST = 256  # units; the singular values of wider layers would take seconds
WORK = EXAMPLES * 20 * 64**3  # above which fewer examples are taken, but at least 2
SINGULAR = 1e-12  # of the greatest singular value, below which rounding is all that is left of one


def look(group: Group) -> Generator[None, None, dict[str, np.ndarray]]:
    """Over some examples() in inference mode, of J_2..J_L (`layer`) and of the products from layers 1..L-1 to the top
    (`product`), [S, L - 1] each:

    `*_rms`         root mean square of the singular values
    `*_lost`        share of lost directions: singular values below SINGULAR of the example's greatest, of which
                    rounding is all that is left
    `*_condition`   condition number, greatest over least singular value of the directions that are not lost; median
                    over the examples
    `layer`, `product`   quantiles 0, 25, 50, 75, 100 % of the singular values that are not lost, [S, L - 1, 5]

    `training`, `training_error` [S, L - 1]: root mean square of the singular values of the same products over the
    mini-batch in training mode, and its standard error. Of layers wider than WIDEST only these two, the others are
    NaN, as is what no direction is left for. Networks of one layer have none."""
    stack = group.stack
    x, _ = group.mini_batch(stack.t)
    shape = stack.S, stack.L - 1
    found = {name: np.full((*shape, len(QUANTILES)), np.nan) for name in ("layer", "product")}
    found |= {f"{name}_{what}": np.full(shape, np.nan) for what in ("rms", "lost", "condition") for name in found}
    if stack.L < 2:
        return found | {name: np.empty(shape) for name in ("training", "training_error")}
    for slot, networks, b in group.one_by_one if stack.d <= WIDEST else ():
        given = None if b is None else norms(group, networks, b)
        some = x[slot : slot + 1, : examples(stack.d, stack.L)]
        each = per_example(networks, some, given)  # L - 1 of [1, E, d, d], in float64
        product = None
        for l in reversed(range(stack.L - 1)):
            product = each[l] if product is None else product @ each[l]
            for name, matrices in (("layer", each[l]), ("product", product)):
                values = spectrum(torch.linalg.svdvals, matrices)[0]  # [E, d], the greatest first
                for what, value in summarized(values).items():
                    found[f"{name}{what}"][slot, l] = value.numpy()
            yield
    return found | (yield from in_training(group, x))


def summarized(values: Tensor) -> dict[str, Tensor]:
    """What `look` tells of the singular values [E, d] of E examples, each in descending order."""
    if not values.isfinite().all():
        return {}
    kept = (values >= SINGULAR * values[:, :1]) & (values[:, :1] > 0)
    found = {"_rms": values.square().mean().sqrt(), "_lost": 1 - kept.double().mean()}
    if kept.any():
        least = torch.where(kept, values, torch.inf).amin(1)
        found["_condition"] = (values[:, 0] / least)[kept.any(1)].quantile(0.5)
        found[""] = torch.quantile(values[kept], torch.tensor(QUANTILES, dtype=values.dtype))
    return found


def examples(width: int, depth: int) -> int:
    """How many examples of the mini-batch are looked at one by one."""
    return int(np.clip(WORK // (depth * width**3), 2, EXAMPLES))


def norms(group: Group, networks: Networks, b: int) -> Statistics:
    """What a network's batch norms normalize single examples with: the population's statistics, or frozen averages."""
    if group.stack.frozen:
        return Statistics(*(q[:, b : b + 1].unbind(0) for q in group.stack.moving_averages))
    return population(networks, group.splits["train"][0][None])[1]


def per_example(networks: Networks, x: Tensor, given: Statistics | None) -> list[Tensor]:
    """J_2..J_L of every example, [S, E, d_out, d_in] each, with the given statistics in batch norm. Float64."""
    found = []
    for layer, (weight, bias) in enumerate(zip(networks.weight, networks.bias, strict=True)):
        w = weight.double()
        a = torch.baddbmm(bias.double(), x.double(), w)
        before = networks.norm != "none" and networks.placement == "before"
        after = networks.norm != "none" and networks.placement == "after"
        jacobian = w.mT.unsqueeze(1).expand(-1, a.shape[1], -1, -1)  # [S, E, d, d_in]
        if before:
            a, jacobian = through_norm(networks, layer, a, jacobian, given)
        z, slope = activated(networks.activation, a)
        jacobian = slope.unsqueeze(3) * jacobian
        if after:
            z, jacobian = through_norm(networks, layer, z, jacobian, given)
        if layer:
            found.append(jacobian)
        x = z
    return found


def activated(activation: str, a: Tensor) -> tuple[Tensor, Tensor]:
    """h(a) and h'(a)."""
    act = ACTIVATIONS[activation]
    a = a.contiguous()
    z = act.forward(a, torch.empty_like(a)).clone()
    return z, act.backward(torch.ones_like(a), a, z, torch.empty_like(a)).clone()


def through_norm(networks: Networks, layer: int, x: Tensor, jacobian: Tensor, given: Statistics | None):
    """What the norm makes of x [S, E, d] and of the Jacobian that leads to it."""
    gamma, beta, delta = (q.double() for q in (networks.gamma[layer], networks.beta[layer], networks.delta))
    if networks.norm == "batch":
        mean, var = given.mean[layer].double(), given.var[layer].double()
        scale = gamma / (var + delta).sqrt()
        return (x - mean) * scale + beta, scale.unsqueeze(3) * jacobian
    mean, var = statistics(x, 2)  # layer norm couples the units of one example
    inverse = (var + delta).rsqrt()
    x_hat = (x - mean) * inverse
    centered = jacobian - jacobian.mean(2, keepdim=True)
    along = (x_hat.unsqueeze(3) * jacobian).mean(2, keepdim=True)
    jacobian = (centered - x_hat.unsqueeze(3) * along) * inverse.unsqueeze(3)
    return gamma * x_hat + beta, gamma.unsqueeze(3) * jacobian


def in_training(group: Group, x: Tensor) -> Generator[None, None, dict[str, np.ndarray]]:
    """Of the products from layers 1..L-1 to the top over the whole mini-batch, [S, L - 1]: `training`, the root mean
    square singular value, and `training_error`, its standard error over the VECTORS random vectors."""
    stack = group.stack
    stack.forward(x)
    found = torch.zeros(VECTORS, stack.S, stack.L - 1, dtype=torch.float64)
    for which, squares in enumerate(found):
        yield
        for slot, network in enumerate(stack.networks):
            v = np.random.default_rng([network.seed, 5, which]).standard_normal((stack.K, stack.d))
            stack.g_out[slot].copy_(torch.from_numpy(v))
        length = stack.g_out.double().square().sum((1, 2))
        stack.descend()
        for l in range(stack.L - 1):
            below = torch.bmm(stack.da[l + 1], stack.layers[l + 1].weight_t)
            squares[:, l] = below.double().square().sum((1, 2)) / length
    rms, spread = found.mean(0).sqrt(), found.std(0) / VECTORS**0.5
    return {"training": rms.numpy(), "training_error": (spread / (2 * rms).clamp_min(1e-300)).numpy()}
