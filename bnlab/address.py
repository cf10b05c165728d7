"""The experiment as an address: short, readable, only what differs from the defaults.

?depth=30&activation=relu&arm=no+norm&arm=BN+before;norm=batch&seeds=0,1,2
"""

from __future__ import annotations

import json
import re
from typing import Any

from .experiment import DEFAULT_ARMS, Experiment, Settings

DEFAULTS = Experiment()
GROUPED = re.compile(r"\d{1,3}(,\d{3})+")  # 20,000: as the pages write a number


def to_query(experiment: Experiment) -> list[tuple[str, str]]:
    """The pairs of the URL's query that say this experiment; the default experiment needs none."""
    pairs = [
        (name, written(value))
        for name, value in experiment.settings.model_dump().items()
        if value != getattr(DEFAULTS.settings, name)
    ]
    if experiment.arms != DEFAULT_ARMS:
        pairs += [
            ("arm", ";".join([arm.label] + [f"{name}={written(value)}" for name, value in arm.changes.items()]))
            for arm in experiment.arms
        ]
    if experiment.seeds != DEFAULTS.seeds:
        pairs.append(("seeds", ",".join(map(str, experiment.seeds))))
    return pairs


def from_query(pairs: list[tuple[str, str]]) -> Experiment:
    """The experiment that the pairs of a URL's query say.

    Raises pydantic's ValidationError; problems.problems() turns it into sentences. Pairs that are not part of
    an experiment (`run`) are left alone by the caller.
    """
    return Experiment.model_validate(question(pairs))


def question(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """What the pairs say, right or wrong: settings, and arms and seeds where some are said."""
    asked: dict[str, Any] = {"settings": {}}
    for name, text in pairs:
        if name == "arm":
            label, *changes = text.split(";")
            told = (change.partition("=")[::2] for change in changes)
            asked.setdefault("arms", []).append(
                {"label": label, "changes": {key: read(key, value) for key, value in told}}
            )
        elif name == "seeds":
            asked["seeds"] = [int(seed) if seed.isdecimal() else seed for seed in text.split(",")]
        else:
            asked["settings"][name] = read(name, text)
    return asked


def written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def read(name: str, text: str) -> Any:
    """A setting's value from its text; what cannot be read stays text and is refused by the validation."""
    field = Settings.model_fields.get(name)
    if field is None or field.annotation is str:
        return text
    try:
        value = json.loads(text.replace(",", "") if GROUPED.fullmatch(text) else text)
    except (ValueError, RecursionError):  # deeply nested
        return text
    if isinstance(value, list | dict):
        return text
    return float(value) if field.annotation is float and type(value) is int else value
