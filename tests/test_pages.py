"""The controls of the Lab, driven without a browser: each has its label, and bad input is a sentence."""

import pytest
from lab_page import address, button, drawn, errors, page, typed, widget

from bnlab.address import from_query, to_text
from bnlab.experiment import Experiment
from bnlab.figures import FIGURES
from bnlab.settings import Settings, about
from pages.parts.controls import END, KEPT
from pages.parts.views import INFERENCE, LAB, WHY

pytestmark = pytest.mark.usefixtures("lab")


def test_every_figure_stands_in_one_view():
    shown = [name for views in (LAB, INFERENCE, WHY) for names in views.values() for name in names]
    assert sorted(shown) == sorted(FIGURES)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_control_with_its_label_and_help(name):
    found = widget(page(), name)
    assert found.label.startswith(about(name).label)
    assert about(name).help in found.help
    assert found.value in (getattr(Settings(), name), to_text(getattr(Settings(), name)))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "0.03", 0.03),
        ("learning_rate", "1e-3", 0.001),
        ("batch_size", "full", "full"),
        ("batch_size", "77", 77),
        ("delta", "0.5", 0.5),
        ("width", "10", 10),
        ("steps", "20,000", 20_000),  # as the pages write it
        ("steps", "1e3", 1000),
        ("width", "1E2", 100),
        ("batch_size", "1e3", 1000),
        ("batch_size", "2.56e2", 256),
        ("batch_size", "Full", "full"),
        ("learning_rate", ".1", 0.1),
        ("width", "+3", 3),
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
        ("learning_rate", "-1", "Learning rate η is -1; allowed is above 0 and at most 100."),
        ("learning_rate", "1" + "0" * 400, f"Learning rate η is 1{'0' * 56}...; allowed is above 0 and at most 100."),
        (
            "learning_rate",
            "fast",
            "Learning rate η is fast, which is not a number; allowed is above 0 and at most 100.",
        ),
        ("learning_rate", "NaN", "Learning rate η is NaN; allowed is above 0 and at most 100."),
        ("steps", "1.5", "Steps (updates) is 1.5; allowed is a whole number from 0 to 1,000,000."),
        ("steps", "1e30", "Steps (updates) is 1e30; allowed is a whole number from 0 to 1,000,000."),
        (
            "batch_size",
            "1e400",
            "Mini-batch size K (examples) is 1e400; allowed is 1 to the size of the training set, or full.",
        ),
        (
            "batch_size",
            "1",
            "Mini-batch size K (examples) is 1; batch norm needs at least 2 examples to have a variance.",
        ),
        ("batch_size", "99999", "Mini-batch size K (examples) is 99999; digits has only 1,437 training examples."),
        ("seeds", "1, 1", "each seed may appear only once."),
        ("seeds", "0 1 2 3 4 5 6 7 8", "There are 9 seeds; allowed are 1 to 8 whole numbers"),
        ("seeds", "one", "allowed are 1 to 8 whole numbers"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_lost(name, text, sentence):
    at = page(("depth", "7"))
    typed(at, name, text)
    assert sentence in errors(at)
    assert button(at, "train").disabled
    assert widget(at, name).value.rstrip(END) == text
    assert widget(at, "depth").value == 7
    assert address(at) == [("depth", "7")], "the address keeps the last question that can be asked"


def test_a_mistake_put_right_can_be_trained():
    at = page()
    typed(at, "batch_size", "1")
    typed(at, "batch_size", "16")
    assert not at.error
    assert not button(at, "train").disabled


def test_what_is_wrong_is_said_beside_train_and_at_the_control_it_speaks_of():
    at = page(("arm", "one;norm=batch"), ("arm", "two;norm=batch;batch_size=1"))
    typed(at, "batch_size", "1")
    told = [error.value.replace("\\", "") for error in at.error]
    for arm in ("one", "two"):
        said = f"Arm '{arm}': Mini-batch size K (examples) is 1; batch norm needs"
        assert sorted(text.count(said) for text in told) == [0, 1, 1]
    (own,) = (error for error in told if error.startswith("Arm 'one'"))
    assert "'two'" not in own, "each in its own place"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("learning_rate", "1e999", "Learning rate η is 1e999; allowed is above 0"),
        ("learning_rate", "fast", "Learning rate η is fast, which is not a number; allowed is above 0"),
        ("alpha", "2", "Moving-average weight α is 2; allowed is 0 to 1."),
        ("steps", "5,5", 'Steps (updates) is "5,5"; allowed is a whole'),
        ("batch_size", "9e3", "Mini-batch size K (examples) is 9e3; digits has only"),
        ("learning_rate", "9" * 400, f"Learning rate η is {'9' * 57}...; allowed"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said_with_its_label_and_what_was_typed(name, text, words):
    at = page(("arm", "one"))
    typed(at, name, text)
    (below,), (beside,) = ([error.value.replace("\\", "") for error in of.error] for of in (at.sidebar, at.main))
    assert below.removeprefix("arm 'one': ").startswith(words)
    assert beside.endswith(f"\n\n- {below}")


def test_the_data_are_previewed_only_where_asked(monkeypatch):
    from pages.parts import live

    charts = []
    monkeypatch.setattr(live, "chart", lambda address, options, *more, **most: charts.append((address, options)))
    at = page(("data", "breast_cancer"), ("standardize", "false"))
    assert not [address for address, _ in charts if address.startswith("api/data/")]
    at.session_state["preview"] = True
    drawn(at)
    assert ("api/data/breast_cancer", {"standardize": "false"}) in charts


LIMITS = {"depth": (1, 100), "width": (1, 1024), "init_gain": (0, 100), "alpha": (0, 1), "delta": (0, 1)}
LIMITS |= {"noise_shift": (0, 10), "noise_scale": (0, 10), "learning_rate": (0, 100), "weight_decay": (0, 1)}
LIMITS |= {"batch_size": (1, 1437), "steps": (0, 10**6), "score_every": (0, 10**6), "budget_mb": (8, 16_384)}


def test_controls_offer_numbers_within_the_limits_and_reach_them():
    at = page()
    for name, (low, high) in LIMITS.items():
        found = widget(at, name)
        if found.type != "slider":
            offered = [text.replace(END, "") for text in found.options if not text.startswith(KEPT)]
            offered = [float(text) for text in offered if text != "full"]
            assert low <= min(offered) and high / 10 < max(offered) <= high, name
        else:
            assert (found.min, found.max) == (low, high), name
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
    assert {*LIMITS} == numbers | {"batch_size"}
