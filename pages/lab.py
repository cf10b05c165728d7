"""The Lab: ask on the left, train, and watch."""

import streamlit as st

from pages.parts import arms, board, controls, session, views

wrong_address = session.begin()
asked = session.draft()

with st.sidebar:
    st.subheader("Arms")
    places = arms.editor(asked)
    places |= controls.seeds(asked)
    st.subheader("Shared settings")
    places |= controls.settings(asked["settings"])
experiment, wrong = session.asked()
with st.sidebar:
    controls.complain(places, wrong)

with st.container():
    if wrong_address:
        st.error("This address cannot be opened as it is: " + " ".join(wrong_address), icon=":material/link_off:")

run = board.show(experiment, wrong)
if run is not None:
    views.show(run.id)
session.write_address(experiment)
