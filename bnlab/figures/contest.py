"""The contest of two explanations: covariate shift against smoothness, measured on the same runs."""

from __future__ import annotations

from itertools import permutations
from math import ceil, inf, log10
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes import schedule
from ..probes.curvature import LIMITS
from ..probes.gradient_line import LENGTHS
from . import style
from .curves import smoothed
from .inference import COMING, NOT_YET, missing, newest_snapshot
from .moving import evenly
from .options import STEP, About

if TYPE_CHECKING:
    from ..reading import Trace

SMOOTHING = 10  # steps over which the loss is averaged before it counts as halved
ALIKE = 0.1  # relative difference below which two dials say the same
LOST = 1e-6  # of layer L's weight gradient: what arrives at layer 1 does not teach it anything
Needs = list[tuple[str, int, dict]]


def newest(*probes: str, **options: object):
    """What a figure needs that draws these probes at the newest snapshot, up to its step if it has one."""

    def needs(trace: Trace, *, step: int | None = None, **_: object) -> Needs:
        at = newest_snapshot(trace, step)
        return [(probe, at, dict(options)) for probe in probes] if at is not None else []

    return needs


def often(probe: str, most: int, **options: object):
    """What a figure needs that draws a probe over time: some of the snapshots, beside what was looked at live."""

    def needs(trace: Trace) -> Needs:
        steps = trace.snapshots()
        return [(probe, steps[i], dict(options)) for i in evenly(len(steps), most)]

    return needs


def looks(trace: Trace, probe: str, arm: int) -> tuple[np.ndarray, dict[str, np.ndarray]] | go.Figure:
    """All good looks of a probe at an arm, or the figure that says why there is none."""
    at = newest_snapshot(trace)
    if at is None:
        return style.said(NOT_YET)
    steps, found = trace.looks(probe, arm)
    if len(steps) and "wrong" not in found:
        return steps, found
    return missing(trace.look(probe, arm, at)) or style.said(COMING)


def present(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean over an axis, the seeds', of what is finite; NaN where nothing is."""
    there = np.isfinite(values)
    return np.where(
        there.any(axis), np.where(there, values, 0).sum(axis, dtype=float) / there.sum(axis).clip(1), np.nan
    )


def lost(trace: Trace, at: int) -> dict[int, str]:
    """The arms of which networks had diverged by a step, each with a sentence that says so."""
    found: dict[int, str] = {}
    seeds = len(trace.experiment.seeds)
    for arm in range(len(trace.experiment.arms)):
        when = [step for (a, _), (step, _) in trace.diverged.items() if a == arm and step <= at]
        if when:
            how_many = "" if len(when) == seeds else f" with {len(when)} of {seeds} seeds"
            found[arm] = f"{style.label(trace, arm)} diverged at step {min(when)}{how_many} and is left out."
    return found


def wholly(trace: Trace, arm: int, at: int) -> bool:
    """Whether all networks of an arm had diverged by a step."""
    return all((arm, s) in trace.diverged and trace.diverged[arm, s][0] <= at for s in trace.experiment.seeds)


def mode(trace: Trace) -> str:
    """How batch norm normalizes where a probe looks at it as in training."""
    kinds = {s.statistics for s in trace.experiment.arm_settings if s.norm == "batch"}
    if kinds == {"moving"}:
        return "training with frozen moving averages"
    return "training mode" + (" (frozen arms: with their moving averages)" if "moving" in kinds else "")


def smoothness(trace: Trace) -> go.Figure:
    """Loss range, gradient predictiveness and effective smoothness along the gradient, over the training."""
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm in range(len(trace.experiment.arms)):
        told = looks(trace, "gradient_line", arm)
        if isinstance(told, go.Figure):
            return told
        steps, found = told
        name, rgb = style.label(trace, arm), style.color(arm)
        loss, change = (present(found[key], 1) for key in ("loss", "change"))
        for column, (low, high) in enumerate(
            ((loss[:, 1:].min(1), loss[:, 1:].max(1)), (change.min(1), change.max(1))), 1
        ):
            style.band(figure, steps, low, high, rgb, name, False, row=1, col=column)
            for values, dash in ((low, "dot"), (high, style.dash(arm))):
                line(figure, steps, values, name, arm, column, dash, shown=column == 1 and values is high)
        line(figure, steps, present(found["smoothness"], 1), name, arm, 3, style.dash(arm), shown=False)
    for column, title in enumerate(
        ("loss E along the gradient", "change of the gradient ‖Δg‖", "effective smoothness ‖Δg‖/‖Δw‖"), 1
    ):
        figure.update_xaxes(title="step", row=1, col=column)
        figure.update_yaxes(title=title, type="log", row=1, col=column)
    words = mode(trace)
    note = (
        f"{words[0].upper()}{words[1:]}, the coming mini-batch, steps of 1/2 to 4 learning rates along its gradient: "
        "bands from the least to the greatest. A network with hardly any gradient changes hardly at all; the dials "
        "above compare with the gradient's own norm. Not the band over trainings with several learning rates; for "
        "that, load the experiment below. Santurkar et al. 2018."
    )
    return finished(figure, 440, note, *lost(trace, trace.step).values())


def line(figure: go.Figure, x, y, name: str, arm: int, column: int, dash: str, shown: bool, log: bool = True) -> None:
    """A measured line; where it is drawn on a logarithmic axis only what is above 0."""
    there = np.isfinite(y) & (y > 0) if log else np.isfinite(y)
    figure.add_scatter(
        x=x, y=style.numbers(np.where(there, y, np.nan)), name=name, legendgroup=name, showlegend=shown,
        mode="lines+markers", line={"color": style.color(arm), "dash": dash, "width": 1.6},
        marker={"symbol": style.symbol(arm), "size": 6},
        hovertemplate=f"%{{x}}: %{{y:.4g}}<extra>{name}</extra>", row=1, col=column,
    )  # fmt: skip


def ticks(low: float, high: float) -> dict:
    """A logarithmic axis from low to high that can be read: powers of ten, or plain 0.2, 0.5, 1 where it spans little;
    linear from 0 where it spans hardly anything."""
    if not high > low * 3:
        return {"type": "linear", "rangemode": "tozero"}
    first, last = ceil(log10(low)) - 1, ceil(log10(high))
    stride = max(1, ceil((last - first) / 8))
    mantissas = (1, 2, 5) if last - first <= 3 else (1,)
    values = [m * 10.0**k for k in range(first, last + 1, stride) for m in mantissas]
    return {"type": "log", "tickvals": values, "ticktext": [written(v) for v in values]}


def written(value: float) -> str:
    """0.02, 5, 200; beyond a ten-thousandth and ten thousand a power of ten."""
    if 1e-4 < value < 2e4:
        return f"{value:g}"
    mantissa, power = f"{value:.0e}".split("e")
    return ("" if mantissa == "1" else f"{mantissa}·") + f"10<sup>{int(power)}</sup>".replace("-", "−")


def finished(figure: go.Figure, height: int, *notes: str) -> go.Figure:
    """style.finished, with ticks on every logarithmic axis that fit what is drawn on it."""
    for letter, axes in (("x", figure.select_xaxes()), ("y", figure.select_yaxes())):
        for axis in axes:
            if axis.type != "log":
                continue
            name = axis.plotly_name.replace("axis", "")
            drawn = [t[letter] for t in figure.data if (t[f"{letter}axis"] or letter) == name]
            values = np.concatenate([np.array(v, float) for v in drawn]) if drawn else np.array([])
            values = values[np.isfinite(values) & (values > 0)]
            if values.size:
                axis.update(ticks(values.min(), values.max()))
    return style.finished(figure, height=height, note=" ".join(note for note in notes if note))


def covariate_shift(trace: Trace, *, step: int) -> go.Figure:
    """How much each layer's gradient changes when the layers below take their update, and how far inputs drift."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm in range(len(trace.experiment.arms)):
        if wholly(trace, arm, at):
            continue
        found = trace.look("shift", arm, at)
        if wrong := missing(found):
            return wrong
        name = style.label(trace, arm)
        layers, every = np.nanmax(found["layer"], 0), np.arange(1, found["drift"].shape[1] + 1)
        line(figure, layers, present(found["relative"]), name, arm, 1, style.dash(arm), True)
        line(figure, layers, present(found["cosine"]), name, arm, 2, style.dash(arm), False, log=False)
        line(figure, every, present(found["drift"]), name, arm, 3, style.dash(arm), False)
    titles = ("change ‖G − G′‖/‖G‖", "cosine of G and G′", "drift of a, in standard deviations")
    for column, title in enumerate(titles, 1):
        figure.update_xaxes(title="layer l", row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
    for column in (1, 3):
        figure.update_yaxes(type="log", row=1, col=column)
    noisy = any(s.noise_shift or s.noise_scale for s in trace.experiment.arm_settings)
    note = (
        f"Step {at}, {mode(trace)}. G is a layer's weight gradient, G′ the same after only the layers below took their "
        "update (Santurkar et al. 2018, def. 2.1). Drift: how far mean and spread of the units' pre-activations move "
        "in one update on the same mini-batch; units without a spread have none."
        + (" Noisy batch norm: afterwards with the noise of the next step, as the next step sees it." if noisy else "")
    )
    if not figure.data:
        return style.said(ALL_LOST.format(at))
    return finished(figure, 440, note, *lost(trace, at).values())


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


def curvature(trace: Trace) -> go.Figure:
    """The Hessian's top eigenvalue over the training against what the optimizer is stable below."""
    figure, limits, above, notes = go.Figure(), {}, [], []
    for arm, settings in enumerate(trace.experiment.arm_settings):
        told = looks(trace, "curvature", arm)
        if isinstance(told, go.Figure):
            return told
        steps, found = told
        top, name = present(found["top"], 1), style.label(trace, arm)
        figure.add_scatter(
            x=steps, y=style.numbers(np.where(top > 0, top, np.nan)), name=name, mode="lines+markers",
            line={"color": style.color(arm), "dash": style.dash(arm)},
            marker={"symbol": style.symbol(arm), "size": 8},
            hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{name}</extra>",
        )  # fmt: skip
        limit = LIMITS[settings.optimizer] / settings.learning_rate
        words = "2(1 + 0.9)/η" if settings.optimizer == "momentum" else "2/η"
        if np.isfinite(limit):
            limits[limit] = f"{words}, η = {settings.learning_rate:g}"
            above += [name] if (top > limit).any() else []
    for limit, name in limits.items():
        style.reference(figure, limit, name)
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="largest eigenvalue of the Hessian", type="log")
    notes.append(f"Mini-batch loss, {mode(trace)}. Lanczos, 10 iterations: a lower bound.")
    if limits:
        notes.append("Below the line gradient descent on a quadratic is stable (Cohen et al. 2021).")
    if above:
        notes.append(
            f"Beyond it at times: {', '.join(above)}. On a quadratic that would diverge; another loss may bend back, "
            "and every mini-batch has its own."
        )
    if any(s.optimizer == "adam" for s in trace.experiment.arm_settings):
        notes.append("Adam scales every parameter's step by itself, so no one line tells where it is stable.")
    return finished(figure, style.HEIGHT, *notes, *lost(trace, trace.step).values())


ALL_LOST = "Every network had diverged by step {}. Choose an earlier step, or a lower learning rate."
ABOUT = {
    "dials": About(
        "Two dials, and how fast it learns",
        "Which of the two explanations does the speed follow? Each arm once.",
        dials,
        (),
        dials_need,
    ),
    "smoothness": About(
        "The loss along the gradient",
        "How far one can trust the gradient: the less loss and gradient change a few steps further, the smoother.",
        smoothness,
        (),
        often("gradient_line", 6),
    ),
    "covariate_shift": About(
        "Internal covariate shift",
        "How much the layers below, taking their own update, change what a layer's gradient is.",
        covariate_shift,
        (STEP,),
        newest("shift"),
    ),
    "curvature": About(
        "Largest curvature",
        "Gradient descent on a quadratic is stable in the steepest direction while this is below 2/η.",
        curvature,
        (),
        often("curvature", 4, iterations=10),
    ),
}
