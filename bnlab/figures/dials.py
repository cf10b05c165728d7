"""Two dials, shift and smoothness, beside how fast each arm learns: which of the two does the speed follow?

Both dials depend on the learning rate: the update of the layers below is what shifts, and roughness is looked for
within 4 learning rates along the gradient. Both depend on the optimizer and the data, too, and on the mini-batch size:
the gradient of fewer examples is another one. So arms are compared only where all of these are the same.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..problems import enumeration
from ..train import scheduled
from . import style
from .lasting import lost, room, wholly
from .looks import COMING, NOT_YET, Needs, empty, finished, missing
from .losses import chance_loss
from .means import geometric, present
from .options import Plot, having
from .smoothing import smoothed

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

DIALS = ("shift", "gradient_line")  # the probes
MOMENTS = 8  # snapshots at which both look, at most
SMOOTHING = 10  # steps over which the newest loss is averaged
ROUGHNESS = "roughness ‖Δg‖/‖Δw‖ (less is smoother)"
NONE_BELOW = "Covariate shift comes from the layers below, and no arm here has more than one layer. Raise depth."
NAMES = {"shift": "covariate shift", "rough": "the roughness of the loss"}  # of the dials
ALIKE = 0.1  # relative difference below which two arms say the same
NEAR = 0.5  # decades from the arms that are compared up to which one that is not is drawn with them
LEAST = 2, 2, 3  # digits of both dials and the loss, at least
LEARNS = 0.9  # of the loss of guessing: a network learns where its newest loss is below
SAME = "learning rate, optimizer, data and mini-batch size K"


class Dial(NamedTuple):
    """Where an arm stands, [seeds] each, NaN for networks that diverged. shift: ‖G − G′‖/‖G‖, geometric mean over
    moments and layers; rough: ‖Δg‖/‖Δw‖ along the gradient, over the same moments; loss: of the mini-batches, mean over
    all steps so far. out: why the arm is not compared, "" where it is. kind: only arms of one kind are compared."""

    shift: np.ndarray
    rough: np.ndarray
    loss: np.ndarray
    out: str = ""
    kind: tuple = ()


def moments(trace: Trace) -> list[int]:
    """The snapshots that both dials are means over, evenly spread: every one, every 2nd, every 4th and so on, so that
    few are new while a run trains, and neither a visit to another step nor a pause changes them. A thinned run has lost
    snapshots at which both have looked."""
    looked = set.intersection(*(set(trace.looked(probe)) for probe in DIALS))
    steps, stride = scheduled(trace.experiment, {*trace.snapshots(), *looked}), 1
    while len(steps) > MOMENTS * stride:
        stride *= 2
    return steps[::stride]


def dials_need(trace: Trace) -> Needs:
    return [(probe, step, {}) for step in moments(trace) for probe in DIALS]


def alike(settings: Settings) -> tuple:
    """What two arms must have in common to be compared."""
    return settings.data, settings.optimizer, settings.learning_rate, settings.mini_batch


def dial(trace: Trace, arm: int, at: list[int]) -> Dial:
    """Both dials over the moments `at`, at which both have looked."""
    shift, along = (trace.looks(probe, arm, at=at)[1] for probe in DIALS)
    settings, seeds = trace.experiment.arm_settings[arm], trace.experiment.seeds
    gone = np.array([(arm, seed) in trace.diverged for seed in seeds])
    both = geometric(shift["relative"], (0, 2)), geometric(along["smoothness"])
    loss = trace.read("loss", arm, points=400)
    stop = min(trace.step + 1, trace.experiment.settings.steps)
    weight = np.diff(loss.steps, append=stop)[:, None]  # a point may stand for several steps
    mean = (loss.mean * weight).sum(0, dtype=float) / weight.sum() if len(loss.steps) else np.full(len(seeds), np.nan)
    newest = [float(smoothed(loss.steps, values, SMOOTHING)[-1]) for values in loss.mean.T] if len(loss.steps) else []
    guessing = chance_loss(settings)
    stays = [now for now in newest if not np.isnan(now) and not now < LEARNS * guessing]
    out = ""
    if wholly(trace, arm, trace.step):
        out = f"it diverged at step {min(trace.diverged[arm, s][0] for s in seeds):,}"
    elif not len(loss.steps):
        out = "it has not taken a step yet"
    elif stays:
        few = f" with {len(stays)} of {len(seeds)} seeds" if len(stays) < len(seeds) else ""
        digits = style.enough_digits([*stays, guessing], 1 / LEARNS, 3)
        *each, guessing = (style.amount(loss, digits) for loss in (*stays, guessing))
        out = f"its loss of {enumeration([*dict.fromkeys(each)])}{few} is not clearly below the {guessing} of guessing"
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
            f"No two of the arms that learn have the same {SAME}, on which both dials depend, so there is nothing to "
            "compare."
        )
    among = list(dict.fromkeys(a for a, _ in able))
    parts = 0 < len(able) < len(told) * (len(told) - 1)
    names = enumeration(among)
    if len(among) < len(dials):
        only = f"Only {names} are compared{f', as both dials depend on {SAME}' if parts else ''}. "
    else:
        only = f"Arms are compared only within one {SAME}, on which both dials depend. " if parts else ""
    pairs = [(a, b) for a, b in able if clearly(told[a].loss, told[b].loss) < 0]
    if not pairs:
        apart = [f"{words} {differs(told, able, k)}" for k, words in NAMES.items() if differs(told, able, k)]
        also = f"though {' and '.join(apart)}" if apart else "and neither dial differs clearly"
        return f"{only}{names} learn about equally fast, {also}."
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


def differs(told: dict[str, Dial], pairs: list[tuple[str, str]], name: str) -> str:
    """By how much a dial differs at most within pairs, in words; "" where it does so clearly in none."""
    each = [(getattr(told[a], name), getattr(told[b], name)) for a, b in pairs]
    most = max(ratio(*both) for both in each)
    most = style.amount(most, style.enough_digits([1.0, most], 1 + ALIKE))
    return f"differs by a factor of {most}" if any(clearly(*both) for both in each) else ""


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


def beyond(figure: go.Figure, compared: dict[str, np.ndarray], hollow: dict[str, np.ndarray]) -> list[str]:
    """Let the axes go by the arms that are compared, and hollow ones near them, and say which lie outside; logarithms
    of both dials by name. An arm that is not compared pressed the others into a corner."""
    if not compared:
        return []
    low, high = np.min([*compared.values()], 0) - NEAR, np.max([*compared.values()], 0) + NEAR
    far = [name for name, place in hollow.items() if ((place < low) | (place > high)).any()]
    if not far:
        return []
    inside = [*compared.values(), *(place for name, place in hollow.items() if name not in far)]
    for axis, values in zip((figure.layout.xaxis, figure.layout.yaxis), np.transpose(inside), strict=True):
        axis.range = room(float(values.min()), float(values.max()))
    those = f"{enumeration(far)} {'lies' if len(far) == 1 else 'lie'}"
    return [f"{those} outside the axes, which go by the arms that are compared; Autoscale in the toolbar shows all."]


def dials(trace: Trace) -> go.Figure:
    """Both dials of every arm: shift across, smoothness up; how fast it learned beside its name."""
    if not having(trace, 2):
        return style.said(NONE_BELOW)
    looks = {step: [trace.look(probe, 0, step) for probe in DIALS] for step in moments(trace)}
    if not looks:
        return style.said(NOT_YET)
    if any(look is None for both in looks.values() for look in both):
        return style.said(COMING)
    at = [step for step, both in looks.items() if not any(map(missing, both))]
    if not at:
        return next(filter(None, map(missing, next(iter(looks.values())))))
    told = {style.label(trace, arm): dial(trace, arm, at) for arm in range(len(trace.experiment.arms))}
    kinds = Counter(d.kind for d in told.values() if not d.out)
    means = {name: (*map(geometric, (d.shift, d.rough)), present(d.loss)) for name, d in told.items()}
    by_dial = zip(*(means[name] for name, d in told.items() if not d.out), strict=True)
    digits = [style.enough_digits(each, 1 + ALIKE, least) for each, least in zip(by_dial, LEAST, strict=False)] or LEAST
    figure, lines, compared, hollow = make_subplots(1, 1), [], {}, {}
    for arm, (name, found) in enumerate(told.items()):
        shift, rough = map(float, means[name][:2])
        there = np.isfinite(shift) and np.isfinite(rough)
        *both, loss = (style.amount(v, n) if np.isfinite(v) else "" for v, n in zip(means[name], digits, strict=True))
        both = [one or "not measurable" for one in both]
        when = f"mean loss {loss}" if loss else "no mean loss"
        out = found.out or (ALONE if kinds[found.kind] < 2 else "")
        if there:
            (hollow if out else compared)[name] = np.log10([shift, rough])
        symbol = style.symbol(arm) + ("-open" if out else "")
        figure.add_scatter(
            x=[shift if there else None], y=[rough if there else None],
            name=f"{name}: {when}", mode="markers", showlegend=True,
            marker={"color": style.color(arm), "symbol": symbol, "size": 16, "line": {"width": 2}}, cliponaxis=False,
            hovertemplate="shift {}, roughness {}".format(*both) + f"<extra>{name}: {when}</extra>", row=1, col=1,
        )  # fmt: skip
        why = f" (hollow, not compared: {out})" if out else ""
        lines.append("{}: shift {}, roughness {}, {}{}.".format(name, *both, when, why))
    figure.update_layout(legend={"itemsizing": "constant"})  # the marks of two lines would touch
    figure.update_xaxes(title="covariate shift ‖G − G′‖/‖G‖", type="log")
    figure.update_yaxes(title=ROUGHNESS, type="log")
    lines += beyond(figure, compared, hollow)
    empty(figure, 1, "Of no arm both can be measured.")
    lines += [words for arm, words in lost(trace, trace.step).items() if not wholly(trace, arm, trace.step)]
    lines += [caution(trace), HOW.format(steps=listed(at), mode=trace.experiment.training_mode)]
    return finished(figure, 480, "\n".join(filter(None, [verdict(told), *lines])))


ALONE = f"no other arm that learns has its {SAME}"
HOW = (
    "Shift: how much the update of the layers below changes a layer's gradient, relative to that gradient. Roughness: "
    "the greatest change of the gradient per distance on 1/2 to 4 learning rates along it, Santurkar's effective "
    "smoothness. Both depend on the learning rate, which sets the size of the update and the distance examined. Both "
    "at {steps}: {mode}, the next mini-batch; geometric means over these, layers and seeds. An arm is faster where its "
    f"mini-batch loss, mean over all steps so far, is less; a difference counts above {ALIKE:.0%} and where every seed "
    "agrees."
)


def listed(steps: list[int]) -> str:
    """'step 0', 'steps 0, 20 and 40'."""
    return f"step{'s' * (len(steps) > 1)} {enumeration([f'{step:,}' for step in steps])}"


def caution(trace: Trace) -> str:
    """What makes the comparison weak here."""
    words = "" if len(trace.experiment.seeds) > 1 else "One seed only: how far seeds differ is not known. "
    if any(s.optimizer == "adam" for s in trace.experiment.arm_settings):
        words += (
            "Adam does not walk along the gradient: its shift is that of its own update, its roughness that of a walk "
            "along the gradient."
        )
    return words.strip()


PLOTS = {
    "dials": Plot(
        "Two dials, and how fast it learns",
        "Which of the two explanations does the speed follow? Each arm once.",
        dials,
        (),
        dials_need,
    ),
}
