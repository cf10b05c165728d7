"""The question stands in the address: every digit, every arm, and in a bad address all that can be asked."""

import pytest
from lab_page import address, button, drawn, errors, page, typed, widget
from pydantic import ValidationError
from streamlit.testing.v1 import AppTest

from bnlab.address import from_query, to_query
from bnlab.experiment import Arm, Experiment
from bnlab.problems import problems
from bnlab.settings import MAX_ARMS, Settings

pytestmark = pytest.mark.usefixtures("lab")


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
        (("depth", "1000"), "Depth L (hidden layers) is 1000; allowed is a whole number from 1 to 100.", "1000"),
        (("depth", "[" * 3000), "Depth L (hidden layers) is [[[", "[" * 3000),
        (("activation", "relux"), "Activation h is relux; allowed is one of linear, ", "relux"),
        (("norm", "both"), "Normalization is both; allowed is one of none, batch, layer.", "both"),
        (("learning_rate", "-1"), "Learning rate η is -1; allowed is above 0 and at most 100.", "-1"),
        (("seeds", "a,b"), "Seeds are a, b; allowed are 1 to 8 whole numbers", "a, b"),
        (("seeds", ""), "allowed are 1 to 8 whole numbers from 0 to 2,147,483,647.", ""),
        (("batch_size", "1"), "Mini-batch size K (examples) is 1; batch norm needs at least 2 examples", "1"),
        (("standardize", "maybe"), "standardize is maybe; allowed is true or false.", None),
        (("colour", "red"), "colour is not a known field; known are data, ", None),
        (("seed", "1"), "seed is not a known field; did you mean seeds? Known are data, ", None),
        (("arm", "a;colour=red"), "colour is not a known field", None),
        (("arm", "x" * 41), "allowed are 1 to 40 characters.", None),
        (("arm", ""), "An arm's label is empty; allowed are 1 to 40 characters.", None),
        (("run", "nothing"), "There is no run 'nothing' here.", None),
    ],
)
def test_a_bad_address_is_a_sentence_and_the_rest_of_it_is_kept(pair, sentence, held):
    at = page(("width", "12"), pair, closed=True)
    assert sentence in errors(at)
    assert "{" not in errors(at), "no JSON"
    assert widget(at, "width").value == "12"
    assert pair in address(at), "the visitor's own words can be put right in the bar"
    if held is not None:
        assert widget(at, pair[0]).value == held
        assert button(at, "train").disabled


def test_a_wrong_address_is_told_and_stays_until_something_else_is_asked():
    at = drawn(page(("nonsense", "4")))
    assert "nonsense is not a known field" in errors(at) and address(at) == [("nonsense", "4")]
    typed(at, "learning_rate", "0.03")
    assert not at.error and address(at) == [("learning_rate", "0.03")]
    at = drawn(button(page(("nonsense", "4")), "train").click())
    assert not at.error
    assert [name for name, _ in address(at)] == ["run"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", ".1", 0.1),
        ("learning_rate", "1.", 1.0),
        ("learning_rate", "+0.5", 0.5),
        ("learning_rate", " 0.5", 0.5),  # of a plus in a query
        ("learning_rate", "00.5", 0.5),
        ("learning_rate", "+.5e-1", 0.05),
        ("learning_rate", "03", 3.0),
        ("depth", "+3", 3),
        ("depth", "03", 3),
        ("depth", "3.", 3),
        ("depth", "3e1", 30),
        ("steps", "1e6", 1_000_000),
        ("batch_size", "1e3", 1000),
        ("steps", "20,000", 20_000),
    ],
)
def test_what_is_a_number_to_a_person_is_one(name, text, value):
    read = getattr(from_query([(name, text)]).settings, name)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "told"), [("3.5", "3.5"), ("2.999", "2.999"), ("1e30", "1e+30"), ("-1e30", "-1e+30"), ("-1e1", "-10")]
)
def test_no_digit_is_left_out_of_a_wrong_number_and_none_made_up(text, told):
    """Half a layer is not cut off, and of 1e30 no 31 digits are told, of which a float knows 16."""
    with pytest.raises(ValidationError) as error:
        from_query([("depth", text)])
    assert problems(error.value) == [f"depth is {told}; allowed is a whole number from 1 to 100."]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("learning_rate", "0,05", '"0,05", which is not a number; allowed is above 0 and at most 100.'),
        ("learning_rate", "0,050", '"0,050", which is not a number; allowed is above 0 and at most 100.'),
        ("learning_rate", "abc", "abc, which is not a number; allowed is above 0 and at most 100."),
        ("learning_rate", ".", "., which is not a number; allowed is above 0 and at most 100."),
        ("learning_rate", "٣", '"٣", which is not a number; allowed is above 0 and at most 100.'),
        ("depth", "0,005", '"0,005"; allowed is a whole number from 1 to 100.'),
        ("depth", "+", "+; allowed is a whole number from 1 to 100."),
    ],
)
def test_what_is_no_number_is_said_to_be_none(name, text, told):
    with pytest.raises(ValidationError) as error:
        from_query([(name, text)])
    assert problems(error.value) == [f"{name} is {told}"]


@pytest.mark.parametrize("text", ["0,1", "0, 1", "0,+1", "0 1", " 0 , 1 ", "0+1", "0,1,"])
def test_seeds_are_parted_by_commas_blanks_or_pluses(text):
    assert from_query([("seeds", text)]).seeds == (0, 1)
    at = page(("seeds", text), closed=True)
    assert not at.error and address(at) == [("seeds", "0,1")]


@pytest.mark.parametrize("text", ["0, x", "x,  y", "a b", " ", "0,-1", "9" * 5000, ",".join(map(str, range(-3000, 0)))])
def test_wrong_seeds_are_a_sentence_without_two_blanks(text):
    with pytest.raises(ValidationError) as error:
        from_query([("seeds", text)])
    (told,) = problems(error.value)
    assert told.startswith("seeds are " if text.strip() else "there are no seeds")
    assert "  " not in told and " ;" not in told and len(told) < 400
    assert told.endswith("; allowed are 1 to 8 whole numbers from 0 to 2,147,483,647.")


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ((("depth", "3"), ("depth", "5")), "depth= appears more than once: depth=3, depth=5. Keep one."),
        ((("depth", "3"), ("depth", "3")), "depth= appears more than once: depth=3, depth=3. Keep one."),
        ((("seeds", "0"), ("seeds", "1")), "seeds= appears more than once: seeds=0, seeds=1. Keep one."),
        ((("run", "x"), ("run", "y")), "run= appears more than once: run=x, run=y. Keep one."),
        (
            (("arm", "a;norm=batch;norm=none"),),
            "Arm 'a': norm= appears more than once: norm=batch, norm=none. Keep one.",
        ),
    ],
)
def test_what_stands_twice_in_an_address_is_refused_and_stays(pairs, sentence):
    at = drawn(page(("width", "12"), *pairs, closed=True))
    assert sentence in errors(at) and errors(at).count("more than once") == 1
    assert address(at) == [("width", "12"), *pairs]
    assert widget(at, "width").value == "12"


def test_what_stands_twice_is_told_with_all_else_that_is_wrong():
    with pytest.raises(ValidationError) as error:
        from_query([("depth", "3"), ("depth", "5"), ("width", "0")])
    width, depth = problems(error.value)
    assert width.startswith("width is 0; allowed") and depth.startswith("depth= appears more than once")
    asked = from_query([("arm", "a;norm=batch"), ("arm", "b;norm=layer;depth=3"), ("depth", "4")])
    assert [arm.changes for arm in asked.arms] == [{"norm": "batch"}, {"norm": "layer", "depth": 3}]


def test_what_is_wrong_with_an_address_is_a_list_of_sentences():
    """They ran together in one line. The name of a field stays as it is written, and so does what is no field."""
    at = page(
        ("nonsense", "4"), ("a", "1"), ("run", "gone"), ("depth", "3"), ("depth", "5"), *[("arm", "a")] * 9, closed=True
    )
    (told,) = (error for error in errors(at).split("This ")[1:] if error.startswith("address"))
    first, _, *sentences = told.splitlines()
    assert first == "address cannot be opened as it is:"
    assert all(sentence.startswith("- ") and sentence.endswith(".") for sentence in sentences[:5])
    found = (
        "There is no run",
        "nonsense is not a known field;",
        "a is not a known field;",
        "There are 9 arms;",
        "depth= appears more than once:",
    )
    assert all(any(sentence.startswith(f"- {words}") for sentence in sentences) for words in found)


def test_too_many_arms_in_an_address_are_a_sentence():
    at = page(*(("arm", str(i)) for i in range(MAX_ARMS + 3)), closed=True)
    assert "There are 9 arms; allowed are 1 to 6 arms" in errors(at)
    assert "{" not in errors(at), "no JSON"
    assert len(at.session_state.mine.draft["arms"]) == MAX_ARMS


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
