"""Runs: all there are, newest first; open, rename, delete."""

import streamlit as st

from bnlab import opened
from pages.parts import board, session
from pages.parts.words import escaped, several

PER_PAGE = 20

session.begin()
st.subheader("Runs")
runs = opened.store().runs()
if not runs:
    st.info("No run yet. Train one in the Lab.")
pages = max(1, -(-len(runs) // PER_PAGE))
page = st.pagination(pages, key="page") if pages > 1 else 1


@st.dialog("Delete this run?")
def confirm(run) -> None:
    """Ask before what was recorded is gone."""
    st.text(run.name)
    st.text(f"{max(run.step, 0)} recorded steps will be gone for good.")
    with st.container(horizontal=True):
        if st.button("Delete", type="primary", icon=":material/delete:", key="really-delete"):
            board.delete(run)
            st.rerun()
        if st.button("Keep", key="keep"):
            st.rerun()


for run in runs[(page - 1) * PER_PAGE : page * PER_PAGE]:
    with st.container(border=True, key=f"run-{run.id}"):
        name, actions = st.columns([3, 2], vertical_alignment="center")
        with name:
            st.markdown(f"**{escaped(run.name)}**")
            told = run.experiment
            arms = several(len(told.arms), "arm") + ", " + several(len(told.seeds), "seed")
            steps = f"step {max(run.step, 0)} of {told.settings.steps}"
            st.caption(f"{run.status.capitalize()}, {steps}; {arms}; {run.created:%Y-%m-%d %H:%M}")
        with actions, st.container(horizontal=True, horizontal_alignment="right"):
            if st.button("Open", icon=":material/open_in_new:", key=f"open-{run.id}"):
                session.open_run(run.id)
                st.switch_page("lab.py")
            with st.popover("Rename", icon=":material/edit:"):
                st.text_input(
                    "Name", run.name, max_chars=80, key=f"name-{run.id}", on_change=board.rename, args=(run.id,)
                )
            if st.button("Delete", icon=":material/delete:", key=f"delete-{run.id}"):
                confirm(run)
session.write_address(session.asked()[0])
