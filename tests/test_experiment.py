"""The question: all that is wrong with it is told at once, and what no machine here could answer is refused."""

import copy
import json
import pickle

import pytest
from pydantic import ValidationError

from bnlab.address import from_query, to_query
from bnlab.experiment import DEFAULT_ARMS, Arm, Experiment, Settings
from bnlab.problems import in_a_line, problems
from bnlab.train import train


def test_all_that_is_wrong_with_a_question_is_told_at_once():
    arms = [
        {"label": "a"},
        {"label": "a", "changes": {"steps": 3, "depth": 0}},
        {"label": "b", "changes": {"batch_size": 0}},
    ]
    asked = {"settings": {"width": 0, "batch_size": 9999, "alpha": 2}, "arms": arms, "seeds": [1, 1]}
    for read in (Experiment.model_validate, lambda q: Experiment.model_validate_json(json.dumps(q))):
        with pytest.raises(ValidationError) as error:
            read(asked)
        starts = (
            "width is 0", "alpha is 2", "batch_size is 9999; digits has only", "two arms are called 'a'",
            "seeds are [1, 1]", "arm 'a': steps is shared", "arm 'a': depth is 0", "arm 'b': batch_size is 0",
        )  # fmt: skip
        told = problems(error.value)
        assert len(told) == len(starts) and all(map(str.startswith, told, starts)), told


@pytest.mark.parametrize("wrong", [{"data": "mars"}, {"norm": "both"}, {"batch_size": "many"}])
def test_nothing_is_told_of_the_default_that_stands_where_a_field_is_wrong(wrong):
    asked = {"data": "gaussian", "batch_size": 1500, "norm": "layer", "width": 1} | wrong
    with pytest.raises(ValidationError) as error:
        Settings.model_validate(asked)
    told = problems(error.value)
    (name,) = wrong
    assert told[0].startswith(f"{name} is {wrong[name]}; allowed")
    assert [sentence.split()[0] for sentence in told[1:]] == ([] if name == "norm" else ["width"])


@pytest.mark.parametrize(
    ("label", "has"),
    [
        ("a;b", "a semicolon. Remove it."),
        (" a", "a space at its start or end. Remove it."),
        ("a\nb", "a line break. Remove it."),
        ("ä\u202eb", "an unprintable character (U+202E). Remove it."),
        ("a\0\0\x7f", "an unprintable character (U+0000). Remove it."),
        ("a;b\r\n ", "a line break, a semicolon and a space at its start or end. Remove them."),
        ("\u2003a", "an unprintable character (U+2003). Remove it."),
    ],
)
def test_a_label_is_told_what_it_has_and_nothing_else(label, has):
    with pytest.raises(ValidationError) as error:
        Arm(label=label)
    assert problems(error.value) == [f"arm label {label!r} has {has}"]
    Arm(label="größe × 2 “ok” 名")


@pytest.mark.parametrize(
    ("seeds", "words"), [([0], "a network of this size needs"), ([0, 1], "2 networks of this size need")]
)
def test_networks_too_large_for_a_worker_are_counted(seeds, words):
    asked = {"settings": {"depth": 100, "width": 1024}, "arms": [{"label": "x"}], "seeds": seeds}
    with pytest.raises(ValidationError, match=f"{words} about .* GB; the limit is 2 GB"):
        Experiment.model_validate(asked)


def test_what_the_store_cannot_keep_is_refused_beforehand():
    asked = {"depth": 84, "width": 1024, "steps": 1, "batch_size": 8, "optimizer": "adam"}
    with pytest.raises(
        ValidationError, match=r"takes 1.05 GB; the limit is 0.95 GB. Lower depth, width, arms or seeds"
    ):
        Experiment.model_validate({"settings": asked, "arms": [{"label": "x"}]})
    Experiment.model_validate({"settings": asked | {"optimizer": "sgd"}, "arms": [{"label": "x"}]})


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_the_size_of_a_snapshot_is_known_beforehand(optimizer):
    settings = Settings(data="wine", depth=4, width=96, batch_size=16, steps=0, optimizer=optimizer)
    asked = Experiment(settings=settings, arms=(Arm(label="BN", changes={"norm": "batch"}), Arm(label="none")))
    (record,) = train(asked)
    assert asked.snapshot_size(asked.stacks[0]) == pytest.approx(record.weights[0].nbytes, rel=0.03)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_arms_that_are_left_out_are_what_their_labels_say(norm):
    """No norm was normalized where the settings had a norm."""
    asked = {"settings": {"norm": norm, "placement": "after"}}
    for found in (Experiment.model_validate(asked), Experiment.model_validate_json(json.dumps(asked))):
        assert [s.norm for s in found.arm_settings] == ["none", "batch", "batch"]
        assert [arm.label for arm in found.arms] == [arm.label for arm in DEFAULT_ARMS]
        assert from_query(to_query(found)) == found and Experiment.model_validate_json(found.model_dump_json()) == found
    assert Experiment().arms == DEFAULT_ARMS and not to_query(Experiment())
    pairs = [("norm", norm), ("placement", "after")]
    assert from_query(pairs) == found and to_query(found) == pairs, "an address means what a file means"
    as_they_stand = Experiment(settings=Settings(norm=norm), arms=DEFAULT_ARMS)
    assert ("arm", "no norm") in to_query(as_they_stand) and from_query(to_query(as_they_stand)) == as_they_stand


def test_nothing_between_two_semicolons_of_an_address_is_no_change():
    """It was told to 'keep one' of '=, =, ='."""
    found = from_query([("arm", "A;;norm=batch;"), ("arm", "B")])
    assert [(arm.label, arm.changes) for arm in found.arms] == [("A", {"norm": "batch"}), ("B", {})]
    with pytest.raises(ValidationError) as refused:
        from_query([("arm", ";;;")])
    assert "=" not in problems(refused.value)[0]


@pytest.mark.parametrize(
    ("name", "told"), [("", '""'), (" ", '" "'), ("depth ", '"depth "'), ("colour", "colour"), ("interval", "interval")]
)
def test_an_unknown_field_is_named_so_that_it_is_seen(name, told):
    for asked, known in (({"settings": {name: 1}}, "data, "), ({name: 1}, "settings, arms, seeds.")):
        with pytest.raises(ValidationError) as error:
            Experiment.model_validate(asked)
        (sentence,) = problems(error.value)
        assert sentence.startswith(f"{told} is not a known field; ") and f"known are {known}" in sentence.lower()


@pytest.mark.parametrize("settings", [{}, {"width": 0}])
def test_an_arm_that_changes_an_unknown_field_is_told_what_it_may_change(settings):
    with pytest.raises(ValidationError) as error:
        Experiment.model_validate({"settings": settings, "arms": [{"label": "a", "changes": {"colour": 1}}]})
    told = problems(error.value)[-1]
    assert told.startswith("arm 'a': colour is not a known field; known are data, ") and told.endswith("sampling.")


def test_a_question_does_not_change_and_can_be_a_key():
    asked, same = (Experiment(arms=[Arm(label="a", changes={"norm": "batch"}), Arm(label="b")]) for _ in range(2))
    assert asked == same and hash(asked) == hash(same) and len({asked: 1, same: 2}) == 1
    for change in ("__setitem__", "update", "setdefault", "__ior__"):
        for arm in asked.arms:
            with pytest.raises(TypeError, match="stay as they are; make another arm"):
                getattr(arm.changes, change)({} if change in ("update", "__ior__") else "depth", 3)
    for copied in (pickle.loads(pickle.dumps(asked)), copy.copy(asked), copy.deepcopy(asked), asked.model_copy()):
        assert copied == asked and hash(copied) == hash(asked)
    assert asked.model_dump()["arms"][0]["changes"] == {"norm": "batch"}
    assert type(asked.model_dump()["arms"][0]["changes"]) is dict
    assert Experiment.model_validate_json(asked.model_dump_json()) == asked


def test_arms_of_the_same_settings_are_told():
    arms = [Arm(label="a"), Arm(label="b", changes={"alpha": 0.5}), Arm(label="c", changes={"norm": "none"})]
    assert Experiment(arms=arms).alike == ["a and c ask the same question: their curves will coincide."]
    assert not Experiment(arms=arms[:2]).alike and not Experiment().alike


def test_what_an_error_says_is_a_line_of_at_most_200_characters():
    assert in_a_line(RuntimeError("CUDA error:\n  out of\tmemory\n")) == "CUDA error: out of memory"
    assert in_a_line(ValueError("x" * 300)) == "x" * 200


def test_a_long_value_is_cut_short_in_the_sentence_about_it():
    for length, told in ((60, "x" * 60), (61, "x" * 57 + "...")):
        with pytest.raises(ValidationError) as error:
            Settings(data="x" * length)
        assert problems(error.value)[0].startswith(f"data is {told}; allowed is one of digits, ")
