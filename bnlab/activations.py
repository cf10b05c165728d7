"""The activations h: one entry each, with the derivative written beside it.

`forward(u, out)` writes h(u) into out. `backward(g, u, z, out)` writes g * h'(u) into out, where z = h(u); out may
be g. `plain(u)` is h(u) for autograd to follow, once or twice. All act elementwise on tensors of one shape. `formula`
says h(u) to the visitor. `flat` is the part of the axis, (below, above), where the activation passes less than a
twentieth of its steepest slope and goes on doing so: a value beyond is called saturated. GELU near -0.75 and SiLU near
-1.28 turn around; their slope is small there too, on a short stretch (0.27 and 0.54 wide), which is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from .registry import LazyModule, Registry

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")
functional = LazyModule("torch", "nn.functional")
# torch's own derivative kernels write in place; naming the overload saves 6 us a call
aten = LazyModule("torch", "ops.aten")

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, eq. 2
LEAK = 0.01  # slope of the leaky ReLU below 0


class Activation(NamedTuple):
    label: str
    formula: str
    forward: Callable[[Tensor, Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    flat: tuple[float, float]


ACTIVATIONS: Registry[Activation] = Registry("activation")


def torchs_own(kernel: Callable, *values: Tensor, **out: Tensor) -> Tensor:
    """Without oneDNN, which rounds otherwise and is taken only where tensors have no gaps: alone, not in a stack."""
    before, *_ = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        return kernel(*values, **out)
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)


ACTIVATIONS["linear"] = Activation(
    "Linear",
    "u",
    lambda u, out: out.copy_(u),
    lambda g, u, z, out: out if out is g else out.copy_(g),
    lambda u: u,
    (-inf, inf),
)
ACTIVATIONS["sigmoid"] = Activation(
    "Sigmoid",
    "1/(1 + exp(-u))",
    lambda u, out: torch.sigmoid(u, out=out),
    lambda g, u, z, out: aten.sigmoid_backward.grad_input(g, z, grad_input=out),  # g z (1 - z)
    lambda u: torch.sigmoid(u),
    (-4.3566, 4.3566),
)
ACTIVATIONS["tanh"] = Activation(
    "Tanh",
    "tanh(u)",
    lambda u, out: torch.tanh(u, out=out),
    lambda g, u, z, out: aten.tanh_backward.grad_input(g, z, grad_input=out),  # g (1 - z^2)
    lambda u: torch.tanh(u),
    (-2.1783, 2.1783),
)
ACTIVATIONS["relu"] = Activation(
    "ReLU",
    "max(u, 0)",
    lambda u, out: torch.clamp_min(u, 0, out=out),
    lambda g, u, z, out: aten.threshold_backward.grad_input(g, z, 0, grad_input=out),  # g where z > 0
    lambda u: torch.relu(u),
    (0.0, inf),
)
ACTIVATIONS["leaky_relu"] = Activation(
    "Leaky ReLU",
    "u above 0, 0.01 u below",
    lambda u, out: aten.leaky_relu.out(u, LEAK, out=out),
    lambda g, u, z, out: aten.leaky_relu_backward.grad_input(g, u, LEAK, False, grad_input=out),
    lambda u: functional.leaky_relu(u, LEAK),
    (0.0, inf),
)
ACTIVATIONS["elu"] = Activation(
    "ELU",
    "u above 0, exp(u) - 1 below",
    lambda u, out: aten.elu.out(u, 1.0, 1.0, 1.0, out=out),
    lambda g, u, z, out: aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, z, grad_input=out),  # g (z + 1) below 0
    lambda u: functional.elu(u),
    (-2.9957, inf),
)
ACTIVATIONS["selu"] = Activation(
    "SELU",
    "1.0507 (u above 0, 1.6733 (exp(u) - 1) below)",
    lambda u, out: aten.elu.out(u, SELU_ALPHA, SELU_SCALE, 1.0, out=out),
    lambda g, u, z, out: aten.elu_backward.grad_input(g, SELU_ALPHA, SELU_SCALE, 1.0, True, z, grad_input=out),
    lambda u: functional.selu(u),
    (-2.9957, inf),
)
ACTIVATIONS["gelu"] = Activation(
    "GELU",
    "u Phi(u), Phi the normal distribution function",
    lambda u, out: torchs_own(aten.gelu.out, u, out=out),
    lambda g, u, z, out: torchs_own(aten.gelu_backward.grad_input, g, u, grad_input=out),
    lambda u: functional.gelu(u),
    (-2.2786, inf),
)
ACTIVATIONS["silu"] = Activation(
    "SiLU",
    "u/(1 + exp(-u))",
    lambda u, out: aten.silu.out(u, out=out),
    lambda g, u, z, out: aten.silu_backward.grad_input(g, u, grad_input=out),
    lambda u: functional.silu(u),
    (-3.9299, inf),
)
