"""Costly looks at a copy of the networks, at moments of a training: looking changes nothing.

A probe is one function `look(group, **options)` in one file here. `group` is a copy of one stack with its data,
restored to a recorded step t: `group.mini_batch(t)` is the mini-batch of update t. What it returns are arrays by name,
the slot axis first. Chance comes from the seed and the step alone, so that the same look sees the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import numpy as np

from ..experiment import Experiment
from ..registry import Registry
from ..train import Group, score_interval

LOOKING_SHARE = 0.15  # of the training time, for all live probes together


class Asked(NamedTuple):
    """One option of a probe: a number between low and high, whole where the default is, or one of `choices`."""

    default: int | float | str
    low: float = 0
    high: float = 1
    choices: tuple[str, ...] = ()


class Probe(NamedTuple):
    """What a probe is. `file`: where its look() stands; `cost`: of a look, in training steps, about, as measured;
    `live`: whether it looks at intervals while a run trains. A probe without batch norm's statistics looks at all."""

    label: str
    help: str
    file: str
    cost: float
    options: Mapping[str, Asked] = {}
    live: bool = False

    def look(self, group: Group, **options: object) -> dict[str, np.ndarray]:
        """Look; arrays [S, ...] by name."""
        return importlib.import_module(f".{self.file}", __name__).look(group, **options)


PROBES: Registry[Probe] = Registry("probe")


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
        if asked.choices:
            if value not in asked.choices:
                raise ValueError(f"{option} is {options[option]!s:.40}; allowed is one of {', '.join(asked.choices)}.")
        elif value is None or not asked.low <= value <= asked.high:
            raise ValueError(f"{option} is {options[option]!s:.40}; allowed is {asked.low:g} to {asked.high:g}.")
        values[option] = value
    return values


class Copies:
    """Copies of all stacks of an experiment, on the processor, made once and restored for each look."""

    def __init__(self, experiment: Experiment):
        import torch

        self.groups = [Group(experiment, i, "cpu", torch.float32) for i in range(len(experiment.stacks))]
        self.torch = torch

    def look(self, name: str, options: Mapping, step: int, vectors: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """What a probe sees of each stack as a snapshot taken before update `step` describes it."""
        with self.torch.no_grad():
            for group, vector in zip(self.groups, vectors, strict=True):
                group.stack.restore(step, vector)
            return [PROBES[name].look(group, **options) for group in self.groups]


def schedule(experiment: Experiment) -> dict[str, int]:
    """Steps between two looks of each live probe: multiples of the scoring interval, so chosen from the probes' costs
    that together they take about LOOKING_SHARE of the training; never by the clock. A probe too costly for two looks
    a run is left out."""
    every = experiment.settings.score_every or score_interval(experiment)
    live = {name: probe for name, probe in PROBES.items() if probe.live}
    found = {}
    for name, probe in live.items():
        steps = probe.cost / (LOOKING_SHARE / len(live))
        interval = every * max(1, ceil(steps / every))
        if interval <= experiment.settings.steps:
            found[name] = interval
    return found
