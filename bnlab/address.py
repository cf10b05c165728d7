"""The experiment as an address: short, readable, only what differs from the defaults.

?depth=30&activation=relu&arm=no+norm&arm=BN+before;norm=batch&seeds=0,1,2
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from .experiment import Experiment, Settings, default_arms
from .frozen import with_more
from .problems import shown

DEFAULTS = Experiment()
LONG = 100  # digits; of thousands int() makes no number
EXACT = 2**53  # whole numbers below it are floats, too
GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+")  # 20,000: as the pages write a number
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.I)  # also .1, 1., +3 and 03, no JSON


def to_query(experiment: Experiment) -> list[tuple[str, str]]:
    """The pairs of the URL's query that say this experiment; the default experiment needs none."""
    pairs = [
        (name, to_text(value))
        for name, value in experiment.settings.model_dump().items()
        if value != getattr(DEFAULTS.settings, name)
    ]
    if experiment.arms != default_arms(experiment.settings):
        pairs += [
            ("arm", ";".join([arm.label] + [f"{name}={to_text(value)}" for name, value in arm.changes.items()]))
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
    told = repeats(pairs)
    try:
        experiment = Experiment.model_validate(question(pairs))
    except ValidationError as error:
        raise with_more(error, told) from None
    if told:
        raise with_more(ValidationError.from_exception_data("Experiment", []), told)
    return experiment


def question(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """What the pairs say, right or wrong: settings, and arms and seeds where some are said. Of what appears more than
    once, the last."""
    asked: dict[str, Any] = {"settings": {}}
    for name, text in pairs:
        if name == "arm":
            label, changes = parted(text)
            asked.setdefault("arms", []).append(
                {"label": label, "changes": {key: read(key, value) for key, value in changes}}
            )
        elif name == "seeds":
            asked["seeds"] = read_seeds(text)
        else:
            asked["settings"][name] = read(name, text)
    return asked


def parted(arm: str) -> tuple[str, list[tuple[str, str]]]:
    """The label of an arm and the pairs of its changes, as they are written; nothing between two semicolons is none."""
    label, *changes = arm.split(";")
    return label, [change.partition("=")[::2] for change in changes if change]


def repeats(pairs: list[tuple[str, str]]) -> list[str]:
    """What appears more than once, a sentence each: of a query only arms may, of an arm's changes none."""
    found = more_than_once([pair for pair in pairs if pair[0] != "arm"])
    for label, changes in (parted(text) for name, text in pairs if name == "arm"):
        found += [f"arm {label!r}: {sentence}" for sentence in more_than_once(changes)]
    return found


def more_than_once(pairs: list[tuple[str, str]]) -> list[str]:
    """A sentence for each name that several of the pairs have."""
    told: dict[str, list[str]] = {}
    for name, text in pairs:
        told.setdefault(name, []).append(shown(f"{name}={text}"))
    return [
        f"{name}= appears more than once: {', '.join(said)}. Keep one." for name, said in told.items() if len(said) > 1
    ]


def to_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def read(name: str, text: str) -> Any:
    """A setting's value from its text; what cannot be read stays text and is refused by the validation."""
    field = Settings.model_fields.get(name)
    if field is None or field.annotation is str:
        return text
    if name == "batch_size" and text.lower() == "full":
        return "full"
    plain = text.strip()
    plain = plain.replace(",", "") if GROUPED.fullmatch(plain) else plain
    try:
        if DECIMAL.fullmatch(plain):
            value = int(plain) if field.annotation is not float and plain.lstrip("+-").isdecimal() else float(plain)
        else:
            value = json.loads(plain)
    except (ValueError, RecursionError):  # deeply nested
        return text
    if isinstance(value, list | dict):
        return text
    if field.annotation is not float and type(value) is float and value.is_integer() and abs(value) < EXACT:
        return int(value)  # 1e3
    return value


def read_seeds(text: str) -> list[int | str]:
    """Seeds, parted by commas, blanks or, as in a query, pluses; what is no number stays text, as in `read`."""
    words = re.findall(r"[^\s,+]+", text)
    return [int(word) if word.isdecimal() and len(word) < LONG else word for word in words]
