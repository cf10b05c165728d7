"""What figures of looks have in common: what they need, what to say where it is not there, lines, and axes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from ..problems import enumeration
from ..record import evenly
from ..train import scheduled
from . import axes, style
from .lasting import lost, wholly
from .means import geometric, present

if TYPE_CHECKING:
    from ..reading import Trace

COMING = "Computing this chart. It takes a moment."
OLD = "An older version of the lab measured less at this step. Choose another step."
NOT_YET = "No snapshot of the weights yet; they come with the scores."
EARLIER = "Choose an earlier step, or a lower learning rate."
AGAIN = "Train with a lower learning rate."  # where no step can be chosen
MARKS = 100  # looks that are drawn over time, at most, and the newest
Needs = list[tuple[str, int, dict]]


def newest_snapshot(trace: Trace, step: int | None = None) -> int | None:
    """The last step with a snapshot of the weights, at most `step`."""
    steps = [t for t in trace.snapshots() if reached(trace, t, step)]
    return steps[-1] if steps else None


def look_step(trace: Trace, step: int | None, probe: str, **options: object) -> int | None:
    """The last step, at most `step`, at which a probe has looked or may look, else the first; None without any."""
    steps = sorted({*trace.snapshots(), *trace.looked(probe, **options)})
    return next((t for t in reversed(steps) if reached(trace, t, step)), steps[0] if steps else None)


def reached(trace: Trace, t: int, step: int | None) -> bool:
    """Whether the weights before update t are among those up to `step`. A run that was stopped rests on weights that no
    recorded step shows: they come with its last one."""
    return step is None or t <= step or step >= trace.step


def missing(found: dict[str, np.ndarray] | None) -> go.Figure | None:
    """What to say where a look is not there yet or went wrong; None where it is there."""
    if found is None:
        return style.said(COMING)
    return style.said(f"This chart cannot be drawn: {found['wrong'][0]}") if "wrong" in found else None


def not_finite(at: int, whose: str = "every network", now: bool = True) -> go.Figure:
    """What to say where no network `whose` figure it is has finite weights; `now`: of a step that can be chosen."""
    do = EARLIER if now else AGAIN
    return style.said(f"At step {at:,} weights or moving averages of {whose} are not finite. {do}")


def all_lost(at: int, whose: str = "every network", now: bool = True) -> go.Figure:
    """The same where they had diverged."""
    return style.said(f"By step {at:,} {whose} had diverged. {EARLIER if now else AGAIN}")


def those(trace: Trace, arms: Collection[int]) -> str:
    """Whose networks those of the arms are: 'every network', or by the names of some arms."""
    if len(arms) == len(trace.experiment.arms):
        return "every network"
    return enumeration([style.label(trace, arm) for arm in arms])


def finite_seeds(found: dict[str, np.ndarray]) -> np.ndarray:
    """Which of the seeds, [seeds], a probe saw something of: of a network with weights or moving averages that are not
    finite it has only NaN."""
    measured = [values for values in found.values() if values.dtype.kind == "f"]  # whole numbers, as steps, are no NaN
    return np.any([np.isfinite(values).reshape(len(values), -1).any(1) for values in measured], 0)


def left_out(trace: Trace, there: dict[int, np.ndarray]) -> str:
    """Which seeds are not in the means, as a sentence; `there`: for some arms, which of the seeds are."""
    told = []
    for arm, those in there.items():
        names = [str(seed) for seed, is_there in zip(trace.experiment.seeds, those, strict=True) if not is_there]
        if names:
            which = "all seeds" if len(names) == len(those) else f"seed{'s' * (len(names) > 1)} {', '.join(names)}"
            told.append(f"{which} of {style.label(trace, arm)}")
    return f"Left out where weights or moving averages are not finite: {'; '.join(told)}." if told else ""


def newest(*probes: str, **options: object):
    """What a figure needs that draws these probes at the newest look_step(), up to its step if it has one."""

    def needs(trace: Trace, *, step: int | None = None, **_: object) -> Needs:
        found = [(probe, look_step(trace, step, probe, **options)) for probe in probes]
        return [(probe, at, dict(options)) for probe, at in found if at is not None]

    return needs


def layered(probe: str):
    """The need of a figure that looks at the layer of its option."""

    def needs(trace: Trace, *, step: int, layer: int, **_: object) -> Needs:
        at = look_step(trace, step, probe, layer=layer)
        return [(probe, at, {"layer": layer})] if at is not None else []

    return needs


def often(probe: str, most: int, **options: object):
    """What a figure needs that draws a probe over time: some of the snapshots, whenever the run was paused, beside what
    was looked at live."""

    def needs(trace: Trace) -> Needs:
        steps = scheduled(trace.experiment, trace.snapshots())
        return [(probe, steps[i], dict(options)) for i in evenly(len(steps), most)]

    return needs


def looks(trace: Trace, probe: str, arm: int) -> tuple[np.ndarray, dict[str, np.ndarray]] | go.Figure:
    """Good looks of a probe at an arm, of many about MARKS, or the figure that says why there is none."""
    steps, found = trace.looks(probe, arm, marks=MARKS)
    if len(steps):
        return steps, found
    asked = scheduled(trace.experiment, trace.snapshots())
    return (missing(trace.look(probe, arm, asked[-1])) or style.said(COMING)) if asked else style.said(NOT_YET)


def some(trace: Trace, probe: str) -> str:
    """What to say where not all looks are drawn."""
    there, drawn = len(trace.saw(probe, 0)), len(trace.looks(probe, 0, marks=MARKS)[0])
    return f"Of {there:,} looks {drawn:,} are drawn, evenly chosen." if drawn < there else ""


def each(trace: Trace, probe: str, step: int, of: Iterable[int] | None = None, **options: object):
    """The step and (arm, label, what the probe saw) of every arm, or of those `of` them, of which a network is finite,
    or the figure that says why there is nothing."""
    at = look_step(trace, step, probe, **options)
    if at is None:
        return style.said(NOT_YET)
    found = {arm: trace.look(probe, arm, at, **options) for arm in of or range(len(trace.experiment.arms))}
    for one in found.values():
        if wrong := missing(one):
            return wrong
    lasts = [arm for arm in found if not wholly(trace, arm, at)]
    left = [(arm, style.label(trace, arm), found[arm]) for arm in lasts if finite_seeds(found[arm]).any()]
    if left:
        return at, left
    whose = those(trace, found)
    return not_finite(at, whose) if lasts else all_lost(at, whose)


def absent(trace: Trace, at: int, drawn: list[tuple], asked: Iterable[int] | None = None) -> list[str]:
    """What to say of networks that are not in what each() found, `drawn`: those that had diverged, and those of the
    `asked` arms, else of all, that are not finite for another reason."""
    there = {arm: finite_seeds(found) for arm, _, found in drawn}
    for arm in range(len(trace.experiment.arms)) if asked is None else asked:
        gone = [trace.diverged.get((arm, seed), (at + 1,))[0] <= at for seed in trace.experiment.seeds]
        there[arm] = there.get(arm, np.zeros(len(gone), bool)) | gone  # these have a sentence of their own
    return [*lost(trace, at).values(), left_out(trace, there)]


def titled(figure: go.Figure, across: str, *up: str, log: bool = True) -> None:
    for column, title in enumerate(up, 1):
        figure.update_xaxes(title=across, row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
        if log:
            figure.update_yaxes(type="log", row=1, col=column)


def empty(figure: go.Figure, column: int, words: str) -> None:
    """Say in a panel where nothing is drawn why that is; plotly would invent ticks for it."""
    if not any(np.isfinite(np.asarray(drawn.y, float)).any() for drawn in figure.select_traces(row=1, col=column)):
        for axis in (*figure.select_xaxes(row=1, col=column), *figure.select_yaxes(row=1, col=column)):
            axis.update(tickvals=[], showgrid=False)
        place = {"xref": "x domain", "yref": "y domain", "x": 0.5, "y": 0.5}  # those of the panel
        figure.add_annotation(text=words, showarrow=False, **place, row=1, col=column)


def middle(values: np.ndarray, log: bool = True) -> np.ndarray:
    """Mean over the seeds of values [seeds, ...]: geometric, of what is above 0, where they are drawn on a logarithmic
    axis."""
    return geometric(values) if log else present(values)


def line(
    figure: go.Figure, x, values: np.ndarray, name: str, arm: int, column: int, shown: bool, log: bool = True,
    pale: bool = False, marks: bool = True, what: str = "",
) -> None:  # fmt: skip
    """A measured line, values [seeds, n]: the middle() of the seeds, and a band for their range where there are some.
    `pale`: thin and pale, beside another line of the same arm. `marks`: at every point. `what` of its arm it is: the
    greatest of some; told below the mouse and in numbers, not in the legend."""
    there = np.isfinite(values) & (values > 0) if log else np.isfinite(values)
    if (there.sum(0) > 1).any():
        low, high = (edge(np.where(there, values, fill), 0) for edge, fill in ((np.min, np.inf), (np.max, -np.inf)))
        low, high = (np.where(there.any(0), q, np.nan) for q in (low, high))
        style.band(figure, x, low, high, style.color(arm), name, False, 0.13, row=1, col=column)
    y = middle(np.where(there, values, np.nan), log)
    figure.add_scatter(
        x=x, y=style.numbers(y), name=name, legendgroup=name, meta=what or None,
        showlegend=shown, mode="lines+markers" if marks else style.mode(y), opacity=0.55 if pale else 1,
        line={"color": style.color(arm), "dash": style.dash(arm), "width": 1 if pale else 1.8},
        marker={"symbol": style.symbol(arm) + ("-open" if pale else ""), "size": 5 if pale else 6},
        hovertemplate=f"%{{x}}: %{{y:,.4g}}<extra>{', '.join(filter(None, (name, what)))}</extra>", row=1, col=column,
    )  # fmt: skip


def seeds(trace: Trace, log: bool = True) -> str:
    """What lines and bands are where there are several seeds."""
    n = len(trace.experiment.seeds)
    means = "geometric means" if log else "means"
    return f"Lines: {means} over {n} seeds; bands: their range." if n > 1 else ""


def finished(figure: go.Figure, height: int, *notes: str) -> go.Figure:
    """style.finished, with ticks on every logarithmic axis that fit what is drawn on it."""
    axes.ticked(figure, least={"type": "linear", "rangemode": "tozero"})
    return style.finished(figure, height=height, note=" ".join(note for note in notes if note))
