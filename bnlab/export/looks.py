"""What a probe saw as a table, a number a row, and as text: which layer, quantile or length a number belongs to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ..experiment import FROZEN_ARMS, Experiment
from ..moving import ALPHAS
from ..probes.broken import MISTAKES
from ..probes.jacobian import QUANTILES
from ..probes.off import PARTS, WITHOUT
from ..reading import Trace

INFERENCE = ("inference", "alphas", "off", "practice", "broken")
UNITS = {"angle": " degrees", "drift": " standard deviations", "entering": " standard deviations"}

LAYER, LAYER_ABOVE = ("layer", 1), ("layer", 2)  # column, and the number of the first
QUANTILE = ("quantile", QUANTILES)  # or all of them
LINE = {"loss": [("length", "length")], "change": [("length", "length")]}  # or the array that holds them
AXES: dict[str, dict[str, list[tuple[str, int | tuple | str]]]] = {
    "inference": {name: [("snapshot", "step")] for name in ("loss", "accuracy")},
    "alphas": {name: [("alpha", "alpha")] for name in ("train_loss", "test_loss")},
    "off": {
        "loss": [("without", WITHOUT)],
        "parts": [("of", ("mean", "variance")), LAYER, ("alpha", tuple(ALPHAS)), ("part", PARTS)],
    },
    "practice": {name: [LAYER] for name in ("mean_off", "std_ratio")},
    "broken": {name: [("mistake", tuple(MISTAKES))] for name in ("loss", "accuracy")},
    "single": {name: [LAYER] for name in ("passing", "passing_of_two")},
    "gradient_line": LINE,
    "update_line": LINE,
    "shift": {name: [("layer", "layer")] for name in ("change", "relative", "cosine")}
    | {name: [LAYER] for name in ("drift", "entering")},
    "rank": {name: [LAYER] for name in ("rank", "cosine")},
    "jacobian": {"layer": [LAYER_ABOVE, QUANTILE], "product": [LAYER, QUANTILE]}
    | {name: [LAYER_ABOVE] for name in ("layer_rms", "layer_lost", "layer_condition")}
    | {name: [LAYER] for name in ("product_rms", "product_lost", "product_condition", "training", "training_error")},
    "landscape": {"loss": [("up", "at"), ("across", "at")]},
    "path": {
        "loss": [("up", "up"), ("across", "across")],
        "path": [("snapshot", "step"), ("direction", 1)],
        "share": [("direction", 1)],
    },
    "invariance": {name: [("factor", "factor")] for name in ("loss", "gradient", "rate")} | {"angle": [LAYER]},
    "undo": {name: [LAYER] for name in ("gradient_with", "gradient_without", "cosine")},
}


def mode(probe: str, experiment: Experiment) -> str:
    """How batch norm normalizes where a probe looks at these arms, in words; and what is named there by optimizer."""
    if probe in INFERENCE:
        return "inference mode"
    if probe == "single":
        return "both modes"
    if probe == "jacobian":
        single = f"population statistics{FROZEN_ARMS if len(experiment.statistics) > 1 else ''}"
        single = "frozen moving averages" if experiment.statistics == {"moving"} else single
        return f"layer and product: inference mode with {single}; training: {experiment.training_mode}"
    rate = "; rate: eta/||W||^2, under Adam eta/||W||" if probe == "invariance" else ""
    return f"{experiment.training_mode}, the next mini-batch{rate}"


def looked(trace: Trace, probe: str, step: int, options: Mapping[str, object] = {}) -> pa.Table:
    """What a probe saw at a step, a number a row, with a column for each thing it is counted by.

    Without what does not exist: the numbers of arms without batch norm, of networks that had diverged. Raises
    ValueError with the reason where it could not look.
    """
    axes = AXES.get(probe, {})
    places = list(dict.fromkeys(column for of in axes.values() for column, _ in of))
    coordinates = {where for of in axes.values() for _, where in of if isinstance(where, str)}
    rows: list[dict] = []
    for arm, label in enumerate(a.label for a in trace.experiment.arms):
        found = trace.look(probe, arm, step, **options) or {}
        if "wrong" in found:
            raise ValueError(str(found["wrong"][0]))
        for name, values in found.items():
            if name in coordinates and name not in axes:
                continue
            for place, seed in enumerate(trace.experiment.seeds):
                row = {"arm": label, "seed": seed, "step": step, "quantity": name}
                counted = list(zip(axes.get(name, ()), values.shape[1:], strict=True))
                along = [(column, numbers(where, found, place, n)) for (column, where), n in counted]
                for at, value in np.ndenumerate(values[place]):
                    if not np.isnan(value):
                        told = {column: all_of[i] for (column, all_of), i in zip(along, at, strict=True)}
                        rows.append(row | told | {"value": float(value)})
    columns = ("arm", "seed", "step", "quantity", *places, "value")
    return pa.table({column: [row.get(column) for row in rows] for column in columns})


def numbers(where: int | tuple | str, found: Mapping[str, np.ndarray], place: int, n: int) -> list:
    """What n numbers of an array belong to: counted, given, or in another array, whose last ones they are."""
    if isinstance(where, int):
        return list(range(where, where + n))
    return list(where) if isinstance(where, tuple) else found[where][place][-n:].tolist()


def text(probe: str, table: pa.Table, most: int | None = None) -> str:
    """The same for reading: a line for each network and quantity, and for each row where it has several. With what the
    numbers belong to, and their unit, where they have one. `most`: lines; of more only how many they are."""
    lines: dict[tuple, list[tuple[object, str]]] = {}
    for row in table.to_pylist():
        *rows, last = [column for column, _ in AXES.get(probe, {}).get(row["quantity"], ())] or [""]
        name = row["quantity"] + "".join(f", {column} {as_text(row[column])}" for column in rows)
        line = lines.setdefault((row["arm"], row["seed"], name, last, UNITS.get(row["quantity"], "")), [])
        line.append((row.get(last), f"{row['value']:.4g}"))
    told = [
        f"  {arm}, seed {seed}, {name}{belonging(last, [at for at, _ in line])}: {' '.join(v for _, v in line)}{unit}"
        for (arm, seed, name, last, unit), line in lines.items()
    ]
    if most is not None and len(told) > most:
        told[most:] = [f"  ... and {len(told) - most} more lines; --probe {probe} tells them all."]
    return "\n".join(told) or "  nothing: every network had diverged, or none has what this looks at."


def belonging(column: str, at: list) -> str:
    """`, layer 1 to 20`, or all of them where they are not counted."""
    if not column:
        return ""
    counted = len(at) > 2 and all(isinstance(one, int) for one in at) and at[-1] - at[0] == len(at) - 1
    between = "; " if isinstance(at[0], str) else " "
    return f", {column} " + (f"{at[0]} to {at[-1]}" if counted else between.join(map(as_text, at)))


def as_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
