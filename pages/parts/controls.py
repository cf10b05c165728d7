"""Settings in, widgets, Settings out: every control is made from its field's declaration in settings.py."""

from __future__ import annotations

from math import floor, log10
from typing import Any, NamedTuple

import streamlit as st

from bnlab import problems
from bnlab.address import read, read_seeds, to_text
from bnlab.data import DATASETS
from bnlab.figures.style import amount
from bnlab.run import Run
from bnlab.settings import MAX_SEEDS, SECTIONS, Settings, about, limits

from . import live, session
from .words import INVISIBLE, capital, escaped

FEW = 200  # values a slider can still be set to one by one
SHORT = 18  # characters of all choices together that fit side by side
GRID = (1, 2, 5)
KEPT = "leave as it is"  # first in a list of texts: it is what Enter takes in a box that was emptied
END = INVISIBLE  # behind a value; without it Streamlit takes 0.15 pasted over 0.1 for an added 5, and keeps the 5


class Place(NamedTuple):
    """Where sentences stand on the page; of a control's place, which setting it holds and under which key."""

    box: Any
    name: str = ""
    key: str = ""


Places = dict[str, Place]  # what a sentence starts with -> where it stands


def settings(me: session.Session) -> Places:
    """All sections, each with the controls of its fields while it is open; what the visitor sets is put into the draft.

    Returns a place for what is wrong with each field, which is known when all are asked: below its control, or below a
    section that is closed.
    """
    asked, places = me.draft["settings"], {}
    for section in SECTIONS:
        names = [name for name in Settings.model_fields if about(name).section == section]
        key = me.key(f"section-{section}")
        with st.expander(section, expanded=section != "Recording", key=key, on_change="rerun") as place:
            for name in names if place.open else ():
                asked[name] = control(name, asked[name], me.key(name), asked)
                places[f"{name} is "] = Place(st.empty(), name, me.key(name))
            if place.open and section == "Data" and asked["data"] in DATASETS:
                preview(asked["data"], asked["standardize"])
        if not place.open:
            places |= {f"{name} is ": Place(st.empty(), name, me.key(name)) for name in names}
    return places


def preview(data: str, standardize: bool) -> None:
    """The data set as a picture, made only while it is open."""
    with st.expander("Preview", type="compact", on_change="rerun", key="preview") as place:
        if place.open:
            title = f"Preview of {DATASETS[data].label}"
            live.chart(f"api/data/{data}", {"standardize": to_text(standardize)}, title)


def complain(places: Places, wrong: list[str]) -> list[str]:
    """Every sentence in one place; several for one place stand together. An arm's stands at the control it speaks of:
    the arm's own or else the shared one; where there is none, at the arm. Returns them as they read there."""
    told: dict[Any, list[str]] = {}
    said = []
    for sentence in wrong:
        own = [start for start in places if sentence.startswith(start)]
        shared = [start for start in places if sentence.rpartition("': ")[2].startswith(start)]
        for start in [*own[1:], *shared, *own][:1]:
            sentence = in_words(sentence, places[start])
            told.setdefault(places[start].box, []).append(sentence)
        said.append(sentence)
    for box, sentences in told.items():
        box.error("\n\n".join(escaped(capital(each)) for each in sentences))
    return said


def in_words(sentence: str, place: Place) -> str:
    """As it reads on the page: the control's label for the field's name, and what was typed as it was typed."""
    arm, between, rest = sentence.rpartition("': ")
    value = rest.removeprefix(f"{place.name} is ")
    if not place.name or value == rest:
        return sentence
    own = session.value(place.key)
    text = own.replace(END, "").strip() if isinstance(own, str) else ""
    known = read(place.name, text)
    if not isinstance(known, str) and value.startswith(start := f"{problems.shown(known)};"):
        value = f"{text if len(text) <= 60 else text[:57] + '...'};{value.removeprefix(start)}"
    return f"{arm}{between}{label(place.name)} is {value}"


def control(name: str, value: Any, key: str, beside: dict[str, Any]) -> Any:
    """One setting's widget, chosen by the declared type; `beside` are the settings it stands among."""
    told = about(name)
    low, high = limits(name)
    kind = Settings.model_fields[name].annotation
    known = "" if told.choices or kind is bool else f" Allowed: {problems.allowed(name)}."  # else they are seen
    shown = {"label": label(name), "key": key, "help": f"{told.help}{known}"}
    if told.choices:
        choices = list(told.choices)
        look = {"options": choices, "format_func": lambda choice: told.choices.get(choice, choice)}
        if value not in choices:  # an address may say anything; the sentence below says what is allowed
            choices.append(value)
        if sum(map(len, told.choices.values())) <= SHORT:
            return st.segmented_control(default=value, required=True, width="stretch", **look, **shown)
        return st.selectbox(index=choices.index(value), **look, **shown)
    if kind is bool:
        return st.toggle(value=value is True, **shown)
    if kind is int and high - low <= FEW and isinstance(value, int) and low <= value <= high:
        return st.slider(min_value=low, max_value=high, value=value, **shown)
    chosen = typed(grid(name, beside), to_text(value), shown)
    return value if chosen == to_text(value) else read(name, chosen)


def typed(texts: list[str], text: str, shown: dict[str, Any]) -> str:
    """A list of texts to choose from that also takes one that is typed; `text` is chosen at first."""
    own = session.value(shown["key"])
    for known in (text, own and own.replace(END, "")):
        if known is not None and known not in texts:
            texts.append(known)
    chosen = st.selectbox(  # what is kept is written anew: something typed, too, has its END then
        options=[KEPT, *texts], index=1 + texts.index(text), accept_new_options=True, filter_mode="prefix",
        format_func=lambda text: text.replace(END, "") + END, on_change=session.keep,
        args=(shown["key"], KEPT, own or text), **shown,
    )  # fmt: skip
    return text if chosen is None else chosen.replace(END, "").strip()


def label(name: str) -> str:
    """The setting's label with its symbol and unit: 'Depth L (hidden layers)'."""
    told = about(name)
    return " ".join(filter(None, (told.label, told.symbol, told.unit and f"({told.unit})")))


def grid(name: str, beside: dict[str, Any]) -> list[str]:
    """Values worth offering in a list that also takes typed ones: doublings, 1-2-5 steps, or a few shares."""
    low, high = limits(name)
    if name == "batch_size":
        n = DATASETS[beside["data"]].n_train if beside["data"] in DATASETS else 1024
        return [str(2**i) for i in range(n.bit_length()) if 2**i < n] + ["full"]
    if Settings.model_fields[name].annotation is int:
        doublings = high & (high - 1) == 0
        values = [2**i for i in range(31)] if doublings else [g * 10**e for e in range(7) for g in GRID]
        return [str(v) for v in ([0] if low == 0 else []) + values if low <= v <= high]
    if about(name).step:  # a share: fine steps matter near 1
        return ["0", "0.5", "0.8", "0.9", "0.95", "0.99", "0.995", "0.999", "1"]
    middle = floor(log10(Settings.model_fields[name].default or 1e-3))  # of the default: those far below are for typing
    values = [float(f"{g}e{e}") for e in range(middle - 3, 3) for g in GRID]
    return (["0"] if low == 0 and not about(name).log else []) + [f"{v:g}" for v in values if low < v <= high]


def seeds(me: session.Session) -> Places:
    """How many seeds, or which: a list to choose from or to type."""
    chosen = typed(
        [", ".join(map(str, range(n))) for n in range(1, MAX_SEEDS + 1)],
        ", ".join(map(str, me.draft["seeds"])),
        {
            "label": "Seeds",
            "key": me.key("seeds"),
            "help": "Each arm is trained once per seed, with its own initial weights and order of mini-batches; the "
            f"curves show the mean and the band. Choose, or type up to {MAX_SEEDS} whole numbers, such as 3, 14, 15.",
        },
    )
    me.draft["seeds"] = read_seeds(chosen)
    starts = "seeds ", f"there are {len(me.draft['seeds']) or 'no'} seeds"
    return dict.fromkeys(starts, Place(st.empty()))


def normed_arm(run: Run | None) -> tuple[str, Settings]:
    """The settings of a run's first arm with batch norm, or the defaults; and whose they are, in words."""
    for arm, settings in zip(run.experiment.arms, run.experiment.arm_settings, strict=True) if run else ():
        if settings.norm == "batch":
            told = f"α, K, δ = {amount(settings.delta)} and width {settings.width} are those of"
            return f"{told} {escaped(arm.label)}, unless you change them.", settings
    return "α, K, δ and width are the lab's defaults, as no arm here has batch norm.", Settings()


def number(name: str, value: float, least: float, most: float, step: float, key: str, help: str = "") -> float:
    """A number that is asked for outside the question, with the words of the setting it resembles, or a `help` of its
    own; shown as it is."""
    look = {"min_value": least, "max_value": most, "step": step, "width": 220, "help": help or about(name).help}
    return st.number_input(
        label(name), value=value, key=f"number-{name}-{key}", format="%d" if isinstance(step, int) else "%g", **look
    )
