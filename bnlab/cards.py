"""A run in a glance: its state in words, and per arm the loss, the test score and a verdict on its gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .data import DATASETS
from .figures import style
from .figures.curves import SMOOTHING, STATISTICS
from .figures.verdict import RECENT, UNDEFINED, verdict
from .problems import series
from .reading import Trace
from .run import Run

LOSSES = int(next(iter(SMOOTHING.choices)))  # the loss is the mean of so many steps: where its line ends unless asked
CALLED = {"queued": "Waiting", "running": "Training"}  # what people are told; any other status as it is
HOLD = 2  # seconds that a verdict stands while its run trains, unless its tone changes: digits have to be read
NO_SCORE = {
    False: "Over the whole test set; not scored yet.",
    True: "Over the whole test set; all networks have diverged.",
}
NO_LOSS = {False: "Training loss. No mini-batch is recorded yet.", True: "Training loss. All networks have diverged."}


class Card(NamedTuple):
    """One arm in numbers, means over those of its seeds that have some; None where there is none yet.

    loss: mean of the last `recent` mini-batches, over the `trained` seeds that have not diverged. score: accuracy
    (share), or loss for a regression, over the test set with `statistics` in the norms, as it was scored at step
    `scored`; over `tested` seeds.
    """

    loss: float | None
    recent: int
    trained: int
    score: float | None
    tested: int
    statistics: str
    scored: int


def card(trace: Trace, arm: int) -> Card:
    loss, recent, trained = None, 0, 0
    if trace.step >= 0:
        left = [i for i, seed in enumerate(trace.experiment.seeds) if (arm, seed) not in trace.diverged]
        stop = min(trace.step + 1, trace.experiment.settings.steps)
        read = trace.read("loss", arm, start=max(0, stop - LOSSES), stop=stop)
        counts = read.last(stop - 1) - read.steps + 1  # a point stands for several where exact rows have made room
        loss, trained = average(read.mean[:, left], counts)
        recent = int(counts.sum())
    score, tested, at = None, 0, -1
    used = "moving" if trace.experiment.arm_settings[arm].norm == "batch" else "none"  # the statistics of inference
    scored, losses, accuracies = trace.scores(arm, "test", used, points=1)
    if len(scored):
        score, tested = average((losses if accuracies is None else accuracies)[-1:], np.ones(1))
        at = int(scored[-1])
    return Card(loss, recent, trained, score, tested, used, at)


def average(values: np.ndarray, counts: np.ndarray) -> tuple[float | None, int]:
    """Mean of the numbers that are there, values [n, seeds] that count counts [n] times, None where none is; and how
    many seeds have some."""
    there = ~np.isnan(values)
    weights = (there * counts[:, None])[there]
    return float(np.average(values[there], weights=weights)) if there.any() else None, int(there.any(0).sum())


def outcome(trace: Trace) -> str:
    """What came of a run, in a line: the test accuracy of every arm (of a regression the test loss), or that it
    diverged; empty where nothing is scored."""
    told = []
    for arm, (side, settings) in enumerate(zip(trace.experiment.arms, trace.experiment.arm_settings, strict=True)):
        lost = sum((arm, seed) in trace.diverged for seed in trace.experiment.seeds)
        score = card(trace, arm).score
        seeds = len(trace.experiment.seeds)
        if lost < seeds and score is not None:
            some = f" ({lost} of {seeds} seeds diverged)" if lost else ""
            told.append(f"{side.label}: {amount(score, DATASETS[settings.data].task)}{some}")
        elif lost == seeds:
            told.append(f"{side.label}: diverged")
    kinds = {DATASETS[settings.data].task for settings in trace.experiment.arm_settings}
    what = {("classification",): "Test accuracy", ("regression",): "Test loss"}.get(tuple(kinds), "Test score")
    return f"{what} · {'; '.join(told)}" if told else ""


def amount(score: float, task: str) -> str:
    """A test score: an accuracy, or the loss of a regression."""
    return style.amount(score) if task == "regression" else f"{score:.1%}"


def state(trace: Trace, position: int | None = None) -> dict[str, Any]:
    """What the board shows, all formatted; `position` is the number of runs ahead in the queue."""
    run, experiment = trace.run, trace.experiment
    steps = experiment.settings.steps
    facts = [f"step {run.made:,} of {steps:,}"]
    if run.steps_per_second and run.status == "running":
        facts.append(speed(run.steps_per_second))
    if run.device != "auto":  # which is chosen when it trains
        facts.append(run.trained_on)
    arms = [shown(trace, arm) for arm in range(len(experiment.arms))]
    return {
        "status": run.status,
        "words": words(run, position),
        "step": run.step,
        "made": run.made,
        "steps": steps,
        "facts": facts,
        "arms": arms,
        "hold": HOLD,
        "told": told_together(arms),
    }


def speed(rate: float) -> str:
    """So many steps a second; of large networks the seconds of a step."""
    return f"{rate:,.0f} steps/s" if rate >= 9.5 else f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:,.3g} s/step"


def words(run: Run, position: int | None) -> str:
    """The run's status as a person says it, with what can be done."""
    steps = run.experiment.settings.steps
    at = f"after {run.made:,} step{'' if run.made == 1 else 's'}" if run.made else "before the first step"
    of = len(run.experiment.networks)
    lost = f"; {len(run.diverged)} of {of} networks diverged" if run.diverged and of > 1 else ""
    return {
        "queued": "Starting"
        if position is None
        else f"{CALLED['queued']}; {f'{position} ahead' if position else 'next'} in the queue",
        "running": f"{CALLED['running']}{lost}",
        "paused": f"Paused {at}{lost}",
        "done": f"Done after {steps:,} step{'' if steps == 1 else 's'}{lost}",
        "stopped": f"Stopped {at}{lost}",
        "diverged": f"Diverged: {run.reason}" if run.reason else "Diverged",
        "failed": f"Failed {at}: {run.reason}",
        "interrupted": f"Interrupted {at}. Resume continues from the last snapshot",
    }[run.status]


def told_together(arms: list[dict[str, Any]]) -> list[str]:
    """The helps of all cards, row by row, as they are read below them without a mouse: what arms share once."""
    helps = [[*((row["name"], row["help"]) for row in arm["rows"]), ("Gradient", arm["verdict_help"])] for arm in arms]
    told = []
    for row in zip(*helps, strict=True):
        for name, help in dict.fromkeys(row):
            of = [arm["label"] for arm, its in zip(arms, row, strict=True) if its == (name, help)]
            whose = f" ({series(of)})" if len(of) < len(arms) else ""
            told.append(f"{name}{whose}: {help}")
    return told


def seeds(there: int, of: int, others: str) -> tuple[str, str]:
    """Of how many seeds a mean is, for its name, where some are left out, and for its help: ' over 8 seeds'; what the
    `others` are or have."""
    if 0 < there < of:
        return f", {there} of {of} seeds", f" over {there} of {of} seeds: the others {others}"
    return "", f" over {of} seeds" if of > 1 else ""


def shown(trace: Trace, arm: int) -> dict[str, Any]:
    """One card, formatted."""
    told, experiment = card(trace, arm), trace.experiment
    settings = experiment.arm_settings[arm]
    regression = DATASETS[settings.data].task == "regression"
    loss_of, loss_over = seeds(told.trained, len(experiment.seeds), "have diverged")
    score_of, score_over = seeds(told.tested, len(experiment.seeds), "have none that is a number")
    recent = f"mean of the last {told.recent} mini-batches" if told.recent != 1 else "of the last mini-batch"
    lost = all((arm, seed) in trace.diverged for seed in experiment.seeds)
    using = f", with {STATISTICS[told.statistics]}" if told.statistics in STATISTICS else ""
    earlier = f" at step {told.scored:,}" if told.score is not None and told.scored < trace.step else ""
    rows = [
        {
            "name": "Mini-batch loss" + loss_of,
            "value": "–" if told.loss is None else f"{style.amount(told.loss)} {'' if regression else 'nats'}".strip(),
            "help": f"Training loss{' (mean squared error)' if regression else ''}, {recent}{loss_over}."
            if told.loss is not None
            else NO_LOSS[lost],
        },
        {
            "name": ("Test loss" if regression else "Test accuracy") + earlier + score_of,
            "value": "–" if told.score is None else amount(told.score, DATASETS[settings.data].task),
            "help": f"Over the whole test set{using}{score_over and ', mean'}{score_over}."
            if told.score is not None
            else NO_SCORE[lost],
        },
    ]
    flow = verdict(trace, arm, recent=RECENT)
    running = trace.run.status == "running"
    held = f" While the run trains, the words stand for {HOLD} seconds, unless their kind changes." if running else ""
    remedy = "; lower the learning rate" if flow.help == UNDEFINED else ""
    return {
        "label": experiment.arms[arm].label,
        "color": style.color(arm),
        "dash": style.dash(arm),
        "rows": rows,
        "verdict": flow.words + remedy,
        "verdict_help": flow.help + held,
        "tone": flow.tone,
    }
