"""Costly looks at a copy of the networks, at moments of a training: looking changes nothing.

A probe is one function `look(group, **options)` in one file here. `group` is a copy of one stack with its data,
restored to a recorded step t: `group.mini_batch(t)` is the mini-batch of update t. What it returns are arrays by name,
the slot axis first. Chance comes from the seed and the step alone, so that the same look sees the same. Where it takes
as long as many training steps it is a generator that yields between its pieces: whoever looks may turn to the training.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from inspect import isgenerator
from math import ceil
from typing import NamedTuple, TypeVar

import numpy as np

from ..data import DATASETS
from ..experiment import Experiment
from ..group import Group
from ..registry import LazyModule, Registry
from ..settings import Settings
from ..train import score_interval

torch = LazyModule("torch")
T = TypeVar("T")
LOOKING_SHARE = 0.15  # of the training time, for all live probes together


class Asked(NamedTuple):
    """One option of a probe: a number between low and high, whole where the default is."""

    default: int | float
    low: float
    high: float


class Seen(NamedTuple):
    """What a run has recorded of one stack, for the probes that look back: `steps` [n], their batch means and variances
    [n, L, B, d], from step 0 on also of a fork, NaN where they did not come into the averages, which were frozen; the
    `scored` steps [m], and the population's mean and variance there [m, L, B, d]; the steps that have a snapshot, and
    the snapshot of a step. For a batch norm's place in B and t: `weights`, what the start and each step before t weigh
    in its moving averages, [1 + t], and with True, had alpha been swapped; `batch_sizes` of these steps, [t]."""

    steps: np.ndarray
    batch_mean: np.ndarray
    batch_var: np.ndarray
    scored: np.ndarray
    population: tuple[np.ndarray, np.ndarray]
    snapshots: list[int]
    vector: Callable[[int], np.ndarray]
    weights: Callable[..., np.ndarray]
    batch_sizes: Callable[[int, int], np.ndarray]


class Probe(NamedTuple):
    """What a probe is.

    place     file and function that look
    cost      of a look, in training steps, about, as measured on the default experiment (benchmarks/looks.py)
    live      whether it looks at intervals while a run trains
    back      whether it also wants what was recorded (Seen)
    weights   what each d/K adds to the cost: passes over the weights, of which a step of few examples makes few
    svd       whether it is singular values, whose cost follows the width and not K
    double    whether it looks at a copy in float64, for differences of what hardly differs, or products of many layers
    """

    label: str
    help: str
    place: str
    cost: float
    options: Mapping[str, Asked] = {}
    live: bool = False
    back: bool = False
    weights: float = 0
    svd: bool = False
    double: bool = False

    def look(self, group: Group, *seen: Seen, **options: object) -> Generator[None, None, dict[str, np.ndarray]]:
        """Look, piece by piece; arrays [S, ...] by name."""
        file, _, function = self.place.partition(".")
        found = getattr(importlib.import_module(f".{file}", __name__), function or "look")(group, *seen, **options)
        return (yield from found) if isgenerator(found) else found


def at_once(pieces: Generator[None, None, T]) -> T:
    """What a look sees, all of it at once."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


PROBES: Registry[Probe] = Registry("probe")
PROBES["inference"] = Probe(
    "Inference with another alpha",
    "Test loss over the run with the moving averages of any alpha.",
    "inference",
    2,
    {"alpha": Asked(0.9, 0, 1)},
    back=True,
)
PROBES["alphas"] = Probe(
    "Inference loss against alpha",
    "Loss at one step's weights with the moving averages of many alphas.",
    "inference.look_at_all",
    30,
    back=True,
)
PROBES["off"] = Probe(
    "Why moving averages are off",
    "Warm-up, lag and mini-batches, with the population measured at every step, and the loss without each.",
    "off",
    700,
    back=True,
)
PROBES["practice"] = Probe(
    "Population statistics in practice",
    "Statistics pooled over mini-batches beside those of the whole training set.",
    "practice",
    22,
    {"batch_size": Asked(32, 2, max(data.n_train for data in DATASETS.values()))},
)
PROBES["broken"] = Probe(
    "Broken on purpose", "The mistakes everyone makes, and their symptoms.", "broken", 10, back=True
)
PROBES["single"] = Probe(
    "One example alone, and two", "Inference without a mini-batch; training on mini-batches of two.", "single", 28
)
PROBES["gradient_line"] = Probe(
    "Loss along the gradient",
    "Range of the loss, change of the gradient and effective smoothness along the current gradient.",
    "gradient_line",
    8.5,
    live=True,
    weights=0.35,
)
PROBES["update_line"] = Probe(
    "Loss along the update",
    "The same along the optimizer's own next update, of its length: arms with different optimizers compare.",
    "gradient_line.look_along_update",
    8.5,
    weights=0.35,
)
PROBES["shift"] = Probe(
    "Covariate shift",
    "Change of a layer's gradient when the layers below take their update, and drift of what it reads.",
    "shift",
    16,
    live=True,
    double=True,
)
PROBES["curvature"] = Probe(
    "Largest curvature",
    "Top eigenvalue of the Hessian, against 2/learning rate - weight decay.",
    "curvature",
    85,
    {"iterations": Asked(10, 2, 40)},
    live=True,
    weights=2.5,
)
PROBES["rank"] = Probe(
    "Rank", "Effective rank and mean cosine of every layer's outputs.", "rank", 5, live=True, svd=True
)
PROBES["jacobian"] = Probe(
    "Jacobians",
    "Singular values of every layer's Jacobian and of the products to the top.",
    "jacobian",
    38,
    live=True,
    svd=True,
    double=True,
)
PROBES["landscape"] = Probe(
    "Loss surface",
    "Slice of the loss along unit-normalized random directions.",
    "landscape",
    140,
    {"points": Asked(17, 5, 41)},
)
PROBES["path"] = Probe(
    "Loss along the path",
    "Slice of the loss in the plane that holds most of the training's path.",
    "landscape.look_along_path",
    140,
    {"points": Asked(17, 5, 41)},
    back=True,
)
PROBES["invariance"] = Probe(
    "Scale invariance", "A layer's weights multiplied by c.", "invariance", 9, {"layer": Asked(2, 1, 100)}
)
PROBES["undo"] = Probe(
    "Undone by gamma and beta",
    "Same loss, other gradients: gamma and beta undo a layer's norm on one mini-batch.",
    "undo",
    5,
    {"layer": Asked(2, 1, 100)},
)


def checked(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """All options of a probe, defaults filled in. Raises KeyError for an unknown probe, ValueError with a sentence."""
    known = PROBES[name].options
    for option in options.keys() - known.keys():
        raise ValueError(f"{str(option)[:40]} is not an option of {name}; known are {', '.join(known) or 'none'}.")
    values = {}
    for option, asked in known.items():
        value = options.get(option, asked.default)
        try:
            value = type(asked.default)(value)
        except (TypeError, ValueError):
            value = None
        if value is None or not asked.low <= value <= asked.high:
            raise ValueError(f"{option} is {options[option]!s:.40}; allowed is {asked.low:g} to {asked.high:g}.")
        values[option] = value
    return values


class Copies:
    """Copies of all stacks of an experiment, on the processor, made once and restored for each look."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    @cached_property
    def groups(self) -> list[Group]:
        return [Group(self.experiment, i, "cpu", torch.float32) for i in range(len(self.experiment.stacks))]

    @cached_property
    def double(self) -> list[Group]:
        return [Group(self.experiment, i, "cpu", torch.float64) for i in range(len(self.experiment.stacks))]

    def look(
        self, name: str, options: Mapping, step: int, vectors: list[np.ndarray], seen: Sequence[Seen] = ()
    ) -> list[dict[str, np.ndarray]]:
        """What a probe sees of each stack as a snapshot taken before update `step` describes it.

        A network that has diverged is looked at with weights 0, and what is seen of it is NaN: the others are not
        drawn into it.
        """
        return at_once(self.looking(name, options, step, vectors, seen))

    def looking(
        self, name: str, options: Mapping, step: int, vectors: list[np.ndarray], seen: Sequence[Seen] = ()
    ) -> Generator[None, None, list[dict[str, np.ndarray]]]:
        """The same piece by piece. These copies can take one look at a time."""
        found = []
        groups = self.double if PROBES[name].double else self.groups
        for i, (group, vector) in enumerate(zip(groups, vectors, strict=True)):
            with torch.no_grad():
                group.stack.restore(step, vector)
                lost = [slot for slot in range(group.stack.S) if not finite(group, slot)]
            pieces = PROBES[name].look(group, *([seen[i]] if PROBES[name].back else []), **options)
            arrays = yield from without_gradients(pieces)
            for values in arrays.values():
                if values.dtype.kind == "f":
                    values[lost] = np.nan
            found.append(arrays)
        return found


def without_gradients(pieces: Generator[None, None, T]) -> Generator[None, None, T]:
    """The same without autograd, which between the pieces is as it was."""
    while True:
        with torch.no_grad():
            try:
                next(pieces)
            except StopIteration as end:
                return end.value
        yield


def finite(group: Group, slot: int) -> bool:
    """Whether all weights and moving averages of a network are finite; sets them to 0 where not."""
    _, networks, b = group.one_by_one[slot]
    parts = [*networks.weight, *networks.bias, *networks.gamma, *networks.beta, networks.readout, networks.readout_bias]
    parts += [] if b is None else [group.stack.moving_averages[:, :, b]]
    if all(part.isfinite().all() for part in parts):
        return True
    for part in parts:
        part.zero_()
    return False


def cost(probe: Probe, experiment: Experiment) -> float:
    """Of a look at this experiment, in its training steps: singular values of a layer cost as d^3, a step as K d^2, and
    what passes over all weights d^2."""

    def at(s: Settings) -> float:
        svd = max(1.0, s.width / 64) * max(1.0, 128 / s.mini_batch) if probe.svd else 1.0
        return probe.cost * svd + probe.weights * s.width / s.mini_batch

    return max(map(at, experiment.arm_settings))


def schedule(experiment: Experiment) -> dict[str, int]:
    """Steps between two looks of each live probe: multiples of the scoring interval, so chosen from the probes' costs
    that together they take about LOOKING_SHARE of the training; never by the clock. A probe too costly for two looks
    a run is left out."""
    every = score_interval(experiment)
    found, left = {}, {name for name, probe in PROBES.items() if probe.live}
    while left:
        share = LOOKING_SHARE / len(left)
        found = {name: every * max(1, ceil(cost(PROBES[name], experiment) / share / every)) for name in left}
        rare = {name for name, interval in found.items() if interval > experiment.settings.steps}
        if not rare:
            break
        left -= {max(rare, key=lambda name: cost(PROBES[name], experiment))}  # its share is for the others
    return {name: found[name] for name in PROBES if name in left}
