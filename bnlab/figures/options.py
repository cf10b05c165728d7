"""What a figure may be asked: options declared once, from which the page makes widgets and the route checks queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import plotly.graph_objects as go

from . import style
from .lasting import wholly
from .style import NO_STEPS

if TYPE_CHECKING:
    from ..reading import Trace
    from ..run import Run


class Option(NamedTuple):
    """One question. kind: "arm", "batch arm" (one with batch norm), "seed", "layer", "unit", "step" take their range
    from the run; "choice" has `choices` (value -> label); "number" lies between low and high, and is offered at
    `marks`. `buttons`: the choices all stand there to be pressed. `when` (another option, its value): it is asked only
    then, as it makes no difference else.

    default None: the first (seed, unit), the first that lasts (arm; "1": the second of those, or the only one), the
    newest (step), the first choice; for a layer the middle one, as the first one's inputs are standardized, which hides
    what is to be seen; "last" for the highest.
    """

    name: str
    kind: str
    label: str
    help: str
    choices: Mapping[str, str] = {}
    low: float = 0
    high: float = 1
    default: str | None = None
    marks: tuple[float, ...] = ()
    buttons: bool = False
    when: tuple[str, str] | None = None


class Plot(NamedTuple):
    """A figure that can be asked for: `draw(trace, **options)` makes it, `help` says what to look at.

    `needs(trace, **options)` names the looks it draws, (probe, step, the probe's options); until they have been taken
    it says so in words. `lacks(run)` says why a run has no such figure, whatever is recorded; empty where it may have.
    """

    label: str
    help: str
    draw: Callable[..., go.Figure]
    options: tuple[Option, ...] = ()
    needs: Callable[..., list[tuple[str, int, dict]]] | None = None
    lacks: Callable[[Run | Trace], str] = lambda run: ""


ARM = Option("arm", "arm", "Arm", "Which side of the comparison is shown.")
BATCH_ARM = Option("arm", "batch arm", "Arm", "Which arm with batch norm is shown.")
SEED = Option("seed", "seed", "Seed", "Which of the arm's networks is shown.")
LAYER = Option("layer", "layer", "Layer", "Hidden layer, counted from the input.")
UNIT = Option("unit", "unit", "Unit", "Unit of the layer, counted from 1.")
AXIS = {"linear": "linear", "log": "log"}  # the scales of an axis
STEP = Option("step", "step", "Step", "The moment that is shown; the newest follows the training.")
NONE_HAS_BATCH_NORM = (
    "No arm of this run has batch norm, so there is nothing to see of it. Train an arm with batch norm in the Lab."
)


def choice(name: str, label: str, help: str, choices: Mapping[str, str]) -> Option:
    return Option(name, "choice", label, help, choices)


def span(option: Option, trace: Trace, arm: int | None) -> tuple[int, int]:
    """The least and the greatest value of a counted option for this run and arm; None: for any of its arms."""
    settings = trace.experiment.arm_settings[slice(None) if arm is None else slice(arm, arm + 1)]
    return {
        "arm": (0, len(trace.experiment.arms) - 1),
        "batch arm": (0, len(trace.experiment.arms) - 1),
        "seed": (0, len(trace.experiment.seeds) - 1),
        "layer": (1, max(s.depth for s in settings)),
        "unit": (1, max(s.width for s in settings)),
        "step": (0, max(trace.step, 0)),
    }[option.kind]


def default(option: Option, trace: Trace, arm: int | None) -> Any:
    """What is shown unless asked otherwise."""
    if option.kind == "choice":
        return option.default or next(iter(option.choices))
    if option.kind == "number":
        return float(option.default or option.low)
    if option.kind in ("arm", "batch arm"):
        return first_arm(option, trace)
    low, high = span(option, trace, arm)
    if option.kind == "layer":
        return first_layer(option, high)
    if option.kind == "step":
        return newest(trace)
    return min(int(option.default), high) if option.default else low


def newest(trace: Trace) -> int:
    """The newest step at which there is something to see: where every network has diverged, the one before the last of
    them did."""
    networks = ((arm, seed) for arm in range(len(trace.experiment.arms)) for seed in trace.experiment.seeds)
    ends = [trace.diverged.get(network, (trace.step + 1,))[0] - 1 for network in networks]
    return max(0, min(trace.step, max(ends)))


def fitting(option: Option, run: Run | Trace) -> list[int]:
    """The arms that may be chosen: all, or those with batch norm."""
    norms = [settings.norm for settings in run.experiment.arm_settings]
    return [arm for arm, norm in enumerate(norms) if option.kind == "arm" or norm == "batch"]


def part(options: Iterable[Option], values: Mapping[str, Any], trace: Trace) -> str:
    """Which part of the run a figure with these options shows, for its title elsewhere: 'BN before, layer 3, step 480';
    what the run has but one of is not told."""
    told = []
    for option in options:
        value = values[option.name]
        if option.kind in ("arm", "batch arm"):
            told.append(trace.experiment.arms[value].label)
        elif option.kind in ("layer", "unit", "step") and span(option, trace, None)[1] > 1:
            told.append(f"{option.kind} {value:,}")
        elif option.kind == "seed" and len(trace.experiment.seeds) > 1:
            told.append(f"seed {trace.experiment.seeds[value]}")
    return ", ".join(told)


def no_steps(run: Run | Trace) -> str:
    """What to say of a figure that draws steps, for a run that was asked for none."""
    return NO_STEPS if run.experiment.settings.steps == 0 else ""


def no_batch_norm(run: Run | Trace) -> str:
    """What to say of a figure that is about batch norm, for a run without any."""
    return "" if fitting(BATCH_ARM, run) else NONE_HAS_BATCH_NORM


def lacking(plot: Plot, run: Run | Trace) -> str:
    """Why a run has no such figure, whatever is recorded, as a sentence; empty where it may have one."""
    normed = any(option.kind == "batch arm" for option in plot.options)
    return (no_batch_norm(run) if normed else "") or plot.lacks(run)


def first_arm(option: Option, run: Run | Trace) -> int:
    """The arm that is shown unless asked otherwise: of one that has diverged there may be nothing to see."""
    arms = fitting(option, run) or [0]
    arms = [arm for arm in arms if not wholly(run, arm)] or arms
    return arms[min(int(option.default or 0), len(arms) - 1)]


def first_layer(option: Option, depth: int) -> int:
    """The layer that is shown unless asked otherwise."""
    return depth if option.default == "last" else (depth + 1) // 2


def read(option: Option, text: str | None, trace: Trace, arm: int | None) -> Any:
    """The option's value from a query's text. Raises ValueError with a sentence. A step ahead is the newest, a layer
    or unit that only another arm has the nearest that this one has."""
    if text is None or text == "":
        return default(option, trace, arm)
    if option.kind == "choice":
        if text not in option.choices:
            raise ValueError(f"{option.name} is {text[:40]}; allowed is one of {', '.join(option.choices)}.")
        return text
    low, high = (option.low, option.high) if option.kind == "number" else span(option, trace, None)
    try:
        value = float(text) if option.kind == "number" else int(text)
    except ValueError:
        value = None
    if option.kind == "step" and value is not None and value > high:
        value = high
    if value is None or not low <= value <= high:
        raise ValueError(f"{option.name} is {text[:40]}; allowed is {low:,.10g} to {high:,.10g}.")
    return min(value, span(option, trace, arm)[1]) if option.kind in ("layer", "unit") else value


def asked(options: tuple[Option, ...], query: Mapping[str, str], trace: Trace) -> dict[str, Any]:
    """All options' values from a query. Raises ValueError with a sentence, also for a name that is not an option."""
    unknown = set(query) - {option.name for option in options}
    if unknown:
        known = ", ".join(option.name for option in options) or "none"
        raise ValueError(f"{min(unknown)[:40]} is not an option of this figure; known are {known}.")
    values: dict[str, Any] = {}
    one = any(option.name == "arm" and not option.when for option in options)  # else a layer is that of several arms
    for option in sorted(options, key=lambda o: o.name != "arm"):  # the ranges depend on the arm
        values[option.name] = read(option, query.get(option.name), trace, values["arm"] if one and values else None)
    return values


def nearest(query: Mapping[str, str], values: Mapping[str, Any], trace: Trace) -> str:
    """Which layer or unit is shown where asked() found the nearest, as the arm has fewer than another, in sentences."""
    told = []
    for name, many in (("layer", "layer{s}"), ("unit", "unit{s} in a layer")):
        if query.get(name) and name in values and int(query[name]) > values[name]:
            n = values[name]
            has = f"{trace.experiment.arms[values['arm']].label} has {n:,} {many.format(s='s' * (n > 1))}"
            told.append(f"{has}: {name} {n:,} is shown.")
    return " ".join(told)


def having(trace: Trace, layer: int) -> list[int]:
    """The arms that have this layer."""
    return [arm for arm, settings in enumerate(trace.experiment.arm_settings) if settings.depth >= layer]


def lower(trace: Trace, layer: int, where: str = "", of: Iterable[int] | None = None) -> str:
    """What to add where those `of` the arms that have fewer layers are left out of what is drawn of one layer: ' BN has
    2 layers and is left out.'"""
    return "".join(
        f" {style.label(trace, arm)} has {settings.depth} layer{'s' * (settings.depth > 1)} and is left out{where}."
        for arm, settings in enumerate(trace.experiment.arm_settings)
        if settings.depth < layer and (of is None or arm in of)
    )
