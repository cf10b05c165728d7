"""What a loss or an accuracy is called, what it is measured in, and what networks score that know nothing."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from ..data import DATASETS
from .axes import SHARE

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


def tick_format(quantity: str) -> str | None:
    """How the ticks of its axis are written: an accuracy as on the cards, in percent."""
    return SHARE if quantity == "accuracy" else None


def value_format(quantity: str) -> str:
    """How a value of it is written below the mouse."""
    return ".1%" if quantity == "accuracy" else ",.4~g"


def chance_loss(settings: Settings) -> float:
    """The loss of guessing, which a network reaches that does not look at its inputs: the entropy of the classes, for a
    regression the variance of the targets, which is 1."""
    about = DATASETS[settings.data]
    if about.task == "regression":
        return 1.0
    return -sum(n / about.n_train * log(n / about.n_train) for n in about.counts) or log(about.n_classes)


def chance(trace: Trace, quantity: str) -> list[tuple[float, str]]:
    """What networks score that do not look at their inputs, from low to high: guessing each class alike, or as often as
    it is in the training set, or the targets' mean."""
    found = {}
    for arm, settings in enumerate(trace.experiment.arm_settings):
        about = DATASETS[settings.data]
        if not classifies(trace, arm):
            if quantity == "loss":
                found[chance_loss(settings)] = "predicting the mean"
        elif quantity == "loss":
            name = "guessing by frequency" if about.counts else f"chance, ln {about.n_classes}"
            found[chance_loss(settings)] = name
        elif about.counts:
            found[max(about.counts) / about.n_train] = "the most frequent class"
        else:
            found[1 / about.n_classes] = f"chance, 1/{about.n_classes}"
    return sorted(found.items())
