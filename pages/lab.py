"""The Lab: ask on the left, train, and watch."""

import streamlit as st

from pages.parts import arms, board, controls, forks, session, views
from pages.parts.words import escaped

me = session.begin()

with st.sidebar:
    st.subheader("Arms")
    places = arms.editor(me)
    places |= controls.seeds(me)
    st.subheader("Shared settings")
    places |= controls.settings(me)
experiment, wrong = me.asked()
with st.sidebar:
    wrong = controls.complain(places, wrong)

with st.container():
    if misread := me.misread(experiment):
        told = escaped(" ".join(misread))
        st.error(f"This address cannot be opened as it is: {told}", icon=":material/link_off:")

run = board.show(me, experiment, wrong)
forks.origin(me, run)
arms.swatches(me, run)
if run is not None:
    views.show(run.id)
session.write_address(me, experiment)
