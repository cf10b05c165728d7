"""Runs: all there are, newest first; stop, open, rename, export, delete."""

import streamlit as st

from bnlab import cards, lineage, opened
from bnlab.reading import Trace
from bnlab.run import STOP_FIRST, UNDER_WAY, Run
from pages.parts import board, export, naming, session, steering
from pages.parts.session import Session
from pages.parts.words import escaped, several

PER_PAGE = 20
AVERAGED = '"Any alpha" and "Why they are off"'  # the views whose averages begin at the first step
EVERY = 2.0  # seconds between two looks at runs that are under way


def listing(me: Session, followed: bool) -> None:
    """The runs of one page of the list; while some are under way it is `followed`: drawn again by itself."""
    board.say(me)
    pages = -(-opened.store().count() // PER_PAGE)
    if not pages:
        st.info("No run yet. Train one in the Lab; it is kept here.")
    page = st.pagination(pages, key="page") if pages > 1 else 1
    runs = opened.store().runs(limit=PER_PAGE, offset=(page - 1) * PER_PAGE)
    labels = naming.told_apart(runs)
    me.names |= {run.id: run.name for run in runs}
    for run in runs:
        with st.container(border=True, key=f"row-{run.id}"):
            row(me, run, labels[run.id])
    session.write_address(me, me.asked()[0])
    if under_way() != followed:
        st.rerun()


def row(me: Session, run: Run, label: str) -> None:
    """One run: what it is, how far, and what can be done with it."""
    alive = run.status in UNDER_WAY
    with st.container(horizontal=True, vertical_alignment="center"):
        name = st.container(width="stretch")
        actions = st.container(horizontal=True, width="content")
    with name:
        when, _, called = label.partition(" · ")
        st.header(f"{escaped(when)} · **{escaped(called)}**", anchor=False)
        asked = run.experiment
        networks = several(len(asked.arms), "arm") + ", " + several(len(asked.seeds), "seed")
        steps = f"step {run.made:,} of {asked.settings.steps:,}"
        status = "stopping" if alive and opened.jobs().ending(run.id) else run.status
        st.caption(f"{cards.CALLED.get(status, status.capitalize())}, {steps}; {networks}; {run.trained_on}")
        if run.ended and (told := outcome(run.id, run.version)):
            st.caption(escaped(told))
    with actions:
        if alive or run.status == "paused":
            steering.stop_button(me, run, f"stop-{run.id}")
        if st.button("Open", icon=":material/open_in_new:", key=f"open-{run.id}", help="Look at this run in the Lab."):
            me.open_run(run.id)
            st.switch_page("lab.py")
        naming.rename_box(me, run)
        export.box(run)
        why = STOP_FIRST if alive else "Asks for confirmation first."
        with st.popover("Delete", icon=":material/delete:", disabled=alive, help=why):
            gone = f"Its {several(run.made - run.first, 'recorded step')} will be gone for good."
            st.text("\n\n".join(filter(None, (run.name, gone, lost(run)))))
            st.button(  # not as Train looks, which is the way on
                ":red[Delete for good]", icon=":material/delete_forever:", key=f"delete-{run.id}",
                on_click=steering.delete, args=(me, run),
            )  # fmt: skip


def lost(run: Run) -> str:
    """What is gone for the forks of a run, too, where it is deleted; empty where they need nothing of it."""
    if not (count := len(lineage.needing(Trace(opened.store(), run)))):
        return ""
    who = f"{several(count, 'fork')} {'loses' if count == 1 else 'lose'}"
    its = "its" if count == 1 else "their"
    return f"{who} steps before {its} own; {its} charts under {AVERAGED} need every step from the first."


@st.cache_data(max_entries=1000, show_spinner=False)
def outcome(run_id: str, version: int) -> str:
    """What came of a run that has ended; a version of it is read once."""
    try:
        return cards.outcome(opened.store().trace(run_id))
    except KeyError:  # deleted meanwhile
        return ""


def under_way() -> bool:
    return opened.store().count(*UNDER_WAY) > 0


me = session.begin()
st.title("Runs", anchor=False)
followed = under_way()
st.fragment(board.what_cannot_be_read()(listing), run_every=EVERY if followed else None)(me, followed)
