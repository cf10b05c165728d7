"""Which charts and which options a view has, driven without a browser: nothing that cannot be drawn or makes no
difference."""

import pytest
from lab_page import KINDS, address, drawn, opened, page
from streamlit.testing.v1 import AppTest

from bnlab import Arm, Experiment, Settings, figures
from bnlab.executing import execute
from bnlab.figures.options import NONE_HAS_BATCH_NORM, STEP
from bnlab.figures.style import NO_STEPS
from pages.parts.views import INFERENCE, LAB
from pages.parts.words import escaped

OTHERS = ("Arms", "Shared settings", "Fork this run", "Conventions")  # headings that are no charts'


def trained(store, arms: dict[str, dict], **settings) -> str:
    """The id of a small run of these arms, trained to its end."""
    arms = tuple(Arm(label=label, changes=changes) for label, changes in arms.items())
    small = {"depth": 2, "width": 4, "steps": 4, "data": "wine", "batch_size": 16} | settings
    run = store.create(Experiment(settings=Settings(**small), arms=arms))
    execute(store, run.id, lambda: None)
    return run.id


def view(at: AppTest, name: str) -> AppTest:
    (chooser,) = (group for group in at.get("button_group") if group.key and group.key.startswith("view"))
    return drawn(chooser.set_value(name))


def group(at: AppTest, key: str):
    return next((g for g in at.get("button_group") if g.key and g.key.startswith(key)), None)


def below(at: AppTest) -> list[str]:
    """The page's headings and its options' labels, from top to bottom."""
    kinds = {"button_group": "option-", "slider": "option-", "selectbox": "option-", "header": None}
    found = [w for w in at.main if w.type in kinds and (kinds[w.type] is None or (w.key or "").startswith("option-"))]
    return [getattr(w, "label", None) or w.value for w in found if getattr(w, "value", "") not in OTHERS]


def captions(at: AppTest, *sentences: str) -> int:
    return sum(caption.value in sentences for caption in at.caption)


@pytest.mark.parametrize(("file", "name"), [("lab.py", "Moving averages"), *(("inference.py", v) for v in INFERENCE)])
def test_a_run_without_batch_norm_says_so_once_and_asks_nothing_about_it(lab, file, name):
    run_id = trained(lab, {"no": {}, "layer": {"norm": "layer"}})
    at = view(opened(file, run_id), name)
    views = LAB | INFERENCE
    drawable = [figures.FIGURES[f] for f in views[name] if not takes_batch_norm(f)]
    assert captions(at, NONE_HAS_BATCH_NORM) == (len(drawable) < len(views[name]))
    labels = {option.label for figure in drawable for option in figure.options}
    assert set(below(at)) - {f.label for f in drawable} <= labels


def takes_batch_norm(name: str) -> bool:
    return name in ("mistakes", "two_examples") or any(
        option.kind == "batch arm" for option in figures.FIGURES[name].options
    )


def test_a_regression_has_no_accuracy_to_show(lab):
    at = opened("lab.py", trained(lab, {"no": {}}, data="diabetes"))
    assert "Loss" in below(at) and "Accuracy" not in below(at)
    assert captions(at, "A regression has no accuracy, only a loss.") == 1
    both = trained(lab, {"values": {"data": "diabetes"}, "classes": {}})
    assert "Accuracy" in below(opened("lab.py", both))


@pytest.mark.parametrize("name", [name for name in LAB if name != "Loss and accuracy"])
def test_a_run_of_no_steps_says_so_once(lab, name):
    at = view(opened("lab.py", trained(lab, {"bn": {"norm": "batch"}}, steps=0)), name)
    assert captions(at, NO_STEPS) == 1
    assert below(at) == []


def test_what_cannot_be_drawn_is_said_by_the_figure_too(lab):
    trace = lab.trace(trained(lab, {"no": {}}, data="diabetes", steps=0))
    for name in ("moving_averages", "three_losses", "two_examples"):
        assert figures.draw(name, trace, {}).layout.meta["said"] == NONE_HAS_BATCH_NORM
    assert figures.draw("accuracy", trace, {}).layout.meta["said"] == "A regression has no accuracy, only a loss."
    assert figures.draw("gradient_heatmap", trace, {}).layout.meta["said"] == NO_STEPS
    assert figures.draw("loss", trace, {}).data


def test_an_option_of_a_lower_chart_stands_at_it(lab):
    at = view(opened("lab.py", trained(lab, {"bn": {"norm": "batch"}, "no": {}})), "Gradient flow")
    order = below(at)
    assert order.index("Vertical axis") < order.index("Gradient flow")
    assert order.index("Gradient over time") < order.index("Gradient")


def test_the_scale_of_every_axis_is_asked_in_the_same_words():
    asked = [o for f in figures.FIGURES.values() for o in f.options if "log" in o.choices]
    assert {(tuple(o.choices.items()), o.label) for o in asked} == {
        ((("linear", "linear"), ("log", "log")), f"{way} axis") for way in ("Horizontal", "Vertical")
    }
    first = {
        (name, o.name): o.default or "linear" for name, f in figures.FIGURES.items() for o in f.options if o in asked
    }
    assert [where for where, scale in first.items() if scale == "log"] == [
        ("gradient_flow", "scale"),
        ("moving_averages", "scale"),
    ]


def test_an_option_says_which_charts_it_moves_where_it_does_not_move_all(lab):
    run_id, helps = trained(lab, {"bn": {"norm": "batch"}, "no": {}}), {}
    views = {"Distributions": "lab.py", "Jacobians and rank": "why.py", "Shift or smoothness": "why.py"}
    for name, file in views.items():
        helps[name] = group(view(opened(file, run_id), name), "newest").proto.help
    assert helps["Distributions"] == f"{STEP.help} For: Histograms, Saturation and dead units."
    assert helps["Jacobians and rank"] == helps["Shift or smoothness"] == STEP.help  # all; stands at its own


def test_an_arm_is_not_asked_where_all_are_drawn(lab):
    at = view(opened("lab.py", trained(lab, {"bn": {"norm": "batch"}, "no": {}})), "Distributions")
    assert group(at, "option-arm") is not None
    at = drawn(group(at, "option-Distributions-over").set_value("arms"))
    assert group(at, "option-arm") is None
    at = drawn(group(at, "option-Distributions-over").set_value("layers"))
    assert group(at, "option-arm") is not None


def test_the_view_stands_in_the_address_and_its_address_opens_it(lab):
    run_id = trained(lab, {"BN": {"norm": "batch"}})
    at = page(("view", "Gradient flow"), ("run", run_id))
    assert "Gradient over time" in below(at) and "Loss" not in below(at)
    question = [pair for pair in address(at) if pair[0] != "view"]
    assert address(at) == [*question, ("view", "Gradient flow")] and ("run", run_id) in question
    assert address(view(at, "Distributions")) == [*question, ("view", "Distributions")]
    assert address(view(at, "Loss and accuracy")) == question, "the first one needs no word"
    at = drawn(at.switch_page("inference.py"))
    assert address(view(at, "Population")) == [*question, ("view", "Population")]


@pytest.mark.parametrize("said", ["Gradient", "[x](y)", "Curvature", ""])
def test_a_view_that_there_is_not_is_told_until_another_is_chosen(lab, said):
    told = escaped(f"The address asks for the view {said or 'empty'}, which is none of these.")
    at = page(("width", "12"), ("view", said))
    assert captions(at, told) == 1 and "Loss" in below(at)
    assert address(at) == [("width", "12"), ("view", said)], "the visitor's own words can be put right in the bar"
    at = view(at, "Distributions")
    assert captions(at, told) == 0 and address(at) == [("width", "12"), ("view", "Distributions")]


@pytest.mark.parametrize("file", ["lab.py", "inference.py", "why.py", "runs.py"])
def test_every_control_has_a_help(lab, file):
    run_id = trained(lab, {"bn": {"norm": "batch"}, "no": {}})
    at = opened(file, run_id) if file != "lab.py" else page(("run", run_id))
    if file == "lab.py":
        drawn(group(view(at, "Gradient flow"), "newest").set_value("chosen"))
    kinds = (*KINDS, "select_slider", "number_input")
    inside = ("name-", "delete-")  # popovers that say it
    without = [w.key for kind in kinds for w in at.get(kind) if not w.proto.help and not w.key.startswith(inside)]
    beside = [words.proto.help for words in at.markdown if not words.value]
    assert len(without) == len(beside) == (0 if file == "runs.py" else 2), without  # of the run and of the view
    assert all(beside) and all(key.startswith(("run-", "view")) for key in without)
