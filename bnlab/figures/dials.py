"""Two dials, shift and smoothness, beside how fast each arm learns: which of the two does the speed follow?

Both dials depend on the optimizer, and shift on the learning rate: the update of the layers below is what shifts. So
arms are compared only where both are the same.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ..probes import schedule
from . import style
from .curves import chance_loss, smoothed
from .lasting import lost, wholly
from .looks import COMING, NOT_YET, Needs, finished, missing, newest_snapshot, present
from .options import About

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

SMOOTHING = 10  # steps over which the newest loss is averaged
ALIKE = 0.1  # relative difference below which two arms say the same
LEARNS = 0.9  # of the loss of guessing: a network learns where its newest loss is below


class Dial(NamedTuple):
    """Where an arm stands, [seeds] each, NaN for networks that diverged. shift: ‖G − G′‖/‖G‖, geometric mean over the
    live looks and layers; rough: ‖Δg‖/‖Δw‖ along the gradient, over the looks; loss: of the mini-batches, mean over
    all steps so far. out: why the arm is not compared, "" where it is. kind: only arms of one kind are compared."""

    shift: np.ndarray
    rough: np.ndarray
    loss: np.ndarray
    out: str = ""
    kind: tuple = ()


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


def geometric(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """Geometric mean of what is finite and above 0; NaN where nothing is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(present(np.where(values > 0, np.log(values), np.nan), axis))


def alike(settings: Settings) -> tuple:
    """What two arms must have in common to be compared."""
    return settings.data, settings.optimizer, settings.learning_rate


def dial(trace: Trace, arm: int) -> Dial | None:
    """None where nothing has been looked at yet."""
    shift, along = (counted(trace, probe, arm) for probe in ("shift", "gradient_line"))
    if shift is None or along is None:
        return None
    settings, seeds = trace.experiment.arm_settings[arm], trace.experiment.seeds
    gone = np.array([(arm, seed) in trace.diverged for seed in seeds])
    both = geometric(shift["relative"], (0, 2)), geometric(along["smoothness"])
    loss = trace.read("loss", arm, points=400)
    stop = min(trace.step + 1, trace.experiment.settings.steps)
    weight = np.diff(loss.steps, append=stop)[:, None]  # a point may stand for several steps
    mean = (loss.mean * weight).sum(0, dtype=float) / weight.sum() if len(loss.steps) else np.full(len(seeds), np.nan)
    newest = [float(smoothed(loss.steps, values, SMOOTHING)[-1]) for values in loss.mean.T] if len(loss.steps) else []
    stays = [f"{now:.3g}" for now in newest if not np.isnan(now) and not now < LEARNS * chance_loss(settings)]
    out = ""
    if wholly(trace, arm, trace.step):
        out = f"it diverged at step {min(trace.diverged[arm, s][0] for s in seeds)}"
    elif not len(loss.steps):
        out = "it has not taken a step yet"
    elif stays:
        few = f" with {len(stays)} of {len(seeds)} seeds" if len(stays) < len(seeds) else ""
        out = f"its loss stays near or above guessing{few}: {' and '.join(dict.fromkeys(stays))}, that of guessing is "
        out += f"{chance_loss(settings):.3g}"
    told = [np.where(gone, np.nan, values) for values in (*both, mean)]
    if not out and not all(np.isfinite(values).any() for values in told):
        out = "one of the two cannot be measured here"
    return Dial(*told, out, alike(settings))


def verdict(dials: dict[str, Dial]) -> str:
    """What the points say: whether the arm that learns faster has clearly less shift, a clearly smoother loss, both or
    neither. Said with the names of those that are compared where others are not."""
    told = {name: d for name, d in dials.items() if not d.out}
    if len(told) < 2:
        return "Fewer than two arms have a loss well below guessing, so there is nothing to compare."
    able = [(a, b) for a, b in permutations(told, 2) if told[a].kind == told[b].kind]
    if not able:
        return (
            "No two of the arms that learn have the same learning rate, optimizer and data, on which the dials depend, "
            "so there is nothing to compare."
        )
    among = list(dict.fromkeys(a for a, _ in able))
    parts = 0 < len(able) < len(told) * (len(told) - 1)
    only = "" if len(among) == len(dials) and not parts else f"Compared are only {'; '.join(among)}"
    only += ", as shift depends on learning rate, optimizer and data. " if parts else ". " if only else ""
    pairs = [(a, b) for a, b in able if clearly(told[a].loss, told[b].loss) < 0]
    if not pairs:
        wide, rough = (
            max(ratio(getattr(told[a], k), getattr(told[b], k)) for a, b in able) for k in ("shift", "rough")
        )
        return (
            f"{only}{'; '.join(among)} learn about equally fast, though covariate shift differs by a factor of "
            f"{wide:.2g} and the roughness of the loss by one of {rough:.2g}."
        )
    n = len(pairs)
    shift, rough = ([clearly(getattr(told[a], k), getattr(told[b], k)) for a, b in pairs] for k in ("shift", "rough"))
    left, low = shift.count(-1), rough.count(-1)
    if n == 1:
        ((a, b),) = pairs
        words = f"{a} learns faster than {b}, with {('about as much', 'more', 'less')[shift[0]]} covariate shift and "
        words += ("an about as smooth loss", "a less smooth loss", "a smoother loss")[rough[0]]
    else:
        words = f"{n} pairs of arms differ in speed; the faster arm has clearly less shift in {left} of them and a "
        words += f"clearly smoother loss in {low}"
    follows = {(True, True): "both", (True, False): "less shift", (False, True): "smoothness"}
    return f"{only}{words}: here speed goes with {follows.get((left == n, low == n), 'neither of the two alone')}."


def ratio(one: np.ndarray, other: np.ndarray) -> float:
    """One over the other, geometric mean over the seeds that both have; NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(geometric(one / other))


def clearly(one: np.ndarray, other: np.ndarray) -> int:
    """-1 where one is less than the other by more than ALIKE, and with every seed; 1 where it is more; else 0. Seeds
    are compared one by one: a seed is the same data in the same order, and the same initial weights."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = one / other
    share = share[np.isfinite(share)]
    middle = ratio(one, other)
    return int(middle > 1 + ALIKE and (share > 1).all()) - int(middle < 1 / (1 + ALIKE) and (share < 1).all())


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
        shift, rough = (float(geometric(values)) for values in (found.shift, found.rough))
        loss = float(present(found.loss))
        when = f"mean loss {loss:.3g}" if np.isfinite(loss) else "no mean loss"
        symbol = style.symbol(arm) + ("-open" if found.out else "")
        there = np.isfinite(shift) and np.isfinite(rough)
        figure.add_scatter(
            x=[shift if there else None], y=[rough if there else None],
            name=f"{name}: {when}", mode="markers", showlegend=True,
            marker={"color": style.color(arm), "symbol": symbol, "size": 16, "line": {"width": 2}}, cliponaxis=False,
            hovertemplate=f"shift %{{x:.3g}}, roughness %{{y:.3g}}<extra>{name}: {when}</extra>",
        )  # fmt: skip
        why = f" (hollow, not compared: {found.out})" if found.out else ""
        both = (f"{v:.2g}" if np.isfinite(v) else "not measurable" for v in (shift, rough))
        notes.append("{}: shift {}, roughness {}, {}{}.".format(name, *both, when, why))
    figure.update_xaxes(title="covariate shift ‖G − G′‖/‖G‖", type="log")
    figure.update_yaxes(title="roughness ‖Δg‖/‖Δw‖ (less is smoother)", type="log")
    gone = [words for arm, words in lost(trace, trace.step).items() if not wholly(trace, arm, trace.step)]
    return finished(figure, 480, verdict(told), *notes, *gone, HOW, caution(trace))


HOW = (
    "Shift: how much the update of the layers below changes a layer's gradient, relative to that gradient; it grows "
    "with the learning rate. Roughness: the greatest change of the gradient per distance on 1/2 to 4 learning rates "
    "along it: Santurkar's effective smoothness, which has no learning rate in it. Geometric means over the looks the "
    "run took by itself, layers and seeds. An arm is faster where its mini-batch loss, mean over all steps so far, is "
    f"less; a difference counts above {ALIKE:.0%} and where every seed agrees."
)


def caution(trace: Trace) -> str:
    """What makes the comparison weak here."""
    words = "" if len(trace.experiment.seeds) > 1 else "One seed only: how far seeds differ is not known. "
    if any(s.optimizer == "adam" for s in trace.experiment.arm_settings):
        words += (
            "Adam does not walk along the gradient: its shift is that of its own update, its roughness that of a walk "
            "along the gradient."
        )
    return words.strip()


ABOUT = {
    "dials": About(
        "Two dials, and how fast it learns",
        "Which of the two explanations does the speed follow? Each arm once.",
        dials,
        (),
        dials_need,
    ),
}
