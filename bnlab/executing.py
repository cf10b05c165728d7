"""A run is trained from where it rests, and what is seen is kept, until it ends or somebody wishes that it rests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from . import looking
from .database import Unkept
from .experiment import Experiment
from .fork import vectors
from .keeping import Writer
from .looking import Due, look_at
from .probes import schedule
from .run import Run, outbreak, outbreaks
from .store import GONE, RunStore
from .train import device_for, score_interval, scoring_cost, train

LONG_SCORING = 3e10  # multiply-adds, some seconds' worth, above which a stopped run is not scored: others wait for it


class Unable(ValueError):
    """A run cannot go on here, and the sentence says why."""


def execute(store: RunStore, run_id: str, asked: Callable[[], str | None], steps: int | None = None) -> None:
    """Train a run from its newest snapshot, or from the start, and keep what is seen, also by the looks it leaves."""
    _, due = train_run(store, run_id, asked, steps)
    look_at(store, run_id, due)


def train_run(
    store: RunStore, run_id: str, asked: Callable[[], str | None], steps: int | None = None, waits: bool = False
) -> tuple[str, Due]:
    """Train a run, and keep what is seen. The status it ends with, and the live looks that are due then.

    `asked()` is looked at after every step and every piece of a look or of a scoring: "pause", "stop" or "interrupt"
    ends the training there, with a snapshot to go on from; where it is stopped it is scored. `steps` is a number of
    steps after which to pause, not counting those whose updates were made before and are made again. Live looks come
    one by one, spread over the steps to the next scoring. Sets the run's status; raises what training raises, and
    Taken, which leaves the run as it is, where another process trains it, with `waits` also where it waits no more.
    """
    run = store.run(run_id)
    device = chosen_device(run)
    run = store.claim(run_id, device, waits)
    before = run.step - (run.newest == run.step)  # the last update made: of a row at the newest snapshot none was
    status, reason, done, wish, looks = "done", "", 0, None, schedule(run.experiment)
    due: Due = []
    total = run.experiment.settings.steps
    apart, every = 1, score_interval(run.experiment)  # steps between two looks: a curve stands still for one at most
    records = train(run.experiment, device=device, start=beginning(store, run_id), ahead=run.step < 0, pieces=True)
    with store.writer(run_id) as writer:
        if run.step < 0:
            writer.keep(next(records))  # whoever has just pressed Train sees it before the first scoring
        for record in records:
            if record.holds_anything:
                writer.keep(record)
                if record.weights:
                    wish = take(store, run_id, due, len(due), writer, asked)
                    due += [(name, record.step, record.weights) for name, n in looks.items() if record.step % n == 0]
                    apart = max(1, every // (len(due) + 1))
                elif record.step % apart == 0:
                    wish = take(store, run_id, due, 1, writer, asked)
                done += record.step > before
                if not record.parts:
                    break
                if writer.all_diverged:
                    status, reason = "diverged", diverged(run.experiment, writer.diverged)
                    break
                if done == steps and record.step + 1 < total:  # else nothing is left to rest from
                    wish = wish or "pause"
            else:  # a piece of a scoring
                writer.wait()
            wish = wish or asked()
            if wish:
                writer.snapshot(record.next, record.snapshot())
                status = {"pause": "paused", "stop": "stopped", "interrupt": "interrupted"}[wish]
                reason = "The training process was ended; the run can be resumed." if wish == "interrupt" else ""
                break
    store.change(run_id, status=status, reason=reason)
    if status == "stopped" and record.step >= run.step and scoring_cost(run.experiment) < LONG_SCORING:
        writer.score(records.send(True))  # whoever stops has not waited for it
    return status, due if wish != "interrupt" else []


def chosen_device(run: Run) -> str:
    """The device to train a run on. Raises ValueError where there is none, and Unable where it was begun on one that
    this machine lacks: on another it would not go on to the last bit."""
    try:
        return device_for(run.experiment, run.device)
    except ValueError as error:
        if run.step < 0:
            raise
        raise Unable(
            f"it was begun on {run.trained_on}, which this machine does not have. Resume it where there is one, or "
            "Reset to train it anew on this machine."
        ) from error


def take(
    store: RunStore, run_id: str, due: Due, count: int, writer: Writer, asked: Callable[[], str | None]
) -> str | None:
    """Take the first `count` looks that are due. What is wished for meanwhile ends that, and is returned; the look it
    came into is due again."""
    for name, step, weights in due[:count]:
        with suppress(Unkept):  # looking changes nothing: a training goes on, and the look can be taken later
            for _ in looking.pieces(store, run_id, name, {}, step, weights):
                writer.wait()
                if wish := asked():
                    return wish
        due.pop(0)
        if wish := asked():
            return wish
    return None


def score(store: RunStore, run_id: str) -> None:
    """Score a run that was stopped while it rested at its newest snapshot, as one that was to end there."""
    run = store.run(run_id)
    if run.newest in (run.step, run.step + 1) and scoring_cost(run.experiment) < LONG_SCORING:
        settings = run.experiment.settings.model_copy(update={"steps": run.newest})
        ending = run.experiment.model_copy(update={"settings": settings})
        device = device_for(ending, run.device)
        with store.writer(run_id) as writer:
            writer.score(next(train(ending, device=device, start=beginning(store, run_id))))


def beginning(store: RunStore, run_id: str) -> tuple[int, list[np.ndarray]] | None:
    """Where a run goes on: its newest snapshot, or that of the run it was forked from; None: initial weights."""
    if last := store.last_snapshot(run_id):
        return last
    if origin := store.origin(run_id):
        parent, arm, step = origin
        if not (found := store.snapshot(parent, step)):
            raise Unable(GONE.format(step))
        return step, vectors(store.run(parent).experiment, arm, found, store.run(run_id).experiment)
    return None


def diverged(experiment: Experiment, where: dict[tuple[int, int], tuple[int, int]]) -> str:
    """One sentence that says which network diverged first, or which did at one step, and where."""
    first, place = outbreak(where.values())
    if len(where) == 1:
        return f"the network diverged at step {first:,} in {place}. Lower the learning rate."
    who = [f"{experiment.arms[arm].label!r} in {at}" for arm, (step, at) in outbreaks(where).items() if step == first]
    return f"every network diverged, the first at step {first:,}: {', '.join(who)}. Lower the learning rate."
