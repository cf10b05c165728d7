"""Two dials, shift and smoothness, beside how fast each arm learns: which of the two does the speed follow?"""

from __future__ import annotations

from itertools import permutations
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ..probes import schedule
from ..probes.gradient_line import LENGTHS
from . import style
from .curves import smoothed
from .looks import COMING, NOT_YET, Needs, finished, missing, newest_snapshot, present, wholly
from .options import About

if TYPE_CHECKING:
    from ..reading import Trace

SMOOTHING = 10  # steps over which the loss is averaged before it counts as halved
ALIKE = 0.1  # relative difference below which two dials say the same
LOST = 1e-6  # of layer L's weight gradient: what arrives at layer 1 does not teach it anything


class Dial(NamedTuple):
    """Where an arm stands. shift: ‖G − G′‖/‖G‖; change: ‖Δg‖/‖g‖ one learning rate along the gradient; both geometric
    means over the live looks, seeds and layers. halved: the step at which its loss had halved, inf where it had not.
    out: why it is not compared, "" where it is."""

    shift: float
    change: float
    halved: float
    out: str


def scheduled(trace: Trace, probe: str, steps: np.ndarray) -> np.ndarray:
    """Which of the steps of looks are those the run takes by itself, whoever visits it."""
    every = schedule(trace.experiment).get(probe)
    return steps % every == 0 if every else np.zeros(len(steps), bool)


def dials_need(trace: Trace) -> Needs:
    """The newest snapshot, as long as the run has taken no look by itself."""
    at, probes = newest_snapshot(trace), ("shift", "gradient_line")
    waiting = [p for p in probes if not scheduled(trace, p, trace.looks(p, 0)[0]).any()]
    return [(probe, at, {}) for probe in waiting] if at is not None else []


def counted(trace: Trace, probe: str, arm: int) -> dict[str, np.ndarray] | None:
    """The looks the dials are means of: those of the schedule, so that no visit changes them; before the first of them
    the one at the newest snapshot. None where there is none yet."""
    steps, found = trace.looks(probe, arm)
    chosen = scheduled(trace, probe, steps)
    chosen = chosen if chosen.any() else steps == newest_snapshot(trace)
    return {name: values[chosen] for name, values in found.items()} if chosen.any() and "wrong" not in found else None


def geometric(values: np.ndarray) -> float:
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.exp(np.log(values).mean())) if values.size else np.nan


def dial(trace: Trace, arm: int) -> Dial | None:
    """None where nothing has been looked at yet."""
    shift, along = (counted(trace, probe, arm) for probe in ("shift", "gradient_line"))
    if shift is None or along is None:
        return None
    there = LENGTHS.index(1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = along["change"][..., there] / along["gradient"]
    loss = trace.read("loss", arm, points=400)
    smooth = smoothed(loss.steps, present(loss.mean, 1), SMOOTHING)
    below = np.flatnonzero(smooth < smooth[0] / 2) if len(smooth) else []
    halved = float(loss.steps[below[0]]) if len(below) else inf
    out = ""
    if wholly(trace, arm, trace.step):
        out = f"it diverged at step {min(trace.diverged[arm, s][0] for s in trace.experiment.seeds)}"
    elif halved == inf and len(smooth):
        norms = present(trace.at("grad_norm", arm, trace.step)[1])
        if not norms[0] > LOST * norms[-1]:
            out = "it does not learn, hardly any gradient reaches layer 1"
    both = geometric(shift["relative"]), geometric(change)
    if not out and not np.isfinite(both).all():
        out = "one of the two cannot be measured here"
    return Dial(*both, halved, out)


def verdict(dials: dict[str, Dial]) -> str:
    """What the points say: whether the arm that learns faster has clearly less shift, a clearly smoother loss, both or
    neither."""
    told = {name: d for name, d in dials.items() if not d.out}
    pairs = [(a, b) for a, b in permutations(told, 2) if clearly(told[a].halved, told[b].halved) < 0]
    if not pairs and len(told) < 2:
        return "Fewer than two arms learn, so there is nothing to compare."
    if not pairs:
        shifts, changes = ([getattr(d, k) for d in told.values()] for k in ("shift", "change"))
        wide, rough = (max(values) / min(values) for values in (shifts, changes))
        return (
            f"{', '.join(told)} learn about equally fast, though covariate shift differs by a factor of {wide:.2g} and "
            f"the change of the gradient by one of {rough:.2g}."
        )
    n = len(pairs)
    shift, change = ([clearly(getattr(told[a], k), getattr(told[b], k)) for a, b in pairs] for k in ("shift", "change"))
    left, low = shift.count(-1), change.count(-1)
    if n == 1:
        ((a, b),) = pairs
        words = f"{a} learns faster than {b}, with {('about as much', 'more', 'less')[shift[0]]} covariate shift and "
        words += ("an about as smooth loss", "a less smooth loss", "a smoother loss")[change[0]]
    else:
        words = f"In {n} pairs of arms that differ in speed the faster one has clearly less shift in {left} and is "
        words += f"clearly smoother in {low}"
    follows = {(True, True): "both", (True, False): "less shift", (False, True): "smoothness"}
    return f"{words}: here speed goes with {follows.get((left == n, low == n), 'neither of the two alone')}."


def clearly(one: float, other: float) -> int:
    """-1 where one is less than the other by more than ALIKE, 1 where it is more, 0 where they are about the same."""
    return int(one > other * (1 + ALIKE)) - int(one < other / (1 + ALIKE))


def dials(trace: Trace) -> go.Figure:
    """Both dials of every arm: shift across, smoothness up; how fast it learned beside its name."""
    at = newest_snapshot(trace)
    if at is None:
        return style.said(NOT_YET)
    figure, notes, told = go.Figure(), [], {}
    for arm in range(len(trace.experiment.arms)):
        found = dial(trace, arm)
        if found is None:
            looked = (trace.look(probe, arm, at) for probe in ("shift", "gradient_line"))
            return next(filter(None, map(missing, looked)), style.said(COMING))
        name = style.label(trace, arm)
        told[name] = found
        when = f"loss halved at step {found.halved:.0f}" if found.halved < inf else "loss not halved"
        symbol = style.symbol(arm) + ("-open" if found.out else "")
        there = np.isfinite(found.shift) and np.isfinite(found.change)
        figure.add_scatter(
            x=[found.shift if there else None], y=[found.change if there else None],
            name=f"{name}: {when}", mode="markers", showlegend=True,
            marker={"color": style.color(arm), "symbol": symbol, "size": 16, "line": {"width": 2}}, cliponaxis=False,
            hovertemplate=f"shift %{{x:.3g}}, change %{{y:.3g}}<extra>{name}: {when}</extra>",
        )  # fmt: skip
        why = f" (hollow, not compared: {found.out})" if found.out else ""
        shift, change = (f"{v:.2g}" if np.isfinite(v) else "not measurable" for v in (found.shift, found.change))
        notes.append(f"{name}: shift {shift}, change {change}, {when}{why}.")
    figure.update_xaxes(title="covariate shift ‖G − G′‖/‖G‖", type="log")
    figure.update_yaxes(title="change of the gradient ‖Δg‖/‖g‖ (less is smoother)", type="log")
    said = (
        "Both relative to the gradient's own norm: how much the update of the layers below changes a layer's gradient, "
        "and how much of the gradient is another one learning rate further along it. Geometric means over the looks "
        "the run took by itself, over layers and seeds."
    )
    return finished(figure, 480, verdict(told), *notes, said)


ABOUT = {
    "dials": About(
        "Two dials, and how fast it learns",
        "Which of the two explanations does the speed follow? Each arm once.",
        dials,
        (),
        dials_need,
    ),
}
