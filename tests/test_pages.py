"""The pages, driven without a browser: every control, bad input as a sentence, the address, the arms, page switches."""

import os
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from bnlab import opened
from bnlab.address import from_query, to_query, written
from bnlab.experiment import DEFAULT_ARMS, Arm, Experiment
from bnlab.settings import MAX_ARMS, SECTIONS, SHARED, Settings, about, limits

PAGES = Path(__file__).parents[1] / "pages"
KINDS = ("slider", "selectbox", "toggle", "multiselect", "text_input", "button", "button_group", "menu_button")


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """An empty store and a queue that executes nothing."""
    monkeypatch.setenv("BNLAB_STORE", str(tmp_path))
    monkeypatch.setenv("BNLAB_WORKERS", "0")
    opened.close()
    yield
    opened.close()


def page(*pairs: tuple[str, str], closed: bool = False) -> AppTest:
    """The Lab, opened at the address that says `pairs`, with every arm and section open unless `closed`."""
    at = AppTest.from_file(str(PAGES / "navigation.py"), default_timeout=60)
    for name in dict(pairs):
        at.query_params[name] = [value for other, value in pairs if other == name]
    drawn(at)
    return at if closed else drawn(unfolded(at))


def unfolded(at: AppTest, wide: bool = True) -> AppTest:
    """The page, with every arm and section of the sidebar open (or closed) at the next run."""
    me = at.session_state.mine
    for name in [f"arm-{arm['uid']}" for arm in me.draft["arms"]] + [f"section-{section}" for section in SECTIONS]:
        at.session_state[me.key(name)] = wide
    return at


def drawn(what) -> AppTest:
    """The page after a run of its script; `what` is the page, or a widget of it that was just set."""
    at = what.run()
    assert not at.exception
    return at


def widget(at: AppTest, name: str):
    """The widget whose key is `name` and an edition number."""
    (found,) = (w for kind in KINDS for w in at.get(kind) if w.key and w.key.rpartition("-")[0] == name)
    return found


def typed(at: AppTest, name: str, text: str) -> AppTest:
    """The page after `text` was typed into the control called `name`."""
    found = widget(at, name)
    found.options.append(text)  # AppTest can choose from a list but not type into it
    return drawn(found.set_value(text))


def button(at: AppTest, key: str):
    return at.button(key=key)


def chooser(at: AppTest):
    """The list of runs."""
    (found,) = (box for box in at.selectbox if box.key.startswith("run-"))
    return found


def address(at: AppTest) -> list[tuple[str, str]]:
    held = at.query_params
    return [(name, v) for name, vs in held.items() for v in ([vs] if isinstance(vs, str) else vs)]


def errors(at: AppTest) -> str:
    return "\n".join(error.value.replace("\\", "") for error in at.error)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_control_with_its_label_and_help(name):
    found = widget(page(), name)
    assert found.label.startswith(about(name).label)
    assert about(name).help in found.help
    assert found.value in (getattr(Settings(), name), written(getattr(Settings(), name)))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "0.03", 0.03),
        ("learning_rate", "1e-3", 0.001),
        ("batch_size", "full", "full"),
        ("batch_size", "77", 77),
        ("delta", "0.5", 0.5),
        ("width", "10", 10),
    ],
)
def test_what_is_typed_is_asked_and_stands_in_the_address(name, text, value):
    at = page()
    typed(at, name, text)
    assert not at.error
    assert from_query(address(at)) == Experiment(settings=Settings(**{name: value}))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("learning_rate", "-1", "learning_rate is -1.0; allowed is above 0 and at most 100."),
        ("learning_rate", "fast", "learning_rate is fast; allowed is above 0 and at most 100."),
        ("learning_rate", "NaN", "learning_rate is nan; allowed is above 0 and at most 100."),
        ("batch_size", "1", "batch_size is 1; batch norm needs at least 2 examples to have a variance."),
        ("batch_size", "99999", "batch_size is 99999; digits has only 1437 training examples."),
        ("seeds", "1, 1", "each seed may stand there once."),
        ("seeds", "one", "allowed are 1 to 8 whole numbers"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_lost(name, text, sentence):
    at = page(("depth", "7"))
    typed(at, name, text)
    assert sentence in errors(at)
    assert button(at, "train").disabled
    assert widget(at, name).value == text
    assert widget(at, "depth").value == 7
    assert address(at) == [("depth", "7")], "the address keeps the last question that can be asked"


def test_a_mistake_put_right_can_be_trained():
    at = page()
    typed(at, "batch_size", "1")
    typed(at, "batch_size", "16")
    assert not at.error
    assert not button(at, "train").disabled


def test_an_address_keeps_every_digit():
    asked = Experiment(settings=Settings(learning_rate=0.1234567891, alpha=0.99999999, delta=1e-300, init_gain=1 / 3))
    assert from_query(to_query(asked)) == asked
    assert to_query(Experiment(settings=Settings(learning_rate=0.03))) == [("learning_rate", "0.03")]


def test_an_address_opens_as_the_experiment_it_says_and_is_kept():
    asked = Experiment(
        settings=Settings(depth=5, activation="relu", learning_rate=0.03, batch_size="full"),
        arms=(Arm(label="*LN* & [x](y)", changes={"norm": "layer"}), Arm(label="deep", changes={"init_gain": 2.0})),
        seeds=(3, 5),
    )
    at = page(*to_query(asked))
    assert not at.error
    assert widget(at, "depth").value == 5
    assert from_query(address(at)) == asked
    assert from_query(address(drawn(at))) == asked


@pytest.mark.parametrize(
    ("pair", "sentence", "held"),
    [
        (("depth", "1000"), "depth is 1000; allowed is a whole number from 1 to 100.", "1000"),
        (("depth", "[" * 3000), "depth is [[[", "[" * 3000),
        (("activation", "relux"), "activation is relux; allowed is one of linear, ", "relux"),
        (("norm", "both"), "norm is both; allowed is one of none, batch, layer.", "both"),
        (("learning_rate", "-1"), "learning_rate is -1.0; allowed is above 0 and at most 100.", "-1"),
        (("seeds", ""), "allowed are 1 to 8 whole numbers from 0 to 2147483647.", ""),
        (("batch_size", "1"), "batch_size is 1; batch norm needs at least 2 examples", "1"),
        (("standardize", "maybe"), "standardize is maybe; allowed is true or false.", None),
        (("colour", "red"), "colour is not a known field", None),
        (("arm", "a;colour=red"), "colour is not a known field", None),
        (("arm", "x" * 41), "allowed are 1 to 40 characters.", None),
        (("arm", ""), "an arm's label is empty; allowed are 1 to 40 characters.", None),
        (("run", "nothing"), "There is no run 'nothing' here.", None),
    ],
)
def test_a_bad_address_is_a_sentence_and_the_rest_of_it_is_kept(pair, sentence, held):
    at = page(("width", "12"), pair, closed=True)
    assert sentence in errors(at)
    assert widget(at, "width").value == "12"
    if held is not None:
        assert widget(at, pair[0]).value == held
        assert pair in address(at) and button(at, "train").disabled


def test_too_many_arms_in_an_address_are_a_sentence():
    at = page(*(("arm", str(i)) for i in range(MAX_ARMS + 3)), closed=True)
    assert "allowed are 1 to 6 arms" in errors(at)
    assert len(from_query(address(at)).arms) == MAX_ARMS


def test_what_is_wrong_is_said_beside_train_and_at_the_control_it_speaks_of():
    at = page(("arm", "one;norm=batch"), ("arm", "two;norm=batch;batch_size=1"))
    typed(at, "batch_size", "1")
    told = [error.value.replace("\\", "") for error in at.error]
    sentence = "batch_size is 1; batch norm needs"
    assert sorted(text.count(f"arm 'one': {sentence}") for text in told) == [0, 1, 1]
    assert sorted(text.count(f"arm 'two': {sentence}") for text in told) == [0, 1, 1]
    (own,) = (error for error in told if error.startswith("arm 'one'"))
    assert "'two'" not in own, "each in its own place"


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


def test_train_makes_a_run_and_the_address_opens_it():
    at = page(("depth", "3"))
    drawn(button(at, "train").click())
    (run,) = opened.store().runs()
    assert run.experiment == Experiment(settings=Settings(depth=3))
    assert run.status == "queued"
    assert address(at) == [("depth", "3"), ("run", run.id)]
    again = page(("run", run.id))
    assert widget(again, "depth").value == 3
    assert chooser(again).value == run.id


def test_a_browser_that_has_not_heard_of_the_new_address_does_not_bring_the_old_one_back():
    def asks_late(old: list[tuple[str, str]]) -> AppTest:
        at.query_params.clear()
        for name, value in old:
            at.query_params[name] = value
        return drawn(at)

    at = drawn(button(page(), "train").click())
    first = address(at)
    drawn(button(at, "train").click())
    second = address(at)
    assert first != second
    assert address(asks_late(first)) == second  # a rerun that was under way
    assert address(drawn(at)) == second
    assert address(asks_late(first)) == first  # the visitor went back

    (run,) = first
    typed(at, "learning_rate", "0.03")
    assert address(asks_late([run])) == [("learning_rate", "0.03"), run]


def test_reset_asks_the_same_question_again():
    at = page(("depth", "3"))
    drawn(button(at, "train").click())
    drawn(button(at, "reset").click())
    newer, older = opened.store().runs()
    assert newer.experiment == older.experiment
    assert older.status == "stopped"
    assert newer.status == "queued"


def test_a_page_switch_keeps_the_question_and_the_run():
    at = page()
    drawn(widget(at, "depth").set_value(11))
    typed(at, "learning_rate", "0.07")
    drawn(button(at, "train").click())
    (run,) = opened.store().runs()
    at.switch_page("runs.py")
    drawn(at)
    assert any(run.name in m.value.replace("\\", "") for m in at.markdown)
    at.switch_page("lab.py")
    drawn(at)
    assert widget(at, "depth").value == 11
    assert widget(at, "learning_rate").value == "0.07"
    assert address(at) == [("depth", "11"), ("learning_rate", "0.07"), ("run", run.id)]


def test_runs_are_renamed_opened_and_deleted():
    store = opened.store()
    run = store.create(Experiment(settings=Settings(depth=9)), name="first")
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    drawn(at.text_input(key=f"name-{run.id}").set_value("[second](x)"))
    assert store.run(run.id).name == "[second](x)"
    drawn(button(at, f"open-{run.id}").click())
    assert widget(at, "depth").value == 9
    at.switch_page("runs.py")
    drawn(at)
    drawn(button(at, f"delete-{run.id}").click())
    assert not store.runs()


def test_runs_of_one_name_are_told_apart():
    asked = Experiment(settings=Settings(depth=3))
    runs = [opened.store().create(asked, name="twin") for _ in range(3)]
    for run in runs:
        at = page(("run", run.id))
        offered = chooser(at).options
        assert len(set(offered)) == len(offered) == 4, "the three and the example"
        drawn(at)
        assert address(at) == [("depth", "3"), ("run", run.id)]


def test_a_run_that_was_deleted_meanwhile_is_a_sentence():
    shown, other = (opened.store().create(Experiment(), name=name) for name in ("one", "two"))
    at = page(("run", shown.id))
    opened.store().delete(other.id)
    drawn(chooser(at).set_value(other.id))
    assert f"There is no run '{other.id}' here." in errors(at)
    assert address(at) == [("run", shown.id)]


def test_the_shipped_example_is_shown_before_the_first_click():
    at = page()
    assert not at.info
    example = opened.example_run()
    assert chooser(at).value == example.id
    assert example.experiment == Experiment(), "make it again: docs/example.py"
    assert example.status == "done"


def test_an_older_copy_of_the_example_gives_way(tmp_path):
    example = opened.example_run()
    opened.example().delete(example.id)
    copy = tmp_path / "example" / opened.FILE
    os.utime(copy, (0, 0))
    opened.close()
    assert opened.example_run() == example


@pytest.mark.parametrize("label", ["BN", "a long label of an arm"])
def test_arms_are_buttons_where_there_is_room_and_else_a_list(label):
    arms = tuple(Arm(label=f"{label} {i}") for i in range(3))
    at = page(("run", opened.store().create(Experiment(arms=arms)).id))
    (view,) = (group for group in at.get("button_group") if group.key == "view")
    drawn(view.set_value("Distributions"))
    (found,) = (w for kind in ("selectbox", "button_group") for w in at.get(kind) if "option-arm" in (w.key or ""))
    assert found.options == [arm.label for arm in arms]
    assert (found.type == "selectbox") == (len(label) > 2)


def test_the_data_are_previewed_only_where_asked(monkeypatch):
    from pages.parts import live

    charts = []
    monkeypatch.setattr(live, "chart", lambda address, options, *more, **most: charts.append((address, options)))
    at = page(("data", "breast_cancer"), ("standardize", "false"))
    assert not [address for address, _ in charts if address.startswith("/api/data/")]
    at.session_state["preview"] = True
    drawn(at)
    assert ("/api/data/breast_cancer", {"standardize": "false"}) in charts


def test_sliders_stay_within_the_limits():
    at = page()
    assert (widget(at, "depth").min, widget(at, "depth").max) == limits("depth")


def test_what_tells_runs_of_one_name_apart_stands_first():
    """The chooser cuts off the end of a long label."""
    runs = [opened.store().create(Experiment(), name="twin " * 20) for _ in range(2)]
    options = chooser(page()).options
    for run in runs:
        assert any(option.startswith(f"{run.created:%b %d, %H:%M:%S} · twin") for option in options)


def test_the_title_of_an_arm_is_its_new_label_at_once():
    at = page()
    drawn(widget(at, "label-1").set_value("renamed"))
    assert [e.label for e in at.expander if e.label in ("renamed", "no norm")] == ["renamed"]


def test_a_fork_starts_again_as_a_fork_and_with_another_question_as_a_run_of_its_own():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=3)))
    store.db.execute("insert into snapshots values (?, 0, 50, x'00')", (parent.id,))
    fork = store.fork(parent.id, 1, 50, {"learning_rate": 0.5})
    at = page(("run", fork.id))
    for key in ("reset", "train"):
        drawn(button(at, key).click())
        newest = store.runs()[0]
        assert address(at)[-1] == ("run", newest.id) and newest.id != fork.id
        assert store.origin(newest.id) == (parent.id, 1, 50), key
    typed(at, "learning_rate", "0.03")
    drawn(button(at, "train").click())
    assert store.origin(store.runs()[0].id) is None
    store.delete(parent.id)
    at = page(("run", fork.id))
    runs = len(store.runs())
    drawn(button(at, "reset").click())
    assert "the weights of step 50 that this fork began with are gone" in errors(at) and len(store.runs()) == runs
