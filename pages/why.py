"""Why it works: two explanations of batch norm, measured on the same runs."""

import streamlit as st

from pages.parts import board, chooser, presets, session, views

me = session.begin()
st.title("Why it works", anchor=False)
st.markdown(
    "Batch norm was invented to reduce **internal covariate shift**: updates below move what the layers above see. "
    "Santurkar et al. (2018) answered that shift is not what matters: the **loss gets smoother**. Both can be "
    "measured, on copies of the networks, while they learn. They looked at VGG on CIFAR-10; in networks as small as "
    "these the loss behind batch norm is often the rougher one at the same learning rate, and what changes is how "
    "large a learning rate it tolerates: train *Several learning rates*, below.\n\n"
    "How gradients vanish and explode follows laws. They are drawn beside the measurement in the Lab's *Gradient flow*."
)
run = chooser.looked_at(me)
board.say(me)
if run is None:
    st.info("No run yet. Train one in the Lab; everything here is computed from its recorded weights.")
else:
    chooser.show(me, run, title=None)
    views.show(run.id, views.WHY)
presets.show(me)
session.write_address(me, me.asked()[0])
