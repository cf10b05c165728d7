"""Record: one step seen. What is recorded, in which order, and how a row of numbers is laid out.

Tables `steps`, `layers`, `units` and `samples` have a row at every step; scores and population rows come at intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .data import DATASETS
from .experiment import Experiment, Network

EVERYTHING = 2**40  # points: nothing is thinned on the way to the reader
SAMPLE = 128  # values of a layer's mini-batch kept at every step for percentiles and histograms


def evenly(n: int, most: int) -> np.ndarray:
    """At most `most` of the places 0..n-1, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)) if n else np.arange(0)


def spaced(places: Sequence[int], most: int) -> list[int]:
    """Every few of the places, so that about `most` are left, and the last, which may stand there twice."""
    return [*places[:: -(-len(places) // most) or 1], *places[-1:]]


class Quantity(NamedTuple):
    """What a recorded quantity is: its label, symbol, unit and one sentence."""

    label: str
    symbol: str
    unit: str
    help: str


STEPS = {
    "loss": Quantity("Mini-batch loss", "E", "nats", "Training loss of the mini-batch, before the update."),
    "accuracy": Quantity("Mini-batch accuracy", "", "share", "Share classified correctly, before the update."),
}
LAYERS = {
    "grad_norm": Quantity(
        "Weight gradient", "‖dE/dW‖", "", "Euclidean norm of the loss gradient of the layer's weights."
    ),
    "signal_grad_norm": Quantity(
        "Signal gradient", "‖dE/da‖", "", "Euclidean norm of the error arriving at the layer's pre-activations."
    ),
    "weight_norm": Quantity("Weight norm", "‖W‖", "", "Euclidean norm of the layer's weights, before the update."),
    "update_ratio": Quantity("Update ratio", "‖ΔW‖/‖W‖", "", "Norm of the update of W over the norm of W."),
    "a_mean": Quantity("Mean pre-activation", "mean(a)", "", "Mean of a over examples and units."),
    "a_std": Quantity("Spread of pre-activations", "std(a)", "", "Standard deviation of a over examples and units."),
    "z_mean": Quantity("Mean activation", "mean(z)", "", "Mean of z = h(a) over examples and units."),
    "z_std": Quantity("Spread of activations", "std(z)", "", "Standard deviation of z over examples and units."),
    "saturated": Quantity("Saturated", "", "share", "Share of values in the flat part of the activation."),
    "dead": Quantity(
        "Dead units", "", "share", "Share of units that are saturated for every example of the mini-batch."
    ),
}
UNITS = {
    "batch_mean": Quantity("Batch mean", "μ", "", "Mean over the mini-batch of what batch norm normalizes."),
    "batch_var": Quantity("Batch variance", "σ²", "", "Biased variance over the mini-batch of the same."),
    "moving_mean": Quantity("Moving mean", "μ̄", "", "Moving average of the batch means, after the step."),
    "moving_var": Quantity("Moving variance", "σ̄²", "", "Moving average of the batch variances, after the step."),
    "gamma": Quantity("gamma", "γ", "", "Learned standard deviation of the unit, before the update."),
    "beta": Quantity("beta", "β", "", "Learned mean of the unit, before the update."),
}
SAMPLES = {
    "a": Quantity(
        "Sampled pre-activations", "a", "", f"At most {SAMPLE} pre-activations of the layer, at fixed places."
    ),
    "z": Quantity("Sampled activations", "z", "", f"At most {SAMPLE} activations of the layer, at fixed places."),
}
TABLES = {"steps": STEPS, "layers": LAYERS, "units": UNITS, "samples": SAMPLES}

Layout = dict[str, dict[str, tuple[int, tuple[int, ...]]]]


def layout(experiment: Experiment, stack: int, networks: Sequence[Network] = ()) -> Layout:
    """Where each quantity stands in the row of its table: {table: {quantity: (offset, shape)}}.

    Shapes: S slots, L layers, B slots with batch norm, d units, M sampled values: steps [S], layers [L, S],
    units [L, B, d], samples [L, S, M]. A table without columns is left out. `networks`: only these of the stack.
    """
    slots = [experiment.arm_settings[n.arm] for n in networks or experiment.stacks[stack]]
    s = slots[0]
    batch = sum(slot.norm == "batch" for slot in slots)
    shape = {
        "steps": (len(slots),),
        "layers": (s.depth, len(slots)),
        "units": (s.depth, batch, s.width),
        "samples": (s.depth, len(slots), len(sample_at(s.mini_batch, s.width))),
    }
    skipped = {"accuracy"} if DATASETS[s.data].task == "regression" else set()
    found: Layout = {}
    for table, quantities in TABLES.items():
        size = int(np.prod(shape[table]))
        names = [name for name in quantities if name not in skipped] if size else []
        if names:
            found[table] = {name: (i * size, shape[table]) for i, name in enumerate(names)}
    return found


def batch_slots(experiment: Experiment, stack: int) -> tuple[int, ...]:
    """The slots of a stack that have batch norm, in the order of the tables `units` and population."""
    return tuple(
        slot for slot, n in enumerate(experiment.stacks[stack]) if experiment.arm_settings[n.arm].norm == "batch"
    )


def sample_at(examples: int, units: int) -> range:
    """The places in [examples x units], read row by row, that are sampled: of up to SAMPLE units every one,
    and as many examples as that leaves."""
    total = examples * units
    stride = max(1, total // SAMPLE)
    while stride > 1 and np.gcd(stride, units) > 1:
        stride -= 1
    return range(0, total, stride)[:SAMPLE]


class Score(NamedTuple):
    """Loss and accuracy (None for a regression) of some slots of a stack over a whole split, [len(slots)] each.

    Whose they are is `experiment.stacks[stack][slot]`, not a place in Record.scores: a network left out has no score.
    """

    stack: int
    split: str
    statistics: str
    slots: tuple[int, ...]
    loss: np.ndarray
    accuracy: np.ndarray | None


class Population(NamedTuple):
    """Population mean and biased variance of every batch norm of a stack, [L, B, d], and the moving averages that
    inference uses in their place with the same weights; `slots` are those B slots."""

    stack: int
    slots: tuple[int, ...]
    mean: np.ndarray
    var: np.ndarray
    moving_mean: np.ndarray
    moving_var: np.ndarray


class Part(NamedTuple):
    """One stack's share of a Record: table -> this step's row, a flat vector laid out as layout() says."""

    on_device: dict

    @property
    def rows(self) -> dict[str, np.ndarray]:
        return {table: row.cpu().numpy() for table, row in self.on_device.items()}


class Record(NamedTuple):
    """One step t seen: the networks before update t, and what their mini-batches showed.

    The last record (step = number of steps) has no rows, only scores. `weights` is the snapshot before update t, taken
    where there are scores, else None. `snapshot()` is the one after it: `train(experiment, start=(t + 1, snapshot()))`
    continues to the last bit; call it before asking for the next record. A snapshot is one vector a stack. A record of
    nothing, neither rows nor scores, comes within the scoring before update t; its snapshot() is the one before it.
    """

    experiment: Experiment
    step: int
    parts: tuple[Part, ...]
    scores: list[Score]
    population: list[Population]
    weights: list[np.ndarray] | None
    snapshot: Callable[[], list[np.ndarray]]

    @property
    def holds_anything(self) -> bool:
        """Whether it has rows or scores."""
        return bool(self.parts or self.scores)

    @property
    def next(self) -> int:
        """The step before whose update the networks are then."""
        return self.step + bool(self.parts)

    def value(self, quantity: str, arm: int = 0, seed: int | None = None) -> np.ndarray:
        """One quantity of one network: [] (steps), [L] (layers), [L, d] (units) or [L, M] (samples "a" and "z").

        `seed` is the seed itself, by default the first. Raises KeyError where the network has no such quantity.
        """
        seed = self.experiment.seeds[0] if seed is None else seed
        for i, networks in enumerate(self.experiment.stacks):
            if (arm, seed) not in networks:
                continue
            for table, columns in layout(self.experiment, i).items() if self.parts else ():
                slot, normed = networks.index((arm, seed)), batch_slots(self.experiment, i)
                if quantity in columns and (table != "units" or slot in normed):
                    slot = normed.index(slot) if table == "units" else slot
                    offset, shape = columns[quantity]
                    values = self.parts[i].rows[table][offset : offset + int(np.prod(shape))].reshape(shape)
                    return values[slot] if table == "steps" else values[:, slot]
        raise KeyError(f"{quantity!r} was not recorded for arm {arm} and seed {seed}.")
