"""A fork: one arm of a run goes on from exact weights at a step, beside a copy of it in which something was changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import ValidationError

from .experiment import Arm, Experiment
from .registry import Late
from .settings import MAX_LABEL, Settings, about, problems
from .stack import Stack

torch = Late("torch")

CHANGEABLE = ("statistics", "alpha", "learning_rate", "batch_size", "weight_decay", "rescale", "optimizer", "sampling")
OF_BATCH_NORM = ("statistics", "alpha")  # what no other arm reads


def can_change(settings: Settings) -> tuple[str, ...]:
    """The settings whose change would make a difference to an arm with these."""
    idle = OF_BATCH_NORM if settings.norm != "batch" else ("alpha",) if settings.statistics == "moving" else ()
    return tuple(name for name in CHANGEABLE if name not in idle)


def forked(experiment: Experiment, arm: int, step: int, changes: dict[str, Any]) -> Experiment:
    """The question a fork asks: the arm as it was, and with `changes`. Raises ValueError with a sentence.

    What determines the weights' shapes, the data and the norm stay; `step` must leave something to train.
    """
    old, settings = experiment.arms[arm], experiment.arm_settings[arm]
    changes = {name: value for name, value in changes.items() if getattr(settings, name) != value}
    if not changes:
        raise ValueError("nothing is changed; change at least one setting to see a difference.")
    for name in changes:
        if name not in CHANGEABLE:
            raise ValueError(f"{name} cannot change in the middle of a training; these can: {', '.join(CHANGEABLE)}.")
    if settings.norm != "batch" and set(changes) <= set(OF_BATCH_NORM):
        raise ValueError(
            f"{' and '.join(changes)} makes no difference to {old.label!r}, which has no batch norm; "
            "change something else."
        )
    if not step < experiment.settings.steps:
        raise ValueError(f"step is {step}; the run ends at {experiment.settings.steps}. Choose an earlier step.")
    words = ", ".join(f"{about(name).label.lower()} {value}" for name, value in changes.items())
    label = f"{old.label}: {words}"
    new = Arm(
        label=label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1].rstrip() + "…", changes=old.changes | changes
    )
    try:
        return experiment.model_copy(update={"arms": (old, new)})
    except ValidationError as error:
        raise ValueError(
            " ".join(sentence.removeprefix(f"arm {new.label!r}: ") for sentence in problems(error))
        ) from None


def vectors(parent: Experiment, arm: int, found: list[np.ndarray], child: Experiment) -> list[np.ndarray]:
    """The child's snapshot, one vector a stack, from the parent's: every network of it is that of the parent's arm.

    Weights, moving averages and, with the same rule, the optimizer's memory are the parent's to the last bit.
    """
    stacks = [Stack(parent, networks, "cpu", torch.float32) for networks in parent.stacks]
    for stack, vector in zip(stacks, found, strict=True):
        stack.restore(0, vector)
    at = {n: (stack, slot) for stack in stacks for slot, n in enumerate(stack.networks)}
    made = []
    for networks in child.stacks:
        stack = Stack(child, networks, "cpu", torch.float32)
        for slot, n in enumerate(networks):
            take(*at[arm, n.seed], stack, slot)
        made.append(stack.snapshot())
    return made


def take(old: Stack, at: int, new: Stack, slot: int) -> None:
    """Copy one network from slot `at` of a stack into `slot` of another."""
    pairs = [(old.p, new.p)]
    if type(old.optimizer) is type(new.optimizer):
        pairs += [(old.views(a), new.views(b)) for a, b in zip(old.optimizer.state, new.optimizer.state, strict=True)]
    for source, into in pairs:
        for name, view in into.items():
            i, j = (at, slot) if name not in ("gamma", "beta") else (at - old.normed.start, slot - new.normed.start)
            if j >= 0 and view.shape[-3]:
                view.select(-3, j).copy_(source[name].select(-3, i))
    if new.settings[slot].norm == "batch":
        for source, into in ((old.moving_mean, new.moving_mean), (old.moving_var, new.moving_var)):
            into[:, slot - new.batch.start].copy_(source[:, at - old.batch.start])
