"""Arms are added, changed, named and removed, and their names are text."""

import re

import pytest
from lab_page import KINDS, address, button, drawn, errors, page, typed, unfolded, widget

from bnlab import cards, opened
from bnlab.address import from_query
from bnlab.executing import execute
from bnlab.experiment import DEFAULT_ARMS, Arm, Experiment
from bnlab.figures import style
from bnlab.settings import MAX_ARMS, SHARED, Settings, about

pytestmark = pytest.mark.usefixtures("lab")


def test_arms_are_added_duplicated_renamed_changed_and_removed():
    at = page()
    drawn(widget(at, "add-arm").click("LN before"))
    drawn(at.button(key=next(b.key for b in at.button if b.key.startswith("duplicate-2"))).click())
    drawn(at.button(key=next(b.key for b in at.button if b.key.startswith("remove-1"))).click())
    drawn(unfolded(at))
    drawn(widget(at, "label-3").set_value("<b>*mine*</b>"))  # under its new title the arm is still open
    drawn(widget(at, "differs-3").set_value(["norm", "learning_rate"]))
    typed(at, "learning_rate-3", "0.01")
    arms = from_query(address(at)).arms
    assert arms == (
        DEFAULT_ARMS[1],
        Arm(label="BN before 2", changes=DEFAULT_ARMS[1].changes),
        Arm(label="<b>*mine*</b>", changes={"norm": "batch", "learning_rate": 0.01}),
        Arm(label="LN before", changes={"norm": "layer", "placement": "before"}),
    )


def test_closed_arms_and_sections_keep_what_they_hold():
    """Their controls are not made: the page is there sooner. What is wrong with them is said all the same."""
    at = page(("arm", "odd;alpha=0.5;learning_rate=0.02"), ("score_every", "7"), closed=True)
    (uid,) = (arm["uid"] for arm in at.session_state.mine.draft["arms"])
    made = {w.key.rpartition("-")[0] for kind in KINDS for w in at.get(kind) if w.key}
    assert "depth" in made and not made & {f"label-{uid}", f"differs-{uid}", f"alpha-{uid}", "score_every", "budget_mb"}
    asked = from_query(address(at))
    assert asked.settings.score_every == 7
    assert asked.arms == (Arm(label="odd", changes={"alpha": 0.5, "learning_rate": 0.02}),)
    drawn(unfolded(at))
    assert widget(at, f"label-{uid}").value == "odd" and widget(at, "score_every").value == "7"
    drawn(widget(at, f"label-{uid}").set_value("even"))
    drawn(unfolded(at, False))
    assert "score_every" not in {w.key.rpartition("-")[0] for kind in KINDS for w in at.get(kind) if w.key}
    assert from_query(address(at)) == asked.model_copy(
        update={"arms": (Arm(label="even", changes={"alpha": 0.5, "learning_rate": 0.02}),)}
    )


def test_two_arms_of_one_name_are_a_sentence():
    at = page()
    drawn(widget(at, "label-1").set_value("BN after"))
    assert "two arms are called 'BN after'. Give each arm its own label." in errors(at)


def test_a_label_that_is_too_long_is_told_and_stands_there():
    at = page()
    assert not widget(at, "label-1").proto.max_chars, "the browser drops a longer text that is pasted, and says nothing"
    drawn(widget(at, "label-1").set_value("x" * 41))
    assert f"An arm's label is {'x' * 41}; allowed are 1 to 40 characters." in errors(at)
    assert widget(at, "label-1").value == "x" * 41 and button(at, "train").disabled


@pytest.mark.parametrize("label", ["", " ", "   ", "x" * 41, "a;b", "a "])
def test_a_label_that_cannot_be_is_told_at_its_arm(label):
    at = page()
    drawn(widget(at, "label-2").set_value(label))
    (told,) = at.sidebar.error
    assert "label" in told.value
    (arm,) = (e for e in at.sidebar.expander if label in [box.value for box in e.text_input])
    assert arm.label.replace("\\", "") == (label.strip() or "(no label)")
    stand = [at.sidebar.children[i] for i in sorted(at.sidebar.children)]
    assert stand.index(told) == stand.index(arm) + 1


def test_arms_that_do_not_differ_are_told_below_them():
    at = page(("norm", "batch"))
    (told,) = (caption.value for caption in at.sidebar.caption if "coincide" in caption.value)
    assert told == "no norm and BN before ask the same question\\: their curves will coincide\\."
    drawn(widget(at, "norm").set_value("none"))
    assert not [caption for caption in at.sidebar.caption if "coincide" in caption.value]


def test_no_more_arms_than_the_limit():
    at = page()
    for _ in range(MAX_ARMS - len(DEFAULT_ARMS)):
        drawn(widget(at, "add-arm").click("no norm"))
    assert widget(at, "add-arm").disabled
    assert len({arm.label for arm in from_query(address(at)).arms}) == MAX_ARMS


def test_an_arm_may_differ_in_everything_that_is_not_shared():
    options = widget(page(), "differs-1").options
    assert options == [about(name).label for name in Settings.model_fields if name not in SHARED]


def test_words_of_a_visitor_are_not_markup():
    at = page(("arm", "![x](http://example.com/x.png)"))
    (title,) = (e.label for e in at.expander if "example" in e.label)
    assert title == r"\!\[x\]\(http\:" + "\u2060" + r"\/\/example\.com\/x\.png\)"


@pytest.mark.parametrize("label", ["BN", "a long label of an arm"])
def test_arms_are_buttons_where_there_is_room_and_else_a_list(label):
    arms = tuple(Arm(label=f"{label} {i}") for i in range(3))
    at = page(("run", opened.store().create(Experiment(arms=arms)).id))
    (view,) = (group for group in at.get("button_group") if group.key == "view")
    drawn(view.set_value("Distributions"))
    (found,) = (w for kind in ("selectbox", "button_group") for w in at.get(kind) if "option-arm" in (w.key or ""))
    assert found.options == [arm.label for arm in arms]
    assert (found.type == "selectbox") == (len(label) > 2)


def test_an_arm_has_the_color_of_the_run_that_is_shown_or_none():
    """By its label, wherever it stands: without the first arm the others keep their colors."""

    def colors() -> dict[str, str | None]:
        (rules,) = (html.proto.body for html in at.get("html"))
        found = dict(re.findall(r"arm-(\d+)-\d+ summary[^}]*?(?:background:(#\w+))?}", rules))
        return {arm["label"]: found[str(arm["uid"])] or None for arm in at.session_state.mine.draft["arms"]}

    at = page(("run", opened.store().create(Experiment()).id), ("arm", "no norm"), ("arm", "BN after"), ("arm", "mine"))
    assert colors() == {"no norm": style.color(0), "BN after": style.color(2), "mine": None}
    drawn(at.button(key=next(b.key for b in at.button if b.key.startswith("remove-"))).click())
    assert colors() == {"BN after": style.color(2), "mine": None}
    drawn(button(at, "train").click())
    assert colors() == {"BN after": style.color(0), "mine": style.color(1)}
    assert [arm["color"] for arm in cards.state(opened.store().trace(at.session_state.mine.run))["arms"]] == [
        *colors().values()
    ]


def test_the_title_of_an_arm_is_its_new_label_at_once():
    at = page()
    drawn(widget(at, "label-1").set_value("renamed"))
    assert [e.label for e in at.expander if e.label in ("renamed", "no norm")] == ["renamed"]


def wild(lab, **rates):
    """A run of which the arm `wild` will diverge, not yet trained, with more arms by their learning rates; its page."""
    arms = tuple(Arm(label=label, changes={"learning_rate": r}) for label, r in ({"wild": 100.0} | rates).items())
    settings = Settings(depth=3, width=8, activation="relu", steps=20, data="wine", batch_size=16)
    run = lab.create(Experiment(settings=settings, arms=arms))
    return run, page(("run", run.id))


def distributions(at) -> None:
    (view,) = (group for group in at.get("button_group") if group.key == "view")
    drawn(view.set_value("Distributions"))


def arm(at):
    """The choice of one arm, as it stands on the page."""
    (chosen,) = (group for group in at.get("button_group") if (group.key or "").startswith("option-arm"))
    return chosen


def test_a_view_opens_on_the_first_arm_that_lasts(lab):
    run, at = wild(lab, tame=0.1)
    execute(lab, run.id, lambda: None)
    assert {lost for lost, _ in lab.run(run.id).diverged} == {0}
    distributions(at)
    assert arm(at).value == 1


def test_an_arm_shown_before_does_not_keep_a_view_on_one_that_diverged(lab):
    """Of another run, or of the same one before."""
    run, at = wild(lab, tame=0.1)
    distributions(at)
    assert arm(at).value == 0
    execute(lab, run.id, lambda: None)
    drawn(at)
    assert arm(at).value == 1


def test_a_view_stays_on_the_arm_that_was_chosen_when_another_diverges(lab):
    """It went to the first that lasts."""
    run, at = wild(lab, tame=0.1, slow=0.001)
    distributions(at)
    drawn(arm(at).set_value(2))
    execute(lab, run.id, lambda: None)
    drawn(at)
    assert {lost for lost, _ in lab.run(run.id).diverged} == {0} and arm(at).value == 2
    drawn(arm(at).set_value(0))
    assert arm(at).value == 0, "one that diverged can be chosen"
