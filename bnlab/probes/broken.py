"""Batch norm broken on purpose: the mistakes everyone makes, each with the symptom it causes, computed.

All on the test set, at the weights of one step; the networks themselves are never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..mlp import Networks, Statistics
from ..moving import START
from ..registry import Late
from .inference import averages

if TYPE_CHECKING:
    from torch import Tensor

    from ..train import Group
    from . import Seen

torch = Late("torch")


class Mistake(NamedTuple):
    """A mistake's name on the page, and what was done."""

    label: str
    told: str


MISTAKES = {
    "right": Mistake("as it should be", "Moving averages, the test set as it is."),
    "train mode": Mistake("scored in train mode", "Mini-batch statistics, the test set in the order of its labels."),
    "polluted": Mistake(
        "averages polluted", "Training mode has blended the sorted test set into the averages; then scored rightly."
    ),
    "never updated": Mistake("never updated", "The moving averages still are 0 and 1."),
    "alpha swapped": Mistake("alpha and momentum swapped", "The old value weighs 1 − α."),
    "unbiased": Mistake("variance unbiased", "K/(K−1) times the variance that training divides by."),
    "shifted": Mistake("test inputs shifted", "Every input moved by one standard deviation; moving averages."),
    "shifted, batch": Mistake(
        "shifted, train mode", "The same, normalized by its own mini-batches: they take the shift out again."
    ),
}
OUTLIER = 100.0  # what the inputs of one other example are multiplied by


def look(group: Group, seen: Seen) -> dict[str, np.ndarray]:
    """`loss` and `accuracy` [S, mistakes]: NaN without batch norm; alpha swapped also where not every step from the
    first is recorded. `outlier` [S]: how much the probabilities (or outputs) of the other examples of a mini-batch
    change, at most, when one becomes an outlier, in training mode; NaN for K = 1, where there are no others."""
    S, K = group.stack.S, group.stack.K
    loss, accuracy = np.full((2, S, len(MISTAKES)), np.nan, np.float32)
    outlier = np.full(S, np.nan, np.float32)
    x, y = group.splits["test"]
    in_order = torch.argsort(y, stable=True)
    shift = group.splits["train"][0].std(0, correction=0)
    try:
        swapped = swapped_averages(group, seen) if group.stack.B else []
    except ValueError:  # what it needs is not recorded here; the other mistakes need nothing of it
        swapped = None
    for slots, networks, b in group.alike:
        count = slots.stop - slots.start
        whole = x.expand(count, *x.shape)
        if K > 1:
            outlier[slots] = change(networks, group.mini_batch(group.stack.t)[0][slots])
        if b is None:
            continue
        right = [group.stack.moving_mean[:, b], group.stack.moving_var[:, b]]
        sorted_parts = x[in_order].expand(count, *x.shape).tensor_split(-(-x.shape[0] // K), 1)
        in_training = [networks.forward(part) for part in sorted_parts]
        polluted = [q.clone() for q in right]
        alpha = group.stack.alpha[slots].to(x.dtype)
        for _, used in in_training:
            for q, new in zip(polluted, used, strict=True):
                q.copy_(alpha * q + (1 - alpha) * torch.stack(new))
        moved = whole + shift
        fresh = [torch.full_like(q, start) for q, start in zip(right, START.values(), strict=True)]
        outputs = {
            "right": given(networks, whole, right),
            "polluted": given(networks, whole, polluted),
            "never updated": given(networks, whole, fresh),
            "alpha swapped": swapped and given(networks, whole, [q[:, b] for q in swapped]),
            "unbiased": given(networks, whole, [right[0], right[1] * K / max(1, K - 1)]),
            "shifted": given(networks, moved, right),
            "shifted, batch": torch.cat(
                [networks.forward(p)[0] for p in moved.tensor_split(-(-x.shape[0] // K), 1)], 1
            ),
            "train mode": torch.cat([out for out, _ in in_training], 1),
        }
        for i, name in enumerate(MISTAKES):
            if outputs[name] is None:
                continue
            labels = (y[in_order] if name == "train mode" else y).expand(count, -1)
            e, share, _ = group.stack.criterion(outputs[name], labels)
            loss[slots, i] = e.numpy()
            if share is not None:
                accuracy[slots, i] = share.numpy()
    return {"loss": loss, "accuracy": accuracy, "outlier": outlier}


def swapped_averages(group: Group, seen: Seen) -> list[Tensor]:
    """Moving means and variances [L, B, 1, d] of the recorded statistics, each slot's old value weighing 1 - alpha."""
    settings = group.stack.settings[group.stack.batch]
    now = np.array([group.stack.t])
    each = [[q[0][:, b] for q in averages(seen, 1 - s.alpha, now)] for b, s in enumerate(settings)]
    return [torch.from_numpy(np.stack(q, 1)[:, :, None]).to(group.stack.dtype) for q in zip(*each, strict=True)]


def given(networks: Networks, x: Tensor, statistics: list[Tensor]) -> Tensor:
    return networks.forward(x, Statistics(*(q.unbind(0) for q in statistics)))[0]


def change(networks: Networks, x: Tensor) -> np.ndarray:
    """Greatest change of the others' probabilities (or outputs) as the last example's inputs grow OUTLIER times."""
    other = x.clone()
    other[:, -1] *= OUTLIER
    before, after = (networks.forward(part)[0][:, :-1] for part in (x, other))
    if before.shape[-1] > 1:
        before, after = before.softmax(-1), after.softmax(-1)
    return (after - before).abs().amax((1, 2)).numpy()
