"""The lower half of the Lab: the views of a run, of which only the open one is drawn and pulled."""

from __future__ import annotations

from typing import Any

import streamlit as st

from bnlab import opened
from bnlab.experiment import Experiment
from bnlab.figures import FIGURES
from bnlab.figures.lasting import wholly
from bnlab.figures.options import Option, first_arm, first_layer, fitting, lacking
from bnlab.problems import shown
from bnlab.run import Run

from . import live, session
from .words import escaped

LAB = {  # view -> its figures, from top to bottom
    "Loss and accuracy": ("loss", "accuracy"),
    "Gradient flow": ("gradient_flow", "predicted", "gradient_heatmap"),
    "Moving averages": ("moving_averages", "units_overview", "gamma_beta"),
    "Distributions": ("distributions", "histograms", "saturation"),
}
INFERENCE = {
    "Three statistics": ("three_losses",),
    "Any alpha": ("recomputed", "alpha_inference", "alpha_curve"),
    "Why they are off": ("why_off",),
    "Population": ("in_practice",),
    "Broken on purpose": ("mistakes", "outlier"),
    "One example, or two": ("alone", "two_examples"),
}
WHY = {
    "Shift or smoothness": ("dials", "smoothness", "covariate_shift", "learning_rates"),
    "Jacobians and rank": ("jacobians", "spectra", "conditions", "ranks"),
    "Loss surface": ("surface",),
    "Curvature": ("curvature",),
    "Scale": ("invariance", "scale_over_time"),
    "Gamma and beta": ("undone",),
}
WHOLE = "%,d"  # 20,000
SIDE_BY_SIDE = 45  # characters of arms, with the room around them, for which there is place on a telephone
LETTER, FRAME = 7, 48  # pixels: a letter in a list, and what stands around the letters
OF_THE_RUN = ("arm", "batch arm", "seed", "layer", "unit", "step")  # what is chosen here stays chosen in other views


@st.fragment
def show(run_id: str, views: dict[str, tuple[str, ...]] = LAB) -> None:
    """A choice of views; the open one's options and figures. Another choice reruns this part of the page only."""
    try:
        run = opened.holder(run_id).run(run_id)
    except KeyError:
        st.rerun()  # deleted in another tab: the whole page goes on to the example, and says so
    me, first = session.mine(), next(iter(views))
    key = f"view-{first}" if views is not LAB else "view"
    unknown = session.open_view(me, key, list(views))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="views"):
        view = st.segmented_control(
            "View", list(views), default=first, required=True, key=key, label_visibility="collapsed",
            persist_state="session", on_change=session.show_view, args=(me, key, first),
            wrap=True,  # in a row none would stand beyond the edge of a telephone else
        )  # fmt: skip
        st.markdown("", help=contents(views), width="content")  # the choice has no label to stand at
    me.view = view if view != first else None
    if unknown is not None:
        st.caption(escaped(f"The address asks for the view {shown(unknown)}, which is none of these."))
    why = {name: lacking(FIGURES[name], run) for name in views[view]}
    figures = {name: FIGURES[name] for name in views[view] if not why[name]}
    chosen: dict[str, str | None] = {}
    above, own = placed(list(figures))
    row("options", above, view, run, chosen)
    for name, figure in figures.items():
        st.header(figure.label, help=figure.help, anchor=False)
        if own[name]:
            row(f"options-{name}", own[name], view, run, chosen)
        query = {o.name: chosen[o.name] for o in figure.options if chosen.get(o.name) is not None}
        live.chart(f"api/runs/{run.id}/{name}", query, figure.label, figure.help, run.name)
    for sentence in dict.fromkeys(filter(None, why.values())):
        st.caption(sentence)


def contents(views: dict[str, tuple[str, ...]]) -> str:
    """What each view shows, by the names of its charts."""
    listed = [f"- **{view}**: {', '.join(FIGURES[name].label for name in names)}" for view, names in views.items()]
    return "\n".join(["The charts of each view; only the open view is drawn.\n", *listed])


def placed(figures: list[str]) -> tuple[list[Option], dict[str, list[Option]]]:
    """The options above all charts, and those at a chart: what moves a single one stands at it, or above if that is the
    first. The help of those above says which charts they move where they do not move all."""
    options = {option.name: option for name in figures for option in FIGURES[name].options}
    above, own = [], {name: [] for name in figures}
    for option in options.values():
        moved = [name for name in figures if option.name in {o.name for o in FIGURES[name].options}]
        if len(moved) == 1 and moved != figures[:1]:
            own[moved[0]].append(option)
        elif len(moved) == len(figures):
            above.append(option)
        else:
            told = ", ".join(FIGURES[name].label for name in moved)
            above.append(option._replace(help=f"{option.help} For: {told}."))
    return above, own


def row(key: str, options: list[Option], view: str, run: Run, chosen: dict[str, str | None]) -> None:
    """The options' widgets, side by side; what they say goes into `chosen`."""
    with st.container(horizontal=True, vertical_alignment="top", gap="small", key=key):
        for option in options:
            if option.when is None or chosen[option.when[0]] == option.when[1]:
                chosen[option.name] = asked(option, view, run)


def asked(option: Option, view: str, run: Run) -> str | None:
    """The option's widget; what it says as it stands in a query, None for the figure's own default."""
    experiment, shared = run.experiment, option.kind in OF_THE_RUN
    key = f"option-{option.name}" if shared else f"option-{view}-{option.name}"
    look: dict[str, Any] = {"label": option.label, "help": option.help, "key": key, "persist_state": "session"}
    if option.kind == "choice":
        values = list(option.choices)
        first = values.index(option.default) if option.default else 0
        if option.buttons:
            look |= {"default": values[first], "wrap": True}  # none beyond the edge of a telephone
            chosen = st.pills(options=values, format_func=option.choices.get, **look)
            return chosen or values[first]
        if len(values) > 2:
            longest = max(map(len, option.choices.values()))
            width = max(FRAME + LETTER * longest, FRAME + LETTER * len(option.label))
            return st.selectbox(options=values, format_func=option.choices.get, index=first, width=width, **look)
        return st.segmented_control(
            options=values, format_func=option.choices.get, default=values[first], required=True, **look
        )
    if option.kind == "number":
        first = float(option.default or option.low)
        return f"{st.select_slider(options=option.marks, value=first, format_func='{:g}'.format, width=320, **look):g}"
    if option.kind in ("arm", "batch arm"):
        return arm(option, run, look)
    if option.kind == "seed":
        if len(experiment.seeds) == 1:
            return None
        places = range(len(experiment.seeds))
        return str(st.selectbox(options=places, format_func=lambda i: str(experiment.seeds[i]), width=120, **look))
    if option.kind == "step":
        return step(experiment, look)
    most = max(getattr(s, "depth" if option.kind == "layer" else "width") for s in experiment.arm_settings)
    if most == 1:
        return None
    look["key"] += f"-{most}"  # another run may have fewer
    first = first_layer(option, most) if option.kind == "layer" else 1
    return str(st.slider(min_value=1, max_value=most, value=first, width=180, format=WHOLE, **look))


def arm(option: Option, run: Run, look: dict[str, Any]) -> str | None:
    """Which arm, among all or among those with batch norm."""
    there = fitting(option, run)
    if not there:
        return None
    among, first = f"option-{option.name}" + "-".join(map(str, there)), first_arm(option, run)
    labels = {i: run.experiment.arms[i].label for i in there}
    listed = sum(len(label) + 4 for label in labels.values()) > SIDE_BY_SIDE
    key = f"{among}-{first}"  # where another arm is the first that lasts, it is another box
    key += "-".join(labels.values()) if listed else ""  # a list holds a label, which another run may not have
    chosen = session.mine().chosen.get(among, first)
    start = first if wholly(run, chosen) else chosen
    look |= {"options": there, "key": key, "on_change": session.choose, "args": (among, key)}
    if listed:
        return str(st.selectbox(format_func=labels.get, index=there.index(start), width=320, **look))
    names = {i: escaped(label) for i, label in labels.items()}
    return str(st.segmented_control(format_func=names.get, default=start, required=True, **look))


def step(experiment: Experiment, look: dict[str, Any]) -> str | None:
    """The newest step, or one that is chosen."""
    most = experiment.settings.steps
    which = ["newest", "chosen"]
    look |= {"key": "newest", "persist_state": "session"}
    if st.segmented_control(options=which, default="newest", required=True, **look) == "newest" or most == 0:
        return None
    slider = st.slider(
        "Step t (updates)", min_value=0, max_value=most, value=most, width=260, format=WHOLE,
        key=f"option-step-{most}", persist_state="session",
        help="The networks before update t; step 0 is the initial networks. A step not reached yet shows the newest.",
    )  # fmt: skip
    return str(slider)
