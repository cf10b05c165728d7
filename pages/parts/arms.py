"""The arms as a small editable set: add, duplicate, remove, rename, and say in which settings each differs."""

from __future__ import annotations

from typing import Any

import streamlit as st

from bnlab.experiment import Experiment
from bnlab.figures import style
from bnlab.problems import shown
from bnlab.run import Run
from bnlab.settings import MAX_ARMS, MAX_LABEL, OWN, about

from . import session
from .controls import Place, Places, control
from .words import escaped

PRESETS = {
    "no norm": {"norm": "none"},
    "BN before": {"norm": "batch", "placement": "before"},
    "BN after": {"norm": "batch", "placement": "after"},
    "LN before": {"norm": "layer", "placement": "before"},
    "LN after": {"norm": "layer", "placement": "after"},
}
LABEL = "Its name in every legend. The square is its color in the run shown; a new arm gets one when it is trained."


def editor(me: session.Session) -> Places:
    """One expander an arm, and a button that adds one. Returns the places for what is wrong with each arm.

    An arm's controls are made while it is open: a page of closed ones is there sooner.
    """
    arms = me.draft["arms"]
    places = {}
    for arm in list(arms):
        typed, key = session.value(me.key(f"label-{arm['uid']}")), me.key(f"arm-{arm['uid']}")
        if typed is not None and typed != arm["label"]:  # the title is drawn before the text box
            arm["label"] = typed
            session.keep(key)
        with st.expander(title(arm), key=key, on_change="rerun") as place:
            if place.open:
                edit(me, arm)
        label = arm["label"]
        named = f"arm {label!r}"
        starts = [named, f"an arm's label is {shown(label)};", f"arm label {label!r}"]
        places |= dict.fromkeys(starts if label.strip() else [*starts, "an arm has a blank label"], Place(st.empty()))
        for name in arm["changes"]:
            places[f"{named}: {name} is "] = Place(st.empty(), name, me.key(f"{name}-{arm['uid']}"))
    places["two arms "] = Place(st.empty())
    st.menu_button(
        "Add arm",
        list(PRESETS),
        icon=":material/add:",
        width="stretch",
        key=me.key("add-arm"),
        disabled=len(arms) >= MAX_ARMS,
        on_click=add,
        args=(me,),
        help=f"One more network to compare, up to {MAX_ARMS}. All arms share data, initial weights and mini-batches.",
    )
    return places


def tell_alike(places: Places, experiment: Experiment | None) -> None:
    """Say below the arms which of them do not differ."""
    if experiment and experiment.alike:
        places["two arms "].box.caption(escaped(" ".join(experiment.alike)))


def edit(me: session.Session, arm: dict[str, Any]) -> None:
    """The controls of one arm: its label, the settings in which it differs, and their values."""
    uid, changes, asked = arm["uid"], arm["changes"], me.draft
    # without max_chars, for which the browser drops a longer text that is pasted, and says nothing
    arm["label"] = st.text_input("Label", arm["label"], key=me.key(f"label-{uid}"), help=LABEL)
    chosen = st.multiselect(
        "Differs in",
        OWN,
        [name for name in changes if name in OWN],
        format_func=lambda name: about(name).label,
        key=me.key(f"differs-{uid}"),
        help="The settings in which this arm differs from the shared ones. All others are the shared ones.",
    )
    for name in [name for name in changes if name not in chosen]:
        del changes[name]
    for name in chosen:
        beside = asked["settings"] | changes
        changes[name] = control(name, changes.get(name, asked["settings"][name]), me.key(f"{name}-{uid}"), beside)
    with st.container(horizontal=True):
        several = len(asked["arms"]) > 1
        st.button(
            "Duplicate", icon=":material/content_copy:", key=me.key(f"duplicate-{uid}"), on_click=duplicate,
            args=(me, uid), disabled=len(asked["arms"]) >= MAX_ARMS, help="One more arm with the same differences.",
        )  # fmt: skip
        st.button(
            "Remove", icon=":material/delete:", key=me.key(f"remove-{uid}"), on_click=remove, args=(me, uid),
            disabled=not several, help="Remove this arm. Existing runs keep it.",
        )  # fmt: skip


def title(arm: dict[str, Any]) -> str:
    """The arm's label."""
    return escaped(arm["label"].strip()) or "(no label)"


def swatches(me: session.Session, run: Run | None) -> None:
    """Squares before the arms' titles: the color of the arm of that label in the run shown; empty where it has none."""
    places = {arm.label: i for i, arm in enumerate(run.experiment.arms)} if run else {}
    rules = []
    for arm in me.draft["arms"]:
        key, place = me.key(f"arm-{arm['uid']}"), places.get(arm["label"])
        look = f"border:1px dashed {style.GRAY}" if place is None else f"background:{style.color(place)}"
        rules.append(
            f".st-key-{key} summary::before{{content:'';flex:none;width:.8rem;height:.8rem;"
            f"box-sizing:border-box;border-radius:3px;margin-right:.5rem;forced-color-adjust:none;{look}}}"
        )
    st.html(f"<style>{''.join(rules)}</style>")


def free_label(me: session.Session, wanted: str) -> str:
    """`wanted`, or 'wanted 2', 'wanted 3', ... where arms have that label already."""
    taken = {arm["label"] for arm in me.draft["arms"]}
    return next(
        label
        for n in range(1, MAX_ARMS + 2)
        if (label := f"{wanted[: MAX_LABEL - 2]} {n}" if n > 1 else wanted) not in taken
    )


def add(me: session.Session) -> None:
    preset = session.value(me.key("add-arm"))
    me.draft["arms"].append(me.new_arm(free_label(me, preset), PRESETS[preset]))


def duplicate(me: session.Session, uid: int) -> None:
    arms = me.draft["arms"]
    at = next(i for i, arm in enumerate(arms) if arm["uid"] == uid)
    arms.insert(at + 1, me.new_arm(free_label(me, arms[at]["label"]), arms[at]["changes"]))


def remove(me: session.Session, uid: int) -> None:
    me.draft["arms"][:] = [arm for arm in me.draft["arms"] if arm["uid"] != uid]
