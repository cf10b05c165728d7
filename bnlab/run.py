"""Run: an experiment asked at one moment, how far it is, and what it is called."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from .data import DATASETS
from .experiment import Experiment
from .problems import between, enumeration
from .settings import SHARED, Settings, about

UNDER_WAY = ("queued", "running")
STOP_FIRST = "Stop the run first."  # it is not deleted while it is under way
STEERED = ("paused", "stopped")  # by somebody, who may let it go on at once
RESTING = (*STEERED, "interrupted", "failed")  # it can go on from its newest snapshot
ENDED = ("done", "stopped", "diverged", "failed")
FOREIGN = "The run {!r} was created by another version of the lab and cannot be read by this one. Choose another run."
LONGEST_NAME = 120  # characters
ALIVE = 30.0  # seconds after its last sign in which a run that trains, or waits, is taken to be held by someone


class Run(NamedTuple):
    """An experiment asked at one moment, and how far it is.

    status: queued, running, paused, interrupted, or one of ENDED; reason: a sentence where that needs one. step: the
    last recorded one, -1 before the first. updated: its last sign, in seconds that know no summer time.
    steps_per_second: lately. diverged: for each network (arm, seed) that did, the step and the layer where it began (0:
    the readout). version changes with anything else here.
    """

    id: str
    name: str
    experiment: Experiment
    status: str
    reason: str
    step: int
    created: datetime
    updated: float
    device: str
    steps_per_second: float
    diverged: dict[tuple[int, int], tuple[int, int]]
    version: int
    newest: int | None  # step of the newest snapshot
    first: int  # the first step: 0, or where it was forked from another

    @property
    def made(self) -> int:
        """How many updates were made: one more than the last recorded step, which is seen before its update; not one
        more where the run rests before that, in its first scoring. Of a fork the parent's count, too."""
        if self.newest == self.step and self.status in RESTING:
            return self.step
        return max(self.first, min(self.step + 1, self.experiment.settings.steps))

    @property
    def trained_on(self) -> str:
        """CPU, CUDA:0; auto as long as none is chosen."""
        return self.device if self.device == "auto" else self.device.upper()

    @property
    def ended(self) -> bool:
        """Nothing will be added unless someone asks for it."""
        return self.status in ENDED

    @property
    def alive(self) -> bool:
        """Some process trains it, or did a moment ago."""
        return self.status == "running" and self.fresh

    @property
    def abandoned(self) -> bool:
        """It trains or waits by what is written, but whoever trained it, or had it in its queue, is gone."""
        return self.status in UNDER_WAY and not self.fresh

    @property
    def fresh(self) -> bool:
        return abs(time.time() - self.updated) < ALIVE  # a sign to come is from before the clock was set back


def outbreak(where: Iterable[tuple[int, int]]) -> tuple[int, str]:
    """The first step at which some of these networks diverged, (step, layer) each, and in which layers those did: of
    two at one step none was before the other. 'layer 3', 'layers 3 and 5', 'the readout'."""
    where = list(where)
    first = min(step for step, _ in where)
    layers = sorted({layer for step, layer in where if step == first})
    names = [str(layer) for layer in layers if layer]
    found = [f"layer{'s' * (len(names) > 1)} {enumeration(names)}"] if names else []
    found += ["the readout"] * (0 in layers)
    return first, " and ".join(found)


def outbreaks(where: Mapping[tuple[int, int], tuple[int, int]]) -> dict[int, tuple[int, str]]:
    """The same of each arm of which a network diverged; `where` as Run.diverged."""
    arms = sorted({arm for arm, _ in where})
    return {arm: outbreak(at for (other, _), at in where.items() if other == arm) for arm in arms}


class Taken(ValueError):
    """Another process trains the run."""

    def __init__(self, run_id: str):
        super().__init__(
            f"run {run_id} is being trained by another process, a command line or another server. Let it end, or "
            f"interrupt it there. If that process was killed, the run is free again within {ALIVE:.0f} seconds."
        )


@lru_cache(256)
def parsed(text: str) -> Experiment:
    """The experiment that a row tells; of the same text it is made once."""
    return Experiment.model_validate_json(text)


def run_in(row: tuple) -> Run:
    """The run that a row of the table `runs` holds. Raises KeyError with a sentence where its question is none here."""
    run_id, name, text, status, reason, step, created, updated, device, rate, diverged, version, newest, first = row
    try:
        experiment = parsed(text)
    except ValidationError:
        raise KeyError(FOREIGN.format(name)) from None
    return Run(
        run_id,
        name,
        experiment,
        status,
        reason,
        step,
        datetime.fromtimestamp(created),
        updated,
        device,
        rate,
        {(arm, seed): (at, layer) for arm, seed, at, layer in json.loads(diverged)},
        version,
        newest,
        first,
    )


def checked_name(name: str) -> str:
    """A name in one line. Raises ValueError where it is empty or too long."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"the name has {len(name)} characters; allowed are 1 to {LONGEST_NAME}.")
    return name


def shortened(name: str) -> str:
    """A name of at most LONGEST_NAME characters, cut between two words."""
    if len(name) <= LONGEST_NAME:
        return name
    whole, blank, _ = name[:LONGEST_NAME].rpartition(" ")
    return (whole.rstrip(" ,:") if blank else name[: LONGEST_NAME - 1]) + "…"


def described(experiment: Experiment) -> str:
    """A name that says what is asked: data, size, what else is not as by default, where all arms have it; arms; seeds
    unless it is seed 0 alone."""
    first, usual = experiment.arm_settings[0], Settings().model_dump()
    alike = {
        name: value
        for name, value in first.model_dump().items()
        if all(getattr(settings, name) == value for settings in experiment.arm_settings)
    }
    said = ("data", "depth", "width", "activation", *SHARED)  # how long it trains stands beside the name
    data = DATASETS[alike["data"]].label if "data" in alike else ""
    size = f"{alike['depth']} × {alike['width']}" if "depth" in alike and "width" in alike else ""
    network = f"{size} {alike.get('activation', '')}".strip()
    others = [briefly(name, value) for name, value in alike.items() if name not in said and value != usual[name]]
    asked = ", ".join(filter(None, (data, network, *others)))
    count, seed = len(experiment.seeds), experiment.seeds[0]
    named = [arm.label for arm in experiment.arms]
    seeds = [f"{count} seeds"] if count > 1 else [f"seed {seed}"] if seed else []
    told = between(named).join(named + seeds)
    return f"{asked}: {told}" if asked else told


def briefly(name: str, value: Any) -> str:
    """A setting in a few characters: K = 32, Adam, initial gain 3."""
    told = about(name)
    if told.choices:
        return f"{told.symbol} {told.choices[value].partition(':')[0]}".strip()
    if isinstance(value, bool):
        return f"{told.label.lower()}: {'on' if value else 'off'}"
    number = value if isinstance(value, str) else f"{value:g}"
    return f"{told.symbol} = {number}" if told.symbol else f"{told.label.lower()} {number}"
