"""Training as a generator of Records: to record is to append, to stop is to leave the loop."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from .data import DATASETS, split
from .experiment import Experiment
from .mlp import Statistics
from .population import population
from .quantities import Rows
from .registry import Late
from .sampling import DRAWN, mini_batches, parts
from .stack import Stack
from .trace import Part, Population, Record, Score, batch_slots, layout

if TYPE_CHECKING:
    from torch import Tensor

torch = Late("torch")

SCORING_SHARE = 1 / 10  # of the training time, by the cost model below
FORWARD = 0.4  # cost of an example's forward pass in units of its share of a recorded training step
CUDA_WORTH = 1e9  # multiply-adds of a step above which "auto" takes CUDA; estimated, not measured


def train(
    experiment: Experiment,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    record: bool = True,
    start: tuple[int, list[np.ndarray]] | None = None,
) -> Iterator[Record]:
    """Train every arm and seed together; yield one Record a step, and a last one with the final scores.

    `start` is a step and the vectors of a snapshot: training goes on from there as if it had never stopped, to the
    last bit. With `record=False` the records are empty, and the networks learn bitwise the same.
    """
    groups = [Group(experiment, i, device, dtype or torch.float32) for i in range(len(experiment.stacks))]
    first, vectors = start or (0, [])
    for group, vector in zip(groups, vectors, strict=False):
        group.stack.restore(first, vector)
    steps = experiment.settings.steps
    every = experiment.settings.score_every or score_interval(experiment)

    def snapshot() -> list[np.ndarray]:
        return [group.stack.snapshot() for group in groups]

    for t in range(first, steps + 1):
        with torch.no_grad():
            scored = record and (t % every == 0 or t == steps)
            scores = [score for group in groups for score in group.scores()] if scored else []
            population = [group.population for group in groups if group.population] if scored else []
            weights = snapshot() if scored else None
            parts = tuple(Part(group.step(t, record)) for group in groups) if t < steps else ()
        yield Record(experiment, t, parts, scores, population, weights, snapshot)


class Group:
    """One stack with its data: what a step and a scoring of it need."""

    def __init__(self, experiment: Experiment, index: int, device: str, dtype: torch.dtype):
        networks = experiment.stacks[index]
        self.experiment = experiment
        self.index, self.seeds = index, [n.seed for n in networks]
        self.stack = Stack(experiment, networks, device, dtype)
        self.settings = settings = self.stack.shared
        self.rows = Rows(self.stack, layout(experiment, index))
        tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
        self.splits = {
            name: (tensor(part.x).to(dtype), tensor(part.y).to(torch.int64 if part.y.dtype.kind == "i" else dtype))
            for name, part in zip(("train", "test"), split(settings.data, settings.standardize), strict=True)
        }
        self.x = self.stack.room(len(networks), settings.mini_batch, DATASETS[settings.data].n_features)
        self.alike = self.stack.alike()
        self.batch_slots = batch_slots(experiment, index)
        self.population: Population | None = None
        self.drawn = -1

    def step(self, t: int, record: bool) -> dict[str, Tensor]:
        """Update t of every network of the stack; the rows it showed."""
        x, y = self.mini_batch(t)
        self.stack.gradient(x, y, self.rows if record else None)
        d, c = self.stack.direction()
        rows = self.rows.measured(d, c) if record else {}
        self.stack.update(d, c)
        return rows

    def mini_batch(self, t: int) -> tuple[Tensor, Tensor]:
        """x [S, K, n_in] and y [S, K] of step t; networks of one seed see the same."""
        if t // DRAWN != self.drawn:
            self.drawn = t // DRAWN
            by_seed = {seed: mini_batches(self.settings, seed, self.drawn * DRAWN) for seed in set(self.seeds)}
            index = np.stack([by_seed[seed] for seed in self.seeds], 1)  # [DRAWN, S, K]
            self.index_of = torch.from_numpy(index).to(self.x.device)
        i = self.index_of[t % DRAWN]
        x, y = self.splits["train"]
        return self.x.copy_(x[i]), y[i]

    def scores(self) -> Iterator[Score]:
        """Loss and accuracy over both splits with each kind of statistics; keeps the population statistics it meets.

        "batch": the split in near-equal mini-batches of at most K, each normalized by its own statistics (none for
        K = 1); "population": the whole training set at once; "moving": the moving averages; "none": the norm has none.
        """
        moments = []
        for slots, networks, b in self.alike:
            count = slots.stop - slots.start
            whole = {name: x.expand(count, *x.shape) for name, (x, _) in self.splits.items()}
            if b is None:
                for name, x in whole.items():
                    yield self.score(name, "none", slots, [networks.forward(x)[0]])
                continue
            for name, x in whole.items() if self.stack.K > 1 else ():  # an example alone has no variance
                split_up = x.tensor_split(parts(x.shape[1], self.stack.K), dim=1)
                yield self.score(name, "batch", slots, [networks.forward(part)[0] for part in split_up])
            moving = Statistics(self.stack.moving_mean[:, b].unbind(0), self.stack.moving_var[:, b].unbind(0))
            for name, x in whole.items():
                yield self.score(name, "moving", slots, [networks.forward(x, moving)[0]])
            x = whole["train"]
            outputs, found = population(networks, x)
            found = Statistics(*([q.to(x.dtype) for q in part] for part in found))
            yield self.score("train", "population", slots, [outputs])
            yield self.score("test", "population", slots, [networks.forward(whole["test"], found)[0]])
            moments.append([torch.stack(part)[:, :, 0] for part in found])
        if moments:
            mean, var = (torch.cat(part, 1).cpu().numpy() for part in zip(*moments, strict=True))
            moving = (part[:, :, 0].clone().cpu().numpy() for part in (self.stack.moving_mean, self.stack.moving_var))
            self.population = Population(self.index, self.batch_slots, mean, var, *moving)

    def score(self, name: str, statistics: str, slots: slice, outputs: list[Tensor]) -> Score:
        """Score outputs, given in parts along the examples of the split."""
        count = slots.stop - slots.start
        y = self.splits[name][1]
        loss, accuracy, _ = self.stack.criterion(torch.cat(outputs, 1), y.expand(count, -1))
        return Score(
            self.index,
            name,
            statistics,
            tuple(range(slots.start, slots.stop)),
            loss.cpu().numpy(),
            None if accuracy is None else accuracy.cpu().numpy(),
        )


def score_interval(experiment: Experiment) -> int:
    """Steps between two scorings: so many that they cost about SCORING_SHARE of the training, but at least ten a run.

    By this model of the cost, never by the clock, so that the same experiment is always scored at the same steps.
    """
    cost = 0.0  # of one scoring, in steps
    for arm in experiment.arm_settings:
        data = DATASETS[arm.data]
        passes = 3 if arm.norm == "batch" else 1
        cost += passes * (data.n_train + data.n_test) * FORWARD / arm.mini_batch
    affordable = ceil(cost / len(experiment.arms) / SCORING_SHARE)
    return max(1, min(affordable, ceil(experiment.settings.steps / 10)))


def device_for(experiment: Experiment, asked: str) -> str:
    """The device to train on: "cpu", "cuda", or for "auto" the one that is likely faster.

    A step on CUDA is some hundreds of kernels whatever their size, so small networks are faster on a processor; the
    choice is made by the multiplications of a step. Raises ValueError if cuda is asked for and there is none.
    """
    if asked == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        if asked == "cuda":
            raise ValueError("device is cuda; this machine has no CUDA device that torch can use. Choose cpu or auto.")
        return "cpu"
    work = sum(
        3 * s.mini_batch * s.depth * s.width**2 for s in (experiment.arm_settings[n.arm] for n in experiment.networks)
    )
    return "cuda" if asked == "cuda" or work > CUDA_WORTH else "cpu"
