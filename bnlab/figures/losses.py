"""What a loss or an accuracy is called, what it is measured in, and what networks score that know nothing."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from ..data import DATASETS

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings


def classifies(trace: Trace, arm: int) -> bool:
    """Whether an arm learns classes; else values, in a regression."""
    return DATASETS[trace.experiment.arm_settings[arm].data].task == "classification"


def measure(trace: Trace, quantity: str) -> str:
    """The title of the vertical axis: what the arms' losses are, or the accuracy."""
    if quantity == "accuracy":
        return "accuracy (share of examples)"
    names = {True: "cross-entropy E (nats)", False: "mean squared error"}
    return " or ".join(dict.fromkeys(names[classifies(trace, arm)] for arm in range(len(trace.experiment.arms))))


def unit(trace: Trace, quantity: str, arm: int) -> str:
    """What follows a value: ' nats' for a cross-entropy, else nothing."""
    return " nats" if quantity == "loss" and classifies(trace, arm) else ""


def chance_loss(settings: Settings) -> float:
    """The loss of guessing: each class alike, or the mean of the targets, whose variance is 1."""
    about = DATASETS[settings.data]
    return log(about.n_classes) if about.task == "classification" else 1.0


def chance(trace: Trace, quantity: str) -> list[tuple[float, str]]:
    """What networks score that know nothing, from low to high: guessing each class alike, or the targets' mean."""
    found = {}
    for arm, settings in enumerate(trace.experiment.arm_settings):
        n = DATASETS[settings.data].n_classes
        if classifies(trace, arm):
            value = chance_loss(settings) if quantity == "loss" else 1 / n
            found[value] = f"chance, ln {n}" if quantity == "loss" else f"chance, 1/{n}"
        elif quantity == "loss":
            found[chance_loss(settings)] = "predicting the mean"
    return sorted(found.items())
