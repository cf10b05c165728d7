"""Which run is looked at, on every page, and the ways to another one."""

from __future__ import annotations

import streamlit as st

from bnlab import opened
from bnlab.run import UNDER_WAY, Run

from . import naming, session
from .session import Session
from .words import escaped, several

NEWEST = 30  # runs offered in the list; the page Runs has all
CHOOSER = f"The run shown on every page, with its settings. The {NEWEST} newest are listed; the page Runs has all."
BESIDE = 3  # runs that train beside the one shown, each with a button


def looked_at(me: Session) -> Run | None:
    """The run of this session, or the shipped example; that the run was deleted in another tab is said on the page."""
    if me.run:
        try:
            return opened.holder(me.run).run(me.run)
        except KeyError as error:
            me.said, me.run = me.sentence(error, me.run), None
    return opened.example_run()


def is_example(run: Run | None) -> bool:
    example = opened.example_run()
    return run is not None and example is not None and run.id == example.id


def is_shown(me: Session, run_id: str | None) -> bool:
    """Whether a run, or none, is still the one shown: what is pressed beside another, which a run that was begun has
    replaced on the way here, is the second press of an impatient hand."""
    example = opened.example_run()
    return run_id == (me.run or (example and example.id))


def show(me: Session, run: Run | None, title: str | None = "Batch Normalization Lab") -> None:
    """The runs there are, newest first, and the name of this one."""
    found = opened.store().runs(limit=NEWEST)
    example = opened.example_run()
    if run is not None and not is_example(run) and run.id not in [other.id for other in found]:
        found.append(run)
    me.names |= {other.id: other.name for other in found}
    names = naming.told_apart(found)
    if example is not None:
        names[example.id] = f"Example: {example.name}"
    shown = run.id if run else None
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        if title:
            st.title(title, anchor=False, width="content")
        if not names:
            return
        st.selectbox(
            "Run",
            list(names),
            index=list(names).index(shown) if shown else None,
            placeholder="Choose a run",
            format_func=names.get,
            label_visibility="collapsed",
            key=(key := f"run-{shown}-{names.get(shown)}"),  # under a new name it is another box: it holds a label
            on_change=choose,
            args=(me, shown, key),
        )
        st.markdown("", help=CHOOSER, width="content")  # the list has no label to stand at
        naming.rename_box(me, run, fixed=is_example(run))


def choose(me: Session, shown: str | None, key: str) -> None:
    """Open what was chosen beside the run `shown`."""
    if is_shown(me, shown):
        look_at(me, session.value(key))


def look_at(me: Session, run_id: str) -> None:
    """Open a run; that it was deleted in another tab is said on the page."""
    try:
        me.open_run(run_id)
    except KeyError as error:
        me.said = me.sentence(error, run_id)


def beside(me: Session, run: Run | None) -> None:
    """The visitor's other runs that train, with a way to them: Train begins a run of its own and stops none."""
    found = [other for other in opened.store().runs(*UNDER_WAY) if not other.abandoned]  # not what a killed server left
    others = [other for other in found if other.id in me.begun and other.id != (run and run.id)]
    if others:
        with st.container(horizontal=True, vertical_alignment="center", key="beside"):
            st.caption(f"{several(len(others), 'other run')} in the background:", width="content")
            for run_id, label in list(naming.told_apart(others).items())[:BESIDE]:
                st.button(
                    escaped(label), type="tertiary", key=f"beside-{run_id}", on_click=look_at, args=(me, run_id),
                    help="Look at this run.",
                )  # fmt: skip
