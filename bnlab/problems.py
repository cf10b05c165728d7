"""What is wrong with an experiment, in sentences for the person who asked: what it is, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from .settings import MAX_ARMS, MAX_LABEL, MAX_SEEDS, Settings, about, limits

NAMED = {  # what has named fields, and how it is written
    "the experiment": '{"settings": {"depth": 30}, "seeds": [0, 1]}',
    "settings": '{"depth": 30}',
    "an arm": '{"label": "BN", "changes": {"norm": "batch"}}',
    "changes": '{"norm": "batch"}',
}


def allowed(name: str) -> str:
    """What the setting `name` may be, as words: '1 to 100', 'above 0 and at most 1', 'one of sgd, momentum, adam'."""
    if name == "batch_size":
        return "1 to the size of the training set, or full"
    known = about(name).choices
    if known:
        return "one of " + ", ".join(known)
    low, high = limits(name)
    if low is None:
        return "true or false"
    above = any(hasattr(m, "gt") for m in Settings.model_fields[name].metadata)
    if Settings.model_fields[name].annotation is int:
        return f"a whole number from {low:,} to {high:,}"
    return f"above {low:g} and at most {high:g}" if above else f"{low:g} to {high:g}"


def problems(error: ValidationError, fields: Iterable[str] = Settings.model_fields) -> list[str]:
    """All that is wrong, one sentence each: what it is and what is allowed. `problems(error)` of any model here; of
    what an arm changes, and of an address, with the `fields` that it may have."""
    said: list[str] = []
    found = error.errors(include_url=False)
    places = [e["loc"] for e in found]
    inner = {place[:n] for place in places for n in range(len(place))}
    found = [e for e in found if e["type"] != "too_short" or e["loc"] not in inner]  # what is in it is wrong, and said
    for e in found:
        where = [
            part
            for part in e["loc"]
            if not (isinstance(part, str) and part.startswith(("int", "literal", "constrained")))
        ]
        name = str(where[-1]) if where else ""
        if e["type"] == "value_error" and name not in Settings.model_fields:
            said += str(e["ctx"]["error"]).splitlines()
        elif e["type"] == "extra_forbidden":
            where, name = e["loc"], str(e["loc"][-1])  # whatever it is called
            known = fields if not where[:-1] or where[0] == "settings" else ("label", "changes")
            known = ("settings", "arms", "seeds") if len(where) == 1 and error.title == "Experiment" else known
            told = shown(name) if name.strip() else json.dumps(name)
            meant = get_close_matches(name, list(known), n=1)
            there = f"did you mean {meant[0]}? Known" if meant else "known"
            said.append(f"{told} is not a known field; {there} are {', '.join(known)}.")
        elif e["type"] == "json_invalid":
            said.append(f"this is not valid JSON: {e['ctx']['error']}.")
        elif e["type"] == "missing" and name == "label":
            said.append(f"an arm has no label; allowed are 1 to {MAX_LABEL} characters.")
        elif name in Settings.model_fields:
            kind = ", which is not a number" if e["type"] == "float_type" else ""
            said.append(f"{name} is {shown(e['input'])}{kind}; allowed is {allowed(name)}.")
        elif where and where[0] == "seeds":
            wrong = [*dict.fromkeys(shown(e["input"]) for e in found if e["loc"][:1] == ("seeds",))]
            some = wrong if len(wrong) <= MAX_SEEDS else [*wrong[:MAX_SEEDS], "..."]
            told = counted(e) or f"seeds are {', '.join(some)}"
            said.append(f"{told}; allowed are 1 to {MAX_SEEDS} whole numbers from 0 to {2**31 - 1:,}.")
        elif where == ["arms"]:
            told = counted(e) or f"arms are {shown(e['input'])}"
            said.append(f"{told}; allowed are 1 to {MAX_ARMS} arms, each with a label and changes.")
        elif name == "label":
            said.append(f"an arm's label is {shown(e['input'])}; allowed are 1 to {MAX_LABEL} characters.")
        else:
            what = name if name in NAMED else "an arm" if where else "the experiment"
            said.append(f"{what} is {shown(e['input'])}; allowed is an object such as {NAMED[what]}.")
    return list(dict.fromkeys(said))


def between(names: Iterable[str]) -> str:
    """What stands between names in a list: a semicolon where one of them looks like two."""
    return "; " if any(", " in name or " and " in name for name in names) else ", "


def series(names: Iterable[str]) -> str:
    """'a, b, c'; 'a, 1; a, 2; b'."""
    names = list(names)
    return between(names).join(names)


def enumeration(names: Iterable[str], at_last: str = " and ") -> str:
    """'a', 'a and b', 'a, b and c'; 'a, 1; and b'."""
    *first, last = names = list(names)
    apart = between(names)
    return f"{apart.join(first)}{apart.strip(', ')}{at_last}{last}" if first else last


def in_a_line(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def counted(e: Mapping[str, Any]) -> str:
    """How many there are where that is what is wrong: 'there are 9 arms'."""
    if e["type"] not in ("too_long", "too_short"):
        return ""
    return f"there are {e['ctx']['actual_length'] or 'no'} {e['loc'][-1]}"


def shown(value: Any) -> str:
    """A value as a person wrote it, in JSON or in a control, short enough for a sentence."""
    text = str(value) if isinstance(value, str | float) else json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str) and (value != value.strip() or value.lstrip("+-")[:1].isdecimal()):
        text = f'"{value}"'  # a text where a number belongs, or one whose blanks would be lost in the sentence
    elif not text:
        text = "empty"
    return text if len(text) <= 60 else text[:57] + "..."
