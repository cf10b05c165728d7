"""Experiments that answer a question, loaded into the Lab with one click."""

from __future__ import annotations

import streamlit as st

from bnlab.experiment import Arm, Experiment
from bnlab.settings import Settings

from . import session

BN = {"norm": "batch"}
LAB = {  # name -> (what it asks, the experiment): questions of the page Lab
    "Vanishing gradients": (
        "Twenty sigmoid layers without a norm, and with batch norm before and after the activation: which of them "
        "learn, and how much of the signal reaches layer 1? See Gradient flow.",
        Experiment(),
    ),
    "An explosion at the start": (
        "Fifty ReLU layers: behind batch norm the gradient grows on its way to the input, before the first update. By "
        "how much per layer, and what becomes of it? See Gradient flow at step 0.",
        Experiment(
            settings=Settings(depth=50, activation="relu", init="he", learning_rate=0.01, steps=300),
            arms=(
                Arm(label="no norm"),
                Arm(label="BN before", changes=BN),
                Arm(label="LN before", changes={"norm": "layer"}),
            ),
        ),
    ),
    "Averages that come too late": (
        "Three arms that differ in α alone: their mini-batch losses coincide. Why do their test accuracies not?",
        Experiment(
            settings=Settings(depth=5, activation="relu", init="he", norm="batch", steps=100),
            arms=tuple(Arm(label=f"α = {alpha:g}", changes={"alpha": alpha}) for alpha in (0.9, 0.99, 0.999)),
        ),
    ),
    "Small mini-batches": (
        "How few examples are enough for a mean and a variance? In the same number of steps a larger "
        "mini-batch sees more examples; layer norm, which does not depend on other examples, learns from two.",
        Experiment(
            settings=Settings(depth=5, activation="relu", init="he", learning_rate=0.03, steps=300),
            arms=(
                *(Arm(label=f"BN, K = {K}", changes=BN | {"batch_size": K}) for K in (2, 4, 32)),
                Arm(label="LN, K = 2", changes={"norm": "layer", "batch_size": 2}),
            ),
        ),
    ),
    "Unscaled inputs": (
        "Thirty measurements whose scales differ a thousandfold, as they come: a reason to normalize. The cards "
        "report \"vanishing\" for the arms with a norm, which do learn: dE/da of layer 1 is small there because its "
        "pre-activations a are large. Its weight gradient is not: see Gradient flow.",
        Experiment(
            settings=Settings(
                data="breast_cancer", standardize=False, depth=3, width=32, activation="relu", init="he",
                learning_rate=0.05, steps=200,
            ),
            arms=(
                Arm(label="no norm"),
                Arm(label="BN before", changes=BN),
                Arm(label="LN before", changes={"norm": "layer"}),
            ),
        ),
    ),
}  # fmt: skip
WHY = {  # those of the page Why it works
    "Noisy batch norm": (
        "Batch norm whose outputs are shifted and scaled at random at every step: much more covariate shift, on "
        "purpose. Does it learn more slowly for it?",
        Experiment(
            settings=Settings(depth=12),
            arms=(
                Arm(label="no norm"),
                Arm(label="BN", changes=BN),
                Arm(label="noisy BN", changes=BN | {"noise_shift": 0.5, "noise_scale": 0.25}),
            ),
        ),
    ),
    "Several learning rates": (
        "The band over whole trainings with several learning rates, with and without batch norm: not the "
        "same as the loss along the gradient.",
        Experiment(
            settings=Settings(depth=6, activation="tanh"),
            arms=tuple(
                Arm(label=f"{label}, η = {rate:g}", changes=changes | {"learning_rate": rate})
                for label, changes in (("no norm", {}), ("BN", BN))
                for rate in (0.03, 0.3, 3.0)
            ),
        ),
    ),
    "Learned or fixed": (
        "Do gamma and beta matter? Batch norm with both learned, and fixed at 1 and 0.",
        Experiment(
            arms=(Arm(label="learned", changes=BN), Arm(label="fixed", changes=BN | {"rescale": "fixed"})),
        ),
    ),
    "ReLU: He, Xavier, batch norm": (
        "The laws at work: which gradients stay, vanish or grow on their way to the input? See Gradient flow.",
        Experiment(
            settings=Settings(depth=30, activation="relu"),
            arms=(
                Arm(label="He", changes={"init": "he"}),
                Arm(label="Xavier"),
                Arm(label="BN before", changes=BN),
                Arm(label="LN before", changes={"norm": "layer"}),
            ),
        ),
    ),
}


PRESETS = LAB | WHY


def menu(me: session.Session) -> None:
    """A menu of all of them; while one is asked, its question."""
    st.menu_button(
        "Ready experiments", list(PRESETS), icon=":material/science:", width="stretch", key=me.key("presets"),
        on_click=load, args=(me,), help="Loads one into the controls. Press Train, and change what you like.",
    )  # fmt: skip
    asked = me.asked()[0]
    for question, experiment in PRESETS.values():
        if experiment == asked:
            st.caption(question)


def load(me: session.Session) -> None:
    me.load(PRESETS[session.value(me.key("presets"))][1])


def show(me: session.Session) -> None:
    """Those of the page Why it works, each with its question."""
    st.header("Experiments worth training", anchor=False)
    for name, (question, experiment) in WHY.items():
        left, right = st.columns([1, 3], vertical_alignment="center")
        help = "Loads it into the Lab."
        if left.button(name, key=f"preset-{name}", icon=":material/science:", help=help, width="stretch"):
            me.load(experiment)
            st.switch_page("lab.py")
        right.text(question)
