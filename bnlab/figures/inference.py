"""The inference phase: three kinds of statistics for one network, and why their losses differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from .. import lineage
from ..data import DATASETS
from ..moving import age
from ..sampling import parts_of_at_most
from . import style
from .looks import left_out, not_finite
from .losses import tick_format, value_format
from .means import present
from .moving import NO_BATCH_NORM
from .options import BATCH_ARM, Plot, choice
from .style import NOTHING, UNSCORED, amount

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

KINDS = {"batch": "mini-batch", "moving": "moving averages", "population": "population"}
SHOWN = 400  # points of a line
SCORINGS = 100  # of the scores over time, about: with more a long run's chart costs over 1.5 times a short one's
LOOKS = {"batch": ("dot", "circle"), "moving": ("solid", "square"), "population": ("dash", "diamond")}


class Three(NamedTuple):
    """One arm's score over a split with each kind of statistics: steps [n], values [n], of all seeds one.

    there [n, seeds]: at which steps which seeds have a finite loss with every kind of statistics; only these count, as
    a mean of other seeds with one kind than with another would tell them apart by the seeds.
    """

    steps: np.ndarray
    batch: np.ndarray
    moving: np.ndarray
    population: np.ndarray
    there: np.ndarray


def three(trace: Trace, arm: int, split: str, quantity: str, over=present) -> Three:
    """`over` makes one of the values of the seeds."""
    steps, losses, found = np.array([], int), [], []
    for kind in KINDS:
        steps, loss, accuracy = trace.scores(arm, split, kind, SCORINGS)
        values = loss if quantity == "loss" else accuracy
        losses.append(loss)
        found.append(np.full_like(loss, np.nan) if values is None else values)
    there = np.all([np.isfinite(loss) for loss in losses if len(loss)], 0)  # none by mini-batches of one
    means = (over(np.where(there, q, np.nan), 1) if len(q) else np.full(len(steps), np.nan) for q in found)
    return Three(steps, *means, there)


def three_losses(trace: Trace, *, arm: int, split: str, quantity: str) -> go.Figure:
    """The same weights on the same data, normalized in three ways."""
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return style.said(NO_BATCH_NORM.format("statistics to choose from"))
    if quantity == "accuracy" and DATASETS[settings.data].task == "regression":
        return style.said("A regression has no accuracy. Look at the loss.")
    told = three(trace, arm, split, quantity)
    if not len(told.steps):
        return style.said(NOTHING if trace.step < 0 else UNSCORED)
    test = told if (split, quantity) == ("test", "loss") else three(trace, arm, "test", "loss")
    if not told.there.any() or not test.there.any():
        return not_finite(int(told.steps[0]), style.label(trace, arm), now=False)
    figure, seeds = go.Figure(), len(trace.experiment.seeds)
    ends = (np.fmin.reduce, np.fmax.reduce)
    band = [three(trace, arm, split, quantity, over) for over in ends] if seeds > 1 else []
    for kind, words in KINDS.items():
        dash, symbol = LOOKS[kind]
        if band:
            rgb = style.color(arm) if kind == "moving" else style.GRAY
            x = style.numbers(told.steps)
            style.band(figure, x, *(getattr(edge, kind) for edge in band), rgb, kind, False, 0.12)
        figure.add_scatter(
            x=style.numbers(told.steps),
            y=style.numbers(getattr(told, kind)),
            mode="lines+markers",
            legendgroup=kind,
            name=f"{split} set, {words} statistics"
            if kind != "moving"
            else f"{split} set, {words} (α = {settings.alpha:g})",
            line={"color": style.color(arm) if kind == "moving" else style.GRAY, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 7},
            hovertemplate=f"step %{{x}}: %{{y:{value_format(quantity)}}}<extra>{words}</extra>",
        )
    figure.update_xaxes(title="step t: the weights before update t")
    unit = "mean squared error" if DATASETS[settings.data].task == "regression" else "cross-entropy E (nats)"
    log = {"type": "log"} if quantity == "loss" else {"tickformat": tick_format(quantity)}
    figure.update_yaxes(title=unit if quantity == "loss" else "accuracy (share of examples)", **log)
    at = cause_step(trace, test, arm)
    note = explained(test, settings, cause(trace, arm, at))
    if test is not told:
        drawn = f"{QUANTITY.choices[quantity]} on the {SPLIT.choices[split]}"
        note = f"The chart shows the {drawn}; what is said here is of the test loss. {note}"
    if at is not None and trace.look("off", arm, at) is None:
        note += " Why they differ is being computed."
    over = f" Means over {seeds} seeds; bands from the least to the greatest." if seeds > 1 else ""
    absent = left_out(trace, {arm: told.there.all(0)})
    return style.finished(figure, note=f"{note}{over} {absent}".strip())


class Cause(NamedTuple):
    """Test loss before update t with the moving averages; with them less their warm-up, lag, or what mini-batches made;
    with the population's statistics. Means over the seeds."""

    t: int
    nothing: float
    warm_up: float
    lag: float
    mini_batches: float
    all: float


NEVER = "with α = 1 they never move"
ONE_KIND = ("alpha", "batch_size", "sampling", "statistics")


def cause_step(trace: Trace, told: Three, arm: int) -> int | None:
    """The step at which the cause is asked: where the losses are widest apart after step 0, among those that can be
    looked at. None where no single cause can be told: frozen averages, or a fork that changed what they are made of."""
    settings = trace.experiment.arm_settings[arm]
    if settings.frozen or any(lineage.changed(trace, arm, name) is not None for name in ONE_KIND):
        return None
    there = np.isin(told.steps, [*trace.snapshots(), *trace.saw("off", arm)]) & (told.steps > trace.first)
    there &= np.isfinite(told.moving) & np.isfinite(told.population)
    return int(told.steps[there][widest(Three(*(q[there] for q in told)))]) if there.any() else None


def three_needs(trace: Trace, *, arm: int, split: str, quantity: str) -> list[tuple[str, int, dict]]:
    if trace.experiment.arm_settings[arm].norm != "batch":
        return []
    at = cause_step(trace, three(trace, arm, "test", "loss"), arm)
    return [] if at is None else [("off", at, {})]


def cause(trace: Trace, arm: int, t: int | None) -> Cause | None:
    """What the probe `off` saw before update t; None where it has not looked."""
    found = trace.look("off", arm, t) if t is not None else None
    if found is None or "wrong" in found:
        return None
    losses = found["loss"][np.isfinite(found["loss"]).all(1)]
    return Cause(t, *(float(loss) for loss in losses.mean(0))) if len(losses) else None


def explained(told: Three, settings: Settings, found: Cause | None) -> str:
    """Why the three differ: their losses, and the cause that the probe `off` found where it has looked."""
    top = widest(told)
    worst = top if found is None else int(np.flatnonzero(told.steps == found.t)[0])
    t, K, alpha = int(told.steps[worst]), settings.mini_batch, settings.alpha
    among = "after step 0" if told.steps[top] == 0 else "of the steps that can be looked into"
    said = f"Test loss at step {t:,}, where they are widest apart by ratio{'' if worst == top else f' ({among})'}: "
    said += f"{amount(told.moving[worst])} with moving averages, "
    said += f"{amount(told.population[worst])} with population statistics."
    if told.steps[top] == 0:
        said += " At step 0 nothing had come in yet: the averages were the 0 and 1 they start at."
    if settings.frozen:
        said += " This arm trains with its averages frozen: they stand still while the weights move."
    elif found is not None:
        started = amount(alpha**found.t, 1)
        behind = f"what came in is on average {amount(age(t, alpha))} steps behind the weights" if alpha < 1 else NEVER
        without_one = {
            f"their warm-up (αᵗ = {started} of the 0 and 1 they started at is in them)": found.warm_up,
            f"their lag ({behind})": found.lag,
            f"the noise and bias of mini-batches of {K:,}": found.mini_batches,
        }
        each = [f"{amount(loss)} without {words}" for words, loss in without_one.items()]
        said += (
            f" With moving averages it would be {', '.join(each[:-1])} and {each[-1]}; {amount(found.all)} without "
            "all three, which is the population's."
        )
    if K == 1:
        return f"{said} There is none with mini-batch statistics: one example has no variance."
    n = DATASETS[settings.data].n_test
    count = parts_of_at_most(K, n)
    own = each_of(n, count)
    own += f" (for the run's K = {K:,})" if own != f"{K:,}" else ""
    said += f" With mini-batch statistics every example is normalized by its own mini-batch of {own}"
    said += ", as in training" if settings.statistics == "batch" else ""
    last = int(np.flatnonzero(np.isfinite(told.population))[-1])
    batch, population = told.batch[last], told.population[last]
    when = "the newest step" if last == len(told.steps) - 1 else f"step {told.steps[last]:,}"
    said += f": test loss {amount(batch)} at {when}, against {amount(population)} with the population's"
    few = n // count < 64 and np.isfinite(batch) and np.isfinite(population) and batch > 1.1 * population
    each = "noisy statistics, another for each mini-batch" if count > 1 else "noisy statistics"
    return f"{said}; so few examples make {each}." if few else f"{said}."


def each_of(n: int, count: int) -> str:
    """How many examples each of `count` near-equal mini-batches of n examples holds, in words."""
    if count == 1:
        return f"all {n:,}"
    return f"{n // count:,}" + (f" or {n // count + 1:,}" if n % count else "")


def widest(told: Three) -> int:
    """The place where the losses with moving averages and with population statistics are furthest apart."""
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(np.log(told.moving / told.population))  # as on the chart's axis
    return int(np.nan_to_num(apart, nan=-1, posinf=1e30).argmax())


SPLIT = choice("split", "Data", "Which examples are scored.", {"test": "test set", "train": "training set"})
QUANTITY = choice("quantity", "Score", "What is drawn.", {"loss": "loss", "accuracy": "accuracy"})
PLOTS = {
    "three_losses": Plot(
        "Three statistics, one network",
        "The same weights on the same data: what changes is only what batch norm normalizes with.",
        three_losses,
        (BATCH_ARM, SPLIT, QUANTITY),
        three_needs,
    ),
}
