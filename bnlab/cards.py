"""A run in a glance: its state in words, and per arm the loss, the test score and a verdict on its gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .data import DATASETS
from .figures import style
from .figures.curves import STATISTICS
from .figures.verdict import UNDEFINED, verdict
from .reading import Trace
from .run import Run

RECENT = 20  # mini-batches the loss of a card is the mean of
PREFERRED = ("moving", "none", "population", "batch")  # whose test score a card shows: the statistics of inference


class Card(NamedTuple):
    """One arm in numbers, means over its seeds; None where there is none yet.

    loss: mean of the last RECENT mini-batches. score: accuracy (share), or loss for a regression, over the test set
    with `statistics` in the norms, as it was scored at step `scored`.
    """

    loss: float | None
    score: float | None
    statistics: str
    scored: int


def card(trace: Trace, arm: int) -> Card:
    loss = None
    if trace.step >= 0:
        loss = average(trace.read("loss", arm, start=max(0, trace.step - RECENT)).mean[-RECENT:])
    score, used, at = None, "", -1
    for statistics in PREFERRED:
        steps, losses, accuracies = trace.scores(arm, "test", statistics, points=1)
        if len(steps):
            score, used, at = average((losses if accuracies is None else accuracies)[-1]), statistics, int(steps[-1])
            break
    return Card(loss, score, used, at)


def average(values: np.ndarray) -> float | None:
    """Mean of the numbers that are there; None where none is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else None


def state(trace: Trace, position: int | None = None) -> dict[str, Any]:
    """What the board shows, all formatted; `position` is the number of runs ahead in the queue."""
    run, experiment = trace.run, trace.experiment
    steps = experiment.settings.steps
    made = updates(run, steps)
    facts = [f"step {made:,} of {steps:,}"]
    if run.steps_per_second and run.status == "running":
        facts.append(f"{run.steps_per_second:,.0f} steps/s")
    return {
        "status": run.status,
        "words": words(run, steps, position),
        "step": run.step,
        "made": made,
        "steps": steps,
        "facts": [*facts, run.device],
        "arms": [shown(trace, arm) for arm in range(len(experiment.arms))],
    }


def updates(run: Run, steps: int) -> int:
    """How many updates were made: one more than the last recorded step, which is seen before its update."""
    return min(run.step + 1, steps)


def words(run: Run, steps: int, position: int | None) -> str:
    """The run's status as a person says it, with what can be done."""
    made = updates(run, steps)
    at = f"after {made:,} step{'' if made == 1 else 's'}" if made else "before the first step"
    of = len(run.experiment.networks)
    lost = f"; {len(run.diverged)} of {of} networks diverged" if run.diverged and of > 1 else ""
    return {
        "queued": "Starting"
        if position is None
        else f"Waiting; {f'{position} ahead' if position else 'next'} in the queue",
        "running": "Training",
        "paused": f"Paused {at}",
        "done": f"Done after {steps:,} step{'' if steps == 1 else 's'}{lost}",
        "stopped": f"Stopped {at}{lost}",
        "diverged": f"Diverged: {run.reason}" if run.reason else "Diverged",
        "failed": f"Failed {at}: {run.reason}",
        "interrupted": f"Interrupted {at}. Resume continues from the last snapshot",
    }[run.status]


def shown(trace: Trace, arm: int) -> dict[str, Any]:
    """One card, formatted."""
    told, experiment = card(trace, arm), trace.experiment
    settings = experiment.arm_settings[arm]
    regression = DATASETS[settings.data].task == "regression"
    over = f" over {len(experiment.seeds)} seeds" if len(experiment.seeds) > 1 else ""
    using = f", with {STATISTICS[told.statistics]}" if told.statistics in STATISTICS else ""
    earlier = f" at step {told.scored:,}" if told.score is not None and told.scored < trace.step else ""
    rows = [
        {
            "name": "Loss",
            "value": "–" if told.loss is None else f"{style.amount(told.loss)} {'' if regression else 'nats'}".strip(),
            "help": f"Training loss, mean of the last {RECENT} mini-batches{over}.",
        },
        {
            "name": ("Test loss" if regression else "Test accuracy") + earlier,
            "value": "–"
            if told.score is None
            else style.amount(told.score)
            if regression
            else f"{100 * told.score:.1f} %",
            "help": f"Over the whole test set{using}, mean{over}." if over else f"Over the whole test set{using}.",
        },
    ]
    flow = verdict(trace, arm)
    remedy = "; lower the learning rate" if flow.help == UNDEFINED else ""
    return {
        "label": experiment.arms[arm].label,
        "color": style.color(arm),
        "dash": style.dash(arm),
        "rows": rows,
        "verdict": flow.words + remedy,
        "verdict_help": flow.help,
        "tone": flow.tone,
    }
