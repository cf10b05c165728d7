"""Batch norm broken on purpose: the mistakes everyone makes, each with the symptom it causes, computed.

All on the test set, at the weights of one step; the networks themselves are never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..mlp import Networks, Statistics
from ..moving import START
from ..registry import LazyModule
from ..sampling import parts_of_at_most
from .inference import whole

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group
    from . import Seen

torch = LazyModule("torch")


class Mistake(NamedTuple):
    """A mistake's name on the page, and what was done."""

    label: str
    told: str


MISTAKES = {
    "right": Mistake("as it should be", "Moving averages, the test set as it is."),
    "train mode": Mistake(
        "train mode, test set sorted", "Mini-batch statistics, the test set in the order of its labels."
    ),
    "polluted": Mistake(
        "averages polluted", "Training mode has blended the sorted test set into the averages; then scored rightly."
    ),
    "never updated": Mistake("never updated", "The moving averages still are 0 and 1."),
    "alpha swapped": Mistake("alpha and momentum swapped", "The old value weighs 1 − α."),
    "unbiased": Mistake(
        "variance unbiased",
        "The averages gather K/(K−1) times the variance that training divides by; the 1 they started at stays.",
    ),
    "shifted": Mistake("test inputs shifted", "Every input moved by one standard deviation; moving averages."),
    "shifted, batch": Mistake(
        "shifted, in train mode", "The same in training mode; the line begins at its score without the shift."
    ),
}
OUTLIER = 100.0  # what the inputs of one other example are multiplied by


def look(group: Group, seen: Seen) -> dict[str, np.ndarray]:
    """`loss` and `accuracy` [S, mistakes]: NaN without batch norm; alpha swapped also where not every step from the
    first is recorded, and unbiased there where mini-batches were of two sizes. `control` [S]: the loss where as many
    training examples have been blended in as `polluted` has of the test set. `unshifted_loss`, `unshifted_accuracy`
    [S]: in training mode, without the shift. `outlier` [S]: how much the probabilities (or outputs) of the other
    examples of a mini-batch change, at most, when one becomes an outlier, in training mode; NaN for K = 1, where there
    are no others."""
    stack, t = group.stack, group.stack.t
    loss, accuracy = np.full((2, stack.S, len(MISTAKES)), np.nan, np.float32)
    control, unshifted_loss, unshifted_accuracy, outlier = np.full((4, stack.S), np.nan, np.float32)
    try:
        whole(seen, t)
        recorded = [seen.batch_mean[:t].astype(float), seen.batch_var[:t].astype(float)]  # [t, L, B, d]
    except ValueError:  # what these two need is not recorded here; the other mistakes need nothing of it
        recorded = []
    for slot, networks, b in group.one_by_one:
        right = None if b is None else list(stack.moving_averages[:, :, b : b + 1])
        if stack.K > 1:
            outlier[slot] = change(networks, group.mini_batch(t)[0][slot : slot + 1], right if stack.frozen else None)
        if b is None:
            continue
        told = dict.fromkeys(MISTAKES, (np.nan, np.nan))
        rows = [q[:, :, b : b + 1, None] for q in recorded]
        swapped = zip(rows, [seen.weights(b, t, True)] * len(rows), START.values(), right, strict=False)
        anew = (
            [averaged(*of) for of in swapped],
            unbiased(right[1], rows[1:], seen.weights(b, t), seen.batch_sizes(b, t)),
        )
        for name, out, labels in outputs(group, networks, slot, right, *anew):
            e, share, _ = stack.criterion(out, labels)
            told[name] = e.item(), np.nan if share is None else share.item()
        loss[slot], accuracy[slot] = zip(*(told[name] for name in MISTAKES), strict=True)
        control[slot], _ = told["control"]
        unshifted_loss[slot], unshifted_accuracy[slot] = told["unshifted"]
    found = {"loss": loss, "accuracy": accuracy, "control": control, "outlier": outlier}
    return found | {"unshifted_loss": unshifted_loss, "unshifted_accuracy": unshifted_accuracy}


def outputs(
    group: Group, networks: Networks, slot: int, right: list[Tensor], swapped: list[Tensor], var: Tensor | None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Outputs [1, n, n_out] and labels [1, n] of one network with each of MISTAKES, of `control` and of `unshifted`.
    `right` and `swapped`, empty where not known, are its averages [L, 1, 1, d]; `var`: unbiased, None where not
    known."""
    K = group.stack.K
    (x, y), (x_train, y_train) = ([q[None] for q in group.splits[name]] for name in ("test", "train"))
    in_order, other = (torch.argsort(q[0], stable=True) for q in (y, y_train))
    as_many = torch.linspace(0, len(other) - 1, len(in_order), dtype=torch.float64).round().long()  # of all labels
    shifted = x + x_train[0].std(0, correction=0)
    frozen = right if group.stack.frozen else None  # what such an arm normalizes with in training mode too

    def in_training(x: Tensor) -> Tensor:
        split_up = x.tensor_split(parts_of_at_most(K, x.shape[1]), 1)
        return torch.cat([given(networks, part, frozen) for part in split_up], 1)

    fresh = [torch.full_like(q, cold) for q, cold in zip(right, START.values(), strict=True)]
    yield "right", given(networks, x, right), y
    yield "train mode", in_training(x[:, in_order]), y[:, in_order]
    yield "polluted", given(networks, x, blended(group, networks, slot, right, x[:, in_order])), y
    yield "never updated", given(networks, x, fresh), y
    if swapped:
        yield "alpha swapped", given(networks, x, swapped), y
    if var is not None:
        yield "unbiased", given(networks, x, [right[0], var]), y
    yield "shifted", given(networks, shifted, right), y
    yield "shifted, batch", in_training(shifted), y
    yield "unshifted", in_training(x), y
    yield "control", given(networks, x, blended(group, networks, slot, right, x_train[:, other[as_many]])), y


def blended(group: Group, networks: Networks, slot: int, right: list[Tensor], x: Tensor) -> list[Tensor]:
    """The averages after training mode has seen x [1, n, n_in] in mini-batches; frozen ones stand still."""
    averages = [q.clone() for q in right]
    alpha = group.stack.alpha[slot].to(x.dtype)
    for part in () if group.stack.frozen else x.tensor_split(parts_of_at_most(group.stack.K, x.shape[1]), 1):
        for q, new in zip(averages, networks.forward(part)[1], strict=True):
            q.copy_(alpha * q + (1 - alpha) * torch.stack(new))
    return averages


def averaged(rows: np.ndarray, weights: np.ndarray, start: float, like: Tensor) -> Tensor:
    """The average [L, 1, 1, d] of recorded statistics [t, L, 1, 1, d]; the start and then each weigh `weights`."""
    with np.errstate(invalid="ignore"):  # of an infinite one that weighs nothing, too, there is no average
        came = (weights[1:, None, None, None, None] * rows).sum(0)  # no matrix product, which may pass over 0 times NaN
    return torch.from_numpy(weights[0] * start + came).to(like.dtype)


def unbiased(right: Tensor, rows: list[np.ndarray], weights: np.ndarray, K: np.ndarray) -> Tensor | None:
    """The moving variance [L, 1, 1, d] had each step of K examples brought in K/(K - 1) times its own; the start's 1 is
    none of a mini-batch. None where it is not known."""
    came = weights[1:] > 0  # not what was frozen
    factors = (K / np.maximum(1, K - 1))[came]
    different = {*factors.tolist()}
    if len(different) < 2:  # no rows are needed
        return weights[0] + (right - weights[0]) * max(different, default=1.0)
    weights = weights[np.append(True, came)]
    return averaged(rows[0][came] * factors[:, None, None, None, None], weights, START["var"], right) if rows else None


def given(networks: Networks, x: Tensor, statistics: list[Tensor] | None) -> Tensor:
    """Outputs with these statistics, [L, 1, 1, d] each; None: with x's own."""
    return networks.forward(x, statistics and Statistics(*(q.unbind(0) for q in statistics)))[0]


def change(networks: Networks, x: Tensor, statistics: list[Tensor] | None) -> float:
    """Greatest change of the others' probabilities (or outputs) as the last example's inputs grow OUTLIER times."""
    other = x.clone()
    other[:, -1] *= OUTLIER
    before, after = (given(networks, part, statistics)[:, :-1] for part in (x, other))
    if before.shape[-1] > 1:
        before, after = before.softmax(-1), after.softmax(-1)
    return (after - before).abs().max().item()
