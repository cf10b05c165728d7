"""Batch norm broken on purpose: the mistakes everyone makes, each with the symptom it causes, computed.

All on the test set, at the weights of one step; the networks themselves are never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..mlp import Networks, Statistics
from ..moving import START
from ..registry import Late
from ..sampling import parts_of_at_most
from .inference import averages

if TYPE_CHECKING:
    from torch import Tensor

    from ..group import Group
    from . import Seen

torch = Late("torch")


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
    first is recorded. `control` [S]: the loss where as many training examples have been blended in as `polluted` has of
    the test set. `unshifted_loss`, `unshifted_accuracy` [S]: in training mode, without the shift. `outlier` [S]: how
    much the probabilities (or outputs) of the other examples of a mini-batch change, at most, when one becomes an
    outlier, in training mode; NaN for K = 1, where there are no others."""
    S, K = group.stack.S, group.stack.K
    loss, accuracy = np.full((2, S, len(MISTAKES)), np.nan, np.float32)
    control, *unshifted, outlier = np.full((4, S), np.nan, np.float32)
    x, y = group.splits["test"]
    in_order = torch.argsort(y, stable=True)
    x_train, y_train = group.splits["train"]
    other = torch.argsort(y_train, stable=True)  # as many, of all labels, in their order
    other = other[torch.linspace(0, len(other) - 1, len(x), dtype=torch.float64).round().long()]
    shift = x_train.std(0, correction=0)
    try:
        swapped = swapped_averages(group, seen) if group.stack.B else []
    except ValueError:  # what it needs is not recorded here; the other mistakes need nothing of it
        swapped = None
    for slot, networks, b in group.one_by_one:
        right = None if b is None else list(group.stack.moving_averages[:, :, b : b + 1])
        frozen = right if group.stack.frozen else None  # what such an arm normalizes with in training mode too
        if K > 1:
            outlier[slot] = change(networks, group.mini_batch(group.stack.t)[0][slot : slot + 1], frozen)
        if b is None:
            continue
        whole = x[None]
        moved = whole + shift
        in_training = {
            name: [given(networks, part, frozen) for part in examples.tensor_split(parts_of_at_most(K, len(x)), 1)]
            for name, examples in {
                "train mode": whole[:, in_order],
                "shifted, batch": moved,
                "unshifted": whole,
            }.items()
        }
        fresh = [torch.full_like(q, start) for q, start in zip(right, START.values(), strict=True)]
        start = torch.tensor(seen.weights(b, group.stack.t)[0], dtype=x.dtype)  # what is left of the 1
        outputs = {
            "right": given(networks, whole, right),
            "polluted": given(networks, whole, blended(group, networks, slot, right, whole[:, in_order])),
            "never updated": given(networks, whole, fresh),
            "alpha swapped": swapped and given(networks, whole, [q[:, b : b + 1] for q in swapped]),
            "unbiased": given(networks, whole, [right[0], start + (right[1] - start) * (K / max(1, K - 1))]),
            "shifted": given(networks, moved, right),
            **{name: torch.cat(parts, 1) for name, parts in in_training.items()},
            "control": given(networks, whole, blended(group, networks, slot, right, x_train[None, other])),
        }
        for name, out in outputs.items():
            if out is None:
                continue
            labels = (y[in_order] if name == "train mode" else y)[None]
            e, share, _ = group.stack.criterion(out, labels)
            if name in MISTAKES:
                i = list(MISTAKES).index(name)
                into = loss[slot : slot + 1, i], accuracy[slot : slot + 1, i]
            else:
                into = (
                    (control[slot : slot + 1], np.empty(1))
                    if name == "control"
                    else [q[slot : slot + 1] for q in unshifted]
                )
            for place, values in zip(into, (e, share), strict=True):
                place[:] = np.nan if values is None else values.numpy()
    told = {"loss": loss, "accuracy": accuracy, "control": control, "outlier": outlier}
    return told | dict(zip(("unshifted_loss", "unshifted_accuracy"), unshifted, strict=True))


def blended(group: Group, networks: Networks, slot: int, right: list[Tensor], x: Tensor) -> list[Tensor]:
    """The averages after training mode has seen x [1, n, n_in] in mini-batches; frozen ones stand still."""
    averages = [q.clone() for q in right]
    alpha = group.stack.alpha[slot].to(x.dtype)
    for part in () if group.stack.frozen else x.tensor_split(parts_of_at_most(group.stack.K, x.shape[1]), 1):
        for q, new in zip(averages, networks.forward(part)[1], strict=True):
            q.copy_(alpha * q + (1 - alpha) * torch.stack(new))
    return averages


def swapped_averages(group: Group, seen: Seen) -> list[Tensor]:
    """Moving means and variances [L, B, 1, d] of the recorded statistics, each slot's old value weighing 1 - alpha."""
    settings = group.stack.settings[group.stack.batch]
    now = np.array([group.stack.t])
    each = [[q[0][:, b] for q in averages(seen, 1 - s.alpha, now)] for b, s in enumerate(settings)]
    return [torch.from_numpy(np.stack(q, 1)[:, :, None]).to(group.stack.dtype) for q in zip(*each, strict=True)]


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
