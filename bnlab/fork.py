"""A fork: one arm of a run goes on from exact weights at a step, beside a copy of it in which something was changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import ValidationError

from .experiment import Arm, Experiment
from .problems import problems
from .registry import LazyModule
from .settings import MAX_LABEL, Settings, about
from .state import State
from .train import score_interval

torch = LazyModule("torch")

CHANGEABLE = ("statistics", "alpha", "learning_rate", "batch_size", "weight_decay", "rescale", "optimizer", "sampling")
OF_BATCH_NORM = ("statistics", "alpha")  # what no other arm reads
WORDS = {  # of a change, where the setting's own would say nothing on a curve
    ("statistics", "moving"): "averages frozen",
    ("statistics", "batch"): "averages no longer frozen",
    ("rescale", "fixed"): "γ and β frozen",
    ("rescale", "learned"): "γ and β learned",
    ("sampling", "epochs"): "mini-batches in epochs",
    ("sampling", "replacement"): "drawn with replacement",
}


def can_change(settings: Settings) -> tuple[str, ...]:
    """The settings whose change would make a difference to an arm with these."""
    idle = OF_BATCH_NORM if settings.norm != "batch" else ("alpha",) if settings.frozen else ()
    idle += ("rescale",) if settings.norm == "none" else ()
    return tuple(name for name in CHANGEABLE if name not in idle)


def said(name: str, value: Any) -> str:
    """A change in few words, as a curve is called by it."""
    told = about(name)
    known = WORDS.get((name, value)) or (told.choices or {}).get(value)
    number = value if isinstance(value, str) else f"{value:g}"
    return known or f"{told.label.lower() if name != 'alpha' else 'α'} {number}"


def differing(settings: Settings, changes: dict[str, Any]) -> dict[str, Any]:
    """Of the changes those that are some."""
    return {name: value for name, value in changes.items() if getattr(settings, name) != value}


def in_words(changes: dict[str, Any]) -> str:
    """α 0.5, learning rate 1."""
    return ", ".join(said(name, value) for name, value in changes.items())


def called(experiment: Experiment, arm: int, changes: dict[str, Any]) -> str:
    """What goes on and what is changed, as a fork's name begins: BN, learning rate 1."""
    return f"{experiment.arms[arm].label}, {in_words(differing(experiment.arm_settings[arm], changes))}"


def forked(experiment: Experiment, arm: int, step: int, changes: dict[str, Any], more: int | None = None) -> Experiment:
    """The question a fork asks: the arm as it was, and with `changes`. Raises ValueError with a sentence.

    What determines the weights' shapes, the data and the norm stay. `more` is how many steps it trains; None: those
    that the run had left. What it is scored at stays too.
    """
    old, settings = experiment.arms[arm], experiment.arm_settings[arm]
    changes = differing(settings, changes)
    if not changes:
        raise ValueError("nothing is changed; change at least one setting to see a difference.")
    for name in changes:
        if name not in CHANGEABLE:
            raise ValueError(f"{name} cannot change in the middle of a training; these can: {', '.join(CHANGEABLE)}.")
    if not set(changes) & set(can_change(settings)):
        why = (
            "trains with its averages frozen"
            if settings.norm == "batch"
            else "has no norm"
            if "rescale" in changes
            else "has no batch norm"
        )
        raise ValueError(
            f"{' and '.join(changes)} makes no difference to {old.label!r}, which {why}; change something else."
        )
    shared = experiment.settings
    if more is None and not step < shared.steps:
        raise ValueError(
            f"step is {step:,}; the run ends at {shared.steps:,}. Choose an earlier step, or how many more steps to "
            "train."
        )
    if more is not None and more < 1:
        raise ValueError(f"a fork of {more} steps has nothing to train; allowed is 1 or more.")
    words = cut(in_words(changes), MAX_LABEL - 6)
    label = f"{cut(old.label, MAX_LABEL - len(words) - 2)}: {words}"  # the new words last: a fork of a fork is another
    new = Arm(label=label, changes=old.changes | changes)
    try:
        steps = shared.steps if more is None else step + more
        shared = shared.model_copy(update={"steps": steps, "score_every": score_interval(experiment)})
        return experiment.model_copy(update={"arms": (old, new), "settings": shared})
    except ValidationError as error:
        raise ValueError(
            " ".join(sentence.removeprefix(f"arm {new.label!r}: ") for sentence in problems(error))
        ) from None


def cut(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def vectors(parent: Experiment, arm: int, found: list[np.ndarray], child: Experiment) -> list[np.ndarray]:
    """The child's snapshot, one vector a stack, from the parent's: every network of it is that of the parent's arm.

    Weights, moving averages and, with the same rule, the optimizer's memory are the parent's to the last bit.
    """
    states = [State(parent, networks, "cpu", torch.float32) for networks in parent.stacks]
    for state, vector in zip(states, found, strict=True):
        state.restore(0, vector)
    at = {n: (state, slot) for state in states for slot, n in enumerate(state.networks)}
    made = []
    for networks in child.stacks:
        state = State(child, networks, "cpu", torch.float32)
        for slot, n in enumerate(networks):
            state.take(*at[arm, n.seed], slot)
        made.append(state.snapshot())
    return made
