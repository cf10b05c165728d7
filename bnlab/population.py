"""Population statistics in a bounded memory, and the practitioner's shortcut beside them.

The exact ones: layer l's mean and biased variance over the whole training set, the layers below normalized by *their*
population statistics. In one pass where all examples fit at once (mlp.Networks.forward); else, as here, a piece of the
training set at a time, layer by layer. The practitioner's version lets each mini-batch use its own statistics
everywhere and pools what it sees (Wu and Johnson 2021, "PreciseBN"): cheaper, and off by what a mini-batch adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .mlp import Networks, Statistics
from .registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")

FITS = 2**25  # values, in float64, of one layer that are held at once; more are streamed


def pooled(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all examples from (number, mean, biased variance) of parts of them, [S, 1, d] each.

    Pairwise, in float64, without subtracting large squares (Chan, Golub and LeVeque 1979).
    """
    parts = [
        (n, mean.double(), n * var.double()) for n, mean, var in parts
    ]  # the third: sums of squares about the mean
    while len(parts) > 1:
        merged = []
        for (n, mean, square), (m, other, more) in zip(parts[::2], parts[1::2], strict=False):
            apart = other - mean
            merged.append((n + m, mean + apart * (m / (n + m)), square + more + apart**2 * (n * m / (n + m))))
        parts = merged + parts[2 * len(merged) :]
    ((n, mean, square),) = parts
    return mean, square / n


def streamed(networks: Networks, x: Tensor, chunk: int) -> Statistics:
    """Population statistics of every layer, [S, 1, d] each, from `chunk` examples of x [S, N, n_in] at a time.

    The same as in one pass, but for rounding; the layers below are computed again for each layer. All is in float64.
    """
    found = Statistics([], [])
    for layer in range(len(networks.weight)):
        below = networks.cut(layer + 1)
        parts = []
        for part in x.split(chunk, 1):
            _, used = below.forward(part, found)
            parts.append((part.shape[1], used.mean[layer], used.var[layer]))
        mean, var = pooled(parts)
        found.mean.append(mean)
        found.var.append(var)
    return found


def population(networks: Networks, x: Tensor) -> tuple[Tensor, Statistics]:
    """Outputs [S, N, n_out] for all training examples x [S, N, n_in], in x's dtype, and the population statistics of
    every layer, [S, 1, d] each, in float64: float32 would lose digits from layer to layer."""
    exact, dtype = networks.double(), x.dtype
    examples = FITS // (len(x) * networks.readout.shape[1])  # as many as may be held at once
    x = x.double()
    if x.shape[1] <= examples:
        outputs, found = exact.forward(x)
    else:
        chunk = max(1, examples)
        found = streamed(exact, x, chunk)
        outputs = torch.cat([exact.forward(part, found)[0] for part in x.split(chunk, 1)], 1)
    return outputs.to(dtype), found


def of_mini_batches(networks: Networks, x: Tensor, count: int) -> Statistics:
    """The practitioner's: pooled over `count` near-equal mini-batches, each normalized below by its own statistics, of
    x [S, N, n_in]. Float64."""
    parts = [(part.shape[1], networks.forward(part)[1]) for part in x.tensor_split(count, 1)]
    layers = range(len(networks.weight))
    pairs = [pooled([(n, used.mean[l], used.var[l]) for n, used in parts]) for l in layers]
    return Statistics([mean for mean, _ in pairs], [var for _, var in pairs])
