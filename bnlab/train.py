"""Training as a generator of Records: to record is to append, to stop is to leave the loop."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from math import ceil

import numpy as np

from .data import DATASETS
from .experiment import Experiment, Network
from .group import Group
from .record import Part, Record, Score
from .registry import LazyModule
from .settings import Settings

torch = LazyModule("torch")

SCORING_SHARE = 1 / 10  # of the training time, by the cost model below
FORWARD = 0.4  # cost of an example's forward pass in units of its share of a recorded training step
CUDA_WORTH = 2e8  # multiply-adds of a step above which CUDA was faster (benchmarks/devices.py)


def train(
    experiment: Experiment,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    record: bool = True,
    start: tuple[int, list[np.ndarray]] | None = None,
    ahead: bool = False,
    pieces: bool = False,
) -> Generator[Record, bool | None]:
    """Train every arm and seed together; yield one Record a step, and a last one with the final scores.

    `start` is a step and the vectors of a snapshot, one for every stack (else ValueError): training goes on from there
    as if it had never stopped, to the last bit. `send(True)` in place of next() ends it: the record that comes is the
    last, with the final scores. With `record=False` the records are empty, and the networks learn bitwise the same.
    With `ahead`, the row of the first step comes also in a record of its own, before the scoring that it would wait
    for. With `pieces`, a record of nothing comes after each piece of a scoring, where training can end, too: its
    snapshot is that before the step. A network that has diverged, a weight of it is not finite, trains to the next
    scoring; its values are NaN from then. `device` as in device_for(), which raises ValueError where there is none.
    """
    device = device_for(experiment, device)
    with one_thread():
        groups = [Group(experiment, i, device, dtype or torch.float32) for i in range(len(experiment.stacks))]
    first = start[0] if start else 0
    if start:
        restore(groups, *start)
    del start  # it makes room
    steps = experiment.settings.steps
    every = score_interval(experiment)

    def snapshot() -> list[np.ndarray]:
        return [group.snapshot() for group in groups]

    if ahead:
        beginning = snapshot()
        with torch.no_grad(), one_thread():
            parts = tuple(Part(group.step(first, record)) for group in groups) if first < steps else ()
        if (yield Record(experiment, first, parts, [], [], None, snapshot)):
            steps = first
        restore(groups, first, beginning)
        del beginning, parts
    t = first
    while t <= steps:
        scored = record and is_scored(t, every, steps)
        broken = [group.broken() if scored or t == first else [] for group in groups]
        scores = []
        for score in scoring(groups, broken) if scored else ():
            scores.append(score)
            if pieces and (yield Record(experiment, t, (), [], [], None, snapshot)):
                steps, pieces = t, False
        with torch.no_grad(), one_thread():
            population = [group.population for group in groups if group.population] if scored else []
            weights = [g.snapshot(lost) for g, lost in zip(groups, broken, strict=True)] if scored else None
            parts = tuple(Part(group.step(t, record)) for group in groups) if t < steps else ()
            for group, lost in zip(groups, broken, strict=True):
                group.leave_out(lost)  # only now: this row may be the first that shows where they broke
        if (yield Record(experiment, t, parts, scores, population, weights, snapshot)):
            steps, pieces = min(steps, t + 1), False
        t += 1


@contextmanager
def one_thread() -> Iterator[None]:
    """On one thread of the processor, as the command line and the pages train: several round sums otherwise. torch has
    one number for all of Python's threads: where two train at once, the caller's may be lost."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def scoring(groups: list[Group], broken: list[list[Network]]) -> Iterator[Score]:
    """The scores of all groups, piece by piece; `broken` are the networks of each that are not scored."""
    for group, lost in zip(groups, broken, strict=True):
        scores = group.scores(lost)
        while True:
            with torch.no_grad(), one_thread():  # not beyond the piece: they would hold for whoever takes it
                score = next(scores, None)
            if score is None:
                break
            yield score


def restore(groups: list[Group], step: int, vectors: list[np.ndarray]) -> None:
    for group, vector in zip(groups, vectors, strict=True):
        group.stack.restore(step, vector)


def score_interval(experiment: Experiment) -> int:
    """Steps between two scorings: as asked, or so many that they cost about SCORING_SHARE, but at least ten a run.

    By this model of the cost, never by the clock, so that the same experiment is always scored at the same steps.
    """
    if experiment.settings.score_every:
        return experiment.settings.score_every
    cost = 0.0  # of one scoring, in steps
    for arm in experiment.arm_settings:
        cost += scored_examples(arm) * FORWARD / arm.mini_batch
    affordable = ceil(cost / len(experiment.arms) / SCORING_SHARE)
    return max(1, min(affordable, ceil(experiment.settings.steps / 10)))


def is_scored(t: int, every: int, steps: int) -> bool:
    """Whether the networks are scored before update t of a training that ends after `steps`."""
    return t % every == 0 or t == steps


def scheduled(experiment: Experiment, steps: Iterable[int]) -> list[int]:
    """Of these steps, in order, those at which the training is scored anyway: a pause is wherever one likes."""
    every = score_interval(experiment)
    return sorted(t for t in steps if is_scored(t, every, experiment.settings.steps))


def scored_examples(arm: Settings) -> int:
    """How many examples a network is given in one scoring: both splits, with each kind of statistics."""
    data = DATASETS[arm.data]
    return (3 if arm.norm == "batch" else 1) * (data.n_train + data.n_test)


def scoring_cost(experiment: Experiment) -> int:
    """Multiply-adds of one scoring, about."""
    each = [experiment.arm_settings[n.arm] for n in experiment.networks]
    return sum(scored_examples(s) * s.depth * s.width**2 for s in each)


def step_cost(experiment: Experiment) -> int:
    """Multiply-adds of one step of all networks, about."""
    each = [experiment.arm_settings[n.arm] for n in experiment.networks]
    return sum(3 * s.mini_batch * s.depth * s.width**2 for s in each)


def device_for(experiment: Experiment, asked: str) -> str:
    """The device to train on: the one that is named, or for "auto" the one that is likely faster.

    A step on CUDA is about a thousand kernels whatever their size, so small networks are faster on a processor; the
    choice is made by the multiplications of a step. Raises ValueError for another name, and if cuda is asked for and
    there is none.
    """
    asked = str(asked)
    kind, _, number = asked.partition(":")  # cuda:1 is one of several
    if asked not in ("auto", "cpu") and not (kind == "cuda" and (number.isdecimal() or asked == kind)):
        raise ValueError(f"device is {asked[:40] or 'empty'}; allowed is auto, cpu, cuda, or one such as cuda:1.")
    if asked == "cpu":
        return asked
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return "cuda" if there and step_cost(experiment) > CUDA_WORTH else "cpu"
    if int(number or 0) >= there:
        such = "such " if number else ""
        raise ValueError(
            f"device is {asked}; this machine has no {such}CUDA device that torch can use. Choose cpu or auto."
        )
    return asked
